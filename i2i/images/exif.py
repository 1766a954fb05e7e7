"""EXIF: found, its orientation read and applied once, the rest kept."""

import re
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from i2i.images.apart import is_resolution
from i2i.images.picture import Pixels

_ORIENTATION = int(ExifTags.Base.Orientation)
_SIDEWAYS = (5, 6, 7, 8)
# a TIFF's own layout (strips, tiles, compression) must not travel as EXIF into another file, nor into a TIFF
DESCRIPTIVE = {270, 271, 272, 282, 283, 296, 305, 306, 315, 33432, 34665, 34853}
DIRECTORIES = (34665, 34853)  # tags that point to one within: Exif and GPS
_INTEROPERABILITY = 40965
RESOLUTION = _ACROSS, _DOWN, _UNIT = 282, 283, 296
_IN_XMP = re.compile(rb"(tiff:Orientation(?:\s*=\s*[\"']|>\s*))([0-9])")


def parsed(block: bytes | None, xmp: bytes | None = None) -> Image.Exif:
    """The tags of a block, none where it is damaged; the orientation by XMP where the block says nothing of it."""
    tags = Image.Exif()
    try:
        tags.load(block or b"")
        said = tags.get(_ORIENTATION)
    except Exception:  # a damaged block says nothing
        tags, said = Image.Exif(), None
    if said is None and xmp and (found := _IN_XMP.search(xmp)):
        tags[_ORIENTATION] = int(found[2])
    return tags


def upright_xmp(xmp: bytes | None) -> bytes | None:
    """A packet that says of its picture that it is upright, if anything."""
    return xmp and _IN_XMP.sub(rb"\g<1>1", xmp)


def orientation(exif: Image.Exif) -> int:
    """1 to 8; 1 (upright) where nothing sensible is said."""
    value = exif.get(_ORIENTATION)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def resolution(exif: Image.Exif) -> tuple[float, float] | None:
    """Across and down, in pixels an inch, where the block names both and their unit; they may be none (0/0 is NaN)."""
    scale = {2: 1.0, 3: 2.54}.get(exif.get(_UNIT, 2))
    try:
        across, down = float(exif[_ACROSS]), float(exif[_DOWN])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return (across * scale, down * scale) if scale else None


def is_sideways(orientation: int) -> bool:
    """Whether width and height change places when the picture is turned upright."""
    return orientation in _SIDEWAYS


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """(H, W, …) as it is to be seen (TIFF 6.0, tag Orientation)."""
    turned = {
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.swapaxes(0, 1),
        6: lambda p: p[::-1].swapaxes(0, 1),
        7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
        8: lambda p: p[:, ::-1].swapaxes(0, 1),
    }.get(orientation)
    return pixels if turned is None else np.ascontiguousarray(turned(pixels))


def directory(exif: Image.Exif, tag: int) -> dict[int, Any]:
    """What the tag of a directory within points to, without its pointer to one further down."""
    return {inner: as_read(value) for inner, value in exif.get_ifd(tag).items() if inner != _INTEROPERABILITY}


def block(exif: Image.Exif, format: str | None) -> bytes | None:
    """What is kept: all but the orientation and an odd resolution, of a TIFF only what describes the picture.

    None if that is nothing.
    """
    said = resolution(exif)
    dropped = (_ORIENTATION, *(RESOLUTION if said and not is_resolution(*said) else ()))
    for tag in list(exif):
        if tag in dropped or (format == "TIFF" and tag not in DESCRIPTIVE):
            del exif[tag]
    try:
        _spell_out(exif)
        return exif.tobytes() if len(exif) else None
    except Exception:  # a block with values of the wrong type is not worth losing the picture for
        return None


def _spell_out(exif: Image.Exif) -> None:
    """Gives each text as the bytes it was read from, for Pillow reads any as Latin-1 and writes ASCII alone."""
    for tag, value in list(exif.items()):
        exif[tag] = as_read(value)
    for tag in DIRECTORIES:
        if tag in exif:
            inner = exif.get_ifd(tag)
            inner |= {key: as_read(value) for key, value in inner.items()}


def as_read(value: Any) -> Any:
    """A text that is not ASCII as the bytes that Pillow read it from; any other value as it is."""
    return value.encode("latin-1", "replace") if isinstance(value, str) and not value.isascii() else value
