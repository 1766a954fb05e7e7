"""Label pictures: classes by colour, as a palette lists them, or by index."""

import colorsys
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from i2i.errors import InputError, UsageError, nearest
from i2i.images.formats import LOSSY
from i2i.images.picture import Picture, Pixels, with_channels, with_depth

VOID = 255  # in a class-index picture: no label
FAR = 25
"""So many levels from each colour of a palette, of 255, a pixel is none of its classes."""

_MAX_BYTES = 1 << 16
_CHUNK = 1 << 16  # so many different colours at a time
_HEX = r"#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})"
_DECIMAL = r"(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\d{1,3})"


@dataclass(frozen=True)
class Palette:
    """Colours (red, green, blue), 0 to 255 each; the index of a colour is that of its class.

    With `indexed`, pictures hold the indices themselves, and the colours are for looking at alone. With `coloured`,
    those of one channel hold colours, as all do. With neither, each picture of one channel decides by its values.
    """

    name: str
    colours: tuple[tuple[int, int, int], ...]
    indexed: bool = False
    coloured: bool = False

    @property
    def is_grey(self) -> bool:
        """Whether all its colours are."""
        return all(len(set(colour)) == 1 for colour in self.colours)

    @property
    def held(self) -> str:
        """`indices` or `colours`, the content of pictures of one channel; empty where each picture decides."""
        return "indices" if self.indexed else "colours" if self.coloured else ""

    def __len__(self) -> int:
        return len(self.colours)

    def array(self) -> Pixels:
        return np.array(self.colours, np.uint8)


def _named(name: str, colours: str) -> Palette:
    """A palette of colours rrggbb."""
    return Palette(name, tuple((r, g, b) for r, g, b in map(bytes.fromhex, colours.split())))


# the twelve classes of CMP Facades as the pix2pix data set draws them, measured: the modes of its label pictures
FACADES = _named("facades", "0000de 0030ff 0080ff 00cfff 20ffe0 70ff8f c0ff3f fff000 ff9f00 ff5000 ff0000 ae0000")
# the label maps of the toy pictures
TOY = _named("toy", "4682dc ffdc28 8c5abe 3cbe50 808080 f09678 be1e32 fafafa 145a32 6e3c14 1ec8d2")
PALETTES = {palette.name: palette for palette in (FACADES, TOY)}


def find(name: str, option: str = "palette") -> Palette:
    """A palette by its name; from a text file, a colour a line, `#rrggbb` or `R G B`, then perhaps its name; or, by
    a number, so many classes whose pictures hold their indices.

    Empty lines are left out. Raises `UsageError` naming `option` if there is no such palette or file, `InputError`
    for a line that is no colour, fewer than 2 and more than 255 of them, and for a colour twice.
    """
    if name in PALETTES:
        return PALETTES[name]
    path = Path(name)
    if re.fullmatch(r"\d{1,6}", name) and not path.is_file():
        return indexed(int(name), option)
    if not path.is_file():
        raise UsageError(
            f"{option} = {name!r}: no such file or palette.{nearest(name, PALETTES)} Palettes: "
            f"{', '.join(PALETTES)}. If the pictures hold class indices, give the number of classes."
        )
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


def indexed(count: int, option: str = "palette") -> Palette:
    """`count` classes by index, with colours that differ well. Raises `UsageError` unless there are 2 to 255."""
    if not 2 <= count <= 255:
        raise UsageError(f"{option} = {count}: there may be 2 to 255 classes")
    hues = [i * 0.618034 % 1 for i in range(count)]  # by the golden section each is far from those before
    levels = [colorsys.hsv_to_rgb(hue, (0.9, 0.55)[i % 2], (0.95, 0.7, 0.45)[i % 3]) for i, hue in enumerate(hues)]
    colours = tuple((round(255 * r), round(255 * g), round(255 * b)) for r, g, b in levels)
    return Palette(f"{count} classes", colours, indexed=True)


def labels_of(picture: Picture, palette: Palette) -> Pixels:
    """A picture of labels as class indices (H, W) uint8, as `to_classes`, by the format of its file.

    Where classes have indices, those of a file with a palette are the numbers of its colours, and a lossy format, which
    changes numbers, raises `InputError`. In a lossless file a colour that is further than `FAR` levels from all of the
    palette is no label; JPEG and its like blur edges, so that there all go to the nearest.
    """
    lossy = picture.format in LOSSY
    if not palette.indexed:
        return to_classes(picture.pixels, palette, math.inf if lossy else FAR)
    if lossy:
        raise InputError(
            f"{picture.format} may have changed the indices of classes; keep them as PNG, TIFF, BMP, GIF or PPM"
        )
    return to_classes(label_pixels(picture, palette), palette)


def label_pixels(picture: Picture, palette: Palette) -> Pixels:
    """The pixels (H, W, C) that hold the classes: where those have indices, the numbers of a file with a palette."""
    return picture.pixels if picture.numbers is None or not palette.indexed else picture.numbers[..., None]


def holds_indices(picture: Picture, palette: Palette) -> bool:
    """Whether the classes of a picture of labels are numbers in it, and not colours."""
    pixels = label_pixels(picture, palette)
    return pixels.shape[2] == 1 and not _is_of_greys(pixels, palette)


