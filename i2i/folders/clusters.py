"""Clusters as executors: only this file knows Ray and Dask.

`open_cluster` gives a `concurrent.futures.Executor` for the parts of a folder's translation. Both kinds keep one
promise: a call whose worker dies is made again elsewhere, `TRIES` times in all. So a call must bear to be made twice.

* Ray: an actor for each place, with one queue for all. An actor asks for its next call when it is free, so a node that
  dies holds nothing that waits. Actors do not restart; a new one is asked for, on any node with room.
* Dask: the scheduler makes the calls again. A thread counts its workers, to tell of lost ones.

A cluster that was started here ends with the work. One that was there before stays, with whatever else runs on it.
"""

import logging
import os
import re
import secrets
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from i2i import __version__
from i2i.errors import I2IError, ResourceError, UsageError
from i2i.files import scratch_folder
from i2i.machine import cores
from i2i.terminal import printable, say_plain

T = TypeVar("T")
Say = Callable[[str], object]

TRIES = 4
"""How often a call is made whose workers die: as often as Dask's scheduler makes it by default."""
ANSWER, START, RETURN = 10.0, 60.0, 300.0
"""Seconds in which an address has to answer, a first worker has to be there, and a new one after all were lost."""
OBJECTS = 80 << 20
"""Bytes of Ray's store of objects in a cluster of our own: pictures never travel, so Ray's least is enough."""
_POLL = 0.5

EXPECTED = "expected ray, ray:HOST:6379, ray://HOST:10001 or dask://HOST:8786"
_PACKAGES = {"ray": ("Ray", "ray"), "dask": ("Dask", "distributed")}


class Address(NamedTuple):
    """The library of a cluster, and the address by which the library knows it; empty for a cluster of our own."""

    library: str
    place: str

    @property
    def endpoint(self) -> tuple[str, int] | None:
        """Host and port, where the address has them."""
        match = re.fullmatch(r"(?:\w+://)?\[?([^/\[\]]+)\]?:(\d+)/?", self.place)
        return (match[1], int(match[2])) if match else None


def parse_address(text: str) -> Address:
    """Reads the value of `--cluster`. Raises `UsageError` for a wrong one, and where its library is not installed."""
    library, colon, place = text.partition(":")
    if place.startswith("//"):
        place = f"{'ray' if library == 'ray' else 'tcp'}:{place}"
    address = Address(library, place)
    local = library == "ray" and place in ("", "auto") and (not colon or place)
    if library not in _PACKAGES or not (local or address.endpoint):
        raise UsageError(f"cluster = {printable(text)!r}: {EXPECTED}")
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
        _check_answer(text, *address.endpoint)
    connect = _ray(address, text, gpu_share, say) if address.library == "ray" else _dask(address, text, say)
    with connect as cluster:
        try:
            yield cluster
        except BaseException:
            cluster.shutdown(wait=False, cancel_futures=True)
            raise
        cluster.shutdown()


def _check_answer(text: str, host: str, port: int) -> None:
    """The libraries themselves wait for minutes, and Ray may end the process."""
    try:
        socket.create_connection((host, port), timeout=ANSWER).close()
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "no answer"
        raise ResourceError(
            f"cluster {printable(text)}: nothing answers at {host}:{port} ({reason}); is it started there?"
        ) from None


