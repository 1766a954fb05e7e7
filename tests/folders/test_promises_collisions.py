"""Nothing is written over anything by surprise: inputs with one output path, outputs that exist, inputs themselves."""

import os
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batch_tools import folder, translator, tree
from PIL import Image

from i2i import images
from i2i.errors import UsageError
from i2i.folders.batch import translate_folder
from i2i.folders.plan import plan
from i2i.inference.options import FolderOptions

E_COMPOSED, E_DECOMPOSED = "é.png", "e\u0301.png"

TWINS = [
    pytest.param(("A.JPG", "a.jpg"), {}, id="case"),
    pytest.param(("X/a.png", "x/a.png"), {}, id="case-of-folder"),
    pytest.param(("a.jpg", "a.png"), {"format": "png"}, id="format"),
    pytest.param(("sub/a.jpg", "sub/a.webp", "sub/a.tif"), {"format": "jpg"}, id="three"),
    pytest.param(("a.gif", "a.png"), {}, id="gif"),
    pytest.param((E_COMPOSED, E_DECOMPOSED), {}, id="unicode"),
    pytest.param(("a.jpg", "a.png", "a_jpg.png"), {"format": "png"}, id="again-after-renaming"),
    pytest.param(("a.jpg", "a.png", "A_JPG.webp"), {"format": "png"}, id="again-in-other-case"),
]


def _folded(path: Path) -> str:
    return unicodedata.normalize("NFC", str(path)).casefold()


@pytest.mark.promise("R24")
@pytest.mark.parametrize(("names", "options"), TWINS)
def test_inputs_with_one_output_path(tmp_path: Path, names: tuple[str, ...], options: dict[str, Any]) -> None:
    source, out, used = folder(tmp_path / "in", names), tmp_path / "out", translator()
    with pytest.raises(UsageError, match=r"share their output paths") as caught:
        translate_folder(source, out, used, **options)
    assert str(caught.value).count(" → ") >= 2
    assert "on_collision='suffix'" in str(caught.value)
    assert not out.exists()
    report = translate_folder(source, out, used, on_collision="suffix", **options)
    assert len(report.done) == len(names) == len(tree(out)) == len({_folded(r.target) for r in report.done})
    for record in report.done:  # each result is that of its own input
        result = images.encode(used.translate(images.read(record.source)), images.read(record.target).format)
        assert record.target.read_bytes() == result
    again = translate_folder(source, out, used, on_collision="suffix", skip_existing=True, **options)
    assert len(again.skipped) == len(names)
    files = sorted(source.rglob("*.*"))
    one, two = (_named(order, out, **options) for order in (files, files[::-1]))
    assert one == two


def _named(inputs: Any, out: Path, **options: Any) -> dict[str, str]:
    found = plan(inputs, out, FolderOptions(on_collision="suffix", overwrite=True, **options)).todo
    return {str(job.source): str(job.target) for job in found}


