"""TIFF: one reader, which decides by the tags alone what a file holds, whatever its depth, planes and packing.

The photometric tag says how many samples of a pixel are colours, ExtraSamples (TIFF 6.0, Sec. 18) which of the others
is alpha; unspecified ones, such as near-infrared, are data. Colours become grey or RGB in bands of rows (`Rows`), so
that pictures of any size come out the same.
"""

import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np

from i2i.errors import ImageError
from i2i.images import colours, tiff_samples
from i2i.images import metadata as meta
from i2i.images import tiff_directory as t
from i2i.images.picture import GEO, GEO_KEYS, Geo, Limits, Picture, Pixels, row_blocks, white, with_depth
from i2i.images.tiff_layout import COLOURS, OLD_JPEG, Layout

_MOST_SEGMENT_BYTES = 1 << 28
_INCH, _CENTIMETRE = 2, 3
_SRGB_WHITE = (0.3127, 0.329)
_SRGB_PRIMARIES = (0.64, 0.33, 0.3, 0.6, 0.15, 0.06)  # red, green and blue
_FOREIGN_COLOURS = (t.CMYK, t.CIELAB, t.ICCLAB)
_AS_STORED = (t.BLACK_IS_ZERO, t.RGB)
_CONVERTED = (t.PALETTE_COLOUR, t.YCBCR, t.CIELAB, t.ICCLAB)


