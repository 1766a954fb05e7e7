"""Directories of tags, as TIFF (TIFF 6.0, Sec. 2; BigTIFF) and EXIF have them: the first one of a file, with those of
EXIF and GPS, read with bounds, and written.

A tag may claim any number of values, anywhere in the file, and readers believe it. Here each is read no longer than it
can be, all together no longer than the file or a fixed number of bytes. Only known tags of a TIFF are read.
"""

import struct
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import prod
from typing import BinaryIO

import numpy as np

from i2i.errors import ImageError
from i2i.images.picture import GEO, GEO_KEYS, GEO_NUMBERS, TIE_POINTS

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
STRIPS, ORIENTATION, SAMPLES, STRIP_ROWS, STRIP_BYTES, PLANAR = 273, 274, 277, 278, 279, 284
FAX_3, FAX_4, PREDICTOR, PALETTE = 292, 293, 317, 320
TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES = 322, 323, 324, 325
INK_SET, INKS, EXTRA_SAMPLES, FORMAT, JPEG_TABLES = 332, 334, 338, 339, 347
COEFFICIENTS, SUBSAMPLING, REFERENCE, XMP, DEPTH, ICC = 529, 530, 532, 700, 32997, 34675
EXIF, GPS, INTEROPERABILITY, DNG = 34665, 34853, 40965, 50706
RESOLUTION = ACROSS, DOWN, RESOLUTION_UNIT = 282, 283, 296
TEXTS = {"Description": 270, "Software": 305, "Author": 315, "Copyright": 33432}
"""The texts that EXIF and TIFF have a tag for."""
TRANSFER, WHITE_POINT, PRIMARIES = 301, 318, 319
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE_COLOUR, CMYK, YCBCR, CIELAB, ICCLAB = 0, 1, 2, 3, 5, 6, 8, 9
"""Kinds of colours (PhotometricInterpretation)."""
_LAYOUT = frozenset(
    {WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, SAMPLES, STRIP_ROWS, PLANAR, FAX_3, FAX_4, PREDICTOR}
    | {TILE_WIDTH, TILE_HEIGHT, EXTRA_SAMPLES, FORMAT, JPEG_TABLES, SUBSAMPLING, DEPTH, INK_SET, INKS}
    | {COEFFICIENTS, REFERENCE, *range(512, 522)}
)
_SEGMENTS = (STRIPS, STRIP_BYTES, TILES, TILE_BYTES)
SHOWN = _LAYOUT.union(_SEGMENTS)
"""The tags of an old-style JPEG that Pillow is shown."""
_DESCRIBED = frozenset(
    {ORIENTATION, PALETTE, XMP, ICC, DNG, TRANSFER, WHITE_POINT, PRIMARIES}
    | {271, 272, 306, *RESOLUTION, *TEXTS.values(), *GEO}
)
# bytes, text and undefined may be long, numbers may not, but for these
_TEXT_KINDS = (1, 2, 6, 7)
_MOST_VALUES = {PALETTE: 3 << 16, GEO_KEYS: 1 << 16, GEO_NUMBERS: 1 << 16, TIE_POINTS: 6 << 12}
_MOST_VALUES |= {ICC: 1 << 23, XMP: 1 << 23}
_FEW, _MOST_TEXT = 4096, 1 << 20
_TOTAL_BYTES = 1 << 24
_INNER_BYTES = 1 << 20  # for EXIF and GPS
_MOST_SEGMENTS = 1 << 20
_MOST_TAGS = 4096
_KINDS = dict(enumerate(["", "B", "s", "H", "I", "2I", "b", "s", "h", "i", "2i", "f", "d", "I", "", "", "Q", "q", "Q"]))
_WITHIN = {INTEROPERABILITY: EXIF}
"""Pointer → the directory that it stands in; others stand in the first one."""
_BIG = 43
_INCH = 2


@dataclass(frozen=True)
class Tag:
    """The values of a tag as they are in the file: their kind (TIFF 6.0, Sec. 2), number and bytes."""

    kind: int
    count: int
    data: bytes


Tags = Mapping[int, Tag]