@pytest.mark.promise("R24")
def test_colliding_names_get_a_suffix(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", ("a.jpg", "a.png", "b.png"))
    report = translate_folder(source, tmp_path / "out", translator(), format="png", on_collision="suffix")
    assert {r.source.name: r.target.name for r in report.done} == {
        "a.jpg": "a_jpg.png", "a.png": "a_png.png", "b.png": "b.png",
    }  # fmt: skip


@pytest.mark.promise("R24")
def test_two_folders_with_one_name(tmp_path: Path) -> None:
    one, two = folder(tmp_path / "one", ("x/a.png", "b.png")), folder(tmp_path / "two", ("x/a.png",))
    with pytest.raises(UsageError, match=r"one/x/a\.png → .*\n.*two/x/a\.png → "):
        translate_folder([one, two], tmp_path / "out", translator())
    report = translate_folder([one, two], tmp_path / "out", translator(), on_collision="suffix")
    assert len(tree(tmp_path / "out")) == len(report.done) == 3


def test_an_input_that_is_named_twice_is_one(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", ("a.png",))
    assert len(translate_folder([source / "a.png", source], tmp_path / "out", translator()).done) == 1


@pytest.mark.promise("R24")
def test_the_names_of_twins_do_not_depend_on_where_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = folder(tmp_path / "in", ("a.jpg", "a.png", "a_jpg.png"))
    absolute = _named(source, tmp_path / "out", format="png")
    monkeypatch.chdir(tmp_path)
    assert sorted(_named("in", tmp_path / "out", format="png").values()) == sorted(absolute.values())


@pytest.mark.promise("R24")
def test_a_result_where_another_needs_a_folder(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", ("a.png/b.png", "a.gif"))
    with pytest.raises(UsageError, match=r"a\.gif"):
        plan(source, tmp_path / "out", FolderOptions())


@pytest.mark.promise("R25")
def test_outputs_that_exist_are_found_before_any_work(tmp_path: Path) -> None:
    source, out = folder(tmp_path / "in"), tmp_path / "out"
    (out / "deep").mkdir(parents=True)
    (out / "deep" / "d.tif").write_bytes(b"mine")
    with pytest.raises(
        UsageError,
        match=r"1 output exists; choose overwrite=True \(replace\) or skip_existing=True \(keep\):\n.*d",
    ):
        translate_folder(source, out, translator())
    assert tree(out) == {"deep/d.tif": b"mine"}
    report = translate_folder(source, out, translator(), skip_existing=True)
    assert tree(out)["deep/d.tif"] == b"mine" and len(tree(out)) == 6
    assert (len(report.done), [record.target.name for record in report.skipped]) == (5, ["d.tif"])
    with pytest.raises(UsageError, match=r"6 outputs exist; choose"):
        translate_folder(source, out, translator())
    with pytest.raises(UsageError, match="contradict"):
        translate_folder(source, out, translator(), overwrite=True, skip_existing=True)
    translate_folder(source, out, translator(), overwrite=True)
    assert tree(out)["deep/d.tif"] != b"mine"


@pytest.mark.promise("R25")
@pytest.mark.parametrize("kind", ["hard link", "link", "link to a link", "linked folder", "the file", "another input"])
def test_an_input_is_never_overwritten(tmp_path: Path, kind: str) -> None:
    source = folder(tmp_path / "in", ("a.png", "b.png"))
    inputs, out = source, tmp_path / "out"
    if kind == "the file":
        inputs, out = source / "a.png", source / "a.png"
    elif kind == "linked folder":
        out.symlink_to(source, target_is_directory=True)
        inputs = source / "a.png"
    else:
        out.mkdir()
        other = source / ("b.png" if kind == "another input" else "a.png")
        if kind == "link to a link":
            (tmp_path / "between").symlink_to(other)
            other = tmp_path / "between"
        (os.link if kind == "hard link" else os.symlink)(other, out / "a.png")
    before = tree(source)
    for flag in ("overwrite", "skip_existing"):
        with pytest.raises(UsageError, match="is an input and would be overwritten"):
            translate_folder(inputs, out, translator(), **{flag: True})
    with pytest.raises(UsageError):
        translate_folder(inputs, out, translator())
    assert tree(source) == before


@pytest.mark.promise("R25")
def test_in_place_replaces_the_file_behind_links(tmp_path: Path) -> None:
    used = translator()
    source, store = folder(tmp_path / "in", ("a.png",)), folder(tmp_path / "store", ("b.png",))
    (source / "one.png").symlink_to(store / "b.png")
    (source / "two.png").symlink_to("one.png")
    expected = {p: images.encode(used.translate(images.read(p))) for p in (source / "a.png", store / "b.png")}
    report = translate_folder(source, None, used, in_place=True)
    assert len(report.done) == 2  # the file with two names is one
    assert (source / "one.png").is_symlink() and (source / "two.png").is_symlink()
    assert {path: path.read_bytes() for path in expected} == expected


@pytest.mark.promise("R25")
def test_in_place_refuses_what_it_cannot_write(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", ("a.png",))
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(source / "b.gif")
    before = tree(source)
    report = translate_folder(source, None, translator(), in_place=True)
    assert [(r.source.name, r.status) for r in report.records] == [("a.png", "done"), ("b.gif", "failed")]
    assert "cannot be written" in report.failed[0].reason
    assert sorted(tree(source)) == sorted(before)
    assert tree(source)["b.gif"] == before["b.gif"]


@pytest.mark.promise("R25")
@pytest.mark.parametrize("options", [{"overwrite": True}, {"skip_existing": True}, {"format": "png"}])
def test_in_place_needs_its_own_mind(tmp_path: Path, options: dict[str, Any]) -> None:
    source = folder(tmp_path / "in", ("a.png",))
    before = tree(tmp_path)
    with pytest.raises(UsageError, match="contradict"):
        translate_folder(source, None, translator(), in_place=True, **options)
    with pytest.raises(UsageError, match="give out='OUT', or in_place=True"):
        translate_folder(source, tmp_path / "out", translator(), in_place=True)
    with pytest.raises(UsageError, match="give out='OUT', or in_place=True"):
        translate_folder(source, None, translator())
    assert tree(tmp_path) == before


@pytest.mark.promise("R25")
def test_in_place_needs_no_names_apart(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", ("a.png", "A.png"))
    assert len(translate_folder(source, None, translator(), in_place=True).done) == 2


@pytest.mark.promise("R26")
@pytest.mark.parametrize("within", ["out", "deep/out", "deep/er/../new"])
def test_output_within_the_input_does_not_grow(tmp_path: Path, within: str) -> None:
    source, used = folder(tmp_path / "in"), translator()
    translate_folder(source, source / within, used)
    once = tree(source)
    assert len(once) == 12
    translate_folder(source, source / within, used, overwrite=True)
    assert len(translate_folder(source, source / within, used, skip_existing=True).skipped) == 6
    assert tree(source) == once


@pytest.mark.promise("R26")
def test_output_is_the_input_folder(tmp_path: Path) -> None:
    source = folder(tmp_path / "in")
    (tmp_path / "link").symlink_to(source, target_is_directory=True)
    for inputs, out in ((source, source), (source, tmp_path / "link"), (tmp_path / "link", source / "deep" / "..")):
        with pytest.raises(UsageError, match="is the input folder"):
            translate_folder(inputs, out, translator(), overwrite=True)
    assert len(tree(source)) == 6


@pytest.mark.promise("R26")
@pytest.mark.parametrize("out", ["out", "in/zout"])
def test_output_that_a_link_leads_to_is_no_input(tmp_path: Path, out: str) -> None:
    source, target = folder(tmp_path / "in", ("x/a.png",)), tmp_path / out
    target.mkdir()
    (source / "link").symlink_to(target, target_is_directory=True)
    translate_folder(source, target, translator(), follow_links=True)
    report = translate_folder(source, target, translator(), follow_links=True, overwrite=True)
    assert [r.source.name for r in report.records] == ["a.png"]
