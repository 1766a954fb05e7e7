"""Clusters as executors: addresses, lost workers, and folders translated on clusters of this machine."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import local_clusters
import psutil
import pytest
from batch_tools import folder, model, tree
from command_line import exit_code
from local_clusters import ENVIRONMENT, LocalCluster, dask_here, ray_here, until

from i2i.errors import OutputError, ResourceError, UsageError
from i2i.folders import clusters, ray_cluster
from i2i.folders.batch import translate_folder
from i2i.folders.clusters import RETURN, TRIES, parse_address
from i2i.folders.ray_cluster import RayCluster

HOST = socket.gethostname()


@pytest.mark.parametrize(
    ("text", "library", "place", "endpoint"),
    [
        ("ray", "ray", "", None),
        ("ray:auto", "ray", "auto", None),
        ("ray:head:6379", "ray", "head:6379", ("head", 6379)),
        ("ray:[::1]:6379", "ray", "[::1]:6379", ("::1", 6379)),
        ("ray://head:10001", "ray", "ray://head:10001", ("head", 10001)),
        ("dask://head:8786", "dask", "tcp://head:8786", ("head", 8786)),
        ("dask:tls://head:8786", "dask", "tls://head:8786", ("head", 8786)),
    ],
)
def test_addresses(text: str, library: str, place: str, endpoint: tuple[str, int] | None) -> None:
    address = parse_address(text)
    assert (address.library, address.place, address.endpoint) == (library, place, endpoint)


@pytest.mark.parametrize("text", ["spark", "dask", "dask:", "ray:", "ray:head", "dask://head", "ray://head:x", " ray"])
def test_wrong_addresses(text: str) -> None:
    with pytest.raises(UsageError, match="expected ray, ray:HOST:6379, ray://HOST:10001 or dask://HOST:8786"):
        parse_address(text)


def test_errors_come_before_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, style = folder(tmp_path / "in", ["a.png"]), model(tmp_path / "m.safetensors")
    words = ("translate", "--style", str(style), str(source), "-o", str(tmp_path / "out"), "--cluster")
    with socket.socket() as taken:  # bound, and not listening
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert exit_code(*words, f"dask://127.0.0.1:{port}") == 9
        assert exit_code(*words, f"ray:127.0.0.1:{port}") == 9
    assert capsys.readouterr().err.count(f"nothing answers at 127.0.0.1:{port}") == 2
    assert exit_code(*words, "dask", "--dry-run") == 2
    assert exit_code(*words, "dask://x:1", "--gpu-share", "0.5", "--dry-run") == 2
    monkeypatch.setattr(clusters, "find_spec", lambda name: None)
    assert exit_code(*words, "ray", "--dry-run") == 2
    assert "needs Ray: pip install 'i2i[ray]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_another_service_at_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("i2i.folders.dask_cluster.ANSWER", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connecting = clusters.open_cluster(f"dask://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(ResourceError, match="another service"), connecting:
            pass


def test_two_ways_to_share_out_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, style = folder(tmp_path / "in", ["a.png"]), model(tmp_path / "m.safetensors")
    with ThreadPoolExecutor(1) as threads, pytest.raises(UsageError, match="contradict each other"):
        translate_folder(source, tmp_path / "out", style, cluster="ray", executor=threads)
    from i2i.commands import translate

    with pytest.raises(UsageError, match="without torchrun"):
        translate.share(translate.Options(cluster="ray"), 0, 2)


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


def test_what_a_check_says_of_a_worker() -> None:
    own = OutputError("no folder")
    assert clusters.explained("host", own) is own
    absent = clusters.explained("host", ModuleNotFoundError("No module named 'i2i'"))
    assert isinstance(absent, UsageError) and "host cannot run this i2i" in str(absent)
    assert isinstance(clusters.explained("host", OSError("x")), ResourceError)


# Ray's actors as threads: which call is made where, and how often


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


# real clusters


@pytest.fixture(params=["dask", "ray"])
def here(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    pytest.importorskip({"dask": "distributed", "ray": "ray"}[request.param])
    path = Path("/tmp", f"i2i-tests-{os.getpid()}-{request.param}")  # sockets have short paths
    path.mkdir()
    try:
        with (dask_here if request.param == "dask" else ray_here)(path) as cluster:
            yield cluster
    finally:
        subprocess.run(["rm", "-rf", path], check=True)


def start(style: Path, source: Path, out: Path, cluster: str, *words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "i2i", "translate", "--style", style, "--runtime", "torch", source, "-o", out]
    command += ["--cluster", cluster, "--report", out.with_suffix(".json"), *words]
    return subprocess.Popen(
        command, env=ENVIRONMENT, cwd=out.parent, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def count(out: Path) -> int:
    return sum(name.endswith(".png") for _, _, names in os.walk(out) for name in names)


def check(child: "subprocess.Popen[str]", out: Path, whole: Path, lost: bool = True) -> None:
    """The output is that of one process, nothing is left behind, and the report is true."""
    _, said = child.communicate(timeout=1800)
    assert child.returncode == 0, said
    assert tree(out) == tree(whole)  # hidden files too
    report = json.loads(out.with_suffix(".json").read_text())
    records = report["records"]
    assert {record["status"] for record in records} == {"done"} and len(records) == len(tree(whole))
    assert {record["target"] for record in records} == {str(out / name) for name in tree(whole)}
    assert any("workers lost" in notice for notice in report["notices"]) == lost
    assert ("lost a worker" in said) == lost


@pytest.mark.promise("R54")
@pytest.mark.slow
@pytest.mark.timeout(10800)
def test_workers_and_nodes_are_killed(tmp_path: Path, here: LocalCluster) -> None:
    source, style = tmp_path / "in", model(tmp_path / "m.safetensors")
    folder(source, [f"{number % 20}/{number}.png" for number in range(2000)], height=24, width=16)
    translate_folder(source, tmp_path / "whole", style, runtime="torch")
    for number, how in enumerate(("worker", "both", "node") * 3):
        until(lambda: not isinstance(here, local_clusters.DaskHere) or len(here.workers()) == 2)
        out = tmp_path / f"out-{number}"
        child = start(style, source, out, here.address)
        until(lambda: count(out) > 100 + 150 * number or child.poll() is not None)  # noqa: B023
        assert child.poll() is None and count(out) < 2000
        if how == "node":
            here.kill_node()
        for worker in here.workers()[: {"worker": 1, "both": 2, "node": 0}[how]]:
            worker.kill()
        began = time.monotonic()
        check(child, out, tmp_path / "whole")
        print(f"{here.address}: {how} killed; done {time.monotonic() - began:.1f} s later", flush=True)
        if how == "node":
            here.add_node()


@pytest.mark.promise("R54")
def test_a_worker_of_dask_is_killed(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    source, style = folder(tmp_path / "in", [f"{i}.png" for i in range(60)]), model(tmp_path / "m.safetensors")
    translate_folder(source, tmp_path / "whole", style, runtime="torch")
    with dask_here(tmp_path) as here:
        until(lambda: len(here.workers()) == 2)
        child = start(style, source, tmp_path / "out", here.address)
        until(lambda: count(tmp_path / "out") > 10 or child.poll() is not None)
        here.workers()[0].kill()
        check(child, tmp_path / "out", tmp_path / "whole")


def own_processes(child: "subprocess.Popen[str]") -> list[psutil.Process]:
    return psutil.Process(child.pid).children(recursive=True)


@pytest.mark.promise("R54")
@pytest.mark.slow
def test_a_worker_of_an_own_cluster_of_ray_is_killed(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    source, style = folder(tmp_path / "in", [f"{i}.png" for i in range(60)]), model(tmp_path / "m.safetensors")
    translate_folder(source, tmp_path / "whole", style, runtime="torch")
    child = start(style, source, tmp_path / "out", "ray")
    until(lambda: count(tmp_path / "out") > 10 or child.poll() is not None)
    started = own_processes(child)
    next(one for one in started if "I2IWorker" in " ".join(one.cmdline())).kill()
    check(child, tmp_path / "out", tmp_path / "whole")
    assert not psutil.wait_procs(started, timeout=10)[1]
    assert not [path for path in Path("/tmp").glob("i2i-ray-*") if path.stat().st_mtime > source.stat().st_mtime]


@pytest.mark.promise("R40")
@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_an_interruption_leaves_no_process(tmp_path: Path, times: int) -> None:
    """As the terminal does it: all processes of the group get the signal."""
    pytest.importorskip("ray")
    source, style = folder(tmp_path / "in", [f"{i}.png" for i in range(2000)]), model(tmp_path / "m.safetensors")
    child = start(style, source, tmp_path / "out", "ray")
    until(lambda: count(tmp_path / "out") > 10 or child.poll() is not None)
    started = own_processes(child)
    for _ in range(times):
        os.killpg(child.pid, signal.SIGINT)
        time.sleep(0.2)
    _, said = child.communicate(timeout=120)
    assert child.returncode == 130, said
    assert not psutil.wait_procs(started, timeout=20)[1]
    if times == 1:
        assert "the same command with --skip-existing goes on" in said and not tree(tmp_path / "out").keys() - {
            f"{i}.png" for i in range(2000)
        }
        counts = json.loads((tmp_path / "out.json").read_text())["counts"]
        assert counts["done"] == count(tmp_path / "out") < 2000 and counts["left"] == 2000 - counts["done"]
