"""Sample grids: how fixed pictures are translated while a training goes on."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.utils import make_grid

from i2i import images
from i2i.algorithms.algorithm import AnyAlgorithm
from i2i.data.options import classes
from i2i.data.pair import Datasets, ImagePair, ImagePairs
from i2i.images.palettes import VOID, Palette, to_colours
from i2i.networks.blocks import for_translation
from i2i.training.options import RunOptions

CAPTION = 16  # pixels above a grid, for the names of its columns
_LINE = 2  # pixels between cells

Palettes = Mapping[str, Palette | None]
"""`A`, `B` as the algorithm sees them → the classes of labels; None for pictures."""
Skipped = Callable[[Sequence[str]], None]
Row = dict[str, Tensor]
"""Name of a column → picture (C, H, W) in [-1, 1], on the CPU."""


def palettes_of(options: RunOptions) -> Palettes:
    """The classes of the labels of both domains."""
    a, b = classes(options)
    return {"A": a, "B": b} if options.direction == "a2b" else {"A": b, "B": a}


def for_testing(algorithm: AnyAlgorithm, networks: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Copies of `networks` in the mode in which they translate; training is not disturbed."""
    return {
        name: for_translation(copy.deepcopy(network), algorithm.test_statistics, algorithm.test_dropout)
        for name, network in networks.items()
    }


def pairs(dataset: ImagePairs, places: Sequence[int], device: torch.device, skipped: Skipped) -> Iterator[ImagePair]:
    """Batches of one, on `device`; `skipped` gets the names of pictures that could not be read."""
    for t in places:
        pair = dataset[t].to(device)
        skipped(pair.skipped)
        yield ImagePair(pair.a[None], pair.b[None], pair.skipped)


class SampleGrid:
    """Translates the same pictures again and again: held-out ones, or training pictures where none are held out."""

    def __init__(
        self, algorithm: AnyAlgorithm, data: Datasets, device: torch.device, palettes: Palettes, skipped: Skipped
    ) -> None:
        self.algorithm, self.source, self.device = algorithm, data.validation or data.train, device
        self.palettes, self.skipped = palettes, skipped

    def rows(self, networks: Mapping[str, nn.Module], count: int) -> list[Row]:
        """The pictures of `Algorithm.pictures` for at most `count` inputs, spread evenly over the data set."""
        translators, found = for_testing(self.algorithm, networks), []
        with torch.inference_mode():
            for pair in pairs(self.source, spread(len(self.source), count), self.device, self.skipped):
                torch.manual_seed(0)
                pictures = self.algorithm.pictures(pair, translators)
                found.append({name: self._in_colour(name, x[0].float().cpu()) for name, x in pictures.items()})
        return found

    def _in_colour(self, name: str, picture: Tensor) -> Tensor:
        """Labels in the colours of their palette: `real_A`, `fake_B` are of the domains `batch.a` and `.b`."""
        palette = self.palettes.get(name[-1])
        if palette is None:
            return picture
        picture = picture[: len(palette)]  # without the edges of instances
        void = (picture <= 0).all(dim=0) & name.startswith("real")  # an output has the class that is likeliest
        labels = picture.argmax(dim=0).to(torch.uint8).masked_fill(void, VOID)
        return images.to_tensor(to_colours(labels.numpy(), palette))


def spread(length: int, count: int) -> list[int]:
    """At most `count` of the numbers 0 to `length` - 1, evenly spread, the first among them."""
    return [i * length // count for i in range(count)] if count < length else list(range(length))


def layout(rows: Sequence[Row]) -> dict[str, Any]:
    """The cells of a grid of these rows, as `samples/columns.json` records them: the names of its columns, the number
    of inputs, how many of them stand beside each other, and the height of the captions above, in pixels."""
    columns = list(rows[0])
    per_row = _per_row(len(rows)) if len(columns) <= 2 else 1
    return {"columns": columns, "inputs": len(rows), "inputs_per_row": per_row, "caption_height": CAPTION}


def grid(rows: Sequence[Row]) -> Tensor:
    """A row per input, a column per picture, the names of the columns above them: (3, H, W) in [0, 1].

    Rows of one or two pictures stand beside each other.
    """
    cells = [three_channels(picture) for row in rows for picture in row.values()]
    size = cells[0].shape[-2:]
    cells = [F.interpolate(x[None], size, mode="area")[0] if x.shape[-2:] != size else x for x in cells]
    names = list(rows[0]) * layout(rows)["inputs_per_row"]
    made = make_grid(torch.stack(cells), nrow=len(names), padding=_LINE, pad_value=1.0).clamp(0, 1)
    return torch.cat([_captions(names, int(size[1]), made.shape[-1]), made], dim=1)


def _per_row(count: int) -> int:
    """How many of `count` stand beside each other so that none is left over: as in a square, or fewer."""
    return next(n for n in range(math.isqrt(count), 0, -1) if count % n == 0)


def _captions(names: Sequence[str], cell_width: int, width: int) -> Tensor:
    """(3, CAPTION, width): each name above its column, as large as fits; nothing above columns of a few pixels."""
    strip = Image.new("L", (width, CAPTION), 255)
    draw = ImageDraw.Draw(strip)
    for size in range(12, 5, -1):
        font = ImageFont.load_default(size)
        if max(draw.textlength(name, font) for name in names) <= cell_width:
            for column, name in enumerate(names):
                draw.text((_LINE + column * (cell_width + _LINE), CAPTION - size - 3), name, 0, font)
            break
    return torch.from_numpy(np.array(strip, np.float32) / 255).expand(3, -1, -1)


def three_channels(image: Tensor) -> Tensor:
    """(C, H, W) in [-1, 1] → (3, H, W) in [0, 1] for showing: grey repeated, more than three cut to three."""
    image = (image.float().cpu() + 1) / 2
    return image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)


def save_grid(path: Path, picture: Tensor) -> None:
    """Writes a grid, (3, H, W) in [0, 1], as PNG, whole or not at all; values that are not finite are black."""
    path.parent.mkdir(exist_ok=True)
    images.write(path, images.Picture(pixels=images.to_pixels(picture.nan_to_num() * 2 - 1)))
