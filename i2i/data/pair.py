"""Samples and batches: pixels as they are read (`RawPair`), tensors as a training step takes them (`ImagePair`), and
batches from any sample on, prepared by worker processes.

`dataset[t]` exists for every t >= 0: t counts samples from the start of training, through all epochs. Hence
batches do not depend on the number of workers, and training can go on at any t. Batch k of W processes with B samples
each takes the samples from start + k W B on, rank r the r-th B of them, so that W processes together see what one
process with W B sees.
"""

import contextlib
import dataclasses
import math
import mmap
import os
import signal
import threading
import time
import warnings
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import reduction
from multiprocessing.reduction import ForkingPickler
from tempfile import TemporaryFile
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader, Dataset, get_worker_info

from i2i import images, signals
from i2i.errors import I2IError, ResourceError, UsageError, as_typed
from i2i.images import Pixels
from i2i.images.palettes import class_planes
from i2i.machine import cores, give_freed_memory_back, place

MAX_RESTARTS = 3
_GRACE_SECONDS = 10
_MEASURE_SECONDS, _MEASURE_BATCHES = 0.3, 10
_LITTLE = 0.05
_AHEAD = 2  # batches that each worker prepares in advance
_KILLED, _RAISED = "DataLoader worker (pid", "Caught "
"""How torch begins its messages about a worker that was killed, and of an exception that a worker raised."""
_TOO_MANY = "Too many open files"
"""How torch begins its message where no batch can be opened; its advice, another sharing strategy, changes nothing."""
_DupFd = getattr(reduction, "DupFd", None)
"""Hands a file over to another process; Windows has none."""


@dataclass(frozen=True)
class ImagePair:
    """A batch of both domains: `a` (N, C_a, H, W) and `b` (N, C_b, H, W), values in [-1, 1].

    In paired data row i of `a` and row i of `b` show the same thing; in unpaired data they are independent; where
    there are both, `is_pair` (N,) says which rows are pairs. A domain of labels has a channel for each class, 1
    where a pixel is of it, else -1. `skipped` names the damaged pictures that were replaced in this batch.
    """

    a: Tensor
    b: Tensor
    skipped: tuple[str, ...] = ()
    is_pair: Tensor | None = None

    def __len__(self) -> int:
        return len(self.a)

    def to(
        self, device: torch.device | str, dtype: torch.dtype | None = None, non_blocking: bool = False
    ) -> "ImagePair":
        """The same batch on `device`, converted to `dtype` if one is given."""
        a, b = (x.to(device=device, dtype=dtype, non_blocking=non_blocking) for x in (self.a, self.b))
        is_pair = None if self.is_pair is None else self.is_pair.to(device=device, non_blocking=non_blocking)
        return dataclasses.replace(self, a=a, b=b, is_pair=is_pair)

    def contiguous(self, memory_format: torch.memory_format) -> "ImagePair":
        """The same batch in that memory format."""
        a, b = (x.contiguous(memory_format=memory_format) for x in (self.a, self.b))
        return dataclasses.replace(self, a=a, b=b)

    def pin_memory(self) -> "ImagePair":
        """The same batch in page-locked memory."""
        is_pair = None if self.is_pair is None else self.is_pair.pin_memory()
        return dataclasses.replace(self, a=self.a.pin_memory(), b=self.b.pin_memory(), is_pair=is_pair)

    def parts(self, count: int) -> list["ImagePair"]:
        """`count` micro-batches of equal size, in order; the first carries `skipped`."""
        is_pair = [None] * count if self.is_pair is None else self.is_pair.chunk(count)
        pieces = zip(self.a.chunk(count), self.b.chunk(count), is_pair, strict=True)
        return [ImagePair(a, b, self.skipped if i == 0 else (), pair) for i, (a, b, pair) in enumerate(pieces)]


