"""TIFF files as directories (TIFF 6.0, Sec. 2; BigTIFF): the first one of a file read with bounds, and files written.

A tag may claim any number of values, anywhere in the file, and readers believe it. Here only tags that are known are
read, each no longer than it can be, all together no longer than a fixed number of bytes. Others get a copy.

Files are written here, since Pillow writes no 16-bit colour: little-endian, channels interleaved, deflated, integers as
differences of neighbours (Sec. 14), in strips of some rows where the picture is in memory, in tiles (Sec. 15) where it
comes by bands.
"""

import io
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import BinaryIO, Literal

import numpy as np

from i2i.errors import ImageError
from i2i.images import metadata as meta
from i2i.images.picture import GEO, GEO_KEYS, GEO_NUMBERS, TIE_POINTS, Picture, Pixels
from i2i.images.png import compress

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

# the layout, which Pillow is shown
LAYOUT = frozenset(
    {WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, SAMPLES, STRIP_ROWS, PLANAR, FAX_3, FAX_4, PREDICTOR}
    | {TILE_WIDTH, TILE_HEIGHT, EXTRA_SAMPLES, FORMAT, JPEG_TABLES, SUBSAMPLING, DEPTH, INK_SET, INKS}
    | {COEFFICIENTS, REFERENCE, *range(512, 522), *SEGMENTS}
)
_DESCRIBED = frozenset(
    {ORIENTATION, PALETTE, XMP, ICC, DNG, RESOLUTION_UNIT, TRANSFER, WHITE_POINT, PRIMARIES}
    | {271, 272, 306, *RESOLUTION, *meta.TEXTS_IN_EXIF.values(), *GEO}
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
_ORDERS: dict[str, Literal["little", "big"]] = {"<": "little", ">": "big"}
# a file of more bytes needs addresses of 64 bits
_CLASSIC_BYTES = 1 << 31
_TILE = 256
_STRIP_BYTES = 1 << 18
_DEFLATED, _INTERLEAVED, _DIFFERENCES = 8, 1, 2
_UNSPECIFIED, _STRAIGHT = 0, 2
_INCH = 2


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
        return meta.decoded_text(found.data.partition(b"\0")[0]).strip() or None

    def bytes(self, tag: int) -> bytes | None:
        found = self.tags.get(tag)
        return found.data if found is not None and found.kind in _TEXT_KINDS and found.data else None


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
    return _Reader(file).first(whole)


_Entry = tuple[int, int, bytes]
"""Kind, number of values, and the values or their place."""


class _Reader:
    def __init__(self, file: BinaryIO) -> None:
        self._file, self._left = file, _TOTAL_BYTES
        self._end = file.seek(0, 2)
        head = self._at(0, 4)
        self._order = "<" if head[:2] == b"II" else ">"
        big = int.from_bytes(head[2:], _ORDERS[self._order]) == _BIG
        self._count, self._entry, self._offset = ("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I")
        self._start = self._number(8 if big else 4, self._offset)

    def first(self, whole: bool) -> Directory:
        entries, following = self._entries(self._start)
        if not entries:
            raise ImageError("damaged: it has no directory")
        size = self._directory({tag: entries[tag] for tag in (WIDTH, HEIGHT, SAMPLES) if tag in entries})
        most = 1
        for tag in (WIDTH, HEIGHT, SAMPLES):
            most = min(_MOST_SEGMENTS, most * max(1, size.number(tag, 1)))
        known = LAYOUT | _DESCRIBED if whole else LAYOUT.union({ORIENTATION, DNG}) - {*SEGMENTS}
        read = self._directory({tag: entry for tag, entry in entries.items() if tag in known}, most)
        self._left = min(self._left, _INNER_BYTES)
        inner = {tag: self._inner(entries[tag]) for tag in (EXIF, GPS) if tag in entries and whole}
        return Directory(self._order, read.tags, following > 0, {tag: d for tag, d in inner.items() if d.tags})

    def _inner(self, entry: _Entry) -> Directory:
        """The directory that a tag points to; empty where it cannot be read, for it only describes the picture."""
        try:
            entries, _ = self._entries(self._directory({EXIF: entry}).number(EXIF, self._end))
            return self._directory({tag: entry for tag, entry in entries.items() if tag != _INTEROPERABILITY})
        except (ImageError, ValueError, OSError):
            return Directory(self._order, {})

    def _entries(self, start: int) -> tuple[dict[int, _Entry], int]:
        """The entries of the directory there, of each tag the first, and where the next directory is."""
        counted, size = struct.calcsize("=" + self._count), struct.calcsize("=" + self._entry)
        count = self._number(start, self._count)
        if count > _MOST_TAGS:
            raise ImageError(f"damaged: a directory of {count} tags")
        data = self._at(start + counted, count * size)
        if len(data) < count * size:
            raise ImageError("damaged: its header is cut short")
        found: dict[int, _Entry] = {}
        for tag, *entry in struct.iter_unpack(self._order + self._entry, data):
            found.setdefault(tag, tuple(entry))
        return found, self._number(start + counted + count * size, self._offset)

    def _directory(self, entries: Mapping[int, _Entry], most_segments: int = 0) -> Directory:
        read = {tag: self._tag(tag, *entry, most_segments) for tag, entry in entries.items()}
        return Directory(self._order, {tag: found for tag, found in read.items() if found is not None})

    def _tag(self, tag: int, kind: int, count: int, value: bytes, most_segments: int) -> Tag | None:
        """The values of an entry; None where there are more than it can need, and where they are not in the file."""
        if tag in SEGMENTS:
            count, room = min(count, most_segments), self._end
        elif count > _MOST_VALUES.get(tag, _MOST_TEXT if kind in _TEXT_KINDS else _FEW):
            return None
        else:
            room = min(self._end, self._left)
        size = count * struct.calcsize("=" + _KINDS.get(kind, ""))
        if not 0 < size <= room:
            return None
        if size <= len(value):
            return Tag(kind, count, value[:size])
        data = self._at(struct.unpack(self._order + self._offset, value)[0], size)
        self._left -= len(data) if tag not in SEGMENTS else 0
        return Tag(kind, count, data) if len(data) == size else None

    def _number(self, place: int, code: str) -> int:
        """The number there, 0 behind the end."""
        return int.from_bytes(self._at(place, struct.calcsize("=" + code)), _ORDERS[self._order])

    def _at(self, place: int, size: int) -> bytes:
        if place >= self._end:
            return b""
        self._file.seek(place)
        return self._file.read(size)


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


def encode(picture: Picture, icc: bytes | None) -> bytes:
    """`picture` with all its metadata, and that colour profile, as a file."""
    pixels = picture.stacked()
    rows = max(1, _STRIP_BYTES // max(1, pixels[0].nbytes))
    strips = (pixels[top : top + rows] for top in range(0, len(pixels), rows))
    file = io.BytesIO()
    _write(file, pixels.shape, strips, {STRIP_ROWS: numbers("I", rows)}, picture, icc)
    return file.getvalue()


def write_tiled(
    file: BinaryIO,
    shape: tuple[int, int, int],
    rows: Callable[[int, int], Pixels],
    like: Picture,
    icc: bytes | None = None,
) -> None:
    """A picture (H, W, C) whose pixels `rows` gives from top to bottom, as tiles; its channels are those of `like`."""
    layout = {TILE_WIDTH: numbers("I", _TILE), TILE_HEIGHT: numbers("I", _TILE)}
    _write(file, shape, _tiles(shape, rows), layout, like, icc)


def _tiles(shape: tuple[int, int, int], rows: Callable[[int, int], Pixels]) -> Iterator[Pixels]:
    height, width, channels = shape
    for top in range(0, height, _TILE):
        band = rows(top, min(top + _TILE, height))
        for left in range(0, width, _TILE):
            part = band[:, left : left + _TILE]
            tile = np.zeros((_TILE, _TILE, channels), part.dtype)
            tile[: part.shape[0], : part.shape[1]] = part
            yield tile


def _write(
    file: BinaryIO,
    shape: tuple[int, ...],
    segments: Iterable[Pixels],
    layout: dict[int, Tag],
    like: Picture,
    icc: bytes | None,
) -> None:
    """Segments, behind them the directory, and before them where that is."""
    large = int(np.prod(shape, dtype=object)) * like.pixels.dtype.itemsize > _CLASSIC_BYTES
    start = file.write(header_of("<", 0, big=large))
    sizes = [file.write(_packed(segment)) for segment in segments]
    starts, address = (np.cumsum([0, *sizes[:-1]]) + start).tolist(), "Q" if large else "I"
    places = (TILES, TILE_BYTES) if TILE_WIDTH in layout else (STRIPS, STRIP_BYTES)
    layout |= {places[0]: numbers(address, *starts), places[1]: numbers(address, *sizes)}
    described = _exif(like)
    tags = {**described.tags, **_metadata(like, icc), **_pixels(shape, like), **layout}
    file.write(b"\0" * (file.tell() % 2))
    place = file.tell()
    file.write(directory_of("<", tags, place, described.inner, big=large))
    file.seek(0)
    file.write(header_of("<", place, big=large))


def _packed(rows: Pixels) -> bytes:
    """Rows (h, W, C) deflated, integers as differences of neighbours."""
    packed = np.array(rows, rows.dtype.newbyteorder("<"), order="C")
    if packed.dtype.kind in "ui":
        np.subtract(rows[:, 1:], rows[:, :-1], out=packed[:, 1:])
    return compress(packed)


def _pixels(shape: tuple[int, ...], like: Picture) -> dict[int, Tag]:
    """The kind of the pixels (Sec. 7 and 18)."""
    height, width, channels = shape
    dtype, alpha = like.pixels.dtype, like.alpha is not None
    colours = 3 if like.pixels.shape[2] == 3 else 1
    tags = {
        WIDTH: numbers("I", width),
        HEIGHT: numbers("I", height),
        SAMPLES: numbers("H", channels),
        BITS: numbers("H", *(dtype.itemsize * 8,) * channels),
        FORMAT: numbers("H", *({"u": 1, "i": 2, "f": 3}[dtype.kind],) * channels),
        COMPRESSION: numbers("H", _DEFLATED),
        PLANAR: numbers("H", _INTERLEAVED),
        PHOTOMETRIC: numbers("H", RGB if colours == 3 else BLACK_IS_ZERO),
    }
    if dtype.kind in "ui":
        tags[PREDICTOR] = numbers("H", _DIFFERENCES)
    if channels > colours:
        kinds = (_UNSPECIFIED,) * (channels - colours - alpha) + (_STRAIGHT,) * alpha
        tags[EXTRA_SAMPLES] = numbers("H", *kinds)
    return tags


def _metadata(picture: Picture, icc: bytes | None) -> dict[int, Tag]:
    """The metadata of a picture that TIFF has tags for, beside EXIF."""
    tags = {ICC: text(icc, kind=7)} if icc else {}
    if picture.resolution:
        tags |= {tag: _rational(value) for tag, value in zip(RESOLUTION, picture.resolution, strict=True)}
        tags[RESOLUTION_UNIT] = numbers("H", _INCH)
    if picture.xmp:
        tags[XMP] = text(picture.xmp, kind=1)
    for name, tag in meta.TEXTS_IN_EXIF.items():
        if name in picture.texts:
            tags[tag] = text(picture.texts[name].encode("utf-8", "replace") + b"\0")
    for tag, value in picture.geo.items():
        if isinstance(value, str):
            tags[tag] = text(value.encode() + b"\0")
        else:
            tags[tag] = numbers("H", *map(int, value)) if tag == GEO_KEYS else numbers("d", *value)
    return tags


def _rational(value: float) -> Tag:
    nearest = Fraction(value).limit_denominator(int((1 << 31) / (1 + value)))
    return Tag(5, 1, struct.pack("<II", nearest.numerator, nearest.denominator))


def _exif(picture: Picture) -> Directory:
    """The tags of its EXIF block that describe the picture, and the directories of EXIF and GPS."""
    tags = meta.exif_tags(picture.exif)
    tags.endian = "<"
    block = meta.exif_block(tags, meta.DESCRIPTIVE)
    return read(io.BytesIO(block.removeprefix(meta.EXIF_PREFIX))) if block else Directory("<", {})
