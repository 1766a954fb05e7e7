"""Folders of toy pictures in the standard layouts."""

from pathlib import Path
from typing import Literal

import numpy as np

from i2i import images
from i2i.data.toy import ToyPairs, ToyUnpaired
from i2i.images import Picture, Pixels


def write_folder(
    path: Path, kind: Literal["unpaired", "paired"] = "unpaired", count: int = 100, size: int = 64, seed: int = 0
) -> None:
    """Write `count` training samples and a quarter as many others as PNG in the standard layouts.

    Unpaired: trainA/ trainB/ testA/ testB/. Paired: train/ and val/, A and B side by side.
    """
    for train in (True, False):
        number = count if train else max(1, count // 4)
        toys = (ToyPairs if kind == "paired" else ToyUnpaired)(size, number, seed, train)
        for t in range(number):
            pair = toys[t]
            a, b = images.to_pixels(pair.a), images.to_pixels(pair.b)
            if kind == "paired":
                _write(path / ("train" if train else "val") / f"{t:04}.png", np.hstack([a, b]))
            else:
                _write(path / ("trainA" if train else "testA") / f"{t:04}.png", a)
                _write(path / ("trainB" if train else "testB") / f"{t:04}.png", b)


def _write(path: Path, pixels: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    images.write(path, Picture(pixels))
