"""The small world that toy pictures show: sky with a sun, hills, houses, trees, a lake or a road.

A drawing first exists as a label map; `render` turns the labels into a picture by rules that depend on labels
and position alone, so that they can be learnt.
"""

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np

from i2i.images import Pixels
from i2i.images.palettes import TOY

_Colour = tuple[int, int, int]

SKY, SUN, HILL, GRASS, ROAD, WALL, ROOF, WINDOW, TREE, TRUNK, WATER = range(11)

LABEL_COLOURS = TOY.array()


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
        _draw_water(labels, random, horizon)
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


def _draw_water(labels: Pixels, random: np.random.Generator, horizon: float) -> None:
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
    _polygon(
        labels,
        [
            (x - 0.018, base - height / 2),
            (x + 0.018, base - height / 2),
            (x + 0.018, base),
            (x - 0.018, base),
        ],
        TRUNK,
    )
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
    """What each label looks like everywhere: (labels, side, side, 3) uint8."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    rows, flat = y * 28, np.zeros_like(x)
    joints = (np.mod(x * 14 + 0.5 * np.mod(np.floor(rows), 2), 1) < 0.12) | (np.mod(rows, 1) < 0.2)
    near = np.clip(2 * y - 1, 0, 1)

    def wave(cycles_x: float, cycles_y: float) -> Pixels:
        return np.sin(2 * np.pi * (cycles_x * x + cycles_y * y))

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
