"""Toy domains, drawn on the fly: tests and a first training need no download.

Paired: the label map of a landscape (A), the rendered scene (B). Unpaired: scenes by day (A) and `true_map` of
other scenes (B), dusk with hatched plants, so that a translation can be compared with the truth.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from i2i import images
from i2i.data.image_sets import Sample, is_matched, sample_seed
from i2i.data.landscape import LABEL_COLOURS, draw_labels, label_map, render
from i2i.data.pair import ImagePair, ImagePairs
from i2i.data.slots import labels as coded
from i2i.errors import UsageError
from i2i.images import Picture, Pixels
from i2i.images.palettes import boundaries

_DUSK = np.array([[0.62, 0.14, 0.12], [0.06, 0.54, 0.06], [0.16, 0.10, 0.50]], np.float32)
_DUSK_LIFT = np.array([0.06, 0.0, 0.09], np.float32)

TOY = Path("toy")
MIN_SIZE = 16
_TRAIN, _HELD_OUT = 0, 1


def true_map(a: Tensor) -> Tensor:
    """A scene by day turned to dusk: (..., 3, H, W) in [-1, 1] to the same, without a gradient.

    Colours go through an invertible matrix towards violet; where green prevails, every other pair of rows is
    darkened, a hatching that keeps what lies under it.
    """
    # in numpy: torch's threads cost more than they bring for one picture
    day = (a.detach().cpu().numpy() + 1) / 2
    dusk = np.einsum("ij,...jhw->...ihw", _DUSK, day) + _DUSK_LIFT[:, None, None]
    red, green, blue = np.moveaxis(day, -3, 0)
    plant = np.clip((green - np.maximum(red, blue)) * 6, 0, 1)
    hatch = (np.arange(day.shape[-2]) % 4 < 2)[:, None]
    dusk *= np.expand_dims(1 - 0.5 * (plant * hatch), -3)
    return torch.from_numpy(dusk * 2 - 1).to(a)


class _Toy(ImagePairs):
    def __init__(
        self,
        size: int = 64,
        length: int = 400,
        seed: int = 0,
        train: bool = True,
        direction: Literal["a2b", "b2a"] = "a2b",
    ) -> None:
        if size < MIN_SIZE:
            raise UsageError(f"size = {size}: toy pictures have at least {MIN_SIZE} pixels a side")
        self.size, self.length, self.seed = size, length if train else min(length, 50), seed
        self.part = _TRAIN if train else _HELD_OUT
        # drawn larger and shrunk, so that edges are smooth
        self.oversampling = 4 if size < 64 else 2
        self.direction = direction

    def __len__(self) -> int:
        return self.length

    def _place(self, t: int) -> int:
        return t if self.part == _TRAIN else t % self.length

    def _labels(self, *key: int) -> Pixels:
        return draw_labels(np.random.default_rng((self.seed, self.part, *key)), self.size * self.oversampling)

    def _scene(self, labels: Pixels) -> Pixels:
        return cv2.resize(render(labels), (self.size, self.size), interpolation=cv2.INTER_AREA)

    def _directed(self, a: Tensor, b: Tensor) -> ImagePair:
        return ImagePair(a, b) if self.direction == "a2b" else ImagePair(b, a)


class ToyPairs(_Toy):
    """Label map (A) and rendered scene (B) of one landscape: `dataset[t]` for every t >= 0, as in `datasets`.

    Each is (3, size, size) in [-1, 1]; with `one_hot_labels`, A has a channel for each of the eleven classes, and with
    `edges` one for where they meet. Every t shows a new landscape; an epoch is `length` samples. `train=False` gives
    other landscapes, always the same 50.
    """

    def __init__(self, *args: Any, one_hot_labels: bool = False, edges: bool = False, **options: Any) -> None:
        super().__init__(*args, **options)
        self.one_hot_labels, self.edges = one_hot_labels, edges

    def __getitem__(self, t: int) -> ImagePair:
        labels = self._labels(self._place(t))
        centres = slice(self.oversampling // 2, None, self.oversampling)
        small = labels[centres, centres]
        if self.one_hot_labels:
            planes = np.stack([small, boundaries(small)] if self.edges else [small])
            a = coded(torch.from_numpy(planes), len(LABEL_COLOURS))
        else:
            a = images.to_tensor(label_map(small))
        return self._directed(a, images.to_tensor(self._scene(labels)))


class ToyUnpaired(_Toy):
    """Scenes by day (A) and `true_map` of other scenes (B), with the contract of `ToyPairs`.

    With a `paired_share`, so many samples show one scene by day and at dusk, and `ImagePair.matched` says which.
    """

    def __init__(self, *args: Any, paired_share: float = 0.0, **options: Any) -> None:
        super().__init__(*args, **options)
        self.paired_share = paired_share

    def __getitem__(self, t: int) -> ImagePair:
        matched = is_matched(self.seed, t, self.paired_share)
        a, b = (images.to_tensor(self._scene(self._labels(self._place(t), side))) for side in (0, 0 if matched else 1))
        pair = self._directed(a, true_map(b))
        return replace(pair, matched=torch.tensor(matched)) if self.paired_share else pair


class ToyDomain(_Toy):
    """Scenes by day, and what `sample` makes of each, with the contract of `ToyPairs`."""

    def __init__(self, *args: Any, sample: Sample, **options: Any) -> None:
        super().__init__(*args, **options)
        self.sample = sample

    def __getitem__(self, t: int) -> ImagePair:
        scene = images.to_tensor(self._scene(self._labels(self._place(t), 0)))
        return self.sample(scene, sample_seed(self.seed, t))


def write_folder(
    path: Path,
    kind: Literal["unpaired", "paired"] = "unpaired",
    count: int = 100,
    size: int = 64,
    seed: int = 0,
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
