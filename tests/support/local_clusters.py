"""Clusters of two nodes on this machine, whose workers and nodes tests may kill."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psutil

from i2i.errors import OutputError

SUPPORT = Path(__file__).parent
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(SUPPORT.parents[1]), str(SUPPORT)]),
    "OMP_NUM_THREADS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # on a busy machine
    "RAY_raylet_start_wait_time_s": "300",
    "RAY_agent_register_timeout_ms": "300000",
}


class LocalCluster(Protocol):
    """A cluster of two nodes with one worker each."""

    address: str

    def workers(self) -> list[psutil.Process]: ...
    def kill_node(self) -> None: ...
    def add_node(self) -> None: ...


def until(condition: Callable[[], Any], timeout: float = 600.0, every: float = 0.02) -> Any:
    """Waits for a true answer, and returns it."""
    end = time.monotonic() + timeout
    while not (answer := condition()):
        assert time.monotonic() < end, f"nothing happened in {timeout:g} s"
        time.sleep(every)
    return answer


def _kill(process: psutil.Process) -> None:
    """Kills it with all that it has started, as when a machine goes."""
    found = [process]
    with suppress(psutil.Error):
        found += process.children(recursive=True)
    for one in found:
        with suppress(psutil.Error):
            one.kill()
    psutil.wait_procs(found, timeout=10)


@dataclass
class DaskHere:
    """A scheduler, and two nannies with a worker each."""

    folder: Path
    address: str = ""
    nannies: list[psutil.Popen] = field(default_factory=list)

    def start(self, program: str, *words: str) -> psutil.Popen:
        command = [sys.executable, "-m", f"distributed.cli.dask_{program}", *words]
        with Path(self.folder, "log").open("ab") as log:
            return psutil.Popen(command, stdout=log, stderr=log, env=ENVIRONMENT, cwd=self.folder)

    def add_node(self) -> None:
        local = self.folder / f"worker{time.monotonic_ns()}"
        options = "--nthreads 1 --host 127.0.0.1 --no-dashboard --local-directory"
        place = self.address.replace("dask://", "tcp://")
        self.nannies.append(self.start("worker", place, *options.split(), str(local)))

    def workers(self) -> list[psutil.Process]:
        """The children that compute; each nanny has one beside Python's tracker of resources."""
        found = [child for nanny in self.nannies for child in nanny.children()]
        return [child for child in found if "spawn_main" in " ".join(child.cmdline())]

    def kill_node(self) -> None:
        _kill(self.nannies.pop())


@contextmanager
def dask_here(folder: Path) -> Iterator[DaskHere]:
    here = DaskHere(folder)
    file = folder / "scheduler.json"
    options = "--host 127.0.0.1 --port 0 --no-dashboard --dashboard-address 127.0.0.1:0 --scheduler-file"
    scheduler = here.start("scheduler", *options.split(), str(file))
    try:
        until(lambda: file.exists() and file.stat().st_size)
        here.address = json.loads(file.read_text())["address"].replace("tcp://", "dask://")
        here.add_node()
        here.add_node()
        yield here
    finally:
        for process in (*here.nannies, scheduler):
            _kill(process)


_RAY = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 80 << 20})
nodes = []
def report():
    pids = [p.process.pid for node in (cluster.head_node, *nodes) for p in node.all_processes["raylet"]]
    print(cluster.address, *pids, flush=True)
for _ in sys.stdin:
    for gone in nodes:
        cluster.remove_node(gone, allow_graceful=False)
    nodes[:] = [cluster.add_node(wait=False, num_cpus=1, object_store_memory=80 << 20)]
    cluster.wait_for_nodes(timeout=300)
    report()
cluster.shutdown()
"""


@dataclass
class RayHere:
    """Two nodes of Ray; the driver is on the first. A program of its own holds them."""

    program: psutil.Popen
    folder: Path
    address: str = ""
    raylets: list[psutil.Process] = field(default_factory=list)

    def add_node(self) -> None:
        self.program.stdin.write(b"\n")
        self.program.stdin.flush()
        while not (line := self.program.stdout.readline().decode().split()) or not line[-1].isdecimal():
            assert self.program.poll() is None, (self.folder / "log").read_text()[-2000:]
        self.address, self.raylets = f"ray:{line[0]}", [psutil.Process(int(pid)) for pid in line[1:]]

    def workers(self) -> list[psutil.Process]:
        found = []
        for raylet in self.raylets:
            with suppress(psutil.Error):
                found += [child for child in raylet.children() if "I2IWorker" in " ".join(child.cmdline())]
        return found

    def kill_node(self) -> None:
        _kill(self.raylets.pop())


@contextmanager
def ray_here(folder: Path) -> Iterator[RayHere]:
    environment = {**ENVIRONMENT, "RAY_TMPDIR": str(folder), "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-c", _RAY]
    with Path(folder, "log").open("ab") as log:
        program = psutil.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment, cwd=folder
        )
    here = RayHere(program, folder)
    try:
        here.add_node()
        yield here
    finally:
        program.stdin.close()
        with suppress(psutil.TimeoutExpired):
            program.wait(30)
        _kill(program)


# plain functions for their workers


def square(number: int, seconds: float = 0.0) -> int:
    time.sleep(seconds)
    return number * number


def refuse(number: int) -> None:
    raise OutputError(f"refused: {number}")


def die(number: int) -> None:
    os.kill(os.getpid(), 9)


def pid() -> int:
    return os.getpid()
