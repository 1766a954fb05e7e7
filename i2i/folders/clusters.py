"""Clusters as executors: Dask's, whose scheduler makes the calls of lost workers again, and Ray's in `ray_cluster.py`.

`open_cluster` gives a `concurrent.futures.Executor` for the parts of a folder's translation. Both kinds keep one
promise: a call whose worker dies is made again elsewhere, `TRIES` times in all. So a call must bear to be made twice.
A cluster that was started here ends with the work. One that was there before stays, with whatever else runs on it.
"""

import logging
import re
import socket
import threading
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from i2i import __version__
from i2i.errors import I2IError, ResourceError, UsageError
from i2i.terminal import printable, say_plain

if TYPE_CHECKING:
    import distributed

T = TypeVar("T")
Say = Callable[[str], object]

TRIES = 4
"""How often a call is made whose workers die: as often as Dask's scheduler makes it by default."""
ANSWER, START, RETURN = 10.0, 60.0, 300.0
"""Seconds in which an address has to answer, a first worker has to be there, and a new one after all were lost."""
ALL_GONE = f"all workers of the cluster are gone, and none came back in {RETURN:g} s."
_POLL = 1.0
_EXPECTED = "expected ray, ray:HOST:6379, ray://HOST:10001 or dask://HOST:8786"
_PACKAGES = {"ray": ("Ray", "ray"), "dask": ("Dask", "distributed")}


class Address(NamedTuple):
    """The value of `--cluster`: its library, and the address by which the library knows it, empty for an own one."""

    text: str
    library: str
    place: str

    @property
    def endpoint(self) -> tuple[str, int] | None:
        """Host and port, where the address has them."""
        match = re.fullmatch(r"(?:\w+://)?\[?([^/\[\]]+)\]?:(\d+)/?", self.place)
        return (match[1], int(match[2])) if match else None

    def unusable(self, reason: object) -> ResourceError:
        """The error for a cluster that cannot be used. It has the first line of an exception."""
        first = str(reason).strip().partition("\n")[0] or type(reason).__name__
        return ResourceError(f"cluster {printable(self.text)}: {first}")


def parse_address(text: str) -> Address:
    """Reads the value of `--cluster`. Raises `UsageError` for a wrong one, and where its library is not installed."""
    library, colon, place = text.partition(":")
    if place.startswith("//"):
        place = f"{'ray' if library == 'ray' else 'tcp'}:{place}"
    address = Address(text, library, place)
    local = library == "ray" and place in ("", "auto") and (not colon or place)
    if library not in _PACKAGES or not (local or address.endpoint):
        raise UsageError(f"cluster = {printable(text)!r}: {_EXPECTED}")
    name, module = _PACKAGES[library]
    if find_spec(module) is None:
        raise UsageError(f"cluster = {printable(text)!r}: needs {name}: pip install 'i2i[{library}]'")
    return address


@contextmanager
def open_cluster(text: str, *, gpu_share: float | None = None, say: Say = say_plain) -> Iterator["Cluster"]:
    """Connects to the cluster that `text` names, or starts one. `say` gets a line for each worker that is lost.

    `gpu_share` is the part of a GPU that each worker takes (Ray). Default: a whole one where the cluster has GPUs.

    Raises `UsageError` for a wrong address, a missing library, or GPUs that are not there; `ResourceError` if nothing
    answers there, or no worker comes.
    """
    address = parse_address(text)
    if address.library == "dask" and gpu_share is not None:
        raise UsageError("gpu_share is for Ray; with Dask, start a worker for each share of a GPU")
    if address.endpoint:
        _check_answer(address, *address.endpoint)
    if address.library == "ray":
        from i2i.folders.ray_cluster import ray_cluster

        connected: AbstractContextManager[Cluster] = ray_cluster(address, gpu_share, say)
    else:
        connected = dask_cluster(address, say)
    with connected as cluster:
        yield cluster
        cluster.shutdown()


def _check_answer(address: Address, host: str, port: int) -> None:
    """The libraries themselves wait for minutes, and Ray may end the process."""
    try:
        socket.create_connection((host, port), timeout=ANSWER).close()
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "no answer"
        raise address.unusable(f"nothing answers at {host}:{port} ({reason}); is it started there?") from None


class Cluster(Executor):
    """An executor whose workers are on other machines. A thread waits for each call, of so many at once."""

    def __init__(self, say: Say, calls: int) -> None:
        self._say = say
        self._lost: Counter[str] = Counter()
        self._threads = ThreadPoolExecutor(calls, "i2i-cluster")

    def submit(self, function: Callable[..., T], /, *arguments: Any, **named: Any) -> "Future[T]":
        return self._threads.submit(self._call, partial(function, *arguments, **named))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._threads.shutdown(wait, cancel_futures=cancel_futures)

    @abstractmethod
    def _call(self, call: Callable[[], T]) -> T:
        """Makes a call, again if its worker dies. Raises `BrokenExecutor` once all workers are gone."""

    @property
    @abstractmethod
    def places(self) -> int:
        """How many calls can run at once."""

    @abstractmethod
    def run_everywhere(self, function: Callable[..., object], *arguments: object) -> None:
        """Calls `function` once on every machine or worker, also on busy ones. Raises the first error.

        Raises `UsageError` for a machine where `function` cannot be imported.
        """

    @property
    def notices(self) -> list[str]:
        """Lines for the report: the workers that were lost."""
        if not self._lost:
            return []
        names = ", ".join(f"{name} ({count} times)" if count > 1 else name for name, count in self._lost.items())
        return [f"workers lost: {names}; others made the results that they had not finished"]

    def tell_lost(self, worker: str) -> None:
        self._lost[worker] += 1
        self._say(f"lost a worker on {worker}; others take over its pictures")


