"""PNG files (PNG specification, third edition, 2025): read part by part, and written from rows; and deflate.

The pixels of a file are unpacked once, and no further than the picture goes. A decoder is given the header, the
palette, the transparent colour, and the pixels deflated again without compression. So data that swells is never
unpacked, whatever the decoder would do. Rows are written filtered by the row above (`up`), which costs next to nothing.

isal deflates and inflates where it is installed (`pip install 'i2i[fast]'`), else zlib; any reader takes both.
"""

import binascii
import contextlib
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from i2i.errors import ImageError
from i2i.images.metadata import (
    EXIF_BYTES,
    EXIF_PREFIX,
    ICC_BYTES,
    INCH,
    TEXT_BYTES,
    XMP_BYTES,
    XMP_IN_JPEG,
    XMP_IN_PNG,
    ParsedFile,
)
from i2i.images.picture import Limits, Picture, Pixels, row_blocks

_ZLIB_LEVEL = 3
_SMALL = 1 << 16
"""Zlib deflates fewer bytes than these: isal 1.9.1 packs them differently in one process of five (docs/lab-book.md)."""
_zlib: Any = zlib  # takes arrays, which its types do not know
_codec: Any
try:
    from isal import isal_zlib as _codec
except ImportError:
    _codec = zlib
_LEVEL = 1

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
_LAST_FILTER, _UP = 4, 2
_PALETTE_BYTES = 768
_COLOURS = {b"cICP": 4, b"sRGB": 1, b"gAMA": 4, b"cHRM": 32}  # bytes of each
_NAMED = (b"iCCP", b"tEXt", b"zTXt", b"iTXt")  # begin with a keyword
_RAW = b"Raw profile type "
_RAW_BYTES = 2 * EXIF_BYTES + (EXIF_BYTES >> 3)  # two digits a byte, and line ends
# the longest that is read of the chunks beside the pixels
_OTHER_BYTES = 1 << 25
_HEADER, _HEADER_BYTES = ">IIBBBBB", len(SIGNATURE) + 25
_KINDS = {1: 0, 2: 4, 3: 2, 4: 6}
_PART_BYTES = 1 << 20


def compress(data: bytes | Pixels) -> bytes:
    """`data`, with a buffer of contiguous bytes, deflated."""
    size = len(data) if isinstance(data, bytes) else data.nbytes
    packed: bytes = _zlib.compress(data, _ZLIB_LEVEL) if size < _SMALL else _codec.compress(data, _LEVEL)
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


def parse(file: BinaryIO, limits: Limits, pixels: bool = True) -> ParsedFile:
    """Takes a PNG apart; of an animation the default picture. Without `pixels` the file for a decoder ends before them.

    Raises `ImageError` for a file that is no PNG within the limits, or has fewer pixels than its header says.
    """
    found, packed, late = ParsedFile(), list[bytes](), False
    header = _Header.of(file, limits)
    needed: list[bytes | memoryview] = [SIGNATURE, chunk(b"IHDR", struct.pack(_HEADER, *header))]
    for kind, place, length in _chunks(file):
        late |= kind == b"IDAT"
        if kind == b"PLTE" and header.kind == _PALETTE and not late:
            if (palette := _content(file, kind, place, min(length, _PALETTE_BYTES))) is None:
                raise ImageError("damaged PNG: a broken PLTE chunk")
            needed.append(chunk(kind, palette))
        elif kind == b"tRNS" and header.kind in _TRANSPARENT and not late:
            needed.append(_transparency(header, _content(file, kind, place, min(length, _PALETTE_BYTES)), found))
        elif kind == b"IDAT" and pixels:
            file.seek(place)
            packed.append(file.read(length))
        elif kind == b"acTL" and not late:
            found.has_more_frames = True
        elif kind in (b"pHYs", b"eXIf", *_NAMED, *_COLOURS):
            _read(file, kind, place, length, found)
        elif not kind.isalpha() and not late:
            raise ImageError(f"damaged PNG: {kind!r} where the name of a chunk is expected")
    needed.extend(_pixels(header, packed) if pixels else [chunk(b"IDAT", b"")])
    found.pixels = b"".join([*needed, chunk(b"IEND", b"")])
    return found


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))


_SRGB = (
    chunk(b"gAMA", struct.pack(">I", 45_455)),
    chunk(b"cHRM", struct.pack(">8I", 31_270, 32_900, 64_000, 33_000, 30_000, 60_000, 15_000, 6_000)),
)


