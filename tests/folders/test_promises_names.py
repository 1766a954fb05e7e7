"""Any file name, from a folder or from a list, and none of them steers a terminal or breaks a report."""

import errno
import io
import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from batch_tools import folder, model, picture, run, translator, tree
from disks import FilesUpTo
from hypothesis import example, given, settings
from hypothesis import strategies as st

from i2i.errors import InputError, UsageError
from i2i.folders.batch import translate_folder

USED = translator()
ODD = [
    "-x",
    "--style",
    " ",
    "a b",
    "'q\"",
    "a\nb",
    "\x1b[2J",
    "🎨",
    "e\u0301",
    "é",
    "%s",
    "{x}",
    "*?[",
    "~",
    "CON",
    "#",
    ".",
]
NAMES = st.binary(min_size=1, max_size=60).map(lambda b: b.replace(b"/", b"_").replace(b"\0", b"_"))


def _translate(names: set[bytes]) -> None:
    with TemporaryDirectory() as scratch:
        source, out = Path(scratch, "in"), Path(scratch, "out")
        content = picture(source / "x.png", 8, 8).read_bytes()
        (source / "x.png").unlink()
        for name in names:
            Path(os.fsdecode(os.fsencode(source) + b"/n" + name + b".png")).write_bytes(content)
        report = translate_folder(source, out, USED, on_collision="suffix")
        assert {os.fsencode(r.source.name) for r in report.done} == {b"n" + name + b".png" for name in names}
        assert {os.fsencode(r.target) for r in report.done} == {os.fsencode(p) for p in out.iterdir()}
        _is_ascii_and_true(report)


def _is_ascii_and_true(report: Any) -> None:
    text = report.to_json()
    assert text.isascii()
    records = json.loads(text)["records"]
    assert [os.fsencode(r["source"]) for r in records] == [os.fsencode(r.source) for r in report.records]
    report.write(report.records[0].target.parent.parent / "report.json")


@pytest.mark.promise("R27", "H17", "H2")
@settings(max_examples=12, deadline=None)
@given(st.sets(NAMES, min_size=1, max_size=8))
@example({b"\xff\xfe", b"\xc3\xa9", b"e\xcc\x81", b"\x1b[2J\n", b"A", b"a"})
def test_names_of_any_bytes(names: set[bytes]) -> None:
    try:
        _translate(names)
    except OSError as error:  # a file system that wants names in UTF-8
        assert error.errno == errno.EILSEQ


@pytest.mark.promise("R27")
def test_odd_names_are_kept(tmp_path: Path) -> None:
    names = [f"{name}.png" for name in ODD if name != "."] + ["x." * 20 + "png", "n" * 251 + ".png", "sub -/ x.png"]
    source = folder(tmp_path / "in", names)
    report = translate_folder(source, tmp_path / "out", USED, on_collision="suffix")
    assert len(report.done) == len(names)
    clashing = {"e\u0301.png", "é.png"}
    assert set(tree(tmp_path / "out")) >= set(names) - clashing
    _is_ascii_and_true(report)


@pytest.mark.promise("R27", "R23")
@pytest.mark.parametrize("options", [{"format": "tiff"}, {"on_collision": "suffix"}])
def test_a_name_that_becomes_too_long_is_one_failure(tmp_path: Path, options: dict[str, Any]) -> None:
    long = "n" * 251
    source = folder(tmp_path / "in", ("a.png", f"{long}.png", f"{long.upper()}.png", "z.png"))
    if "format" in options:
        (source / f"{long.upper()}.png").unlink()
    report = translate_folder(source, tmp_path / "out", USED, **options)
    assert {r.source.stem[0].lower() for r in report.failed} == {"n"}
    assert [r.source.name for r in report.done] == ["a.png", "z.png"]
    assert "name too long" in report.failed[0].reason


@pytest.mark.promise("R52", "R27")
def test_names_do_not_steer_the_terminal(tmp_path: Path) -> None:
    names = ("\x1b[2J\nevil: done.png", "\x9bgood.png", "\u202eodd.png")
    source = folder(tmp_path / "in", names[1:])
    (source / names[0]).write_bytes(b"no picture")
    style, report = model(tmp_path / "m.safetensors"), tmp_path / "r.json"
    out = tmp_path / "o\x1b\nut"
    code, child = run(tmp_path, "--style", style, source, "-o", out, "--report", report)
    assert code == 3
    _escaped(child.stderr)
    assert r"\x1b[2J\nevil: done.png: " in child.stderr
    code, child = run(tmp_path, source, "-o", out, "--dry-run", "--overwrite")
    assert code == 0
    _escaped(child.stdout + child.stderr)
    assert len(child.stdout.splitlines()) == 3
    code, child = run(tmp_path, source, "-o", out, "--style", style)
    assert code == 2
    _escaped(child.stderr)
    names_in_report = {Path(r["source"]).name for r in json.loads(report.read_text("ascii"))["records"]}
    assert names_in_report == set(names)


