"""Toy domains, drawn on the fly, so that tests and a first training need no download.

The world is a landscape: sky with a sun, hills, houses, trees, a lake or a road. A drawing is a label map first;
`render` turns labels into a picture by rules of label and position alone, so that they can be learnt. Paired: the label
map (A) and the rendered scene (B). Unpaired: scenes by day (A) and `true_map` of other scenes (B), dusk with hatched
plants, so that a translation can be compared with the truth.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from i2i import images
from i2i.data.options import TOY, DataOptions, classes
from i2i.data.pair import Datasets, ImagePair, ImagePairs, MakePair
from i2i.data.transforms import is_pair, sample_seed
from i2i.errors import UsageError, as_typed, check_word
from i2i.images import Pixels, palettes
from i2i.images.palettes import TOY as TOY_PALETTE
from i2i.images.palettes import boundaries, class_planes

_Colour = tuple[int, int, int]

SKY, SUN, HILL, GRASS, ROAD, WALL, ROOF, WINDOW, TREE, TRUNK, WATER = range(11)

LABEL_COLOURS = TOY_PALETTE.array()


def draw_labels(random: np.random.Generator, side: int) -> Pixels:
    """A landscape as (side, side) uint8 labels."""
    labels = np.full((side, side), SKY, np.uint8)
    s = float(side)
    horizon = random.uniform(0.45, 0.6)
    sun = random.uniform(0.12, 0.88), random.uniform(0.1, 0.24)
    cv2.circle(labels, (int(sun[0] * s), int(sun[1] * s)), int(random.uniform(0.07, 0.1) * s), SUN, -1)
    _draw_hills(labels, random, horizon)
    labels[int(horizon * s) :] = GRASS
    if random.random() < 0.5:
        _draw_water(labels, random)
    else:
        _draw_road(labels, random, horizon)
    places = random.permutation(4)[: random.integers(2, 5)]
    houses = random.integers(1, 3)
    for i, place in enumerate(sorted(places, key=lambda p: p % 2)):
        x = (place + random.uniform(0.35, 0.65)) / 4
        (_draw_house if i < houses else _draw_tree)(labels, random, x, horizon)
    return labels


def _draw_hills(labels: Pixels, random: np.random.Generator, horizon: float) -> None:
    side = len(labels)
    x = np.linspace(0, 1, side)
    phase, height = random.uniform(0, 6.3, 2), random.uniform(0.05, 0.12)
    ridge = horizon - height * (1 + 0.6 * np.sin(5 * x + phase[0]) + 0.3 * np.sin(11 * x + phase[1]))
    labels[np.arange(side)[:, None] >= ridge[None] * side] = HILL


def _draw_water(labels: Pixels, random: np.random.Generator) -> None:
    side = len(labels)
    centre = int(random.uniform(0.25, 0.75) * side), int(random.uniform(0.86, 0.94) * side)
    axes = int(random.uniform(0.25, 0.4) * side), int(random.uniform(0.07, 0.1) * side)
    cv2.ellipse(labels, centre, axes, 0, 0, 360, WATER, -1)


def _draw_road(labels: Pixels, random: np.random.Generator, horizon: float) -> None:
    far, near = random.uniform(0.3, 0.7), random.uniform(0.2, 0.8)
    _polygon(labels, [(far - 0.02, horizon), (far + 0.02, horizon), (near + 0.14, 1.01), (near - 0.14, 1.01)], ROAD)


def _draw_house(labels: Pixels, random: np.random.Generator, x: float, horizon: float) -> None:
    width, height = random.uniform(0.2, 0.26), random.uniform(0.16, 0.22)
    base = horizon + random.uniform(0.08, 0.22)
    left, right, top = x - width / 2, x + width / 2, base - height
    _polygon(labels, [(left, top), (right, top), (right, base), (left, base)], WALL)
    _polygon(labels, [(left - 0.03, top), (x, top - random.uniform(0.1, 0.14)), (right + 0.03, top)], ROOF)
    for centre in (x - width / 4, x + width / 4):
        a, b = centre - width / 9, centre + width / 9
        upper, lower = top + 0.25 * height, top + 0.6 * height
        _polygon(labels, [(a, upper), (b, upper), (b, lower), (a, lower)], WINDOW)


def _draw_tree(labels: Pixels, random: np.random.Generator, x: float, horizon: float) -> None:
    side, base = len(labels), horizon + random.uniform(0.06, 0.24)
    height = random.uniform(0.24, 0.34)
    left, right, middle = x - 0.018, x + 0.018, base - height / 2
    _polygon(labels, [(left, middle), (right, middle), (right, base), (left, base)], TRUNK)
    if random.random() < 0.5:
        for level in range(3):
            y, half = base - height * (0.2 + 0.22 * level), 0.1 - 0.025 * level
            _polygon(labels, [(x - half, y), (x, y - height * 0.38), (x + half, y)], TREE)
    else:
        radius = random.uniform(0.08, 0.11)
        cv2.circle(labels, (int(x * side), int((base - height * 0.7) * side)), int(radius * side), TREE, -1)


def _polygon(labels: Pixels, points: Sequence[tuple[float, float]], label: int) -> None:
    corners = np.rint(np.array(points) * len(labels)).astype(np.int32)
    cv2.fillPoly(labels, [corners], label)


def label_map(labels: Pixels) -> Pixels:
    """Labels (H, W) as flat colours (H, W, 3) uint8."""
    return LABEL_COLOURS[labels]


def render(labels: Pixels) -> Pixels:
    """Labels (S, S) as a scene by day (S, S, 3) uint8, textured by material and position."""
    place = np.arange(len(labels))
    scene = _materials(len(labels))[labels, place[:, None], place]
    return np.rint(scene * _shade(labels)[..., None]).astype(np.uint8)


@lru_cache(maxsize=2)
def _materials(side: int) -> Pixels:
    """Returns the look of each label at every place: (labels, side, side, 3) uint8."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    rows, flat = y * 28, np.zeros_like(x)
    joints = (np.mod(x * 14 + 0.5 * np.mod(np.floor(rows), 2), 1) < 0.12) | (np.mod(rows, 1) < 0.2)
    near = np.clip(2 * y - 1, 0, 1)

    def wave(cycles_x: float, cycles_y: float) -> Pixels:
        height: Pixels = np.sin(2 * np.pi * (cycles_x * x + cycles_y * y))
        return height

    def paint(colour: _Colour, change: Pixels, towards: _Colour) -> Pixels:
        mixed = np.array(colour) + change[..., None] * (np.array(towards) - colour)
        return np.rint(np.clip(mixed, 0, 255)).astype(np.uint8)

    return np.stack(
        [
            paint((95, 160, 225), np.clip(y * 1.9, 0, 1), (225, 236, 240)),
            paint((255, 235, 130), flat, (255, 255, 255)),
            paint((120, 150, 150), np.clip(y * 1.6, 0, 1) + 0.08 * wave(9, 5), (88, 128, 108)),
            paint((128, 172, 66), near + 0.16 * wave(21, 9) * wave(5, 31), (74, 126, 40)),
            paint((150, 140, 128), near, (118, 108, 98)),
            paint((214, 172, 134), 0.55 * joints, (246, 232, 214)),
            paint((176, 70, 48), 0.7 * np.mod(y * 24, 1), (120, 42, 34)),
            paint((70, 96, 118), 0.7 * np.mod(3 * x + 3 * y, 1), (190, 214, 226)),
            paint((52, 112, 50), 0.5 + 0.35 * wave(17, 13) * wave(-11, 19), (24, 76, 38)),
            paint((104, 74, 48), 0.5 + 0.5 * wave(40, 2), (72, 50, 34)),
            paint((76, 136, 176), 0.5 + 0.4 * wave(2, 34), (150, 196, 214)),
        ]
    )


