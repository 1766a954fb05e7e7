"""Files that are never held whole, each to another file: films, and pictures larger than the limits.

Three threads read, translate and write a film side by side, a few frames apart. The thread that reads also finds the
motion; the one that writes blends, measures and encodes. All that one frame hands to the next is saved with each
segment, so a film that goes on after a kill is that of an uninterrupted run. A large picture goes by bands of rows.
"""

import itertools
import math
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from i2i import __version__
from i2i.config import option_names, to_mapping
from i2i.errors import ImageError, LockedError, as_typed, out_of_memory
from i2i.files import move_into_place, refused, sha256
from i2i.films import Film, Frame, Reader, Segment, Segments, Writer, is_video, segments
from i2i.films.smoothing import Motion, Smoother, motion
from i2i.folders.jobs import Job, blend_of, read_mask
from i2i.folders.report import Record, changes, masked, painted
from i2i.images import WRITTEN, Picture, Pixels, from_planes, to_planes, with_channels, with_depth
from i2i.images.formats import written_format
from i2i.images.large import Bands, Canvas, Large, refusal, write_large
from i2i.images.picture import Depth
from i2i.inference.blend import Blend, as_mask
from i2i.inference.options import FolderOptions
from i2i.inference.scaling import Enlargement, resized, row_bands, scaled
from i2i.inference.streaming import RowSink
from i2i.inference.translator import Translator
from i2i.terminal import printable

FRAMES = 64
"""Frames of a segment: so many are made again after a kill, at most."""
_AHEAD = 3
_FORMAT = 1
"""Every change that makes older segments wrong raises it."""
_NOT_OF_RESULT = {
    *("overwrite", "skip_existing", "in_place", "on_collision", "recursive", "follow_links", "shard", "shard_by"),
    *("cluster", "gpu_share"),
    *("strict", "batch_size", "workers", "large", "format", "download"),
}
"""Options on which no frame depends."""


@dataclass(frozen=True)
class FilmWork:
    """A film to translate, `together` frames at once. `progress` is called with the frames done and their number, which
    is 0 if the file does not say it."""

    translator: Translator
    job: Job
    options: FolderOptions
    together: int = 1
    mode: int | None = None
    progress: Callable[[int, int], object] = lambda done, total: None
    stop: Callable[[], bool] = lambda: False

    @cached_property
    def blend(self) -> Blend:
        """A frame is so blended with its translation; a mask is that of all frames."""
        return blend_of(self.options, None if self.job.mask is None else read_mask(self.job.mask))

    def run(self) -> Record | None:
        """Translates the film, and returns its record; None if `stop` ended it before. The result is whole or absent.

        Raises `ImageError` for a film that cannot be read, translated, or written as that kind of file; `OutputError`
        if the system refuses to write.
        """
        before = _stamp(self.job.source)
        with open_film(self.job.source) as reader:
            if self.job.mask is not None:
                self.blend.check_mask((reader.film.height, reader.film.width))
            writer = self._writer(reader.film)
            try:
                with segments(self.job.target, self._facts()) as kept:
                    return self._made(reader, writer, kept, before)
            except LockedError as error:
                raise ImageError(str(error)) from None

    def _made(self, reader: Reader, writer: Writer, kept: Segments, before: tuple[int, int]) -> Record | None:
        smoother = Smoother(self.options.smooth, kept.state()) if self.options.smooth else None
        frames, output = _Input(reader, kept.count * FRAMES, self.options), _Output(writer, kept, smoother, self.blend)
        try:
            if not self._translate(frames, output, reader.film.frames):
                return None
            if _stamp(self.job.source) != before:
                raise ImageError("has changed meanwhile")
            self._join(writer, kept, frames.last)
        except ImageError:
            kept.remove()
            raise
        kept.remove()
        return _film_record(self.job, frames, writer, smoother)

    def _translate(self, frames: "_Input", output: "_Output", total: int) -> bool:
        """Translates what is left. False if it was stopped."""
        done = frames.start
        with ThreadPoolExecutor(1, "i2i-film-write") as writer, closing(_ahead(iter(frames))) as ahead:
            writing: deque[Future[None]] = deque()
            while group := list(itertools.islice(ahead, self.together)):
                if self.stop():
                    return False
                output.writer.check(done + len(group))  # where the file does not say how many there are
                pictures = self._translated([frame.picture for frame, _ in group])
                for (frame, moved), picture in zip(group, pictures, strict=True):
                    writing.append(writer.submit(output.add, frame, picture, moved))
                while len(writing) > _AHEAD:
                    writing.popleft().result()
                done += len(group)
                self.progress(done, total)
            for future in writing:
                future.result()
        output.end()
        return True

    def _translated(self, pictures: Sequence[Picture]) -> list[Picture]:
        try:
            return self.translator.translate_batch(pictures, self.options.size)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
        return [self.translator.translate(picture, self.options.size) for picture in pictures]

    def _writer(self, film: Film) -> Writer:
        if self.options.size is not None:
            height, width = resized(film.height, film.width, self.options.size)
            film = replace(film, height=height, width=width)
        has_streams = is_video(self.job.source)
        if is_video(self.job.target):
            from i2i.films.video import VideoWriter

            return VideoWriter(
                film, self.job.source if has_streams else None, self.job.target.suffix, self.options.quality
            )
        from i2i.films import AnimationWriter

        return AnimationWriter(film, self.job.target.suffix, self.options.quality, silent=not has_streams)

    def _join(self, writer: Writer, kept: Segments, last: int) -> None:
        path = kept.folder / "film.part"
        try:
            writer.join(kept.paths, path, last)
        except OSError as error:
            raise refused(self.job.target, error) from error
        move_into_place(path, self.job.target, self.mode, replace=self.options.replaces)

    def _facts(self) -> dict[str, Any]:
        """Everything on which the bytes of the result depend."""
        values, model = to_mapping(self.options), self.translator.model
        libraries = [version("pillow"), cv2.__version__]
        if is_video(self.job.source) or is_video(self.job.target):
            libraries.append(version("av"))
        return {
            "versions": [_FORMAT, __version__, *libraries],
            "source": sha256(self.job.source),
            "mask": None if self.job.mask is None else sha256(self.job.mask),
            "suffix": self.job.target.suffix.lower(),
            "options": {name: str(values[name]) for name in option_names(self.options) if name not in _NOT_OF_RESULT},
            "model": [model.digest(), self.translator.paint_size, model.seed],
            "runtime": [model.runtime.name, model.runtime.precision, str(model.device)],
        }


