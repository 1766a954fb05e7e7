"""The page of `i2i serve` in Chromium: pictures in, slider, downloads, several styles, a mask, two visitors."""

import json
import re
import subprocess
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from chromium import CHROMIUM, HERE, NODE, colours, missing
from page_client import serving

from i2i import images
from i2i.inference.mix import load_mix
from i2i.models import model_file
from i2i.models.info import describe
from i2i.networks.resnet import ResnetConfig

MISSING = missing()
if not find_spec("gradio"):
    MISSING.append('Gradio (pip install "i2i[web]"; see make test-page)')
STYLES = ["one", "two"]
HEIGHT, WIDTH = 60, 90

pytestmark = [
    pytest.mark.browser,
    pytest.mark.promise("R51"),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]


def pixels() -> images.Pixels:
    """Deep noise of dark colours, which a network without training makes brighter."""
    return np.random.default_rng(0).integers(0, 9_000, (HEIGHT, WIDTH, 3), np.uint16)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The report of the driver, and the folder with its downloads and screenshots."""
    folder = tmp_path_factory.mktemp("serve")
    (folder / "tmp").mkdir()
    for name in STYLES:
        network = ResnetConfig(width=2, blocks=0).build()
        model_file.save(folder / f"{name}.safetensors", network, describe(network, direction="a2b"))
    images.write(folder / "deep picture.png", images.Picture(pixels()))
    (folder / "text.png").write_bytes(b"no picture")
    chosen = [str(folder / f"{name}.safetensors") for name in STYLES]
    with serving(folder / "tmp", *chosen, "--runtime", "torch") as (visitor, _):
        command = [NODE, HERE / "drive_serve.mjs", CHROMIUM, f"http://127.0.0.1:{visitor.port}/", folder]
        command += [folder / "deep picture.png", folder / "text.png"]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stderr
    assert list((folder / "tmp").iterdir()) == []
    found: dict[str, Any] = json.loads(done.stdout)
    return found, folder


def test_nothing_goes_wrong_and_nothing_is_fetched_from_elsewhere(seen: tuple[dict[str, Any], Path]) -> None:
    found, _ = seen
    assert set(found["messages"]) <= {"Method not implemented."}, "a warning of Gradio's when a page is left"
    assert {urlsplit(url).hostname for url in found["requests"] if not url.startswith(("data:", "blob:"))} == {
        "127.0.0.1"
    }


def test_a_picture_is_translated_and_a_bad_file_named(seen: tuple[dict[str, Any], Path]) -> None:
    found, folder = seen
    rows = {row[0]: row[1:] for row in found["rows"]}
    assert rows["deep picture.png"][:2] == ["one", "done"]
    assert rows["text.png"][1] == "refused" and "text is not read here" in rows["text.png"][2]
    assert found["one"] == "deep picture.png"
    result = images.read(folder / "one.bin").pixels
    assert result.shape == (HEIGHT, WIDTH, 3) and result.dtype == np.uint16 and (result != pixels()).any()


def test_the_zip_has_all_results(seen: tuple[dict[str, Any], Path]) -> None:
    found, folder = seen
    assert found["zip"] == "translated.zip"
    with zipfile.ZipFile(folder / "all.zip") as archive:
        assert archive.namelist() == ["deep picture.png"]
        assert archive.read("deep picture.png") == (folder / "one.bin").read_bytes()


def test_the_slider_moves(seen: tuple[dict[str, Any], Path]) -> None:
    before, after = (
        [float(cut[1]) for clip in seen[0]["slider"][when] if (cut := re.search(r"([\d.]+)%", clip))]
        for when in ("before", "after")
    )
    assert before == [50] and after[0] < 35


def test_several_styles_stand_side_by_side(seen: tuple[dict[str, Any], Path]) -> None:
    found, _ = seen
    assert found["styles"] == STYLES
    assert [row[1] for row in found["several"] if row[2] == "done"] == STYLES
    assert found["gallery"] == ["deep picture.png", *STYLES]


def test_a_mix_stands_beside_the_single_styles(seen: tuple[dict[str, Any], Path]) -> None:
    found, folder = seen
    mix = "one 67 % + two 33 %"
    assert found["offered"] and found["shares"] == ["67 %", "33 %"]
    assert [row[1] for row in found["mixed"] if row[2] == "done"] == [*STYLES, mix]
    with zipfile.ZipFile(folder / "mixed.zip") as archive:
        assert archive.namelist() == [f"{name}/deep picture.png" for name in (*STYLES, mix)]
        archive.extractall(folder / "mixed")
    weights = {str(folder / f"{name}.safetensors"): weight for name, weight in zip(STYLES, (50, 25), strict=True)}
    expected = load_mix(weights, runtime="torch", device="cpu").translate(images.read(folder / "deep picture.png"))
    assert np.array_equal(images.read(folder / "mixed" / mix / "deep picture.png").pixels, expected.pixels)


def test_a_painted_mask_limits_the_translation(seen: tuple[dict[str, Any], Path]) -> None:
    result = images.read(seen[1] / "masked.bin").pixels
    assert (result[0] == pixels()[0]).all() and (result[HEIGHT // 2] != pixels()[HEIGHT // 2]).any()


def test_it_fits_a_phone(seen: tuple[dict[str, Any], Path]) -> None:
    assert seen[0]["phone"] <= 360


def test_two_visitors_at_once_get_their_own(seen: tuple[dict[str, Any], Path]) -> None:
    one, two = seen[0]["visitors"]
    assert [row[2] for row in one] == ["done"] and [row[2] for row in two] == ["refused"]


def test_screenshots_are_not_blank(seen: tuple[dict[str, Any], Path]) -> None:
    shots = {name: images.read(seen[1] / f"{name}.png").pixels[..., :3] for name in ("first", "several", "dark")}
    for shot in shots.values():
        assert colours(shot) > 50
    assert np.median(shots["first"]) > 200 and np.median(shots["dark"]) < 60
