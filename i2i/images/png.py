"""What reading PNG needs beyond a codec: the default picture of an animation, late EXIF, whether all pixels are there.

PNG specification, third edition (2025).
"""

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import BinaryIO

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SIGNATURE_BYTES = len(_SIGNATURE)
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# first column and row of each pass, and the steps to the next
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_STEP = 1 << 20
_MAX_CHUNKS = 200_000
_ANIMATION = (b"acTL", b"fcTL", b"fdAT")


def late_exif(file: BinaryIO) -> bytes:
    """The EXIF block wherever it stands, b"" if there is none; Pillow would decode the pixels to find one late."""
    for kind, place, length in _chunks(file):
        if kind == b"eXIf":
            file.seek(place)
            return b"Exif\0\0" + file.read(length)
    return b""


def has_all_pixels(data: bytes) -> bool:
    """Whether as many bytes are packed in it as its header promises; Pillow makes up what is missing."""
    missing = _packed_bytes(data)
    inflate = zlib.decompressobj()
    for kind, place, length in _chunks(BytesIO(data)):
        if kind != b"IDAT" or inflate.eof:
            continue
        part = data[place : place + length]
        while part and missing > 0:
            missing -= len(inflate.decompress(part, _STEP))
            part = inflate.unconsumed_tail
    return missing <= 0


def _packed_bytes(data: bytes) -> int:
    width, height, depth, kind, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, _SIGNATURE_BYTES + 8)
    bits = depth * _CHANNELS[kind]
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    total = 0
    for left, top, right, down in passes:
        columns, rows = -(-(width - left) // right), -(-(height - top) // down)
        if columns > 0:
            total += max(0, rows) * (1 + -(-columns * bits // 8))
    return total


def still(file: BinaryIO) -> BinaryIO:
    """The default picture of an animated PNG as a file of its own; `file` itself where it is not animated."""
    if not _is_animated(file):
        file.seek(0)
        return file
    file.seek(0)
    out = BytesIO()
    out.write(file.read(_SIGNATURE_BYTES))
    for kind, place, length in _chunks(file):
        if kind not in _ANIMATION:
            file.seek(place - 8)
            out.write(file.read(length + 12))
    out.seek(0)
    return out


def _is_animated(file: BinaryIO) -> bool:
    for kind, _, _ in _chunks(file):
        if kind == b"IDAT":
            break
        if kind == b"acTL":
            return True
    return False


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Kind of each chunk, where its content begins, and how long it says that is."""
    place = _SIGNATURE_BYTES
    for _ in range(_MAX_CHUNKS):
        file.seek(place)
        head = file.read(8)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head)
        yield kind, place + 8, length
        if kind == b"IEND":
            return
        place += length + 12
