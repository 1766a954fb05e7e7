"""A film file to another: three threads read, translate and write side by side, a few frames apart.

The thread that reads also finds the motion; the one that writes blends, measures and encodes. All that one frame hands
to the next is saved with each segment, so a film that goes on after a kill is that of an uninterrupted run.
"""

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from i2i import __version__
from i2i.config import option_names, to_mapping
from i2i.errors import ImageError, LockedError, out_of_memory
from i2i.files import move_into_place, refused, sha256
from i2i.films import Film, Frame, Reader, Segment, Segments, Writer, is_video, needs_video, segments
from i2i.films.smoothing import Motion, Smoother, motion
from i2i.folders.jobs import Job, blend_of, read_mask
from i2i.folders.report import Record, masked
from i2i.images import Picture, Pixels, with_channels, with_depth
from i2i.inference.blend import Blend
from i2i.inference.scaling import resized

if TYPE_CHECKING:
    from i2i.inference.options import FolderOptions
    from i2i.inference.translator import Translator

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

    translator: "Translator"
    job: Job
    options: "FolderOptions"
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
        return _record(self.job, frames, writer, smoother)

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
        from i2i.films.animation import AnimationWriter

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
        if needs_video(self.job.source, self.job.target):
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
    from i2i.films.animation import AnimationReader

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
    options: "FolderOptions"
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


def _record(job: Job, frames: _Input, writer: Writer, smoother: Smoother | None) -> Record:
    notes = [*frames.reader.film.notes, *writer.notes, *filter(None, [masked(job.mask)])]
    numbers: dict[str, float] = {"frames": frames.count}
    if smoother is not None:
        found = smoother.numbers()
        numbers |= found
        before, after = found["flicker_before"], found["flicker_after"]
        lost = 1 - found["sharpness_after"] / max(found["sharpness_before"], 1e-12)
        notes.append(f"flicker {before:.2g} → {after:.2g}, sharpness {-lost:+.0%}")
    return replace(Record.of(job, "done", note="; ".join(notes)), film=numbers)
