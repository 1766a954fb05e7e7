"""A million inputs on paper: nothing grows faster than their number, and no file is looked at without need."""

import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from fork_server import python

from i2i.errors import UsageError
from i2i.folders.batch import remove_leftovers
from i2i.folders.plan import plan
from i2i.folders.report import Record, Report, ReportFile, records_of
from i2i.inference.options import FolderOptions


def _folder(path: Path, count: int, shape: str) -> Path:
    """Empty files with the names of pictures: in one folder, or in a deep tree, twelve in each folder."""
    for i in range(count):
        here = path if shape == "flat" else path / f"{i // 12 % 5}/{i // 60 % 7}/{i // 12}"
        here.mkdir(parents=True, exist_ok=True)
        (here / f"{i:06}.jpg").touch()
    return path


def _on_paper(source: Path, out: Path, **options: Any) -> Report:
    """All of a run but the network."""
    work = plan(source, out, FolderOptions(**options))
    file = ReportFile(out.with_name("report.jsonl"))
    file.begin(work)
    found = {job: Record.of(job, "done") for job in work.todo}
    for record in found.values():
        file.add(record)
    remove_leftovers(work, 0)
    report = Report(records_of(work, found))
    file.end(report)
    report.write(out.with_name("report.json"))
    return report


def _calls(work: Callable[[], object]) -> int:
    """How many functions `work` calls, of Python and of C."""
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "another format": {"format": "png"},
    "part": {"shard": "2/3", "shard_by": "hash"},
    "suffix": {"on_collision": "suffix", "format": "png"},
    "skip": {"skip_existing": True},
}


@pytest.mark.promise("R39")
@pytest.mark.parametrize("shape", ["flat", "tree"])
@pytest.mark.parametrize("case", list(CASES))
def test_twice_as_many_inputs_are_twice_the_work(tmp_path: Path, shape: str, case: str) -> None:
    calls = []
    for count in (240, 480):
        source, out = _folder(tmp_path / f"in{count}", count, shape), tmp_path / f"{count}" / "out"
        if case == "suffix":  # each name twice
            for path in list(source.rglob("*.jpg")):
                path.with_suffix(".webp").touch()
        if case == "skip":
            _folder(out, count // 2, shape)
        _on_paper(source, tmp_path / "warm" / "out", **CASES[case])
        calls.append(_calls(lambda source=source, out=out: _on_paper(source, out, **CASES[case])))  # type: ignore[misc]
    assert calls[1] < 2.1 * calls[0], calls


@pytest.mark.promise("R39")
@pytest.mark.parametrize(("shape", "folders"), [("flat", 1), ("tree", 20)])
def test_files_are_named_and_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: str, folders: int
) -> None:
    source, looks, paths = _folder(tmp_path / "in", 240, shape), Counter[str](), Counter[str]()
    for name in ("stat", "lstat", "open", "access"):
        monkeypatch.setattr(os, name, _counted(getattr(os, name), looks))
    monkeypatch.setattr(Path, "__new__", _counted(Path.__new__, paths))
    work = plan(source, tmp_path / "out", FolderOptions())
    monkeypatch.undo()
    assert len(work.todo) == 240
    # each folder, and those above it, a few times; no file but the first of each folder
    assert sum(number for path, number in looks.items() if path.endswith(".jpg")) <= folders, looks
    assert sum(paths.values()) < 30 + 10 * folders


def _counted(function: Any, counts: Counter[str]) -> Any:
    def counting(*args: Any, **options: Any) -> Any:
        counts[str(args[0])] += 1
        return function(*args, **options)

    return counting


def test_a_folder_of_results_is_listed_in_place_of_a_look_at_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, looks = _folder(tmp_path / "in", 240, "flat"), Counter[str]()
    _folder(tmp_path / "out", 1, "flat")
    monkeypatch.setattr(os, "lstat", _counted(os.lstat, looks))
    with pytest.raises(UsageError, match="1 output exists"):
        plan(source, tmp_path / "out", FolderOptions())
    monkeypatch.undo()
    assert sum(number for path, number in looks.items() if path.endswith(".jpg")) < 40, looks


GROWTH = """
import json, resource, sys
from pathlib import Path
from test_million import _folder, _on_paper

def used():
    found = resource.getrusage(resource.RUSAGE_SELF)
    return found.ru_maxrss * 1024, found.ru_utime + found.ru_stime

source = Path(sys.argv[1])
before = used()
report = _on_paper(source, source.parent / "results" / "out", format="png")
after = used()
print(json.dumps([len(report.done), *(b - a for a, b in zip(before, after))]))
"""


def _measured(source: Path) -> tuple[int, int, float]:
    """The number of inputs, and the bytes and seconds of the processor that they take, in a process of their own."""
    number, memory, seconds = json.loads(python("-c", GROWTH, source, check=True, timeout=600).stdout)
    return number, memory, seconds


@pytest.mark.slow
@pytest.mark.promise("R39")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("shape", ["flat", "tree"])
def test_memory_and_time_grow_with_the_number_alone(tmp_path: Path, shape: str) -> None:
    found = []
    for count in (100_000, 200_000):
        source = _folder(tmp_path / str(count), count, shape)
        found.append(_measured(source))
        assert found[-1][0] == count
    (_, memory, seconds), (_, more, longer) = found
    assert more < 900 * 200_000, "a million inputs would take more than 900 MB"
    assert more < 2.5 * memory + (16 << 20) and longer < 2.6 * seconds + 1, found
