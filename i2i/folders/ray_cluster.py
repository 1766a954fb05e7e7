"""Ray as an executor.

A call waits here until an actor is free, so a node that dies holds nothing that waits. Ray does not restart our actors,
for it would keep their calls until there is room. A new one is asked for instead, on any node.
"""

import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Future
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from i2i.errors import I2IError, ResourceError, UsageError
from i2i.files import shared_folder
from i2i.folders.clusters import ALL_GONE, ANSWER, RETURN, START, TRIES, Address, Cluster, Say, explained, killer
from i2i.machine import cores
from i2i.terminal import printable

if TYPE_CHECKING:
    from ray.actor import ActorHandle

T = TypeVar("T")
_OBJECTS = 80 << 20
"""Bytes of Ray's store of objects in a cluster of our own: pictures never travel, so Ray's least is enough."""
_POLL = 1.0


@contextmanager
def ray_cluster(address: Address, gpu_share: float | None, say: Say) -> Iterator["RayCluster"]:
    """As `open_cluster`."""
    ray = _import_ray(own=not address.place)
    with _connected(ray, address):
        cluster = RayCluster(ray, *_nodes(ray, address, gpu_share), say)
        try:
            if not cluster.has_worker(START):
                raise address.unusable(
                    f"no worker has started in {START:g} s; other work may hold all of its processors and GPUs "
                    "(`ray status` shows it)"
                )
            yield cluster
        finally:
            cluster.close()


def _import_ray(own: bool) -> Any:
    """Ray reads these variables when it is imported. A cluster of our own listens on this machine alone, and answers
    nobody without its token. At a foreign address where something else listens, Ray would try for many minutes."""
    if not own:
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")
        os.environ.setdefault("RAY_py_gcs_connect_timeout_s", f"{ANSWER:.0f}")
    elif "ray" not in sys.modules:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        if os.environ.setdefault("RAY_AUTH_MODE", "token") == "token":
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray

    return ray


@contextmanager
def _connected(ray: ModuleType, address: Address) -> Iterator[None]:
    """Connects, or starts a cluster of our own, which ends with the context."""
    if ray.is_initialized():  # by the program that calls us, which goes on with it
        yield
        return
    options: dict[str, Any] = {"address": address.place, "log_to_driver": False, "logging_level": logging.CRITICAL}
    with ExitStack() as stack:
        if not address.place:
            short = Path("/tmp")  # the paths of its sockets have little room
            place = short if short.is_dir() else Path(tempfile.gettempdir())
            folder = stack.enter_context(shared_folder("ray", place, 0o700))
            options |= {"address": "local", "num_cpus": cores(), "object_store_memory": _OBJECTS}
            options |= {"include_dashboard": False, "_temp_dir": str(folder)}
        stack.callback(ray.shutdown)
        ray._private.worker._worker_logs_enabled = False  # else Ray prints on the standard output how workers died
        handler = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(**options)
        except I2IError:  # a signal
            raise
        except Exception as error:
            raise address.unusable(error) from None
        finally:
            with suppress(ValueError):  # only the main thread may handle signals
                signal.signal(signal.SIGTERM, handler)  # Ray takes it for itself
        yield


class _Node(NamedTuple):
    """A machine of Ray, and how many workers it holds."""

    id: str
    host: str
    room: int


