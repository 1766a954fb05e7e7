"""The report page in a real browser: nothing is fetched, nothing goes wrong, and what is to move moves."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import CHROMIUM, HERE, NODE, colours, missing
from run_folders import COLUMNS, ROWS, step_line, usual_run, write_run

from i2i.images import Picture, read, write
from i2i.tools.compare import write_comparison
from i2i.tools.report import write_report

MISSING = missing()

pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")]


def drive(page: Path, *folder: Path) -> dict[str, Any]:
    """The report of the driver on a page. Given a folder, it uses the page too, and leaves screenshots there."""
    command = [NODE, HERE / "drive.mjs", CHROMIUM, page, *folder]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("browser")
    page = write_report(usual_run(folder / "run"), folder / "odd name #1 %41 'é.html").path
    return drive(page, folder), folder


def left(clip: str) -> float:
    """The share that is cut off at the left, of `inset(0px 0px 0px 50%)`."""
    percent = re.search(r"([\d.]+)%", clip)
    return float(percent[1]) if percent else 0.0


def pixels(folder: Path, name: str) -> Any:
    return read(folder / f"{name}.png").pixels.astype(int)


def test_opens_without_errors_and_without_network(seen: tuple[dict[str, Any], Path]) -> None:
    found, _ = seen
    assert found["title"] == "run – i2i report"
    assert found["messages"] == []
    assert len(found["requests"]) == 2 and all(url.startswith("file:///") for url in found["requests"])


def test_slider_moves_by_mouse_and_keyboard(seen: tuple[dict[str, Any], Path]) -> None:
    found, folder = seen
    at = {name: left(clip) for name, clip in found["compare"].items()}
    assert found["boxes"][0] == found["boxes"][1], "one lies over the other"
    assert at["middle"] == 50
    assert 5 <= at["dragged"] <= 15
    assert at["pressed"] == at["dragged"] + 5
    assert at["end"] == 100
    height, width = pixels(folder, "compare-middle").shape[:2]
    quarter = (height // 2, width // 4)
    middle, dragged, end = (
        pixels(folder, f"compare-{name}")[quarter[0], quarter[1]] for name in ("middle", "dragged", "end")
    )
    assert np.abs(middle - end).max() < 8, "the first picture is left of the line"
    assert np.abs(middle - dragged).max() > 40, "the second one is right of it"


def test_scrubber_changes_the_grid(seen: tuple[dict[str, Any], Path]) -> None:
    found, folder = seen
    scrub = found["scrub"]
    assert [scrub[name]["visible"] for name in ("first", "home", "later", "clicked")] == [
        ["100"],
        ["1"],
        ["50"],
        ["100"],
    ]
    assert scrub["home"]["said"] == "Step 1"
    assert np.abs(pixels(folder, "grid-last") - pixels(folder, "grid-first")).max() > 40


def test_curves_tell_their_values(seen: tuple[dict[str, Any], Path]) -> None:
    found, _ = seen
    assert found["chart"]["hovered"].startswith("step 50: ")
    assert found["chart"]["home"].startswith("step 50: ") and found["chart"]["plain"] == "0.11"


def test_screenshots_are_not_blank(seen: tuple[dict[str, Any], Path]) -> None:
    _, folder = seen
    light, dark, plain = (pixels(folder, name) for name in ("light", "dark", "plain"))
    for picture in (light, dark, plain):
        assert colours(picture) > 50
    assert np.median(light) > 200 and np.median(dark) < 60


def test_fits_a_phone_and_prints(seen: tuple[dict[str, Any], Path]) -> None:
    found, _ = seen
    assert found["phone"] <= 360
    assert found["print"] == 0
    before, after = found["printed"]["before"], found["printed"]["after"]
    assert before["y"] == after["y"] and before["x"] + before["width"] <= after["x"]  # side by side on paper


def test_says_everything_without_scripts(seen: tuple[dict[str, Any], Path]) -> None:
    plain = seen[0]["plain"]
    assert (plain["grids"], plain["pictures"], plain["ranges"], plain["hints"]) == (1, 2 * 2 * ROWS, 0, 0)
    assert plain["lines"] == COLUMNS and "39.25" in plain["text"]


@pytest.mark.promise("R52")
def test_hostile_text_is_not_run(tmp_path: Path) -> None:
    evil = "</title></script></style><script>alert(1)</script><img src=http://localhost:1/x onerror=alert(2)>"
    lines = [step_line(step, **{evil: float(step)}) for step in (1, 2)]
    lines += [{"kind": "health", "step": 1, "message": evil}]
    config = {"lambda_L1": evil, "samples": ROWS, evil: evil}
    run = write_run(tmp_path / "<script>alert(3)<", lines, samples=[1, 2], config=config)
    found = drive(write_report(run).path)
    assert found["messages"] == []
    assert all(url.startswith("file:///") for url in found["requests"])


def test_a_comparison_opens_without_errors_and_without_network(tmp_path: Path) -> None:
    for side in ("before", "after"):
        (tmp_path / side).mkdir()
        write(tmp_path / side / "a.png", Picture(np.full((40, 60, 3), 90, np.uint8)))
    write_comparison([tmp_path / "before", tmp_path / "after"], tmp_path / "page.html")
    found = drive(tmp_path / "page.html")
    assert found["title"] == "before · after – i2i compare" and found["messages"] == []
    assert all(url.startswith("file:///") for url in found["requests"])
