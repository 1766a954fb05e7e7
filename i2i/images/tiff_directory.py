"""The first directory of a TIFF (TIFF 6.0, Sec. 2; BigTIFF), bounded before anything is made of it.

A tag may claim any number of values, anywhere in the file, and readers believe it. Here only tags that are known are
read, each no longer than it can be, all together no longer than a fixed number of bytes. Others get a copy.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

from i2i.errors import ImageError
from i2i.images.metadata import TEXTS_IN_EXIF, decoded_text
from i2i.images.picture import GEO, GEO_KEYS, GEO_NUMBERS, TIE_POINTS

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
STRIPS, ORIENTATION, SAMPLES, STRIP_ROWS, STRIP_BYTES, PLANAR = 273, 274, 277, 278, 279, 284
FAX_3, FAX_4, PREDICTOR, PALETTE = 292, 293, 317, 320
TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES = 322, 323, 324, 325
INK_SET, INKS, EXTRA_SAMPLES, FORMAT, JPEG_TABLES = 332, 334, 338, 339, 347
COEFFICIENTS, SUBSAMPLING, REFERENCE, XMP, DEPTH, ICC = 529, 530, 532, 700, 32997, 34675
EXIF, GPS, DNG = 34665, 34853, 50706
RESOLUTION, RESOLUTION_UNIT = (282, 283), 296
TRANSFER, WHITE_POINT, PRIMARIES = 301, 318, 319
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE_COLOUR, CMYK, YCBCR, CIELAB, ICCLAB = 0, 1, 2, 3, 5, 6, 8, 9
"""Kinds of colours (PhotometricInterpretation)."""
SEGMENTS = (STRIPS, STRIP_BYTES, TILES, TILE_BYTES)

# the layout, which Pillow and tifffile are shown
LAYOUT = frozenset(
    {WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, SAMPLES, STRIP_ROWS, PLANAR, FAX_3, FAX_4, PREDICTOR}
    | {TILE_WIDTH, TILE_HEIGHT, EXTRA_SAMPLES, FORMAT, JPEG_TABLES, SUBSAMPLING, DEPTH, INK_SET, INKS}
    | {COEFFICIENTS, REFERENCE, *range(512, 522), *SEGMENTS}
)
_DESCRIBED = frozenset(
    {ORIENTATION, PALETTE, XMP, ICC, DNG, RESOLUTION_UNIT, TRANSFER, WHITE_POINT, PRIMARIES}
    | {271, 272, 306, *RESOLUTION, *TEXTS_IN_EXIF.values(), *GEO}
)
# bytes, text and undefined may be long, numbers may not, but for these
_TEXT_KINDS = (1, 2, 6, 7)
_MOST_VALUES = {PALETTE: 3 << 16, GEO_KEYS: 1 << 16, GEO_NUMBERS: 1 << 16, TIE_POINTS: 6 << 12}
_MOST_VALUES |= {ICC: 1 << 23, XMP: 1 << 23}
_FEW, _MOST_TEXT = 4096, 1 << 20
_TOTAL_BYTES = 1 << 24
_INNER_BYTES = 1 << 20  # of EXIF and GPS
_MOST_SEGMENTS = 1 << 20
_MOST_TAGS = 4096
_KINDS = dict(enumerate(["", "B", "s", "H", "I", "2I", "b", "s", "h", "i", "2i", "f", "d", "I", "", "", "Q", "q", "Q"]))
_POINTER = 13
_INTEROPERABILITY = 40965  # a pointer within EXIF, which is not followed
_CLASSIC, _BIG = 42, 43
_SIGNS = {"<": b"II", ">": b"MM"}


@dataclass(frozen=True)
class Tag:
    """The values of a tag as they are in the file: their kind (TIFF 6.0, Sec. 2), number and bytes."""

    kind: int
    count: int
    data: bytes


@dataclass(frozen=True)
class Directory:
    """The known tags of a directory in byte order `order`, and whether another one follows.

    `inner` are the directories that the tags of EXIF and GPS point to.
    """

    order: str
    tags: Mapping[int, Tag]
    has_next: bool = False
    inner: Mapping[int, "Directory"] = field(default_factory=dict)

    def values(self, tag: int) -> tuple[float, ...]:
        """The numbers of a tag, rational ones divided (0/0 is NaN); none where it is not there, or text."""
        found = self.tags.get(tag)
        if found is None or found.kind not in _KINDS or _KINDS[found.kind] in ("", "s"):
            return ()
        code = _KINDS[found.kind]
        flat = struct.unpack(f"{self.order}{found.count * len(code)}{code[-1]}", found.data)
        return flat if len(code) == 1 else tuple(map(_divided, flat[::2], flat[1::2]))

    def number(self, tag: int, default: int) -> int:
        """The first value of a tag as a whole number."""
        values = self.values(tag)
        return int(values[0]) if values and values[0] == values[0] and abs(values[0]) < 1 << 63 else default

    def text(self, tag: int) -> str | None:
        """The text of a tag, UTF-8 or Latin-1, up to its first zero byte; None where there is none."""
        found = self.tags.get(tag)
        if found is None or found.kind not in _TEXT_KINDS:
            return None
        return decoded_text(found.data.partition(b"\0")[0]).strip() or None

    def bytes(self, tag: int) -> bytes | None:
        found = self.tags.get(tag)
        return found.data if found is not None and found.kind in _TEXT_KINDS and found.data else None

    def little(self) -> "Directory":
        """The same in little-endian order."""
        if self.order == "<":
            return self
        inner = {tag: directory.little() for tag, directory in self.inner.items()}
        return Directory("<", {tag: _swapped(found) for tag, found in self.tags.items()}, self.has_next, inner)


def _swapped(tag: Tag) -> Tag:
    size = struct.calcsize("=" + (_KINDS.get(tag.kind, "") or "B")[-1])
    return Tag(tag.kind, tag.count, np.frombuffer(tag.data, f"u{size}").byteswap().tobytes())


def numbers(code: str, *values: float) -> Tag:
    """A tag of these numbers in little-endian order; `code` as in `struct`: H, I, Q, d."""
    kind = {"H": 3, "I": 4, "d": 12, "Q": 16}[code]
    return Tag(kind, len(values), struct.pack(f"<{len(values)}{code}", *values))


def text(data: bytes, kind: int = 2) -> Tag:
    """A tag of bytes: text (2), numbers of 8 bits (1), or bytes of no defined kind (7)."""
    return Tag(kind, len(data), data)


def read(file: BinaryIO, *, whole: bool = True) -> Directory:
    """The first directory of a file; if not `whole`, only its layout without the places of segments.

    Raises `ImageError` where there is no directory.
    """
    return _Reader(file, whole).first()


class _Reader:
    def __init__(self, file: BinaryIO, whole: bool) -> None:
        self._file, self._whole, self._left = file, whole, _TOTAL_BYTES
        self._end = file.seek(0, 2)
        head = self._at(0, 16)
        self._order = "<" if head[:2] == b"II" else ">"
        self._big = struct.unpack_from(self._order + "H", head, 2)[0] == _BIG
        self._offset = "Q" if self._big else "I"
        self._start = struct.unpack_from(self._order + self._offset, head, 8 if self._big else 4)[0]

    def first(self) -> Directory:
        entries, following = self._entries(self._start)
        if not entries:
            raise ImageError("damaged: it has no directory")
        most = 1
        for tag in (WIDTH, HEIGHT, SAMPLES):
            numbers = self._directory({tag: entries[tag]}).values(tag) if tag in entries else ()
            most = min(_MOST_SEGMENTS, most * max(1, int(numbers[0]) if numbers else 1))
        known = LAYOUT | _DESCRIBED if self._whole else LAYOUT.union({ORIENTATION, DNG}) - {*SEGMENTS}
        read = self._directory({tag: entry for tag, entry in entries.items() if tag in known}, most)
        self._left = min(self._left, _INNER_BYTES)
        inner = {tag: self._inner(entries[tag]) for tag in (EXIF, GPS) if tag in entries and self._whole}
        return Directory(self._order, read.tags, bool(following), {tag: d for tag, d in inner.items() if d.tags})

    def _inner(self, entry: "_Entry") -> Directory:
        """The directory that a tag points to; empty where it cannot be read, for it only describes the picture."""
        try:
            place = self._directory({EXIF: entry}).values(EXIF)
            entries = self._entries(int(place[0]))[0] if place else {}
            return self._directory({tag: entry for tag, entry in entries.items() if tag != _INTEROPERABILITY})
        except (ImageError, ValueError, OverflowError, OSError):
            return Directory(self._order, {})

    def _entries(self, start: int) -> "tuple[dict[int, _Entry], int]":
        """The entries of the directory there, of each tag the first, and where the next directory is."""
        count_format, entry_format = ("Q", "HHQ8s") if self._big else ("H", "HHI4s")
        counted, size = struct.calcsize("=" + count_format), struct.calcsize("=" + entry_format)
        count = int.from_bytes(self._at(start, counted), "little" if self._order == "<" else "big")
        if count > _MOST_TAGS:
            raise ImageError(f"damaged: a directory of {count} tags")
        data = self._at(start + counted, count * size)
        if len(data) < count * size:
            raise ImageError("damaged: its header is cut short")
        found: dict[int, _Entry] = {}
        for tag, kind, number, value in struct.iter_unpack(self._order + entry_format, data):
            found.setdefault(tag, (kind, number, value))
        behind = self._at(start + counted + count * size, struct.calcsize("=" + self._offset))
        return found, int.from_bytes(behind, "little" if self._order == "<" else "big")

    def _directory(self, entries: "Mapping[int, _Entry]", most_segments: int = 0) -> Directory:
        read = {tag: self._tag(tag, *entry, most_segments) for tag, entry in entries.items()}
        return Directory(self._order, {tag: found for tag, found in read.items() if found is not None})

    def _tag(self, tag: int, kind: int, count: int, value: bytes, most_segments: int) -> Tag | None:
        """The values of an entry; None where there are more than it can need, and where they are not in the file."""
        size = struct.calcsize("=" + _KINDS.get(kind, ""))
        if tag in SEGMENTS:
            count = min(count, most_segments)
        elif count > _MOST_VALUES.get(tag, _MOST_TEXT if kind in _TEXT_KINDS else _FEW):
            return None
        if not 0 < count * size <= (self._end if tag in SEGMENTS else min(self._end, self._left)):
            return None
        if count * size <= len(value):
            return Tag(kind, count, value[: count * size])
        data = self._at(struct.unpack(self._order + self._offset, value)[0], count * size)
        if tag not in SEGMENTS:
            self._left -= len(data)
        return Tag(kind, count, data) if len(data) == count * size else None

    def _at(self, place: int, size: int) -> bytes:
        if place >= self._end:
            return b""
        self._file.seek(place)
        return self._file.read(size)


_Entry = tuple[int, int, bytes]


def file_of(
    order: str, tags: Mapping[int, Tag], inner: Mapping[int, Directory] | None = None, *, big: bool = False
) -> bytes:
    """A file of nothing but a directory with these tags, and the directories within."""
    place = 16 if big else 8
    return header_of(order, place, big=big) + directory_of(order, tags, place, inner, big=big)


def header_of(order: str, place: int, *, big: bool = False) -> bytes:
    """The header of a file whose directory is at `place`."""
    if big:
        return struct.pack(f"{order}2sHHHQ", _SIGNS[order], _BIG, 8, 0, place)
    return struct.pack(f"{order}2sHI", _SIGNS[order], _CLASSIC, place)


def directory_of(
    order: str, tags: Mapping[int, Tag], place: int, inner: Mapping[int, Directory] | None = None, *, big: bool = False
) -> bytes:
    """A directory with these tags, to stand at `place`, their values, and the directories within behind it."""
    inner, wide = inner or {}, 8 if big else 4
    count, entry, pointer = ("Q", "HHQ", "Q") if big else ("H", "HHI", "I")
    every = dict(tags) | {tag: Tag(_POINTER, 1, bytes(wide)) for tag in inner}
    fields, behind = b"", b""
    start = place + struct.calcsize("=" + count) + len(every) * (struct.calcsize("=" + entry) + wide) + wide
    for tag, found in sorted(every.items()):
        value = found.data.ljust(wide, b"\0")
        if tag in inner:
            within = directory_of(order, inner[tag].tags, start + len(behind), big=big)
            value, behind = struct.pack(order + pointer, start + len(behind)), behind + within
        elif len(value) > wide:
            value, behind = struct.pack(order + pointer, start + len(behind)), behind + value + b"\0" * (len(value) % 2)
        kind = found.kind if tag not in inner else 16 if big else 4
        fields += struct.pack(order + entry, tag, kind, found.count) + value
    return struct.pack(order + count, len(every)) + fields + bytes(wide) + behind


def _divided(above: float, below: float) -> float:
    return above / below if below else float("nan")
