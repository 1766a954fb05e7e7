"""Folders of pictures side by side: pairs by name, then drawn as a contact sheet or a page with sliders.

A contact sheet has pictures that belong together side by side, their name below, in rows of equal width.
"""

import contextlib
import math
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from i2i.data.folders import find_images, first_lines
from i2i.errors import ImageError, InputError, OutputError, UsageError
from i2i.files import atomic_write
from i2i.images import SUFFIXES, WRITTEN, Picture, Pixels, encode, read
from i2i.terminal import printable
from i2i.tools.markup import build, escape
from i2i.tools.pictures import DRAG, EmbeddedPicture, Pair, comparisons, embed, evenly, in_colour
from i2i.urls import real

MARK = b"<!doctype html>\n<!-- i2i compare -->\n"
PAGES = (".html", ".htm")
SHEETS = (".png", ".jpg", ".jpeg")
MAX_ROWS = 24
"""So many rows are shown by default."""
HEIGHT = 280
"""The height of a picture, about; larger where there are few."""
MAX_PIXELS = 32 << 20
"""Many pictures are smaller, so that they have about so many pixels together, without names and margins."""
_LEAST_HEIGHT, _WIDTHS, _SHAPE = 40, (1200, 3000), 1.35
_MARGIN, _GAP, _SPACE, _CAPTION, _TITLE = 28, 4, 20, 32, 50
_PAPER, _INK, _QUIET = (250, 250, 248), (33, 37, 41), (98, 106, 114)
_STORED_HEIGHT, _MAX_ASPECT, _MOST_IN_A_LINE = 2 * HEIGHT, 8.0, 60

_SYSTEM_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial Unicode.ttf", "arial.ttf")

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
T = TypeVar("T")


@dataclass
class Comparison:
    """The pictures of several folders that belong together.

    `rows` are the name of a picture and its file in each folder, `names` the folders' names. `notices` say what has no
    partner, `failed` what cannot be read.
    """

    names: tuple[str, ...]
    rows: list[tuple[str, tuple[Path, ...]]]
    notices: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def write_comparison(inputs: Sequence[Path], out: Path, most: int = MAX_ROWS, overwrite: bool = False) -> Comparison:
    """Compare folders, or single pictures, in `out`, a picture or a page by its suffix; at most `most` rows of them.

    A picture that cannot be read is left out and stands in `failed`. Raises `UsageError` for inputs of both kinds or
    another suffix, `InputError` if nothing belongs together or nothing of it can be read, `OutputError` for an `out`
    that exists or cannot be written.
    """
    suffix = out.suffix.lower()
    if suffix not in (*SHEETS, *PAGES):
        raise UsageError(f"-o {out}: expected the name of a picture ({', '.join(SHEETS)}) or of a page (.html)")
    if out.exists() and not overwrite:
        raise UsageError(f"{out}: exists; choose another name, or --overwrite")
    found = match(inputs, out)
    if len(found.rows) > most:
        found.notices.insert(0, f"{most} of {len(found.rows)} pictures are shown, evenly chosen; --max shows more")
        found.rows = evenly(found.rows, most)
    data = _page(found) if suffix in PAGES else _sheet(found, suffix)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out.parent}: cannot be made: {error.strerror}") from error
    atomic_write(out, lambda file: file.write(data), replace=overwrite)
    return found


def match(inputs: Sequence[Path], out: Path) -> Comparison:
    """Pictures by relative path without suffix, as pairs of a data set are; or single files in one row."""
    if len(inputs) < 2:
        raise UsageError("expected two folders or two pictures or more: i2i compare BEFORE AFTER -o SHEET.png")
    if missing := [path for path in inputs if not path.exists()]:
        raise InputError(f"{printable(missing[0])}: no such file or folder")
    folders = [path for path in inputs if path.is_dir()]
    if not folders:
        return Comparison(_names(inputs), [(inputs[0].stem, tuple(inputs))])
    if len(folders) < len(inputs):
        raise UsageError(f"{printable(folders[0])} is a folder and another input is a picture; give one kind")
    first, *others = (_Side(folder, [other for other in (*inputs, out) if other != folder]) for folder in folders)
    rows, lonely = [], []
    partners: set[Path] = set()
    for name, path in first.files.items():
        there = [partner for other in others if (partner := other.partner(name)) is not None]
        partners.update(there)
        if len(there) == len(others):
            rows.append((name.as_posix(), (path, *there)))
        lonely += [f"{path} has no partner in {other.folder}" for other in others if other.partner(name) is None]
    alone = [path for other in others for path in other.files.values() if path not in partners]
    lonely += [f"{path} has no partner in {first.folder}" for path in alone]
    if not rows:
        raise InputError(f"no picture in {printable(first.folder)} has the name of one in the others:", *lonely[:10])
    return Comparison(_names(folders), rows, first_lines(lonely))


