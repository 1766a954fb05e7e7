"""JPEG, WebP, AVIF, GIF and BMP files taken apart into the part that a decoder needs and their metadata.

Also the segments of metadata in a JPEG or WebP that is written.
"""

import contextlib
import re
import struct
from collections.abc import Iterator
from io import BytesIO
from typing import BinaryIO

from PIL import Image

from i2i.errors import ImageError
from i2i.images import tiff_directory as t
from i2i.images.metadata import (
    EXIF_BYTES,
    EXIF_PREFIX,
    ICC_BYTES,
    INCH,
    TEXT_BYTES,
    UNREAD_COLOURS,
    XMP_IN_JPEG,
    ParsedFile,
)
from i2i.images.picture import Picture

SEGMENT_BYTES = 65_533
"""The content of one segment of a JPEG, whose length takes two of its 65,535 bytes."""
_MOST_DENSITY = 65_535.5
BEHIND_JFIF = 20
"""Where a JPEG goes on whose writer begins it with JFIF."""

_START = b"\xff\xd8"
_SCAN, _COMMENT, _END = 0xDA, 0xFE, 0xD9
_LOSSLESS = (0xC3, 0xC7, 0xCB, 0xCF)
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_APPLICATIONS = range(0xE0, 0xF0)
_ALONE = range(0xD0, 0xDA)
"""The markers of restarts, of the start and of the end, which have no content."""
_MAX_SEGMENTS = 10_000
# a decoder goes through all blocks of the picture for each; encoders make about ten
_MAX_SCANS = 100
_MARKER = re.compile(rb"\xff[^\0\x01\xff\xd0-\xd7]")
_ICC, _JFIF, _ADOBE, _FRAMES_INDEX, _PHOTOSHOP = b"ICC_PROFILE\0", b"JFIF\0", b"Adobe", b"MPF\0", b"Photoshop 3.0\0"
_FURTHER_XMP = b"http://ns.adobe.com/xmp/extension/\0"
_FRAME_COUNT = 0xB001
_IPTC = b"8BIM\x04\x04"
_CENTIMETRES = 2.54
_FILL_BYTES = 1 << 16
_MAX_CHUNKS = _MAX_BLOCKS = 10_000
# blocks of a GIF's data, 255 bytes or fewer each
_MAX_PARTS = 1 << 18
_GIF_BLOCK = re.compile(rb"[,!;]")
_HEAD_BYTES = 1 << 24
_EXIF_ITEM = rb"(infe\x02.{3}(?:.{4}|.{6}))Exif"
_NCLX = re.compile(rb"colrnclx(.{7})", re.DOTALL)
# sRGB, and codes for "unspecified"
_USUAL = ((1, 13), (2, 2))
_META_BYTES = 1 << 20
_SRGB, _EMBEDDED = b"BGRs", b"DEBM"


def jpeg(file: BinaryIO, pixels: bool = True) -> ParsedFile:
    """A JPEG taken apart (ITU-T T.81, Annex B); of several pictures the first.

    Without `pixels` the file for a decoder ends before them.

    Raises `ImageError` for one with more segments or scans than any encoder makes, and for a lossless one.
    """
    if not file.read(3) == _START + b"\xff":
        raise ImageError("damaged JPEG: its signature is broken")
    found, needed, profile = ParsedFile(), [_START], list[bytes]()
    frame, place = (0, 0), 2
    for _ in range(_MAX_SEGMENTS):
        place, marker, segment = _segment(file, place)
        content, is_beside = segment[4:], marker in _APPLICATIONS or marker == _COMMENT
        if is_beside:
            with contextlib.suppress(struct.error, IndexError, ImageError):
                _read_segment(marker, content, found, profile)
        if marker in _FRAMES:
            frame = marker, content[5] if len(content) > 5 else 0
        if not is_beside or content.startswith((_JFIF, _ADOBE)):
            needed.append(segment)
        if marker in (0, _SCAN, _END):
            break
    else:
        raise ImageError(f"damaged JPEG: more than {_MAX_SEGMENTS} segments before its pixels")
    if frame[0] in _LOSSLESS:
        raise ImageError("lossless JPEG is not read here")
    found.add_icc(_joined(profile))
    if pixels:
        file.seek(place)
        needed.append(file.read())
        if marker == _SCAN and (frame[0] in _PROGRESSIVE or content[:1] != bytes([frame[1]])):
            _check_scans(needed[-1])
    found.pixels = b"".join(needed)
    return found


