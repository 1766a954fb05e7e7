"""TIFF files (TIFF 6.0, and BigTIFF where 32-bit addresses do not reach), laid out here.

Pillow does not write 16-bit colour, and tifffile no pointers to EXIF and GPS. Files are little-endian, channels
interleaved, deflated, integers as differences of neighbours (Sec. 14): in strips of some rows where the picture is in
memory, in tiles (Sec. 15) where it comes by bands.
"""

import io
import struct
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import BinaryIO

import numpy as np

from i2i.errors import ImageError
from i2i.images import metadata as meta
from i2i.images import tiff_directory as t
from i2i.images.deflate import compress
from i2i.images.picture import GEO_KEYS, Picture, Pixels, with_depth

# a file of more bytes needs addresses of 64 bits
_CLASSIC_BYTES = 1 << 31
_TILE = 256
_STRIP_BYTES = 1 << 18
_DEFLATED, _INTERLEAVED, _DIFFERENCES = 8, 1, 2
_UNSPECIFIED, _STRAIGHT = 0, 2
_INCH = 2


def encode(picture: Picture, icc: bytes | None) -> bytes:
    """`picture` with all its metadata, and that colour profile, as a file."""
    dtype = picture.pixels.dtype.type
    parts = [picture.pixels] if picture.extra is None else [picture.pixels, with_depth(picture.extra, dtype)]
    parts += [] if picture.alpha is None else [with_depth(picture.alpha, dtype)]
    pixels = parts[0] if len(parts) == 1 else np.dstack(parts)
    rows = max(1, _STRIP_BYTES // max(1, pixels[0].nbytes))
    strips = (pixels[top : top + rows] for top in range(0, len(pixels), rows))
    file = io.BytesIO()
    _write(file, pixels.shape, strips, {t.STRIP_ROWS: t.numbers("I", rows)}, picture, icc)
    return file.getvalue()


def write_tiled(
    file: BinaryIO,
    shape: tuple[int, int, int],
    rows: Callable[[int, int], Pixels],
    like: Picture,
    icc: bytes | None = None,
) -> None:
    """A picture (H, W, C) whose pixels `rows` gives from top to bottom, as tiles; its channels are those of `like`."""
    layout = {t.TILE_WIDTH: t.numbers("I", _TILE), t.TILE_HEIGHT: t.numbers("I", _TILE)}
    _write(file, shape, _tiles(shape, rows), layout, like, icc)


def _tiles(shape: tuple[int, int, int], rows: Callable[[int, int], Pixels]) -> Iterator[Pixels]:
    height, width, channels = shape
    for top in range(0, height, _TILE):
        band = rows(top, min(top + _TILE, height))
        for left in range(0, width, _TILE):
            part = band[:, left : left + _TILE]
            tile = np.zeros((_TILE, _TILE, channels), part.dtype)
            tile[: part.shape[0], : part.shape[1]] = part
            yield tile


def _write(
    file: BinaryIO,
    shape: tuple[int, ...],
    segments: Iterable[Pixels],
    layout: dict[int, t.Tag],
    like: Picture,
    icc: bytes | None,
) -> None:
    """Segments, behind them the directory, and before them where that is."""
    large = int(np.prod(shape, dtype=object)) * like.pixels.dtype.itemsize > _CLASSIC_BYTES
    start = file.write(t.header_of("<", 0, big=large))
    sizes = [file.write(_packed(segment)) for segment in segments]
    starts, address = (np.cumsum([0, *sizes[:-1]]) + start).tolist(), "Q" if large else "I"
    places = (t.TILES, t.TILE_BYTES) if t.TILE_WIDTH in layout else (t.STRIPS, t.STRIP_BYTES)
    layout |= {places[0]: t.numbers(address, *starts), places[1]: t.numbers(address, *sizes)}
    described = _exif(like)
    tags = {**described.tags, **_metadata(like, icc), **_pixels(shape, like), **layout}
    file.write(b"\0" * (file.tell() % 2))
    place = file.tell()
    file.write(t.directory_of("<", tags, place, described.inner, big=large))
    file.seek(0)
    file.write(t.header_of("<", place, big=large))


def _packed(rows: Pixels) -> bytes:
    """Rows (h, W, C) deflated, integers as differences of neighbours."""
    packed = np.array(rows, rows.dtype.newbyteorder("<"), order="C")
    if packed.dtype.kind in "ui":
        np.subtract(rows[:, 1:], rows[:, :-1], out=packed[:, 1:])
    return compress(packed)


def _pixels(shape: tuple[int, ...], like: Picture) -> dict[int, t.Tag]:
    """The kind of the pixels (Sec. 7 and 18)."""
    height, width, channels = shape
    dtype, alpha = like.pixels.dtype, like.alpha is not None
    colours = 3 if like.pixels.shape[2] == 3 else 1
    tags = {
        t.WIDTH: t.numbers("I", width),
        t.HEIGHT: t.numbers("I", height),
        t.SAMPLES: t.numbers("H", channels),
        t.BITS: t.numbers("H", *(dtype.itemsize * 8,) * channels),
        t.FORMAT: t.numbers("H", *({"u": 1, "i": 2, "f": 3}[dtype.kind],) * channels),
        t.COMPRESSION: t.numbers("H", _DEFLATED),
        t.PLANAR: t.numbers("H", _INTERLEAVED),
        t.PHOTOMETRIC: t.numbers("H", t.RGB if colours == 3 else t.BLACK_IS_ZERO),
    }
    if dtype.kind in "ui":
        tags[t.PREDICTOR] = t.numbers("H", _DIFFERENCES)
    if channels > colours:
        kinds = (_UNSPECIFIED,) * (channels - colours - alpha) + (_STRAIGHT,) * alpha
        tags[t.EXTRA_SAMPLES] = t.numbers("H", *kinds)
    return tags


def _metadata(picture: Picture, icc: bytes | None) -> dict[int, t.Tag]:
    """The metadata of a picture that TIFF has tags for, beside EXIF."""
    tags = {t.ICC: t.text(icc, kind=7)} if icc else {}
    if picture.resolution:
        tags |= {tag: _rational(value) for tag, value in zip(t.RESOLUTION, picture.resolution, strict=True)}
        tags[t.RESOLUTION_UNIT] = t.numbers("H", _INCH)
    if picture.xmp:
        tags[t.XMP] = t.text(picture.xmp, kind=1)
    for name, text in picture.texts.items():
        if name in meta.TEXTS_IN_EXIF:
            tags[meta.TEXTS_IN_EXIF[name]] = t.text(text.encode("utf-8", "replace") + b"\0")
    for tag, value in picture.geo.items():
        if isinstance(value, str):
            tags[tag] = t.text(value.encode() + b"\0")
        else:
            tags[tag] = t.numbers("H", *map(int, value)) if tag == GEO_KEYS else t.numbers("d", *value)
    return tags


def _rational(value: float) -> t.Tag:
    nearest = Fraction(value).limit_denominator(int((1 << 31) / (1 + value)))
    return t.Tag(5, 1, struct.pack("<II", nearest.numerator, nearest.denominator))


def _exif(picture: Picture) -> t.Directory:
    """The tags of its EXIF block that describe the picture, and the directories of EXIF and GPS."""
    block, _ = meta.exif_with_texts(picture)
    try:
        found = t.read(io.BytesIO((block or b"").removeprefix(meta.EXIF_PREFIX))).little()
    except (ImageError, struct.error):  # there is none, or a damaged one
        return t.Directory("<", {})
    kept = {tag: value for tag, value in found.tags.items() if tag in meta.DESCRIPTIVE}
    return t.Directory("<", kept, inner=found.inner)
