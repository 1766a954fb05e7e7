"""TIFF, read and written. The tags alone decide what a file holds, whatever its depth, planes and packing.

The photometric tag says how many samples of a pixel are colours, ExtraSamples (TIFF 6.0, Sec. 18) which of the others
is alpha; unspecified ones, such as near-infrared, are data. Colours become grey or RGB in bands of rows (`Rows`), so
that pictures of any size come out the same.

Files are written here, since Pillow writes no 16-bit colour: little-endian, channels interleaved, deflated, integers as
differences of neighbours (Sec. 14), in strips of some rows where the picture is in memory, in tiles (Sec. 15) where it
comes by bands.
"""

import io
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np

from i2i.errors import ImageError, as_typed
from i2i.images import colours
from i2i.images import metadata as meta
from i2i.images import tiff_directory as t
from i2i.images.picture import GEO, GEO_KEYS, Geo, Limits, Picture, Pixels, row_blocks, white, with_depth
from i2i.images.png import compress
from i2i.images.tiff_samples import COLOURS, OLD_JPEG, Samples

_MOST_SEGMENT_BYTES = 1 << 28
# the most that is written; a larger file needs addresses of 64 bits
_CLASSIC_BYTES = 1 << 31
_TILE = 256
_STRIP_BYTES = 1 << 18
_DEFLATED, _INTERLEAVED, _DIFFERENCES = 8, 1, 2
_SRGB_WHITE = (0.3127, 0.329)
_SRGB_PRIMARIES = (0.64, 0.33, 0.3, 0.6, 0.15, 0.06)  # red, green and blue
_FOREIGN_COLOURS = (t.CMYK, t.CIELAB, t.ICCLAB)
_AS_STORED = (t.BLACK_IS_ZERO, t.RGB)
_UNSPECIFIED, _PREMULTIPLIED, _STRAIGHT = 0, 1, 2


