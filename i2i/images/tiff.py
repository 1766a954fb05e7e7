"""TIFF: one reader, which decides by the tags alone what a file holds, whatever its depth, planes and packing.

The photometric tag says how many samples of a pixel are colours, ExtraSamples (TIFF 6.0, Sec. 18) which of the others
is alpha; those that are unspecified, such as near-infrared, are data. tifffile interprets the tags, of which it gets a
bounded copy. Colours become grey or RGB in bands of rows (`Rows`), so that pictures of any size come out the same.
"""

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from tifffile import COMPRESSION, TiffFile

from i2i.errors import ImageError
from i2i.images import exif, tiff_colours
from i2i.images import tiff_directory as t
from i2i.images.apart import Apart, whole_numbers
from i2i.images.formats import TEXTS_IN_EXIF
from i2i.images.picture import GEO, GEO_KEYS, NODATA, Geo, Limits, Picture, Pixels, white, with_depth
from i2i.images.tiff_segments import (
    DIFFERENCES,
    FAX,
    FLOAT_DIFFERENCES,
    OLD_JPEG,
    PIXELS_BY_PILLOW,
    PLAIN,
    PREDICTED,
    UNPACKED,
    Layout,
    bands,
    old_jpeg,
)

_COLOURS = {
    t.WHITE_IS_ZERO: 1,
    t.BLACK_IS_ZERO: 1,
    t.RGB: 3,
    t.PALETTE_COLOUR: 1,
    t.CMYK: 4,
    t.YCBCR: 3,
    t.CIELAB: 3,
    t.ICCLAB: 3,
}
_PREMULTIPLIED, _STRAIGHT = 1, 2
_UNSIGNED, _SIGNED, _FLOAT, _VOID = 1, 2, 3, 4
_KINDS = {_UNSIGNED: "u", _SIGNED: "i", _FLOAT: "f", _VOID: "u"}
_MAX_CHANNELS = 64
_MIN_TILE_PIXELS = 1 << 24
_BLOCK_VALUES = 1 << 20
_MOST_SEGMENT_BYTES = 1 << 28
_INCH, _CENTIMETRE = 2, 3
_BITS = {_UNSIGNED: (*range(1, 33), 64), _VOID: (*range(1, 33), 64), _SIGNED: (8, 16, 32, 64), _FLOAT: (16, 32, 64)}
_COMPLEX = (5, 6)
_UNSIGNED_ALONE = {t.PALETTE_COLOUR: range(1, 17), t.YCBCR: (8, 16), t.CIELAB: (8, 16), t.ICCLAB: (8, 16)}
_OTHER_COLOURS = (t.CMYK, t.CIELAB, t.ICCLAB)
_AS_STORED = (t.BLACK_IS_ZERO, t.RGB)
_WHOLE_NUMBERS = (
    *("imagewidth", "imagelength", "imagedepth", "samplesperpixel", "rowsperstrip", "tilewidth", "tilelength"),
    *("compression", "planarconfig", "fillorder", "photometric", "predictor"),
)
_OVERLAP = 4  # times the file that packed segments may name in all, for equal ones may be one


def decode(data: bytes, limits: Limits) -> Picture:
    """The first picture of a file. Raises `ImageError` for what is damaged, above the limits or not read here."""
    rows = Rows(io.BytesIO(data), limits)
    whole = np.empty((rows.height, rows.width, rows.channels), rows.dtype)
    numbers = np.empty(whole.shape[:2], np.uint8) if rows.has_numbers else None
    top = 0
    for block, stored in rows.with_stored():
        whole[top : top + len(block)] = block
        if numbers is not None:
            numbers[top : top + len(block)] = stored[..., 0]
        top += len(block)
    picture = rows.picture(exif.upright(whole, rows.turn))
    return replace(picture, numbers=None if numbers is None else exif.upright(numbers, rows.turn))


def size(file: BinaryIO, limits: Limits) -> tuple[int, int]:
    """(width, height), upright, from the header. Raises `ImageError` as `decode` does for a header."""
    rows = Rows(file, limits, segments=False)
    return (rows.height, rows.width) if exif.is_sideways(rows.turn) else (rows.width, rows.height)