def _shade(labels: Pixels) -> Pixels:
    """Darkness under and right of what stands on the ground, as a factor."""
    side = len(labels)
    standing = np.isin(labels, (WALL, ROOF, TREE, TRUNK)).astype(np.float32)
    blurred = cv2.GaussianBlur(standing, (0, 0), side * 0.02)
    shift = max(1, round(side * 0.025))
    shadow = np.zeros_like(blurred)
    shadow[shift:, shift:] = blurred[:-shift, :-shift]
    ground = np.isin(labels, (GRASS, ROAD, WATER))
    return 1 - np.where(ground, 0.45 * shadow, 0.0)


_DUSK = np.array([[0.62, 0.14, 0.12], [0.06, 0.54, 0.06], [0.16, 0.10, 0.50]], np.float32)
_DUSK_LIFT = np.array([0.06, 0.0, 0.09], np.float32)

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


@dataclass(eq=False)
class _Toy(ImagePairs):
    size: int = 64
    length: int = 400
    seed: int = 0
    train: bool = True
    direction: Literal["a2b", "b2a"] = "a2b"
    one_hot_labels: bool = False
    edges: bool = False
    paired_share: float = 0.0
    make_pair: MakePair | None = None

    def __post_init__(self) -> None:
        check_word("direction", self.direction, Literal["a2b", "b2a"])
        if self.size < MIN_SIZE:
            raise UsageError(f"size = {self.size}: toy pictures have at least {MIN_SIZE} pixels a side")
        if not self.train:
            self.length = min(self.length, 50)
        # drawn larger and shrunk, so that edges are smooth
        self.oversampling = 4 if self.size < 64 else 2

    def __len__(self) -> int:
        return self.length

    def _labels(self, t: int, *side: int) -> Pixels:
        key = (_TRAIN, t) if self.train else (_HELD_OUT, t % self.length)
        return draw_labels(np.random.default_rng((self.seed, *key, *side)), self.size * self.oversampling)

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

    def __getitem__(self, t: int) -> ImagePair:
        labels = self._labels(t)
        centres = slice(self.oversampling // 2, None, self.oversampling)
        small = labels[centres, centres]
        if self.one_hot_labels:
            planes = np.stack([small, boundaries(small)] if self.edges else [small])
            a = torch.from_numpy(class_planes(planes, len(LABEL_COLOURS)))
        else:
            a = images.to_tensor(label_map(small))
        return self._directed(a, images.to_tensor(self._scene(labels)))


class ToyUnpaired(_Toy):
    """Scenes by day (A) and `true_map` of other scenes (B), with the contract of `ToyPairs`.

    With a `paired_share`, this share of the samples shows one scene by day and at dusk; `ImagePair.is_pair` says which.
    """

    def __getitem__(self, t: int) -> ImagePair:
        one_scene = self.paired_share > 0 and is_pair(self.seed, t, self.paired_share)
        a, b = (images.to_tensor(self._scene(self._labels(t, side))) for side in (0, 0 if one_scene else 1))
        pair = self._directed(a, true_map(b))
        return replace(pair, is_pair=torch.tensor(one_scene)) if self.paired_share else pair


class ToyDomain(_Toy):
    """Scenes by day, and the pair that `make_pair` makes of each, with the contract of `ToyPairs`."""

    def __getitem__(self, t: int) -> ImagePair:
        assert self.make_pair
        scene = images.to_tensor(self._scene(self._labels(t, 0)))
        return self.make_pair(scene, sample_seed(self.seed, t))


def toys(options: DataOptions, paired: bool, multiple: int, minimum: int, make_pair: MakePair | None) -> Datasets:
    """Toy pictures of `crop_size`. Raises `UsageError` for options that they cannot follow."""
    _check(options, paired, multiple, minimum)
    kind = ToyDomain if make_pair else ToyPairs if paired else ToyUnpaired

    def made(train: bool) -> ImagePairs:
        return kind(
            options.crop_size,
            seed=options.seed,
            train=train,
            direction=options.direction,
            one_hot_labels=bool(options.classes_a),
            edges=options.instance_edges,
            paired_share=options.paired_share if train and options.paired_data else 0.0,
            make_pair=make_pair,
        )

    return Datasets(made(True), made(False))


def _check(options: DataOptions, paired: bool, multiple: int, minimum: int) -> None:
    if (options.channels_a, options.channels_b) != (3, 3):
        raise UsageError("data = toy: its pictures have 3 channels; leave channels_a and channels_b at 3")
    labels = classes(options)
    if labels not in ((None, None), (palettes.TOY, None)) or (labels[0] and not paired):
        raise UsageError(
            "classes: of the toy pictures domain A of the pairs holds labels, "
            f"{as_typed('classes_a', 'toy')}, and no other"
        )
    if options.paired_data not in (None, TOY):
        raise UsageError(
            f"paired_data = {options.paired_data}: goes with {as_typed('data', options.paired_data)}, not with toy"
        )
    if options.random_zoom < 1:
        raise UsageError(f"random_zoom = {options.random_zoom}: toy pictures are drawn as large as crops; leave it out")
    if options.augment:
        raise UsageError("augment: has no effect on toy pictures, which are drawn for each step; leave it out")
    size, least = options.crop_size, max(MIN_SIZE, minimum)
    if size < least:
        raise UsageError(f"crop_size = {size}: toy pictures for this network have at least {least}")
    if size % multiple:
        raise UsageError(f"crop_size = {size}: this network takes toy pictures of multiples of {multiple}")
