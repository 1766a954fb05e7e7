"""WebP, AVIF, GIF and BMP taken apart: what their pixels need, and what else they say."""

import contextlib
import math
import re
import struct
from collections.abc import Iterator
from io import BytesIO
from typing import BinaryIO

from PIL import Image

from i2i.errors import ImageError
from i2i.images.apart import INCH, TEXT_BYTES, XMP_BYTES, Apart

_MAX_CHUNKS = _MAX_BLOCKS = 10_000
# of a GIF's data, 255 bytes or fewer each
_MAX_PARTS = 1 << 18
_HEAD_BYTES = 1 << 24
_EXIF_ITEM = rb"(infe\x02.{3}(?:.{4}|.{6}))Exif"
_NCLX = re.compile(rb"colrnclx(.{7})", re.DOTALL)
# sRGB, and what says nothing
_USUAL = ((1, 13), (2, 2))
_META_BYTES = 1 << 20
_XMP_IN_GIF = b"XMP DataXMP"
_TRAILER_BYTES = 258  # behind XMP in a GIF, so that it can be passed as blocks
_CALIBRATED, _SRGB, _EMBEDDED, _LINKED = bytes(4), b"BGRs", b"DEBM", b"KNIL"


def webp(file: BinaryIO) -> Apart:
    """A WebP taken apart (RFC 9649, Sec. 2.7); of an animation the first frame."""
    found, kept, frames = Apart(), list[bytes](), 0
    for kind, content in _riff(file):
        frames += kind == b"ANMF"
        if kind == b"EXIF":
            found.add_exif(content)
        elif kind == b"XMP ":
            found.add_xmp(content)
        elif kind == b"ICCP":
            found.add_icc(content)
        elif kind != b"ANMF" or frames == 1:
            kept += [kind, struct.pack("<I", len(content)), content, b"\0" * (len(content) % 2)]
    found.more = frames > 1
    found.pixels = b"RIFF" + struct.pack("<I", 4 + sum(map(len, kept))) + b"WEBP" + b"".join(kept)
    return found


