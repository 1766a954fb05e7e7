"""WebP, AVIF, GIF and BMP files taken apart into the part that a decoder needs and their metadata."""

import contextlib
import re
import struct
from collections.abc import Iterator
from io import BytesIO
from typing import BinaryIO

from PIL import Image

from i2i.errors import ImageError
from i2i.images.metadata import EXIF_PREFIX, INCH, TEXT_BYTES, UNREAD_COLOURS, ParsedFile

_MAX_CHUNKS = _MAX_BLOCKS = 10_000
# of a GIF's data, 255 bytes or fewer each
_MAX_PARTS = 1 << 18
_GIF_BLOCK = re.compile(rb"[,!;]")
_HEAD_BYTES = 1 << 24
_EXIF_ITEM = rb"(infe\x02.{3}(?:.{4}|.{6}))Exif"
_NCLX = re.compile(rb"colrnclx(.{7})", re.DOTALL)
# sRGB, and codes for "unspecified"
_USUAL = ((1, 13), (2, 2))
_META_BYTES = 1 << 20
_EXTENDED, _HAS_EXIF = struct.Struct("<4sIB3x3s3s"), 0x08
_SRGB, _EMBEDDED = b"BGRs", b"DEBM"


def webp(file: BinaryIO) -> ParsedFile:
    """A WebP taken apart (RFC 9649, Sec. 2.7); of an animation the first frame."""
    found, kept, frames = ParsedFile(), list[bytes](), 0
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
    found.has_more_frames = frames > 1
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


def webp_with_exif(data: bytes, block: bytes, width: int, height: int) -> bytes:
    """A WebP file with an EXIF block (RFC 9649, Sec. 2.7), for which it has to be in the extended format."""
    rest = bytearray(data[12:])
    if rest[:4] != b"VP8X":
        sides = ((side - 1).to_bytes(3, "little") for side in (width, height))
        rest[:0] = _EXTENDED.pack(b"VP8X", 10, 0, *sides)
    rest[8] |= _HAS_EXIF
    content = block.removeprefix(EXIF_PREFIX)
    rest += b"EXIF" + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
    return struct.pack("<4sI4s", b"RIFF", 4 + len(rest), b"WEBP") + bytes(rest)


def avif(file: BinaryIO) -> ParsedFile:
    """An AVIF whole, for its parts are found by their places; Pillow reads what it holds beside the pixels.

    Where that refuses its EXIF, the name of that entry is changed, so that the pixels are read.
    """
    data = file.read()
    found = ParsedFile(data)
    with contextlib.suppress(Exception):
        _describe_avif(data, found)
        return found
    found.pixels = re.sub(_EXIF_ITEM, rb"\1skip", data[:_META_BYTES], flags=re.DOTALL) + data[_META_BYTES:]
    with contextlib.suppress(Exception):
        _describe_avif(found.pixels, found)
    return found


def _describe_avif(data: bytes, found: ParsedFile) -> None:
    image = Image.open(BytesIO(data), formats=("AVIF",))  # noqa: TID251 (its header alone, which is checked later)
    found.has_more_frames = bool(getattr(image, "is_animated", False))
    found.add_exif(image.info.get("exif"))
    found.add_xmp(image.info.get("xmp"))
    found.add_icc(image.info.get("icc_profile"))
    if codes := _NCLX.search(data[:_META_BYTES]):
        primaries, transfer, _, _ = struct.unpack(">HHHB", codes[1])
        if (primaries, transfer) not in _USUAL:
            found.add_unread(UNREAD_COLOURS)


def gif(file: BinaryIO, pixels: bool = True) -> ParsedFile:
    """A GIF taken apart (GIF89a): its first frame. Raises `ImageError` if there is none near its beginning."""
    data = file.read(-1 if pixels else _HEAD_BYTES)
    found, control, frame = ParsedFile(), b"", b""
    start = 13 + _palette_bytes(data, 10)
    for kind, place, end in _gif_blocks(data, start):
        if kind == b"," and frame:
            found.has_more_frames = pixels
            break
        if kind == b",":
            frame = data[place:end] + (b";" if end < len(data) else b"")
        elif not frame and kind == b"\xf9":
            control = data[place:end]
        elif not frame and kind == b"\xfe":
            found.add_text("Comment", _unblocked(data[place + 2 : min(end, place + 2 * TEXT_BYTES)]))
    if not frame:
        raise ImageError("damaged GIF: there is no picture in it")
    found.pixels = data[:start] + control + frame
    return found


def _gif_blocks(data: bytes, place: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind ("," for a frame, else the label of an extension), beginning and end of a bounded number of blocks."""
    parts = _MAX_PARTS
    for _ in range(_MAX_BLOCKS):
        # bytes between blocks are passed, as other readers do
        found = _GIF_BLOCK.search(data, place)
        if found is None or found[0] == b";":
            return
        kind, place = found[0], found.start()
        end = place + 11 + _palette_bytes(data, place + 9) if kind == b"," else place + 2
        while end < len(data) and data[end] and parts:
            end, parts = end + data[end] + 1, parts - 1
        end = min(end + 1, len(data)) if parts else len(data)
        yield (kind if kind == b"," else data[place + 1 : place + 2]), place, end
        place = end


def _palette_bytes(data: bytes, flags: int) -> int:
    """The bytes of the palette that the flags at that place announce."""
    return 3 << (data[flags] & 7) + 1 if data[flags : flags + 1] >= b"\x80" else 0


def _unblocked(content: bytes) -> bytes:
    out, place = bytearray(), 0
    while place < len(content) and content[place] and len(out) <= TEXT_BYTES:
        out += content[place + 1 : place + 1 + content[place]]
        place += content[place] + 1
    return bytes(out)


def bmp(file: BinaryIO, pixels: bool = True) -> ParsedFile:
    """A BMP whole, with resolution and profile of its header (versions 3 to 5)."""
    data = file.read(-1 if pixels else _HEAD_BYTES)
    found = ParsedFile(data)
    size = int.from_bytes(data[14:18], "little")
    if size < 40 or size == 64 or len(data) < 14 + size:
        return found
    across, down = struct.unpack_from("<ii", data, 38)
    found.add_resolution(across * INCH, down * INCH)
    if size == 124 and data[70:74] == _EMBEDDED:
        start, length = struct.unpack_from("<II", data, 126)
        found.add_icc(data[14 + start : 14 + start + length])
    elif size in (108, 124) and data[70:74] != _SRGB and any(data[74:122]):
        found.add_unread(UNREAD_COLOURS)
    return found
