"""NumPy's .npy files of numbers, (H, W) or (H, W, C): nothing of them is unpickled, and nothing believed before it is
there."""

import io
import math
from typing import Any, BinaryIO

import numpy as np

from i2i.errors import ImageError
from i2i.images.picture import Limits, Pixels

_MAX_HEADER = 4096
_MAX_CHANNELS = 64
_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def decode(data: bytes, limits: Limits) -> Pixels:
    """The numbers (H, W, C) of a file, in its type. Raises `ImageError` for all else than a whole array of numbers."""
    file = io.BytesIO(data)
    shape, fortran, dtype = _header(file, limits)
    start, count = file.tell(), math.prod(shape)
    if len(data) - start < count * dtype.itemsize:
        raise ImageError("damaged: it is truncated")
    values = np.frombuffer(data, dtype, count, start).reshape(shape, order="F" if fortran else "C")
    return np.array(values.reshape(*shape[:2], -1), dtype.newbyteorder("="), order="C")


def size(file: BinaryIO, limits: Limits) -> tuple[int, int]:
    """(width, height) from the header. Raises `ImageError` as `decode` does for a header."""
    shape, _, _ = _header(file, limits)
    return shape[1], shape[0]


def encode(values: Pixels) -> bytes:
    """The file of (H, W, C): one channel is written as (H, W)."""
    file = io.BytesIO()
    np.save(file, values[..., 0] if values.shape[2] == 1 else values, allow_pickle=False)
    return file.getvalue()


def _header(file: BinaryIO, limits: Limits) -> tuple[tuple[int, ...], bool, "np.dtype[Any]"]:
    """Shape, order and type, within the limits; the file is then at the first number."""
    try:
        version = np.lib.format.read_magic(file)
        shape, fortran, dtype = _READERS[version](file, max_header_size=_MAX_HEADER)
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
