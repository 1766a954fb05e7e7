"""The pictures of the benchmarks, always the same, and how far two folders of results are apart."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from i2i import images
from i2i.data.toy import ToyPairs
from i2i.images import Pixels

TILE = 256


def write_jpegs(folder: Path, size: tuple[int, int], count: int, source: Path | None = None) -> list[Path]:
    """`count` JPEGs of (height, width), quality 90, laid out of as many pictures of 256 px as they take.

    The pictures come from the folder `source`, or are drawn landscapes, which are plainer than photographs.
    """
    folder.mkdir(parents=True)
    height, width = size
    tiles = -(-height // TILE) * -(-width // TILE)
    found = pictures_in(source) if source else []
    paths = [folder / f"{number:04}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        Image.fromarray(mosaic(found, height, width, number * tiles)).save(path, quality=90)
    return paths


def mosaic(found: list[Path], height: int, width: int, first: int = 0) -> Pixels:
    """(height, width, 3) of the pictures from the `first` on, at 256 px each."""
    rows, columns = -(-height // TILE), -(-width // TILE)
    toys = ToyPairs(TILE)
    tiles = [tile(found, toys, first + number) for number in range(rows * columns)]
    lines = [np.hstack(tiles[row * columns : (row + 1) * columns]) for row in range(rows)]
    return np.ascontiguousarray(np.vstack(lines)[:height, :width])


def pictures_in(folder: Path) -> list[Path]:
    """All pictures under a folder, by name."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in images.SUFFIXES)


def tile(found: list[Path], toys: ToyPairs, number: int) -> Pixels:
    """(256, 256, 3)."""
    if not found:
        return images.to_pixels(toys[number].b)
    pixels = images.read(found[number % len(found)]).channels(3)
    return np.asarray(Image.fromarray(pixels).resize((TILE, TILE), Image.Resampling.LANCZOS))


def apart(folder: Path, reference: Path) -> dict[str, Any]:
    """How far the pictures of `folder` are from those of `reference`, in 8-bit levels.

    The `largest` and the `mean` difference, and the percentage of pixels that are `over_one` level apart in a channel.
    """
    names = sorted(path.name for path in reference.iterdir())
    if names != sorted(path.name for path in folder.iterdir()):
        raise ValueError(f"{folder.name} and {reference.name} do not hold the same pictures")
    found = [levels(images.read(folder / name).pixels, images.read(reference / name).pixels) for name in names]
    means = ((float(np.mean([one[key] for one in found]))) for key in ("mean", "over_one"))
    return {"largest": max(one["largest"] for one in found), **dict(zip(("mean", "over_one"), means, strict=True))}


def levels(one: Pixels, other: Pixels) -> dict[str, Any]:
    """As `apart`, of two pictures of 8 bits."""
    difference = np.abs(one.astype(np.int16) - other)
    over = 100 * float((difference.max(-1) > 1).mean())
    return {"largest": int(difference.max()), "mean": float(difference.mean()), "over_one": over}
