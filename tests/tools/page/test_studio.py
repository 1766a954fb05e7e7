"""The work behind the page: uploads are bounded and numbered, results keep names, formats and depth."""

import errno
import os
import threading
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from i2i import images
from i2i.inference.mix import load_mix
from i2i.inference.options import ModelOptions
from i2i.models import model_file, styles
from i2i.models.info import describe
from i2i.networks.resnet import ResnetConfig
from i2i.tools.page import studio as page_studio
from i2i.tools.page.studio import Bounds, Order, Outcome, Studio, Upload, file_name

pytestmark = pytest.mark.promise("R51")
NOISE = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)


@pytest.fixture(scope="module")
def offered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("styles")
    for name in ("one", "two"):
        network = ResnetConfig(width=2, blocks=0).build()
        model_file.save(folder / f"{name}.safetensors", network, describe(network, direction="a2b"))
    return {name: styles.style_at(name, "run", folder / f"{name}.safetensors") for name in ("one", "two")}


@pytest.fixture
def studio(offered: dict[str, Any]) -> Studio:
    return Studio(offered, ModelOptions(device="cpu", runtime="torch"), Bounds(file_bytes=100_000, pixels=10_000))


@pytest.fixture
def upload(tmp_path: Path) -> Callable[..., Upload]:
    """Writes a picture, or bytes, as the page keeps an upload."""
    folder = tmp_path / "uploads"
    folder.mkdir()

    def write(name: str, content: Any = None) -> Upload:
        path = folder / str(len(list(folder.iterdir())))
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            picture = images.Picture(NOISE) if content is None else content
            path.write_bytes(images.encode(picture, images.WRITTEN[Path(name).suffix.lower()]))
        return Upload(path, name)

    return write


def fill(studio: Studio, folder: Path, *uploads: Upload, **options: Any) -> Outcome:
    options = {"styles": ["one"], "stop": lambda: False, "progress": lambda *_: None} | options
    stop, progress = options.pop("stop"), options.pop("progress")
    (folder / "order").mkdir()
    return studio.translate(Order(uploads=uploads, **options), folder / "order", progress, stop)


def names(outcome: Outcome) -> list[str]:
    assert outcome.archive is not None
    with zipfile.ZipFile(outcome.archive) as archive:
        return archive.namelist()


def test_names_formats_depth_and_alpha_stay(studio: Studio, upload: Any, tmp_path: Path) -> None:
    deep = images.Picture(NOISE.astype(np.uint16) * 257, alpha=np.full((20, 30), 60_000, np.uint16))
    outcome = fill(studio, tmp_path, upload("a b.JPG"), upload("deep.png", deep), upload("c.tif", deep))
    assert [row.status for row in outcome.rows] == ["done"] * 3
    assert names(outcome) == ["a b.JPG", "deep.png", "c.tif"]
    results = [images.read(result.file) for result in outcome.results]
    found: Any = [(r.format, r.pixels.dtype, r.alpha is None) for r in results]
    assert found == [
        ("JPEG", np.uint8, True), ("PNG", np.uint16, False), ("TIFF", np.uint16, False),
    ]  # fmt: skip
    shown = [(images.read(r.before).pixels.shape[:2], images.read(r.after).pixels.shape[:2]) for r in outcome.results]
    assert shown == [((20, 30), (20, 30))] * 3


def test_pictures_are_shown_with_8_bits_their_profile_and_not_too_large(tmp_path: Path) -> None:
    data = images.Picture(np.zeros((1500, 2600, 5), np.uint16))
    images.write(tmp_path / "data.tif", data)
    assert (page_studio.preview(tmp_path / "data.tif").size, page_studio.preview(tmp_path / "data.tif").mode) == (
        (1280, 738), "L",
    )  # fmt: skip


def test_files_of_one_name_stay_apart(studio: Studio, upload: Any, tmp_path: Path) -> None:
    outcome = fill(studio, tmp_path, upload("a.png"), upload("A.png"), upload("b.png"))
    assert names(outcome) == ["0001_a.png", "0002_A.png", "b.png"]


def test_several_styles_have_a_folder_each_and_stand_by_the_picture(
    studio: Studio, upload: Any, tmp_path: Path
) -> None:
    outcome = fill(studio, tmp_path, upload("a.png"), upload("b.png"), styles=["one", "two"])
    assert sorted(names(outcome)) == ["one/a.png", "one/b.png", "two/a.png", "two/b.png"]
    assert [(r.name, r.style) for r in outcome.results] == [
        ("a.png", "one"), ("a.png", "two"), ("b.png", "one"), ("b.png", "two"),
    ]  # fmt: skip


