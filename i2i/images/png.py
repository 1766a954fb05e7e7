"""PNG taken apart (PNG specification, third edition, 2025): its pixels unpacked once and no further than they go.

A codec is given the header, the palette, the transparent colour and the pixels, which are deflated again without
compression. So packed bytes that swell beyond the picture are never unpacked, whatever the codec would do.
"""

import binascii
import contextlib
import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from i2i.errors import ImageError
from i2i.images.apart import (
    EXIF_BYTES,
    ICC_BYTES,
    INCH,
    TEXT_BYTES,
    XMP_BYTES,
    XMP_IN_JPEG,
    XMP_IN_PNG,
    Apart,
)
from i2i.images.deflate import decompressor
from i2i.images.picture import Limits

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PALETTE = 3
# how many values of 16 bits are the transparent colour; of a palette each colour has one byte
_TRANSPARENT = {0: 1, 2: 3, _PALETTE: 0}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
# first column and row of each pass, and the steps to the next
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_MAX_CHUNKS = 200_000
_STORED_BYTES = 65_535
_LAST_FILTER = 4
_PALETTE_BYTES = 768
_RAW = b"Raw profile type "
_IPTC = (b"iptc", b"8bim")
# which parts of a picture a raw profile of that name can be
_SLOTS = {b"exif": ("exif",), b"APP1": ("exif", "xmp"), b"xmp": ("xmp",), b"icc": ("icc",), b"icm": ("icc",)}
_RAW_BYTES = 2 * EXIF_BYTES + (EXIF_BYTES >> 3)  # two digits a byte, and line ends
# the longest of what is read of the other chunks; texts that are packed may be longer than what is in them
_OTHER_BYTES = 1 << 25


def apart(file: BinaryIO, limits: Limits, pixels: bool = True, whole: bool = True) -> Apart:
    """A PNG taken apart; of an animation the default picture. Without `pixels` what a codec gets ends before them.

    If not `whole`, of what it says beside pixels only that is read which turns them.
    Raises `ImageError` for what is no PNG within the limits, or has fewer pixels than its header says.
    """
    found, needed, packed = Apart(whole=whole), list[bytes | memoryview]([SIGNATURE]), list[bytes]()
    header, late = _header(file, limits), False
    needed.append(chunk(b"IHDR", header))
    for kind, place, length in _chunks(file):
        late |= kind == b"IDAT"
        if kind == b"PLTE" and header[9] == _PALETTE and not late:
            needed.append(chunk(kind, _palette(file, place, length)))
        elif kind == b"tRNS" and header[9] in _TRANSPARENT and not late:
            needed.append(_transparent(header, _content(file, kind, place, min(length, _PALETTE_BYTES)), found))
        elif kind == b"IDAT" and pixels:
            file.seek(place)
            packed.append(file.read(length))
        elif kind == b"acTL" and not late:
            found.more = True
        elif kind in (_READERS if whole else _TURNING):
            _read(file, kind, place, length, found)
        elif not kind.isalpha() and not late:
            raise ImageError(f"damaged PNG: {kind!r} where the name of a chunk is expected")
    needed.extend(_pixels(header, packed) if pixels else [chunk(b"IDAT", b"")])
    found.pixels = b"".join([*needed, chunk(b"IEND", b"")])
    return found


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))


def _header(file: BinaryIO, limits: Limits) -> bytes:
    file.seek(0)
    head = file.read(len(SIGNATURE) + 25)
    if head[:16] != SIGNATURE + b"\0\0\0\rIHDR":
        raise ImageError("damaged PNG: its signature is broken" if head[:8] != SIGNATURE else "damaged PNG: no header")
    content = head[16:29]
    if head[29:33] != struct.pack(">I", zlib.crc32(head[12:29])):
        raise ImageError("damaged PNG: the checksum of its header is another")
    width, height, depth, kind, packing, filtering, interlaced = struct.unpack(">IIBBBBB", content)
    limits.check_size(width, height)
    if depth not in _DEPTHS.get(kind, ()) or packing or filtering or interlaced > 1:
        raise ImageError("damaged PNG: its header names no size or an unknown kind of pixels")
    return content


def _content(file: BinaryIO, kind: bytes, place: int, length: int) -> bytes | None:
    """What a chunk holds; None if its checksum is another."""
    file.seek(place)
    content = file.read(length)
    return content if file.read(4) == struct.pack(">I", zlib.crc32(content, zlib.crc32(kind))) else None