def explained(worker: str, error: BaseException) -> BaseException:
    """The error to raise for one that a worker gave to a check."""
    if isinstance(error, I2IError):
        return error
    if isinstance(error, ImportError | AttributeError):
        return UsageError(
            f"{worker} cannot run this i2i ({type(error).__name__}: {error}); install i2i {__version__} and the same "
            "Python there"
        )
    return ResourceError(f"{worker} cannot be used: {type(error).__name__}: {error}")


def killer(worker: str) -> ResourceError:
    """The error of a call that no worker survives."""
    return ResourceError(f"{TRIES} workers ended while they had it, the last on {worker}; is there too little memory?")


@contextmanager
def dask_cluster(address: Address, say: Say) -> Iterator["DaskCluster"]:
    """As `open_cluster`."""
    import asyncio

    from distributed import Client

    with _quiet():
        try:
            with ThreadPoolExecutor(1) as thread:  # this one may have a loop of its own
                thread.submit(asyncio.run, _greet(address.place)).result()
            client = Client(address.place, timeout=START / 2, set_as_default=False, name="i2i")
        except (OSError, ValueError, TypeError) as error:
            reason = str(error) or f"no answer in {ANSWER:g} s; is it another service?"
            raise address.unusable(f"no scheduler of Dask answers there: {reason}") from None
        try:
            with suppress(TimeoutError):
                client.wait_for_workers(1, timeout=START)
            if not client.nthreads():
                raise address.unusable(
                    f"it has no workers, and none came in {START:g} s; start them on your machines: dask worker "
                    f"{address.place.removeprefix('tcp://')}"
                )
            cluster = DaskCluster(client, say)
            try:
                yield cluster
            finally:
                cluster.shutdown(wait=False, cancel_futures=True)
        finally:
            with suppress(Exception):
                client.close(timeout=2)


async def _greet(place: str) -> None:
    """Raises `TimeoutError` where something else listens, for which the client would wait without end."""
    import asyncio

    from distributed import Security, comm

    options = Security().get_connection_args("client")
    (await asyncio.wait_for(comm.connect(place, timeout=ANSWER, **options), ANSWER)).abort()


@contextmanager
def _quiet() -> Iterator[None]:
    """Dask logs each lost worker at length, on the standard error."""
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith("distributed")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class DaskCluster(Cluster):
    """Calls by Dask's scheduler. A thread counts the workers."""

    def __init__(self, client: "distributed.Client", say: Say) -> None:
        super().__init__(say, 1024)  # the scheduler lets them wait, and workers may come
        self._client = client
        self._places = sum(client.nthreads().values())
        self._closed = threading.Event()
        self._broken = ""
        client.subscribe_topic("all", self._heard)
        threading.Thread(target=self._watch, name="i2i-dask", daemon=True).start()

    @property
    def places(self) -> int:
        return max(1, self._places)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._closed.set()
        super().shutdown(wait, cancel_futures=cancel_futures)

    def run_everywhere(self, function: Callable[..., object], *arguments: object) -> None:
        answers = self._client.run(*_packed(partial(function, *arguments)), on_error="return")
        for worker, answer in answers.items():
            if isinstance(answer, BaseException):
                raise explained(_host(worker), answer)

    def _call(self, call: Callable[[], T]) -> T:
        task = self._client.submit(*_packed(call), pure=False)
        while not self._broken:
            try:
                result: T = task.result(timeout=10 * _POLL)
                return result
            except Exception as error:
                # `lost`: its worker is gone with the result, and another is at it
                waits = isinstance(error, TimeoutError) and task.status in ("pending", "finished", "lost")
                if not waits or self._client.status not in ("running", "connecting"):
                    raise self._reason(task, error) from None
        raise BrokenExecutor(self._broken)

    def _reason(self, task: "distributed.Future", error: Exception) -> Exception:
        if task.status != "error":
            self._broken = self._broken or "the scheduler of Dask is gone, or has let go of the work."
            return BrokenExecutor(self._broken)
        if type(error).__name__ == "KilledWorker":
            last = getattr(error, "last_worker", None)
            return killer(_host(str(getattr(last, "address", last))))
        return error

    def _heard(self, event: tuple[float, Mapping[str, Any]]) -> None:
        """The scheduler tells of a lost worker before it makes the calls again."""
        if event[1].get("action") == "remove-worker" and not self._closed.is_set():
            self.tell_lost(_host(event[1]["worker"]))

    def _watch(self) -> None:
        alone_since = 0.0
        while not self._closed.wait(_POLL):
            try:
                self._places = sum(self._client.nthreads().values())
            except Exception:  # the scheduler is gone
                self._places = 0
            alone_since = 0.0 if self._places else alone_since or time.monotonic()
            if alone_since and time.monotonic() - alone_since > RETURN:
                self._broken = ALL_GONE
                return


def _packed(call: Callable[[], Any]) -> tuple[Callable[[bytes], Any], bytes]:
    """A call as a function and bytes for it, which only a worker reads: a scheduler needs no i2i then, and a worker
    without it says so. That function travels whole, as it has no name that can be imported."""
    from multiprocessing.reduction import ForkingPickler

    def run(data: bytes) -> Any:
        from multiprocessing.reduction import ForkingPickler

        return ForkingPickler.loads(data)()

    return run, bytes(ForkingPickler.dumps(call))


def _host(worker: str) -> str:
    """`tcp://10.0.0.5:41234` as people say it."""
    return worker.partition("://")[2] or worker