def test_a_mix_stands_beside_the_single_styles(studio: Studio, upload: Any, offered: Any, tmp_path: Path) -> None:
    order: dict[str, Any] = {"styles": ["one", "two"], "mix": {"one": 60.0, "two": 40.0}, "strength": 0.5}
    outcome = fill(studio, tmp_path, upload("a.png"), **order)
    mix = "one 60 % + two 40 %"
    assert [(row.style, row.status) for row in outcome.rows] == [(name, "done") for name in ("one", "two", mix)]
    assert names(outcome) == ["one/a.png", "two/a.png", f"{mix}/a.png"]
    weights = {str(offered[name].path): weight for name, weight in order["mix"].items()}
    expected = load_mix(weights, runtime="torch", device="cpu")(NOISE, strength=0.5)
    found = [images.read(result.file).pixels for result in outcome.results]
    assert np.array_equal(found[2], expected)
    assert not np.array_equal(found[2], found[0]) and not np.array_equal(found[2], found[1])


@pytest.mark.parametrize("keep", ["luminance", "colour"])
def test_strength_mask_and_keep_are_those_of_the_library(
    studio: Studio, upload: Any, tmp_path: Path, keep: Any
) -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, 30).astype(np.uint8), (20, 30))
    mask = upload("mask.png", images.Picture(np.ascontiguousarray(ramp[..., None])))
    outcome = fill(studio, tmp_path, upload("a.png"), strength=0.7, keep=keep, mask=mask)
    expected = studio.translator("one")(NOISE, strength=0.7, keep=keep, mask=ramp)
    assert np.array_equal(images.read(outcome.results[0].file).pixels, expected)


def test_styles_that_cannot_be_mixed_are_a_row(studio: Studio, upload: Any, tmp_path: Path) -> None:
    network = ResnetConfig(in_channels=1, width=2, blocks=0).build()
    model_file.save(tmp_path / "grey.safetensors", network, describe(network, direction="a2b"))
    studio.styles = {**studio.styles, "grey": styles.style_at("grey", "run", tmp_path / "grey.safetensors")}
    outcome = fill(studio, tmp_path, upload("a.png"), styles=["one", "grey"], mix={"one": 1.0, "grey": 1.0})
    assert [row.status for row in outcome.rows] == ["done", "done", "failed"]
    assert outcome.rows[-1].note.startswith("mix: one takes 3 channels and gives 3, grey takes 1")


def test_a_refused_file_is_a_row_with_its_reason(studio: Studio, upload: Any, tmp_path: Path) -> None:
    bomb = images.encode(images.Picture(np.zeros((200, 200, 3), np.uint8)), "PNG")
    large = images.encode(images.Picture(NOISE), "PNG") + bytes(100_000)
    outcome = fill(
        studio, tmp_path, upload("bomb.png", bomb), upload("large.png", large), upload("text.png", b"hello"),
        upload("a.txt", b"hello"), upload("good.png"),
    )  # fmt: skip
    rows = {row.picture: (row.status, row.note) for row in outcome.rows}
    assert "at most 10000 are accepted" in rows["bomb.png"][1] and "at most 100000" in rows["large.png"][1]
    assert "no picture" in rows["a.txt"][1]
    assert [status for status, _ in rows.values()] == ["refused"] * 4 + ["done"]
    assert not any(str(tmp_path) in note for _, note in rows.values()), "no path of the server"


def test_a_size_above_the_limit_is_refused(studio: Studio, upload: Any, tmp_path: Path) -> None:
    (row,) = fill(studio, tmp_path, upload("a.png"), size=90).rows
    assert row.status == "refused" and "135x90 pixels: at most 10000 are accepted" in row.note


@pytest.mark.parametrize("name", ["half.png", "in", "out", "mask", "shown", "translated.zip"])
def test_a_mask_may_have_any_name_and_is_named_without_its_folder(
    studio: Studio, upload: Any, tmp_path: Path, name: str
) -> None:
    half = np.repeat(np.uint8([[0, 255]]), (15, 15), axis=1).repeat(20, axis=0)
    mask = replace(upload("mask.png", images.Picture(half[..., None])), name=name)
    (row,) = fill(studio, tmp_path, upload("a.png"), mask=mask).rows
    assert (row.status, row.note) == ("done", f"mask {name}")
    drawn = images.encode(images.Picture(NOISE, half), "PNG")
    (tmp_path / "drawn").mkdir()
    (row,) = fill(studio, tmp_path / "drawn", upload("a.png"), drawn=drawn).rows
    assert (row.status, row.note) == ("done", "mask a.png")


