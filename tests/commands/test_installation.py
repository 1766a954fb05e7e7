"""`i2i doctor`: what it prints, and its exit code. The demo, as a user runs it: slow, because it really trains."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import exit_code
from PIL import Image

from i2i.commands import installation
from i2i.errors import SomeFailed
from i2i.tools.doctor import Finding

ROOT = Path(__file__).parents[2]
SECTIONS = [
    [Finding("limits", "memory", "ok", "1 GB free"), Finding("limits", "disk", "low", "little", "free some")],
    [Finding("extras", "onnx", "missing", "writes ONNX", "pip install 'i2i[onnx]'")],
]
WRONG = [Finding("styles", "mine", "wrong", "is cut short\x1b[2J", "remove it")]


def give(monkeypatch: pytest.MonkeyPatch, sections: list[list[Finding]]) -> None:
    def examine() -> Iterator[list[Finding]]:
        yield from sections

    monkeypatch.setattr(installation, "examine", examine)


def test_what_is_missing_or_low_is_no_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give(monkeypatch, SECTIONS)
    installation.doctor(installation.DoctorCommand())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "limits" and [line.split() for line in lines[1:3]] == [
        ["ok", "memory", "1", "GB", "free"],
        ["low", "disk", "little:", "free", "some"],
    ]
    assert "writes ONNX: pip install 'i2i[onnx]'" in lines[5]
    assert all(line == line.rstrip() for line in lines)


def test_what_does_not_work_is_exit_code_3(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    give(monkeypatch, [*SECTIONS, WRONG])
    with pytest.raises(SomeFailed, match="1 of 4 findings are wrong; first: mine"):
        installation.doctor(installation.DoctorCommand())
    assert "\x1b" not in capsys.readouterr().out


def test_json_holds_the_same(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    give(monkeypatch, [*SECTIONS, WRONG])
    with pytest.raises(SomeFailed):
        installation.doctor(installation.DoctorCommand(json=True))
    found = json.loads(capsys.readouterr().out)
    assert found["wrong"] == 1 and [entry["status"] for entry in found["findings"]] == ["ok", "low", "missing", "wrong"]
    assert found["findings"][3]["advice"] == "remove it"


@pytest.mark.slow
def test_this_installation_is_sound(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("doctor", "--json") == 0
    found = json.loads(capsys.readouterr().out)["findings"]
    sections = {entry["section"] for entry in found}
    assert sections == {"limits", "styles", "versions", "extras", "devices", "arithmetic"}


@pytest.mark.slow
def test_the_demo_makes_a_contact_sheet_that_shows_a_translation(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts/demo.py"), "--out", str(tmp_path / "demo")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    sheet = Path(done.stdout.strip().splitlines()[-1])
    assert Image.open(sheet).size[0] > 600
    assert sorted(path.name for path in (tmp_path / "demo/painted").iterdir()) == ["bay.jpg", "boat.jpg"]
    log = (tmp_path / "demo/run/log.jsonl").read_text()
    assert "resumed at step" in log


def test_the_demo_does_not_replace_a_folder_that_is_not_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "holiday.txt").write_text("keep me")
    assert exit_code("demo", "--out", tmp_path) == 2
    assert "not from an earlier demo" in capsys.readouterr().err
    assert (tmp_path / "holiday.txt").read_text() == "keep me"


def test_the_sheet_shows_photographs_and_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def translated(*words: str) -> None:
        shutil.copytree(words[3], words[5])

    monkeypatch.setattr(installation, "call", translated)
    installation.paint(tmp_path)
    installation.draw(tmp_path)
    shutil.copytree(tmp_path / "day", tmp_path / "dusk")
    sheet = Image.open(installation.contact_sheet(tmp_path)).convert("RGB")
    assert sheet.size == (1775, 1371)
    photograph = Image.open(tmp_path / "photos/bay.jpg").convert("RGB").resize((1, 1), Image.Resampling.BOX)
    shown = sheet.crop((28, 78, 446, 312)).resize((1, 1), Image.Resampling.BOX)
    assert max(abs(a - b) for a, b in zip(photograph.getpixel((0, 0)), shown.getpixel((0, 0)), strict=True)) <= 4
