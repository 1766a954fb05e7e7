"""TIFF files (TIFF 6.0, and BigTIFF where 32-bit addresses do not reach), laid out here with Pillow's tag writer.

Pillow cannot write 16-bit colour. Channels are interleaved, little-endian, deflated, integers as differences of
neighbours (Sec. 14): strips of some rows for what is in memory, tiles (Sec. 15) for what comes by bands.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, TiffTags
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from i2i.images import metadata as meta
from i2i.images import tiff_directory as t
from i2i.images.deflate import compress
from i2i.images.picture import GEO_KEYS, Picture, Pixels, with_depth

_HEADER = struct.Struct("<2sHI")
_LARGE_HEADER = struct.Struct("<2sHHHQ")
# a file of more bytes needs addresses of 64 bits
_CLASSIC_BYTES = 1 << 31
_TILE = 256
_STRIP_BYTES = 1 << 18
_LONG8 = 16
_DEFLATED, _INTERLEAVED, _DIFFERENCES = 8, 1, 2
_UNSPECIFIED, _STRAIGHT = 0, 2
_INCH = 2


def encode(picture: Picture, icc: bytes | None) -> bytes:
    """`picture` with all that is said of it, and that colour profile, as a file."""
    dtype = picture.pixels.dtype.type
    parts = [picture.pixels] if picture.extra is None else [picture.pixels, with_depth(picture.extra, dtype)]
    parts += [] if picture.alpha is None else [with_depth(picture.alpha, dtype)]
    pixels = parts[0] if len(parts) == 1 else np.dstack(parts)
    rows = max(1, _STRIP_BYTES // max(1, pixels[0].nbytes))
    strips = [_packed(pixels[top : top + rows]) for top in range(0, len(pixels), rows)]
    sizes = [len(strip) for strip in strips]
    tags = ImageFileDirectory_v2(prefix=b"II")
    _describe(tags, pixels.shape, pixels.dtype, picture, icc)
    # Pillow counts strip offsets from the end of the directory
    tags[t.STRIP_ROWS], tags[t.STRIP_BYTES] = rows, tuple(sizes)
    tags[t.STRIPS] = tuple(np.cumsum([0, *sizes[:-1]]).tolist())
    return b"".join([_HEADER.pack(b"II", 42, _HEADER.size), tags.tobytes(_HEADER.size), *strips])


def write_tiled(
    file: BinaryIO,
    shape: tuple[int, int, int],
    rows: Callable[[int, int], Pixels],
    like: Picture,
    icc: bytes | None = None,
) -> None:
    """A picture (H, W, C) whose pixels `rows` gives from top to bottom, as tiles; its channels are those of `like`."""
    dtype = like.pixels.dtype
    large = int(np.prod(shape, dtype=object)) * dtype.itemsize > _CLASSIC_BYTES
    header = _LARGE_HEADER.pack(b"II", 43, 8, 0, 0) if large else _HEADER.pack(b"II", 42, 0)
    file.write(header)
    sizes = [file.write(tile) for tile in _tiles(shape, rows)]
    starts = (np.cumsum([0, *sizes[:-1]]) + len(header)).tolist()
    tags = ImageFileDirectory_v2(header.ljust(16, b"\0") if large else header)
    _describe(tags, shape, dtype, like, icc)
    tags[t.TILE_WIDTH] = tags[t.TILE_HEIGHT] = _TILE
    tags[t.TILES], tags[t.TILE_BYTES] = tuple(starts), tuple(sizes)
    if large:
        tags.tagtype[t.TILES] = _LONG8
    directory = file.tell() + file.tell() % 2
    made = tags.tobytes(directory)
    for tag in meta.DIRECTORIES if large else ():  # Pillow's type of these pointers holds 32 bits
        made = made.replace(struct.pack("<HHQ", tag, 4, 1), struct.pack("<HHQ", tag, _LONG8, 1), 1)
    file.write(b"\0" * (file.tell() % 2) + made)
    file.seek(0)
    file.write(_LARGE_HEADER.pack(b"II", 43, 8, 0, directory) if large else _HEADER.pack(b"II", 42, directory))


def _tiles(shape: tuple[int, int, int], rows: Callable[[int, int], Pixels]) -> Iterator[bytes]:
    height, width, channels = shape
    for top in range(0, height, _TILE):
        band = rows(top, min(top + _TILE, height))
        for left in range(0, width, _TILE):
            part = band[:, left : left + _TILE]
            tile = np.zeros((_TILE, _TILE, channels), part.dtype)
            tile[: part.shape[0], : part.shape[1]] = part
            yield _packed(tile)


def _packed(rows: Pixels) -> bytes:
    """Rows (h, W, C) deflated, integers as differences of neighbours."""
    packed = np.array(rows, rows.dtype.newbyteorder("<"), order="C")
    if packed.dtype.kind == "u":
        np.subtract(rows[:, 1:], rows[:, :-1], out=packed[:, 1:])
    return compress(packed)


def _describe(
    tags: ImageFileDirectory_v2, shape: tuple[int, ...], dtype: np.dtype[Any], like: Picture, icc: bytes | None
) -> None:
    """What the pixels are (Sec. 7 and 18), and all that is said of the picture."""
    _copy_exif(meta.exif_with_texts(like)[0], tags)
    _copy_rest(like, tags)
    height, width, channels = shape
    alpha = like.alpha is not None
    colours = 3 if like.pixels.shape[2] == 3 else 1
    tags[t.WIDTH], tags[t.HEIGHT], tags[t.SAMPLES] = width, height, channels
    tags[t.BITS] = (dtype.itemsize * 8,) * channels
    tags[t.FORMAT] = (3 if dtype == np.float32 else 1,) * channels
    tags[t.COMPRESSION], tags[t.PLANAR] = _DEFLATED, _INTERLEAVED
    tags[t.PHOTOMETRIC] = t.RGB if colours == 3 else t.BLACK_IS_ZERO
    if dtype.kind == "u":
        tags[t.PREDICTOR] = _DIFFERENCES
    if channels > colours:
        tags[t.EXTRA_SAMPLES] = (_UNSPECIFIED,) * (channels - colours - alpha) + (_STRAIGHT,) * alpha
    if icc:
        tags[t.ICC] = icc


def _copy_exif(block: bytes | None, tags: ImageFileDirectory_v2) -> None:
    if not block:
        return
    found = Image.Exif()
    found.load(block)
    for tag, value in found.items():
        if tag in meta.DESCRIPTIVE:
            tags[tag] = meta.inner_directory(found, tag) if tag in meta.DIRECTORIES else meta.as_read(value)


def _copy_rest(picture: Picture, tags: ImageFileDirectory_v2) -> None:
    """What a picture says of itself that TIFF has tags for."""
    if picture.resolution:
        tags[t.RESOLUTION[0]], tags[t.RESOLUTION[1]] = picture.resolution
        tags[t.RESOLUTION_UNIT] = _INCH
    if picture.xmp:
        _put(tags, t.XMP, TiffTags.BYTE, picture.xmp)
    for name, text in picture.texts.items():
        if name in meta.TEXTS_IN_EXIF:
            _put(tags, meta.TEXTS_IN_EXIF[name], TiffTags.ASCII, text.encode("utf-8", "replace"))
    for tag, value in picture.geo.items():
        kind = TiffTags.ASCII if isinstance(value, str) else TiffTags.SHORT if tag == GEO_KEYS else TiffTags.DOUBLE
        _put(tags, tag, kind, value.encode() if isinstance(value, str) else value)


def _put(tags: ImageFileDirectory_v2, tag: int, kind: int, value: Any) -> None:
    tags.tagtype[tag] = kind
    tags[tag] = value
