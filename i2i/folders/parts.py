"""A folder's translation on any `concurrent.futures.Executor`: jobs → parts → futures → records.

Workers see the same files as this process, the driver. A part is so small that a lost worker costs little, and done
again it goes on where it was lost (`worker.py`).
"""

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from itertools import count
from queue import Empty, SimpleQueue

from i2i.errors import I2IError, ResourceError, SomeFailed, UsageError
from i2i.files import shared_folder
from i2i.folders.jobs import Job
from i2i.folders.pipeline import BATCH_ON_GPU, Finished, Stop
from i2i.folders.report import Record
from i2i.folders.worker import STOP, Journal, Outcome, Part, Resolved, Work, check_worker, forget, stamp, translate_part
from i2i.inference.translator import Translator
from i2i.terminal import printable
from i2i.urls import StorePath, is_url

_JOBS = 8
_BYTES = 16 << 20
"""A part has no more files than that together, but for a single one: large pictures are alone."""
_SECONDS = 0.2
"""How often it is asked whether to stop."""
_MAIN = 'Does the script that starts them call translate_folder below `if __name__ == "__main__":`?'


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
    if _forks(executor) and "openvino" in sys.modules:
        raise UsageError(
            "processes that are forked from this one would wait for ever, for OpenVINO has run here; give "
            'ProcessPoolExecutor(2, multiprocessing.get_context("spawn"))'
        )
    try:
        resolved = _checked(executor, work)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"a worker cannot run i2i {work.version}: {error}; install the same version there") from error
    return work.with_resolved(resolved), resolved


def _forks(executor: Executor) -> bool:
    """Whether it will fork this process, and has not yet."""
    context = getattr(executor, "_mp_context", None)
    return context is not None and context.get_start_method() == "fork" and not getattr(executor, "_processes", None)


def _checked(executor: Executor, work: Work) -> Resolved:
    """How one worker runs the model. Raises as `check_worker`, and `ResourceError` if none answers."""
    name = type(executor).__name__
    try:
        answer = executor.submit(check_worker, work)
    except RuntimeError as error:  # broken, or shut down
        raise ResourceError(f"{name} takes no work: {error}; give a new one") from error
    try:
        return answer.result()
    except (BrokenExecutor, CancelledError) as error:
        raise ResourceError(f"the workers of {name} cannot be started: {error} {_MAIN}") from error


