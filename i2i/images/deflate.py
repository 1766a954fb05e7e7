"""Deflate, by isal where it is installed (`pip install 'i2i[fast]'`), else by zlib; any reader takes both."""

import zlib
from collections.abc import Callable
from typing import Any

from i2i.errors import ImageError

_codec: Any
try:
    from isal import isal_zlib as _codec
except ImportError:
    _codec, FAST, LEVEL = zlib, False, 3
else:
    FAST, LEVEL = True, 1

_PART_BYTES = 1 << 20


def compressor() -> Any:
    """As `zlib.compressobj()`."""
    return _codec.compressobj(LEVEL)


def compress(data: Any) -> bytes:
    """`data`, with a buffer of contiguous bytes, deflated."""
    packed: bytes = _codec.compress(data, LEVEL)
    return packed


class Inflating:
    """A deflated stream that `more` gives in parts of a number of bytes; unpacked no further than it is read."""

    def __init__(self, more: Callable[[int], bytes]) -> None:
        self._more, self._unpack, self._packed = more, _codec.decompressobj(), b""

    def read(self, size: int) -> bytes:
        """The next `size` bytes, fewer where it ends. Raises `ImageError` for data that cannot be unpacked."""
        parts, left = [], size
        while left and not self._unpack.eof:
            self._packed = self._packed or self._more(_PART_BYTES)
            if not self._packed:
                break
            parts.append(self._next(left))
            left -= len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _next(self, most: int) -> bytes:
        try:
            data: bytes = self._unpack.decompress(self._packed, most)
        except _codec.error:
            raise ImageError("damaged: its compressed pixels cannot be unpacked") from None
        self._packed = self._unpack.unconsumed_tail
        return data