def _riff(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of each chunk; the last may be cut short."""
    file.seek(12)
    for _ in range(_MAX_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            return
        kind, length = struct.unpack("<4sI", head)
        content = file.read(length)
        if len(content) < length and kind.startswith((b"VP8", b"A")):
            raise ImageError("damaged: it is truncated")
        yield kind, content
        file.seek(length % 2, 1)


def avif(file: BinaryIO) -> Apart:
    """An AVIF whole, for its parts are found by their places; what it says beside pixels is read by Pillow's decoder.

    Where that refuses its EXIF, the name of that entry is changed, so that the pixels are read.
    """
    data = file.read()
    found = Apart(data)
    with contextlib.suppress(Exception):
        _describe_avif(data, found)
        return found
    found.pixels = re.sub(_EXIF_ITEM, rb"\1skip", data[:_META_BYTES], flags=re.DOTALL) + data[_META_BYTES:]
    with contextlib.suppress(Exception):
        _describe_avif(found.pixels, found)
    return found


def _describe_avif(data: bytes, found: Apart) -> None:
    image = Image.open(BytesIO(data), formats=("AVIF",))  # noqa: TID251 (its header alone, which is checked later)
    found.more = bool(getattr(image, "is_animated", False))
    found.add_exif(image.info.get("exif"))
    found.add_xmp(image.info.get("xmp"))
    found.add_icc(image.info.get("icc_profile"))
    if codes := _NCLX.search(data[:_META_BYTES]):
        primaries, transfer, _, _ = struct.unpack(">HHHB", codes[1])
        if (primaries, transfer) not in _USUAL and max(primaries, transfer) < 256:
            found.add_colour(cicp=(primaries, transfer, 0, 1))  # of RGB, as the pixels are


def gif(file: BinaryIO, pixels: bool = True) -> Apart:
    """A GIF taken apart (GIF89a): its first frame. Raises `ImageError` if there is none near its beginning."""
    data = file.read(-1 if pixels else _HEAD_BYTES)
    found = Apart()
    place = 13 + (3 << (data[10] & 7) + 1 if len(data) > 10 and data[10] & 0x80 else 0)
    head, control, parts = data[:place], b"", _Parts(data)
    for _ in range(_MAX_BLOCKS):
        kind = data[place : place + 1]
        if kind == b",":
            break
        if kind != b"!" or place + 2 > len(data):
            # what is no block is passed, as other readers do
            if kind in (b"", b";"):
                raise ImageError("damaged GIF: there is no picture in it")
            place += 1
            continue
        end = parts.end(place + 2)
        if data[place + 1] == 0xF9:
            control = data[place:end]
        else:
            _read_extension(data[place + 1], data[place + 2 : end], found)
        place = end
    else:
        raise ImageError(f"damaged GIF: more than {_MAX_BLOCKS} blocks before its picture")
    end = parts.end(place + 11 + (3 << (data[place + 9] & 7) + 1 if data[place + 9 : place + 10] >= b"\x80" else 0))
    found.pixels = head + control + data[place:end] + (b";" if end < len(data) else b"")
    found.more = pixels and _has_frame(data, end, parts)
    return found


class _Parts:
    """Passes the parts that the data of a GIF's block come in; all blocks together have a bounded number."""

    def __init__(self, data: bytes) -> None:
        self._data, self._left = data, _MAX_PARTS

    def end(self, place: int) -> int:
        """Where the parts from there on end; the end of the file where they are cut short."""
        data, left = self._data, self._left
        while place < len(data) and data[place] and left:
            place += data[place] + 1
            left -= 1
        self._left = left
        return min(place + 1, len(data)) if left else len(data)


def _has_frame(data: bytes, place: int, parts: _Parts) -> bool:
    """Whether a further frame begins behind a block; it may be damaged."""
    for _ in range(_MAX_BLOCKS):
        kind = data[place : place + 1]
        if kind != b"!":
            return kind == b","
        place = parts.end(place + 2)
    return True


def _read_extension(kind: int, content: bytes, found: Apart) -> None:
    if kind == 0xFE:
        found.add_text("Comment", _unblocked(content[: TEXT_BYTES * 2]))
    elif kind == 0xFF and content[1:12] == _XMP_IN_GIF and len(content) < XMP_BYTES:
        found.add_xmp(content[12:-_TRAILER_BYTES])


def _unblocked(content: bytes) -> bytes:
    out, place = bytearray(), 0
    while place < len(content) and content[place] and len(out) <= TEXT_BYTES:
        out += content[place + 1 : place + 1 + content[place]]
        place += content[place] + 1
    return bytes(out)


def bmp(file: BinaryIO, pixels: bool = True) -> Apart:
    """A BMP whole, with what its header says of versions 3 to 5."""
    data = file.read(-1 if pixels else _HEAD_BYTES)
    found = Apart(data)
    size = int.from_bytes(data[14:18], "little")
    if size >= 40 and size != 64 and len(data) >= 14 + size:
        across, down = struct.unpack_from("<ii", data, 38)
        found.add_resolution(across * INCH, down * INCH)
    if size in (108, 124) and len(data) >= 14 + size:
        _bmp_colours(data, size, found)
    return found


def _bmp_colours(data: bytes, size: int, found: Apart) -> None:
    kind = data[70:74]
    if kind == _CALIBRATED:
        ends, gammas = struct.unpack_from("<9i", data, 74), struct.unpack_from("<3I", data, 110)
        _calibrated([[v / (1 << 30) for v in ends[i : i + 3]] for i in (0, 3, 6)], [g / 65_536 for g in gammas], found)
    elif kind == _SRGB:
        found.add_colour(srgb=0)
    elif kind == _EMBEDDED and size == 124:
        start, length = struct.unpack_from("<II", data, 126)
        found.add_icc(data[14 + start : 14 + start + length])
    elif kind == _LINKED:
        found.add_unread("a colour profile in another file")


def _calibrated(ends: list[list[float]], gammas: list[float], found: Apart) -> None:
    """Primaries as CIE XYZ, which add up to white, and an exponent for each."""
    white = [sum(column) for column in zip(*ends, strict=True)]
    if any(map(any, ends)):
        points = [(x / (x + y + z or math.nan), y / (x + y + z or math.nan)) for x, y, z in [white, *ends]]
        found.add_colour(chromaticities=tuple(round(value, 5) for point in points for value in point))
    if min(gammas) > 0 and len(set(gammas)) == 1:
        found.add_colour(gamma=round(1 / gammas[0], 5))
    elif any(gammas):
        found.add_unread("an exponent for each colour")
