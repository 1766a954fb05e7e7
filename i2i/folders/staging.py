"""Where the files of jobs lie while they are translated: those of an object store are copied to this machine.

Copies have numbers for names, so that no name of a store is odd on this disk. The next ones are fetched meanwhile. A
result goes to its store once it is whole.
"""

import os
import re
import time
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from i2i.errors import ImageError, OutputError
from i2i.files import remove_strays, shared_folder
from i2i.folders import stores
from i2i.folders.jobs import Job
from i2i.images.large import FOLDER_VARIABLE, spool_folder
from i2i.terminal import printable
from i2i.urls import StorePath, as_path, is_url

PICTURES, BYTES = 32, 1 << 28
"""So many pictures of a store are here at once, unless batches are larger, and none is fetched beside so many bytes. A
film is here alone."""
_NAME, _NEW = "stage", 5.0
"""The name of staging folders, and the age in seconds from which one is locked unless its process has ended."""
_SUFFIX = re.compile(r"\.\w{1,8}", re.ASCII)


class Stage:
    """Gives the files of jobs a place on this machine: relative paths begin at `start`, those of a store lie in
    `folder`, those of `most` jobs at once."""

    def __init__(self, start: str, most: int, folder: Path | None) -> None:
        self.folder, self._start, self._most = folder, start, most
        self._plans: dict[Job, Job] = {}
        self._copies: dict[str, Future[Path]] = {}
        self._users: Counter[str] = Counter()
        """How many jobs use a copy: one mask may serve for all pictures."""

    def jobs(self, jobs: Sequence[Job]) -> Generator[Job]:
        """The jobs with paths of this machine, in order. Raises `InputError`, `OutputError` if a store refuses all."""
        waiting, coming, numbers, results = deque(jobs), deque[Job](), count(), count()
        threads = ThreadPoolExecutor(stores.TOGETHER, "i2i-stage")
        try:
            while waiting or coming:
                while waiting and (not coming or self._has_room(waiting[0], coming)):
                    coming.append(waiting.popleft())
                    for text in _places(coming[-1]):
                        if not self._users[text]:
                            self._copies[text] = threads.submit(self._copied, text, f"in{next(numbers)}")
                        self._users[text] += 1
                job = coming.popleft()
                here = self._here(absolute(job, self._start), f"out{next(results)}")
                if here is not job:
                    self._plans[here] = job
                yield here
        finally:
            threads.shutdown(cancel_futures=True)

    def _has_room(self, job: Job, coming: Sequence[Job]) -> bool:
        here = (*self._plans.values(), *coming)
        is_alone = job.film or any(other.film for other in here)
        fetching = sum(not copy.done() for copy in self._copies.values())
        if self.folder is None or is_alone or len(here) >= self._most or fetching >= stores.TOGETHER:
            return False
        return sum(path.stat().st_size for path in self.folder.glob("in*")) < BYTES

    def _copied(self, place: str, name: str) -> Path:
        path, there = self._path(place, name), as_path(place)
        assert isinstance(there, StorePath)
        try:
            stores.fetch(there, path)
        except ImageError:
            path.unlink(missing_ok=True)
            raise
        return path

    def _path(self, place: str, name: str) -> Path:
        """A path here for a file of a store, with its suffix unless that is odd."""
        suffix = as_path(place).suffix
        return Path(f"{self.folder}/{name}{suffix if _SUFFIX.fullmatch(suffix) else ''}")

    def _here(self, job: Job, result: str) -> Job:
        """The job with copies in place of the files of a store, and a place for its result."""
        if self.folder is None:
            return job
        texts: dict[str, Any] = {"refused": job.refused}
        for name, what in (("source_text", ""), ("mask_text", f"its mask {printable(job.mask_text)}: ")):
            try:
                if copy := self._copies.get(getattr(job, name)):
                    texts[name] = str(copy.result())
            except ImageError as error:
                texts["refused"] = texts["refused"] or f"{what}{error}"
        if is_url(job.target_text):
            texts["target_text"] = str(self._path(job.target_text, result))
        return replace(job, **texts)

    def writers(self, workers: int) -> int:
        """How many results are written at once: a store takes its time."""
        return workers if self.folder is None else max(workers, stores.TOGETHER)

    def planned(self, here: Job) -> Job:
        """The job as it was given."""
        return self._plans.get(here, here)

    def store(self, here: Job, replaces: bool) -> None:
        """Puts a result into its store, if it belongs to one. Raises as `stores.put`."""
        target = self.planned(here).target
        if isinstance(target, StorePath):
            stores.put(here.target, target, replace=replaces)

    def done(self, here: Job) -> Job:
        """The job as it was given, once all is done with its files here; copies are removed."""
        job = self._plans.pop(here, here)
        for text in _places(job):
            self._users[text] -= 1
            if not self._users[text]:
                del self._users[text]
                if not (copy := self._copies.pop(text)).exception():
                    copy.result().unlink(missing_ok=True)
        if is_url(job.target_text):
            here.target.unlink(missing_ok=True)
        return job


def _places(job: Job) -> list[str]:
    """The files that are to be fetched from a store."""
    return [text for text in (job.source_text, job.mask_text) if is_url(text) and not job.refused]


def absolute(job: Job, start: str) -> Job:
    """The job with paths that are true in every folder, if `start` says where relative ones begin."""
    if not start:
        return job
    texts = (job.source_text, job.target_text, job.mask_text)
    source, target, mask = (text and (text if is_url(text) else os.path.join(start, text)) for text in texts)  # noqa: PTH118
    return replace(job, source_text=source, target_text=target, mask_text=mask)


@contextmanager
def stage(jobs: Sequence[Job], start: str, batch: int) -> Iterator[Stage]:
    """A `Stage` for these jobs, translated in batches of that size. At the end nothing of it is left."""
    texts = (text for job in jobs for text in (job.source_text, job.target_text, job.mask_text))
    with ExitStack() as stack:
        folder = stack.enter_context(spool()) if any(map(is_url, texts)) else None
        yield Stage(start, max(PICTURES, 4 * batch), folder)


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
