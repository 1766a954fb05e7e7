"""The report page: its structure, hostile text in it, its pictures and charts, and odd run folders."""

import base64
import hashlib
import json
import math
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fork_server import python
from run_folders import COLUMNS, ROWS, cell, grid, step_line, usual_run, validation_line, write_run

from i2i.errors import InputError, UsageError
from i2i.evaluation.training_log import Series, read_log
from i2i.images import Picture, decode, write
from i2i.models.info import describe
from i2i.tools import markup, pictures
from i2i.tools.markup import chart, ticks
from i2i.tools.pictures import SampleColumns
from i2i.tools.report import MARK, read_run, write_report

SCRIPT = Path(__file__).parents[2] / "scripts" / "report.py"
VOID = {"meta", "img", "input", "br", "link", "hr"}
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\x1b[2J\x00\u202e\u2028"


class Page(HTMLParser):
    """The text of a page; fails at tags that do not close."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = self.script = self.style = ""
        self._open: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        inside = self._open[-1] if self._open else ""
        if inside == "script":
            self.script += data
        elif inside == "style":
            self.style += data
        else:
            self.text += data

    def all(self, tag: str, css: str | None = None) -> list[dict[str, str]]:
        return [a for t, a in self.tags if t == tag and (css is None or css in a.get("class", "").split())]


def page_of(run: Path, **options: Any) -> Page:
    return Page(write_report(run, **options).path)


def check_sound(page: Page) -> None:
    """Nothing from elsewhere, no handlers in attributes, every picture with a text, ids once, links that lead."""
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(set(ids)) == len(ids)
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)
        assert tag not in ("link", "iframe", "object", "embed", "base", "form", "image")
        assert attributes.get("src", "data:image/webp;base64,").startswith("data:image/webp;base64,"), tag
        if "href" in attributes:
            assert attributes["href"].removeprefix("#") in ids
    assert all(image["alt"] for image in page.all("img"))
    assert len(page.all("script")) == len(page.all("style")) == 1
    assert "http" not in re.sub(r"http-equiv", "", page.source.replace("http://www.w3.org", ""))


def test_page_shows_a_run(tmp_path: Path) -> None:
    run = usual_run(tmp_path / "facades")
    page = page_of(run)
    check_sound(page)
    assert page.source.encode().startswith(MARK)
    for text in (
        *("facades", "running", "the discriminator wins", "G_gan", "fake_B/ssim", "lambda_L1"),
        *("scripts/train_pix2pix.py --data data", "evaluation.json", "39.25", "resizer: area"),
    ):
        assert text in page.text, text
    assert [figure["data-step"] for figure in page.all("figure") if "data-step" in figure] == ["100", "1", "50"]
    assert len(page.all("svg")) == 3
    assert len(page.all("figure", "compare")) == 2 * ROWS


def test_policy_allows_this_style_and_script_only(tmp_path: Path) -> None:
    page = page_of(usual_run(tmp_path / "run"))
    policy = page.all("meta")[1]["content"]
    for text in (page.script, page.style):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy


@pytest.mark.promise("R52")
def test_hostile_text_stays_text(tmp_path: Path) -> None:
    lines = [
        step_line(1, **{EVIL: 1.0}),
        validation_line(1, **{EVIL: 0.5}),
        {"kind": "health", "step": 1, "message": EVIL},
        {"kind": "event", "step": 1, "text": EVIL},
        {"kind": EVIL, "step": 1, EVIL: EVIL},
    ]
    name = "<script>alert(3)<\\script>\x1b[2J"
    plain = EVIL.translate({0: None, 27: None})
    config = {plain: EVIL, "domain_a": EVIL, "seed": EVIL, "group": {plain: EVIL}}
    run = write_run(tmp_path / name, lines, samples=[1], config=config | {"validate_images": 1})
    (run / "samples" / "columns.json").write_text(json.dumps({"columns": [f"real_{EVIL}", EVIL, EVIL], "inputs": ROWS}))
    (run / "command.txt").write_text(EVIL)
    for file in ("environment.json", "status.json"):
        (run / file).write_text(json.dumps({"status": EVIL, "time": EVIL, "device": EVIL, EVIL: {EVIL: [EVIL]}}))
    measure = {"value": EVIL, "interval": EVIL, EVIL: {EVIL: [EVIL]}}
    evaluation = {
        "table": {EVIL: {EVIL: 1.5}},
        "protocol": {EVIL: EVIL},
        "results": [{"name": EVIL, EVIL: EVIL, "measures": {EVIL: measure}}],
        "comparisons": [{"name": EVIL, "less": EVIL, "differences": {EVIL: measure}}],
        "command": EVIL,
    }
    (run / f"evaluation{name}.json").write_text(json.dumps(evaluation))
    page = page_of(run)
    check_sound(page)
    shown = page.text + "".join(v for _, attributes in page.tags for v in attributes.values())
    assert "<script>alert(1)</script>" in shown and "<script>alert(3)" in shown
    assert "alert" not in page.script and "\\x1b[2J" in shown
    assert [c for c in page.source if not c.isprintable() and c != "\n"] == []


@pytest.mark.promise("R52")
def test_names_that_are_no_text(tmp_path: Path, not_utf8: str) -> None:
    run = write_run(tmp_path / f"run{not_utf8}", [step_line(1)])
    assert "\\udcff" in page_of(run).text


@pytest.mark.parametrize(
    ("lines", "samples"),
    [([], []), ([step_line(1)], []), ([step_line(1)], [1]), ([step_line(1), validation_line(1)], [])],
)
def test_small_runs(tmp_path: Path, lines: list[Any], samples: list[int]) -> None:
    page = page_of(write_run(tmp_path / "run", lines, samples))
    check_sound(page)
    assert ("The log has no steps yet." in page.text) == (not lines)
    assert len(page.all("figure", "compare")) == 2 * ROWS * len(samples)


def test_damaged_lines_are_counted_and_a_torn_end_is_not(tmp_path: Path) -> None:
    wrong = [b"\x00\xff\xfe\n", b"[1]\n", b"[" * 100_000 + b"\n", b'{"kind": "step", "step": "x"}\n', b"{} \n"]
    wrong += [b"x" * 100_000 + b"\n", b'{"kind": "validation", "step": 1}\n']
    huge = b'{"kind": "step", "step": 3, "losses": {"a": 1' + b"0" * 400 + b', "b": NaN, "c": true, "d": 1e200}}\n'
    run = write_run(tmp_path / "run", [step_line(1), *wrong, b"\n", huge, step_line(2), b'{"kind": "st'])
    log = read_log(run)
    assert (log.damaged, list(log.losses["G_gan"].steps), log.not_finite) == (len(wrong), [1, 2], 3)
    assert "damaged lines left out: 7" in page_of(run).text


def test_other_damage_is_named(tmp_path: Path) -> None:
    run = usual_run(tmp_path / "run")
    (run / "config.yaml").write_text("a: [")
    (run / "environment.json").write_text("[]")
    (run / "samples" / "step-00000050.png").write_bytes(b"not a picture")
    (run / "evaluation-2.json").write_text("{")
    (run / "samples" / "columns.json").write_text("{")
    (run / "a2b.safetensors").write_bytes(b"12345678")
    text = page_of(run).text
    for name in ("config.yaml", "columns.json", "step-00000050.png", "evaluation-2.json", "a2b.safetensors"):
        assert name in text


def test_a_pipe_in_a_run_folder_is_not_waited_for(tmp_path: Path) -> None:
    run = usual_run(tmp_path)
    (run / "command.txt").unlink(missing_ok=True)
    os.mkfifo(run / "command.txt")
    assert write_report(run).notices == ()


def test_messages_are_said_once_with_their_count(tmp_path: Path) -> None:
    lines = [{"kind": "health", "step": step, "message": "flat"} for step in (3, 5, 9)]
    text = page_of(write_run(tmp_path / "run", lines)).text
    assert "step 3 to 9, 3 times flat" in text


def test_the_page_of_a_long_run_is_small(tmp_path: Path) -> None:
    lines = [step_line(step, a=math.sin(step), b=1 / step) for step in range(1, 20_000)]
    lines += [validation_line(step) for step in range(300)]
    run = write_run(tmp_path / "run", lines)
    (run / "environment.json").write_text(json.dumps({"device": "&" * 100_000}))
    written = write_report(run)
    assert written.size < 1 << 18
    assert all(len(json.loads(svg["data-points"])) <= markup.MAX_POINTS for svg in Page(written.path).all("svg"))


def test_grids_are_thinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run", [step_line(1)], samples=range(1, 42))
    steps = [int(f["data-step"]) for f in page_of(run).all("figure") if "data-step" in f]
    assert len(steps) == pictures.MAX_GRIDS and {1, 41} <= set(steps) and steps[0] == 41
    one = len(pictures.embed(grid(41), "").uri)
    monkeypatch.setattr(pictures, "GRID_BYTES", 7 * one)
    page = page_of(run)
    steps = [int(f["data-step"]) for f in page.all("figure") if "data-step" in f]
    assert 3 <= len(steps) <= 7 and steps[0] == 41 and f"{len(steps)} of 41 sample grids" in page.text


def test_large_pictures_are_scaled() -> None:
    shown = pictures.embed(np.zeros((4000, 100, 3), np.uint8), "")
    assert (shown.height, shown.width) == (pictures.MAX_SIDE, 40)


LAYOUT = SampleColumns(["real_A", "fake_B", "real_B"], ROWS)


@pytest.mark.parametrize("rows", [1, 2, 4])
@pytest.mark.parametrize("caption", [0, 16])
def test_cells_are_those_of_the_grid(rows: int, caption: int) -> None:
    whole = np.pad(grid(5, rows), ((caption, 0), (0, 0), (0, 0)))
    found = pictures.cells_of(whole, SampleColumns(LAYOUT.columns, rows, caption_height=caption))
    assert [len(row) for row in found] == [COLUMNS] * rows
    for row in range(rows):
        for column in range(COLUMNS):
            assert (found[row][column] == cell(5, row, column)).all()


def test_inputs_beside_each_other_are_rows_too() -> None:
    found = pictures.cells_of(grid(5, rows=2, columns=4), SampleColumns(["real_A", "fake_B"], 4, inputs_per_row=2))
    assert [(picture == cell(5, 1, 2)).all() for row in found for picture in row].index(True) == 6
    assert len(found) == 4


def test_other_grids_have_no_cells() -> None:
    assert pictures.cells_of(grid(5)[:, 1:], LAYOUT) == []
    assert pictures.cells_of(grid(5), SampleColumns(["real_A", "fake_B"], 10**9)) == []


def test_pairs_are_cut_from_a_grid_of_torchvision(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from torchvision.utils import make_grid

    colours = [torch.full((3, 16, 20), value / 10) for value in range(6)]
    made = make_grid(colours, nrow=3, padding=2, pad_value=1.0)
    path = tmp_path / "step-00000001.png"
    write(path, Picture((made * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()))
    found = pictures.sample_pairs(path, LAYOUT)
    before = [decode(base64.b64decode(pair.before.uri.partition(",")[2])).pixels for pair in found]
    assert [round(float(pixels.mean()) / 25.5) for pixels in before] == [0, 2, 3, 5]
    assert before[0].shape == (16, 20, 3)


def test_columns_to_compare_follow_from_their_names() -> None:
    for names, expected in (
        (["real_A", "fake_B", "real_B"], [(0, 1), (2, 1)]),  # pix2pix: input and target
        (["real_A", "fake_B", "cycle_A", "real_B", "fake_A", "cycle_B"], [(0, 1), (3, 4)]),
        (["real_A", "fake_B", "real_B", "identity_B"], [(0, 1), (2, 3)]),
        (["real_A", "fake_B", "teacher_B"], [(0, 1)]),
        (["fake_B", "real_B"], []),  # a GAN's have nothing to do with each other
        ([], []),
    ):
        assert SampleColumns(names, 1).comparisons == expected


def test_a_run_without_names_of_columns_shows_its_grids(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [step_line(1)], samples=[1])
    (run / "samples" / "columns.json").unlink()
    page = page_of(run)
    check_sound(page)
    assert "Samples through time" in page.text and "Columns from left" not in page.text
    assert not page.all("figure", "compare")


def test_evenly() -> None:
    assert pictures.evenly(range(10), 4) == [0, 3, 6, 9]
    assert pictures.evenly(range(10), 1) == [9] and pictures.evenly([1], 4) == [1]


def test_curves_keep_level_and_ends() -> None:
    series = Series()
    for step in range(1, 5001):
        series.add(step, 2.0)
    x, y, low, high = markup.thinned(series)
    assert len(x) == markup.MAX_POINTS and x[-1] == 5000
    assert np.allclose(y, 2.0) and np.allclose(low, 2.0) and np.allclose(high, 2.0)
    assert list(markup.smoothed(np.array([1.0, 5.0]))) == [1.0, 5.0]
    falling = markup.smoothed(1 / np.arange(1, 101))
    assert falling[0] == 1 and (np.diff(falling) < 0).all()


def test_thinned_sorts_by_step() -> None:
    series = Series()
    for step in (3, 1, 2):
        series.add(step, step * 10.0)
    assert list(markup.thinned(series)[1]) == [10, 20, 30]


@pytest.mark.parametrize(
    "values", [[0.0], [5.0, 5.0], [-1e100, 1e100], [1e-300, 1e-5, 1.0], [1e100, -1e100, 0.0], [5e-324, 1e-320]]
)
def test_any_numbers_can_be_drawn(values: list[float]) -> None:
    series = Series()
    for step, value in enumerate(values):
        series.add(step, value)
    drawn = chart("loss", series)
    assert not re.search(r"\b(nan|inf)\b", drawn)
    assert drawn.count("<circle") == len(values)


def test_logarithmic_where_it_helps() -> None:
    series = Series()
    for step in range(1, 100):
        series.add(step, 1000.0 / step**2)
    assert "· log" in chart("loss", series)
    series.add(100, 0.0)
    assert "· log" not in chart("loss", series)


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0, 8000, 4) == [0, 2000, 4000, 6000, 8000]
    assert ticks(0.177, 0.184, 6) == [0.178, 0.18, 0.182, 0.184]
    assert ticks(3, 3, 4) == [3]


def test_the_page_shows_the_file_of_an_evaluation(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [step_line(1)])
    swd = {"value": 12.5, "pictures": 71, "std": 0.75, "levels": {"16": 9.25}, "patches": 8, "reference": 1300}
    swd["interval"] = [11.25, 14.125]
    difference = {"value": -1.625, "interval": [-2.5, -0.875], "differs": True}
    results = [
        {"name": name, "sha256": "ab12", "measures": {"swd": swd, EVIL: {"value": None}}} for name in ("x", EVIL)
    ]
    values: dict[str, Any] = {"table": {"x": {"swd": 12.5, "fid": None}}, "results": results, "protocol": {"seed": 0}}
    values["comparisons"] = [{"name": "x", "less": "x", "differences": {"swd": difference}}]
    (run / "evaluation.json").write_text(json.dumps(values))
    page = page_of(run)
    check_sound(page)
    for shown in (
        "n = 71 against 1300, std 0.75",
        "9.25",
        "seed: 0",
        "x: sha256 ab12",
        "95 % interval",
        "[11.25, 14.12]",
    ):
        assert shown in page.text, shown
    for shown in ("x less x", "-1.625", "[-2.5, -0.875]", "better"):
        assert shown in page.text, shown
    assert "same pictures" not in page.text, "not all rows are of the same"
    assert "{'" not in page.text and "measures" not in page.text


def test_options_are_shown_as_the_configuration_has_them(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [step_line(1)])
    text = "# relative paths begin here\nalgorithm: pix2pix\nnetworks:\n  dropout: false\n  bias: null\n"
    (run / "config.yaml").write_text(text)
    assert text.strip() in page_of(run).text


@pytest.mark.parametrize("values", [{"results": [1, 2]}, {"results": [{"measures": 3}]}, {"results": 7}])
def test_an_odd_file_of_an_evaluation_is_left_out(values: dict[str, Any], tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [step_line(1)])
    (run / "evaluation.json").write_text(json.dumps({"results": [], "command": "evaluate 12.5"}))
    (run / "evaluation-odd.json").write_text(json.dumps(values))
    page = page_of(run)
    assert "evaluation-odd.json is left out: not as i2i evaluate writes it" in page.text and "12.5" in page.text


def test_text_is_bounded() -> None:
    assert markup.escape("\U0010ffff" * 100, limit=10) == "\\U0010ffff" * 10 + "…"
    assert len(markup.escape("a" * 10**6)) == markup.MAX_TEXT + 1


def test_numbers_as_text() -> None:
    assert [markup.number(x) for x in (0.123456, 12345, 7, None, True, math.nan, 10**30)] == [
        "0.1235", "12,345", "7", "–", "True", "not finite", "1" + "0" * 30]  # fmt: skip


def test_no_run_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for name, reason in (("missing", "no such folder"), ("file", "not a folder"), ("empty", "not the folder of a run")):
        with pytest.raises(InputError, match=reason):
            read_run(tmp_path / name)


def test_only_reports_are_replaced(tmp_path: Path) -> None:
    run, out = usual_run(tmp_path / "run"), tmp_path / "page.html"
    for content in (b"", b"<!doctype html>\n<p>my work"):
        out.write_bytes(content)
        with pytest.raises(UsageError, match="not a report"):
            write_report(run, out)
        assert out.read_bytes() == content
    with pytest.raises(UsageError, match="not a report"):
        write_report(run, tmp_path)
    out.unlink()
    assert write_report(run, out).size == write_report(run, out).size == out.stat().st_size
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".part")]


def test_own_pictures_are_translated(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from i2i.models import model_file
    from i2i.networks.resnet import ResnetConfig

    run, photos = write_run(tmp_path / "run", [step_line(1)]), tmp_path / "photos"
    photos.mkdir()
    config = ResnetConfig(blocks=1, width=4)
    model_file.save(run / "a2b.safetensors", config.build(), describe(config, direction="a2b"))
    write(photos / "a <b>.png", Picture(np.full((20, 30, 3), 90, np.uint8)))
    write(photos / "large.png", Picture(np.full((600, 700, 1), 90, np.uint8)))
    (photos / "broken.png").write_bytes(b"no picture")
    written = write_report(run, pictures=photos, device="cpu")
    page = Page(written.path)
    check_sound(page)
    assert len(written.failed) == 1 and "broken.png" in written.failed[0] and "broken.png" in page.text
    assert "a <b>.png: input | output" in page.text and "large.png: input | output (scaled)" in page.text
    assert [(i["width"], i["height"]) for i in page.all("img")][:2] == [("30", "20")] * 2
    with pytest.raises(InputError, match="no pictures"):
        write_report(run, pictures=run, device="cpu")


def test_script(tmp_path: Path) -> None:
    run = usual_run(tmp_path / "run")

    def code(*words: object) -> tuple[int, str]:
        done = python(SCRIPT, *words)
        return done.returncode, done.stdout + done.stderr

    assert code(run) == (0, f"{run}/report.html: 0.0 MB\n")
    assert code(tmp_path / "missing")[0] == 4
    assert code(run, "-o", tmp_path / "page.txt")[0] == 2


def test_neither_help_nor_a_plain_report_needs_torch(tmp_path: Path) -> None:
    run = usual_run(tmp_path / "run")
    program = (
        "import sys; from pathlib import Path; from i2i.tools.report import write_report\n"
        f"write_report(Path({str(run)!r}))\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
