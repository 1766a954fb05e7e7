"""JPEG files (ITU-T T.81, Annex B): segments that a decoder needs taken apart from the others; metadata put in."""

import contextlib
import re
import struct
from typing import BinaryIO

from i2i.errors import ImageError
from i2i.images.metadata import EXIF_BYTES, EXIF_PREFIX, ICC_BYTES, XMP_IN_JPEG, ParsedFile
from i2i.images.picture import Picture

SEGMENT_BYTES = 65_533
"""The content of one segment, whose length takes two of its 65,535 bytes."""
MOST_RESOLUTION = 65_535.5
JFIF_SEGMENT = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"
"""ITU-T T.871: a density that is not known."""

_START = b"\xff\xd8"
_SCAN, _COMMENT, _END = 0xDA, 0xFE, 0xD9
_LOSSLESS = (0xC3, 0xC7, 0xCB, 0xCF)
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_APPLICATIONS = range(0xE0, 0xF0)
_RESTARTS = range(0xD0, 0xD8)
_MAX_SEGMENTS = 10_000
# a decoder goes through all blocks of the picture for each; encoders make about ten
_MAX_SCANS = 100
_MARKER = re.compile(rb"\xff[^\0\x01\xff\xd0-\xd7]")
_ICC, _JFIF, _ADOBE, _FRAMES_INDEX, _PHOTOSHOP = b"ICC_PROFILE\0", b"JFIF\0", b"Adobe", b"MPF\0", b"Photoshop 3.0\0"
_FURTHER_XMP = b"http://ns.adobe.com/xmp/extension/\0"
_FRAME_COUNT = 0xB001
_IPTC = b"8BIM\x04\x04"
_CENTIMETRES = 2.54
_DENSITY, _BEHIND_JFIF, _DPI = 13, 20, 1
_HEAD_BYTES = 1 << 16


def parse(file: BinaryIO, pixels: bool = True) -> ParsedFile:
    """Takes a JPEG apart; of several pictures the first. Without `pixels` the file for a decoder ends before them.

    Raises `ImageError` for one with more segments or scans than any encoder makes, and for a lossless one.
    """
    if not file.read(3) == _START + b"\xff":
        raise ImageError("damaged JPEG: its signature is broken")
    found, needed, profile = ParsedFile(), [_START], list[bytes]()
    frame, place = (0, 0), 2
    for _ in range(_MAX_SEGMENTS):
        place, marker, content = _segment(file, place)
        if marker in _APPLICATIONS or marker == _COMMENT:
            with contextlib.suppress(struct.error, IndexError):
                _read(marker, content, found, profile)
        if marker in _FRAMES:
            frame = marker, content[5] if len(content) > 5 else 0
        if (marker not in _APPLICATIONS and marker != _COMMENT) or content.startswith((_JFIF, _ADOBE)):
            needed.append(_packed(marker, content))
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
    """End, marker and content of the next segment; the marker is 0 where there is none."""
    file.seek(place)
    head = file.read(4)
    while len(head) == 4 and not (head[0] == 0xFF and head[1] not in (0, 1, 0xFF)):
        # fill bytes, and bytes that stand there by mistake
        block = head + file.read(_HEAD_BYTES)
        found = _MARKER.search(block, max(0, len(block) - len(block.lstrip(b"\xff")) - 1))
        place += found.start() if found else _HEAD_BYTES
        file.seek(place)
        head = file.read(4)
    if len(head) < 4:
        return place, 0, b""
    if head[1] == _END or head[1] in _RESTARTS or head[1] == 0xD8:
        return place + 2, head[1], b""
    length = int.from_bytes(head[2:], "big") - 2
    content = file.read(max(0, length))
    return (place + 4 + length, head[1], content) if 0 <= length == len(content) else (place, 0, b"")


def _packed(marker: int, content: bytes) -> bytes:
    if marker == 0:
        return b""
    alone = marker == _END or marker in _RESTARTS or marker == 0xD8
    return bytes([0xFF, marker]) + (b"" if alone else struct.pack(">H", len(content) + 2) + content)


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


def _read(marker: int, content: bytes, found: ParsedFile, profile: list[bytes]) -> None:
    """Reads a segment that a decoder does not need."""
    if marker == _COMMENT:
        found.add_text("Comment", content.rstrip(b"\0"))
    elif content.startswith(_JFIF):
        _resolution(content, found)
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
        found.has_more_frames |= _frame_count(content[len(_FRAMES_INDEX) :]) > 1
    elif content.startswith(_FURTHER_XMP):
        found.add_unread("the extended part of its XMP")
    elif content.startswith(_PHOTOSHOP) and _IPTC in content:
        found.add_unread("IPTC")


def _resolution(content: bytes, found: ParsedFile) -> None:
    unit, across, down = struct.unpack_from(">BHH", content, 7)
    if unit in (1, 2):
        scale = 1 if unit == 1 else _CENTIMETRES
        found.add_resolution(across * scale, down * scale)


def _frame_count(index: bytes) -> int:
    """How many pictures a Multi-Picture Format index names (CIPA DC-007)."""
    order = "<" if index[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", index, 4)
    (count,) = struct.unpack_from(order + "H", index, start)
    entries = (struct.unpack_from(order + "HHII", index, start + 2 + 12 * i) for i in range(min(count, 16)))
    return next((value for tag, _, _, value in entries if tag == _FRAME_COUNT), 1)


def _joined(profile: list[bytes]) -> bytes | None:
    """A colour profile of numbered parts; None unless all are there (ICC.1:2022, Annex B.4)."""
    parts = sorted(profile, key=lambda part: part[len(_ICC) : len(_ICC) + 1])
    if not parts or parts[0][len(_ICC) + 1 : len(_ICC) + 2] != bytes([len(parts) & 0xFF]):
        return None
    return b"".join(part[len(_ICC) + 2 :] for part in parts)


def comment(picture: Picture) -> bytes:
    """The comment of a picture as a JPEG holds it, in one segment; empty where it is longer."""
    text = picture.texts.get("Comment", "").encode("utf-8", "replace")
    return text if len(text) <= SEGMENT_BYTES else b""


def keeps_xmp(xmp: bytes) -> bool:
    """Whether a packet fits into one segment."""
    return len(xmp) + len(XMP_IN_JPEG) <= SEGMENT_BYTES


def with_metadata(data: bytes, picture: Picture) -> bytes:
    """A file that begins with a JFIF segment, with resolution, XMP and comment of a picture."""
    if data[6:11] != _JFIF:
        return data
    head, added = bytearray(data[:_BEHIND_JFIF]), b""
    if picture.resolution and max(picture.resolution) < MOST_RESOLUTION:
        across, down = (max(1, round(value)) for value in picture.resolution)
        struct.pack_into(">BHH", head, _DENSITY, _DPI, across, down)
    if picture.xmp and keeps_xmp(picture.xmp):
        added += _packed(0xE1, XMP_IN_JPEG + picture.xmp)
    if text := comment(picture):
        added += _packed(_COMMENT, text)
    return bytes(head) + added + data[_BEHIND_JFIF:]


def exif_segment(block: bytes) -> bytes:
    """The segment directly behind a JPEG's first two bytes (Exif 2.32, Sec. 4.5.4); it holds at most 65,533 bytes."""
    return _packed(0xE1, EXIF_PREFIX + block.removeprefix(EXIF_PREFIX))
