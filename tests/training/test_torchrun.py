"""Trainings under torchrun itself, which starts them again when one of their processes is gone."""

import os
import pickle
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