def _palette(file: BinaryIO, place: int, length: int) -> bytes:
    """The colours, without which the pixels are none."""
    content = _content(file, b"PLTE", place, min(length, _PALETTE_BYTES))
    if content is None:
        raise ImageError("damaged PNG: a broken PLTE chunk")
    return content


def _transparent(header: bytes, content: bytes | None, found: Apart) -> bytes:
    """The chunk of what is transparent, of a colour the bits that its depth has; none where it is damaged."""
    count = _TRANSPARENT[header[9]]
    if content is None or len(content) < 2 * count:
        found.add_unread("a damaged description of what is transparent")
        return b""
    if not count:
        return chunk(b"tRNS", content)
    mask = (1 << header[8]) - 1
    return chunk(b"tRNS", struct.pack(f">{count}H", *(v & mask for v in struct.unpack_from(f">{count}H", content))))


def _pixels(header: bytes, packed: list[bytes]) -> Iterator[bytes | memoryview]:
    """The parts of the chunks of the pixels, of which nothing stays in `packed`.

    Raises `ImageError` if they are fewer than the header says, or filtered by no filter.
    """
    passes = _passes(header)
    wanted = sum(rows * row for rows, row in passes)
    raw = _unpacked(packed, wanted)
    if len(raw) < wanted:
        raise ImageError("damaged: it is truncated, with fewer pixels than its header says")
    start = 0
    for rows, row in passes:
        if max(raw[start : start + rows * row : row]) > _LAST_FILTER:
            raise ImageError("damaged: its compressed pixels are broken")
        start += rows * row
    return _stored(raw)


def _unpacked(packed: list[bytes], wanted: int) -> bytes:
    """As many bytes as the pixels have, or fewer. Raises `ImageError` for what is damaged."""
    inflate, data = decompressor(), b"".join(packed)
    packed.clear()
    try:
        raw: bytes = inflate.decompress(data, wanted)
        # the checksum behind the pixels, which nothing else reads
        while len(raw) == wanted and inflate.unconsumed_tail and not inflate.eof:
            if inflate.decompress(inflate.unconsumed_tail, 1):
                break
    except Exception:  # isal has errors of its own
        raise ImageError("damaged: its compressed pixels are broken") from None
    return raw


def _stored(raw: bytes) -> Iterator[bytes | memoryview]:
    """The parts of the chunks of pixels deflated without compression (RFC 1951, Sec. 3.2.4); `raw` is not copied."""
    whole = memoryview(raw)
    for start in range(0, len(raw), _STORED_BYTES):
        part, last = whole[start : start + _STORED_BYTES], start + _STORED_BYTES >= len(raw)
        head = b"IDAT" + b"\x78\x01" * (start == 0) + struct.pack("<BHH", last, len(part), len(part) ^ 0xFFFF)
        tail = struct.pack(">I", zlib.adler32(raw)) if last else b""
        checksum = zlib.crc32(tail, zlib.crc32(part, zlib.crc32(head)))
        yield struct.pack(">I", len(head) - 4 + len(part) + len(tail)) + head
        yield part
        yield tail + struct.pack(">I", checksum)