class Rows:
    """The first picture of a file by blocks of rows, from top to bottom as they are stored.

    Blocks are (h, `width`, `channels`) of `dtype`: colours, bands beyond them, and alpha if there is one; `separated`
    takes them apart. `turn` is the orientation in which they are to be seen. Without `segments` only the header is
    read. Raises `ImageError` for a header that is damaged, above the limits or not read here; so does reading for
    pixels.
    """

    def __init__(self, file: BinaryIO, limits: Limits, *, segments: bool = True) -> None:
        self._file = file
        self._end = file.seek(0, io.SEEK_END)
        self._tags = t.read(file, whole=segments)
        if t.DNG in self._tags.tags:
            raise ImageError("camera raw (DNG) is not read here")
        self._layout = layout = Layout(self._tags, limits)
        if segments:
            layout.check_segments(self._end)
        self.width, self.height = layout.width, layout.height
        turn = self._tags.number(t.ORIENTATION, 1)
        self.turn = turn if 1 <= turn <= 8 else 1
        self.dtype = np.dtype(np.uint8) if layout.colours == t.PALETTE_COLOUR else layout.dtype
        self._grey = layout.colours in (t.WHITE_IS_ZERO, t.BLACK_IS_ZERO)
        self.channels = (1 if self._grey else 3) + len(layout.bands) + (layout.alpha is not None)

    def __iter__(self) -> Iterator[Pixels]:
        return map(self._converted, self._stored())

    def _stored(self) -> Iterator[Pixels]:
        """Blocks of samples (h, `width`, S) as they are stored."""
        for band in tiff_samples.bands(self._layout, self._source):
            yield from (band[rows] for rows in row_blocks(band))

    def picture(self) -> Picture:
        """The whole picture."""
        whole = np.empty((self.height, self.width, self.channels), self.dtype)
        indexed = self._layout.colours == t.PALETTE_COLOUR and self._layout.bits <= 8
        numbers = np.empty(whole.shape[:2], np.uint8) if indexed else None
        top = 0
        for stored in self._stored():
            whole[top : top + len(stored)] = self._converted(stored)
            if numbers is not None:
                numbers[top : top + len(stored)] = stored[..., 0]
            top += len(stored)
        return self._described(replace(self.separated(whole), numbers=numbers))

    def numbers(self) -> Picture:
        """As `picture`, but all samples as the numbers that they are, of any type, alpha too.

        Segments that are left out get a negative value for no data too. Raises `ImageError` for other colours than grey
        and RGB.
        """
        layout = self._layout
        if layout.colours not in (*_AS_STORED, t.WHITE_IS_ZERO):
            raise ImageError(
                "holds a palette, inks or Lab, and no values in units; expected grey, RGB or bands of data"
            )
        no_data, limit = layout.no_data, 2 ** (layout.bits - 1)
        if layout.kind == "i" and no_data is not None and -limit <= no_data < limit:
            layout.absent = no_data
        numbers = np.concatenate(list(self._stored()))
        if layout.colours == t.RGB and numbers.shape[2] > 3:
            return self._described(Picture(np.ascontiguousarray(numbers[..., :3]), extra=numbers[..., 3:]))
        return self._described(Picture(numbers))

    def check_bands(self) -> None:
        """Raises `ImageError` where a block of rows needs more of the file than a part of it."""
        layout = self._layout
        if layout.compression == OLD_JPEG or (not layout.streamable and layout.segment_bytes > _MOST_SEGMENT_BYTES):
            raise ImageError(
                "a TIFF packed as a whole is not read by bands of rows; use tiles, or strips of a few rows"
            )

    def separated(self, pixels: Pixels) -> Picture:
        """Rows (h, w, `channels`) as colours, alpha, and data beside colours."""
        count = self.channels - (self._layout.alpha is not None)
        alpha = pixels[..., -1].copy() if count < self.channels else None
        if not self._layout.bands or self._grey:
            return Picture(np.ascontiguousarray(pixels[..., :count]), alpha)
        extra = np.ascontiguousarray(pixels[..., 3:count])
        return Picture(np.ascontiguousarray(pixels[..., :3]), alpha, extra=extra)

    @property
    def info(self) -> Picture:
        """The picture without pixels."""
        return self._described(Picture(np.empty((0, 0, 1), np.uint8)))

    def _described(self, stored: Picture) -> Picture:
        """A picture as it is stored, turned upright, with the metadata of the file."""
        tags, found = self._tags, meta.ParsedFile(has_more_frames=self._tags.has_next)
        found.add_exif(_exif(tags))
        found.add_xmp(tags.bytes(t.XMP))
        if self._layout.colours not in _FOREIGN_COLOURS:
            found.add_icc(tags.bytes(t.ICC))
            if not found.icc and _has_other_colours(tags):
                found.add_unread(meta.UNREAD_COLOURS)
        _add_resolution(tags, found)
        for name, tag in meta.TEXTS_IN_EXIF.items():
            found.add_text(name, tags.text(tag))
        geo = _geo(tags, self.turn, found)
        return replace(found.described(stored, self.turn), format="TIFF", geo=geo)

    def _source(self, place: int, size: int) -> bytes:
        if not 0 <= place <= self._end:
            raise ImageError("damaged: it is truncated")
        self._file.seek(place)
        return self._file.read(min(size, self._end - place))

    def _converted(self, stored: Pixels) -> Pixels:
        """A block of stored samples as `channels` of `dtype`."""
        layout = self._layout
        in_order = layout.alpha in (None, layout.samples - 1) and not layout.premultiplied
        if in_order and layout.colours in _AS_STORED and layout.bits in (8, 16) and layout.kind == "u":
            return stored
        parts = [self._colours(stored)]
        parts += [self._scaled(stored[..., layout.bands])] if layout.bands else []
        parts += [] if layout.alpha is None else [self._scaled(stored[..., layout.alpha, None])]
        return parts[0] if len(parts) == 1 else np.concatenate([with_depth(p, self.dtype.type) for p in parts], axis=2)

    def _colours(self, stored: Pixels) -> Pixels:
        """Grey or RGB of stored samples, not premultiplied."""
        kind, samples = self._layout.colours, stored[..., : COLOURS[self._layout.colours]]
        alpha = self._units(stored[..., self._layout.alpha, None]) if self._layout.premultiplied else None
        if kind in _CONVERTED:
            found = self._converted_colours(samples)
            return found if alpha is None else _rounded(_ratio(found / white(found), alpha), found.dtype)
        if alpha is None and kind in _AS_STORED:
            return self._scaled(samples)
        units = self._units(samples)
        if alpha is not None:
            units = _ratio(units, alpha)
        if kind == t.CMYK:
            units = colours.from_cmyk(units)
        elif kind == t.WHITE_IS_ZERO:
            units = 1 - units
        return _rounded(units, self.dtype)

    def _converted_colours(self, samples: Pixels) -> Pixels:
        kind, tags = self._layout.colours, self._tags
        if kind == t.PALETTE_COLOUR:
            return colours.from_palette(samples[..., 0], tags.values(t.PALETTE), self._layout.bits)
        if kind == t.YCBCR:
            return colours.from_ycbcr(samples, tags.values(t.COEFFICIENTS), tags.values(t.REFERENCE))
        return colours.from_lab(samples, icc=kind == t.ICCLAB)

    def _scaled(self, stored: Pixels) -> Pixels:
        """Values of the whole range of 8 or 16 bits, wider ones as float32 in [0, 1]."""
        if self._layout.kind == "u" and self._layout.bits in (8, 16):
            return stored
        return _rounded(self._units(stored), self._layout.dtype)

    def _units(self, stored: Pixels) -> Pixels:
        """Values as float64 in [0, 1], the range of their type; floats as they are."""
        bits, kind = self._layout.bits, self._layout.kind
        if kind != "u":
            _check_range(stored, kind, self._layout.no_data)
        units = stored.astype(np.float64)
        return units if kind == "f" else units / (2 ** (bits - (kind == "i")) - 1)


def _check_range(values: Pixels, kind: str, no_data: float | None) -> None:
    """Raises `ImageError` for values below 0, floating-point values above 1, and those that are not finite."""
    known = "" if no_data is None else f" (the file's value for no data is {no_data:g})"
    advice = "; only a model that knows the range of its values takes others (training with --range-a)"
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


def _add_resolution(tags: t.Directory, found: meta.ParsedFile) -> None:
    per_inch = {_INCH: 1.0, _CENTIMETRE: 2.54}.get(tags.number(t.RESOLUTION_UNIT, _INCH))
    values = [tags.values(tag) for tag in t.RESOLUTION]
    if per_inch is not None and all(values):
        found.add_resolution(values[0][0] * per_inch, values[1][0] * per_inch)


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


def _exif(tags: t.Directory) -> bytes | None:
    """The tags that describe the picture, and the directories of EXIF and GPS."""
    kept = {tag: found for tag, found in tags.tags.items() if tag in meta.DESCRIPTIVE}
    if not kept and not tags.inner:
        return None
    block = t.header_of(tags.order, 8) + t.directory_of(tags.order, kept, 8, tags.inner)
    return meta.exif_block(meta.exif_tags(block), meta.DESCRIPTIVE)