def open_film(path: Path) -> Reader:
    """Raises `ImageError` for a file that is no film."""
    if is_video(path):
        from i2i.films.video import VideoReader

        return VideoReader(path)
    from i2i.films import AnimationReader

    return AnimationReader(path)


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


@dataclass
class _Input:
    """The frames from number `start` on, each with the motion that leads to it.

    `count` are the frames that were read, the `last` of which is shown so long.
    """

    reader: Reader
    start: int
    options: FolderOptions
    count: int = 0
    last: int = 1

    def __iter__(self) -> Iterator[tuple[Frame, Motion | None]]:
        before = None
        for frame in self.reader.frames():
            if self.options.alpha != "keep":
                frame = frame._replace(picture=frame.picture.composited_on(self.options.alpha))
            now = self._seen(frame.picture) if self.options.smooth else None
            if self.count >= self.start:
                yield frame, None if before is None or now is None else motion(before, now)
            before, self.last = now, frame.duration
            self.count += 1

    def _seen(self, picture: Picture) -> Pixels:
        """Its colours in 8 bits, at the size of the result."""
        pixels = with_depth(with_channels(picture.pixels, 3), np.uint8)
        if self.options.size is None:
            return pixels
        height, width = resized(pixels.shape[0], pixels.shape[1], self.options.size)
        return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA))


@dataclass
class _Output:
    """Smooths translations one after the other, blends them with their frames, and keeps them by segments."""

    writer: Writer
    kept: Segments
    smoother: Smoother | None
    blend: Blend
    _segment: Segment | None = None
    _count: int = 0
    _failed: bool = False

    def add(self, frame: Frame, made: Picture, moved: Motion | None) -> None:
        """Adds a frame, with its translation `made`; none after one that failed, without which a segment is wrong."""
        if self._failed:
            return
        self._failed = True
        if self.smoother is not None:
            made = replace(made, pixels=self.smoother(made.pixels, moved))
        self._segment = self._segment or self.writer.segment()
        # after smoothing: outside of a mask nothing changes
        self._segment.add(frame._replace(picture=self.blend.of(frame.picture, made)))
        self._count += 1
        if self._count == FRAMES:
            self.end()
        self._failed = False

    def end(self) -> None:
        """Ends a segment, the last one with fewer frames."""
        if self._segment is not None:
            self.kept.add(self._segment.finish(), self.smoother.state() if self.smoother else {})
            self._segment, self._count = None, 0


def _ahead(items: Iterator[tuple[Frame, Motion | None]]) -> Generator[tuple[Frame, Motion | None]]:
    """The same, made in a thread, a few ahead."""
    with ThreadPoolExecutor(1, "i2i-film-read") as reader:
        waiting = deque(reader.submit(next, items, None) for _ in range(_AHEAD))
        while (item := waiting.popleft().result()) is not None:
            yield item
            waiting.append(reader.submit(next, items, None))


def _film_record(job: Job, frames: _Input, writer: Writer, smoother: Smoother | None) -> Record:
    notes = [*frames.reader.film.notes, *writer.notes, *filter(None, [masked(job.mask)])]
    numbers: dict[str, float] = {"frames": frames.count}
    if smoother is not None:
        found = smoother.numbers()
        numbers |= found
        before, after = found["flicker_before"], found["flicker_after"]
        lost = 1 - found["sharpness_after"] / max(found["sharpness_before"], 1e-12)
        notes.append(f"flicker {before:.2g} → {after:.2g}, sharpness {-lost:+.0%}")
    return replace(Record.of(job, "done", note="; ".join(notes)), film=numbers)


def translate_large(translator: Translator, job: Job, options: FolderOptions, mode: int | None = None) -> str:
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
        raise ImageError(f"too large to be resized; without {as_typed('size')} it is translated as it is")
    blend = blend_of(options)
    with ExitStack() as stack:
        large = stack.enter_context(Large(job.source))
        mask = None if job.mask is None else stack.enter_context(_mask_of(job.mask, large))
        if large.info.has_more_frames and options.in_place:
            kept = f"without {as_typed('in_place')} the first is translated"
            raise ImageError(f"further pages in it would be lost; {kept}")
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


def _paint(translator: Translator, bands: Bands, shape: tuple[int, int], sink: RowSink, depth: Depth) -> None:
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
