"""A folder's translation on any `concurrent.futures.Executor`: jobs → parts → futures → records.

Workers see the same files as this process, the driver. A part is so small that a lost worker costs little, and done
again it goes on where it was lost (`worker.py`).
"""

import secrets
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NamedTuple, TypeVar

from i2i.errors import I2IError, LockedError, OutputError, ResourceError, SomeFailed, UsageError
from i2i.files import locked
from i2i.folders.pipeline import BATCH_ON_GPU, Stop
from i2i.folders.plan import Job
from i2i.folders.report import Progress, Record
from i2i.folders.worker import (
    Journal,
    Made,
    Part,
    Resolved,
    Work,
    check_worker,
    describe,
    forget,
    stamp,
    translate_part,
)
from i2i.inference.options import FolderOptions
from i2i.inference.translator import Translator
from i2i.terminal import printable
from i2i.urls import StorePath

T = TypeVar("T")
_JOBS = 8
_BYTES = 16 << 20
"""A part has no more files than that together, but for a single one: large pictures are alone."""
_TRIES = 3
"""A job whose worker is lost so often has failed: it may be what ends them."""
_SECONDS = 0.2
"""How often it is asked whether to stop."""
_PREFIX = ".i2i-parts-"
_LOCK = "lock"


def resolve(executor: Executor, work: Work) -> tuple[Work, Resolved]:
    """The work as all workers must do it, and how that is: as the first one that answers does it.

    Raises `UsageError` for what cannot go to a worker; else as `worker.check_worker`.
    """
    if not hasattr(executor, "submit"):
        raise UsageError(f"executor = {executor!r}: expected a concurrent.futures.Executor")
    if isinstance(work.style, Translator) and not isinstance(executor, ThreadPoolExecutor):
        raise UsageError(
            f"a Translator stays in its process, and {type(executor).__name__} has others; give the name or the path "
            "of its style"
        )
    try:
        resolved = _asked(executor, describe, work)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"a worker cannot run i2i {work.version}: {error}; install the same version there") from error
    return work.with_resolved(resolved), resolved


def _asked(executor: Executor, question: Callable[[Work], T], work: Work) -> T:
    """The answer of one worker. Raises `ResourceError` if the executor has none."""
    try:
        return executor.submit(question, work).result()
    except BrokenExecutor as error:
        raise ResourceError(
            f"the workers of {type(executor).__name__} cannot be started: {error} Does the script that starts them "
            'call translate_folder below `if __name__ == "__main__":`?'
        ) from error


class _Sent(NamedTuple):
    """A part, and its jobs as they are in the plan, where paths may be relative."""

    part: Part
    jobs: tuple[Job, ...]
    lost: int = 0
    """How often its jobs were lost with their worker."""


