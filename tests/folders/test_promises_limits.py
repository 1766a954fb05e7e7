"""A disk that is full, a folder without permission, a memory that is not endless: an end in good order."""

import json
import os
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from batch_tools import Nobody, folder, model, picture, run, translator, tree
from disks import FilesUpTo

from i2i import images
from i2i.folders import pipeline
from i2i.folders.batch import translate_folder
from i2i.images import Picture

MEGABYTE = 1 << 20


@pytest.mark.promise("R32", "H10")
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_the_disk_fills_up(tmp_path: Path, suffix: str) -> None:
    source = folder(tmp_path / "in", [f"{name}.png" for name in "ac"])
    picture(source / "b.png", 150, 150)
    out, report, style = tmp_path / "out", tmp_path / "report.json", model(tmp_path / "m.safetensors")
    out.mkdir()
    (out / f"b{suffix}").write_bytes(b"old")
    words = ("--style", style, source, "-o", out, "--format", suffix[1:], "--overwrite", "--report", report)
    code, child = run(tmp_path, *words, prepare=[FilesUpTo(9000)])
    assert code == 6, child.stderr
    assert f"b{suffix}: cannot be written: File too large" in child.stderr and "are free" in child.stderr
    assert "Traceback" not in child.stderr
    found = tree(out)
    assert found.pop(f"b{suffix}") == b"old"
    assert set(found) == {r["target"].split("/")[-1] for r in _records(report) if r["status"] == "done"}
    assert not list(out.rglob(".i2i-*"))
    counts = json.loads(report.read_text())["counts"]
    assert sum(counts.values()) == 3 and counts["left"] >= 1
    code, child = run(tmp_path, *words)
    assert code == 0, child.stderr


def _records(report: Path) -> list[dict[str, str]]:
    return list(json.loads(report.read_text("ascii"))["records"])


@pytest.mark.promise("R32")
def test_the_disk_fills_up_so_far_that_no_report_fits(tmp_path: Path) -> None:
    source, report = folder(tmp_path / "in", ("a.png",), height=150, width=150), tmp_path / "report.json"
    report.write_bytes(b"old")
    words = ("--style", model(tmp_path / "m.safetensors"), source, "-o", tmp_path / "out", "--report", report)
    code, child = run(tmp_path, *words, prepare=[FilesUpTo(500)])
    assert code == 6, child.stderr
    assert "0 translated, 0 skipped, 0 failed, 1 left" in child.stderr
    assert report.read_bytes() == b"old"
    assert tree(tmp_path / "out") == {} and not list(tmp_path.glob(".i2i-*"))


@pytest.mark.promise("R31")
@pytest.mark.parametrize("out", ["file", "file/deep", "/proc/nowhere", "/dev/null"])
def test_an_output_that_cannot_be(tmp_path: Path, out: str) -> None:
    source, style = folder(tmp_path / "in"), model(tmp_path / "m.safetensors")
    (tmp_path / "file").write_bytes(b"mine")
    code, child = run(tmp_path, "--style", style, source, "-o", tmp_path / out)
    assert code == 6, child.stderr
    assert "cannot be written" in child.stderr and "Traceback" not in child.stderr
    assert len([line for line in child.stderr.splitlines() if line.startswith("i2i:")]) == 1
    assert (tmp_path / "file").read_bytes() == b"mine"


@contextmanager
def _open_folder() -> Iterator[Path]:
    """A scratch folder that everybody may read and write, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


@pytest.mark.promise("R31")
def test_a_file_without_permission_is_one_failure() -> None:
    with _open_folder() as scratch:
        style = model(scratch / "m.safetensors")
        style.chmod(0o644)
        source = folder(scratch / "in", ("a.png", "b.png", "secret/c.png", "z.png"))
        (source / "b.png").chmod(0)
        (source / "secret").chmod(0)
        words = ("--style", style, source, "-o", scratch / "out", "--report", scratch / "report.json")
        for more in ((), ("--format", "png", "--overwrite")):
            code, child = run(scratch, *words, *more, prepare=[Nobody()])
            assert code == 3, child.stderr
            records = {Path(r["source"]).name: (r["status"], r["reason"]) for r in _records(scratch / "report.json")}
            assert {name: status for name, (status, _) in records.items()} == {
                "a.png": "done", "b.png": "failed", "secret": "failed", "z.png": "done",
            }  # fmt: skip
            assert "ermission" in records["b.png"][1] and "ermission" in records["secret"][1]
            # from an earlier run that was allowed to
            (scratch / "out" / "secret").mkdir(exist_ok=True)
        (source / "secret").chmod(0o755)


@pytest.mark.promise("R31")
@pytest.mark.parametrize("place", ["input", "output", "read-only output"])
def test_no_traceback_where_one_may_not_look(place: str) -> None:
    with _open_folder() as scratch:
        style = model(scratch / "m.safetensors")
        style.chmod(0o644)
        source, out = folder(scratch / "in", ("a.png",)), scratch / "out"
        closed = source if place == "input" else scratch / "closed"
        closed.mkdir(exist_ok=True)
        closed.chmod(0o755 if place == "read-only output" else 0o700)
        inputs, out = (source / "a.png", out) if place == "input" else (source, closed / "out")
        code, child = run(scratch, "--style", style, inputs, "-o", out, prepare=[Nobody()])
        assert code == (4 if place == "input" else 6), child.stderr
        assert "ermission denied" in child.stderr


class _Counting:
    """Reads as `read` does, and counts the pixels that were asked for and not yet written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held = self.most = 0
        self._lock = threading.Lock()
        read, write = pipeline.read, pipeline.write  # type: ignore[attr-defined]

        def reading(path: Path, **options: Any) -> Picture:
            found = read(path, **options)
            self._add(found.pixels[..., 0].size)
            return found

        def writing(path: Path, result: Picture, *options: Any) -> None:
            time.sleep(0.002)
            write(path, result, *options)
            self._add(-result.pixels[..., 0].size)

        monkeypatch.setattr(pipeline, "read", reading)
        monkeypatch.setattr(pipeline, "write", writing)

    def _add(self, pixels: int) -> None:
        with self._lock:
            self.held += pixels
            self.most = max(self.most, self.held)


