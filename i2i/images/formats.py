"""Which picture formats there are: the suffixes of those that are read, written, and known but not read.

Suffixes decide what a folder run looks at and how a result is written; what a file is, its content says.
"""

from typing import Literal

Format = Literal["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF"]

READ: dict[str, Format] = {
    ".png": "PNG",
    ".apng": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".mpo": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".ppm": "PPM",
    ".pgm": "PPM",
    ".pbm": "PPM",
    ".pnm": "PPM",
    ".avif": "AVIF",
}
SUFFIXES = frozenset(READ)
NAMES: dict[Format, str] = {
    "JPEG": "JPEG",
    "PNG": "PNG",
    "WEBP": "WebP",
    "TIFF": "TIFF",
    "BMP": "BMP",
    "GIF": "GIF",
    "PPM": "PPM/PGM/PBM",
    "AVIF": "AVIF",
}

# a file of several pictures, or of less depth than a result has, must not give its name to one of another kind
_WRITTEN_AS = {".apng": ".png", ".gif": ".png", ".pbm": ".png", ".mpo": ".jpg"}
WRITTEN: dict[str, Format] = {suffix: format for suffix, format in READ.items() if suffix not in _WRITTEN_AS}

DEEP: frozenset[Format] = frozenset({"PNG", "PPM", "TIFF"})
"""The formats written with more than 8 bits."""
WITH_ALPHA: frozenset[Format] = frozenset({"PNG", "WEBP", "AVIF", "TIFF"})
"""The formats written with transparency."""
WITH_METADATA: frozenset[Format] = frozenset({"PNG", "JPEG", "WEBP", "AVIF", "TIFF"})
"""The formats written with EXIF, XMP, resolution and a colour profile."""
WITH_PROFILE: frozenset[Format] = WITH_METADATA | {"BMP"}
"""The formats written with a colour profile and resolution."""
TEXTS_IN_EXIF = {"Description": 270, "Software": 305, "Author": 315, "Copyright": 33432}
"""The texts that EXIF and TIFF have a tag for."""

LOSSY: tuple[Format, ...] = ("JPEG", "WEBP", "AVIF")
"""Those that may change pixels."""

UNREAD: dict[str, str] = {
    ".heic": "HEIC",
    ".heif": "HEIF",
    ".hif": "HEIF",
    ".jp2": "JPEG 2000",
    ".j2k": "JPEG 2000",
    ".j2c": "JPEG 2000",
    ".jpf": "JPEG 2000",
    ".jpx": "JPEG 2000",
    ".jxl": "JPEG XL",
    ".jxr": "JPEG XR",
    ".wdp": "JPEG XR",
    ".psd": "Photoshop",
    ".psb": "Photoshop",
    ".xcf": "GIMP",
    ".kra": "Krita",
    ".tga": "Targa",
    ".ico": "icon",
    ".cur": "cursor",
    ".icns": "Apple icon",
    ".dds": "DDS",
    ".blp": "BLP",
    ".qoi": "QOI",
    ".sgi": "SGI",
    ".rgb": "SGI",
    ".ras": "Sun raster",
    ".pcx": "PCX",
    ".dib": "bitmap without file header",
    ".exr": "OpenEXR",
    ".hdr": "Radiance HDR",
    ".pfm": "PFM",
    ".pam": "PAM",
    ".fits": "FITS",
    ".fit": "FITS",
    ".dcm": "DICOM",
    ".nii": "NIfTI",
    ".eps": "PostScript",
    ".ps": "PostScript",
    ".ai": "Illustrator",
    ".pdf": "PDF",
    ".svg": "SVG",
    ".svgz": "SVG",
    ".wmf": "Windows metafile",
    ".emf": "Windows metafile",
    ".xpm": "XPM",
    ".xbm": "XBM",
    ".im": "IFUNC image",
    ".fli": "FLI animation",
    ".flc": "FLI animation",
    ".avifs": "AVIF animation",
    ".dng": "camera raw",
    ".cr2": "camera raw",
    ".cr3": "camera raw",
    ".nef": "camera raw",
    ".arw": "camera raw",
    ".orf": "camera raw",
    ".rw2": "camera raw",
    ".raf": "camera raw",
    ".pef": "camera raw",
    ".srw": "camera raw",
}


def written_suffix(suffix: str) -> str:
    """The suffix of a result whose input has `suffix`: the same where that format is written, in the same case.

    MPO becomes ".jpg"; GIF, APNG and PBM become ".png". A suffix of nothing that is read gets another behind it, for
    the content may be a picture nevertheless: a JPEG that is called .heic becomes ".heic.png". No suffix stays
    none, for `write` then goes by the content of the input.
    """
    kept = not suffix or suffix.lower() in WRITTEN
    return suffix if kept else _WRITTEN_AS.get(suffix.lower(), f"{suffix}.png")


def written_format(format: Format) -> Format:
    """The format of a result whose input has `format`: the same, except that GIF gives PNG."""
    return "PNG" if format == "GIF" else format