def _nodes(ray: ModuleType, address: Address, gpu_share: float | None) -> tuple[list[_Node], float]:
    """The machines that can work, and the share of a GPU of each worker."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    has_gpus = any(node["Resources"].get("GPU") for node in alive)
    if gpu_share and not has_gpus:
        raise UsageError(f"gpu_share = {gpu_share:g}: the cluster {printable(address.text)} has no GPU; leave it out")
    gpus = float(has_gpus) if gpu_share is None else gpu_share
    nodes = [_Node(node["NodeID"], node["NodeManagerHostname"], _room(node["Resources"], gpus)) for node in alive]
    if not any(node.room for node in nodes):
        raise address.unusable("no node of it has a processor for a worker")
    return [node for node in nodes if node.room], gpus


def _room(resources: Mapping[str, float], gpus: float) -> int:
    """How many workers a node holds. The share of each is of one GPU: two shares of 0.4 fit on one."""
    room = int(resources.get("CPU", 0))
    return min(room, int(resources.get("GPU", 0)) * int(1 / gpus + 1e-9)) if gpus else room


class RayCluster(Cluster):
    """Actors of Ray, each of which makes one call at a time."""

    def __init__(self, ray: ModuleType, nodes: Sequence[_Node], gpus: float, say: Say) -> None:
        super().__init__(say, sum(node.room for node in nodes))
        self._ray, self._nodes = ray, nodes
        self._new = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=0, max_task_retries=0)(_actor_class()).remote
        self._hosts: dict[Any, str] = {}
        """The machine of each actor, empty until it has started."""
        self._free: SimpleQueue[Any] = SimpleQueue()
        """Actors without a call. None is for all: no worker comes any more."""
        self._alone_since = time.monotonic()
        self._closed = ""
        """Why there are no workers any more."""
        for _ in range(self.places):
            self._ask_for_worker()

    @property
    def places(self) -> int:
        return sum(node.room for node in self._nodes)

    def has_worker(self, timeout: float) -> bool:
        """Whether a worker is free within that time."""
        with suppress(Empty):
            self._free.put(self._free.get(timeout=timeout))
            return True
        return False

    def close(self) -> None:
        """Ends the workers, whatever they do."""
        self.shutdown(wait=False, cancel_futures=True)
        self._give_up("the cluster was left")
        for actor in list(self._hosts):
            with suppress(Exception):
                self._ray.kill(actor)

    def run_everywhere(self, function: Callable[..., object], *arguments: object) -> None:
        """Tasks without a processor run also on nodes whose processors are taken."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

        task = self._ray.remote(num_cpus=0, max_retries=0)(lambda function, *given: function(*given))
        asked = [
            (node.host, task.options(scheduling_strategy=On(node.id, soft=False)).remote(function, *arguments))
            for node in self._nodes
        ]
        for host, answer in asked:
            try:
                self._ray.get(answer, timeout=START)
            except self._ray.exceptions.GetTimeoutError:
                raise ResourceError(f"{host} cannot be used: no answer within {START:g} s") from None
            except Exception as error:
                raise explained(host, _cause(error)) from None

    def _call(self, call: Callable[[], T]) -> T:
        for _ in range(TRIES):
            actor = self._free_worker()
            host = self._hosts[actor]
            try:
                result: T = self._ray.get(actor.call.remote(call))
                return result
            except self._ray.exceptions.RayTaskError as error:
                raise _cause(error) from None
            except self._ray.exceptions.RayError:
                self._replace(actor)
                actor = None
            finally:
                if actor is not None:
                    self._free.put(actor)
        raise killer(host)

    def _free_worker(self) -> Any:
        """Raises `BrokenExecutor` once all are gone."""
        while True:
            try:
                actor = self._free.get(timeout=RETURN)
            except Empty:
                if not any(list(self._hosts.values())) and time.monotonic() - self._alone_since >= RETURN:
                    self._give_up(ALL_GONE)
                continue
            if actor is not None:
                return actor
            self._free.put(None)
            raise BrokenExecutor(self._closed)

    def _give_up(self, reason: str) -> None:
        self._closed = self._closed or reason
        self._free.put(None)

    def _ask_for_worker(self) -> None:
        """It is free once there is room for it."""
        if self._closed:
            return
        actor = self._new()
        self._hosts[actor] = ""
        actor.call.remote(socket.gethostname).future().add_done_callback(partial(self._started, actor))

    def _started(self, actor: "ActorHandle", host: "Future[str]") -> None:
        if host.exception() is not None:  # it died as it started
            del self._hosts[actor]
            threading.Timer(_POLL, self._ask_for_worker).start()
            return
        self._hosts[actor] = host.result()
        self._free.put(actor)

    def _replace(self, actor: "ActorHandle") -> None:
        """Another one for a worker that is gone."""
        if self._closed:
            return
        self._alone_since = time.monotonic()
        self.tell_lost(self._hosts.pop(actor))
        with suppress(Exception):  # one that is only out of reach must not go on beside its successor
            self._ray.kill(actor)
        self._ask_for_worker()


def _actor_class() -> type:
    """The class of the workers. Made here, it travels whole: a worker without i2i starts too, and says so."""

    class I2IWorker:
        def call(self, function: Callable[[], Any]) -> Any:
            return function()

    return I2IWorker


def _cause(error: Exception) -> BaseException:
    """The exception that a call raised, without what Ray puts around it."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, BaseException) else error