@dataclass
class Parts:
    """Runs jobs on an executor, part by part. `records` and `notices` as those of a `Pipeline`.

    `task` does one part on a worker.
    """

    executor: Executor
    work: Work
    progress: Progress | None = None
    stop: Stop = lambda: False
    task: Callable[[Work, Part], Made] = translate_part
    records: dict[Job, Record] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    finished: Callable[[Job, Record], object] = lambda job, record: None

    def __post_init__(self) -> None:
        self._running: dict[Future[Made], _Sent] = {}
        self._ended: SimpleQueue[Future[Made]] = SimpleQueue()
        self._again: deque[_Sent] = deque()
        self._number = self._total = self._lost_parts = 0
        self._stopping = self._asked_to_stop = False
        self._error: BaseException | None = None
        self._broken: BaseException | None = None

    @contextmanager
    def ready(self, jobs: Sequence[Job]) -> Iterator[None]:
        """Inside, the workers are checked, and share a hidden folder with this process. Raises as `check_worker`."""
        if not jobs:
            yield
            return
        folder = jobs[0].target.parent.absolute()
        stored = isinstance(folder, StorePath)
        folder = folder if stored else folder / f"{_PREFIX}{secrets.token_hex(8)}"
        witness = next((job.source.absolute() for job in jobs if not job.refused and _is_there(job.source)), None)
        self.work = replace(self.work, folder=folder, witness=witness)
        try:
            with nullcontext() if stored else locked(folder / _LOCK):
                self._check_workers()
                yield
        finally:
            if not stored:
                shutil.rmtree(folder, ignore_errors=True)
            forget()  # threads have loaded the model in this process

    def _check_workers(self) -> None:
        if everywhere := getattr(self.executor, "run_everywhere", None):
            everywhere(check_worker, self.work)
        else:  # the others are checked when they begin
            _asked(self.executor, check_worker, self.work)

    def run(self, jobs: Sequence[Job]) -> None:
        """Raises `SomeFailed` at the first failure if `strict`, `OutputError` if the system refuses to write,
        `ResourceError` if the executor has lost its workers for good."""
        self._total = len(jobs)
        parts = self._parts(jobs)
        try:
            while self._fill(parts):
                with suppress(Empty):
                    self._collect(self._ended.get(timeout=_SECONDS))
                if self.stop():
                    self._asked_to_stop = True
                    self._end()
        finally:
            self._end()
            while self._running:
                self._collect(self._ended.get())
            self._add_notices()
        if self._error is not None:
            raise self._error
        if self._broken is not None and not self._asked_to_stop:
            raise ResourceError(
                f"{type(self.executor).__name__} has lost its workers: {self._broken} What is done is done; go on with "
                "a new executor and skip_existing"
            ) from self._broken

    def _places(self) -> int:
        """How many parts are done at once."""
        return int(getattr(self.executor, "places", 0) or getattr(self.executor, "_max_workers", 0) or 16)

    def _parts(self, jobs: Sequence[Job]) -> Iterator[_Sent]:
        """Neighbours together, so many that each place has several parts."""
        most = max(1, min(_most(self.work), len(jobs) // (4 * self._places())))
        together: list[Job] = []
        size = 0
        for job in jobs:
            own = _size(job)
            if together and (len(together) == most or size + own > _BYTES):
                yield self._part(together)
                together, size = [], 0
            together.append(job)
            size += own
        if together:
            yield self._part(together)

    def _part(self, jobs: Sequence[Job]) -> _Sent:
        sent = tuple(_everywhere(job) for job in jobs)
        return _Sent(Part(self._next(), sent, tuple(stamp(job.target) for job in sent)), tuple(jobs))

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _fill(self, parts: Iterator[_Sent]) -> bool:
        """Submit parts, so that no place is without work. Returns whether any is under way."""
        places = self._places()
        while not self._stopping and len(self._running) < 2 * places:
            sent = self._again.popleft() if self._again else next(parts, None)
            if sent is None:
                break
            try:
                future = self.executor.submit(self.task, self.work, sent.part)
            except (BrokenExecutor, RuntimeError) as error:
                self._break(error)
                break
            self._running[future] = sent
            future.add_done_callback(self._ended.put)
        return bool(self._running)

    def _end(self) -> None:
        """No further picture: workers that are at one finish it."""
        if self._stopping:
            return
        self._stopping = True
        if self.work.folder is not None and not isinstance(self.work.folder, StorePath) and self._running:
            with suppress(OSError):
                (self.work.folder / Journal.STOP).touch()
        for future in list(self._running):
            future.cancel()

    def _break(self, error: BaseException) -> None:
        if self._broken is None:
            self._broken = error
            self._end()
            self.executor.shutdown(wait=True)  # what is left of it must not write any more

    def _collect(self, future: "Future[Made]") -> None:
        sent = self._running.pop(future)
        if future.cancelled():
            if not self._stopping:  # by the executor: that of a client of Dask does so when its scheduler goes
                self._break(BrokenExecutor("its calls were cancelled."))
            return
        error = future.exception()
        if error is None:
            self._take(sent, future.result())
        elif isinstance(error, ResourceError) or not isinstance(error, I2IError | KeyboardInterrupt):
            self._lost(sent, error)
        else:
            self._stop_with(error)

    def _take(self, sent: _Sent, made: Made) -> None:
        self.notices.extend(notice for notice in made.notices if notice not in self.notices)
        for job, there, record in zip(sent.jobs, sent.part.jobs, made.records, strict=True):
            if record is not None:
                self._record(job, _as_planned(record, job, there))
        if made.error is not None:
            text = str(made.error)
            for job, there in zip(sent.jobs, sent.part.jobs, strict=True):
                text = _as_given(text, job, there)
            self._stop_with(type(made.error)(text))

    def _stop_with(self, error: BaseException) -> None:
        self._error = self._error or error
        self._end()

    def _lost(self, sent: _Sent, error: BaseException) -> None:
        """The part has no outcome. What it finished is kept; the rest is done again, each job alone."""
        if isinstance(error, BrokenExecutor):
            self._break(error)
        self._lost_parts += 1
        journal = Journal(self.work, sent.part)
        found = journal.found()
        for number, (job, there) in enumerate(zip(sent.jobs, sent.part.jobs, strict=True)):
            if number in found:
                self._record(job, _as_planned(found[number], job, there))
            elif not self._stopping and sent.lost + 1 < _TRIES:
                alone = Part(self._next(), (there,), (sent.part.before[number],))
                self._again.append(_Sent(alone, (job,), sent.lost + 1))
            elif journal.begun or not self._stopping:
                reason = f"its worker ended before it was done: {type(error).__name__}: {error}"
                self._record(job, Record.of(job, "failed", reason))

    def _record(self, job: Job, record: Record) -> None:
        self.records[job] = record
        self.finished(job, record)
        if self.progress is not None:
            self.progress(len(self.records), self._total, record.source)
        if record.status == "failed" and self.work.options.strict:
            self._stop_with(SomeFailed(f"{printable(record.source)}: {record.reason}"))

    def _add_notices(self) -> None:
        if self._lost_parts and self._broken is None:
            parts = "1 part of the work was" if self._lost_parts == 1 else f"{self._lost_parts} parts of the work were"
            self.notices.append(f"{parts} lost with their workers, and tried again")
        self.notices.extend(getattr(self.executor, "notices", ()))


def _most(work: Work) -> int:
    """Jobs of a part: as many batches as keep a device busy."""
    options: FolderOptions = work.options
    on_cpu = work.resolved is None or work.resolved.device == "cpu"
    batch = options.batch_size if isinstance(options.batch_size, int) else 1 if on_cpu else BATCH_ON_GPU
    return max(_JOBS, 4 * batch)


def _size(job: Job) -> int:
    if job.film:
        return _BYTES
    if isinstance(job.source, StorePath):
        return 0
    try:
        return job.source.stat().st_size
    except OSError:
        return 0  # its error is reported when its turn comes


def _is_there(source: Path) -> bool:
    return isinstance(source, StorePath) or source.is_file()


def _everywhere(job: Job) -> Job:
    """The job with paths that are true in every folder."""
    source, target = str(job.source.absolute()), str(job.target.absolute())
    mask = "" if job.mask is None else str(job.mask.absolute())
    return replace(job, source_text=source, target_text=target, mask_text=mask)


def _as_planned(record: Record, job: Job, there: Job) -> Record:
    """The record of a job `there` as one of `job`."""
    reason, note = (_as_given(text, job, there) for text in (record.reason, record.note))
    return replace(Record.of(job, record.status, reason, note), film=record.film)


def _as_given(text: str, job: Job, there: Job) -> str:
    """A text about a job `there` with the paths of `job`, which are as the user gave them."""
    for name in ("target_text", "source_text", "mask_text"):
        own, absolute = getattr(job, name), getattr(there, name)
        text = text.replace(absolute, own) if text and absolute != own else text
    return text


def remove_ended(folder: Path, before: float) -> None:
    """Remove what drivers that were killed before that time left in `folder`, where results go."""
    for shared in folder.glob(f"{_PREFIX}*"):
        with suppress(OSError, LockedError, OutputError):
            if shared.stat().st_mtime < before:
                with locked(shared / _LOCK, "in use") as alone:
                    if alone:
                        shutil.rmtree(shared, ignore_errors=True)
