"""The layout of a contact sheet: full lines, bounded size, any shape of picture."""

import numpy as np
import pytest

from i2i.tools import contact_sheet
from i2i.tools.contact_sheet import MAX_PIXELS, Row, draw, thumbnail


def rows(*shapes: tuple[int, int], count: int = 2) -> list[Row]:
    return [Row(f"picture {i}", [np.full((h, w, 3), 90, np.uint8)] * count) for i, (h, w) in enumerate(shapes)]


@pytest.mark.parametrize("count", [1, 2, 5, 24])
def test_lines_are_full_and_about_equally_high(count: int) -> None:
    shapes = [(100, 150), (150, 100), (100, 100)] * 8
    some = rows(*shapes[:count])
    width, height = contact_sheet._size(some)
    lines = contact_sheet._lines(some, width, height)
    assert [row for line in lines for row in line] == some
    heights = [contact_sheet._line_height(line, width, height) for line in lines]
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