class RawPair(NamedTuple):
    """A sample as pixels, `a` and `b` (H, W, C) uint8 or uint16, or a batch of them, (N, H, W, C).

    `classes` has the number of classes of each side, 0 for pictures. A side with classes holds their indices in its
    first channel, and 0 or 1 in any other. `skipped` and `is_pair` are those of `ImagePair`. Workers send it, as it has
    a quarter of the bytes. Arrays of floats are tensors already (`of`).
    """

    a: Pixels
    b: Pixels
    skipped: tuple[str, ...] = ()
    classes: tuple[int, int] = (0, 0)
    is_pair: bool | tuple[bool, ...] | None = None

    def tensors(self) -> ImagePair:
        """The same as (..., C, H, W) float32 in [-1, 1]."""
        a, b = (_tensor(x, count) for x, count in zip((self.a, self.b), self.classes, strict=True))
        return ImagePair(a, b, self.skipped, None if self.is_pair is None else torch.tensor(self.is_pair))

    @classmethod
    def of(cls, batch: ImagePair) -> "RawPair":
        """A batch as arrays of its numbers."""
        is_pair = None if batch.is_pair is None else tuple(batch.is_pair.tolist())
        return cls(batch.a.numpy(), batch.b.numpy(), batch.skipped, is_pair=is_pair)

    @classmethod
    def stack(cls, pairs: Sequence["RawPair"]) -> "RawPair | None":
        """The batch of these samples; None if they differ in size or depth."""
        if len({(pair.a.shape, pair.a.dtype, pair.b.shape, pair.b.dtype) for pair in pairs}) > 1:
            return None
        a, b = np.stack([pair.a for pair in pairs]), np.stack([pair.b for pair in pairs])
        is_pair = tuple(pair.is_pair is True for pair in pairs) if pairs[0].is_pair is not None else None
        return cls(a, b, tuple(name for pair in pairs for name in pair.skipped), pairs[0].classes, is_pair)


def _tensor(pixels: Pixels, classes: int) -> Tensor:
    if pixels.dtype.kind == "f":
        return torch.from_numpy(pixels)
    planes = np.ascontiguousarray(np.moveaxis(pixels, -1, -3))
    if classes:
        return torch.from_numpy(class_planes(planes, classes))
    together = planes.reshape(-1, *planes.shape[-2:]).transpose(1, 2, 0)
    return images.to_tensor(together).view(planes.shape)


class ImagePairs(Dataset[ImagePair]):
    """A data set of single pairs, (C, H, W) each: `pairs[t]` for every t >= 0, an epoch is `len(pairs)` of them."""

    @abstractmethod
    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Datasets:
    """The data sets of a training; `validation` is the val split, else the test split, else None."""

    train: ImagePairs
    validation: ImagePairs | None = None

    @property
    def count(self) -> int:
        """How many pictures there are, or pairs of them, that may be damaged."""
        return sum(getattr(one, "count", 0) for one in (self.train, self.validation))


MakePair = Callable[[Tensor, int], ImagePair]
"""Makes both sides of a sample from one picture, (C, H, W) in [-1, 1], and a seed."""


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
                names, (why, samples) = getattr(dataset, "names", str), error.args
                near = "; ".join(str(names(t)) for t in samples)
                raise ResourceError(f"a data worker was killed {deaths} times at the samples {near}: {why}") from None


