"""PNG files out of rows of pixels.

Each row is filtered by the one above it (`up`), which costs next to nothing: PNG specification, third edition (2025).
"""

import struct
import zlib
from collections.abc import Iterable, Iterator

import numpy as np

from i2i.images.apart import EXIF_PREFIX, INCH, XMP_IN_PNG
from i2i.images.deflate import compressor
from i2i.images.picture import Picture, Pixels
from i2i.images.png import SIGNATURE, chunk

_HEADER_BYTES = len(SIGNATURE) + 25
_UP = 2
_KINDS = {1: 0, 2: 4, 3: 2, 4: 6}
_CHUNK_BYTES = 1 << 30


def encode(pixels: Pixels, icc: bytes | None = None, exif: bytes | None = None, said: bytes = b"") -> bytes:
    """(H, W, 1 to 4) uint8 or uint16, 2 and 4 being with alpha, as a file with its colour profile and EXIF block.

    `said` are the chunks with what else is known of it, as `chunks` makes them.
    """
    return b"".join(parts(pixels.shape[0], pixels.shape[1], [pixels], icc, exif, said))


def parts(
    height: int,
    width: int,
    bands: Iterable[Pixels],
    icc: bytes | None = None,
    exif: bytes | None = None,
    said: bytes = b"",
) -> Iterator[bytes]:
    """The parts of the file of a picture whose rows come in bands, each as `encode` takes pixels."""
    deflate, above = compressor(), None
    for pixels in bands:
        rows = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder(">")).view(np.uint8).reshape(len(pixels), -1)
        if above is None:
            above = np.zeros_like(rows[0])
            head = (width, height, 8 * pixels.dtype.itemsize, _KINDS[pixels.shape[2]], 0, 0, 0)
            yield SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", *head)) + _metadata(icc, exif) + said
        yield from _packed(deflate.compress(_filtered(rows, above)))
        above = rows[-1]
    yield from _packed(deflate.flush())
    yield chunk(b"IEND", b"")


def with_metadata(data: bytes, icc: bytes | None, exif: bytes | None, said: bytes = b"") -> bytes:
    """A file with a colour profile, an EXIF block and chunks put behind its header."""
    return data[:_HEADER_BYTES] + _metadata(icc, exif) + said + data[_HEADER_BYTES:]


def chunks(picture: Picture) -> bytes:
    """Colours, resolution, XMP and texts of a picture as chunks; not its colour profile and its EXIF block."""
    found = _colours(picture)
    if picture.resolution:
        across, down = (round(value / INCH) for value in picture.resolution)
        found += chunk(b"pHYs", struct.pack(">IIB", across, down, 1))
    if picture.xmp:
        found += chunk(b"iTXt", XMP_IN_PNG + bytes(5) + picture.xmp)
    return found + b"".join(_text(*text) for text in picture.texts.items())


def _colours(picture: Picture) -> bytes:
    colour, found = picture.colour, b""
    if colour is None:
        return found
    if colour.cicp:
        found += chunk(b"cICP", bytes(colour.cicp))
    if colour.srgb is not None and not picture.icc:  # a file has one of the two
        found += chunk(b"sRGB", bytes([colour.srgb]))
    if colour.gamma:
        found += chunk(b"gAMA", struct.pack(">I", round(colour.gamma * 100_000)))
    if colour.chromaticities:
        found += chunk(b"cHRM", struct.pack(">8i", *(round(value * 100_000) for value in colour.chromaticities)))
    return found


def _text(keyword: str, text: str) -> bytes:
    name = keyword.encode("latin-1", "replace")[:79]
    try:
        return chunk(b"tEXt", name + b"\0" + text.encode("latin-1"))
    except UnicodeEncodeError:
        return chunk(b"iTXt", name + b"\0\0\0\0\0" + text.encode("utf-8", "replace"))


def _filtered(rows: Pixels, above: Pixels) -> Pixels:
    filtered = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = _UP
    np.subtract(rows[0], above, out=filtered[0, 1:])
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    return filtered


def _packed(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), _CHUNK_BYTES):
        yield chunk(b"IDAT", data[start : start + _CHUNK_BYTES])


def _metadata(icc: bytes | None, exif: bytes | None) -> bytes:
    chunks = b""
    if icc:
        chunks += chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc))
    if exif:
        chunks += chunk(b"eXIf", exif.removeprefix(EXIF_PREFIX))
    return chunks