@dataclass
class Parts:
    """Runs jobs on an executor, part by part. `finished`, `stop` and `notices` as those of a `Pipeline`."""

    executor: Executor
    work: Work
    finished: Finished
    stop: Stop = lambda: False
    notices: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._running: dict[Future[Outcome], Part] = {}
        self._ended: SimpleQueue[Future[Outcome]] = SimpleQueue()
        self._again: deque[Part] = deque()
        self._numbers = count(1)
        self._given_up = 0
        self._ending = False
        self._error: BaseException | None = None

    @contextmanager
    def ready(self, jobs: Sequence[Job]) -> Iterator[None]:
        """Inside, the workers are checked, and share a hidden folder with this process. Raises as `check_worker`."""
        out = jobs[0].target.parent.absolute() if jobs else None
        here = out is not None and not isinstance(out, StorePath)
        try:
            with shared_folder("parts", out) if here and out else nullcontext(out) as folder:
                witness = next((job.source.absolute() for job in jobs if _is_there(job)), None)
                self.work = replace(self.work, folder=folder, witness=witness)
                if everywhere := getattr(self.executor, "run_everywhere", None):
                    everywhere(check_worker, self.work)
                else:  # the others are checked when they begin
                    _checked(self.executor, self.work)
                yield
        finally:
            forget()  # threads have loaded the model in this process

    def run(self, jobs: Sequence[Job]) -> None:
        """Raises `SomeFailed` at the first failure if `strict`, `OutputError` if the system refuses to write,
        `ResourceError` if the executor has lost its workers for good."""
        parts = self._parts(jobs)
        try:
            while self._fill(parts):
                with suppress(Empty):
                    self._collect(self._ended.get(timeout=_SECONDS))
                if self.stop():
                    self._end()
        finally:
            self._end()
            while self._running:
                self._collect(self._ended.get())
            if self._given_up:
                self.notices.append(f"parts that were lost with their workers, and tried again: {self._given_up}")
            self.notices.extend(getattr(self.executor, "notices", ()))
        if self._error is not None:
            raise self._error

    def _places(self) -> int:
        """How many parts are done at once."""
        return int(getattr(self.executor, "places", 0) or getattr(self.executor, "_max_workers", 0) or 16)

    def _parts(self, jobs: Sequence[Job]) -> Iterator[Part]:
        """Neighbours together: as many batches as keep a device busy, but several parts for each place."""
        batch, resolved = self.work.options.batch_size, self.work.resolved
        on_cpu = resolved is None or resolved.device == "cpu"
        most = max(_JOBS, 4 * (batch if isinstance(batch, int) else 1 if on_cpu else BATCH_ON_GPU))
        most = max(1, min(most, len(jobs) // (4 * self._places())))
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

    def _part(self, jobs: Sequence[Job]) -> Part:
        return Part(next(self._numbers), tuple(jobs), tuple(stamp(job, self.work.start) for job in jobs))

    def _fill(self, parts: Iterator[Part]) -> bool:
        """Submit parts, so that no place is without work. Returns whether any is under way."""
        while not self._ending and len(self._running) < 2 * self._places():
            part = self._again.popleft() if self._again else next(parts, None)
            if part is None:
                break
            try:
                future = self.executor.submit(translate_part, self.work, part)
            except RuntimeError as error:  # broken, or shut down
                self._break(error)
                break
            self._running[future] = part
            future.add_done_callback(self._ended.put)  # `futures.wait` overlooks what is cancelled before its turn
        return bool(self._running)

    def _end(self, error: BaseException | None = None) -> None:
        """No further picture: workers that are at one finish it. The first error is the one to raise."""
        if self._ending:
            return
        self._ending, self._error = True, error
        if self.work.folder is not None and self._running:
            with suppress(OSError):
                (self.work.folder / STOP).touch()
        for future in list(self._running):
            future.cancel()

    def _break(self, error: BaseException) -> None:
        """The executor is gone."""
        if not self._ending:
            name, text = type(self.executor).__name__, str(error) or type(error).__name__
            gone = ResourceError(
                f"{name} has lost its workers: {text} Finished results stay; go on with a new executor "
                "and skip_existing"
            )
            gone.__cause__ = error
            self._end(gone)
        self.executor.shutdown(wait=True)  # its workers must not write any more

    def _collect(self, future: "Future[Outcome]") -> None:
        part = self._running.pop(future)
        error = CancelledError("its calls were cancelled.") if future.cancelled() else future.exception()
        if error is None:
            made = future.result()
            self.notices.extend(notice for notice in made.notices if notice not in self.notices)
            for job, record in zip(part.jobs, made.records, strict=True):
                if record is not None:
                    self._record(job, record)
            if made.error is not None:
                self._end(made.error)
        elif not isinstance(error, CancelledError):
            self._failed(part, error)
        elif not self._ending:  # somebody else cancelled it
            self._break(error)

    def _failed(self, part: Part, error: BaseException) -> None:
        """The part has no outcome. If its worker was lost, what that finished is kept; the rest is done once more, each
        job alone."""
        if isinstance(error, KeyboardInterrupt) or (
            isinstance(error, I2IError) and not isinstance(error, ResourceError)
        ):
            self._end(error)
            return
        if isinstance(error, BrokenExecutor):
            self._break(error)
        found = Journal(self.work, part).found()
        again = not (self._ending or part.again)
        self._given_up += again
        for job, before in zip(part.jobs, part.before, strict=True):
            if found and job in found:
                self._record(job, found[job])
            elif again:
                self._again.append(Part(next(self._numbers), (job,), (before,), again=True))
            elif found is not None or not self._ending:
                reason = f"its worker ended before it was done: {type(error).__name__}: {error}"
                self._record(job, Record.of(job, "failed", reason))

    def _record(self, job: Job, record: Record) -> None:
        self.finished(job, record)
        if record.status == "failed" and self.work.options.strict:
            self._end(SomeFailed(f"{printable(record.source)}: {record.reason}"))


def _size(job: Job) -> int:
    if job.film:
        return _BYTES
    if is_url(job.source_text):
        return 0
    try:
        return job.source.stat().st_size
    except OSError:
        return 0  # its error is reported when its turn comes


def _is_there(job: Job) -> bool:
    return not job.refused and (is_url(job.source_text) or job.source.is_file())
