"""The report page: its structure, what of hostile text arrives in it, its bounds, and odd run folders."""

import base64
import hashlib
import json
import math
import os
import re
import subprocess
import sys
import tracemalloc
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_folders import COLUMNS, ROWS, cell, grid, step_line, usual_run, validation_line, write_run

from i2i.errors import InputError, UsageError
from i2i.evaluation import log_record
from i2i.evaluation.log_record import Series, read_log
from i2i.images import Picture, decode, write
from i2i.tools.report import charts, markup, pictures, run_record
from i2i.tools.report.charts import chart, ticks
from i2i.tools.report.numbers import best_of
from i2i.tools.report.report import MARK, MAX_PAGE_BYTES, write_report

SCRIPT = Path(__file__).parents[2] / "scripts" / "report.py"
VOID = {"meta", "img", "input", "br", "link", "hr"}
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\x1b[2J\x00\u202e\u2028"


class Page(HTMLParser):
    """What stands in a page; fails at tags that do not close."""

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
        *("scripts/train_pix2pix.py --data data", "evaluation.json", "39.25", "protocol.resizer", "area"),
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
    config = {EVIL.translate({0: None, 27: None}): EVIL, "lambda_cycle_A": 1, "domain_a": EVIL, "seed": EVIL}
    run = write_run(tmp_path / name, lines, samples=[1], config=config | {"samples": ROWS, "validate_images": 1})
    (run / "command.txt").write_text(EVIL)
    for file in ("environment.json", "status.json"):
        (run / file).write_text(json.dumps({"status": EVIL, "time": EVIL, "device": EVIL, EVIL: {EVIL: [EVIL]}}))
    evaluation = {"table": [{EVIL: EVIL}], "metrics": {EVIL: {EVIL: EVIL}}, EVIL: EVIL}
    (run / f"evaluation{name}.json").write_text(json.dumps(evaluation))
    write(run / "samples" / "step-00000001.png", Picture(grid(1, columns=6)))
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
    wrong += [b"x" * (log_record.MAX_LINE_BYTES * 2 + 5) + b"\n", b'{"kind": "validation", "step": 1}\n']
    huge = b'{"kind": "step", "step": 3, "losses": {"a": 1' + b"0" * 400 + b', "b": NaN, "c": true, "d": 1e200}}\n'
    run = write_run(tmp_path / "run", [step_line(1), *wrong, b"\n", huge, step_line(2), b'{"kind": "st'])
    log = read_log(run / "log.jsonl")
    assert (log.damaged, log.steps, log.not_finite) == (len(wrong), 3, 3)
    assert "damaged lines left out: 7" in page_of(run).text


def test_other_damage_is_named(tmp_path: Path) -> None:
    run = usual_run(tmp_path / "run")
    (run / "config.yaml").write_text("a: [")
    (run / "environment.json").write_text("[]")
    (run / "samples" / "step-00000050.png").write_bytes(b"not a picture")
    (run / "evaluation-2.json").write_text("{")
    (run / "a2b.safetensors").write_bytes(b"12345678")
    text = page_of(run).text
    for name in ("config.yaml", "environment.json", "step-00000050.png", "evaluation-2.json", "a2b.safetensors"):
        assert name in text


def test_a_pipe_in_a_run_folder_is_not_waited_for(tmp_path: Path) -> None:
    run = usual_run(tmp_path)
    (run / "command.txt").unlink(missing_ok=True)
    os.mkfifo(run / "command.txt")
    assert any("command.txt is not a file" in notice for notice in write_report(run).notices)


def test_messages_are_said_once_with_their_count(tmp_path: Path) -> None:
    lines = [{"kind": "health", "step": step, "message": "flat"} for step in (3, 5, 9)]
    lines += [{"kind": "health", "message": f"m{i}"} for i in range(log_record.MAX_MESSAGES + 7)]
    text = page_of(write_run(tmp_path / "run", lines)).text
    assert "step 3 to 9, 3 times flat" in text and "8 more messages are not shown" in text


def test_page_is_bounded(tmp_path: Path) -> None:
    many = {f"loss {i} {'&' * 100}": 0.5 for i in range(200)}
    long = {f"key{i}": "&" * 20_000 for i in range(1000)}
    lines: list[Any] = [step_line(step, a=math.sin(step)) for step in range(1, 20_000)] + [step_line(20_000, **many)]
    lines += [validation_line(step, **many) for step in range(300)]
    lines += [{"kind": "health", "step": i, "message": f"{i}" + "&" * 9000} for i in range(300)]
    run = write_run(tmp_path / "run", lines)
    (run / "evaluation.json").write_text(json.dumps({"table": [{f"c{i}": "&" * 300 for i in range(90)}] * 150}))
    (run / "environment.json").write_text(json.dumps({k: v[:3000] for k, v in long.items()}))
    written = write_report(run)
    assert written.size < MAX_PAGE_BYTES - pictures.GRID_BYTES - 2 * pictures.PAIR_BYTES
    page = Page(written.path)
    assert len(page.all("svg")) <= 2 * log_record.MAX_SERIES
    assert all(len(json.loads(svg["data-points"])) <= charts.MAX_POINTS for svg in page.all("svg"))
    assert "more curves are not shown" in page.text and "more entries are not shown" in page.text


def test_grids_are_thinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run", [step_line(1)], samples=range(1, 42))
    steps = [int(f["data-step"]) for f in page_of(run).all("figure") if "data-step" in f]
    assert len(steps) == pictures.MAX_GRIDS and {1, 41} <= set(steps) and steps[0] == 41
    one = len(pictures.shown(grid(41), "").uri)
    monkeypatch.setattr(pictures, "GRID_BYTES", 7 * one)
    page = page_of(run)
    steps = [int(f["data-step"]) for f in page.all("figure") if "data-step" in f]
    assert 3 <= len(steps) <= 7 and steps[0] == 41 and f"{len(steps)} of 41 sample grids" in page.text


def test_large_pictures_are_scaled() -> None:
    shown = pictures.shown(np.zeros((4000, 100, 3), np.uint8), "")
    assert (shown.height, shown.width) == (pictures.MAX_SIDE, 40)


def test_evenly() -> None:
    assert pictures.evenly(range(10), 4) == [0, 3, 6, 9]
    assert pictures.evenly(range(10), 1) == [9] and pictures.evenly([1], 4) == [1]


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_cells_are_those_of_the_grid(rows: int) -> None:
    found = pictures.cells_of(grid(5, rows), COLUMNS, 4)
    assert found is not None and (found.rows, found.height, found.width) == (rows, 24, 24)
    for row in range(rows):
        for column in range(COLUMNS):
            assert (found.cut(grid(5, rows), row, column) == cell(5, row, column)).all()


def test_other_grids_have_no_cells() -> None:
    assert pictures.cells_of(grid(5)[:, 1:], COLUMNS, 4) is None
    assert pictures.cells_of(np.zeros_like(grid(5)), COLUMNS, 4) is None


def test_pairs_are_cut_from_the_grid_that_training_writes(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from torchvision.utils import make_grid

    from i2i.training.outputs import save_grid

    colours = [torch.full((3, 16, 20), value / 10) for value in range(6)]
    save_grid(tmp_path / "samples" / "step-00000001.png", make_grid(colours, nrow=3, padding=2, pad_value=1.0))
    layout = pictures.layout_of({"lambda_L1": 1})
    found = pictures.sample_pairs(tmp_path / "samples" / "step-00000001.png", layout, 4)
    before = [decode(base64.b64decode(pair.before.uri.partition(",")[2])).pixels for pair in found]
    assert [round(float(pixels.mean()) / 25.5) for pixels in before] == [0, 2, 3, 5]
    assert before[0].shape == (16, 20, 3)


def test_layouts_are_those_of_the_algorithms() -> None:
    torch = pytest.importorskip("torch")
    from i2i.algorithms import ALGORITHMS
    from i2i.algorithms.cyclegan import CycleGANOptions
    from i2i.algorithms.pix2pix import Pix2PixOptions
    from i2i.config import to_mapping
    from i2i.data.pair import ImagePair

    x = torch.zeros(1, 3, 8, 8)
    kinds = {"pix2pix": Pix2PixOptions, "cyclegan": CycleGANOptions}
    for name, options in kinds.items():
        tiny = options(generator="resnet_1blocks", discriminator="pixelgan", ngf=4, ndf=4)
        algorithm = ALGORITHMS[name](tiny)
        columns = algorithm.pictures(ImagePair(x, x), dict.fromkeys(("a2b", "b2a"), torch.nn.Identity()))
        layout = pictures.layout_of(to_mapping(tiny))
        assert layout is not None and len(layout.columns) == len(columns)
        names = list(columns)
        for before, after in layout.pairs:
            assert names[before].startswith("real") and names[after].startswith("fake")


def test_directions_name_the_domains() -> None:
    there = pictures.layout_of({"lambda_cycle_A": 1, "domain_a": "Monet", "domain_b": "photo", "direction": "b2a"})
    assert there is not None and there.columns[:3] == ("photo", "photo → Monet", "photo → Monet → photo")
    assert pictures.layout_of({"other": 1}) is None


def test_curves_keep_level_and_ends() -> None:
    series = Series()
    for step in range(1, 5001):
        series.add(step, 2.0)
    curve = charts.thinned(series)
    assert len(curve.x) == charts.MAX_POINTS and curve.x[-1] == 5000 and curve.count == 5000
    assert np.allclose(curve.y, 2.0) and np.allclose(curve.low, 2.0)
    assert charts.smoothed([1.0, 5.0]) == [1.0, 5.0]
    falling = charts.smoothed([1 / i for i in range(1, 101)])
    assert falling[0] == 1 and sorted(falling, reverse=True) == falling


def test_thinned_sorts_by_step() -> None:
    series = Series()
    for step in (3, 1, 2):
        series.add(step, step * 10.0)
    assert charts.thinned(series).y == [10, 20, 30]


@pytest.mark.parametrize(
    "values", [[0.0], [5.0, 5.0], [-1e100, 1e100], [1e-300, 1e-5, 1.0], [1e100, -1e100, 0.0], [5e-324, 1e-320]]
)
def test_any_numbers_can_be_drawn(values: list[float]) -> None:
    series = Series()
    for step, value in enumerate(values):
        series.add(step, value)
    drawn = chart("loss", charts.exact(series), points=True)
    assert not re.search(r"\b(nan|inf)\b", drawn)
    assert drawn.count("<circle") == len(values)


def test_logarithmic_where_it_helps() -> None:
    series = Series()
    for step in range(1, 100):
        series.add(step, 1000.0 / step**2)
    assert "· log" in chart("loss", charts.exact(series))
    assert "· log" not in chart("loss", charts.Curve([1, 2], [0.0, 100.0], [0, 0], [100, 100], 2))


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0, 8000, 4) == [0, 2000, 4000, 6000, 8000]
    assert ticks(0.177, 0.184, 6) == [0.178, 0.18, 0.182, 0.184]
    assert ticks(3, 3, 4) == [3]


def test_best() -> None:
    assert best_of([1, 3, 2], "fake_B/ssim") == 3 and best_of([1, 3, 2], "l1") == 1
    assert best_of([1, 3, 2], "loudness") is None and best_of([], "l1") is None


def test_measures_with_their_spread(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [step_line(1)])
    kid = {"value": 0.0123, "pictures": 70, "beside": {"std": 0.5, "interval": [0.25, 1.75]}}
    (run / "evaluation.json").write_text(json.dumps({"metrics": {"kid": kid, "fid": {"value": 41.0, "pictures": 71}}}))
    text = page_of(run).text
    for shown in ("kid", "0.0123", "beside.interval", "0.25, 1.75", "71", "–"):
        assert shown in text


def test_what_evaluate_wrote(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [step_line(1)])
    swd = {"value": 12.5, "pictures": 71, "std": 0.75, "levels": {"16": 9.25}, "reference": 1300}
    swd["interval"] = [11.25, 14.125]
    difference = {"value": -1.625, "interval": [-2.5, -0.875], "differs": True}
    results = [
        {"name": name, "sha256": "ab12", "measures": {"swd": swd, EVIL: {"value": None}}} for name in ("x", EVIL)
    ]
    validations = [{"step": 50, "epoch": 2, "metrics": {"b/l1": 0.125}}]
    values = {"table": {"x": {"swd": 12.5}}, "results": results, "validations": validations, "protocol": {}}
    values["comparisons"] = [{"name": EVIL, "less": "x", "differences": {"swd": difference, EVIL: {"value": EVIL}}}]
    (run / "evaluation.json").write_text(json.dumps(values))
    page = page_of(run)
    check_sound(page)
    for shown in ("±", "0.75", "71", "1300", "levels.16 9.25", "metrics.b/l1", "0.125", "results.1.sha256"):
        assert shown in page.text, shown
    for shown in ("95 % interval", "[11.25, 14.12]", "-1.625", "[-2.5, -0.875]"):
        assert shown in page.text, shown
    assert "Differences; bold" in page.text and "same pictures" not in page.text, "not all rows are of the same"
    assert "{'" not in page.text and "measures" not in page.text
    for odd in ([], "text", [1], [{"measures": 3}], [{"measures": {"swd": 3}}], {"a": {"measures": {}}}):
        odd_too = [{"differences": odd}] if isinstance(odd, dict) else odd
        (run / "evaluation.json").write_text(json.dumps({"table": {}, "results": odd, "comparisons": odd_too}))
        check_sound(page_of(run))


@pytest.mark.parametrize(
    "table",
    [[{"a": 1.5, "b": 7}], {"row": {"a": 1.5, "b": 7}}, {"a": 1.5, "b": 7}, [[1.5, 7]], [1.5, 7], "1.5 and 7"],
)
def test_tables_of_any_kind(tmp_path: Path, table: Any) -> None:
    run = write_run(tmp_path / "run", [step_line(1)])
    (run / "evaluation_best.json").write_text(json.dumps({"table": table, "metrics": {}}))
    (run / "evaluation_other.json").write_text(json.dumps({"unrelated": "not shown"}))
    page = page_of(run)
    check_sound(page)
    assert "1.5" in page.text and "7" in page.text and "unrelated" not in page.text


def test_text_is_bounded() -> None:
    assert markup.escape("\U0010ffff" * 100, limit=10) == "\\U0010ffff" * 10 + "…"
    assert len(markup.escape("a" * 10**6)) == markup.MAX_TEXT + 1
    assert markup.fitted(["aa", "bbbb", "c"], 4, "parts") == "aa" + markup.left_out(2, "parts")
    assert len(markup.facts({"a": "x" * 10_000, **{str(i): i for i in range(1000)}})) < 20_000


def test_numbers_as_text() -> None:
    assert [markup.number(x) for x in (0.123456, 12345, 7, None, True, math.nan, 10**30)] == [
        "0.1235", "12,345", "7", "–", "True", "not finite", "1" + "0" * 30]  # fmt: skip


def test_no_run_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for name, reason in (("missing", "no such folder"), ("file", "not a folder"), ("empty", "not the folder of a run")):
        with pytest.raises(InputError, match=reason):
            run_record.read_run(tmp_path / name)


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
    model_file.save(run / "a2b.safetensors", config.build(), model_file.describe(config, direction="a2b"))
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
        done = subprocess.run([sys.executable, SCRIPT, *map(str, words)], capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    assert code(run) == (0, f"{run}/report.html: 0.0 MB\n")
    assert code(tmp_path / "missing")[0] == 4
    assert code(run, "-o", tmp_path / "page.txt")[0] == 2


def test_neither_help_nor_a_plain_report_needs_torch(tmp_path: Path) -> None:
    run = usual_run(tmp_path / "run")
    program = (
        "import sys; from pathlib import Path; from i2i.tools.report.report import write_report\n"
        f"write_report(Path({str(run)!r}))\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.promise("R45")
def test_a_log_takes_little_memory_whatever_is_in_it(tmp_path: Path) -> None:
    """A value that should be a number and is a tree of a mebibyte, in many lines; and more numbers than are drawn."""
    tree = json.dumps([[]] * 100_000)
    odd = [f'{{"kind": "validation", "step": {n}, "epoch": {tree}, "metrics": {{"l1": 1}}}}' for n in range(30)]
    odd += [f'{{"kind": "step", "step": {n}, "images": {tree}, "losses": {{"G": 1}}}}' for n in range(3)]
    (tmp_path / "log.jsonl").write_text("\n".join(odd) + "\n")
    tracemalloc.start()
    try:
        log = read_log(tmp_path / "log.jsonl")
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1 << 20 and peak < 40 << 20
    assert [entry for _, entry in log.validations] == [{"l1": 1.0, "epoch": None}] * 30
    assert log.last == {"step": 2}


def test_of_very_many_numbers_every_second_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_record, "MAX_NUMBERS", 8)
    series = Series()
    for step in range(1, 101):
        series.add(step, step / 2)
    assert series.count == 100 and len(series.steps) <= 8
    assert list(series.steps) == [16, 32, 48, 64, 80, 96] and list(series.values) == [step / 2 for step in series.steps]


def test_of_very_many_validations_the_first_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_record, "MAX_VALIDATIONS", 5)
    lines = [validation_line(step, l1=0.1) for step in range(8)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    log = read_log(tmp_path / "log.jsonl")
    assert len(log.validations) == 5 and log.other_validations == 3