def _passes(header: bytes) -> list[tuple[int, int]]:
    """Rows of each pass, and the bytes of a row with its filter; one pass where it is not interlaced."""
    width, height, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    bits = depth * _CHANNELS[kind]
    found = []
    for left, top, right, down in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // right), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            found.append((rows, 1 + -(-columns * bits // 8)))
    return found


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Kind of each chunk, where its content begins, and how long it says that is."""
    place = len(SIGNATURE)
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


def _read(file: BinaryIO, kind: bytes, place: int, length: int, found: Apart) -> None:
    """A chunk that says something beside the pixels; one that is damaged says nothing."""
    if length > _OTHER_BYTES:
        found.add_unread(f"a {kind.decode()} chunk of {length} bytes")
        return
    content = _content(file, kind, place, length)
    if content is not None:
        with contextlib.suppress(struct.error, ValueError, IndexError):
            _READERS[kind](content, found)


def _numbers(pattern: str, content: bytes) -> tuple[Any, ...]:
    return struct.unpack(pattern, content[: struct.calcsize(pattern)])


def _gamma(content: bytes, found: Apart) -> None:
    found.add_colour(gamma=_numbers(">I", content)[0] / 100_000)


def _chromaticities(content: bytes, found: Apart) -> None:
    found.add_colour(chromaticities=tuple(value / 100_000 for value in _numbers(">8I", content)))


def _srgb(content: bytes, found: Apart) -> None:
    if content[0] < 4:
        found.add_colour(srgb=content[0])


def _cicp(content: bytes, found: Apart) -> None:
    found.add_colour(cicp=_numbers("4B", content))


def _resolution(content: bytes, found: Apart) -> None:
    across, down, unit = _numbers(">IIB", content)
    if unit == 1:
        found.add_resolution(across * INCH, down * INCH)
    elif across != down:
        found.add_unread("the shape of its pixels")


def _profile(content: bytes, found: Apart) -> None:
    _, _, packed = content.partition(b"\0")
    if packed[:1] == b"\0" and found.icc is None:
        found.add_icc(found.inflated(packed[1:], ICC_BYTES))


def _exif(content: bytes, found: Apart) -> None:
    if content:
        # before one in a text, which stands for writers that know no such chunk
        found.exif = None
        found.add_exif(content)


def _text(content: bytes, found: Apart) -> None:
    keyword, _, text = content.partition(b"\0")
    _add_text(keyword, text, found)


def _packed_text(content: bytes, found: Apart) -> None:
    keyword, _, packed = content.partition(b"\0")
    if packed[:1] == b"\0" and _is_wanted(keyword, found):
        _add_text(keyword, found.inflated(packed[1:], _most(keyword)), found)


def _international_text(content: bytes, found: Apart) -> None:
    keyword, _, rest = content.partition(b"\0")
    if not _is_wanted(keyword, found):
        return
    text = rest[2:].split(b"\0", 2)[2]
    if rest[0]:
        text = found.inflated(text, _most(keyword)) or b""
    if keyword == XMP_IN_PNG:
        found.add_xmp(text)
    else:
        found.add_text(keyword.decode("latin-1"), text.decode())


def _is_wanted(keyword: bytes, found: Apart) -> bool:
    """Whether a text says something that is not known yet; it is not unpacked else."""
    if keyword == XMP_IN_PNG:
        return found.xmp is None
    if not keyword.startswith(_RAW):
        return found.wants_text(keyword.decode("latin-1"))
    kind = keyword.removeprefix(_RAW)
    if kind not in _SLOTS:
        found.add_unread("IPTC" if kind in _IPTC else "a raw profile of another kind")
    slots = _SLOTS.get(kind, ())
    return any(getattr(found, slot) is None for slot in slots) and (found.whole or slots != ("icc",))


def _most(keyword: bytes) -> int:
    """How long a text may be."""
    return _RAW_BYTES if keyword.startswith(_RAW) else XMP_BYTES if keyword == XMP_IN_PNG else TEXT_BYTES


def _add_text(keyword: bytes, text: bytes | None, found: Apart) -> None:
    if text is None or not _is_wanted(keyword, found):
        return
    if keyword.startswith(_RAW):
        _add_raw(keyword.removeprefix(_RAW), text, found)
    else:
        found.add_text(keyword.decode("latin-1"), text.decode("latin-1"))


def _add_raw(kind: bytes, text: bytes, found: Apart) -> None:
    """A block in hexadecimal digits behind its name and length, as ImageMagick writes it."""
    if len(text) > _RAW_BYTES:
        found.add_unread("a long raw profile")
        return
    block = binascii.unhexlify(text.split(b"\n", 3)[3].translate(None, b" \r\n"))
    if block.startswith(XMP_IN_JPEG) or kind == b"xmp":
        found.add_xmp(block.removeprefix(XMP_IN_JPEG))
    elif kind in (b"icc", b"icm"):
        found.add_icc(block)
    else:
        found.add_exif(block)


def _light(content: bytes, found: Apart) -> None:
    found.add_unread("the light levels of its display")


_READERS = {
    b"gAMA": _gamma,
    b"cHRM": _chromaticities,
    b"sRGB": _srgb,
    b"cICP": _cicp,
    b"iCCP": _profile,
    b"pHYs": _resolution,
    b"eXIf": _exif,
    b"tEXt": _text,
    b"zTXt": _packed_text,
    b"iTXt": _international_text,
    b"mDCV": _light,
    b"cLLI": _light,
}
# what says which way up a picture is
_TURNING = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