def test_an_order_ends_when_its_results_take_too_much(studio: Studio, upload: Any, tmp_path: Path) -> None:
    studio.bounds = replace(studio.bounds, result_bytes=2000)
    rows = fill(studio, tmp_path, *(upload(f"{number}.png") for number in range(8))).rows
    assert rows[0].status == "done" and rows[-1].status == "not done"
    assert rows[-1].note == "all results have 0 MB, the most of one request"


def test_nothing_usable_gives_no_archive(studio: Studio, upload: Any, tmp_path: Path) -> None:
    outcome = fill(studio, tmp_path, upload("text.png", b"hello"))
    assert (outcome.results, outcome.archive) == ([], None)


def test_a_damaged_picture_does_not_stop_the_rest(studio: Studio, upload: Any, tmp_path: Path) -> None:
    cut = images.encode(images.Picture(NOISE), "PNG")[:-40]
    outcome = fill(studio, tmp_path, upload("cut.png", cut), upload("good.png"))
    assert [row.status for row in outcome.rows] == ["failed", "done"]


def test_an_order_ends_when_it_is_stopped_or_its_time_is_up(
    offered: dict[str, Any], studio: Studio, upload: Any, tmp_path: Path
) -> None:
    uploads = [upload("a.png"), upload("b.png")]
    outcome = fill(studio, tmp_path, *uploads, stop=lambda: True)
    assert [(row.status, row.note) for row in outcome.rows] == [("not done", "stopped")] * 2
    hasty = Studio(offered, ModelOptions(device="cpu", runtime="torch"), Bounds(seconds=0))
    (tmp_path / "other").mkdir()
    outcome = hasty.translate(
        Order(uploads=uploads, styles=["one"]), tmp_path / "other", lambda *_: None, lambda: False
    )
    assert [(row.status, row.note) for row in outcome.rows] == [("not done", "the time of 0 s was up")] * 2


def test_closing_ends_the_order_at_hand(studio: Studio, upload: Any, tmp_path: Path) -> None:
    closing: list[threading.Thread] = []

    def progress(done: int, total: int, name: str) -> None:
        if not closing:
            closing.append(threading.Thread(target=studio.close))
            closing[0].start()
            studio._closing.wait(10)

    outcome = fill(studio, tmp_path, *(upload(f"{number}.png") for number in range(6)), progress=progress)
    closing[0].join(10)
    assert outcome.rows[0].status == "done" and outcome.rows[-1].status == "not done"


def test_progress_counts_over_all_styles(studio: Studio, upload: Any, tmp_path: Path) -> None:
    seen: list[Any] = []
    fill(studio, tmp_path, upload("a.png"), upload("b.png"), styles=["one", "two"], progress=lambda *a: seen.append(a))
    assert seen == [(1, 4, "a.png"), (2, 4, "b.png"), (3, 4, "a.png"), (4, 4, "b.png")]


def test_the_example_is_made_once(studio: Studio, tmp_path: Path) -> None:
    assert studio.examples == {}
    before, after = studio.example("one", tmp_path)
    assert studio.examples == {"one": (before, after)}
    made = after.stat().st_mtime_ns
    assert studio.example("one", tmp_path) == (before, after) and after.stat().st_mtime_ns == made
    assert images.read(before).pixels.shape == images.read(after).pixels.shape


def test_no_example_is_begun_while_the_page_is_closed(studio: Studio, tmp_path: Path) -> None:
    studio.close()
    with pytest.raises(KeyError):
        studio.example("one", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_few_styles_stay_loaded(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_studio, "_LOADED", 1)
    one = studio.translator("one")
    assert studio.translator("one") is one
    studio.translator("two")
    assert studio.translator("one") is not one


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("photo.jpg", "photo.jpg"),
        ("../../etc/passwd.png", "passwd.png"),
        ("C:\\photos\\a.png", "a.png"),
        (".hidden.png", "hidden.png"),
        ("..", "picture"),
        ("a\x1b[2J\n.png", "a_x1b[2J_n.png"),
        ("é\udcff.png", "é_udcff.png"),
        ("日" * 200 + ".jpeg", "日" * 40 + ".jpeg"),
        ("a." + "b" * 300, "a"),
    ],
)
def test_a_name_leads_nowhere_else(given: str, expected: str) -> None:
    assert file_name(given) == expected


def test_an_upload_on_a_disk_without_hard_links_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: Path, path: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "a").write_bytes(b"upload")
    page_studio._link(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"upload"
