"""The plain HTML of the page: texts of others are escaped."""

from typing import Any

import pytest

from i2i.models.styles import Style
from i2i.tools.page.html import card, head, table
from i2i.tools.page.studio import Bounds, Row

pytestmark = pytest.mark.promise("R51")
BAD = "<img src=x onerror=alert(1)>"


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
