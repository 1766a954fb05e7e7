"""Batches from any sample on, prepared by worker processes.

Batch k of W processes with B samples each takes the samples from start + k W B on, rank r the r-th B of them,
so that W processes together see what one process with W B sees.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from i2i.data.pair import ImagePair
from i2i.errors import I2IError, UsageError

MAX_RESTARTS = 3
_GRACE_SECONDS = 10
# how torch begins its message about a worker that was killed, and about its thread that pins memory, which ends
# when it cannot fetch a batch of such a worker
_KILLED = ("DataLoader worker (pid", "Pin memory thread exited")
# how it begins the message of an exception that a worker raised
_RAISED = "Caught "


def batches(
    dataset: Dataset[ImagePair],
    start: int,
    stop: int,
    batch_size: int,
    workers: int,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> Iterator[ImagePair]:
    """The batches of one process for the samples from `start` up to `stop` of all processes.

    `dataset[t]` is a sample for every t >= 0. Each batch is an `ImagePair` of (batch_size, C, H, W); a last
    one that would be short is completed with the samples that follow. The global random state is not touched.
    A worker that is killed is replaced and its batches prepared again; after three times at one batch
    `I2IError` is raised. An `I2IError` of the data set, such as `InputError` for a damaged picture, arrives as
    it was raised; `UsageError` says that the pictures of a batch differ in size.
    """
    stride = batch_size * world_size
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
                raise I2IError(f"a data worker was killed {deaths} times at the samples {near}: {error}") from None


class _WorkerKilled(Exception):
    """A worker ended without a word; `samples` are those that the workers were at."""

    def __init__(self, reason: str, samples: list[int]) -> None:
        super().__init__(reason)
        self.samples = samples


def _prepare(
    dataset: Dataset[ImagePair], firsts: range, batch_size: int, workers: int, pin_memory: bool
) -> Iterator[ImagePair | I2IError]:
    # an own generator: the DataLoader would draw its base seed from the global one
    generator = torch.Generator().manual_seed(0)
    samples = _ErrorsAsValues(dataset, workers)
    with _sigchld_restored():
        iterator = iter(
            DataLoader(
                samples,
                batch_sampler=_Order(firsts, batch_size),
                collate_fn=_collate,
                num_workers=workers,
                worker_init_fn=_start_worker,
                pin_memory=pin_memory,
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
        yield batch


def _says_killed(error: Exception) -> bool:
    """Whether the error means that a worker is gone, not that one raised an exception.

    A finished batch that waits in the queue lies in memory which its worker hands over when the batch is
    fetched: with the worker gone, fetching it fails like a connection.
    """
    if isinstance(error, RuntimeError):
        return str(error).startswith(_KILLED)
    return not str(error).startswith(_RAISED)


@contextlib.contextmanager
def _sigchld_restored() -> Iterator[None]:
    """Keep torch from raising a worker's death wherever the main thread is, say in a training step.

    Its DataLoader installs a handler of SIGCHLD for that. Without it the death is noticed, within five
    seconds, where the next batch is waited for.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, previous if previous is not None else signal.SIG_DFL)


class _ErrorsAsValues(Dataset[ImagePair | I2IError]):
    """A worker's exceptions reach the parent rewritten as tracebacks; its values arrive as they are."""

    def __init__(self, dataset: Dataset[ImagePair], workers: int) -> None:
        self.dataset = dataset
        # in shared memory, so that the parent sees what a killed worker was at
        self._at = torch.full((max(1, workers),), -1, dtype=torch.int64).share_memory_()

    def current(self) -> list[int]:
        """The sample that each worker was at last."""
        return sorted(int(t) for t in self._at if t >= 0)

    def __getitem__(self, t: int) -> ImagePair | I2IError:
        worker = get_worker_info()
        if worker is not None:
            self._at[worker.id] = t
        try:
            return self.dataset[t]
        except I2IError as error:
            return error.with_traceback(None)


class _Order:
    """The samples of each batch, for the DataLoader."""

    def __init__(self, firsts: range, batch_size: int) -> None:
        self.firsts, self.batch_size = firsts, batch_size

    def __iter__(self) -> Iterator[list[int]]:
        return (list(range(first, first + self.batch_size)) for first in self.firsts)

    def __len__(self) -> int:
        return len(self.firsts)


def _collate(samples: Sequence[ImagePair | I2IError]) -> ImagePair | I2IError:
    whole: list[ImagePair] = []
    for sample in samples:
        if isinstance(sample, I2IError):
            return sample
        whole.append(sample)
    for side in ("a", "b"):
        shapes = {tuple(getattr(sample, side).shape) for sample in whole}
        if len(shapes) > 1:
            return UsageError(
                f"pictures of different sizes in one batch: {sorted(shapes)}; "
                "use batch_size = 1 or a preprocess that crops"
            )
    skipped = tuple(name for sample in whole for name in sample.skipped)
    return ImagePair(torch.stack([s.a for s in whole]), torch.stack([s.b for s in whole]), skipped)


def _start_worker(worker: int) -> None:
    import cv2

    # A signal often reaches the whole process group. The parent alone decides, and may need one more batch;
    # SIGTERM is also how the DataLoader ends a worker that hangs, so that one is only put off.
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE_SECONDS))
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