class Cluster(Executor):
    """An executor whose workers are on other machines."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._lost: Counter[str] = Counter()

    @property
    def places(self) -> int:
        """How many calls can run at once."""
        raise NotImplementedError

    def run_everywhere(self, function: Callable[..., T], *arguments: object) -> list[T]:
        """Calls `function` once on every machine or worker, also on busy ones. Raises the first error.

        Raises `UsageError` for a machine where `function` cannot be imported.
        """
        found = self._everywhere(function, arguments)
        for worker, result in found.items():
            if isinstance(result, BaseException):
                raise _explained(worker, result)
        return list(found.values())

    def _everywhere(self, function: Callable[..., Any], arguments: Sequence[object]) -> dict[str, Any]:
        """The result of each machine or worker, or its exception."""
        raise NotImplementedError

    @property
    def notices(self) -> list[str]:
        """Lines for the report: the workers that were lost."""
        if not self._lost:
            return []
        names = ", ".join(f"{name} ({count} times)" if count > 1 else name for name, count in self._lost.items())
        return [f"workers lost: {names}; others made the results that they had not finished"]

    def _tell_lost(self, worker: str) -> None:
        self._lost[worker] += 1
        self._say(f"lost a worker on {worker}; others take over its pictures")


def _explained(worker: str, error: BaseException) -> BaseException:
    """The error to raise for one that a worker gave to a check."""
    if isinstance(error, I2IError):
        return error
    if isinstance(error, ImportError | AttributeError):
        return UsageError(
            f"{worker} cannot run this i2i ({type(error).__name__}: {error}); install i2i {__version__} and the same "
            "Python there"
        )
    return ResourceError(f"{worker} cannot be used: {type(error).__name__}: {error}")


def _killer(worker: str) -> ResourceError:
    """The error of a call that no worker survives."""
    return ResourceError(f"{TRIES} workers ended while they had it, the last on {worker}; is there too little memory?")


# Ray


@contextmanager
def _ray(address: Address, text: str, gpu_share: float | None, say: Say) -> Iterator["RayCluster"]:
    ray = _import_ray(own=not address.place)
    with _connected(ray, address, text):
        cluster = RayCluster(ray, _places(ray, text, gpu_share), say)
        try:
            cluster.wait_for_worker(text)
            yield cluster
        finally:
            cluster.shutdown(wait=False, cancel_futures=True)


def _import_ray(own: bool) -> Any:
    """Ray reads these variables when it is imported. A cluster of our own listens on this machine alone, and answers
    nobody without its token."""
    if own and "ray" not in sys.modules:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        if os.environ.setdefault("RAY_AUTH_MODE", "token") == "token":
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray

    return ray


@contextmanager
def _connected(ray: Any, address: Address, text: str) -> Iterator[None]:
    """Connects, or starts a cluster of our own, which ends with the context."""
    if ray.is_initialized():  # by the program that calls us, which goes on with it
        yield
        return
    options: dict[str, Any] = {"address": address.place, "log_to_driver": False, "logging_level": logging.CRITICAL}
    with ExitStack() as stack:
        if not address.place:
            short = Path("/tmp")  # the paths of its sockets have little room
            place = short if short.is_dir() else Path(tempfile.gettempdir())
            folder = stack.enter_context(scratch_folder("i2i-ray-", place))
            options |= {"address": "local", "num_cpus": cores(), "object_store_memory": OBJECTS}
            options |= {"include_dashboard": False, "_temp_dir": str(folder)}
        stack.callback(ray.shutdown)
        ray._private.worker._worker_logs_enabled = False  # else Ray prints on the standard output how workers died
        try:
            with _signals_kept():
                ray.init(**options)
        except I2IError:  # a signal
            raise
        except Exception as error:
            first = str(error).strip().partition("\n")[0] or type(error).__name__
            raise ResourceError(f"cluster {printable(text)}: Ray cannot use it: {first}") from None
        yield


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        with suppress(ValueError):  # only the main thread may handle signals
            signal.signal(signal.SIGTERM, before)


class _Places(NamedTuple):
    """The room for workers: how many on each node (by its id, with its host), and the share of a GPU of each."""

    nodes: Mapping[str, tuple[str, int]]
    gpus: float


def _places(ray: Any, text: str, gpu_share: float | None) -> _Places:
    alive = [node for node in ray.nodes() if node["Alive"]]
    has_gpus = any(node["Resources"].get("GPU") for node in alive)
    if gpu_share and not has_gpus:
        raise UsageError(f"gpu_share = {gpu_share:g}: the cluster {printable(text)} has no GPU; leave it out")
    gpus = gpu_share if gpu_share is not None else float(has_gpus)
    nodes = {node["NodeID"]: (node["NodeManagerHostname"], _room(node["Resources"], gpus)) for node in alive}
    nodes = {node: place for node, place in nodes.items() if place[1]}
    if not nodes:
        raise ResourceError(f"cluster {printable(text)}: no node of it has a processor for a worker")
    return _Places(nodes, gpus)


def _room(resources: Mapping[str, float], gpus: float) -> int:
    """How many workers a node holds. The share of each is of one GPU: two shares of 0.4 fit on one."""
    room = int(resources.get("CPU", 0))
    return min(room, int(resources.get("GPU", 0)) * int(1 / gpus + 1e-9)) if gpus else room


@dataclass(eq=False)
class _Call:
    """A call, and how often it may still be made."""

    future: "Future[Any]"
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    named: dict[str, Any]
    tries: int = TRIES


class RayCluster(Cluster):
    """Calls on Ray's actors, each served by a thread of ours."""

    def __init__(self, ray: Any, places: _Places, say: Say) -> None:
        super().__init__(say)
        self._ray, self._room = ray, places
        self._waiting: deque[_Call] = deque()
        self._running = 0
        self._hosts: list[str] = []  # of the workers that are there
        self._alone_since = time.monotonic()
        self._closed = False
        self._broken = ""
        self._changed = threading.Condition()
        self._new = _actor(ray, places.gpus).remote
        self._threads = [threading.Thread(target=self._serve, name="i2i-ray", daemon=True) for _ in range(self.places)]
        for thread in self._threads:
            thread.start()

    @property
    def places(self) -> int:
        return sum(room for _, room in self._room.nodes.values())

    def wait_for_worker(self, text: str) -> None:
        """Raises `ResourceError` if no worker is there in time."""
        with self._changed:
            if self._changed.wait_for(lambda: self._hosts, START):
                return
        raise ResourceError(
            f"cluster {printable(text)}: no worker has started in {START:g} s; other work may hold all of its "
            f"processors{' and GPUs' if self._room.gpus else ''} (`ray status` shows it)"
        )

    def submit(self, function: Callable[..., T], /, *arguments: Any, **named: Any) -> "Future[T]":
        call = _Call(Future(), function, arguments, named)
        with self._changed:
            if self._broken:
                raise BrokenExecutor(self._broken)
            if self._closed:
                raise RuntimeError("cannot submit after shutdown")
            self._waiting.append(call)
            self._changed.notify()
        return call.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        with self._changed:
            self._closed = True
            cancelled = list(self._waiting) if cancel_futures else []
            if cancel_futures:
                self._waiting.clear()
            self._changed.notify_all()
        for call in cancelled:
            call.future.cancel()
        if wait:
            for thread in self._threads:
                thread.join()

    def _everywhere(self, function: Callable[..., Any], arguments: Sequence[object]) -> dict[str, Any]:
        """Tasks without a processor run also on nodes whose processors are taken."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

        run = self._ray.remote(num_cpus=0, max_retries=0)(_call_here)
        tasks = {
            name: run.options(scheduling_strategy=On(node, soft=False)).remote(function, *arguments)
            for node, name in self._names().items()
        }
        self._ray.wait(list(tasks.values()), num_returns=len(tasks), timeout=START)
        return {name: self._outcome(task) for name, task in tasks.items()}

    def _names(self) -> dict[str, str]:
        """A name for each node: its host, and where several share it a part of the node's id."""
        hosts = Counter(host for host, _ in self._room.nodes.values())
        return {
            node: host if hosts[host] == 1 else f"{host} (node {node[:6]})"
            for node, (host, _) in self._room.nodes.items()
        }

    def _outcome(self, task: Any) -> Any:
        try:
            return self._ray.get(task, timeout=0)
        except self._ray.exceptions.GetTimeoutError:
            return ResourceError(f"no answer within {START:g} s")
        except Exception as error:
            return _cause(error)

    def _serve(self) -> None:
        """The life of one place: a worker, and after its death another."""
        while (found := self._new_worker()) is not None:
            worker, host = found
            try:
                while (call := self._next()) is not None:
                    self._make(worker, host, call)
                self._ray.kill(worker)
                return
            except self._ray.exceptions.RayActorError:
                self._leave(host)
                with suppress(Exception):  # one that is only out of reach must not go on beside its successor
                    self._ray.kill(worker)
            except Exception:  # the connection is gone
                self._leave(host)
                if self._closed:
                    return
                time.sleep(_POLL)

    def _new_worker(self) -> tuple[Any, str] | None:
        """A worker with its host, once there is room for it; None if there is nothing left to do."""
        while not self._is_over():
            try:
                worker = self._new()
                ready = worker.call.remote(socket.gethostname)
                while not self._is_over():
                    if self._ray.wait([ready], timeout=_POLL)[0]:
                        host = str(self._ray.get(ready))
                        self._enter(host)
                        return worker, host
            except Exception:  # it died as it started, or the connection is gone
                time.sleep(_POLL)
        return None

    def _is_over(self) -> bool:
        with self._changed:
            if not self._hosts and time.monotonic() - self._alone_since > RETURN:
                self._break(f"all workers of the cluster are gone, and none came back in {RETURN:g} s")
            return bool(self._broken) or (self._closed and not self._waiting and not self._running)

    def _break(self, reason: str) -> None:
        self._broken = self._broken or reason
        while self._waiting:
            _fail(self._waiting.popleft().future, BrokenExecutor(self._broken))

    def _enter(self, host: str) -> None:
        with self._changed:
            self._hosts.append(host)
            self._changed.notify_all()

    def _leave(self, host: str) -> None:
        with self._changed:
            self._hosts.remove(host)
            self._alone_since = time.monotonic()
            closed = self._closed
        if not closed:
            self._tell_lost(host)

    def _next(self) -> _Call | None:
        """The next call; None once there will be none. While others run, one of theirs may come back."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or (self._closed and not self._running))
            if not self._waiting:
                return None
            self._running += 1
            return self._waiting.popleft()

    def _make(self, worker: Any, host: str, call: _Call) -> None:
        """Raises Ray's error if the worker died; then the call waits again."""
        again = False
        try:
            if call.tries == TRIES and not call.future.set_running_or_notify_cancel():
                return
            call.tries -= 1
            _settle(call.future, self._ray.get(worker.call.remote(call.function, *call.arguments, **call.named)))
        except self._ray.exceptions.RayActorError:
            again = call.tries > 0
            if not again:
                _fail(call.future, _killer(host))
            raise
        except Exception as error:
            _fail(call.future, _cause(error))
        finally:
            with self._changed:
                self._running -= 1
                if again:
                    self._waiting.appendleft(call)
                self._changed.notify_all()


