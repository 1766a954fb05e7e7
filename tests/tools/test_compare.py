"""`i2i compare`: which pictures belong together, the page, the layout of the sheet, the files that are written."""

import base64
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from command_line import exit_code

from i2i.errors import InputError, UsageError
from i2i.images import Picture, decode, read, write
from i2i.tools import compare
from i2i.tools.compare import MARK, MAX_PIXELS, Row, draw, match, thumbnail, write_comparison

RED, GREEN, BLUE = ((200, 20, 20), (20, 160, 20), (20, 20, 200))


def flat(colour: tuple[int, int, int], height: int = 20, width: int = 30) -> Picture:
    return Picture(np.full((height, width, 3), colour, np.uint8))


def folder(path: Path, *names: str, colour: tuple[int, int, int] = RED) -> Path:
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        write(path / name, flat(colour))
    return path


def matched(*inputs: Path) -> dict[str, list[str]]:
    found = match(inputs, Path("nowhere"))
    return {name: [path.name for path in paths] for name, paths in found.rows}


def test_pictures_match_by_relative_path_and_any_suffix(tmp_path: Path) -> None:
    before = folder(tmp_path / "in", "a.png", "deep/a.jpg", "deep/b.png", "only.png")
    after = folder(tmp_path / "out", "a.jpg", "deep/a.webp", "deep/b.png", "other.png")
    assert matched(before, after) == {
        "a.png": ["a.png", "a.jpg"],
        "deep/a.jpg": ["a.jpg", "a.webp"],
        "deep/b.png": ["b.png", "b.png"],
    }
    assert match([before, after], Path("x")).notices == [
        f"{before / 'only.png'} has no partner in {after}",
        f"{after / 'other.png'} has no partner in {before}",
    ]


def test_the_same_name_goes_before_the_same_stem(tmp_path: Path) -> None:
    before = folder(tmp_path / "in", "a.jpg", "a.png", "b.png")
    after = folder(tmp_path / "out", "a.jpg", "a.png", "b.jpg", "b.webp")
    found = match([before, after], Path("x"))
    assert [[path.name for path in paths] for _, paths in found.rows] == [["a.jpg", "a.jpg"], ["a.png", "a.png"]]
    assert f"{before / 'b.png'} has no partner in {after}" in found.notices


def test_three_folders_and_one_within_another(tmp_path: Path) -> None:
    before = folder(tmp_path / "in", "a.png", "b.png")
    one = folder(tmp_path / "in" / "one", "a.png", "b.png")
    two = folder(tmp_path / "two", "a.png")
    found = match([before, one, two], Path("x"))
    assert found.names == ("in", "one", "two") and [name for name, _ in found.rows] == ["a.png"]
    assert found.notices == [f"{before / 'b.png'} has no partner in {two}"]


def test_single_pictures_are_one_row_whatever_their_names(tmp_path: Path) -> None:
    folder(tmp_path, "x/a.png", "y/a.png", "b.jpg")
    assert matched(tmp_path / "x" / "a.png", tmp_path / "b.jpg") == {"a": ["a.png", "b.jpg"]}
    names = match([tmp_path / "x" / "a.png", tmp_path / "y" / "a.png"], Path("x")).names
    assert names == (str(tmp_path / "x" / "a.png"), str(tmp_path / "y" / "a.png"))


def test_the_sheet_shows_them_side_by_side(tmp_path: Path) -> None:
    before = folder(tmp_path / "in", "a.png", "b.png")
    after = folder(tmp_path / "out", "a.png", "b.png", colour=BLUE)
    write_comparison([before, after], tmp_path / "made" / "sheet.png")
    sheet = read(tmp_path / "made" / "sheet.png").pixels.astype(int)
    reds, blues = (np.abs(sheet - colour).sum(axis=2) == 0 for colour in (RED, BLUE))
    assert reds.sum() == blues.sum() > 100_000
    edges = np.flatnonzero(np.diff(reds.any(axis=0).astype(int)))
    assert len(edges) == 4 and blues[:, edges[1] + 8].any(), "red, blue, red, blue from left to right"
    assert (sheet[0] > 245).all()