def measured_workers(dataset: Dataset[ImagePair], start: int, stop: int, batch_size: int, accelerator: bool) -> int:
    """How many workers keep up with a training, from the time that batches take here and now.

    0 if that is below a twentieth of the shortest step to be expected, which is a fiftieth of a second before an
    accelerator and a quarter before a CPU; else enough for two batches in such a step, as far as there are cores.
    """
    seconds: list[float] = []
    for first in range(start, stop, batch_size)[:_MEASURE_BATCHES]:
        began = time.perf_counter()
        with contextlib.suppress(I2IError):  # it comes again when it is due
            for t in range(first, first + batch_size):
                dataset[t]
        seconds.append(time.perf_counter() - began)
        if sum(seconds) > _MEASURE_SECONDS:
            break
    usual = min(seconds[1:], default=sum(seconds))  # the first one also imports and warms up
    step, here = 0.02 if accelerator else 0.25, max(1, cores() // place().local_world_size)
    return 0 if usual < _LITTLE * step else min(here, math.ceil(2 * usual / step))


class _WorkerKilled(Exception):
    """A worker ended without an exception: a reason, and the samples that the workers were at."""


def _prepare(
    dataset: Dataset[ImagePair], firsts: range, batch_size: int, workers: int, pin_memory: bool
) -> Iterator[ImagePair | I2IError]:
    # an own generator: the DataLoader would draw its base seed from the global one
    generator = torch.Generator().manual_seed(0)
    # torch warns of more workers than cores
    with _sigchld_restored(), _room_for_workers(workers), warnings.catch_warnings(action="ignore"):
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
            text = str(error)
            # a batch is handed over when it is fetched: with its worker gone, that fails like a connection
            lost = text.startswith(_KILLED) if isinstance(error, RuntimeError) else not text.startswith(_RAISED)
            if workers and lost:
                raise _WorkerKilled(text, samples.current()) from None
            if workers and text.startswith(_TOO_MANY):
                ways = f"raise `ulimit -n`, or give {as_typed('workers', 0)}"
                raise ResourceError(f"{_TOO_MANY} for data workers; {ways}") from None
            raise
        if isinstance(batch, RawPair):
            batch = batch.tensors()
        yield batch.pin_memory() if pin_memory and isinstance(batch, ImagePair) else batch


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
        ways = f"Give fewer {as_typed('workers')}, or {as_typed('workers', 0)} (in Docker: --shm-size)"
        raise ResourceError(f"data workers cannot be started: {first}. {ways}") from None


class _Batches(Dataset["ImagePair | _Sent | I2IError"]):
    """Whole batches of a data set. Workers send them as pixels, where it has pixels (`raw`).

    Their exceptions reach the parent rewritten as tracebacks, but an `I2IError` arrives as it is.
    """

    def __init__(self, dataset: Dataset[ImagePair], workers: int) -> None:
        self.dataset = dataset
        self._raw: Callable[[int], RawPair] | None = getattr(dataset, "raw", None)
        # in shared memory, so that the parent sees what a killed worker was at
        self._at = torch.full((max(1, workers),), -1, dtype=torch.int64).share_memory_()

    def current(self) -> list[int]:
        """The sample that each worker was at last."""
        return sorted(int(t) for t in self._at if t >= 0)

    def __getitems__(self, batch: Sequence[int]) -> "ImagePair | _Sent | I2IError":
        """The DataLoader asks for the samples of a batch at once."""
        worker = get_worker_info()
        if worker is None:
            return _collate([self.dataset[t] for t in batch])
        try:
            value: RawPair | I2IError | ExceptionWrapper = self._to_send(batch, worker.id)
        except I2IError as error:
            value = error.with_traceback(None)
        except Exception:
            value = ExceptionWrapper(where=f"in data worker {worker.id}")
        try:
            return _Sent(value)
        except OSError as error:
            return ResourceError(f"no room for a batch of a worker: {error.strerror}; give {as_typed('workers', 0)}")

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


class _Sent:
    """A value of a worker on its way: it lies in a file without a name, and a short message gives the file away.

    A worker that is killed while it sends a long message leaves a part of it in the pipe, and the parent would wait for
    the rest without end. A short one is there whole or not at all (pipe(7)). Linux keeps the file in memory, and the
    size of /dev/shm does not bound it. Raises `OSError` where there is no room.
    """

    def __init__(self, value: object) -> None:
        if _DupFd is None:
            data = bytearray(ForkingPickler.dumps(value))
            self._held: Tensor | Callable[[], int] = torch.frombuffer(data, dtype=torch.uint8).share_memory_()
            return
        with os.fdopen(os.memfd_create("i2i"), "w+b") if hasattr(os, "memfd_create") else TemporaryFile() as file:
            ForkingPickler(file, 5).dump(value)
            file.flush()
            self._held = _DupFd(file.fileno()).detach

    def __reduce__(self) -> tuple[Callable[[Any], Any], tuple[Any]]:
        return _received, (self._held,)


def _received(held: Tensor | Callable[[], int]) -> Any:
    if isinstance(held, Tensor):
        return ForkingPickler.loads(held.numpy().tobytes())
    with os.fdopen(held(), "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return ForkingPickler.loads(data)


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