def _actor(ray: Any, gpus: float) -> Any:
    """The class of the workers. Made here it travels whole: a worker without i2i starts too, and says so when asked."""

    class I2IWorker:
        def call(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Any:
            return function(*arguments, **named)

    return ray.remote(max_restarts=0, max_task_retries=0, num_cpus=1, num_gpus=gpus)(I2IWorker)


def _call_here(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def _cause(error: Exception) -> BaseException:
    """The exception that a call raised, without what Ray puts around it."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, BaseException) else error


def _settle(future: "Future[Any]", result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: "Future[Any]", error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


# Dask


@contextmanager
def _dask(address: Address, text: str, say: Say) -> Iterator["DaskCluster"]:
    from distributed import Client

    with _quiet():
        try:
            client = Client(address.place, timeout=START / 2, set_as_default=False, name="i2i")
        except (OSError, ValueError, TypeError) as error:
            first = str(error).strip().partition("\n")[0] or type(error).__name__
            raise ResourceError(f"cluster {printable(text)}: no scheduler of Dask answers there: {first}") from None
        cluster = None
        try:
            cluster = DaskCluster(client, text, say)
            yield cluster
        finally:
            if cluster is not None:
                cluster.shutdown(wait=False, cancel_futures=True)
            with suppress(Exception):
                client.close(timeout=2)


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
    """Calls by Dask's scheduler."""

    def __init__(self, client: Any, text: str, say: Say) -> None:
        super().__init__(say)
        self._client = client
        self._tasks: dict[Future[Any], Any] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._broken = ""
        with suppress(TimeoutError):
            client.wait_for_workers(1, timeout=START)
        self._workers: dict[str, int] = client.nthreads()
        if not self._workers:
            raise ResourceError(
                f"cluster {printable(text)}: it has no workers, and none came in {START:g} s; start them on your "
                f"machines: dask worker {text.removeprefix('dask://')}"
            )
        threading.Thread(target=self._watch, name="i2i-dask", daemon=True).start()

    @property
    def places(self) -> int:
        return max(1, sum(self._workers.values()))

    def submit(self, function: Callable[..., T], /, *arguments: Any, **named: Any) -> "Future[T]":
        if self._broken:
            raise BrokenExecutor(self._broken)
        if self._closed.is_set():
            raise RuntimeError("cannot submit after shutdown")
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()  # Dask does not say when, and a call that runs cannot be taken back
        task = self._client.submit(*_packed(function, arguments, named), pure=False)
        with self._lock:
            self._tasks[future] = task
        task.add_done_callback(partial(self._finished, future))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._closed.set()
        with self._lock:
            left = dict(self._tasks)
        if cancel_futures and left:
            with suppress(Exception):
                self._client.cancel(list(left.values()), asynchronous=False)
        if wait:
            for future in left:
                with suppress(Exception):
                    future.exception()

    def _everywhere(self, function: Callable[..., Any], arguments: Sequence[object]) -> dict[str, Any]:
        found = self._client.run(*_packed(function, arguments, {}), on_error="return")
        return {_host(worker): result for worker, result in found.items()}

    def _finished(self, future: "Future[Any]", task: Any) -> None:
        try:
            # where the worker went before it handed over a result, this waits for another to make it
            _settle(future, task.result())
        except Exception as error:
            if task.status == "error":
                _fail(future, _of_dask(error))
            else:
                self._broken = self._broken or "the scheduler of Dask is gone, or has let go of the work"
                _fail(future, BrokenExecutor(self._broken))
        finally:
            with self._lock:
                self._tasks.pop(future, None)

    def _watch(self) -> None:
        """Counts the workers, and tells of those that are gone."""
        alone_since = 0.0
        while not self._closed.wait(2 * _POLL):
            try:
                now: dict[str, int] = self._client.nthreads()
            except Exception:
                now = {}
            for worker in self._workers.keys() - now.keys():
                self._tell_lost(_host(worker))
            self._workers = now
            alone_since = 0.0 if now else alone_since or time.monotonic()
            if alone_since and time.monotonic() - alone_since > RETURN:
                self._break(f"all workers of the cluster are gone, and none came back in {RETURN:g} s")
                return

    def _break(self, reason: str) -> None:
        self._broken = reason
        with self._lock:
            left = list(self._tasks)
        for future in left:
            _fail(future, BrokenExecutor(reason))


def _packed(
    function: Callable[..., Any], arguments: Sequence[object], named: Mapping[str, object]
) -> tuple[Any, bytes]:
    """A call as a function and bytes for it, which only a worker reads: a scheduler needs no i2i then, and a worker
    without it says so. That function travels whole, as it has no name that can be imported."""

    def call(data: bytes) -> Any:
        from multiprocessing.reduction import ForkingPickler

        function, arguments, named = ForkingPickler.loads(data)
        return function(*arguments, **named)

    return call, bytes(ForkingPickler.dumps((function, arguments, named)))


def _of_dask(error: BaseException) -> BaseException:
    if type(error).__name__ == "KilledWorker":
        last = getattr(error, "last_worker", None)
        return _killer(_host(str(getattr(last, "address", last))))
    return error


def _host(worker: str) -> str:
    """`tcp://10.0.0.5:41234` as people say it."""
    return worker.partition("://")[2] or worker