class Rows(Samples):
    """The first picture of a file by blocks of rows, from top to bottom as they are stored.

    Blocks are (h, `width`, `channels`) of `dtype` (8 bits, 16, or float32): colours, bands beyond them, and alpha if
    there is one; `separated` takes them apart. `turn` is the orientation in which they are to be seen.

    * `colours` is the kind of colours of unpacked samples: JPEG itself undoes YCbCr, but not in planes.
    * Behind the colours, `alpha` is the index of alpha, perhaps `premultiplied`, `bands` those of data.

    Raises `ImageError` for a header that is damaged, above the limits or not read here; so does reading for pixels.
    """

    def __init__(self, file: BinaryIO, limits: Limits) -> None:
        tags = t.read(file)
        if t.DNG in tags.tags:
            raise ImageError("camera raw (DNG) is not read here")
        super().__init__(file, tags, limits)
        turn = tags.number(t.ORIENTATION, 1)
        self.turn = turn if 1 <= turn <= 8 else 1
        undone = self.photometric == t.YCBCR and self.by_pillow and not self.planar
        self.colours = self.photometric if not undone else t.RGB if self.samples > 1 else t.BLACK_IS_ZERO
        self._divide_samples()
        wide = self.kind == "f" or self.bits > 16
        self._depth: np.dtype[Any] = np.dtype(np.float32 if wide else np.uint8 if self.bits <= 8 else np.uint16)
        self.dtype: np.dtype[Any] = np.dtype(np.uint8) if self.colours == t.PALETTE_COLOUR else self._depth
        self._is_grey = self.colours in (t.WHITE_IS_ZERO, t.BLACK_IS_ZERO)
        self.channels = (1 if self._is_grey else 3) + len(self.bands) + (self.alpha is not None)

    def _divide_samples(self) -> None:
        """Tells alpha from data by ExtraSamples (Sec. 18)."""
        given = [int(value) if math.isfinite(value) else 0 for value in self.tags.values(t.EXTRA_SAMPLES)]
        rest = range(COLOURS[self.colours], self.samples)
        if not given and self.colours == t.RGB and len(rest) == 1:
            given = [_STRAIGHT]  # older writers leave the tag out, and mean alpha
        kinds = dict(zip(rest, given, strict=False))
        self.alpha = next((i for i, kind in kinds.items() if kind in (_PREMULTIPLIED, _STRAIGHT)), None)
        self.premultiplied = self.alpha is not None and kinds[self.alpha] == _PREMULTIPLIED
        self.bands = tuple(i for i in rest if i != self.alpha)

    def __iter__(self) -> Iterator[Pixels]:
        return map(self._converted, self._blocks())

    def _blocks(self) -> Iterator[Pixels]:
        """Samples (h, `width`, S) as they are stored, a bounded number at a time."""
        return (rows[some] for rows in self.stored() for some in row_blocks(rows))

    def picture(self) -> Picture:
        """The whole picture."""
        whole = np.empty((self.height, self.width, self.channels), self.dtype)
        indexed = self.colours == t.PALETTE_COLOUR and self.bits <= 8
        numbers = np.empty(whole.shape[:2], np.uint8) if indexed else None
        top = 0
        for stored in self._blocks():
            rows = slice(top, top := top + len(stored))
            whole[rows] = self._converted(stored)
            if numbers is not None:
                numbers[rows] = stored[..., 0]
        return self._described(replace(self.separated(whole), numbers=numbers))

    def numbers(self) -> Picture:
        """As `picture`, but all samples as the numbers that they are, of any type, alpha too.

        Segments that are left out get a negative value for no data too. Raises `ImageError` for other colours than grey
        and RGB.
        """
        if self.colours not in (*_AS_STORED, t.WHITE_IS_ZERO):
            raise ImageError(
                "holds a palette, inks or Lab, and no values in units; expected grey, RGB or bands of data"
            )
        no_data, limit = self.no_data, 2 ** (self.bits - 1)
        if self.kind == "i" and no_data is not None and -limit <= no_data < limit:
            self.absent = no_data
        numbers = np.concatenate(list(self._blocks()))
        if self.colours == t.RGB and numbers.shape[2] > 3:
            return self._described(Picture(np.ascontiguousarray(numbers[..., :3]), extra=numbers[..., 3:]))
        return self._described(Picture(numbers))

    def separated(self, pixels: Pixels) -> Picture:
        """Rows (h, w, `channels`) as colours, alpha, and data beside colours."""
        count = self.channels - (self.alpha is not None)
        alpha = pixels[..., -1].copy() if count < self.channels else None
        if not self.bands or self._is_grey:
            return Picture(np.ascontiguousarray(pixels[..., :count]), alpha)
        extra = np.ascontiguousarray(pixels[..., 3:count])
        return Picture(np.ascontiguousarray(pixels[..., :3]), alpha, extra=extra)

    def check_bands(self) -> None:
        """Raises `ImageError` where a block of rows needs more of the file than a part of it."""
        is_large = self.segment_bytes > _MOST_SEGMENT_BYTES and not self.is_streamable
        if self.compression == OLD_JPEG or is_large:
            advice = "use tiles, or strips of a few rows"
            raise ImageError(f"a TIFF packed as a whole is not read by bands of rows; {advice}")

    @property
    def info(self) -> Picture:
        """The picture without pixels."""
        return self._described(Picture(np.empty((0, 0, 1), np.uint8)))

    def _described(self, stored: Picture) -> Picture:
        """A picture as it is stored, turned upright, with the metadata of the file."""
        tags, found = self.tags, meta.ParsedFile(has_more_frames=self.tags.has_next)
        found.add_xmp(tags.bytes(t.XMP))
        if self.colours not in _FOREIGN_COLOURS:
            found.add_icc(tags.bytes(t.ICC))
            if not found.icc and _has_other_colours(tags):
                found.add_unread(meta.UNREAD_COLOURS)
        for name, tag in t.TEXTS.items():
            found.add_text(name, tags.text(tag))
        geo = _geo(tags, self.turn, found)
        return replace(found.described(stored, self.turn, tags, meta.DESCRIPTIVE), format="TIFF", geo=geo)

    def _converted(self, stored: Pixels) -> Pixels:
        """A block of stored samples as `channels` of `dtype`."""
        in_order = self.alpha in (None, self.samples - 1) and not self.premultiplied
        if in_order and self.colours in _AS_STORED and self.bits in (8, 16) and self.kind == "u":
            return stored
        others = [*self.bands, *([] if self.alpha is None else [self.alpha])]
        parts = [self._colours(stored), *([self._scaled(stored[..., others])] if others else [])]
        return parts[0] if len(parts) == 1 else np.concatenate([with_depth(p, self.dtype.type) for p in parts], axis=2)

    def _colours(self, stored: Pixels) -> Pixels:
        """Grey or RGB of stored samples, not premultiplied."""
        kind, tags, samples = self.colours, self.tags, stored[..., : COLOURS[self.colours]]
        alpha = self._units(stored[..., self.alpha, None]) if self.premultiplied else None
        if alpha is None and kind in _AS_STORED:
            return self._scaled(samples)
        if kind == t.PALETTE_COLOUR:
            found = colours.from_palette(samples[..., 0], tags.values(t.PALETTE), self.bits)
        elif kind == t.YCBCR:
            found = colours.from_ycbcr(samples, tags.values(t.COEFFICIENTS), tags.values(t.REFERENCE))
        elif kind in (t.CIELAB, t.ICCLAB):
            found = colours.from_lab(samples, icc=kind == t.ICCLAB)
        else:
            units = self._units(samples)
            units = units if alpha is None else _ratio(units, alpha)
            if kind == t.CMYK:
                units = colours.from_cmyk(units)
            return _rounded(1 - units if kind == t.WHITE_IS_ZERO else units, self.dtype)
        return found if alpha is None else _rounded(_ratio(found / white(found), alpha), found.dtype)

    def _scaled(self, stored: Pixels) -> Pixels:
        """Values of the whole range of 8 or 16 bits, wider ones as float32 in [0, 1]."""
        if self.kind == "u" and self.bits in (8, 16):
            return stored
        return _rounded(self._units(stored), self._depth)

    def _units(self, stored: Pixels) -> Pixels:
        """Values as float64 in [0, 1], the range of their type; floats as they are."""
        if self.kind != "u":
            _check_range(stored, self.kind, self.no_data)
        units = stored.astype(np.float64)
        return units if self.kind == "f" else units / (2 ** (self.bits - (self.kind == "i")) - 1)


