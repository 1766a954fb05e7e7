"""The demo, as a user runs it: slow, because it really trains."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fork_server import python
from PIL import Image

from i2i.commands import demo

ROOT = Path(__file__).parents[2]


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


def test_the_demo_does_not_replace_a_folder_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "holiday.txt").write_text("keep me")
    done = python(ROOT / "scripts/demo.py", "--out", tmp_path)
    assert done.returncode == 2
    assert "not from an earlier demo" in done.stderr
    assert (tmp_path / "holiday.txt").read_text() == "keep me"


def test_the_sheet_shows_photographs_and_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def translated(*words: str) -> None:
        shutil.copytree(words[3], words[5])

    monkeypatch.setattr(demo, "call", translated)
    demo.paint(tmp_path)
    demo.draw(tmp_path)
    shutil.copytree(tmp_path / "day", tmp_path / "dusk")
    sheet = Image.open(demo.contact_sheet(tmp_path)).convert("RGB")
    assert sheet.size == (934, 864)
    photograph = Image.open(tmp_path / "photos/bay.jpg").convert("RGB").resize((1, 1), Image.Resampling.BOX)
    shown = sheet.crop((130, 6, 526, 228)).resize((1, 1), Image.Resampling.BOX)
    assert max(abs(a - b) for a, b in zip(photograph.getpixel((0, 0)), shown.getpixel((0, 0)), strict=True)) <= 4
