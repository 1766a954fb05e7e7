"""Files of plain numbers: Netpbm's PBM, PGM and PPM, and NumPy's .npy. Nothing of them is unpickled, and no claim of a
header is believed before the bytes are there.

Netpbm's format is that of its manual pages pbm(5), pgm(5) and ppm(5). Binary files of any maximum are read here, as
Pillow reduces 16-bit colour to 8, plain ones by Pillow. Only the first picture of a file is read.
"""

import io
import math
import re
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from i2i.errors import ImageError
from i2i.images.picture import Limits, Pixels

_HEADER_BYTES = 4096
_GAP = rb"(?:\s|#[^\n\r]*[\n\r])+"
_PLAIN = (b"P1", b"P2", b"P3")
_MAX_CHANNELS = 64
_ARRAY_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def netpbm(data: bytes, limits: Limits) -> Pixels:
    """(H, W, 1 or 3) uint8, or uint16 where the file's maximum is above 255, scaled to the full range."""
    width, height, maximum, start = netpbm_header(data, limits)
    channels = 3 if data[:2] in (b"P3", b"P6") else 1
    if data[:2] in _PLAIN:
        return _plain(data, start, width * height * channels)
    if data[:2] == b"P4":
        rows = _samples(data, start, np.dtype(np.uint8), height * -(-width // 8)).reshape(height, -1)
        return ((1 - np.unpackbits(rows, axis=1, count=width)) * np.uint8(255))[..., None]
    values = _samples(data, start, np.dtype(np.uint8 if maximum < 256 else ">u2"), width * height * channels)
    return _scaled(values, maximum).reshape(height, width, channels)


def as_netpbm(pixels: Pixels) -> bytes:
    """(H, W, 1 or 3) uint8 or uint16 as binary PGM or PPM."""
    height, width, channels = pixels.shape
    kind = np.dtype(np.uint8 if pixels.dtype == np.uint8 else ">u2")
    head = f"{'P5' if channels == 1 else 'P6'}\n{width} {height}\n{np.iinfo(pixels.dtype).max}\n"
    return head.encode() + np.ascontiguousarray(pixels, kind).tobytes()


def netpbm_header(head: bytes, limits: Limits) -> tuple[int, int, int, int]:
    """Width, height, maximum, and where the pixels begin. Raises `ImageError` if there is no header in the limits."""
    count = 2 if head[:2] in (b"P1", b"P4") else 3
    found = re.match(rb"P[1-6]" + (_GAP + rb"(\d{1,9})") * count + rb"(?:\s|$)", head[:_HEADER_BYTES])
    if found is None:
        raise ImageError("damaged: a PPM header without width, height and maximum")
    width, height, maximum = (*map(int, found.groups()), 255)[:3]
    limits.check_size(width, height)
    if not 1 <= maximum <= 65_535:
        raise ImageError(f"damaged: a PPM maximum of {maximum}; expected 1 to 65535")
    if head[:2] in _PLAIN and maximum != 255:
        raise ImageError(f"a plain PPM with a maximum of {maximum} is not read here; 255 is, and any in a binary one")
    return width, height, maximum, found.end()


def _plain(data: bytes, start: int, count: int) -> Pixels:
    # a number takes at least two characters, but a bit one: the text is measured before it is taken apart
    if len(data) - start < (count if data[:2] == b"P1" else 2 * count - 1):
        raise ImageError(f"damaged: it is truncated, with {len(data) - start} bytes of text for {count} numbers")
    image = Image.open(io.BytesIO(data), formats=("PPM",))  # noqa: TID251 (bounded by `netpbm_header`)
    pixels = np.array(image.convert("L") if image.mode == "1" else image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _samples(data: bytes, start: int, kind: np.dtype[Any], count: int) -> Pixels:
    present, wanted = len(data) - start, count * kind.itemsize
    if present < wanted:
        raise ImageError(f"damaged: it is truncated, with {present} bytes of pixels where {wanted} are expected")
    return np.frombuffer(data, kind, count, start)


def _scaled(values: Pixels, maximum: int) -> Pixels:
    if int(values.max()) > maximum:
        raise ImageError(f"damaged: a value of {int(values.max())} above the maximum {maximum}")
    kind = np.uint8 if maximum < 256 else np.uint16
    full = np.iinfo(kind).max
    if maximum == full:
        return values.astype(kind)
    # a table, since the product of a large picture would take eight bytes a value
    return np.rint(np.arange(maximum + 1) * (full / maximum)).astype(kind)[values]


def npy(data: bytes, limits: Limits) -> Pixels:
    """The numbers (H, W, C) of a file, in its type. Raises `ImageError` for all else than a whole array of numbers."""
    file = io.BytesIO(data)
    shape, fortran, dtype = npy_header(file, limits)
    values = _samples(data, file.tell(), dtype, math.prod(shape)).reshape(shape, order="F" if fortran else "C")
    return np.array(values.reshape(*shape[:2], -1), dtype.newbyteorder("="), order="C")


def as_npy(values: Pixels) -> bytes:
    """The file of (H, W, C): one channel is written as (H, W)."""
    file = io.BytesIO()
    np.save(file, values[..., 0] if values.shape[2] == 1 else values, allow_pickle=False)
    return file.getvalue()


def npy_header(file: BinaryIO, limits: Limits) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and type, within the limits; the file is then at the first number."""
    try:
        version = np.lib.format.read_magic(file)
        shape, fortran, dtype = _ARRAY_HEADERS[version](file, max_header_size=_HEADER_BYTES)
    except Exception:  # which parses a text of the file
        raise ImageError("damaged: its header cannot be read as that of an array") from None
    if dtype.hasobject:
        raise ImageError("holds Python objects, which are never unpickled; expected numbers")
    if dtype.kind not in "uif" or dtype.itemsize > 8:
        raise ImageError(f"an array of {dtype.name}; expected integers, or floating point of 16, 32 or 64 bits")
    if len(shape) not in (2, 3) or (len(shape) == 3 and not 1 <= shape[2] <= _MAX_CHANNELS):
        raise ImageError(f"an array {shape}; expected (H, W) or (H, W, C), with at most {_MAX_CHANNELS} channels")
    limits.check_size(shape[1], shape[0], shape[2] if len(shape) == 3 else 1)
    return shape, fortran, dtype
