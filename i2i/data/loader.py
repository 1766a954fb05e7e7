"""Batches from any sample on, prepared by worker processes.

Batch k of W processes with B samples each takes the samples from start + k W B on, rank r the r-th B of them,
so that W processes together see what one process with W B sees.
"""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from i2i import signals
from i2i.data.pair import ImagePair, RawPair
from i2i.errors import I2IError, ResourceError, UsageError
from i2i.machine import cores, give_freed_memory_back, place

MAX_RESTARTS = 3
_GRACE_SECONDS = 10
_MEASURE_SECONDS, _MEASURE_BATCHES = 0.3, 10
_LITTLE = 0.05
_AHEAD = 2  # batches that each worker prepares in advance
_KILLED, _RAISED = "DataLoader worker (pid", "Caught "
"""How torch begins its messages about a worker that was killed, and of an exception that a worker raised."""


def batches(
    dataset: Dataset[ImagePair],
    start: int,
    stop: int,
    batch_size: int,
    workers: int | Literal["auto"],
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> Generator[ImagePair]:
    """The batches of one process for the samples from `start` up to `stop` of all processes.

    `dataset[t]` is a sample for every t >= 0. Each batch is an `ImagePair` of (batch_size, C, H, W); a last
    one that would be short is completed with the samples that follow. The global random state is not touched.
    With `auto` the number of workers is that of `measured_workers`; it changes no batch.
    A worker that is killed is replaced and its batches prepared again; after three times at one batch
    `ResourceError` is raised. An `I2IError` of the data set, such as `InputError` for a damaged picture, arrives as
    it was raised; `UsageError` says that the pictures of a batch differ in size.
    """
    stride = batch_size * world_size
    if workers == "auto":
        workers = measured_workers(dataset, start, stop, batch_size, accelerator=pin_memory)
    next_batch = start + rank * batch_size
    end = next_batch + max(0, stop - start)
    deaths = 0
    while next_batch < end:
        try:
            for batch in _prepare(dataset, range(next_batch, end, stride), batch_size, workers, pin_memory):
                if isinstance(batch, I2IError):
                    raise batch
                next_batch += stride
                deaths = 0
                yield batch
        except _WorkerKilled as error:
            deaths += 1
            if deaths > MAX_RESTARTS:
                names = getattr(dataset, "names", str)
                near = "; ".join(str(names(t)) for t in error.samples)
                raise ResourceError(f"a data worker was killed {deaths} times at the samples {near}: {error}") from None


def measured_workers(dataset: Dataset[ImagePair], start: int, stop: int, batch_size: int, accelerator: bool) -> int:
    """How many workers keep up with a training, from the time that batches take here and now.

    0 if that is below a twentieth of the shortest step to be expected, which is a fiftieth of a second before an
    accelerator and a quarter before a CPU; else enough for two batches in such a step, as far as there are cores.
    """
    step = 0.02 if accelerator else 0.25
    first, *others = _timed(dataset, range(start, stop, batch_size), batch_size)
    seconds = min(others, default=first)  # the first one also imports and warms up
    here = max(1, cores() // place().local_world_size)
    return 0 if seconds < _LITTLE * step else min(here, math.ceil(2 * seconds / step))


def _timed(dataset: Dataset[ImagePair], firsts: range, batch_size: int) -> list[float]:
    """Seconds of a few batches, up to `_MEASURE_SECONDS` together."""
    seconds: list[float] = []
    for first in firsts[:_MEASURE_BATCHES]:
        began = time.perf_counter()
        with contextlib.suppress(I2IError):  # it comes again when it is due
            for t in range(first, first + batch_size):
                dataset[t]
        seconds.append(time.perf_counter() - began)
        if sum(seconds) > _MEASURE_SECONDS:
            break
    return seconds or [0.0]


class _WorkerKilled(Exception):
    """A worker ended without an exception; `samples` are those that the workers were at."""

    def __init__(self, reason: str, samples: list[int]) -> None:
        super().__init__(reason)
        self.samples = samples


def _prepare(
    dataset: Dataset[ImagePair], firsts: range, batch_size: int, workers: int, pin_memory: bool
) -> Iterator[ImagePair | I2IError]:
    # an own generator: the DataLoader would draw its base seed from the global one
    generator = torch.Generator().manual_seed(0)
    with _sigchld_restored(), _room_for_workers(workers):
        samples = _Batches(dataset, workers)
        iterator = iter(
            DataLoader(
                samples,
                batch_sampler=(list(range(first, first + batch_size)) for first in firsts),
                collate_fn=_as_it_is,
                num_workers=workers,
                prefetch_factor=_AHEAD if workers else None,
                worker_init_fn=_start_worker,
                generator=generator,
            )
        )
    while True:
        try:
            batch = next(iterator)
        except StopIteration:
            return
        except (RuntimeError, ConnectionError, EOFError, FileNotFoundError) as error:
            if workers and _says_killed(error):
                raise _WorkerKilled(str(error), samples.current()) from None
            raise
        if isinstance(batch, RawPair):
            batch = batch.tensors()
        yield batch.pin_memory() if pin_memory and isinstance(batch, ImagePair) else batch


def _says_killed(error: Exception) -> bool:
    """Whether the error means that a worker is gone, not that one raised an exception.

    A finished batch that waits in the queue lies in memory which its worker hands over when the batch is
    fetched: with the worker gone, fetching it fails like a connection.
    """
    text = str(error)
    return text.startswith(_KILLED) if isinstance(error, RuntimeError) else not text.startswith(_RAISED)


@contextlib.contextmanager
def _sigchld_restored() -> Iterator[None]:
    """Keep torch from raising a worker's death wherever the main thread is, say in a training step.

    Its DataLoader installs a handler of SIGCHLD for that. Without it the death is noticed, within five
    seconds, where the next batch is waited for.
    """
    number = getattr(signal, "SIGCHLD", None)  # none on Windows, where torch looks at times
    if number is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.getsignal(number)
    yield
    signal.signal(number, previous if previous is not None else signal.SIG_DFL)


@contextlib.contextmanager
def _room_for_workers(workers: int) -> Iterator[None]:
    """Turns a refusal of the system to start workers (semaphores, memory, processes) into a `ResourceError`."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if not workers or not (isinstance(error, OSError) or "shared memory" in str(error)):
            raise
        first = str(error).partition("\n")[0]
        raise ResourceError(
            f"data workers cannot be started: {first}. Give fewer --workers, or --workers 0 (in Docker: --shm-size)"
        ) from None


class _Batches(Dataset[ImagePair | RawPair | I2IError]):
    """Whole batches of a data set. Workers send them as pixels, where it has pixels (`raw`).

    A worker's exceptions reach the parent rewritten as tracebacks; its values arrive as they are.
    """

    def __init__(self, dataset: Dataset[ImagePair], workers: int) -> None:
        self.dataset = dataset
        self._raw: Callable[[int], RawPair] | None = getattr(dataset, "raw", None)
        # in shared memory, so that the parent sees what a killed worker was at
        self._at = torch.full((max(1, workers),), -1, dtype=torch.int64).share_memory_()

    def current(self) -> list[int]:
        """The sample that each worker was at last."""
        return sorted(int(t) for t in self._at if t >= 0)

    def __getitems__(self, batch: Sequence[int]) -> ImagePair | RawPair | I2IError:
        """The DataLoader asks for the samples of a batch at once."""
        worker = get_worker_info()
        try:
            if worker is None:
                return _collate([self.dataset[t] for t in batch])
            return self._to_send(batch, worker.id).shared()
        except I2IError as error:
            return error.with_traceback(None)

    def _to_send(self, batch: Sequence[int], worker: int) -> RawPair:
        if self._raw is None:
            return RawPair.of(_collate([self.dataset[t] for t in self._noted(batch, worker)]))
        pairs = [self._raw(t) for t in self._noted(batch, worker)]
        return RawPair.stack(pairs) or RawPair.of(_collate([pair.tensors() for pair in pairs]))

    def _noted(self, batch: Sequence[int], worker: int) -> Iterator[int]:
        """The samples one by one, each noted as the one that the worker is at."""
        for t in batch:
            self._at[worker] = t
            yield t


def _as_it_is(batch: object) -> Any:
    return batch


def _collate(samples: Sequence[ImagePair]) -> ImagePair:
    def stacked(tensors: list[Tensor]) -> Tensor:
        if len(shapes := {tuple(tensor.shape) for tensor in tensors}) > 1:
            raise UsageError(
                f"pictures of different sizes in one batch: {sorted(shapes)}; "
                "use batch_size = 1 or a preprocess that crops"
            )
        return torch.stack(tensors) if len(tensors) > 1 else tensors[0].unsqueeze(0)

    skipped = tuple(name for sample in samples for name in sample.skipped)
    is_pair = [sample.is_pair for sample in samples if sample.is_pair is not None]
    a, b = stacked([sample.a for sample in samples]), stacked([sample.b for sample in samples])
    return ImagePair(a, b, skipped, torch.stack(is_pair) if is_pair else None)


def _start_worker(worker: int) -> None:
    import cv2

    # A signal often reaches the whole process group. The parent alone decides, and may need one more batch;
    # SIGTERM is also how the DataLoader ends a worker that hangs, so that one is only put off.
    for number in signals.ALL:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE_SECONDS))
    give_freed_memory_back()  # pictures have all sizes
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
