"""Killed at any moment: every output is whole, and the same command completes the rest."""

import fcntl
import os
import random
import shutil
import signal
import stat
import time
from pathlib import Path

import pytest
from batch_tools import DieAtCall, Slow, Tree, folder, model, run, start, translator, tree

from i2i.errors import OutputError
from i2i.folders.batch import translate_folder

NAMES = tuple(f"{'sub/' * (i % 3)}{i}.{['png', 'jpg', 'webp', 'tif'][i % 4]}" for i in range(10))


def _check_and_complete(source: Path, out: Path, whole: Tree) -> None:
    """A file under its final name is whole; the rest is done by `skip_existing`, and only that."""
    there = {name: data for name, data in tree(out).items() if not Path(name).name.startswith(".i2i-")}
    assert there.items() <= whole.items()
    before = {name: (out / name).stat().st_ino for name in there}
    report = translate_folder(source, out, translator(), skip_existing=True)
    assert len(report.skipped) == len(there) and len(report.done) == len(whole) - len(there)
    assert tree(out) == whole
    assert before.items() <= {name: (out / name).stat().st_ino for name in whole}.items()


@pytest.fixture
def whole(tmp_path: Path) -> Tree:
    """The files that an uninterrupted run writes."""
    translate_folder(folder(tmp_path / "in", NAMES), tmp_path / "whole", translator())
    return tree(tmp_path / "whole")


@pytest.mark.promise("R21", "R22", "H10")
@pytest.mark.parametrize("rounds", [4, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_at_random_moments(tmp_path: Path, whole: Tree, rounds: int) -> None:
    style, moments, landed = model(tmp_path / "m.safetensors"), random.Random(rounds), 0
    for number in range(rounds):
        out = tmp_path / f"out{number}"
        words = ("--style", style, tmp_path / "in", "-o", out, "--device", "cpu", "--runtime", "torch")
        child = start(tmp_path, *words, prepare=[Slow(0.01, 0.01)])
        child.until(out.exists)
        time.sleep(moments.uniform(0, 0.25))
        child.process.kill()
        landed += child.wait() == -signal.SIGKILL
        _check_and_complete(tmp_path / "in", out, whole)
    assert landed


# a picture opens its file twice to read, and then: open, fsync, replace, open and fsync of the folder
CALLS = [1, 9, 11, 12, 13, 14, 15, 29]


@pytest.mark.promise("R21", "R22")
@pytest.mark.parametrize(
    "calls", [CALLS[2:6], pytest.param(sorted({*CALLS, *range(1, 60)}), marks=pytest.mark.slow)], ids=["few", "all"]
)
def test_killed_at_each_step_of_writing(tmp_path: Path, whole: Tree, calls: list[int]) -> None:
    style = model(tmp_path / "m.safetensors")
    for number in calls:
        out = tmp_path / f"out{number}"
        words = ("--style", style, tmp_path / "in", "-o", out, "--device", "cpu", "--runtime", "torch")
        code, child = run(tmp_path, *words, prepare=[DieAtCall(number)])
        assert code == -signal.SIGKILL, child.stderr
        _check_and_complete(tmp_path / "in", out, whole)


@pytest.mark.promise("R21", "R25")
def test_killed_in_place(tmp_path: Path, whole: Tree) -> None:
    style, before = model(tmp_path / "m.safetensors"), tree(tmp_path / "in")
    for number in CALLS[3:6]:
        copy = tmp_path / f"copy{number}"
        shutil.copytree(tmp_path / "in", copy)
        code, child = run(
            tmp_path, "--style", style, copy, "--in-place", "--runtime", "torch", prepare=[DieAtCall(number)]
        )
        assert code == -signal.SIGKILL, child.stderr
        for name, data in before.items():
            assert (copy / name).read_bytes() in (data, whole[name])


@pytest.mark.promise("R21")
def test_remains_of_a_killed_run_are_removed_and_those_of_a_live_one_stay(tmp_path: Path) -> None:
    source, out = folder(tmp_path / "in"), tmp_path / "out"
    out.mkdir()
    stray, living, other = out / ".i2i-0.part", out / ".i2i-1.part", out / "mine.part"
    younger = out / ".i2i-2.part"  # of a run that began later, on a file system that does not lock
    for path in (stray, living, other, younger):
        path.write_bytes(b"half")
        os.utime(path, (1e9, 1e9) if path != younger else (4e9, 4e9))
    with living.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        translate_folder(source, out, translator())
        assert [path.exists() for path in (stray, living, other, younger)] == [False, True, True, True]
    # whoever wrote it has ended: now it is one, even if there is nothing to do
    translate_folder(source, out, translator(), skip_existing=True)
    assert (living.exists(), other.exists()) == (False, True)


@pytest.mark.promise("R21")
def test_two_processes_into_one_folder(tmp_path: Path, whole: Tree) -> None:
    style = model(tmp_path / "m.safetensors")
    words = ("--style", style, tmp_path / "in", "-o", tmp_path / "out", "--device", "cpu", "--runtime", "torch")
    parts = [start(tmp_path, *words, "--shard", f"{i}/2", prepare=[Slow(0.01, 0.01)]) for i in (1, 2)]
    assert [child.wait() for child in parts] == [0, 0]
    assert tree(tmp_path / "out") == whole


@pytest.mark.promise("R21")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_the_mode_follows_the_umask(tmp_path: Path, mask: int, mode: int) -> None:
    source, before = folder(tmp_path / "in", ("a.png", "b.jpg")), os.umask(mask)
    try:
        translate_folder(source, tmp_path / "out", translator())
    finally:
        os.umask(before)
    assert {stat.S_IMODE((tmp_path / "out" / name).stat().st_mode) for name in ("a.png", "b.jpg")} == {mode}


@pytest.mark.promise("R21", "H10")
@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_an_older_output_stays_if_the_new_one_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    source, out, real = folder(tmp_path / "in", ("a.png",)), tmp_path / "out", getattr(os, call)
    out.mkdir()
    (out / "a.png").write_bytes(b"old")

    def refuses(*arguments: object, **options: object) -> object:
        if call != "open" or ".i2i-" in str(arguments[0]):
            raise OSError(28, "No space left on device")
        return real(*arguments, **options)

    used = translator()
    monkeypatch.setattr(os, call, refuses)
    with pytest.raises(OutputError, match=r"No space left"):
        translate_folder(source, out, used, overwrite=True)
    assert tree(out) == {"a.png": b"old"}


@pytest.mark.promise("R22")
def test_existing_files_are_not_touched(tmp_path: Path, whole: Tree) -> None:
    out, used = tmp_path / "out", translator()
    translate_folder(tmp_path / "in", out, used, stop=iter([False] * 4 + [True] * 99).__next__)
    there = {path: path.stat().st_mtime_ns for path in out.rglob("*.*")}
    assert 0 < len(there) < len(whole)
    report = translate_folder(tmp_path / "in", out, used, skip_existing=True)
    assert {r.target for r in report.skipped} == set(there)
    assert {r.reason for r in report.skipped} == {"exists"}
    assert {path: path.stat().st_mtime_ns for path in there} == there
    assert tree(out) == whole
    assert translate_folder(tmp_path / "in", out, used, skip_existing=True).done == []
