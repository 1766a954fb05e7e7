"""What a file is by its first bytes, never by its name: a format that is read, or the name of one that is not."""

import re

from PIL import features

from i2i.images.formats import NAMES, Format

HEAD_BYTES = 4096
_AVIF_BRANDS = (b"avif", b"avis")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

_READ: tuple[tuple[bytes, Format], ...] = (
    # also where a transfer as text has broken the signature, so that the reason can say so
    (rb"\x89PNG|.?P[Nn][Gg]\r?\n", "PNG"),
    (rb"\xff\xd8", "JPEG"),
    (rb"RIFF....WEBP", "WEBP"),
    (rb"II[*+]\0|MM\0[*+]", "TIFF"),
    (rb"BM", "BMP"),
    (rb"GIF8[79]a", "GIF"),
    (rb"P[1-6][\s#]", "PPM"),
)
_UNREAD: tuple[tuple[bytes, str], ...] = (
    (rb"8BPS", "Photoshop"),
    (rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", "JPEG 2000"),
    (rb"\0\0\0\x0cJXL \r\n\x87\n|\xff\x0a", "JPEG XL"),
    (rb"II\xbc", "JPEG XR"),
    (rb"II(?:RO|RS|U\0)|FUJIFILMCCD-RAW|....ftypcrx ", "camera raw"),
    (rb"gimp xcf", "GIMP"),
    (rb"\0\0\x01\0[^\0]\0", "icon"),
    (rb"\0\0\x02\0[^\0]\0", "cursor"),
    (rb"icns", "Apple icon"),
    (rb"DDS ", "DDS"),
    (rb"BLP[12]", "BLP"),
    (rb"qoif", "QOI"),
    (rb"\x01\xda[\0\x01][\x01\x02]", "SGI"),
    (rb"\x59\xa6\x6a\x95", "Sun raster"),
    (rb"\x0a[\0\x02\x03\x05]\x01[\x01\x02\x04\x08]", "PCX"),
    (rb"v/1\x01", "OpenEXR"),
    (rb"#\?(?:RADIANCE|RGBE)", "Radiance HDR"),
    (rb"P[fF]\s", "PFM"),
    (rb"P7\s", "PAM"),
    (rb"SIMPLE  =", "FITS"),
    (rb".{128}DICM", "DICOM"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript"),
    (rb"%PDF", "PDF"),
    (rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF", "Windows metafile"),
    (rb"/\* XPM \*/", "XPM"),
    (rb"#define \w+_width", "XBM"),
    (rb"Image type:", "IFUNC image"),
    (rb"....[\x11\x12]\xaf", "FLI animation"),
    (rb"\x8aMNG|\x8bJNG", "MNG"),
    (rb"PK[\x03\x05][\x04\x06]", "a ZIP archive"),
    (rb".{257}ustar|[^\0].{99}(?:[ 0-7]{7}\0){3}", "a tar archive"),
    (rb"\x1f\x8b", "a gzip file"),
    (rb"\xfd7zXZ|BZh|7z\xbc\xaf|Rar!|\x28\xb5\x2f\xfd", "a compressed file"),
    (rb"RIFF....(?:AVI |WAVE)|\x1aE\xdf\xa3|....ftyp(?:isom|mp4|qt|M4V|avc1|3g)", "a video or sound file"),
    (rb"\x7fELF|MZ", "a program"),
    (rb"\s*(?i:<!doctype html|<html)", "an HTML page"),
    (rb"version https://git-lfs", "a Git LFS pointer"),
    # without a signature, so last: a palette or none, its length and depth, then 8 to 32 bits a pixel
    (
        rb".(?:\x01[\x01\x09].{4}[\x0f\x10\x18\x20]|\0[\x02\x03\x0a\x0b]\0{5}).{8}[\x08\x0f\x10\x18\x20][\0-\x3f]",
        "Targa",
    ),
)
_SVG = re.compile(rb"<(?:\w{1,20}:)?svg[\s/>]")
_TEXT = re.compile(rb"[\t\n\v\f\r\x20-\x7e\x80-\xff]+")


def format_of(head: bytes) -> Format | None:
    """The format that is read here and that a file with these first bytes has, or None."""
    if head[4:8] == b"ftyp":
        return "AVIF" if any(brand in _AVIF_BRANDS for brand in _brands(head)) else None
    return next((format for pattern, format in _READ if _matches(pattern, head)), None)


def refusal(head: bytes) -> str:
    """Why a file with these first bytes is not read, what it is named where that is known."""
    return f"{_name(head)}; read are {', '.join(readable())}"


def readable() -> list[str]:
    """The names of the formats that are read; AVIF only where Pillow has its decoder."""
    return [name for format, name in NAMES.items() if format != "AVIF" or features.check("avif")]


def _name(head: bytes) -> str:
    if head[4:8] == b"ftyp":
        brands = _brands(head)
        if any(brand in _AVIF_BRANDS for brand in brands):
            return "AVIF is not read by this build of Pillow"
        if any(brand in _HEIF_BRANDS for brand in brands):
            return "HEIF (HEIC) is not read here"
    for pattern, name in _UNREAD:
        if _matches(pattern, head):
            return f"{name} is not read here"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") and _SVG.search(head):
        return "SVG is not read here"
    if _TEXT.fullmatch(head):
        return "text is not read here"
    return "not a picture of a known format"


def _matches(pattern: bytes, head: bytes) -> bool:
    return re.match(pattern, head, re.DOTALL) is not None


def _brands(head: bytes) -> list[bytes]:
    box = head[: int.from_bytes(head[:4], "big")]
    return [box[8:12], *(box[i : i + 4] for i in range(16, len(box) - 3, 4))]