@pytest.mark.promise("R39")
@pytest.mark.parametrize("options", [{}, {"batch_size": 8, "workers": 4}, {"workers": 16}])
def test_the_queue_is_bounded_by_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    source = folder(tmp_path / "in", [f"{i:02}.png" for i in range(30)], height=20, width=20)
    for name in ("07.png", "23.png"):
        picture(source / name, 50, 100)  # larger than the queue: it has it alone
    monkeypatch.setattr(pipeline, "QUEUE_PIXELS", 2000)
    counting = _Counting(monkeypatch)
    assert len(translate_folder(source, tmp_path / "out", translator(), **options).done) == 30
    assert counting.most == 5000 and counting.held == 0
    counting.most = 0
    for name in ("07.png", "23.png"):
        (source / name).unlink()
    translate_folder(source, tmp_path / "out2", translator(), **options)
    assert 400 <= counting.most <= 2000


@pytest.mark.promise("R39")
def test_scaled_pictures_count_as_what_they_become(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, used, most = folder(tmp_path / "in", [f"{i}.png" for i in range(8)]), translator(), [0]
    monkeypatch.setattr(pipeline, "QUEUE_PIXELS", 40 * 54 * 2)
    real = used.translate_batch

    def noted(pictures: Any, size: int | None = None) -> list[Picture]:
        most[0] = max(most[0], len(pictures))
        return real(pictures, size)

    monkeypatch.setattr(used, "translate_batch", noted)
    translate_folder(source, tmp_path / "out", used, size=40, batch_size=8)
    assert most[0] == 2


@pytest.mark.promise("R39")
@pytest.mark.parametrize("options", [{}, {"batch_size": 4, "workers": 2}])
def test_a_picture_is_let_go_once_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """Neither what was read nor what was made of it is kept, by whatever holds a batch, a job or a future."""
    monkeypatch.setattr(pipeline, "QUEUE_PIXELS", 8 * 400)
    source, used = folder(tmp_path / "in", [f"{i:02}.png" for i in range(40)], height=20, width=20), translator()
    seen: list[weakref.ref[Any]] = []
    alive: list[int] = []
    real = used.translate_batch

    def noted(pictures: Any, size: int | None = None) -> list[Picture]:
        results = real(pictures, size)
        seen.extend(weakref.ref(one.pixels) for one in (*pictures, *results))
        alive.append(sum(one() is not None for one in seen))
        return results

    monkeypatch.setattr(used, "translate_batch", noted)
    assert len(translate_folder(source, tmp_path / "out", used, **options).done) == 40
    # of each picture that waits the source and the result, and as much again that a thread is about to drop
    assert len(seen) == 2 * 40 and max(alive) <= 4 * 8, alive


@pytest.mark.promise("R39")
@pytest.mark.parametrize(
    ("count", "options"),
    [
        (120, {}),
        pytest.param(2000, {}, marks=pytest.mark.slow),
        pytest.param(2000, {"batch_size": 8, "workers": 4}, marks=pytest.mark.slow),
    ],
)
def test_memory_does_not_grow(tmp_path: Path, count: int, options: dict[str, Any]) -> None:
    content = picture(tmp_path / "x.png", 32, 32).read_bytes()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bad.png").write_bytes(content[:50])
    for i in range(count):
        (tmp_path / "in" / f"{i:05}.png").write_bytes(content)
    sizes: list[int] = []
    process = psutil.Process(os.getpid())
    files, threads = process.num_fds(), threading.active_count()
    report = translate_folder(
        tmp_path / "in", tmp_path / "out", translator(), progress=lambda *_: sizes.append(process.memory_info().rss),
        **options,
    )  # fmt: skip
    assert len(report.done) == count
    assert (process.num_fds(), threading.active_count()) == (files, threads)
    assert max(sizes[50:]) - sizes[50] < 50 * MEGABYTE
    assert images.probe(tmp_path / "out" / "00000.png") == (32, 32)
