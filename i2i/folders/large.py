"""A picture file larger than the limits to another: read, translated and written by bands."""

import math
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from i2i.errors import ImageError
from i2i.folders.jobs import Job, blend_of
from i2i.folders.report import changes, masked, painted
from i2i.images import WRITTEN, Picture, from_planes, to_planes
from i2i.images.formats import written_format
from i2i.images.large import Bands, Canvas, Large, refusal, write_large
from i2i.images.picture import Depth, Pixels
from i2i.inference.blend import as_mask
from i2i.inference.scaling import Enlargement, row_bands, scaled
from i2i.inference.streaming import RowSink
from i2i.terminal import printable

if TYPE_CHECKING:
    from i2i.inference.options import FolderOptions
    from i2i.inference.translator import Translator


def translate_large(translator: "Translator", job: Job, options: "FolderOptions", mode: int | None = None) -> str:
    """Translate one file. Returns in words what else has changed in the picture; empty if nothing has.

    A painter with a paint size paints here at that size too. `job.target` is written whole or not at all, and replaces
    another file only if `options` say so. Raises `ImageError` for a picture that cannot be read, translated or written
    by bands, `OutputError` if there is no room for the spool or the result.
    """
    spec, target = translator.model.spec, job.target
    if not translator.info.plain:
        raise ImageError("too large: models of labels or of colours take pictures up to the limit only")
    if translator.info.in_units:
        raise ImageError("too large: models of values in units take pictures up to the limit only; cut it into parts")
    if options.size is not None:
        raise ImageError("too large to be resized; without --size it is translated as it is")
    blend = blend_of(options)
    with ExitStack() as stack:
        large = stack.enter_context(Large(job.source))
        mask = None if job.mask is None else stack.enter_context(_mask_of(job.mask, large))
        if large.info.has_more_frames and options.in_place:
            raise ImageError("further pages in it would be lost; without --in-place the first is translated")
        bands: Bands = large if options.alpha == "keep" else _Laid(large, options.alpha)

        def made(top: int, rows: Pixels) -> Picture:
            """As a picture that is translated whole."""
            source = bands.read(top, top + len(rows))
            result = source.with_pixels(rows)
            if result.alpha is None:
                result.alpha = source.alpha
            if mask is None:
                return blend.of(source, result)
            return replace(blend, mask=as_mask(mask.read(top, top + result.height))).of(source, result)

        first = bands.read(0, 1)
        dtype = first.pixels.dtype
        like = made(0, np.zeros((1, large.width, spec.out_channels), dtype))
        format = WRITTEN.get(target.suffix.lower()) or written_format(large.info.format)
        if reason := refusal(format, large.width, large.height, like):
            raise ImageError(reason)
        result = like.described_as(replace(large.info, pixels=like.pixels))
        shape = translator.network_size(large.height, large.width)
        with Canvas(large.height, large.width, like.stacked().shape[2], dtype) as canvas:

            def put(top: int, rows: Pixels) -> None:
                canvas.fill(top, made(top, rows).stacked())

            if shape == (large.height, large.width):
                translator.model.bands(bands, put, dtype.type)
            else:
                _paint(translator, bands, shape, put, dtype.type)
            write_large(target, canvas, result, format, quality=options.quality, mode=mode, replace=options.replaces)
        before = replace(large.info, pixels=first.pixels, alpha=first.alpha, extra=first.extra)
        changed = changes(before, result, spec.in_channels, target.suffix)
        notes = changed, painted(shape, (large.height, large.width)), masked(job.mask)
        return "; ".join(part for part in notes if part)


def _mask_of(path: Path, large: Large) -> Large:
    """The mask of a large picture, which lies on a disk too. Raises `ImageError` for one of another size."""
    try:
        mask = Large(path)
    except ImageError as error:
        raise ImageError(f"its mask {printable(path)}: {error}") from None
    if (mask.height, mask.width) != (large.height, large.width):
        with mask:
            sizes = f"is {large.width}x{large.height} pixels, but its mask {mask.width}x{mask.height}"
            raise ImageError(f"{sizes}; expected a mask of the same size")
    return mask


def _paint(translator: "Translator", bands: Bands, shape: tuple[int, int], sink: RowSink, depth: Depth) -> None:
    """The picture of `bands`, painted at the height and width `shape`, to `sink` by rows of that depth."""
    channels = translator.model.spec.in_channels
    small, alpha = _shrunk(bands, shape, channels)
    enlarged = Enlargement(translator.model.array(small), small, (bands.height, bands.width), alpha)
    for rows in row_bands(bands.height, bands.width):
        planes = to_planes(bands.read(rows.start, rows.stop).channels(channels))
        sink(rows.start, from_planes(enlarged.rows(planes, rows.start), depth))


def _shrunk(bands: Bands, shape: tuple[int, int], channels: int) -> tuple[Pixels, Pixels | None]:
    """`scaled` for a picture by bands."""
    scale = bands.height / shape[0]
    # the kernel reaches two pixels of the smaller picture to each side
    reach = math.ceil(2 * scale) + 1
    parts = []
    for rows in row_bands(shape[0], math.ceil(bands.width * scale)):
        top, bottom = rows.start * scale, rows.stop * scale
        first, behind = max(0, math.floor(top) - reach), min(bands.height, math.ceil(bottom) + reach)
        picture, within = bands.read(first, behind), (top - first, bottom - first)
        parts.append(scaled(to_planes(picture.channels(channels)), picture, (rows.stop - rows.start, shape[1]), within))
    alpha = [seen for _, seen in parts if seen is not None]
    return np.concatenate([planes for planes, _ in parts], axis=1), np.concatenate(alpha) if alpha else None


class _Laid:
    """A picture laid over a background of one colour."""

    def __init__(self, bands: Bands, background: Literal["white", "black"]) -> None:
        self._bands, self._background = bands, background
        self.height, self.width = bands.height, bands.width

    def read(self, top: int, bottom: int) -> Picture:
        return self._bands.read(top, bottom).composited_on(self._background)
