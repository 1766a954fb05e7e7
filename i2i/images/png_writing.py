"""PNG files out of rows of pixels.

Each row is filtered by the one above it (`up`), which costs next to nothing: PNG specification, third edition (2025).
"""

import struct
import zlib
from collections.abc import Iterable, Iterator

import numpy as np

from i2i.images.deflate import compressor
from i2i.images.picture import Pixels

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER_BYTES = len(_SIGNATURE) + 25
_UP = 2
_KINDS = {1: 0, 2: 4, 3: 2, 4: 6}
_CHUNK_BYTES = 1 << 30


def encode(pixels: Pixels, icc: bytes | None = None, exif: bytes | None = None) -> bytes:
    """(H, W, 1 to 4) uint8 or uint16, 2 and 4 being with alpha, as a file with its colour profile and EXIF block."""
    return b"".join(parts(pixels.shape[0], pixels.shape[1], [pixels], icc, exif))


def parts(
    height: int, width: int, bands: Iterable[Pixels], icc: bytes | None = None, exif: bytes | None = None
) -> Iterator[bytes]:
    """The parts of the file of a picture whose rows come in bands, each as `encode` takes pixels."""
    deflate, above = compressor(), None
    for pixels in bands:
        rows = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder(">")).view(np.uint8).reshape(len(pixels), -1)
        if above is None:
            above = np.zeros_like(rows[0])
            head = (width, height, 8 * pixels.dtype.itemsize, _KINDS[pixels.shape[2]], 0, 0, 0)
            yield _SIGNATURE + _chunk(b"IHDR", struct.pack(">IIBBBBB", *head)) + _metadata(icc, exif)
        yield from _packed(deflate.compress(_filtered(rows, above)))
        above = rows[-1]
    yield from _packed(deflate.flush())
    yield _chunk(b"IEND", b"")


def with_metadata(data: bytes, icc: bytes | None, exif: bytes | None) -> bytes:
    """A file with a colour profile and an EXIF block put behind its header."""
    return data[:_HEADER_BYTES] + _metadata(icc, exif) + data[_HEADER_BYTES:]


def _filtered(rows: Pixels, above: Pixels) -> Pixels:
    filtered = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = _UP
    np.subtract(rows[0], above, out=filtered[0, 1:])
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    return filtered


def _packed(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), _CHUNK_BYTES):
        yield _chunk(b"IDAT", data[start : start + _CHUNK_BYTES])


def _metadata(icc: bytes | None, exif: bytes | None) -> bytes:
    chunks = b""
    if icc:
        chunks += _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc))
    if exif:
        chunks += _chunk(b"eXIf", exif.removeprefix(b"Exif\0\0"))
    return chunks


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))