def _check_range(values: Pixels, kind: str, no_data: float | None) -> None:
    """Raises `ImageError` for values below 0, floating-point values above 1, and those that are not finite."""
    known = "" if no_data is None else f" (the file's value for no data is {no_data:g})"
    advice = f"; only a model that knows the range of its values takes others (training with {as_typed('range_a')})"
    if odd := values.size - np.count_nonzero(np.isfinite(values)):
        raise ImageError(f"{odd} of {values.size} values are not finite{known}; expected 0 to 1{advice}")
    low, high = values.min(), values.max()
    if kind == "i" and low < 0:
        raise ImageError(f"signed values from {low} to {high}{known}; expected none below 0{advice}")
    if kind == "f" and not (low >= 0 and high <= 1):
        raise ImageError(f"floating-point values from {low:g} to {high:g}{known}; expected 0 to 1{advice}")


def _ratio(colours: Pixels, alpha: Pixels) -> Pixels:
    """Premultiplied (h, w, C) colours in [0, 1] divided by alpha (h, w, 1); 0 where that is 0."""
    return np.minimum(np.divide(colours, alpha, out=np.zeros(colours.shape), where=alpha > 0), 1)


def _rounded(units: Pixels, dtype: np.dtype[Any]) -> Pixels:
    """Values in [0, 1] as those of `dtype`."""
    if dtype == np.float32:
        return units.astype(np.float32)
    return np.rint(np.clip(units, 0, 1) * np.iinfo(dtype).max).astype(dtype)


def _has_other_colours(tags: t.Directory) -> bool:
    """Whether the file describes its colours as others than those of sRGB."""
    points = [*zip(tags.values(t.WHITE_POINT), _SRGB_WHITE, strict=False)]
    points += zip(tags.values(t.PRIMARIES), _SRGB_PRIMARIES, strict=False)
    return t.TRANSFER in tags.tags or any(abs(a - b) > 1e-3 for a, b in points)


def _geo(tags: t.Directory, turn: int, found: meta.ParsedFile) -> Geo:
    geo: Geo = {tag: value for tag in GEO if (value := tags.text(tag) or tags.values(tag))}
    if geo and turn != 1:  # its coordinates are those of the rows and columns as they are stored
        found.add_unread("GeoTIFF keys of a turned picture")
        return {}
    keys = geo.pop(GEO_KEYS, None)
    if keys and not isinstance(keys, str) and all(0 <= key < 1 << 16 and key == int(key) for key in keys):
        geo[GEO_KEYS] = tuple(map(int, keys))
    elif keys:
        found.add_unread("odd GeoTIFF keys")
    return geo


def encode(picture: Picture, icc: bytes | None) -> bytes:
    """`picture` with all its metadata, and that colour profile, as a file."""
    pixels, file = picture.stacked(), io.BytesIO()
    write(file, pixels.shape, lambda top, bottom: pixels[top:bottom], picture, icc, tiled=False)
    return file.getvalue()


