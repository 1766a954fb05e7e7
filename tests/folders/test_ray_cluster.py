"""Ray as an executor, with actors that are threads: which call is made where, and how often."""

import socket
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import local_clusters
import pytest
from local_clusters import until

from i2i.errors import OutputError, ResourceError
from i2i.folders import ray_cluster
from i2i.folders.clusters import RETURN, TRIES
from i2i.folders.ray_cluster import RayCluster

HOST = socket.gethostname()


@pytest.mark.parametrize(
    ("resources", "share", "room"),
    [
        ({"CPU": 4.0}, 0.0, 4),
        ({"CPU": 4.0, "GPU": 1.0}, 1.0, 1),
        ({"CPU": 8.0, "GPU": 2.0}, 0.4, 4),
        ({"CPU": 3.0, "GPU": 2.0}, 0.5, 3),
        ({"CPU": 4.0}, 0.5, 0),
        ({}, 0.0, 0),
    ],
)
def test_the_room_of_a_node(resources: dict[str, float], share: float, room: int) -> None:
    assert ray_cluster._room(resources, share) == room


class RayError(Exception):
    pass


class RayActorError(RayError):
    pass


class RayTaskError(RayError):
    def __init__(self, cause: Exception) -> None:
        self.cause = cause


class Dies(Exception):
    """Raised by a call that ends its worker."""


class Actor:
    def __init__(self) -> None:
        self._thread, self.dead = ThreadPoolExecutor(1), False
        self.call = SimpleNamespace(remote=self._remote)

    def _remote(self, function: Callable[[], Any]) -> SimpleNamespace:
        made = self._thread.submit(self._call, function)
        return SimpleNamespace(future=lambda: made)

    def _call(self, function: Callable[[], Any]) -> Any:
        try:
            return function()
        except Dies:
            self.dead = True
        except Exception as error:
            raise RayTaskError(error) from None
        raise RayActorError


class FakeRay:
    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, starts: int = 1000) -> None:
        self.actors: list[Actor] = []
        self.killed: list[Actor] = []
        self._starts = threading.Semaphore(starts)

    def remote(self, **options: Any) -> Callable[[type], Any]:
        assert options["max_restarts"] == options["max_task_retries"] == 0
        return lambda kind: SimpleNamespace(remote=self._new)

    def _new(self) -> Actor:
        self.actors.append(Actor())
        if not self._starts.acquire(blocking=False):
            self.actors[-1]._thread.submit(threading.Event().wait, 3)  # no room for it
        return self.actors[-1]

    def get(self, task: Any) -> Any:
        return task.future().result()

    def kill(self, actor: Actor) -> None:
        self.killed.append(actor)


def cluster_of(ray: FakeRay, places: int = 2) -> tuple[RayCluster, list[str]]:
    said: list[str] = []
    return RayCluster(ray, [ray_cluster._Node("node", "host", places)], 0.0, said.append), said


def dies_at_first(marks: list[int]) -> int:
    marks.append(1)
    if len(marks) == 1:
        raise Dies
    return len(marks)


def test_calls_are_made_and_errors_arrive_as_they_were_raised() -> None:
    ray = FakeRay()
    cluster, said = cluster_of(ray)
    found = [cluster.submit(local_clusters.square, number=number) for number in range(20)]
    refused = cluster.submit(local_clusters.refuse, 7)
    assert [future.result(10) for future in found] == [number**2 for number in range(20)]
    with pytest.raises(OutputError, match="refused: 7"):
        refused.result(10)
    cluster.shutdown()
    cluster.close()
    assert not said and not cluster.notices and sorted(map(id, ray.killed)) == sorted(map(id, ray.actors))
    with pytest.raises(RuntimeError, match="after shutdown"):
        cluster.submit(local_clusters.square, 1)


def test_a_call_whose_worker_died_is_made_again() -> None:
    cluster, _ = cluster_of(FakeRay())
    marks: list[int] = []
    future = cluster.submit(dies_at_first, marks)
    cluster.shutdown()  # and it waits for that
    assert future.result(0) == 2
    cluster, said = cluster_of(FakeRay())
    assert cluster.submit(dies_at_first, []).result(10) == 2
    until(lambda: said)
    assert said == [f"lost a worker on {HOST}; others take over its pictures"]
    assert cluster.notices == [f"workers lost: {HOST}; others made the results that they had not finished"]
    cluster.shutdown()


def test_a_call_that_ends_its_workers_is_given_up() -> None:
    def ends() -> None:
        made.append(1)
        raise Dies

    made: list[int] = []
    cluster, _ = cluster_of(FakeRay())
    with pytest.raises(ResourceError, match=f"{TRIES} workers ended while they had it, the last on {HOST}"):
        cluster.submit(ends).result(10)
    assert cluster.submit(local_clusters.square, 3).result(10) == 9 and len(made) == TRIES
    cluster.shutdown()


def test_calls_that_wait_can_be_cancelled() -> None:
    cluster, _ = cluster_of(FakeRay(), places=1)
    go = threading.Event()
    first, second, third = cluster.submit(go.wait, 10), cluster.submit(abs, 1), cluster.submit(abs, 2)
    until(first.running)
    assert not first.cancel() and second.cancel()
    cluster.shutdown(wait=False, cancel_futures=True)
    go.set()
    assert first.result(10) and third.cancelled()


def test_a_cluster_that_lost_all_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    def ends() -> None:
        raise Dies

    monkeypatch.setattr(ray_cluster, "RETURN", 0.05)
    cluster, _ = cluster_of(FakeRay(starts=1), places=1)
    with pytest.raises(BrokenExecutor, match="all workers of the cluster are gone"):
        cluster.submit(ends).result(10)
    with pytest.raises(BrokenExecutor):
        cluster.submit(abs, 1).result(10)
    assert RETURN > 60


def test_a_cluster_without_room() -> None:
    cluster, _ = cluster_of(FakeRay(starts=0))
    assert not cluster.has_worker(0.05)
    cluster.close()