class _Side:
    """The pictures of one folder, by relative path and without suffix, but those that lie in `others`."""

    def __init__(self, folder: Path, others: Sequence[Path]) -> None:
        self.folder = folder
        inner = [other for other in map(real, others) if other.is_relative_to(real(folder))]
        paths = [p for p in find_images(folder) if not any(real(p).is_relative_to(other) for other in inner)]
        if not paths:
            looked = f"looked for {', '.join(sorted(SUFFIXES))}"
            raise InputError(f"{printable(folder)}: no pictures in this folder ({looked})")
        self.files = {path.relative_to(folder): path for path in paths}
        self._by_stem: defaultdict[Path, list[Path]] = defaultdict(list)
        for name, path in self.files.items():
            self._by_stem[name.with_suffix("")].append(path)

    def partner(self, name: Path) -> Path | None:
        """The picture of that name here; of another suffix if there is one alone."""
        alike = self._by_stem.get(name.with_suffix(""), [])
        return self.files.get(name) or (alike[0] if len(alike) == 1 else None)


def _names(paths: Sequence[Path]) -> tuple[str, ...]:
    """The last part of each path; the whole paths where two of these are equal."""
    names = [real(path).name for path in paths]
    return tuple(names if len({*names}) == len(names) else map(str, paths))


def _readable(found: Comparison, made: Callable[[Picture, str], T]) -> Iterator[tuple[str, list[T]]]:
    """Each row's name, and its pictures after `made`; a row that cannot be read goes to `failed`.

    Raises `InputError` if none can be read.
    """
    for name, paths in found.rows:
        row = []
        for path, side in zip(paths, found.names, strict=True):
            try:
                row.append(made(read(path), f"{name}, {side}"))
            except ImageError as error:
                found.failed.append(f"{path}: {error}")
        if len(row) == len(paths):
            yield name, row
    if len(found.failed) >= len(found.rows):
        raise InputError("no pair of pictures can be read:", *first_lines(found.failed))


def _sheet(found: Comparison, suffix: str) -> bytes:
    rows = [Row(name, parts) for name, parts in _readable(found, lambda picture, _: thumbnail(in_colour(picture)))]
    return encode(replace(Picture(draw(found.names, rows)), format=WRITTEN[suffix]), WRITTEN[suffix])


def _page(found: Comparison) -> bytes:
    """The page: the first picture of each row with each of the others."""
    shown = []
    for name, (first, *others) in _readable(found, _embedded):
        titles = [name] if len(others) == 1 else found.names[1:]
        shown.append((name, [Pair(first, other, title) for other, title in zip(others, titles, strict=True)]))
    before, *after = map(escape, found.names)
    remark = f"{DRAG} Left of the line: {before}; right of it: {' or '.join(after)}."
    if len(after) == 1:
        shown = [("Pictures", [pair for _, pairs in shown for pair in pairs])]
    sections = [
        comparisons(pairs, f"picture-{number}", escape(name, 100), "" if number else remark, few=True)
        for number, (name, pairs) in enumerate(shown)
    ]
    notices = [*found.notices, *found.failed]
    return build(MARK, "i2i compare", " · ".join(found.names), "", notices, sections)


def _embedded(picture: Picture, label: str) -> EmbeddedPicture:
    return embed(in_colour(picture), label, picture.icc if picture.pixels.shape[2] == 3 else None)


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
    down = 2 * _MARGIN + _TITLE - _SPACE + sum(high + _CAPTION + _SPACE for high in heights)
    sheet = Image.new("RGB", (width, down), _PAPER)
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

    def off(line: Sequence[Row]) -> float:
        """How far the height of a line is from the usual one, as a ratio that counts both ways alike."""
        return math.log(_line_height(line, width, height) / height) ** 2

    best: list[tuple[float, list[list[Row]]]] = [(0.0, [])]  # for the first i rows: cost and lines
    for end in range(1, len(rows) + 1):
        starts = range(max(0, end - _MOST_IN_A_LINE), end)
        cost, start = min((best[i][0] + off(rows[i:end]), i) for i in starts)
        best.append((cost, [*best[start][1], list(rows[start:end])]))
    return best[-1][1]


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
    shown, font = _drawable(unicodedata.normalize("NFC", printable(text)), size)
    while len(shown) > 1 and font.getlength(shown) > room:
        shown = "…" + shown[2:]
    ImageDraw.Draw(sheet).text((left, top), shown, colour, font)


def _drawable(text: str, size: int) -> tuple[str, Font]:
    """A text with the font that has most of its letters: Pillow's own, which knows few but English ones, or another.

    A letter that it lacks becomes the nearest one, such as e for é, or ?.
    """
    font = max(_fonts(size), key=lambda font: sum(_has(font, letter) for letter in text))
    near = (letter if _has(font, letter) else unicodedata.normalize("NFKD", letter)[0] for letter in text)
    return "".join(letter if _has(font, letter) else "?" for letter in near), font


@cache
def _fonts(size: int) -> list[Font]:
    found: list[Font] = [ImageFont.load_default(size)]
    for name in _SYSTEM_FONTS:
        with contextlib.suppress(OSError):
            found.append(ImageFont.truetype(name, size))
    return found


@cache
def _has(font: Font, letter: str) -> bool:
    """Whether a font has a letter; it draws all that it lacks as it draws U+FFFF."""
    try:
        return bytes(font.getmask(letter)) != bytes(font.getmask("\uffff"))
    except UnicodeEncodeError:
        return False
