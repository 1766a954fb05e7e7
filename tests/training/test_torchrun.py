"""Trainings under torchrun itself, which starts them again when one of their processes is gone."""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from children import SCRIPTS, digest, lines, status, strays, tiny
from faults import BeforeFile, KillInStep, die
from fork_server import free_port

from i2i.files import sha256

CHILD = Path(__file__).parents[1] / "support" / "torchrun_child.py"
OPTIONS = "--device cpu --log-every 1"
Faults = dict[tuple[int, int], list[Any]]
"""(restart, rank) → the faults of that process."""


@pytest.fixture
def torchrun(tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts torchrun with a tiny training. In the end no process of it is left."""
    mark = {"I2I_TEST_MARK": str(tmp_path)}

    def start(
        folder: Path, options: str, faults: Faults | None = None, flags: str = "--nproc-per-node 2 --standalone"
    ) -> "subprocess.Popen[str]":
        planted = tmp_path / f"faults-{folder.name}"
        planted.write_bytes(pickle.dumps(faults or {}))
        words = [
            str(CHILD),
            str(planted),
            str(SCRIPTS / "train_cyclegan.py"),
            *tiny("cyclegan", f"{OPTIONS} {options}"),
        ]
        return subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *flags.split(), "--", *words, "--run", str(folder)],
            env=os.environ | mark | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPTS.parent)},
            stderr=subprocess.PIPE,
            text=True,
        )

    yield start
    until(lambda: not marked(mark), 20)


def marked(mark: dict[str, str]) -> list[psutil.Process]:
    """The processes that have these variables."""
    found = []
    for process in psutil.process_iter():
        try:
            if mark.items() <= process.environ().items() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
    return found


def until(condition: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"nothing happened in {seconds} s"
        time.sleep(0.05)


def assert_same(folder: Path, undisturbed: Path) -> None:
    """Two folders in which runs have ended alike."""
    assert digest(folder) == digest(undisturbed)
    for path in undisturbed.glob("*.safetensors"):
        assert sha256(folder / path.name) == sha256(path), path.name
    assert lines(folder, "step") == lines(undisturbed, "step")
    assert status(folder)["status"] == "finished" and status(folder)["processes"] == 2
    assert not strays(folder) and not (folder / ".lock").exists()


KILLS: Faults = {
    (0, 1): [KillInStep(14)],
    (1, 0): [BeforeFile("state-00000006.pt", die)],
    (2, 1): [die],
}
"""Three kills: in a step, while a state is saved, and at the start, while the other process waits."""


@pytest.mark.slow
@pytest.mark.promise("R18", "R19")
@pytest.mark.parametrize("workers", [0, 1])
def test_killed_three_times_it_ends_as_if_nothing_had_been(
    workers: int, torchrun: Callable[..., "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    options = f"--max-steps 10 --save-every 3 --workers {workers}"
    folder, undisturbed = tmp_path / "run", tmp_path / "straight"
    told = torchrun(undisturbed, options).communicate()[1]
    assert told.count("finished after 10 steps") == 1, told
    killed = torchrun(folder, options, KILLS, "--nproc-per-node 2 --standalone --max-restarts 3")
    told = killed.communicate()[1]
    assert killed.returncode == 0, told
    assert [told.count(f"resumed at step {step} ") for step in (3, 6)] == [2, 0], told
    assert_same(folder, undisturbed)


@pytest.mark.slow
@pytest.mark.promise("R6", "R7", "H18")
@pytest.mark.parametrize("forwarded", [True, False], ids=["told-to-forward", "killed-by-it"])
def test_a_signal_for_torchrun_is_one_for_its_processes(
    forwarded: bool, torchrun: Callable[..., "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    flags = "--nproc-per-node 2 --standalone --max-restarts 3"
    if forwarded:
        flags += " --signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
    process = torchrun(folder, "--max-steps 100000 --workers 1", flags=flags)
    until((folder / "status.json").exists)
    process.send_signal(signal.SIGUSR1)
    process.communicate()
    assert process.returncode == (1 if forwarded else -signal.SIGUSR1)
    until(lambda: status(folder)["status"] == "preempted")
    told = status(folder)
    assert told["exit_code"] == 75 and (folder / f"state-{told['step']:08d}.json").exists()
    assert [line["step"] for line in lines(folder, "step")] == [*range(1, told["step"] + 1)]


@pytest.mark.slow
@pytest.mark.promise("R18", "R19")
def test_a_machine_goes_and_comes_back(
    torchrun: Callable[..., "subprocess.Popen[str]"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two machines of one process each; the training goes on with one of them, and then with both."""
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")  # as the guide says
    folder = tmp_path / "run"
    meeting = f"--rdzv-backend c10d --rdzv-id 7 --rdzv-endpoint 127.0.0.1:{free_port()}"
    flags = f"--nnodes 1:2 --nproc-per-node 1 --max-restarts 3 {meeting} --rdzv-conf last_call_timeout=5"
    options = "--max-steps 100000 --save-every 5 --workers 0"
    stays, goes = (torchrun(folder, options, flags=flags) for _ in range(2))

    def goes_on_with(processes: int) -> None:
        until(lambda: (folder / "status.json").exists() and status(folder)["processes"] == processes, 120)
        step = status(folder)["step"]
        until(lambda: status(folder)["step"] >= step + 10)

    goes_on_with(2)
    for process in [*psutil.Process(goes.pid).children(recursive=True), psutil.Process(goes.pid)]:
        process.kill()
    goes_on_with(1)
    comes = torchrun(folder, options, flags=flags)
    goes_on_with(2)
    for process in (comes, stays):
        process.terminate()
    told = [process.communicate()[1] for process in (comes, stays, goes)]
    assert status(folder)["status"] == "preempted", told
    assert [line["step"] for line in lines(folder, "step")] == [*range(1, status(folder)["step"] + 1)]
    events = [line["text"] for line in lines(folder, "event")]
    assert any("processes: 2 so far, now 1" in text for text in events), events
    assert any("processes: 1 so far, now 2" in text for text in events), events
