"""Netpbm's PBM, PGM and PPM, plain and binary, of any maximum; Pillow would reduce 16-bit colour to 8 bits.

The format is that of Netpbm's manual pages pbm(5), pgm(5) and ppm(5). Only the first picture of a file is read.
"""

import re

import numpy as np

from i2i.errors import ImageError
from i2i.images.picture import Limits, Pixels

MAGIC = tuple(f"P{i}".encode() for i in range(1, 7))
_HEADER_BYTES = 4096
_GAP = rb"(?:\s|#[^\n\r]*[\n\r])+"


def size(head: bytes, limits: Limits) -> tuple[int, int]:
    """(width, height) from the beginning of a file. Raises `ImageError` if there is none within the limits."""
    width, height, _, _ = _header(head[:_HEADER_BYTES], limits)
    return width, height


def decode(data: bytes, limits: Limits) -> Pixels:
    """(H, W, 1 or 3) uint8, or uint16 where the file's maximum is above 255, scaled to the full range."""
    width, height, maximum, start = _header(data[:_HEADER_BYTES], limits)
    channels = 3 if data[:2] in (b"P3", b"P6") else 1
    if data[:2] in (b"P1", b"P4"):
        bits = _plain_bits(data, start, width * height) if data[:2] == b"P1" else _bits(data, start, width, height)
        return ((1 - bits.reshape(height, width, 1)) * 255).astype(np.uint8)
    if data[:2] in (b"P2", b"P3"):
        values = _plain_numbers(data, start, width * height * channels)
    else:
        kind = np.dtype(np.uint8 if maximum < 256 else ">u2")
        values = _samples(data, start, kind, width * height * channels)
    return _scaled(values, maximum).reshape(height, width, channels)


def encode(pixels: Pixels) -> bytes:
    """(H, W, 1 or 3) uint8 or uint16 as binary PGM or PPM."""
    height, width, channels = pixels.shape
    kind = np.dtype(np.uint8 if pixels.dtype == np.uint8 else ">u2")
    head = f"{'P5' if channels == 1 else 'P6'}\n{width} {height}\n{np.iinfo(pixels.dtype).max}\n"
    return head.encode() + np.ascontiguousarray(pixels, kind).tobytes()


def _header(head: bytes, limits: Limits) -> tuple[int, int, int, int]:
    """Width, height, maximum, and where the pixels begin."""
    count = 2 if head[:2] in (b"P1", b"P4") else 3
    found = re.match(rb"P[1-6]" + (_GAP + rb"(\d{1,9})") * count + rb"(?:\s|$)", head)
    if found is None:
        raise ImageError("damaged: a PPM header without width, height and maximum")
    width, height, maximum = (*map(int, found.groups()), 1)[:3]
    limits.check_size(width, height)
    if not 1 <= maximum <= 65_535:
        raise ImageError(f"damaged: a PPM maximum of {maximum}; expected 1 to 65535")
    return width, height, maximum, found.end()


def _samples(data: bytes, start: int, kind: np.dtype[np.generic], count: int) -> Pixels:
    present, wanted = len(data) - start, count * kind.itemsize
    if present < wanted:
        raise ImageError(f"damaged: it is truncated, with {present} bytes of pixels where {wanted} are expected")
    return np.frombuffer(data, kind, count, start)


def _bits(data: bytes, start: int, width: int, height: int) -> Pixels:
    row = -(-width // 8)
    return np.unpackbits(_samples(data, start, np.dtype(np.uint8), row * height).reshape(height, row), axis=1)[
        :, :width
    ]


def _plain_bits(data: bytes, start: int, count: int) -> Pixels:
    digits = _without_comments(data[start:]).translate(None, b" \t\n\v\f\r")[:count]
    values = _samples(digits, 0, np.dtype(np.uint8), count) - ord("0")
    if values.max() > 1:
        raise ImageError("damaged: a plain PBM holds more than 0 and 1")
    return values


def _plain_numbers(data: bytes, start: int, count: int) -> Pixels:
    # a number takes at least two characters, so the text is measured before it is taken apart
    if len(data) - start < 2 * count - 1:
        raise ImageError(f"damaged: it is truncated, with {len(data) - start} bytes of text for {count} numbers")
    text = _without_comments(data[start:])
    if re.search(rb"[^\d\s]|\d{6}", text):
        raise ImageError("damaged: a plain PPM holds more than numbers up to 65535")
    # not with a count: where the text holds fewer numbers, NumPy would make up the rest
    values = np.fromstring(text, np.int32, sep=" ")
    if len(values) < count:
        raise ImageError(f"damaged: it is truncated, with {len(values)} numbers where {count} are expected")
    return values[:count]


def _without_comments(text: bytes) -> bytes:
    return re.sub(rb"#[^\n\r]*", b"", text) if b"#" in text else text


def _scaled(values: Pixels, maximum: int) -> Pixels:
    if int(values.max()) > maximum:
        raise ImageError(f"damaged: a value of {int(values.max())} above the maximum {maximum}")
    kind = np.uint8 if maximum < 256 else np.uint16
    full = np.iinfo(kind).max
    if maximum == full:
        return values.astype(kind)
    # a table, since the product of a large picture would take eight bytes a value
    return np.rint(np.arange(maximum + 1) * (full / maximum)).astype(kind)[values]
