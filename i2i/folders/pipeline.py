"""Reading, translating and writing side by side: threads read ahead and write behind one network.

The order of the work, the batches and the memory follow from the list of jobs alone, and never from which thread is
first. So the results are the same as one after the other.
"""

import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from i2i.errors import ExistsError, I2IError, ImageError, OutputError, SomeFailed, as_typed, out_of_memory
from i2i.files import WINDOWS, make_folders
from i2i.folders.jobs import Job, blend_of, read_mask
from i2i.folders.report import Progress, Record, changes, clipped, masked, painted, unlabelled
from i2i.folders.staging import stage
from i2i.images import Picture, probe, read, write
from i2i.images.large import LARGE_LIMITS, SpoolError, large_size
from i2i.images.picture import DEFAULT_LIMITS
from i2i.inference.blend import Blend
from i2i.inference.options import FolderOptions
from i2i.inference.scaling import resized
from i2i.inference.translator import Translator
from i2i.terminal import printable

_OF_ONE = {errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, *((errno.EACCES, errno.ENOENT) if WINDOWS else ())}
"""A name that is too long, or that NTFS (EINVAL) or APFS (EILSEQ) refuses. On Windows also a file that a program has
open, and a path that is too long."""
Finished = Callable[[Job, Record], object]
Stop = Callable[[], bool]

QUEUE_PIXELS = 32 << 20
"""How many pixels wait to be translated or written, at most; one picture that is larger has the queue alone."""
BATCH_ON_GPU = 16
_LESS = "not enough memory for larger batches"
_BANDS = "not enough memory for the largest pictures at once: they were translated by bands of rows"
_BY_BANDS = "translated by bands of rows"
_MAX_WORKERS = 8


class Taken(NamedTuple):
    """A picture that was read, and how its translation is blended with it."""

    picture: Picture
    blend: Blend


@dataclass
class _Read:
    """A picture that is being read; `shape` is its height and width in the network.

    A film, and a picture above the limits, goes `alone`, and is never read as a whole.
    """

    job: Job
    pixels: int
    shape: tuple[int, int]
    picture: "Future[Taken]"
    alone: bool = False


