"""Picture formats: their suffixes, the format of a file by its first bytes (`sniff`), and why one is not read.

Suffixes decide which files a folder run looks at and how a result is written. Content alone decides which
format a file has.
"""

import contextlib
import re
from collections.abc import Iterator
from typing import Literal

from PIL import Image, features

from i2i.errors import I2IError, ImageError

Format = Literal["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF", "HEIF", "NPY"]

# their names, suffixes, and what is written with them
_FORMATS: dict[Format, tuple[str, str, str]] = {
    "JPEG": ("JPEG", ".jpg .jpeg .jpe .jfif .mpo", "metadata lossy"),
    "PNG": ("PNG", ".png .apng", "deep alpha metadata"),
    "WEBP": ("WebP", ".webp", "alpha metadata lossy"),
    "TIFF": ("TIFF", ".tif .tiff", "deep alpha metadata"),
    "BMP": ("BMP", ".bmp", ""),
    "GIF": ("GIF", ".gif", ""),
    "PPM": ("PPM/PGM/PBM", ".ppm .pgm .pbm .pnm", "deep"),
    "AVIF": ("AVIF", ".avif", "alpha metadata lossy"),
    "HEIF": ("HEIC", ".heic .heif .hif", ""),
    "NPY": ("NPY", ".npy", "deep alpha"),
}
READ: dict[str, Format] = {suffix: format for format, (_, all, _) in _FORMATS.items() for suffix in all.split()}
SUFFIXES = frozenset(READ)
NAMES: dict[Format, str] = {format: name for format, (name, _, _) in _FORMATS.items()}

# a file of several pictures, or of less depth than a result has, must not give its name to one of another kind
_WRITTEN_AS = {".apng": ".png", ".gif": ".png", ".pbm": ".png", ".mpo": ".jpg"}
_WRITTEN_AS |= dict.fromkeys((".heic", ".heif", ".hif"), ".jpg")
WRITTEN: dict[str, Format] = {suffix: format for suffix, format in READ.items() if suffix not in _WRITTEN_AS}

DEEP, WITH_ALPHA, WITH_METADATA, LOSSY = (
    tuple(format for format, (_, _, kinds) in _FORMATS.items() if kind in kinds)
    for kind in ("deep", "alpha", "metadata", "lossy")
)
"""The formats written with more than 8 bits; with transparency, in an array as its last channel; with EXIF, XMP,
resolution and a colour profile; and those that may change pixels."""

_UNREAD = {
    "JPEG 2000, JPEG XL, JPEG XR": ".jp2 .j2k .j2c .jpf .jpx .jxl .jxr .wdp",
    "programs that paint": ".psd .psb .xcf .kra",
    "other bitmaps": ".tga .ico .cur .icns .dds .blp .qoi .sgi .rgb .ras .pcx .dib .xpm .xbm .im",
    "high dynamic range, science": ".exr .hdr .pfm .pam .fits .fit .dcm .nii",
    "drawings, pages, animations": ".eps .ps .ai .pdf .svg .svgz .wmf .emf .fli .flc .avifs",
    "camera raw": ".dng .cr2 .cr3 .nef .arw .orf .rw2 .raf .pef .srw",
}
UNREAD = frozenset(suffix for suffixes in _UNREAD.values() for suffix in suffixes.split())
"""Suffixes of picture formats that are not read."""

HEAD_BYTES = 4096
"""How many of the first bytes `sniff` needs."""
_SIGNATURES: tuple[tuple[bytes, Format], ...] = (
    # also where a transfer as text has broken the signature, so that the reason can say so
    (rb"\x89PNG|.?P[Nn][Gg]\r?\n", "PNG"),
    (rb"\xff\xd8", "JPEG"),
    (rb"RIFF....WEBP", "WEBP"),
    (rb"II[*+]\0|MM\0[*+]", "TIFF"),
    (rb"BM", "BMP"),
    (rb"GIF8[79]a", "GIF"),
    (rb"\x93NUMPY", "NPY"),
    (rb"P[1-6][\s#]", "PPM"),
    (rb"....ftyp(?:avif|avis|.{8}(?:.{4}){0,30}?avi[fs])", "AVIF"),
    (rb"....ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1)", "HEIF"),
)
# files that people take for pictures, or find in the place of one; all others go by Pillow's signatures
_OTHERS = (
    (rb"\0\0\0\x0cJXL \r\n\x87\n|\xff\x0a", "JPEG XL"),
    (rb"II\xbc", "JPEG XR"),
    (rb"II(?:RO|RS|U\0)|FUJIFILMCCD-RAW|....ftypcrx ", "camera raw"),
    (rb"v/1\x01", "OpenEXR"),
    (rb"#\?(?:RADIANCE|RGBE)", "Radiance HDR"),
    (rb"P[fF]\s", "PFM"),
    (rb"P7\s", "PAM"),
    (rb".{128}DICM", "DICOM"),
    (rb"%PDF", "PDF"),
    (rb"(?:\xef\xbb\xbf)?\s*<(?:.*<)?(?:\w{1,20}:)?svg[\s/>]", "SVG"),
    (rb"PK[\x03\x05][\x04\x06]", "a ZIP archive"),
    (rb"\x1f\x8b|\xfd7zXZ|BZh|7z\xbc\xaf|Rar!|\x28\xb5\x2f\xfd", "a compressed file"),
    (rb"RIFF....(?:AVI |WAVE)|\x1aE\xdf\xa3|....ftyp(?:isom|mp4|qt|M4V|avc1|3g)", "a video or sound file"),
    (rb"\s*(?i:<!doctype html|<html)", "an HTML page"),
    (rb"version https://git-lfs", "a Git LFS pointer"),
)
_TEXT = rb"[\t\n\v\f\r\x20-\x7e\x80-\xff]+"
# messages of Pillow that are for its developers
_PLAINER = (
    (r"not identified by this driver", "its header names no size or an unknown kind of pixels"),
    (r"decoder error -?\d+", "its compressed pixels cannot be unpacked"),
    (r"not a (PNG|JPEG) file", "its signature is broken"),
    (r"cannot load this image", "there are no pixels in it"),
    (r"unpack_from requires .*|index \d+ out of range.*", "its header is cut short"),
    (r"Decompressed data too large .*", "a text in it unpacks to too many bytes"),
    (r"image file is truncated.*", "it is truncated"),
    (r"Truncated File Read", "it is truncated"),
    (r"broken data stream when reading image file", "its compressed pixels are broken"),
    (r".*BMFF parsing failed", "its header cannot be read"),
    (r"not enough image data", "it is truncated"),
    (r"(?:b['\"])?(Invalid token|Token too long|Channel value) .*", "a value that is no number of its range"),
)


