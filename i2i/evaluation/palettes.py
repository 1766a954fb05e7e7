"""Palettes of label pictures: the colours of the classes, in the order of their indices."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from i2i.config import nearest
from i2i.errors import InputError, UsageError
from i2i.images import Pixels

_MAX_BYTES = 1 << 16
_HEX = r"#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})"
_DECIMAL = r"(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\d{1,3})"


@dataclass(frozen=True)
class Palette:
    """Colours (red, green, blue), 0 to 255 each; the index of a colour is that of its class."""

    name: str
    colours: tuple[tuple[int, int, int], ...]

    def __len__(self) -> int:
        return len(self.colours)

    def array(self) -> Pixels:
        return np.array(self.colours, np.uint8)


# the twelve classes of CMP Facades as the pix2pix data set draws them, measured: the modes of its label pictures
FACADES = Palette(
    "facades",
    (
        (0, 0, 222),
        (0, 48, 255),
        (0, 128, 255),
        (0, 207, 255),
        (32, 255, 224),
        (112, 255, 143),
        (192, 255, 63),
        (255, 240, 0),
        (255, 159, 0),
        (255, 80, 0),
        (255, 0, 0),
        (174, 0, 0),
    ),
)
PALETTES = {FACADES.name: FACADES}


def find(name: str) -> Palette:
    """A palette by its name, or from a text file: a colour a line, `#rrggbb` or `R G B`, then perhaps its name.

    Empty lines are left out. Raises `UsageError` if there is no such palette or file, `InputError` for a line
    that is no colour, fewer than 2 and more than 255 of them, and for a colour twice.
    """
    if name in PALETTES:
        return PALETTES[name]
    path = Path(name)
    if not path.is_file():
        raise UsageError(f"palette = {name!r}: no such file or name.{nearest(name, PALETTES)} Names: facades.")
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a palette: {error}") from None
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    colours = tuple(_colour(path, number, line) for number, line in lines)
    if not 2 <= len(colours) <= 255 or len(text) > _MAX_BYTES:
        raise InputError(f"{path}: {len(colours)} colours; a palette has 2 to 255")
    if len(set(colours)) < len(colours):
        twice = next(colour for colour in colours if colours.count(colour) > 1)
        raise InputError(f"{path}: the colour {twice} is there twice")
    return Palette(path.stem, colours)


def _colour(path: Path, number: int, line: str) -> tuple[int, int, int]:
    if found := re.match(_HEX + r"(\s|$)", line):
        red, green, blue = (int(part, 16) for part in found.groups()[:3])
        return red, green, blue
    found = re.match(_DECIMAL + r"(\s|,|$)", line)
    values = tuple(map(int, found.groups()[:3])) if found else ()
    if len(values) != 3 or max(values) > 255:
        raise InputError(f"{path}, line {number}: {line[:60]!r} is no colour; expected #rrggbb or R G B")
    return values[0], values[1], values[2]
