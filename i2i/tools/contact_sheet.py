"""A contact sheet: pictures that belong together side by side, their name below, in rows of equal width."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from i2i.images import Pixels
from i2i.terminal import printable

HEIGHT = 280
"""The height of a picture, about; larger where there are few."""
MAX_PIXELS = 32 << 20
"""Many pictures are smaller, so that they have about so many pixels together, without names and margins."""
_LEAST_HEIGHT, _WIDTHS, _SHAPE = 40, (1200, 3000), 1.35
_MARGIN, _GAP, _SPACE, _CAPTION, _TITLE = 28, 4, 20, 32, 50
_PAPER, _INK, _QUIET = (250, 250, 248), (33, 37, 41), (98, 106, 114)
_STORED_HEIGHT, _MAX_ASPECT, _MOST_IN_A_LINE = 2 * HEIGHT, 8.0, 60


@dataclass(frozen=True)
class Row:
    """Pictures (H, W, 3) uint8 that stand side by side, and their name."""

    name: str
    pictures: Sequence[Pixels]

    @property
    def aspect(self) -> float:
        """Width by height of all together, where all are equally high."""
        return sum(min(picture.shape[1] / picture.shape[0], _MAX_ASPECT) for picture in self.pictures)


def thumbnail(pixels: Pixels) -> Pixels:
    """As much of a picture as a sheet can show: it need not stay in memory at full size."""
    return _scaled(pixels, min(_STORED_HEIGHT, pixels.shape[0]))


def draw(names: Sequence[str], rows: Sequence[Row]) -> Pixels:
    """The sheet (H, W, 3) uint8; `names` are the titles of the pictures of a row, from left to right."""
    width, height = _size(rows)
    lines = _lines(rows, width, height)
    heights = [_line_height(line, width, height) for line in lines]
    sheet = Image.new(
        "RGB", (width, 2 * _MARGIN + _TITLE + sum(h + _CAPTION + _SPACE for h in heights) - _SPACE), _PAPER
    )
    _text(sheet, "   |   ".join(names), _MARGIN, _MARGIN - 6, width - 2 * _MARGIN, 28, _INK)
    top = _MARGIN + _TITLE
    for line, high in zip(lines, heights, strict=True):
        left = _MARGIN
        for row in line:
            left = _paste(sheet, row, left, top, high) + _SPACE
        top += high + _CAPTION + _SPACE
    return np.asarray(sheet)


def _size(rows: Sequence[Row]) -> tuple[int, int]:
    """The width of the sheet, and about the height of its pictures."""
    aspects = sum(row.aspect for row in rows)
    height = max(_LEAST_HEIGHT, min(HEIGHT, math.isqrt(int(MAX_PIXELS / aspects))))
    width = math.sqrt(aspects * height * (height + _CAPTION + _SPACE) * _SHAPE)
    return int(min(max(width, _WIDTHS[0]), _WIDTHS[1])), height


def _lines(rows: Sequence[Row], width: int, height: int) -> list[list[Row]]:
    """Rows that stand beside each other, divided so that the heights of the lines are as near to `height` as can be."""
    best: list[tuple[float, int]] = [(0.0, 0)]  # of the first i rows: what their lines cost, and where the last begins
    for end in range(1, len(rows) + 1):
        starts = range(max(0, end - _MOST_IN_A_LINE), end)
        best.append(min((best[i][0] + _off(rows[i:end], width, height), i) for i in starts))
    lines: list[list[Row]] = []
    end = len(rows)
    while end:
        lines.insert(0, list(rows[best[end][1] : end]))
        end = best[end][1]
    return lines


def _off(line: Sequence[Row], width: int, height: int) -> float:
    """How far the height of a line is from the usual one, as a ratio that counts both ways alike."""
    return math.log(_line_height(line, width, height) / height) ** 2


def _line_height(line: Sequence[Row], width: int, height: int) -> int:
    """The height at which a line is as wide as the sheet, but not above twice the usual one."""
    pictures = sum(len(row.pictures) for row in line)
    room = width - 2 * _MARGIN - _SPACE * (len(line) - 1) - _GAP * (pictures - len(line))
    return max(1, min(2 * height, int(room / sum(row.aspect for row in line))))


def _paste(sheet: Image.Image, row: Row, left: int, top: int, height: int) -> int:
    """Puts a row and its name there; returns its right end."""
    start = left
    for picture in row.pictures:
        small = _scaled(picture, height)
        sheet.paste(Image.fromarray(small), (left, top))
        left += small.shape[1] + _GAP
    _text(sheet, row.name, start, top + height + 5, left - _GAP - start, 18, _QUIET)
    return left - _GAP


def _scaled(pixels: Pixels, height: int) -> Pixels:
    own, width = pixels.shape[:2]
    size = max(1, round(min(width / own, _MAX_ASPECT) * height)), height
    way = cv2.INTER_AREA if height <= own else cv2.INTER_CUBIC
    return np.ascontiguousarray(cv2.resize(pixels, size, interpolation=way))


def _text(
    sheet: Image.Image, text: str, left: int, top: int, room: int, size: int, colour: tuple[int, int, int]
) -> None:
    """A line of text, its beginning cut where it has no room: the end of a path says more."""
    text, font = printable(text), _font(size)
    shown = text
    while len(shown) > 1 and font.getlength(shown) > room:
        shown = "…" + shown[2:]
    ImageDraw.Draw(sheet).text((left, top), shown, colour, font)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