def test_the_page_holds_the_pictures_and_nothing_from_elsewhere(tmp_path: Path) -> None:
    before = folder(tmp_path / "in", "a.png", "<b onload=1>.png")
    after = folder(tmp_path / "out", "a.png", "<b onload=1>.png", colour=BLUE)
    write_comparison([before, after], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_bytes()
    assert page.startswith(MARK) and b"<b onload" not in page
    text = page.decode()
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", text) and "img-src data:" in text
    images = re.findall(r'<img class="(before|after)" loading="lazy" src="data:image/webp;base64,([^"]+)"', text)
    assert [kind for kind, _ in images] == ["before", "after"] * 2
    for kind, data in images:
        pixels = decode(base64.b64decode(data)).pixels.astype(int)
        assert np.abs(pixels - (RED if kind == "before" else BLUE)).max() < 12
    assert text.count("<section") == 1 and text.count('class="cards few"') == 1


def test_a_page_of_three_folders_has_a_part_for_each_picture(tmp_path: Path) -> None:
    sides = [folder(tmp_path / side, "a.png", "b.png") for side in ("in", "one", "two")]
    write_comparison(sides, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert re.findall(r'<h2 id="[^"]+">([^<]+)</h2>', text) == ["a.png", "b.png"]
    assert re.findall(r"<figcaption>([^<]+)</figcaption>", text) == ["one", "two"] * 2


@pytest.mark.parametrize("name", ["sheet.png", "page.html"])
def test_many_pictures_are_chosen_evenly_and_it_is_said(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"{number}.png" for number in range(9)]
    before, after = folder(tmp_path / "in", *names), folder(tmp_path / "out", *names)
    words = ["compare", str(before), str(after), "-o", str(tmp_path / name), "--max", "3"]
    assert exit_code(*words) == 0
    assert "3 of 9 pictures are shown, evenly chosen" in capsys.readouterr().err
    assert exit_code(*words) == 2
    assert exit_code(*words, "--overwrite") == 0
    found = write_comparison([before, after], tmp_path / f"other-{name}", 3)
    assert [shown for shown, _ in found.rows] == ["0.png", "4.png", "8.png"]


def test_a_picture_that_cannot_be_read_costs_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = folder(tmp_path / "in", "a.png", "b.png"), folder(tmp_path / "out", "a.png", "b.png")
    (after / "a.png").write_bytes(b"junk")
    assert exit_code("compare", str(before), str(after), "-o", str(tmp_path / "s.jpg")) == 3
    assert f"{after / 'a.png'}: " in capsys.readouterr().err
    assert read(tmp_path / "s.jpg").width >= 1000
    (after / "b.png").write_bytes(b"junk")
    assert exit_code("compare", str(before), str(after), "-o", str(tmp_path / "t.jpg")) == 4
    assert not (tmp_path / "t.jpg").exists()


def test_mistakes_are_refused_before_any_work(tmp_path: Path) -> None:
    before, after = folder(tmp_path / "in", "a.png"), folder(tmp_path / "out", "b.png")
    with pytest.raises(InputError, match="no picture in"):
        write_comparison([before, after], tmp_path / "x.png")
    with pytest.raises(InputError, match="no such file"):
        write_comparison([before, tmp_path / "gone"], tmp_path / "x.png")
    with pytest.raises(UsageError, match="expected two"):
        write_comparison([before], tmp_path / "x.png")
    with pytest.raises(UsageError, match="one kind"):
        write_comparison([before, after / "b.png"], tmp_path / "x.png")
    with pytest.raises(UsageError, match=r"\.png, \.jpg"):
        write_comparison([before, after], tmp_path / "x.gif")
    assert exit_code("compare", str(before), str(after)) == 2


def test_rows_know_their_aspect() -> None:
    assert Row("a", [np.zeros((10, 20, 3), np.uint8)] * 2).aspect == 4


def rows(*shapes: tuple[int, int], count: int = 2) -> list[Row]:
    return [Row(f"picture {i}", [np.full((h, w, 3), 90, np.uint8)] * count) for i, (h, w) in enumerate(shapes)]


@pytest.mark.parametrize("count", [1, 2, 5, 24])
def test_lines_are_full_and_about_equally_high(count: int) -> None:
    shapes = [(100, 150), (150, 100), (100, 100)] * 8
    some = rows(*shapes[:count])
    width, height = compare._size(some)
    lines = compare._lines(some, width, height)
    assert [row for line in lines for row in line] == some
    heights = [compare._line_height(line, width, height) for line in lines]
    assert max(heights) <= 2 * height and min(heights) >= 0.6 * height
    assert draw(["a", "b"], some).shape[1] == width


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (3, 4000)])
def test_any_shape_fits(shape: tuple[int, int]) -> None:
    some = [Row("x" * 300, [thumbnail(np.zeros((*shape, 3), np.uint8))] * 2)]
    sheet = draw(["in" * 200, "out\x1b[2J"], some)
    assert sheet.shape[1] <= 3000 and sheet.size < 3 * MAX_PIXELS


def test_many_pictures_make_a_bounded_sheet() -> None:
    sheet = draw(["a", "b"], rows(*[(20, 30)] * 500))
    assert sheet.size < 3 * 2 * MAX_PIXELS


def test_a_thumbnail_is_no_larger_than_it_can_be_shown() -> None:
    assert thumbnail(np.zeros((3000, 6000, 3), np.uint8)).shape == (560, 1120, 3)
    assert thumbnail(np.zeros((30, 60, 3), np.uint8)).shape == (30, 60, 3)


def test_names_are_written_in_letters_that_the_font_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """No box stands for a letter: where no font of the system has it, the nearest one does, or a question mark."""
    monkeypatch.setattr(compare, "_SYSTEM_FONTS", ())
    compare._fonts.cache_clear()
    for text, shown in (
        ("tile_05.tif", "tile_05.tif"),
        ("Bild \u00e4 a\u0308 \u00e9.jpg", "Bild a a e.jpg"),
        ("\u4e2d 1", "? 1"),
    ):
        drawn, font = compare._drawable(unicodedata.normalize("NFC", text), 18)
        assert drawn == shown and all(compare._has(font, letter) for letter in drawn)
    compare._fonts.cache_clear()


def test_a_font_of_the_system_has_more_letters() -> None:
    if len(compare._fonts(18)) == 1:
        pytest.skip("none of the usual fonts is installed")
    for text, shown in (("Bild \u00e4 \u0142", "Bild \u00e4 \u0142"), ("\u00e4 \U00100000", "\u00e4 ?")):
        drawn, font = compare._drawable(text, 18)
        assert drawn == shown and font is not compare._fonts(18)[0]
