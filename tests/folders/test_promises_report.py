"""The script tells the truth: report, files and exit code agree; and it begins to speak at once."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from batch_tools import (
    SCRIPT,
    Child,
    Closed,
    Full,
    Slow,
    folder,
    model,
    picture,
    run,
    start,
    translator,
    tree,
)
from disks import FilesUpTo

from i2i.errors import OutputError, UsageError
from i2i.folders.batch import translate_folder
from i2i.folders.report import Report, ReportFile
from i2i.urls import as_path

LIBRARY = "asyncio, email.mime.text, http.server, unittest.mock, xml.dom.minidom"
TIMES = 5


def _mixed(path: Path) -> Path:
    source = folder(path)
    (source / "broken.png").write_bytes(b"no picture")
    (source / "notes.txt").write_text("no picture either")
    os.mkfifo(source / "pipe.png")
    return source


def _names(text: str) -> list[tuple[str, ...]]:
    return [tuple(line.split(" → ")) for line in text.splitlines()]


@pytest.mark.promise("R42", "R23")
def test_report_files_and_exit_code_agree(tmp_path: Path) -> None:
    source, out, report = _mixed(tmp_path / "in"), tmp_path / "out", tmp_path / "report.json"
    words = ("--style", model(tmp_path / "m.safetensors"), source, "-o", out)
    planned = run(tmp_path, *words, "--dry-run")[1]
    planned_json = json.loads(run(tmp_path, *words, "--dry-run", "--json")[1].stdout)
    assert not out.exists() and not report.exists()
    code, child = run(tmp_path, *words, "--report", report, "--json")
    assert code == 3
    assert child.stdout == report.read_text("ascii")
    found = json.loads(child.stdout)
    records = found["records"]
    assert {r["target"] for r in records if r["status"] == "done"} == {str(out / name) for name in tree(out)}
    assert found["counts"] == {"done": 6, "skipped": 1, "failed": 1, "left": 0}
    for status, number in found["counts"].items():
        assert len([r for r in records if r["status"] == status]) == number
    assert sorted(r["source"] for r in records) == sorted(
        str(p) for p in source.rglob("*") if p.suffix not in ("", ".txt")
    )
    assert all(r["reason"] for r in records if r["status"] != "done")
    # what the plan says is what is done, in the same order
    work = [r for r in records if r["status"] != "skipped"]
    assert _names(planned.stdout) == [(r["source"], r["target"]) for r in work]
    assert "7 to do, 0 exist, 1 other files" in planned.stderr
    assert [(r["source"], r["target"]) for r in planned_json["records"]] == [
        (r["source"], r["target"]) for r in records
    ]
    _again(tmp_path, words, report, len(records))


def _again(tmp_path: Path, words: tuple[Any, ...], report: Path, total: int) -> None:
    planned = run(tmp_path, *words, "--skip-existing", "--dry-run")[1]
    code, child = run(tmp_path, *words, "--skip-existing", "--report", report)
    assert code == 3 and "0 translated, 7 skipped, 1 failed, 0 left" in child.stderr
    found = json.loads(report.read_text())
    assert len(found["records"]) == total
    assert [name for name, _ in _names(planned.stdout)] == [
        r["source"] for r in found["records"] if r["status"] == "failed"
    ]


@pytest.mark.promise("R42")
def test_the_plan_of_a_part_is_what_the_part_does(tmp_path: Path) -> None:
    source, style = folder(tmp_path / "in", [f"{i}.png" for i in range(7)]), model(tmp_path / "m.safetensors")
    words = ("--style", style, source, "-o", tmp_path / "out", "--shard", "2/3", "--format", "webp")
    planned = run(tmp_path, *words, "--dry-run")[1]
    code, child = run(tmp_path, *words, "--json")
    assert code == 0
    assert _names(planned.stdout) == [(r["source"], r["target"]) for r in json.loads(child.stdout)["records"]]


@pytest.mark.promise("R42")
def test_the_plan_is_printed_in_any_encoding(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", ("é🎨.png",))
    command = [sys.executable, str(SCRIPT), str(source), "-o", str(tmp_path / "out"), "--dry-run"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(SCRIPT.parents[1])}
    result = subprocess.run(command, capture_output=True, env=environment)
    assert result.returncode == 0, result.stderr


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("ascii").splitlines()]


@pytest.mark.promise("R42")
def test_a_report_of_lines_is_true_while_it_grows(tmp_path: Path) -> None:
    source, out, path = _mixed(tmp_path / "in"), tmp_path / "out", tmp_path / "reports" / "run.jsonl"
    picture(out / "deep" / "c.webp")
    picture(source / os.fsdecode(b"\xff.png"))
    seen = []

    def progress(number: int, *_: object) -> None:
        records = _lines(path)
        assert len(records) == 2 + number and {r["target"] for r in records if r["status"] == "done"} <= {
            str(out / name) for name in tree(out)
        }
        seen.append(number)

    report = translate_folder(source, out, translator(), skip_existing=True, report=path, progress=progress)
    assert seen == list(range(1, 8))
    assert sorted(map(str, _lines(path))) == sorted(map(str, json.loads(report.to_json())["records"]))
    summary, whole = json.loads((tmp_path / "reports" / "run.json").read_text("ascii")), json.loads(report.to_json())
    assert summary == {name: value for name, value in whole.items() if name != "records"}
    assert summary["counts"] == {"done": 6, "skipped": 2, "failed": 1, "left": 0}


@pytest.mark.promise("R42", "R22")
def test_a_killed_run_has_a_true_report_as_far_as_it_came(tmp_path: Path) -> None:
    source, out, report = folder(tmp_path / "in"), tmp_path / "out", tmp_path / "run.jsonl"
    report.with_suffix(".json").write_text("of an earlier run")
    words = ("--style", model(tmp_path / "m.safetensors"), source, "-o", out, "--report", report)
    child = start(tmp_path, *words, prepare=[Slow(0.1)])
    child.until(lambda: report.exists() and len(report.read_bytes().splitlines()) > 1)
    child.process.kill()
    child.wait()
    done = {record["target"] for record in _lines(report)}
    assert done and {record["status"] for record in _lines(report)} == {"done"}
    assert {Path(name).name for name in done} <= {Path(name).name for name in tree(out)}
    assert not report.with_suffix(".json").exists(), "the run has not come to its end"
    assert run(tmp_path, *words, "--skip-existing")[0] == 0
    again = {record["target"]: record["status"] for record in _lines(report)}
    assert len(_lines(report)) == len(again) == 6 and {again[name] for name in done} == {"skipped"}
    counts = json.loads(report.with_suffix(".json").read_text())["counts"]
    assert counts["skipped"] >= len(done) and sum(counts.values()) == 6 == len(tree(out))


@pytest.mark.promise("R42", "R32")
def test_a_report_of_lines_that_cannot_be_written_ends_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[bytes] = []

    def full(descriptor: int, data: bytes) -> None:
        written.append(data)
        os.write(descriptor, data if len(written) < 3 else data[:10])
        if len(written) >= 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("i2i.folders.report.write_all", full)
    reports: list[Report] = []
    source, path = folder(tmp_path / "in", [f"{i:02}.png" for i in range(40)]), tmp_path / "run.jsonl"
    with pytest.raises(OutputError, match=r"run\.jsonl: cannot be written: No space left"):
        translate_folder(source, tmp_path / "out", translator(), report=path, finish=reports.append)
    assert [record["status"] for record in _lines(path)] == ["done", "done"] and len(written) == 3
    assert 3 <= len(reports[0].done) < 40 and reports[0].left and not path.with_suffix(".json").exists()
    (tmp_path / "other.json").mkdir()
    for name in ("out/00.png", "other.jsonl", "other.json"):
        with pytest.raises(UsageError, match="report"):
            translate_folder(source, tmp_path / "new", translator(), report=tmp_path / name)
    assert not (tmp_path / "new").exists()
    with pytest.raises(UsageError, match="cannot grow line by line"):
        ReportFile(as_path("s3://bucket/run.jsonl"))


@pytest.mark.promise("R42")
def test_the_report_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = translate_folder(folder(tmp_path / "in"), tmp_path / "out", translator())
    (tmp_path / "report.json").write_bytes(b"old")

    def refuses(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuses)
    with pytest.raises(OutputError):
        report.write(tmp_path / "report.json")
    assert (tmp_path / "report.json").read_bytes() == b"old"
    assert not list(tmp_path.glob(".i2i-*"))
    assert json.loads(Report(()).to_json())["records"] == []


@pytest.mark.promise("R42", "R25")
@pytest.mark.parametrize("name", ["in/a.png", "out/a.png"])
def test_a_report_does_not_replace_a_picture(tmp_path: Path, name: str) -> None:
    source = folder(tmp_path / "in", ("a.png",))
    (tmp_path / "out").mkdir()
    before = tree(source)
    words = ("--style", model(tmp_path / "m.safetensors"), source, "-o", tmp_path / "out")
    assert run(tmp_path, *words, "--report", tmp_path / name)[0] in (2, 6)
    assert tree(source) == before


@pytest.mark.promise("R42")
@pytest.mark.parametrize("name", ["nowhere/r.json", "in", "-"])
def test_a_report_that_cannot_be_written_is_found_before_the_work(tmp_path: Path, name: str) -> None:
    words = ("--style", model(tmp_path / "m.safetensors"), folder(tmp_path / "in"), "-o", tmp_path / "out")
    code, child = run(tmp_path, *words, "--report", name if name == "-" else tmp_path / name)
    assert code in (2, 6) and name in child.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.promise("R32", "R42")
@pytest.mark.parametrize(
    ("fault", "more", "expected"),
    [(Closed("stderr"), (), {0}), (Closed("stdout"), (), {0}), (Full(1), ("--json",), {6})],
    ids=["no stderr", "no stdout", "stdout full"],
)
def test_the_report_is_written_though_nobody_listens(
    tmp_path: Path, fault: Any, more: tuple[str, ...], expected: set[int]
) -> None:
    report = tmp_path / "report.json"
    words = ("--style", model(tmp_path / "m.safetensors"), folder(tmp_path / "in"), "-o", tmp_path / "out")
    code, child = run(tmp_path, *words, "--report", report, *more, prepare=[fault])
    assert len(tree(tmp_path / "out")) == 6, child.stderr
    assert json.loads(report.read_text())["counts"]["done"] == 6
    assert code in expected, child.stderr


@pytest.mark.promise("R32", "R42")
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_stderr_costs_neither_results_nor_report(tmp_path: Path) -> None:
    report, script = tmp_path / "report.json", Path(__file__).parents[2] / "scripts" / "translate.py"
    words = ("--style", model(tmp_path / "m.safetensors"), folder(tmp_path / "in"), "-o", tmp_path / "out")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, script, *words, "--report", report], stderr=full, check=False)
    assert (done.returncode, json.loads(report.read_text())["counts"]["done"]) == (0, 6)


def _ended(child: Child, number: int, out: Path) -> int:
    child.until(lambda: out.exists() and tree(out))
    os.kill(child.pid, number)
    return child.wait()


@pytest.mark.promise("R23", "R31", "R32", "R33", "R40")
def test_each_end_has_its_exit_code(tmp_path: Path) -> None:
    source, style = folder(tmp_path / "in"), model(tmp_path / "m.safetensors")
    big = picture(tmp_path / "big" / "a.png", 150, 150).parent
    (tmp_path / "broken.safetensors").write_bytes(b"no model")
    (tmp_path / "empty").mkdir()
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "a.png").write_bytes(b"no picture")
    codes: dict[str, int] = {}

    def end(name: str, *words: Any, **options: Any) -> None:
        codes[name], child = run(tmp_path, *words, **options)
        assert "Traceback" not in child.stderr and child.stdout == ""
        assert codes[name] == 0 or len([x for x in child.stderr.splitlines() if x.startswith("i2i: ")]) == 1

    out = tmp_path / "out"
    end("all done", "--style", style, source, "-o", out)
    end("all skipped", "--style", style, source, "-o", out, "--skip-existing")
    end("outputs exist", "--style", style, source, "-o", out)
    end("no output", "--style", style, source)
    end("no inputs", "--style", style, "-o", out)
    end("no style", source, "-o", out)
    end("one failed", "--style", style, tmp_path / "mixed", "-o", tmp_path / "out3")
    end("strict", "--style", style, tmp_path / "mixed", "-o", tmp_path / "out4", "--strict")
    end("empty", "--style", style, tmp_path / "empty", "-o", tmp_path / "out5")
    end("missing", "--style", style, tmp_path / "none.png", "-o", tmp_path / "out5")
    end("model", "--style", tmp_path / "broken.safetensors", source, "-o", tmp_path / "out6")
    end("full", "--style", style, big, "-o", tmp_path / "out7", prepare=[FilesUpTo(9000)])
    assert codes == {
        "all done": 0, "all skipped": 0, "outputs exist": 2, "no output": 2, "no inputs": 2, "no style": 2,
        "one failed": 3, "strict": 3, "empty": 4, "missing": 4, "model": 5, "full": 6,
    }  # fmt: skip
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        out = tmp_path / f"out{code}"
        child = start(tmp_path, "--style", style, source, "-o", out, prepare=[Slow(0.1)])
        assert _ended(child, number, out) == code, child.stderr
    assert not (tmp_path / "out5").exists() and not (tmp_path / "out6").exists()


def _seconds(*command: str) -> float:
    """Processor time, which a busy machine does not stretch as it does the clock's."""
    begun = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime - begun.ru_utime - begun.ru_stime