def _segment(file: BinaryIO, place: int) -> tuple[int, int, bytes]:
    """The next segment: its end, its marker, and all of it; the marker is 0 where there is none."""
    file.seek(place)
    head = file.read(4)
    while len(head) == 4 and not (head[0] == 0xFF and head[1] not in (0, 1, 0xFF)):
        # fill bytes, and bytes that stand there by mistake
        block = head + file.read(_FILL_BYTES)
        found = _MARKER.search(block, max(0, len(block) - len(block.lstrip(b"\xff")) - 1))
        place += found.start() if found else _FILL_BYTES
        file.seek(place)
        head = file.read(4)
    if len(head) < 4:
        return place, 0, b""
    if head[1] in _ALONE:
        return place + 2, head[1], head[:2]
    length = int.from_bytes(head[2:], "big") - 2
    segment = head + file.read(max(0, length))
    return (place + len(segment), head[1], segment) if len(segment) == 4 + length else (place, 0, b"")


def _check_scans(data: bytes) -> None:
    """Raises `ImageError` where decoding takes for ever, as so many scans follow the first."""
    place, scans = 0, 1
    for _ in range(_MAX_SEGMENTS):
        found = _MARKER.search(data, place)
        if found is None or data[found.end() - 1] == _END:
            return
        scans += data[found.end() - 1] == _SCAN
        if scans > _MAX_SCANS:
            break
        place = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    raise ImageError(f"damaged JPEG: more than {_MAX_SCANS} scans of its pixels")


def _read_segment(marker: int, content: bytes, found: ParsedFile, profile: list[bytes]) -> None:
    """Reads a segment that a decoder does not need."""
    if marker == _COMMENT:
        found.add_text("Comment", content.rstrip(b"\0"))
    elif content.startswith(_JFIF):
        _read_density(content, found)
    elif content.startswith(EXIF_PREFIX):
        # one block in several segments, as some write it
        if found.exif is None or len(found.exif) < EXIF_BYTES:
            found.exif = (found.exif or b"") + content[len(EXIF_PREFIX) if found.exif else 0 :]
    elif content.startswith(XMP_IN_JPEG):
        found.add_xmp(content[len(XMP_IN_JPEG) :])
    elif content.startswith(_ICC):
        if sum(map(len, profile)) < ICC_BYTES:
            profile.append(content)
    elif content.startswith(_FRAMES_INDEX):
        index = t.read(BytesIO(content[len(_FRAMES_INDEX) :]), every=True)  # CIPA DC-007
        found.has_more_frames |= index.number(_FRAME_COUNT, 1) > 1
    elif content.startswith(_FURTHER_XMP):
        found.add_unread("the extended part of its XMP")
    elif content.startswith(_PHOTOSHOP) and _IPTC in content:
        found.add_unread("IPTC")


def _read_density(content: bytes, found: ParsedFile) -> None:
    unit, across, down = struct.unpack_from(">BHH", content, 7)
    if unit in (1, 2):
        scale = 1 if unit == 1 else _CENTIMETRES
        found.add_resolution(across * scale, down * scale)


def _joined(profile: list[bytes]) -> bytes | None:
    """A colour profile of numbered parts; None unless all are there (ICC.1:2022, Annex B.4)."""
    parts = sorted(profile, key=lambda part: part[len(_ICC) : len(_ICC) + 1])
    if not parts or parts[0][len(_ICC) + 1 : len(_ICC) + 2] != bytes([len(parts) & 0xFF]):
        return None
    return b"".join(part[len(_ICC) + 2 :] for part in parts)


def jpeg_head(picture: Picture, exif: bytes | None) -> tuple[bytes, list[str]]:
    """The beginning of a JPEG, with all of a picture but its profile: start, JFIF (ITU-T T.871), EXIF, XMP, comment.

    With it the names of the parts for which there is no room in it, as each has one segment.
    """
    density, left_out = (0, 1, 1), list[str]()
    if picture.resolution and max(picture.resolution) < _MOST_DENSITY:
        across, down = (max(1, round(value)) for value in picture.resolution)
        density = 1, across, down
    elif picture.resolution:
        left_out.append("resolution")
    head = _START + _packed(0xE0, _JFIF + struct.pack(">HBHHH", 0x101, *density, 0))
    parts: dict[str, tuple[int, bytes | None]] = {
        "EXIF": (0xE1, exif and EXIF_PREFIX + exif.removeprefix(EXIF_PREFIX)),
        "XMP": (0xE1, picture.xmp and XMP_IN_JPEG + picture.xmp),
        "Comment": (_COMMENT, picture.texts.get("Comment", "").encode("utf-8", "replace")),
    }
    for name, (marker, content) in parts.items():
        if content and len(content) <= SEGMENT_BYTES:
            head += _packed(marker, content)
        elif content:
            left_out.append(name)
    return head, left_out


def _packed(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


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
