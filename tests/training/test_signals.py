"""Asked to stop: one step at most, a saved state, the right exit code, one message, nobody left behind."""

import os
import re
import signal
import time
from functools import cache
from pathlib import Path

import psutil
import pytest
from children import Child, digest, lines, new_folder, run, start, status, strays
from faults import FailAt, SignalAt, SignalWhileLoading

LONG = "--max-steps 100000 --log-every 1 --save-every 100000"


def group(child: Child) -> list[psutil.Process]:
    """The processes of the child's group that are left: itself and its data workers."""
    return [p for p in psutil.process_iter(["pid"]) if _group(p) == child.pid and p.status() != psutil.STATUS_ZOMBIE]


def _group(process: psutil.Process) -> int:
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return -1


@cache
def straight(steps: int) -> str:
    """The result of so many steps."""
    folder = new_folder() / "run"
    run("cyclegan", folder, f"--max-steps {steps} --workers 0")
    return digest(folder)


def assert_stopped(child: Child, number: int, step: int) -> None:
    code = child.wait()
    assert code == (130 if number == signal.SIGINT else 75), child.said()
    assert "Traceback" not in child.said()
    assert len(re.findall("to go on, run the same command again", child.said())) == 1
    assert status(child.folder)["status"] == ("interrupted" if number == signal.SIGINT else "preempted")
    assert status(child.folder)["step"] == step
    assert [line["step"] for line in lines(child.folder, "step")] == list(range(1, step + 1))
    assert not strays(child.folder)
    assert not group(child), "somebody was left behind"


@pytest.mark.promise("R6")
@pytest.mark.parametrize(
    ("number", "whole_group"),
    [(signal.SIGTERM, False), (signal.SIGINT, True), (signal.SIGUSR1, False)],
    ids=["SIGTERM-alone", "SIGINT-group", "SIGUSR1-alone"],
)
def test_a_signal_in_a_step_ends_after_it(number: signal.Signals, whole_group: bool, tmp_path: Path) -> None:
    child = start("cyclegan", tmp_path / "run", f"{LONG} --workers 2", [SignalAt("step", 5, number, group=whole_group)])
    assert_stopped(child, number, step=5)
    assert digest(child.folder) == straight(5)


@pytest.mark.parametrize("place", ["agree", "save"])
def test_no_signal_is_lost(place: str, tmp_path: Path) -> None:
    """It comes when the processes agree on what to do next, or while a state is being written."""
    hook = SignalAt(place, 5, signal.SIGTERM)
    child = start("cyclegan", tmp_path / "run", f"{LONG.replace('100000', '300')} --save-every 5 --workers 0", [hook])
    assert_stopped(child, signal.SIGTERM, step=6)
    assert digest(child.folder) == straight(6)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_workers_finish_the_batch_that_is_waited_for(number: signal.Signals, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    hook = SignalWhileLoading(5, number, marks)
    child = start("cyclegan", tmp_path / "run", f"{LONG} --workers 1", [hook])
    assert_stopped(child, number, step=6)
    assert marks.read_text() == "x", "the worker died, and the sample was prepared again"


@pytest.mark.parametrize("place", ["step", "save"])
def test_a_second_interrupt_ends_at_once(place: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = "--max-steps 9 --log-every 1 --save-every 3 --workers 2"
    child = start("cyclegan", folder, options, [SignalAt(place, 5 if place == "step" else 6, signal.SIGINT, times=2)])
    assert child.wait() == 130, child.said()
    assert "Traceback" not in child.said()
    assert sorted(path.name for path in folder.glob("state-*.pt")) == ["state-00000003.pt"]
    assert status(folder)["status"] == "interrupted"
    assert not strays(folder)
    assert not group(child)
    run("cyclegan", folder, options)
    assert digest(folder) == straight(9)


def stop_at_random(folder: Path, number: signal.Signals, delay: float) -> None:
    child = start("cyclegan", folder, f"{LONG} --workers 1")
    child.until(lambda: (folder / "status.json").exists() and status(folder)["pid"] == child.pid)
    time.sleep(delay)
    child.signal(number, group=True)
    asked = time.monotonic()
    code = child.wait()
    assert code == (130 if number == signal.SIGINT else 75), child.said()
    assert time.monotonic() - asked < 20
    assert "Traceback" not in child.said()
    assert not group(child)
    steps = [line["step"] for line in lines(folder, "step")]
    assert steps == list(range(1, status(folder)["step"] + 1))


@pytest.mark.promise("R6")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_signals_at_random_moments(number: signal.Signals, tmp_path: Path) -> None:
    for delay in (0.0, 0.05):  # the second one resumes the first
        stop_at_random(tmp_path / "run", number, delay)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1], ids=lambda n: n.name)
def test_signals_at_random_moments_many_times(number: signal.Signals, tmp_path: Path) -> None:
    for i in range(50):
        stop_at_random(tmp_path / "run", number, i * 0.01)


def test_a_signal_before_the_training_starts(tmp_path: Path) -> None:
    child = start("cyclegan", tmp_path / "run", LONG, [SignalAt("data", 1, signal.SIGTERM)])
    assert child.wait() == 143
    assert not (tmp_path / "run").exists()


def test_the_status_holds_an_unexpected_error(tmp_path: Path) -> None:
    child = start("cyclegan", tmp_path / "run", "--max-steps 9 --workers 1", [FailAt(5, "a bug")])
    assert child.wait() == 1
    assert "a bug" in child.said()
    assert status(tmp_path / "run")["status"] == "failed"
    assert status(tmp_path / "run")["reason"] == "a bug"
    assert not group(child)


@pytest.mark.promise("R9")
@pytest.mark.parametrize("what", ["cuda", "cpu"])
def test_out_of_memory_says_what_to_try(what: str, tmp_path: Path) -> None:
    hook = FailAt(1, f"out of memory: {what}")
    child = start("cyclegan", tmp_path / "run", "--batch-size 4 --max-steps 9 --workers 0", [hook])
    assert child.wait() == 9
    assert "out of memory with batches of 4 at 16x16" in child.said()
    assert "--micro-batches 2" in child.said() and "--batch-size 1" in child.said()
    assert "unexpected" not in child.said()