def test_it_begins_to_speak_at_once() -> None:
    """Measured by some of Python's own library, imported beside it, so that a slow machine is no failure: 2.2 to 3.6
    times that, on a busy machine; torch alone is 20 times, scipy 10."""
    found = [(_seconds(str(SCRIPT), "--help"), _seconds("-c", f"import {LIBRARY}")) for _ in range(3)]
    script, library = map(min, zip(*found, strict=True))
    assert script < TIMES * library, found


@pytest.mark.parametrize("words", [["--list-styles"], ["photos", "-o", "out", "--dry-run"]])
def test_quick_answers_need_no_torch(tmp_path: Path, words: list[str]) -> None:
    picture(tmp_path / "photos" / "a.png")
    code = [
        "import runpy, sys",
        "try: runpy.run_path(sys.argv[0], run_name='__main__')",
        "except SystemExit as stop: assert not stop.code, stop.code",
        "assert not {'torch', 'albumentations', 'kornia'} & set(sys.modules)",
        "assert sys.argv[1][0] != '-' or not {'cv2', 'numpy', 'PIL', 'torchvision'} & set(sys.modules)",
    ]
    begin = f"import sys; sys.argv = {[str(SCRIPT), *words]!r}\n"
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[1]), "I2I_HOME": str(tmp_path / "home")}
    result = subprocess.run(
        [sys.executable, "-c", begin + "\n".join(code)], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert result.returncode == 0, result.stderr