def sniff(head: bytes) -> Format | None:
    """The format that a file with these first bytes has; None where that is not read here."""
    return next((format for pattern, format in _SIGNATURES if re.match(pattern, head, re.DOTALL)), None)


def refusal(head: bytes) -> str:
    """Why a file with these first bytes is not read: the name of its format, where that is known."""
    format = sniff(head)
    if format is not None:
        reason = lacking(format)
    elif name := _name(head):
        reason = f"{name} is not read here"
    else:
        reason = "not a picture of a known format"
    return f"{reason}; expected {', '.join(readable())}"


def readable() -> list[str]:
    """The names of the formats that are read; AVIF and HEIC only where their decoders are installed."""
    return [name for format, name in NAMES.items() if not lacking(format)]


def lacking(format: Format) -> str:
    """Why the decoder of a format is not here, with what to do; empty if it is."""
    if format == "AVIF" and not features.check("avif"):
        return "AVIF is not read by this build of Pillow"
    if format == "HEIF":
        try:
            import pi_heif  # noqa: F401
        except ModuleNotFoundError:
            return "HEIC needs pi-heif (pip install 'i2i[heic]')"
        except ImportError as error:
            return f"HEIC needs pi-heif, which cannot be imported ({error}): pip install --upgrade 'i2i[heic]'"
    return ""


def _name(head: bytes) -> str | None:
    for pattern, name in _OTHERS:
        if re.match(pattern, head, re.DOTALL):
            return name
    Image.init()
    for factory, accepts in Image.OPEN.values():
        with contextlib.suppress(Exception):
            if accepts is not None and accepts(head):
                return str(getattr(factory, "format_description", None) or "a format that Pillow knows")
    return "text" if re.fullmatch(_TEXT, head) else None


def written_suffix(suffix: str) -> str:
    """The suffix of a result whose input has `suffix`: the same where that format is written, in the same case.

    MPO and HEIC become ".jpg"; GIF, APNG and PBM become ".png". Any other suffix gets another behind it, for the
    content may be a picture nevertheless: a JPEG that is called .psd becomes ".psd.png". No suffix stays none; `write`
    then goes by the content of the input.
    """
    kept = not suffix or suffix.lower() in WRITTEN
    return suffix if kept else _WRITTEN_AS.get(suffix.lower(), f"{suffix}.png")


def written_format(format: Format) -> Format:
    """The format of a result whose input has `format`: the same, except that GIF gives PNG, and HEIC JPEG."""
    return "PNG" if format == "GIF" else "JPEG" if format == "HEIF" else format


@contextlib.contextmanager
def reasons() -> Iterator[None]:
    """Turns whatever a decoder raises into an `ImageError`."""
    try:
        yield
    except I2IError:
        raise
    except MemoryError:
        raise ImageError("not enough memory to decode it") from None
    except Image.DecompressionBombError as error:
        text = r"\1 pixels: at most \2 are accepted"
        raise ImageError(re.sub(r".*?(\d+) pixels\) exceeds limit of (\d+).*", text, str(error))) from None
    except Exception as error:
        refused = getattr(error, "strerror", None)  # by the system, and not by a decoder
        raise ImageError(f"cannot be read: {refused}" if refused else f"damaged: {plain(error)}") from None


def plain(error: Exception) -> str:
    """The last line of a library's error, without words that are for its developers."""
    lines = str(error).strip().splitlines()
    text = lines[-1].strip() if lines else type(error).__name__
    return next((other for pattern, other in _PLAINER if re.fullmatch(pattern, text)), text)
