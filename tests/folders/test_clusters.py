"""Clusters as executors: addresses, lost workers, and folders translated on clusters of this machine."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import batch_tools
import local_clusters
import psutil
import pytest
from batch_tools import folder, model, tree
from command_line import exit_code
from local_clusters import ENVIRONMENT, LocalCluster, dask_here, ray_here, until

from i2i.errors import OutputError, ResourceError, UsageError
from i2i.folders import clusters
from i2i.folders.batch import translate_folder
from i2i.folders.clusters import parse_address


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
    monkeypatch.setattr("i2i.folders.clusters.ANSWER", 0.5)
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
        translate.share(translate.TranslateCommand(cluster="ray"), 0, 2)


def test_what_a_check_says_of_a_worker() -> None:
    own = OutputError("no folder")
    assert clusters.explained("host", own) is own
    absent = clusters.explained("host", ModuleNotFoundError("No module named 'i2i'"))
    assert isinstance(absent, UsageError) and "host cannot run this i2i" in str(absent)
    assert isinstance(clusters.explained("host", OSError("x")), ResourceError)


def test_a_result_that_is_lost_with_its_worker_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long another worker takes for it."""
    task = SimpleNamespace(status="lost", times=0)

    def result(timeout: float) -> str:
        task.times += 1
        if task.times < 3:
            raise TimeoutError
        return "made"

    task.result = result
    client = SimpleNamespace(status="running", nthreads=lambda: {"tcp://host:1": 1})
    client.subscribe_topic, client.submit = (lambda *_: None), (lambda *_, **__: task)
    cluster = clusters.DaskCluster(client, lambda text: None)
    try:
        assert cluster.submit(str).result() == "made"
    finally:
        cluster.shutdown()


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


def ended(child: "subprocess.Popen[str]") -> tuple[int, str]:
    _, said = child.communicate(timeout=1800)
    return child.returncode, said


def check(code: int, said: str, out: Path, whole: Path, lost: bool = True) -> None:
    """The output is that of one process, nothing is left behind, and the report is true."""
    assert code == 0, said
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
        until(lambda: not isinstance(here, local_clusters.DaskHere) or len(here.workers()) == 2, every=0.2)
        out = tmp_path / f"out-{number}"
        child = start(style, source, out, here.address)
        until(lambda: count(out) > 100 + 150 * number or child.poll() is not None)  # noqa: B023
        assert child.poll() is None and count(out) < 2000
        if how == "node":
            here.kill_node()
        for worker in here.workers()[: {"worker": 1, "both": 2, "node": 0}[how]]:
            worker.kill()
        began = time.monotonic()
        check(*ended(child), out, tmp_path / "whole")
        print(f"{here.address}: {how} killed; done {time.monotonic() - began:.1f} s later", flush=True)
        if how == "node":
            here.add_node()


@pytest.mark.promise("R54")
def test_a_worker_of_dask_is_killed(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    source, style = folder(tmp_path / "in", [f"{i}.png" for i in range(60)]), model(tmp_path / "m.safetensors")
    out = tmp_path / "out"
    translate_folder(source, tmp_path / "whole", style, runtime="torch")
    with dask_here(tmp_path) as here:
        until(lambda: len(here.workers()) == 2, every=0.2)
        words = ("--style", style, "--runtime", "torch", source, "-o", out, "--cluster", here.address)
        child = batch_tools.start(tmp_path, *words, "--report", out.with_suffix(".json"))
        child.until(lambda: count(out) > 10, timeout=600)
        here.workers()[0].kill()
        check(child.wait(1800), child.stderr, out, tmp_path / "whole")


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
    check(*ended(child), tmp_path / "out", tmp_path / "whole")
    assert not psutil.wait_procs(started, timeout=10)[1]
    assert not [path for path in Path("/tmp").glob(".i2i-ray-*") if path.stat().st_mtime > source.stat().st_mtime]


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
