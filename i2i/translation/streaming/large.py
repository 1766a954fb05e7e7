"""A picture file larger than the limits to another: read, translated and written by bands."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from i2i.errors import ImageError
from i2i.images import WRITTEN, Picture
from i2i.images.band_writing import refusal, write_large
from i2i.images.bands import Bands, Canvas, Large
from i2i.images.formats import written_format
from i2i.images.picture import Pixels
from i2i.translation.report import changes
from i2i.translation.streaming.streamer import Streamer

if TYPE_CHECKING:
    from i2i.translation.options import FolderOptions


def translate_large(
    streamer: Streamer, source: Path, target: Path, options: "FolderOptions", mode: int | None = None
) -> str:
    """Translate one file; what was changed beside the translation, in words.

    Raises `ImageError` for a picture that is not read or written so, or not in this network; `OutputError` if there
    is no room for the spool or the result. `target` is written whole or not at all, in the place of another file only
    if `options` say so.
    """
    if not streamer.plain:
        raise ImageError("too large for a model of labels or of colours, which takes pictures up to the limit only")
    if options.size is not None:
        raise ImageError("too large to be resized; without --size it is translated as it is")
    with Large(source) as large:
        if large.info.more and options.in_place:
            raise ImageError("further pages in it would be lost; without --in-place the first is translated")
        bands: Bands = large if options.alpha == "keep" else _Laid(large, options.alpha)
        first = bands.read(0, 1)
        dtype = first.pixels.dtype
        # as a picture that is translated whole
        result = first.with_pixels(np.empty((1, 1, streamer.config.out_channels), dtype))
        copied = first.alpha is not None and result.alpha is None
        if copied:
            result.alpha = np.empty((1, 1), dtype)
        format = WRITTEN.get(target.suffix.lower()) or written_format(large.info.format)
        if reason := refusal(format, large.width, large.height, result):
            raise ImageError(reason)
        result = result.described_as(replace(large.info, pixels=result.pixels))
        with Canvas(large.height, large.width, streamer.config.out_channels + copied, dtype) as canvas:

            def put(top: int, rows: Pixels) -> None:
                alpha = bands.read(top, top + len(rows)).alpha if copied else None
                canvas.fill(top, rows if alpha is None else np.dstack([rows, alpha]))

            streamer.bands(bands, put, dtype.type)
            write_large(target, canvas, result, format, quality=options.quality, mode=mode, replace=options.replaces)
        before = replace(large.info, pixels=first.pixels, alpha=first.alpha, extra=first.extra)
        return changes(before, result, streamer.config.in_channels, target.suffix)


class _Laid:
    """A picture laid over a background of one colour."""

    def __init__(self, bands: Bands, background: str) -> None:
        self._bands, self._background = bands, background
        self.height, self.width = bands.height, bands.width

    def read(self, top: int, bottom: int) -> Picture:
        return self._bands.read(top, bottom).over("white" if self._background == "white" else "black")
