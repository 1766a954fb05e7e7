"""Asked to stop, it stops in good order: a report that says what is left, whole outputs, nobody left behind."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from batch_tools import Child, Slow, folder, model, run, start, tree

from i2i.folders.batch import translate_folder

NAMES = tuple(f"{i:02}.{['png', 'jpg'][i % 2]}" for i in range(30))
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


def _words(tmp_path: Path, out: str) -> tuple[Any, ...]:
    source = tmp_path / "in"
    if not source.exists():
        folder(source, NAMES)
        model(tmp_path / "m.safetensors")
    words = ("--style", tmp_path / "m.safetensors", source, "-o", tmp_path / out, "--device", "cpu")
    return (*words, "--report", tmp_path / f"{out}.json")


def _group(child: Child) -> list[int]:
    """The processes that the child and its descendants are."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == child.pid and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


@pytest.mark.promise("R40", "R42", "R22")
@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("options", [(), ("--workers", "4", "--batch-size", "4")], ids=["plain", "many"])
def test_a_signal_under_way(tmp_path: Path, number: int, options: tuple[str, ...]) -> None:
    out, words = tmp_path / "out", _words(tmp_path, "out")
    translate_folder(tmp_path / "in", tmp_path / "whole", tmp_path / "m.safetensors", runtime="torch", device="cpu")
    child = start(tmp_path, *words, *options, prepare=[Slow(0.02, 0.005)])
    child.until(lambda: out.exists() and len(tree(out)) >= 3)
    assert _group(child) == [child.pid]
    begun = time.monotonic()
    os.kill(child.pid, number)
    assert child.wait() == CODES[signal.Signals(number)], child.stderr
    assert time.monotonic() - begun < 5
    assert _group(child) == []
    assert "Traceback" not in child.stderr and "--skip-existing goes on" in child.stderr
    report = json.loads((tmp_path / "out.json").read_text("ascii"))
    counts, records = report["counts"], report["records"]
    assert counts["left"] > 0 and counts["done"] >= 1 and sum(counts.values()) == len(NAMES) == len(records)
    expected = tree(tmp_path / "whole")
    found = tree(out)
    assert set(found) == {Path(r["target"]).name for r in records if r["status"] == "done"}
    assert found.items() <= expected.items()
    assert run(tmp_path, *_words(tmp_path, "out"), "--skip-existing")[0] == 0
    assert tree(out) == expected


@pytest.mark.promise("R40")
@pytest.mark.parametrize("first", CODES)
def test_a_second_interrupt_ends_at_once(tmp_path: Path, first: int) -> None:
    child = start(tmp_path, *_words(tmp_path, "out"), prepare=[Slow(30.0)])
    child.until((tmp_path / "out").exists)
    time.sleep(0.3)
    os.kill(child.pid, first)
    time.sleep(0.3)
    assert child.process.is_alive()
    os.kill(child.pid, signal.SIGINT)
    assert child.wait(10) == 130, child.stderr
    assert "Traceback" not in child.stderr
    assert tree(tmp_path / "out") == {}
    assert json.loads((tmp_path / "out.json").read_text())["counts"]["left"] == len(NAMES)


class _Early:
    """A signal while the model is being loaded."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self) -> None:
        from i2i.models import model_file

        load = model_file.open_model

        def interrupted(*arguments: Any, **options: Any) -> Any:
            os.kill(os.getpid(), self.number)
            return load(*arguments, **options)

        model_file.open_model = interrupted


@pytest.mark.promise("R40")
@pytest.mark.parametrize("number", CODES)
def test_a_signal_before_the_first_picture(tmp_path: Path, number: int) -> None:
    code, child = run(tmp_path, *_words(tmp_path, "out"), prepare=[_Early(number)])
    assert code == CODES[signal.Signals(number)], child.stderr
    assert "Traceback" not in child.stderr and tree(tmp_path / "out") == {}
    if (tmp_path / "out.json").exists():  # there is nothing to report before the work is known
        assert json.loads((tmp_path / "out.json").read_text())["counts"]["left"] == len(NAMES)


class _SlowFetch:
    """A model that takes long to come; `mark` says that it is on its way."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __call__(self) -> None:
        from i2i.models import model_file

        def slow(*_: Any, **options: Any) -> Any:
            self.mark.touch()
            for _second in range(300):
                time.sleep(0.1)
            raise AssertionError("not stopped")

        model_file.open_model = slow


@pytest.mark.promise("R40")
@pytest.mark.parametrize("number", CODES)
def test_a_signal_while_the_model_comes(tmp_path: Path, number: int) -> None:
    mark = tmp_path / "mark"
    child = start(tmp_path, *_words(tmp_path, "out"), prepare=[_SlowFetch(mark)])
    child.until(mark.exists)
    os.kill(child.pid, number)
    assert child.wait(3) == CODES[signal.Signals(number)], child.stderr


class _Late:
    """A signal while the report is being written."""

    def __call__(self) -> None:
        from i2i.folders.report import Report

        write = Report.write

        def interrupted(this: Report, path: Path) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            write(this, path)

        Report.write = interrupted  # type: ignore[method-assign]


@pytest.mark.promise("R40", "R42")
def test_a_signal_when_all_is_done_changes_nothing(tmp_path: Path) -> None:
    code, child = run(tmp_path, *_words(tmp_path, "out"), prepare=[_Late()])
    assert code == 0, child.stderr
    assert (
        json.loads((tmp_path / "out.json").read_text())["counts"]["done"] == len(NAMES) == len(tree(tmp_path / "out"))
    )
