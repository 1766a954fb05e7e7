"""TIFF files (TIFF 6.0, and BigTIFF where 32-bit addresses do not reach), laid out here with Pillow's tag writer.

Pillow cannot write 16-bit colour. Channels are interleaved, little-endian, deflated: one strip for what is in memory,
tiles (Sec. 15) for what comes by bands.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from i2i.images import exif as blocks
from i2i.images.deflate import compress
from i2i.images.picture import Picture, Pixels, with_depth

_HEADER = struct.Struct("<2sHI")
_LARGE_HEADER = struct.Struct("<2sHHHQ")
# a file of more bytes needs addresses of 64 bits
_CLASSIC_BYTES = 1 << 31
_TILE = 256
_LONG8 = 16
_DIFFERENCES = 2  # of neighbours (Sec. 14)


def encode(picture: Picture, icc: bytes | None) -> bytes:
    """`picture` with its EXIF, and that colour profile, as a file of one strip."""
    pixels = picture.pixels
    if picture.alpha is not None:
        pixels = np.dstack([pixels, with_depth(picture.alpha, pixels.dtype.type)])
    strip = zlib.compress(np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<")).tobytes(), 6)
    tags = ImageFileDirectory_v2(prefix=b"II")
    _describe(tags, pixels.shape, pixels.dtype, picture.alpha is not None, picture.exif, icc)
    # Pillow counts strip offsets from the end of the directory
    tags[273], tags[278], tags[279] = 0, len(pixels), len(strip)
    return _HEADER.pack(b"II", 42, _HEADER.size) + tags.tobytes(_HEADER.size) + strip


def write_tiled(
    file: BinaryIO,
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    rows: Callable[[int, int], Pixels],
    *,
    alpha: bool,
    exif: bytes | None = None,
    icc: bytes | None = None,
) -> None:
    """A picture (H, W, C) whose pixels `rows` gives from top to bottom, as tiles; `alpha`: the last channel is that."""
    large = int(np.prod(shape, dtype=object)) * dtype.itemsize > _CLASSIC_BYTES
    header = _LARGE_HEADER.pack(b"II", 43, 8, 0, 0) if large else _HEADER.pack(b"II", 42, 0)
    file.write(header)
    sizes = [file.write(tile) for tile in _tiles(shape, rows)]
    starts = (np.cumsum([0, *sizes[:-1]]) + len(header)).tolist()
    tags = ImageFileDirectory_v2(header.ljust(16, b"\0") if large else header)
    _describe(tags, shape, dtype, alpha, exif, icc)
    if dtype.kind == "u":
        tags[317] = _DIFFERENCES
    tags[322] = tags[323] = _TILE
    tags[324], tags[325] = tuple(starts), tuple(sizes)
    if large:
        tags.tagtype[324] = _LONG8
    directory = file.tell() + file.tell() % 2
    made = tags.tobytes(directory)
    for tag in blocks.DIRECTORIES if large else ():  # Pillow's type of these pointers holds 32 bits
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
            tile = np.zeros((_TILE, _TILE, channels), part.dtype.newbyteorder("<"))
            tile[: part.shape[0], : part.shape[1]] = part
            if tile.dtype.kind == "u":
                tile[:, 1:] -= tile[:, :-1].copy()
            yield compress(tile)


def _describe(
    tags: ImageFileDirectory_v2,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    alpha: bool,
    block: bytes | None,
    icc: bytes | None,
) -> None:
    """What the pixels are, and what describes the picture (Sec. 7 and 18)."""
    _copy_exif(block, tags)
    height, width, channels = shape
    colours = 3 if channels - alpha >= 3 else 1
    tags[256], tags[257], tags[277] = width, height, channels
    tags[258] = (dtype.itemsize * 8,) * channels
    tags[339] = (3 if dtype == np.float32 else 1,) * channels
    tags[259], tags[262], tags[284] = 8, 2 if colours == 3 else 1, 1
    if channels > colours:
        tags[338] = (0,) * (channels - colours - 1) + (2 if alpha else 0,)
    if icc:
        tags[34675] = icc


def _copy_exif(block: bytes | None, tags: ImageFileDirectory_v2) -> None:
    if not block:
        return
    found = Image.Exif()
    found.load(block)
    for tag, value in found.items():
        if tag in blocks.DESCRIPTIVE:
            tags[tag] = blocks.directory(found, tag) if tag in blocks.DIRECTORIES else value
