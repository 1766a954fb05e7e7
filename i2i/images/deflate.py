"""Deflate, by isal where it is installed (`pip install 'i2i[fast]'`), else by zlib; any reader takes both."""

import zlib
from typing import Any

_codec: Any
try:
    from isal import isal_zlib as _codec
except ImportError:
    _codec, FAST, LEVEL = zlib, False, 3
else:
    FAST, LEVEL = True, 1


def compressor() -> Any:
    """As `zlib.compressobj()`."""
    return _codec.compressobj(LEVEL)


def decompressor() -> Any:
    """As `zlib.decompressobj()`."""
    return _codec.decompressobj()


def compress(data: Any) -> bytes:
    """`data`, with a buffer of contiguous bytes, deflated."""
    packed: bytes = _codec.compress(data, LEVEL)
    return packed
