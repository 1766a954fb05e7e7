"""The data of a request become an order, or a text for the visitor; texts of others are escaped in the page."""

import base64
from pathlib import Path
from typing import Any

import pytest

from i2i.models.styles import Style
from i2i.tools.page.order import OrderError, card, head, order_of, sent, table, upload_of
from i2i.tools.page.studio import Bounds, Row, Upload

pytestmark = pytest.mark.promise("R51")
BAD = "<img src=x onerror=alert(1)>"
OPTIONS: dict[str, Any] = {"size": 0, "strength": 1, "keep": "nothing", "mask": None, "mix": "", "drawn": ""}


@pytest.fixture
def file(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "a.png").touch()
    return {"path": str(tmp_path / "a.png"), "orig_name": "A photo.png"}


def order(file: Any, styles: Any = ("two", "one"), **options: Any) -> Any:
    return order_of([file], styles, OPTIONS | options, ["one", "two", "three"], Bounds(pictures=1))


def test_an_order_has_what_was_chosen(file: dict[str, Any]) -> None:
    drawn = "data:image/png;base64," + base64.b64encode(b"ink").decode()
    found = order(file, size=512, strength=0.5, keep="colours", drawn=drawn, mask=file)
    photo = Upload(Path(file["path"]), "A photo.png")
    assert (found.uploads, found.styles, found.mask, found.drawn) == ([photo], ["one", "two"], photo, b"ink")
    assert (found.size, found.strength, found.keep) == (512, 0.5, "colour")
    plain = order(file)
    assert (plain.size, plain.strength, plain.keep, plain.mask, plain.drawn) == (None, 1, None, None, b"")


def test_a_mix_has_a_weight_for_each_chosen_style(file: dict[str, Any]) -> None:
    mix = '{"two": 60, "one": 20, "three": 5, "four": 5}'
    assert order(file, mix=mix).mix == {"one": 20, "two": 60}
    assert list(order(file, mix=mix).versions) == ["one", "two", "one 25 % + two 75 %"]
    for none in ("", None, "{}", '{"one": 0, "two": 60}'):
        assert order(file, mix=none).mix == {}
    assert order(file, styles=["one"], mix=mix).mix == {}


def test_all_sources_are_one_list(file: dict[str, Any]) -> None:
    one, two = file | {"path": "1"}, file | {"path": "2"}
    assert sent([file], [one, two], file) == [file, one, two, file] and sent(None, None, None) == []
    assert upload_of(file | {"orig_name": None}).name == "picture.png"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"size": -1}, "Size"), ({"size": 70_000}, "Size"), ({"size": "9"}, "Size"), ({"size": float("nan")}, "Size"),
        ({"strength": 1.1}, "Strength"), ({"strength": None}, "Strength"), ({"keep": "shape"}, "Keep"),
        ({"keep": []}, "Keep"), ({"styles": 1}, "Choose"),
        ({"drawn": "data:text/html,x"}, "mask"), ({"drawn": "data:image/png;base64,a"}, "mask"),
        ({"mix": "[1]"}, "Mix"), ({"mix": "{"}, "Mix"), ({"mix": 1}, "Mix"), ({"mix": '{"one": -1}'}, "Mix"),
        ({"mix": '{"one": "a"}'}, "Mix"), ({"styles": []}, "Choose"), ({"styles": ["four"]}, "Choose"),
        ({"mask": {"path": "/nowhere"}}, "drop it again"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_said(file: dict[str, Any], wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(OrderError, match=said):
        order(file, **wrong)


def test_no_picture_and_too_many_are_said(file: dict[str, Any]) -> None:
    for files, said in (([], "Drop a picture"), ([file, file], "2 pictures: at most 1")):
        with pytest.raises(OrderError, match=said):
            order_of(files, ["one"], OPTIONS, ["one"], Bounds(pictures=1))


def test_a_report_has_a_line_for_each_picture() -> None:
    text = table([Row("a.png", "monet", "not done", "stopped"), Row("b.png", "", "refused", "empty file")])
    assert text.count("<tr class=") == 2
    assert '<tr class="not-done"><td>a.png</td><td>monet</td><td>not done</td><td>stopped</td></tr>' in text


def test_names_of_files_and_styles_are_escaped(tmp_path: Any) -> None:
    style = Style(name=BAD, source="run", path=tmp_path, card=(BAD,), licence=BAD)
    for text in (table([Row(BAD, BAD, BAD, BAD)]), card(style)):
        assert "<img" not in text and "&lt;img" in text


def test_the_head_says_what_is_taken() -> None:
    assert "At most 2.5 MB, 50 megapixels, 3 at once." in head(Bounds(file_bytes=2_500_000, pictures=3))