def to_classes(pixels: Pixels, palette: Palette, farthest: float = math.inf) -> Pixels:
    """A picture of labels (H, W, C) as class indices (H, W) uint8, 255 for a pixel without a label.

    Colours go to the nearest of the palette (Euclidean in RGB; the lower index of two), but to none that is further
    than `farthest`. A picture of one channel holds the indices themselves; unless its values are the palette's own
    greys, as in a mask of 0 and 255. Raises `InputError` for an index that is no class, for more channels than three,
    and for colours where the palette is of indices.
    """
    if pixels.shape[2] == 1 and not _is_of_greys(pixels, palette):
        indices = pixels[..., 0]
        wrong = (indices >= len(palette)) & (indices != VOID)
        if indices.dtype != np.uint8 or wrong.any():
            kind = indices[wrong][0] if wrong.any() else indices.dtype
            raise InputError(f"a grey picture holds class indices, 0 to {len(palette) - 1} or {VOID}; found {kind}")
        return indices
    if palette.indexed:
        raise InputError(
            f"a picture of colours without a palette of its own; expected a grey one of class indices, 0 to "
            f"{len(palette) - 1}, or one with a palette. A text file names the colours of classes, a colour a line"
        )
    red, green, blue = np.moveaxis(_colours(pixels).astype(np.int32), 2, 0)
    packed = red << 16 | green << 8 | blue
    found, where = np.unique(packed, return_inverse=True)
    colours = np.stack([found >> 16, found >> 8 & 255, found & 255], axis=1)
    parts = np.array_split(colours, len(colours) // _CHUNK + 1)
    nearest = np.concatenate([_nearest(part, palette, farthest) for part in parts])
    classes: Pixels = nearest[where.reshape(pixels.shape[:2])]
    return classes


def _nearest(colours: Pixels, palette: Palette, farthest: float) -> Pixels:
    """(N, 3) int32 → (N,) uint8."""
    distances = np.square(colours[:, None] - palette.array().astype(np.int32)).sum(axis=2)
    classes = distances.argmin(axis=1).astype(np.uint8)
    return np.where(distances.min(axis=1) > farthest**2, np.uint8(VOID), classes)


def _is_of_greys(pixels: Pixels, palette: Palette) -> bool:
    """Whether a picture of one channel holds colours, the palette's own greys, rather than class indices."""
    if palette.coloured:
        return True
    if palette.indexed or pixels.dtype != np.uint8 or not palette.is_grey:
        return False
    return {int(value) for value in np.unique(pixels)} <= {colour[0] for colour in palette.colours}


def to_colours(classes: Pixels, palette: Palette) -> Pixels:
    """Class indices (H, W) as the palette's colours (H, W, 3) uint8; pixels without a label are black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette.array()
    return table[classes]


def class_planes(planes: Pixels, count: int) -> Pixels:
    """(…, 1 + M, H, W) class indices, and planes of 0 and 1 → (…, count + M, H, W) float32: 1 for the class of a pixel
    and for 1, else -1."""
    is_class = planes[..., :1, :, :] == np.arange(count, dtype=planes.dtype)[:, None, None]
    there = np.concatenate([is_class, planes[..., 1:, :, :] == 1], axis=-3)
    return np.where(there, np.float32(1), np.float32(-1))


def boundaries(classes: Pixels, instances: Pixels | None = None) -> Pixels:
    """Where things meet, (H, W) uint8 of 0 and 1: a pixel of whose four neighbours one is of another class or another
    instance (Wang et al. 2018, Sec. 3.3). (H, W) each."""
    found = np.zeros(classes.shape, bool)
    for plane in (classes,) if instances is None else (classes, instances):
        down, right = plane[1:] != plane[:-1], plane[:, 1:] != plane[:, :-1]
        found[1:] |= down
        found[:-1] |= down
        found[:, 1:] |= right
        found[:, :-1] |= right
    return found.astype(np.uint8)


def distance(pixels: Pixels, palette: Palette) -> float:
    """The mean distance of a picture's pixels (H, W, C) from the nearest colour of the palette, in levels of 255.

    It is measured on a sixteenth of the pixels. A picture of class indices has distance 0.
    """
    if pixels.shape[2] == 1 and pixels.dtype == np.uint8 and set(np.unique(pixels)) <= {*range(len(palette)), VOID}:
        return 0.0
    colours = _colours(pixels)[::4, ::4].reshape(-1, 1, 3).astype(np.int64)
    distances = np.square(colours - palette.array().astype(np.int64)).sum(axis=2)
    return float(np.sqrt(distances.min(axis=1)).mean())


def _colours(pixels: Pixels) -> Pixels:
    return with_depth(with_channels(pixels, 3), np.uint8)


def _colour(path: Path, number: int, line: str) -> tuple[int, int, int]:
    if found := re.match(_HEX + r"(\s|$)", line):
        red, green, blue = (int(part, 16) for part in found.groups()[:3])
        return red, green, blue
    found = re.match(_DECIMAL + r"(\s|,|$)", line)
    values = tuple(map(int, found.groups()[:3])) if found else ()
    if len(values) != 3 or max(values) > 255:
        raise InputError(f"{path}, line {number}: {line[:60]!r} is no colour; expected #rrggbb or R G B")
    return values[0], values[1], values[2]