class _Header(NamedTuple):
    """The content of IHDR."""

    width: int
    height: int
    depth: int
    kind: int
    packing: int
    filtering: int
    interlaced: int

    @classmethod
    def of(cls, file: BinaryIO, limits: Limits) -> "_Header":
        file.seek(0)
        head = file.read(_HEADER_BYTES)
        if head[:8] != SIGNATURE:
            raise ImageError("damaged PNG: its signature is broken")
        if head[8:16] != b"\0\0\0\rIHDR":
            raise ImageError("damaged PNG: no header")
        if head[29:33] != struct.pack(">I", zlib.crc32(head[12:29])):
            raise ImageError("damaged PNG: the checksum of its header is another")
        header = cls(*struct.unpack(_HEADER, head[16:29]))
        limits.check_size(header.width, header.height)
        known = header.depth in _DEPTHS.get(header.kind, ()) and header.interlaced < 2
        if not known or header.packing or header.filtering:
            raise ImageError("damaged PNG: its header names no size or an unknown kind of pixels")
        return header

    def passes(self) -> Iterator[tuple[int, int]]:
        """Rows of each pass, and the bytes of a row with its filter; one pass where it is not interlaced."""
        bits = self.depth * _CHANNELS[self.kind]
        for left, top, right, down in _ADAM7 if self.interlaced else ((0, 0, 1, 1),):
            columns, rows = -(-(self.width - left) // right), -(-(self.height - top) // down)
            if columns > 0 and rows > 0:
                yield rows, 1 + -(-columns * bits // 8)


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Kind of each chunk, where its content begins, and the length that it claims."""
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


def _content(file: BinaryIO, kind: bytes, place: int, length: int) -> bytes | None:
    """The content of a chunk; None if its checksum is another."""
    file.seek(place)
    content = file.read(length)
    return content if file.read(4) == struct.pack(">I", zlib.crc32(content, zlib.crc32(kind))) else None


def _transparency(header: _Header, content: bytes | None, found: ParsedFile) -> bytes:
    """The chunk of a palette's transparency; of a colour nothing, for it is compared here, by the bits of its depth."""
    count = _TRANSPARENT[header.kind]
    if content is None or len(content) < 2 * count:
        found.add_unread("a damaged transparent colour")
        return b""
    if not count:
        return chunk(b"tRNS", content)
    most = (1 << header.depth) - 1
    scale = 255 // most if header.depth < 8 else 1
    found.transparent = tuple((value & most) * scale for value in struct.unpack_from(f">{count}H", content))
    return b""


def _pixels(header: _Header, packed: list[bytes]) -> Iterator[bytes | memoryview]:
    """Unpacks the chunks of pixels part by part, and empties `packed`.

    Raises `ImageError` for fewer rows than the header says, and for an unknown filter.
    """
    passes = list(header.passes())
    wanted = sum(rows * row for rows, row in passes)
    whole = [b"".join(packed)]
    packed.clear()
    stream = Inflating(lambda size: whole.pop() if whole else b"")  # all at once, so that no part is copied
    raw = stream.read(wanted)
    if len(raw) < wanted:
        raise ImageError("damaged: it is truncated, with fewer pixels than its header says")
    stream.read(1)  # the checksum behind the pixels, which nothing else reads
    start = 0
    for rows, row in passes:
        if max(raw[start : start + rows * row : row]) > _LAST_FILTER:
            raise ImageError("damaged: its compressed pixels are broken")
        start += rows * row
    return _stored(raw)


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


def _read(file: BinaryIO, kind: bytes, place: int, length: int, found: ParsedFile) -> None:
    """Reads a chunk beside the pixels; one that is damaged counts as absent."""
    if length > _OTHER_BYTES:
        found.add_unread(f"a {kind.decode()} chunk of {length} bytes")
        return
    content = _content(file, kind, place, length)
    if content is None:
        return
    if kind in _COLOURS:
        if length == _COLOURS[kind] and kind not in (found.colour or b""):
            found.colour = (found.colour or b"") + chunk(kind, content)
        return
    with contextlib.suppress(struct.error, ValueError, IndexError):
        if kind == b"pHYs":
            _read_resolution(content, found)
        elif kind == b"eXIf" and content:
            found.exif = None  # before a block in a text, which stands for writers that know no such chunk
            found.add_exif(content)
        elif kind in _NAMED:
            keyword, _, rest = content.partition(b"\0")
            _read_text(kind, keyword, rest, found)


def _read_resolution(content: bytes, found: ParsedFile) -> None:
    across, down, unit = struct.unpack_from(">IIB", content)
    if unit == 1:
        found.add_resolution(across * INCH, down * INCH)
    elif across != down:
        found.add_unread("the shape of its pixels")


def _read_text(kind: bytes, keyword: bytes, content: bytes, found: ParsedFile) -> None:
    """Reads a text, profile or packet of that name; unpacks what is new up to its limit, or a little more.

    Deflated content has a byte for the method before it, an international text its language and translated name too.
    """
    packed = kind in (b"iCCP", b"zTXt")
    if kind == b"iTXt":
        packed, content = content[0] > 0, content[2:].split(b"\0", 2)[2]
    elif packed:
        if content[0]:
            return
        content = content[1:]

    def text(most: int) -> bytes | None:
        return found.inflated(content, most) if packed else content

    if kind == b"iCCP":
        found.add_icc(text(ICC_BYTES) if found.icc is None else None)
    elif kind == b"iTXt" and keyword == XMP_IN_PNG:
        found.add_xmp(text(XMP_BYTES) if found.xmp is None else None)
    elif keyword.startswith(_RAW):
        _read_raw(keyword.removeprefix(_RAW), text, found)
    elif found.wants_text(name := keyword.decode("latin-1")):
        found.add_text(name, (text(TEXT_BYTES) or b"").decode("utf-8" if kind == b"iTXt" else "latin-1"))


def _read_raw(kind: bytes, unpacked: Callable[[int], bytes | None], found: ParsedFile) -> None:
    """Reads a block that ImageMagick puts into a text: its name and length, then hexadecimal digits."""
    known = {b"exif": found.exif, b"APP1": found.exif and found.xmp, b"xmp": found.xmp}
    known |= dict.fromkeys((b"icc", b"icm"), found.icc)
    if kind not in known:
        found.add_unread("IPTC" if kind in (b"iptc", b"8bim") else "a raw profile of another kind")
    text = unpacked(_RAW_BYTES) if known.get(kind, b"") is None else None
    if text is None:
        return
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


def encode(pixels: Pixels, picture: Picture, icc: bytes | None) -> bytes:
    """(H, W, 1 to 4) uint8 or uint16, 2 and 4 being with alpha, as a file with that profile and all of `picture`."""
    bands = (pixels[rows] for rows in row_blocks(pixels))
    return b"".join(parts(pixels.shape[0], pixels.shape[1], bands, picture, icc))


def parts(height: int, width: int, bands: Iterable[Pixels], picture: Picture, icc: bytes | None) -> Iterator[bytes]:
    """The parts of the file of a picture whose rows come in bands, each as `encode` takes pixels."""
    small, above = height * width < _SMALL, None
    # by run lengths zlib takes as long as OpenCV, for noise a third of the time of its own strategy
    strategy = zlib.Z_RLE if _codec is zlib else zlib.Z_DEFAULT_STRATEGY
    deflate = _zlib.compressobj(_ZLIB_LEVEL) if small else _codec.compressobj(_LEVEL, strategy=strategy)
    for pixels in bands:
        rows = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder(">")).view(np.uint8).reshape(len(pixels), -1)
        if above is None:
            above = np.zeros_like(rows[0])
            head = (width, height, 8 * pixels.dtype.itemsize, _KINDS[pixels.shape[2]], 0, 0, 0)
            yield SIGNATURE + chunk(b"IHDR", struct.pack(_HEADER, *head)) + _metadata(picture, icc)
        if packed := deflate.compress(_filtered(rows, above)):
            yield chunk(b"IDAT", packed)
        above = rows[-1]
    yield chunk(b"IDAT", deflate.flush()) + chunk(b"IEND", b"")


def has_unusual_colours(picture: Picture) -> bool:
    """Whether a picture is described by other colours than those of sRGB, which a picture without description has."""
    colour = picture.colour or b""
    for usual in _SRGB:
        colour = colour.replace(usual, b"")
    return b"cICP" in colour or (bool(colour) and b"sRGB" not in colour and picture.icc is None)


def _metadata(picture: Picture, icc: bytes | None) -> bytes:
    """The chunks of a picture beside its pixels."""
    found = chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc)) if icc else b""
    if picture.exif:
        found += chunk(b"eXIf", picture.exif.removeprefix(EXIF_PREFIX))
    found += picture.colour or b""
    if picture.resolution:
        across, down = (round(value / INCH) for value in picture.resolution)
        found += chunk(b"pHYs", struct.pack(">IIB", across, down, 1))
    if picture.xmp:
        found += chunk(b"iTXt", XMP_IN_PNG + bytes(5) + picture.xmp)
    return found + b"".join(_text_chunk(*text) for text in picture.texts.items())


def _text_chunk(keyword: str, text: str) -> bytes:
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