class Rows:
    """The first picture of a file by blocks of rows, from top to bottom as they are stored.

    Blocks are (h, `width`, `channels`) of `dtype`: colours, bands beyond them, and alpha if there is one; `picture`
    takes them apart. `turn` is the orientation in which they are to be seen. Raises `ImageError` for a header that is
    damaged, above the limits or not read here; so does iterating for pixels.
    """

    def __init__(self, file: BinaryIO, limits: Limits, *, segments: bool = True) -> None:
        self._file = file
        self._end = file.seek(0, io.SEEK_END)
        self._directory = t.read(file, whole=segments)
        if t.DNG in self._directory.tags:
            raise ImageError("camera raw (DNG) is not read here")
        self._layout = layout = _layout(self._directory, limits)
        if segments:
            _check_segments(layout, self._end)
        self.width, self.height = layout.width, layout.height
        turn = self._directory.number(t.ORIENTATION, 1)
        self.turn = turn if 1 <= turn <= 8 else 1
        self._kind = _Kind.of(layout)
        self.dtype = np.dtype(np.uint8) if layout.colours == t.PALETTE_COLOUR else _depth(layout)
        self.channels = self._kind.colours + len(self._kind.bands) + (self._kind.alpha is not None)

    def __iter__(self) -> Iterator[Pixels]:
        return (block for block, _ in self.with_stored())

    def with_stored(self) -> Iterator[tuple[Pixels, Pixels]]:
        """Each block, and the samples that it was made of."""
        seen = _Range(_nodata(self._directory))
        for band in self._bands():
            step = max(1, _BLOCK_VALUES // (band.shape[1] * band.shape[2]))
            for top in range(0, len(band), step):
                stored = band[top : top + step]
                yield self._block(stored, seen), stored
        seen.check()

    @property
    def has_numbers(self) -> bool:
        """Whether what is stored first are the numbers of colours in a palette, of 8 bits at most."""
        return self._layout.colours == t.PALETTE_COLOUR and self._layout.bits <= 8

    def check_bands(self) -> None:
        """Raises `ImageError` where a block of rows needs more of the file than a part of it."""
        layout = self._layout
        if layout.compression == OLD_JPEG or (not layout.streamable and layout.segment_bytes > _MOST_SEGMENT_BYTES):
            raise ImageError(
                "a TIFF packed as a whole is not read by bands of rows; use tiles, or strips of a few rows"
            )

    def picture(self, pixels: Pixels) -> Picture:
        """Rows of `channels`, turned upright, with all that the file says of them."""
        described, found = self.info, self.split(pixels)
        return replace(described, pixels=found.pixels, alpha=found.alpha, extra=found.extra)

    def split(self, pixels: Pixels) -> Picture:
        """Rows (h, w, `channels`) as colours, alpha, and what is data beside colours."""
        count = self.channels - (self._kind.alpha is not None)
        alpha = pixels[..., -1].copy() if count < self.channels else None
        if not self._kind.bands or self._kind.colours == 1:
            return Picture(np.ascontiguousarray(pixels[..., :count]), alpha)
        extra = np.ascontiguousarray(pixels[..., 3:count])
        return Picture(np.ascontiguousarray(pixels[..., :3]), alpha, extra=extra)

    @property
    def info(self) -> Picture:
        """All that the file says beside its pixels."""
        return _described(self._directory, self.turn, self._layout.colours not in _OTHER_COLOURS)

    def _bands(self) -> Iterator[Pixels]:
        if self._layout.compression == OLD_JPEG:
            return iter([old_jpeg(self._layout, self._source)])
        return bands(self._layout, self._source)

    def _source(self, place: int, size: int) -> bytes:
        if not 0 <= place <= self._end:
            raise ImageError("damaged: it is truncated")
        self._file.seek(place)
        return self._file.read(min(size, self._end - place))

    @np.errstate(all="ignore")  # values out of range are refused in the end
    def _block(self, stored: Pixels, seen: "_Range") -> Pixels:
        kind, layout = self._kind, self._layout
        if layout.colours in _AS_STORED and kind.as_stored and layout.bits in (8, 16) and layout.kind == "u":
            return stored
        parts = [self._colours(stored, seen)]
        parts += [self._scaled(stored[..., kind.bands], seen)] if kind.bands else []
        parts += [] if kind.alpha is None else [self._scaled(stored[..., kind.alpha, None], seen)]
        return parts[0] if len(parts) == 1 else np.concatenate([with_depth(p, self.dtype.type) for p in parts], axis=2)

    def _colours(self, stored: Pixels, seen: "_Range") -> Pixels:
        """Grey or RGB of what is stored, not premultiplied."""
        layout, tags, kind = self._layout, self._directory, self._kind
        samples = stored[..., : kind.stored]
        alpha = stored[..., kind.alpha, None] if kind.premultiplied else None
        if layout.colours in (t.PALETTE_COLOUR, t.YCBCR, t.CIELAB, t.ICCLAB):
            if layout.colours == t.PALETTE_COLOUR:
                found = tiff_colours.from_palette(samples[..., 0], tags.values(t.PALETTE), layout.bits)
            elif layout.colours == t.YCBCR:
                found = tiff_colours.from_ycbcr(samples, tags.values(t.COEFFICIENTS), tags.values(t.REFERENCE))
            else:
                found = tiff_colours.from_lab(samples, icc=layout.colours == t.ICCLAB)
            if alpha is None:
                return found
            return _rounded(_ratio(found / white(found), self._units(alpha, seen)), found.dtype)
        if alpha is None and layout.colours in _AS_STORED:
            return self._scaled(samples, seen)
        units = self._units(samples, seen)
        if alpha is not None:
            units = _ratio(units, self._units(alpha, seen))
        if layout.colours == t.CMYK:
            units = tiff_colours.from_cmyk(units)
        elif layout.colours == t.WHITE_IS_ZERO:
            units = 1 - units
        return _rounded(units, self.dtype)

    def _scaled(self, stored: Pixels, seen: "_Range") -> Pixels:
        """Values of the whole range of 8 or 16 bits, wider ones as float32 in [0, 1]."""
        bits, kind = self._layout.bits, self._layout.kind
        if kind == "u" and bits in (8, 16):
            return stored
        return _rounded(self._units(stored, seen), _depth(self._layout))

    def _units(self, stored: Pixels, seen: "_Range") -> Pixels:
        """Values as float64 in [0, 1], the range of their type; floats as they are."""
        bits, kind = self._layout.bits, self._layout.kind
        if kind != "u":
            seen.note(stored, kind)
        units = stored.astype(np.float64)
        return units if kind == "f" else units / (2 ** (bits - (kind == "i")) - 1)


@dataclass(frozen=True)
class _Kind:
    """What the samples of a pixel are: `stored` ones make `colours`; `bands` are data, `alpha` is where that is.

    Of grey with unspecified samples there are no colours, but as many bands.
    """

    stored: int
    colours: int
    bands: tuple[int, ...]
    alpha: int | None
    premultiplied: bool

    @classmethod
    def of(cls, layout: Layout) -> "_Kind":
        stored = _COLOURS[layout.colours]
        colours = 1 if layout.colours in (t.WHITE_IS_ZERO, t.BLACK_IS_ZERO) else 3
        # of a kind that is none, a number is that of unspecified ones
        given = [int(value) if math.isfinite(value) else 0 for value in layout.tables.values(t.EXTRA_SAMPLES)]
        rest = range(stored, layout.samples)
        if not given and layout.colours == t.RGB and len(rest) == 1:
            given = [_STRAIGHT]  # older writers leave the tag out, and mean alpha
        codes = dict(zip(rest, [*given[: len(rest)], *[0] * len(rest)], strict=False))
        alpha = next((i for i, code in codes.items() if code in (_PREMULTIPLIED, _STRAIGHT)), None)
        others = tuple(i for i in rest if i != alpha)
        return cls(stored, colours, others, alpha, alpha is not None and codes[alpha] == _PREMULTIPLIED)

    @property
    def as_stored(self) -> bool:
        """Whether the samples are in our order, and alpha, if any, is straight."""
        return self.alpha in (None, self.stored + len(self.bands)) and not self.premultiplied


@dataclass
class _Range:
    """The range of the values that were seen, where not every value of their type is one of a picture."""

    nodata: float | None
    low: float = math.inf
    high: float = -math.inf
    odd: int = 0
    total: int = 0
    signed: bool = False

    def note(self, values: Pixels, kind: str) -> None:
        self.total += values.size
        low, high = values.min(), values.max()
        if not (np.isfinite(low) and np.isfinite(high)):
            finite = values[np.isfinite(values)]
            self.odd += values.size - finite.size
            low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
        self.low, self.high, self.signed = min(self.low, float(low)), max(self.high, float(high)), kind == "i"

    def check(self) -> None:
        """Raises `ImageError` for values below 0, floating-point values above 1, and those that are not finite."""
        known = "" if self.nodata is None else f" (the file's value for no data is {self.nodata:g})"
        if self.odd:
            raise ImageError(f"{self.odd} of {self.total} values are not finite{known}; expected 0 to 1")
        if self.signed and self.low < 0:
            raise ImageError(f"signed values from {self.low:.0f} to {self.high:.0f}{known}; expected none below 0")
        if self.total and not self.signed and not (self.low >= 0 and self.high <= 1):
            raise ImageError(f"floating-point values from {self.low:g} to {self.high:g}{known}; expected 0 to 1")


def _ratio(colours: Pixels, alpha: Pixels) -> Pixels:
    """Premultiplied (h, w, C) colours in [0, 1] divided by alpha (h, w, 1); 0 where that is 0."""
    return np.minimum(np.divide(colours, alpha, out=np.zeros(colours.shape), where=alpha > 0), 1)


def _rounded(units: Pixels, dtype: np.dtype[Any]) -> Pixels:
    """Values in [0, 1] as those of `dtype`."""
    if dtype == np.float32:
        return units.astype(np.float32)
    return np.rint(np.clip(units, 0, 1) * np.iinfo(dtype).max).astype(dtype)


def _layout(tags: t.Directory, limits: Limits) -> Layout:
    """The layout that the tags describe. Raises `ImageError` for one that is above the limits or not read here."""
    page = _page(tags)
    limits.check_size(page.imagewidth, page.imagelength, page.samplesperpixel)
    photometric, compression = _photometric(page, tags), int(page.compression)
    _check_kind(page, photometric)
    if photometric == t.CMYK and (tags.number(t.INK_SET, 1) != 1 or tags.number(t.INKS, 4) != 4):
        raise ImageError("TIFF of other inks than cyan, magenta, yellow and black is not read here")
    tiled = t.TILE_WIDTH in tags.tags
    wide, high = (
        (page.tilewidth, page.tilelength) if tiled else (page.imagewidth, page.rowsperstrip or page.imagelength)
    )
    layout = Layout(
        order=tags.order,
        width=page.imagewidth,
        height=page.imagelength,
        samples=page.samplesperpixel,
        bits=page.bitspersample,
        kind=_KINDS[page.sampleformat],
        photometric=photometric,
        planar=page.planarconfig == 2 and page.samplesperpixel > 1,
        compression=compression,
        predictor=int(page.predictor) if compression in PREDICTED else 1,
        fill_order=page.fillorder,
        subsampling=_subsampling(page, tags, photometric),
        segment_width=wide,
        segment_height=high,
        tiled=tiled,
        offsets=page.dataoffsets,
        counts=page.databytecounts,
        absent=_absent(page, tags),
        tables=tags,
    )
    _check_layout(layout)
    return layout


def _page(tags: t.Directory) -> Any:
    """The tags as tifffile understands them."""
    if not {t.WIDTH, t.HEIGHT} <= set(tags.tags):
        raise ImageError("damaged: its header names no size")
    layout = {tag: found for tag, found in tags.tags.items() if tag in t.LAYOUT}
    try:
        with TiffFile(io.BytesIO(t.file_of(tags.order, layout, big=True)), name="picture") as file:
            page = file.pages[0]
    except Exception:
        raise ImageError("damaged: its header contradicts itself") from None
    if not all(isinstance(getattr(page, name), int) for name in _WHOLE_NUMBERS):
        raise ImageError("damaged: its header contradicts itself")
    return page


def _photometric(page: Any, tags: t.Directory) -> int:
    # as libtiff has it; the tag is not optional
    return t.RGB if t.PHOTOMETRIC not in tags.tags and page.samplesperpixel > 2 else int(page.photometric)


def _check_kind(page: Any, photometric: int) -> None:
    if not 1 <= page.samplesperpixel <= _MAX_CHANNELS or page.imagedepth != 1:
        count = f"{page.samplesperpixel} channels, depth {page.imagedepth}"
        raise ImageError(f"{count}: at most {_MAX_CHANNELS} channels are accepted")
    bits, format = page.bitspersample, page.sampleformat
    if photometric not in _COLOURS:
        name = getattr(page.photometric, "name", photometric)
        raise ImageError(f"TIFF of the kind {name} with {bits} bits a channel is not read here")
    if not isinstance(bits, int) or not isinstance(format, int):
        raise ImageError(f"TIFF with channels of different types ({bits} bits) is not read here")
    if bits not in _BITS.get(format, ()):
        name = {_SIGNED: "signed values", _FLOAT: "floating-point values"}.get(format, "values")
        kind = "complex values" if format in _COMPLEX else name
        raise ImageError(f"TIFF of {kind} of {bits} bits is not read here")
    if photometric in _UNSIGNED_ALONE and (
        format not in (_UNSIGNED, _VOID) or bits not in _UNSIGNED_ALONE[photometric]
    ):
        name = getattr(page.photometric, "name", photometric)
        raise ImageError(f"TIFF of the kind {name} with {bits} bits a channel is not read here")
    if page.samplesperpixel < _COLOURS[photometric]:
        raise ImageError(f"damaged: {page.samplesperpixel} channels where its colours need {_COLOURS[photometric]}")


def _subsampling(page: Any, tags: t.Directory, photometric: int) -> tuple[int, int]:
    """How many pixels across and down share a colour of YCbCr (Sec. 21)."""
    if photometric != t.YCBCR:
        return 1, 1
    given = tags.values(t.SUBSAMPLING)
    if len(given) < 2:
        full = math.prod(page.shape) * (page.bitspersample // 8)
        # the default, unless there are bytes for colours of every pixel
        is_full = page.compression == PLAIN and sum(page.databytecounts) >= full
        given = (1, 1) if is_full else (2, 2)
    if not set(given[:2]) <= {1, 2, 4}:
        raise ImageError(f"damaged: colours subsampled by {given[0]:g}x{given[1]:g}")
    return int(given[0]), int(given[1])


def _absent(page: Any, tags: t.Directory) -> float:
    """The value of segments that are left out: the one for no data, as GDAL has it, else 0."""
    value = _nodata(tags) or 0
    return value if page.sampleformat == _FLOAT or 0 <= value < 2**page.bitspersample else 0


def _nodata(tags: t.Directory) -> float | None:
    """The file's value for no data, where it is a number: nothing else that a file says gets into a message."""
    try:
        return float(tags.text(NODATA) or "")
    except ValueError:
        return None


def _check_layout(layout: Layout) -> None:
    """Raises `ImageError` for a combination that is not read here, and for tiles far larger than the picture."""
    if layout.compression not in UNPACKED:
        raise ImageError(f"TIFF packed with {_packing(layout.compression)} is not read here")
    if layout.fill_order not in (1, 2) or min(layout.segment_width, layout.segment_height) < 1:
        raise ImageError("damaged: its header contradicts itself")
    pixels, tile = layout.width * layout.height, layout.segment_width * layout.segment_height
    if layout.tiled and tile > max(_MIN_TILE_PIXELS, 4 * pixels):
        raise ImageError(f"damaged: a tile of {tile} pixels in a picture of {pixels}")
    wanted = {1: True, DIFFERENCES: layout.bits in (8, 16, 32, 64), FLOAT_DIFFERENCES: layout.kind == "f"}
    if not wanted.get(layout.predictor) or (layout.predictor > 1 and layout.subsampled):
        raise ImageError(f"TIFF of {layout.bits} bits with predictor {layout.predictor} is not read here")
    if layout.subsampled and (layout.samples != 3 or layout.planar):
        raise ImageError("TIFF of subsampled colours with further channels or in planes is not read here")
    if (layout.tiled or layout.down > 1) and layout.segment_height % layout.line_rows:
        each = f"strips or tiles of {layout.segment_height} rows"
        raise ImageError(f"TIFF of colours that {layout.line_rows} rows share in {each} is not read here")
    if layout.compression in FAX and (layout.bits > 1 or layout.segment_samples > 1):
        raise ImageError("damaged: a fax of more than one bit")
    if layout.compression in PIXELS_BY_PILLOW and layout.compression not in FAX and layout.bits != 8:
        raise ImageError(f"TIFF of {layout.bits} bits packed with {_packing(layout.compression)} is not read here")


def _packing(compression: int) -> str:
    try:
        return str(COMPRESSION(compression).name)
    except ValueError:
        return f"method {compression}"


def _check_segments(layout: Layout, end: int) -> None:
    """Raises `ImageError` unless every segment has a place, and for more bytes than the file can have."""
    if layout.compression == OLD_JPEG:
        return
    count = layout.across * layout.down * (layout.samples if layout.planar else 1)
    if len(layout.offsets) < count or len(layout.counts) < count:
        found = min(len(layout.offsets), len(layout.counts))
        raise ImageError(f"damaged: {found} strips or tiles where {count} are expected")
    if layout.compression in PIXELS_BY_PILLOW and sum(map(int, layout.counts[:count])) > _OVERLAP * end:
        raise ImageError("damaged: its strips have more bytes than the file")


def _depth(layout: Layout) -> np.dtype[Any]:
    """What samples become: 8 bits, 16, or float32."""
    return np.dtype(
        np.float32 if layout.kind == "f" or layout.bits > 16 else np.uint8 if layout.bits <= 8 else np.uint16
    )


def _described(tags: t.Directory, turn: int, own_colours: bool) -> Picture:
    """A picture without pixels, of whose file these are the tags; `own_colours`: its profile is that of grey or RGB."""
    found = Apart()
    found.add_exif(_exif(tags))
    found.add_xmp(exif.upright_xmp(tags.bytes(t.XMP)))
    found.add_icc(tags.bytes(t.ICC) if own_colours else None)
    _add_colours(tags if own_colours else t.Directory(tags.order, {}), found)
    _add_resolution(tags, found)
    for name, tag in TEXTS_IN_EXIF.items():
        found.add_text(name, tags.text(tag))
    geo = _geo(tags, turn, found)
    across, down = found.resolution or (0, 0)
    return Picture(
        pixels=np.empty((0, 0, 1), np.uint8),
        icc=found.icc,
        exif=found.exif,
        format="TIFF",
        more=tags.more,
        colour=found.colour,
        resolution=((down, across) if exif.is_sideways(turn) else (across, down)) if across and down else None,
        xmp=found.xmp,
        texts=found.texts,
        geo=geo,
        unread=tuple(found.unread),
    )


def _add_colours(tags: t.Directory, found: Apart) -> None:
    chromaticities = (*tags.values(t.WHITE_POINT), *tags.values(t.PRIMARIES))
    if chromaticities:
        found.add_colour(chromaticities=chromaticities)
    if transfer := tags.values(t.TRANSFER):
        found.add_colour(transfer=whole_numbers(transfer))


def _add_resolution(tags: t.Directory, found: Apart) -> None:
    per_inch = {_INCH: 1.0, _CENTIMETRE: 2.54}.get(tags.number(t.RESOLUTION_UNIT, _INCH))
    values = [tags.values(tag) for tag in t.RESOLUTION]
    if per_inch is not None and all(values):
        found.add_resolution(values[0][0] * per_inch, values[1][0] * per_inch)


def _geo(tags: t.Directory, turn: int, found: Apart) -> Geo:
    geo: Geo = {tag: value for tag in GEO if (value := tags.text(tag) or tags.values(tag))}
    if geo and turn != 1:  # its coordinates are those of the rows and columns as they are stored
        found.add_unread("GeoTIFF keys of a turned picture")
        return {}
    keys = geo.pop(GEO_KEYS, None)
    if keys and (whole := None if isinstance(keys, str) else whole_numbers(keys)):
        geo[GEO_KEYS] = whole
    elif keys:
        found.add_unread("odd GeoTIFF keys")
    return geo


def _exif(tags: t.Directory) -> bytes | None:
    """What describes the picture, and the directories of EXIF and GPS."""
    kept = {tag: found for tag, found in tags.tags.items() if tag in exif.DESCRIPTIVE}
    if not kept and not tags.inner:
        return None
    block = Image.Exif()
    try:
        block.load(t.file_of(tags.order, kept, tags.inner))
    except Exception:  # a block that cannot be parsed is not worth losing the picture for
        return None
    return exif.block(block, "TIFF")
