"""The wheel that users install: it holds everything that the commands read."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_wheel_translates_with_a_style_of_its_own(tmp_path: Path) -> None:
    wheel = pytest.importorskip("hatchling.builders.wheel", reason="needs hatchling")
    (built,) = wheel.WheelBuilder(str(ROOT)).build(directory=str(tmp_path))
    site = tmp_path / "site"
    with zipfile.ZipFile(built) as file:
        file.extractall(site)
    (entry,) = site.glob("i2i-*.dist-info/entry_points.txt")
    assert "i2i = i2i.cli:main" in entry.read_text()
    assert {path.name for path in (ROOT / "configs").iterdir()} == {
        path.name for path in (site / "i2i" / "configs").iterdir()
    }

    def run(*words: str) -> str:
        environment = os.environ | {"PYTHONPATH": str(site)}
        command = [sys.executable, "-m", "i2i", *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=True).stdout

    assert run("--version").startswith("i2i ")
    assert "--crop-size" in run("train", "cyclegan", "--help")
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(tmp_path / "photo.png")
    run("translate", "--style", "monet", "photo.png", "-o", "painted.png")
    with Image.open(tmp_path / "painted.png") as image:
        assert image.size == (64, 64)
    inside = [str(path.relative_to(site)) for path in site.rglob("*") if path.is_file()]
    assert not [name for name in inside if not name.startswith("i2i")]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the repository")
def test_git_ignores_nothing_that_a_wheel_needs() -> None:
    """The wheel leaves out what git ignores."""
    files = [str(path) for path in (ROOT / "i2i").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    names = "\n".join(files).encode()
    ignored = subprocess.run(
        ["git", "check-ignore", "--stdin", "--no-index"], input=names, capture_output=True, cwd=ROOT
    )
    assert ignored.returncode == 1, ignored.stdout.decode()
