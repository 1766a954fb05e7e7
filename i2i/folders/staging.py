"""Jobs of an object store: their files lie on this machine, a part at a time, while they are translated.

Files are staged under numbers, so that no name of a store is odd on this disk. A result goes to its store once it is
whole.
"""

import itertools
import re
import shutil
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from i2i.errors import ExistsError, ImageError, OutputError
from i2i.files import remove_strays, shared_folder
from i2i.folders import stores
from i2i.folders.jobs import Job
from i2i.folders.pipeline import Pipeline
from i2i.folders.report import Record
from i2i.images.spool import FOLDER_VARIABLE, spool_folder
from i2i.terminal import printable
from i2i.urls import StorePath, is_url

PART = 32
"""So many jobs are staged together, unless batches are larger; a film is staged alone."""
PART_BYTES = 1 << 28
"""A part with so many bytes takes no further jobs."""
_NAME, _NEW = "stage", 5.0
"""The name of staging folders, and the age in seconds from which one is locked unless its process has ended."""
_Call = tuple[Job, Future[Record]]
_SUFFIX = re.compile(r"\.\w{1,8}", re.ASCII)


def runner_of(pipeline: Pipeline, jobs: Sequence[Job]) -> "Pipeline | Staged":
    """The pipeline, if all files of the jobs are on this machine; else one that stages them for it."""
    texts = (text for job in jobs for text in (job.source_text, job.target_text, job.mask_text))
    return Staged(pipeline) if any(map(is_url, texts)) else pipeline


@dataclass
class Staged:
    """Runs jobs as its pipeline does, part after part; the files of the next part are fetched meanwhile."""

    pipeline: Pipeline
    notices: list[str] = field(default_factory=list)

    def run(self, jobs: Sequence[Job]) -> None:
        """Raises what `Pipeline.run` does, and `InputError` or `OutputError` if a store refuses all."""
        waiting, numbers = deque(jobs), itertools.count()
        with spool() as folder, ThreadPoolExecutor(1, "i2i-stage") as ahead:

            def fetch() -> _Part:
                part = _Part(folder / str(next(numbers)), self.pipeline)
                part.fetch(waiting)
                return part

            coming = ahead.submit(fetch)
            while (part := coming.result()).jobs:
                coming = ahead.submit(fetch)
                self._run(part)

    def _run(self, part: "_Part") -> None:
        """Translates a part, while its results go to their stores. Then removes its files here."""
        whole, calls, threads = self.pipeline, deque[_Call](), ThreadPoolExecutor(stores.TOGETHER, "i2i-store")
        is_refused = False

        def record_ended(wait: bool) -> None:
            nonlocal is_refused
            while calls and (wait or calls[0][1].done()):
                job, call = calls.popleft()
                is_refused = is_refused or call.exception() is not None
                whole.record(job, call.result())

        def finished(here: Job, record: Record) -> None:
            job = part.jobs[here]
            calls.append((job, threads.submit(self._put, here.target, job, record.of_same(job, here))))
            record_ended(wait=record.status == "failed")

        def frames(done: int, total: int, film: Path) -> None:
            if whole.frames is not None:
                whole.frames(done, total, next(job.source for here, job in part.jobs.items() if here.source == film))

        inner = Pipeline(whole.translator, replace(whole.options, strict=False), finished, whole.stop, frames)
        try:
            inner.run(list(part.jobs))
            record_ended(wait=True)
        finally:
            threads.shutdown(cancel_futures=is_refused)  # a store that refuses one refuses the others too
            for job, call in calls:  # after an error
                if not call.cancelled() and call.exception() is None:
                    whole.finished(job, call.result())
            self.notices[:] = dict.fromkeys([*self.notices, *inner.notices])
            shutil.rmtree(part.folder, ignore_errors=True)

    def _put(self, path: Path, job: Job, record: Record) -> Record:
        """Puts a result into its store. Raises `OutputError` if that refuses all."""
        if record.status != "done" or not isinstance(job.target, StorePath):
            return record
        try:
            stores.put(path, job.target, replace=self.pipeline.options.replaces)
        except (ExistsError, ImageError) as error:
            if isinstance(error, ExistsError) and self.pipeline.options.skip_existing:
                return Record.of(job, "skipped", "exists")
            return Record.of(job, "failed", str(error))
        return record


class _Part:
    """Some jobs whose files are in a folder of this machine; `jobs` has those of the plan by those of the folder."""

    def __init__(self, folder: Path, pipeline: Pipeline) -> None:
        self.jobs: dict[Job, Job] = {}
        self.folder, self._stop = folder, pipeline.stop
        self._copies: dict[Path, Path] = {}
        self._missing: dict[Path, str] = {}
        batch = pipeline.options.batch_size
        self._most = max(PART, batch) if isinstance(batch, int) else PART

    def fetch(self, waiting: deque[Job]) -> None:
        """Takes jobs from those that wait, and fetches their files. Raises `InputError` if a store refuses all."""
        self.folder.mkdir()
        while waiting and self._has_room(waiting[0]) and not self._stop():
            few, room = [waiting.popleft()], min(stores.TOGETHER, self._most - len(self.jobs))
            while waiting and len(few) < room and not (few[0].film or waiting[0].film):
                few.append(waiting.popleft())
            places = {place: None for job in few if not job.refused for place in (job.source, job.mask)}
            new = [place for place in places if isinstance(place, StorePath) and place not in self._copies]
            for place in new:
                self._copies[place] = self.folder / f"in{len(self._copies)}{_suffix(place)}"
            stores.each(self._copy, new)
            self.jobs |= {self._local(job, len(self.jobs) + number): job for number, job in enumerate(few)}

    def _has_room(self, job: Job) -> bool:
        """Whether a further job is to be staged with these: a film never is."""
        alone = job.film or any(other.film for other in self.jobs)
        size = sum(copy.stat().st_size for copy in self._copies.values() if copy.exists())
        return not self.jobs or not (alone or len(self.jobs) >= self._most or size >= PART_BYTES)

    def _copy(self, place: StorePath) -> None:
        try:
            stores.fetch(place, self._copies[place])
        except ImageError as error:
            self._missing[place] = str(error)

    def _local(self, job: Job, number: int) -> Job:
        """The job with paths in place of those of a store."""
        refused = job.refused or self._missing.get(job.source, "")
        if job.mask in self._missing:
            refused = refused or f"its mask {printable(job.mask)}: {self._missing[job.mask]}"
        source, target = self._copies.get(job.source, job.source), job.target
        if isinstance(target, StorePath):
            target = self.folder / f"out{number}{_suffix(target)}"
        mask = "" if job.mask is None else str(self._copies.get(job.mask, job.mask))
        return replace(job, source_text=str(source), target_text=str(target), mask_text=mask, refused=refused)


def _suffix(place: Path) -> str:
    """The suffix of a place, unless it is odd."""
    return place.suffix if _SUFFIX.fullmatch(place.suffix) else ""


@contextmanager
def spool() -> Iterator[Path]:
    """A folder for files that are staged. It is removed at the end; those of killed processes are removed first.

    Raises `OutputError` if there can be none.
    """
    remove_strays(spool_folder(), time.time() - _NEW, _NAME)
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(shared_folder(_NAME, spool_folder(), 0o700))
        except OutputError as error:
            raise OutputError(f"{error}; name a folder in the environment variable {FOLDER_VARIABLE}") from None
        yield folder