def write(
    file: BinaryIO,
    shape: tuple[int, ...],
    rows: Callable[[int, int], Pixels],
    like: Picture,
    icc: bytes | None,
    *,
    tiled: bool,
) -> None:
    """A picture (H, W, C) whose pixels `rows` gives from top to bottom; its channels are those of `like`."""
    row_bytes = shape[1] * shape[2] * like.pixels.dtype.itemsize
    big = shape[0] * row_bytes > _CLASSIC_BYTES
    start = file.write(t.header_of("<", 0, big=big))
    height = _TILE if tiled else max(1, _STRIP_BYTES // max(1, row_bytes))
    bands = (rows(top, min(top + height, shape[0])) for top in range(0, shape[0], height))
    sizes = [file.write(_packed(part)) for band in bands for part in (_tiles(band) if tiled else [band])]
    starts, address = (np.cumsum([0, *sizes[:-1]]) + start).tolist(), "Q" if big else "I"
    sides = {t.TILE_WIDTH: t.numbers("I", _TILE), t.TILE_HEIGHT: t.numbers("I", _TILE)}
    places = (t.TILES, t.TILE_BYTES) if tiled else (t.STRIPS, t.STRIP_BYTES)
    layout = {places[0]: t.numbers(address, *starts), places[1]: t.numbers(address, *sizes)}
    layout |= sides if tiled else {t.STRIP_ROWS: t.numbers("I", height)}
    exif = meta.exif_tags(like.exif).little_endian()
    described = meta.exif_kept(exif, meta.DESCRIPTIVE)
    tags = {**described, **_metadata(like, icc), **_pixels(shape, like), **layout}
    file.write(b"\0" * (file.tell() % 2))
    place = file.tell()
    file.write(t.directory_of("<", tags, place, exif.inner, big=big))
    file.seek(0)
    file.write(t.header_of("<", place, big=big))


def _tiles(band: Pixels) -> Iterator[Pixels]:
    """A row of tiles, at the edges filled up with zeros."""
    for left in range(0, band.shape[1], _TILE):
        part = band[:, left : left + _TILE]
        yield np.pad(part, [*((0, _TILE - side) for side in part.shape[:2]), (0, 0)])


def _packed(rows: Pixels) -> bytes:
    """Rows (h, W, C) deflated, integers as differences of neighbours."""
    packed = np.array(rows, rows.dtype.newbyteorder("<"), order="C")
    if packed.dtype.kind in "ui":
        np.subtract(rows[:, 1:], rows[:, :-1], out=packed[:, 1:])
    return compress(packed)


def _pixels(shape: tuple[int, ...], like: Picture) -> dict[int, t.Tag]:
    """The kind of the pixels (Sec. 7 and 18)."""
    height, width, channels = shape
    dtype, alpha = like.pixels.dtype, like.alpha is not None
    colours = 3 if like.pixels.shape[2] == 3 else 1
    tags = {
        t.WIDTH: t.numbers("I", width),
        t.HEIGHT: t.numbers("I", height),
        t.SAMPLES: t.numbers("H", channels),
        t.BITS: t.numbers("H", *(dtype.itemsize * 8,) * channels),
        t.FORMAT: t.numbers("H", *({"u": 1, "i": 2, "f": 3}[dtype.kind],) * channels),
        t.COMPRESSION: t.numbers("H", _DEFLATED),
        t.PLANAR: t.numbers("H", _INTERLEAVED),
        t.PHOTOMETRIC: t.numbers("H", t.RGB if colours == 3 else t.BLACK_IS_ZERO),
    }
    if dtype.kind in "ui":
        tags[t.PREDICTOR] = t.numbers("H", _DIFFERENCES)
    if channels > colours:
        kinds = (_UNSPECIFIED,) * (channels - colours - alpha) + (_STRAIGHT,) * alpha
        tags[t.EXTRA_SAMPLES] = t.numbers("H", *kinds)
    return tags


def _metadata(picture: Picture, icc: bytes | None) -> dict[int, t.Tag]:
    """The metadata of a picture that TIFF has tags for, beside EXIF."""
    tags = {t.ICC: t.text(icc, kind=7)} if icc else {}
    if picture.resolution:
        tags |= t.resolution(*picture.resolution)
    if picture.xmp:
        tags[t.XMP] = t.text(picture.xmp, kind=1)
    for name, tag in t.TEXTS.items():
        if name in picture.texts:
            tags[tag] = t.text(picture.texts[name].encode("utf-8", "replace") + b"\0")
    for tag, value in picture.geo.items():
        if isinstance(value, str):
            tags[tag] = t.text(value.encode() + b"\0")
        else:
            tags[tag] = t.numbers("H", *map(int, value)) if tag == GEO_KEYS else t.numbers("d", *value)
    return tags