@pytest.mark.promise("R52")
def test_a_name_in_an_error_stays_on_its_line(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", ("\x1b[2J\nevil: done.png",), height=200, width=200)
    words = ("--style", model(tmp_path / "m.safetensors"), source, "-o", tmp_path / "out")
    code, child = run(tmp_path, *words, prepare=[FilesUpTo(20_000)])
    assert code == 6
    _escaped(child.stderr)


def _escaped(text: str) -> None:
    assert all(c.isprintable() or c == "\n" for c in text), text
    assert not [line for line in text.splitlines() if line.startswith(("evil", "ut"))], text


def _listed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> str:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    return "-"


@pytest.mark.promise("R27")
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"in/a.png\nin/deep/c.webp\n\nin/a.png", {"in/a.png", "in/deep/c.webp"}),
        (b"./in/a.png\n", {"in/a.png"}),
        (b"in/a.png\0in/a\nb.png\0", {"in/a.png", "in/a\nb.png"}),
        (b"in/ a .png\n", {"in/ a .png"}),
        (b"in/deep\n", {"in/deep/c.webp", "in/deep/d.tif", "in/deep/er/e.bmp"}),
        (b"in/a.png\r\nin/deep/d.tif\r\n", {"in/a.png", "in/deep/d.tif"}),
        (b"in/../in/a.png\n", {"a.png"}),
        (b"odd\r\n", {"odd\r/x.png"}),
    ],
)
def test_lists_on_the_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, expected: set[str]
) -> None:
    folder(tmp_path / "in", ("a.png", "a\nb.png", " a .png", "deep/c.webp", "deep/d.tif", "deep/er/e.bmp"))
    folder(tmp_path, ("odd\r/x.png",))
    monkeypatch.chdir(tmp_path)
    report = translate_folder(_listed(monkeypatch, data), "out", USED)
    assert set(tree(tmp_path / "out")) == expected
    assert len(report.done) == len(expected)


@pytest.mark.promise("R27")
def test_a_list_of_names_that_are_no_utf8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, not_utf8: str) -> None:
    picture(tmp_path / "in" / f"{not_utf8}.png")
    monkeypatch.chdir(tmp_path)
    translate_folder(_listed(monkeypatch, os.fsencode(f"in/{not_utf8}.png\n")), "out", USED)
    assert set(tree(tmp_path / "out")) == {f"in/{not_utf8}.png"}
    with pytest.raises(UsageError, match="1 output exists") as caught:
        translate_folder("in", "out/in", USED)
    str(caught.value).encode()  # no undecodable byte is left in it


@pytest.mark.promise("R24", "R27")
def test_files_of_one_name_in_a_list_keep_their_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path, ("one/a.png", "two/a.png"))
    monkeypatch.chdir(tmp_path)
    translate_folder(_listed(monkeypatch, b"one/a.png\ntwo/a.png\n"), "out", USED)
    assert set(tree(tmp_path / "out")) == {"one/a.png", "two/a.png"}
    names = f"{tmp_path}/one/a.png\n{tmp_path}/two/a.png\n".encode()
    with pytest.raises(UsageError, match="share"):
        translate_folder(_listed(monkeypatch, names), "out2", USED)


@pytest.mark.promise("R33")
def test_lists_with_nothing_in_them_or_missing_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path, ("one/a.png",))
    monkeypatch.chdir(tmp_path)
    for data in (b"", b"\n \n"):
        with pytest.raises(InputError, match=r"no pictures found in -"):
            translate_folder(_listed(monkeypatch, data), "out", USED)
    with pytest.raises(InputError, match=r"one/b\.png: no such file or folder\. Did you mean 'a\.png'"):
        translate_folder(_listed(monkeypatch, b"one/a.png\none/b.png\n"), "out", USED)
    assert not (tmp_path / "out").exists()


@pytest.mark.promise("R27", "R33")
def test_a_line_that_cannot_be_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"x{20}"):
        translate_folder(_listed(monkeypatch, b"x" * 300), tmp_path / "out", USED)