@dataclass(frozen=True)
class Directory:
    """The tags of a directory, whether another one follows, and the byte order of its file.

    `inner` are the directories that the tags of EXIF and GPS point to, and that of interoperability, within EXIF.
    """

    tags: Tags = field(default_factory=dict)
    inner: Mapping[int, Tags] = field(default_factory=dict)
    has_next: bool = False
    order: str = "<"

    def little_endian(self) -> "Directory":
        """The same in that byte order."""
        if self.order == "<":
            return self
        inner = {tag: _little_endian(tags) for tag, tags in self.inner.items()}
        return Directory(_little_endian(self.tags), inner, self.has_next)

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


def decoded_text(text: bytes) -> str:
    """A text in UTF-8, else in Latin-1."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")


def numbers(code: str, *values: float, order: str = "<") -> Tag:
    """A tag of these numbers; `code` as in `struct`: H, I, Q, d."""
    kind = {"H": 3, "I": 4, "d": 12, "Q": 16}[code]
    return Tag(kind, len(values), struct.pack(f"{order}{len(values)}{code}", *values))


def text(data: bytes, kind: int = 2) -> Tag:
    """A tag of bytes: text (2), numbers of 8 bits (1), or bytes of no defined kind (7)."""
    return Tag(kind, len(data), data)


def resolution(across: float, down: float, order: str = "<") -> dict[int, Tag]:
    """The tags of these pixels an inch."""
    tags = {RESOLUTION_UNIT: numbers("H", _INCH, order=order)}
    for tag, value in ((ACROSS, across), (DOWN, down)):
        nearest = Fraction(value).limit_denominator(int((1 << 31) / (1 + value)))
        tags[tag] = Tag(5, 1, struct.pack(order + "II", nearest.numerator, nearest.denominator))
    return tags


def read(file: BinaryIO, *, every: bool = False) -> Directory:
    """The first directory of a file, with `every` tag of it. Raises `ImageError` where there is none.

    With `every` one that is cut short has the tags that are there; without, it is damaged.
    """
    return _Reader(file).first(every)


_Entry = tuple[int, int, bytes]
"""Kind, number of values, and the values or their place."""


class _Reader:
    def __init__(self, file: BinaryIO) -> None:
        self._file, self._end = file, file.seek(0, 2)
        self._left, self._most_text = min(self._end, _TOTAL_BYTES), _MOST_TEXT
        head = self._at(0, 4)
        self._order, self._is_big = "<" if head[:2] == b"II" else ">", head[2:].strip(b"\0") == bytes([_BIG])
        self._count, self._entry, self._place = ("Q", "HHQ8s", "Q") if self._is_big else ("H", "HHI4s", "I")

    def first(self, every: bool) -> Directory:
        self._most_text = self._end if every else _MOST_TEXT  # a block of EXIF is no longer than a few MiB
        entries, following = self._entries(self._number(8 if self._is_big else 4, self._place), every)
        if not entries:
            raise ImageError("damaged: it has no directory")
        tags = self._tags(entries, entries.keys() - {EXIF, GPS} if every else _LAYOUT | _DESCRIBED)
        if not every:
            size = Directory(tags, order=self._order)
            most = min(_MOST_SEGMENTS, prod(max(1, size.number(tag, 1)) for tag in (WIDTH, HEIGHT, SAMPLES)))
            tags |= self._tags(entries, _SEGMENTS, most)
        if not every:
            self._left = min(self._left, _INNER_BYTES)
        inner = self._inner(EXIF, entries) | self._inner(GPS, entries)
        return Directory(tags, inner, following > 0, self._order)

    def _inner(self, tag: int, above: Mapping[int, _Entry]) -> dict[int, Tags]:
        """The directory that a tag points to, and the one in it; none that cannot be read, as they only describe."""
        pointer = Directory(self._tags(above, {tag}), order=self._order)
        try:
            entries, _ = self._entries(pointer.number(tag, self._end))
        except (ImageError, ValueError, OSError):
            return {}
        tags, within = self._tags(entries, entries.keys() - {INTEROPERABILITY}), dict[int, Tags]()
        for inside in (name for name, outside in _WITHIN.items() if outside == tag):
            within |= self._inner(inside, entries)
        return {tag: tags, **within} if tags or within else {}

    def _entries(self, start: int, cut: bool = True) -> tuple[dict[int, _Entry], int]:
        """The entries of the directory there, perhaps `cut` short, of each tag the first, and where the next one is."""
        counted, size = struct.calcsize("=" + self._count), struct.calcsize("=" + self._entry)
        count = self._number(start, self._count)
        if count > _MOST_TAGS:
            raise ImageError(f"damaged: a directory of {count} tags")
        data = self._at(start + counted, count * size)
        if len(data) < count * size and not cut:
            raise ImageError("damaged: its header is cut short")
        found: dict[int, _Entry] = {}
        for tag, *entry in struct.iter_unpack(self._order + self._entry, data[: len(data) // size * size]):
            found.setdefault(tag, tuple(entry))
        return found, self._number(start + counted + count * size, self._place)

    def _tags(self, entries: Mapping[int, _Entry], known: Container[int], segments: int = 0) -> dict[int, Tag]:
        """Those that are known: none with more values than it can need, or whose values are not in the file.

        Places of `segments` are read so many, however many there are.
        """
        found = {}
        for tag, (kind, count, value) in entries.items():
            most, room = (
                _MOST_VALUES.get(tag, self._most_text if kind in _TEXT_KINDS else _FEW),
                min(self._end, self._left),
            )
            if segments:
                count, most, room = min(count, segments), segments, self._end
            size = count * struct.calcsize("=" + _KINDS.get(kind, ""))
            if tag not in known or count > most or not 0 < size <= room:
                continue
            data = value[:size]
            if size > len(value):
                data = self._at(struct.unpack(self._order + self._place, value)[0], size)
                self._left -= 0 if segments else len(data)
            if len(data) == size:
                found[tag] = Tag(kind, count, data)
        return found

    def _number(self, place: int, code: str) -> int:
        """The number there, 0 behind the end."""
        data = self._at(place, struct.calcsize("=" + code))
        return int.from_bytes(data, "little" if self._order == "<" else "big")

    def _at(self, place: int, size: int) -> bytes:
        if place >= self._end:
            return b""
        self._file.seek(place)
        return self._file.read(size)


def header_of(order: str, place: int, *, big: bool = False) -> bytes:
    """The header of a file whose directory is at `place`."""
    sign = b"II" if order == "<" else b"MM"
    if big:
        return struct.pack(order + "2sHHHQ", sign, _BIG, 8, 0, place)
    return struct.pack(order + "2sHI", sign, 42, place)


def directory_of(
    order: str, tags: Tags, place: int, inner: Mapping[int, Tags] | None = None, *, big: bool = False, of: int = 0
) -> bytes:
    """A directory with these tags, to stand at `place`, their values, and the directories within behind it.

    It is the one that the tag `of` points to, by default the first one.
    """
    codes, wide, kind = (("Q", "HHQ", "Q"), 8, 16) if big else (("H", "HHI", "I"), 4, 4)
    count, entry, pointer = (order + code for code in codes)
    fields, behind, inner = b"", b"", inner or {}
    own = {tag for tag in inner if _WITHIN.get(tag, 0) == of}
    every = dict(tags) | {tag: Tag(kind, 1, b"") for tag in own}
    start = place + struct.calcsize(count) + len(every) * (struct.calcsize(entry) + wide) + wide
    for tag, found in sorted(every.items()):
        here = start + len(behind)
        value = directory_of(order, inner[tag], here, inner, big=big, of=tag) if tag in own else found.data
        if tag in own or len(value) > wide:
            behind += value + b"\0" * (len(value) % 2)
            value = struct.pack(pointer, here)
        fields += struct.pack(entry, tag, found.kind, found.count) + value.ljust(wide, b"\0")
    return struct.pack(count, len(every)) + fields + bytes(wide) + behind


def _little_endian(tags: Tags) -> dict[int, Tag]:
    sizes = {tag: struct.calcsize("=" + _KINDS[found.kind][-1]) for tag, found in tags.items()}
    swapped = {tag: np.frombuffer(found.data, f"u{sizes[tag]}").byteswap() for tag, found in tags.items()}
    return {tag: replace(found, data=swapped[tag].tobytes()) for tag, found in tags.items()}


def _divided(above: float, below: float) -> float:
    return above / below if below else float("nan")
