"""Jobs of an object store: their files lie on this machine, a part at a time, while they are translated.

Files are staged under numbers, so that no name of a store is odd on this disk. A result goes to its store once it is
whole.
"""

import itertools
import os
import re
import shutil
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from i2i.errors import ExistsError, ImageError, LockedError, OutputError, SomeFailed
from i2i.files import locked, scratch_folder
from i2i.folders import stores
from i2i.folders.jobs import Job
from i2i.folders.pipeline import Pipeline
from i2i.folders.report import Progress, Record
from i2i.images.spool import FOLDER_VARIABLE, spool_folder
from i2i.terminal import printable
from i2i.urls import StorePath

PART = 32
"""So many jobs are staged together, unless batches are larger; a film is staged alone."""
PART_BYTES = 1 << 28
"""A part with so many bytes takes no further jobs."""
_PREFIX, _LOCK = "i2i-stage-", "lock"
_NEW = 5.0
"""The age of a lock file, in seconds, from which it is locked unless its process has ended."""
_SUFFIX = re.compile(r"\.\w{1,8}", re.ASCII)


def is_staged(job: Job) -> bool:
    """Whether a file of a job is in a store."""
    return any(isinstance(place, StorePath) for place in (job.source, job.target, job.mask))


def runner_of(pipeline: Pipeline, jobs: Sequence[Job]) -> "Pipeline | Staged":
    """The pipeline, if all files of the jobs are on this machine; else one that stages them for it."""
    return Staged(pipeline) if any(map(is_staged, jobs)) else pipeline


@dataclass
class Staged:
    """Runs jobs as its pipeline does, part after part; the files of the next part are fetched meanwhile."""

    pipeline: Pipeline
    records: dict[Job, Record] = field(default_factory=dict)
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
                self._run(part, len(jobs))

    def _run(self, part: "_Part", total: int) -> None:
        whole = self.pipeline
        progress, frames = part.renamed(whole.progress, len(self.records), total), part.renamed(whole.frames)
        inner = Pipeline(whole.translator, whole.options, progress, whole.stop, frames)
        try:
            inner.run(list(part.jobs))
        except SomeFailed as error:
            raise SomeFailed(part.named(str(error))) from None
        finally:
            self.notices[:] = dict.fromkeys([*self.notices, *inner.notices])
            part.store(inner.records, self._add)
        records = [self.records[job] for job in part.jobs.values() if job in self.records]
        if whole.options.strict and (failed := next((r for r in records if r.status == "failed"), None)):
            raise SomeFailed(f"{printable(failed.source)}: {failed.reason}")

    def _add(self, job: Job, record: Record) -> None:
        self.records[job] = record
        self.pipeline.finished(job, record)


class _Part:
    """Some jobs whose files are in a folder of this machine; `jobs` has those of the plan by those of the folder."""

    def __init__(self, folder: Path, pipeline: Pipeline) -> None:
        self.jobs: dict[Job, Job] = {}
        self._folder, self._options, self._stop = folder, pipeline.options, pipeline.stop
        self._copies: dict[Path, Path] = {}
        self._missing: dict[Path, str] = {}
        batch = self._options.batch_size
        self._most = max(PART, batch) if isinstance(batch, int) else PART

    def fetch(self, waiting: deque[Job]) -> None:
        """Takes jobs from those that wait, and fetches their files. Raises `InputError` if a store refuses all."""
        self._folder.mkdir()
        while waiting and self._has_room(waiting[0]) and not self._stop():
            few, room = [waiting.popleft()], min(stores.TOGETHER, self._most - len(self.jobs))
            while waiting and len(few) < room and not (few[0].film or waiting[0].film):
                few.append(waiting.popleft())
            places = {place: None for job in few if not job.refused for place in (job.source, job.mask)}
            new = [place for place in places if isinstance(place, StorePath) and place not in self._copies]
            for place in new:
                self._copies[place] = self._folder / f"in{len(self._copies)}{_suffix(place)}"
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
            target = self._folder / f"out{number}{_suffix(target)}"
        mask = "" if job.mask is None else str(self._copies.get(job.mask, job.mask))
        return replace(job, source_text=str(source), target_text=str(target), mask_text=mask, refused=refused)

    def named(self, text: str) -> str:
        """`text` with the places in the stores in place of their files here."""
        for place, path in self._copies.items():
            text = text.replace(str(path), printable(place))
        for local, job in self.jobs.items():
            text = text.replace(str(local.target), printable(job.target))
        return text

    def renamed(self, progress: Progress | None, before: int = 0, total: int = 0) -> Progress | None:
        """`progress` for this part; if there is a `total`, of the inputs of all parts, of which some were `before`."""
        if progress is None:
            return None
        places = {local.source: job.source for local, job in self.jobs.items()}

        def show(number: int, own: int, path: Path) -> object:
            return progress(before + number, total or own, places.get(path, path))

        return show

    def store(self, found: Mapping[Job, Record], add: Callable[[Job, Record], object]) -> None:
        """Puts results into their stores, removes the files here, and calls `add` with the outcome of each job.

        Raises `OutputError` if a store refuses all; then some have no outcome.
        """
        outcomes: dict[Job, Record] = {}

        def put(local: Job, record: Record) -> None:
            job = self.jobs[local]
            record = replace(record, reason=self.named(record.reason), note=self.named(record.note))
            record = replace(record, source_text=job.source_text, target_text=job.target_text)
            if record.status == "done" and isinstance(job.target, StorePath):
                record = self._put(local.target, job.target, record)
            outcomes[job] = record

        try:
            stores.each(put, found, found.values())
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
            for job in filter(outcomes.__contains__, self.jobs.values()):
                add(job, outcomes[job])

    def _put(self, path: Path, place: StorePath, record: Record) -> Record:
        try:
            stores.put(path, place, replace=self._options.replaces)
        except ExistsError as error:
            if self._options.skip_existing:
                return replace(record, status="skipped", reason="exists", note="", film={})
            return replace(record, status="failed", reason=str(error), note="", film={})
        except ImageError as error:
            return replace(record, status="failed", reason=str(error), note="", film={})
        return record


def _suffix(place: Path) -> str:
    """The suffix of a place, unless it is odd."""
    return place.suffix if _SUFFIX.fullmatch(place.suffix) else ""


@contextmanager
def spool() -> Iterator[Path]:
    """A folder for files that are staged. It is removed at the end; those of killed processes are removed first.

    Raises `OutputError` if there can be none.
    """
    _remove_leftovers()
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(scratch_folder(_PREFIX, spool_folder()))
        except OSError as error:
            choose = f"name a folder in the environment variable {FOLDER_VARIABLE}"
            reason = f"cannot hold the files of a store: {error.strerror}; {choose}"
            raise OutputError(f"{spool_folder()}: {reason}") from None
        stack.enter_context(locked(folder / _LOCK))
        yield folder


def _remove_leftovers() -> None:
    for folder in spool_folder().glob(f"{_PREFIX}*"):
        with suppress(LockedError, OSError, OutputError):
            if _is_own(folder) and time.time() - (folder / _LOCK).stat().st_mtime >= _NEW:
                with locked(folder / _LOCK, busy="is in use") as held:
                    if held:
                        shutil.rmtree(folder, ignore_errors=True)


def _is_own(folder: Path) -> bool:
    """Whether it is a folder, and no link to one, of this user."""
    status = folder.lstat()
    return stat.S_ISDIR(status.st_mode) and (not hasattr(os, "getuid") or status.st_uid == os.getuid())