@dataclass
class Pipeline:
    """Runs jobs through a translator. `finished` is called with each job and its record, also after an error; `frames`
    as that of `translate_folder`. `notices` are remarks for the user. Relative paths begin at `start`, if that says so.
    """

    translator: Translator
    options: FolderOptions
    finished: Finished
    stop: Stop = lambda: False
    frames: Progress | None = None
    start: str = ""
    notices: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        on_cpu = self.translator.device.type == "cpu"
        batch, workers = self.options.batch_size, self.options.workers
        self._batch = batch if isinstance(batch, int) else 1 if on_cpu else BATCH_ON_GPU
        default = 1 if on_cpu else min(_MAX_WORKERS, os.cpu_count() or 1)
        self._workers = workers if isinstance(workers, int) else default
        self._next: _Read | None = None
        self._reads: deque[_Read] = deque()
        self._writes: dict[Future[Record | None], tuple[Job, int]] = {}
        self._held = 0
        self._ended: I2IError | None = None
        self._mask = lru_cache(maxsize=1)(read_mask)  # one may serve for all pictures
        self.notices.extend(self.translator.notices)

    def run(self, jobs: Sequence[Job]) -> None:
        """Raises `SomeFailed` at the first failure if `strict`, `OutputError` if the system or a store takes none,
        `InputError` if a store refuses to be read."""
        with (
            stage(jobs, self.start, self._batch) as self._stage,
            closing(self._stage.jobs(jobs)) as coming,
            ThreadPoolExecutor(self._workers, "i2i-read") as self._readers,
            ThreadPoolExecutor(self._stage.writers(self._workers), "i2i-write") as self._writers,
        ):
            try:
                while not self.stop():
                    self._read_ahead(coming)
                    if not self._reads:
                        break
                    if self._reads[0].alone:
                        self._alone(self._reads.popleft().job)
                    else:
                        self._translate(self._next_batch())
                    self._collect()
            finally:
                # reads that have not begun are dropped; writes that have begun are finished
                self._readers.shutdown(wait=False, cancel_futures=True)
                wait(self._writes)
                for future in list(self._writes):
                    try:
                        self._written(future)
                    except (SomeFailed, OutputError) as error:
                        self._ended = self._ended or error
            if self._ended is not None:
                raise self._ended

    def _read_ahead(self, coming: Iterator[Job]) -> None:
        # at batch 1 nothing depends on how far ahead is read
        ahead = 2 * self._batch if self._batch > 1 else 1 + self._workers
        while len(self._reads) < ahead:
            if self._next is None:
                if (job := next(coming, None)) is None:
                    return
                self._next = self._measured(job)
            entry = self._next
            if self._reads and sum(other.pixels for other in self._reads) + entry.pixels > QUEUE_PIXELS:
                return
            while self._writes and self._held + entry.pixels > QUEUE_PIXELS:
                self._collect(wait_for_one=True)
            self._next = None
            self._held += entry.pixels
            self._reads.append(entry)
            if not (entry.alone or entry.picture.done()):
                entry.picture = self._readers.submit(self._read, entry.job)

    def _measured(self, job: Job) -> _Read:
        """The size of a picture by its header, before it is read. A failure waits for the picture's turn."""
        picture: Future[Taken] = Future()
        if job.film and not job.refused:
            return _Read(job, 0, (0, 0), picture, alone=True)
        try:
            if job.refused:
                raise ImageError(job.refused)
            width, height = probe(job.source)
            size = self.options.size
            scaled = (height, width) if size is None else resized(height, width, size)
        except Exception as error:
            reason = error
            if self.options.large and not job.refused and _is_large(job.source):
                try:
                    large_size(job.source)
                except ImageError as other:
                    reason = other
                else:
                    return _Read(job, 0, (0, 0), picture, alone=True)
            picture.set_exception(reason)
            return _Read(job, 0, (0, 0), picture)
        shape = self.translator.network_size(*scaled)
        return _Read(job, max(height * width, scaled[0] * scaled[1]), shape, picture)

    def _read(self, job: Job) -> Taken:
        picture = read(job.source, values=self.translator.info.input_range)
        if picture.has_more_frames and self.options.in_place:
            kept = f"without {as_typed('in_place')} the first is translated"
            raise ImageError(f"further pages or frames in it would be lost; {kept}")
        if self.options.alpha != "keep":
            picture = picture.composited_on(self.options.alpha)
        blend = blend_of(self.options, None if job.mask is None else self._mask(job.mask))
        blend.check_mask(picture.pixels.shape[:2], picture.alpha)
        return Taken(picture, blend)

    def _next_batch(self) -> list[tuple[_Read, Taken]]:
        """The first picture, and others that wait and are of its size in the network."""
        wanted = (self._reads[0].shape, False)
        alike = [entry for entry in self._reads if (entry.shape, entry.alone) == wanted][: self._batch]
        batch = []
        for entry in alike:
            self._reads.remove(entry)
            try:
                batch.append((entry, entry.picture.result()))
            except Exception as error:
                self._held -= entry.pixels
                self._fail(entry.job, failure(error))
        return batch

    def _translate(self, batch: Sequence[tuple[_Read, Taken]]) -> None:
        if not batch:
            return
        # after a part of it was too much, the rest is not tried again at the old size
        found = self._attempt([taken for _, taken in batch]) if len(batch) <= self._batch else ""
        if isinstance(found, str):
            if len(batch) == 1:
                self._held -= batch[0][0].pixels
                self._fail(batch[0][0].job, found)
                return
            # one picture of a batch must not cost the others
            for part in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
                self._translate(part)
            return
        results, how = found
        for (entry, (picture, _)), result in zip(batch, results, strict=True):
            changed = changes(picture, result, self.translator.picture_channels, entry.job.target.suffix)
            missing = unlabelled(self.translator.coding.unlabelled(picture))
            small = painted(entry.shape, result.pixels.shape[:2])
            notes = missing, clipped(picture), changed, small, masked(entry.job.mask), how
            note = "; ".join(part for part in notes if part)

            def written(job: Job, result: Picture = result, note: str = note) -> Record:
                write(job.target, result, self.options.quality, self._mode(job), self.options.replaces)
                return Record.of(job, "done", note=note)

            self._writes[self._writers.submit(self._kept, entry.job, written)] = (entry.job, entry.pixels)

    def _attempt(self, batch: list[Taken]) -> tuple[list[Picture], str] | str:
        """The results and how they came about, where that is worth a note; or why there are none.

        The error is dropped here: its traceback would hold the memory.
        """
        try:
            made = self.translator.translate_batch([picture for picture, _ in batch], self.options.size)
            return [blend.of(picture, new) for (picture, blend), new in zip(batch, made, strict=True)], ""
        except Exception as error:
            if not out_of_memory(error):
                return failure(error)
        if len(batch) == 1:
            return self._streamed(batch[0])
        self._batch = min(self._batch, len(batch) // 2)
        self.notices[:] = [text for text in self.notices if not text.startswith(_LESS)]
        self.notices.append(f"{_LESS}: went on with {as_typed('batch_size', self._batch)}")
        return failure(MemoryError())

    def _streamed(self, taken: Taken) -> tuple[list[Picture], str] | str:
        """Translate by bands of rows a picture that took too much memory as a whole."""
        picture, blend = taken
        try:
            result = blend.of(picture, self.translator.stream(picture, self.options.size))
        except Exception as error:
            return failure(error)
        if _BANDS not in self.notices:
            self.notices.append(_BANDS)
        return [result], _BY_BANDS

    def _alone(self, job: Job) -> None:
        """A film, or a picture above the limits, from its file to the other; nothing else of its size is held beside
        it."""
        ended: Future[Record | None] = Future()
        try:
            ended.set_result(self._kept(job, self._film if job.film else self._large))
        except Exception as error:
            ended.set_exception(error)
        self._writes[ended] = (job, 0)
        self._written(ended)

    def _large(self, job: Job) -> Record:
        from i2i.folders.alone import translate_large

        return Record.of(job, "done", note=translate_large(self.translator, job, self.options, self._mode(job)))

    def _film(self, job: Job) -> Record | None:
        from i2i.folders.alone import FilmWork

        def progress(done: int, total: int) -> None:
            if self.frames is not None:
                self.frames(done, total, self._stage.planned(job).source)

        still = self.translator.for_film()
        return FilmWork(still, job, self.options, self._batch, self._mode(job), progress, self.stop).run()

    def _mode(self, job: Job) -> int | None:
        # the file that replaces a private picture is as private
        return stat.S_IMODE(job.source.stat().st_mode) if self.options.in_place else None

    def _kept(self, job: Job, write: Callable[[Job], Record | None]) -> Record | None:
        """The record of a job whose result `write` has written, and that is where it belongs; None if it was stopped.

        Raises `OutputError` for a refusal of all results, `ImageError` for one of this result.
        """
        try:
            make_folders(job.target.parent)
            record = write(job)
        except OutputError as error:
            if isinstance(error, ExistsError) or refuses_all(error):
                raise
            raise ImageError(str(error)) from None
        if record is not None:
            self._stage.store(job, self.options.replaces)
        return record

    def _collect(self, wait_for_one: bool = False) -> None:
        """Record the pictures that have been written. Waits for one on request, or if the writers are behind."""
        while self._writes:
            behind = len(self._writes) > self._batch + self._stage.writers(self._workers)
            done, _ = wait(self._writes, None if behind or wait_for_one else 0, FIRST_COMPLETED)
            if not done:
                return
            wait_for_one = False
            for future in done:
                self._written(future)

    def _written(self, future: "Future[Record | None]") -> None:
        job, pixels = self._writes.pop(future)
        self._held -= pixels
        try:
            record = future.result()
        except ExistsError as error:  # a file has appeared there since the plan was made: perhaps another run's
            if self.options.skip_existing:
                self._record(job, Record.of(job, "skipped", "exists"))
            else:
                self._fail(job, str(error))
        except Exception as error:
            self._fail(job, failure(error))
        else:
            if record is not None:
                self._record(job, record)

    def _fail(self, job: Job, reason: str) -> None:
        self._record(job, Record.of(job, "failed", reason))

    def _record(self, here: Job, record: Record) -> None:
        """Tells the outcome of a job. Raises `SomeFailed` for a failure, if `strict`."""
        job = self._stage.done(here)
        record = record if job is here else record.of_same(job, here)
        self.finished(job, record)
        if record.status == "failed" and self.options.strict:
            raise SomeFailed(f"{printable(record.source)}: {record.reason}")


def _is_large(path: Path) -> bool:
    """Whether it is a picture above the limits, and not refused for another reason."""
    try:
        width, height = _size(path)
    except ImageError:
        return False
    try:
        DEFAULT_LIMITS.check_size(width, height)
        DEFAULT_LIMITS.check_bytes(path.stat().st_size)
    except ImageError:
        return True
    return False


def _size(path: Path) -> tuple[int, int]:
    try:
        return probe(path, LARGE_LIMITS)
    except Exception:
        return large_size(path)  # reads headers of formats that are read by bands alone


def failure(error: Exception) -> str:
    """Why a picture failed. Raises `error` again if the next picture would fail for the same reason."""
    if isinstance(error, ImageError | SpoolError):  # there may be room for the spools of others
        return str(error)
    if isinstance(error, I2IError):
        raise error
    if out_of_memory(error):
        return "not enough memory to translate it at this size"
    return f"unexpected error, please report it: {type(error).__name__}: {error}"


def refuses_all(error: OutputError) -> bool:
    """Whether the system refused to write one, so that it will refuse the next one too."""
    cause = error.__cause__
    of_one = isinstance(cause, OSError) and cause.errno in _OF_ONE
    return isinstance(cause, OSError | RuntimeError) and not of_one
