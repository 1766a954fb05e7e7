"""What the pictures of a domain seem to be, where a training would take them for something else: labels, or numbers
that use a small part of their range."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import cv2
import numpy as np

from i2i.images import LOSSY, Picture, Pixels
from i2i.images.palettes import VOID
from i2i.images.picture import white

NARROW = 0.25
"""Numbers of more than 8 bits that span less than this part of their range are told."""

_CERTAIN = 60  # a picture without anything brighter, in flat areas, is no photograph
_DENSE = 0.25  # of labels with higher numbers so many of those below occur
_HIGHEST = 200
_BUSY = 0.35  # the share of neighbouring pixels that differ


@dataclass(frozen=True)
class Seen:
    """Of one picture: the kind of its numbers, the lowest and highest of those with more than 8 bits, and the
    different ones of a flat picture that may hold labels (`numbers`; `of_palette`: of a file with a palette)."""

    dtype: str
    low: float = 0.0
    high: float = 0.0
    full: float = 255.0
    numbers: frozenset[int] = field(default_factory=frozenset)
    of_palette: bool = False
    channels: int = 1


def seen(picture: Picture) -> Seen:
    """What is looked at of a picture."""
    pixels = picture.pixels
    if pixels.dtype != np.uint8:
        return Seen(str(pixels.dtype), float(pixels.min()), float(pixels.max()), white(pixels))
    of_palette = picture.numbers is not None
    plane = picture.numbers if of_palette else grey_plane(pixels)
    if plane is None or picture.format in LOSSY:
        return Seen("uint8")
    found = different(plane)
    few = max(found - {VOID}, default=0) <= _HIGHEST and not _is_busy(plane)
    return Seen("uint8", numbers=found if few else frozenset(), of_palette=of_palette, channels=pixels.shape[2])


def grey_plane(pixels: Pixels) -> Pixels | None:
    """The one channel of a grey picture (H, W, C), also where it is there three times; None for colours."""
    if pixels.shape[2] == 1:
        return pixels[..., 0]
    if pixels.shape[2] != 3:
        return None
    for step in (16, 1):  # most pictures of colours are found out by a few of their pixels
        few = pixels[::step, ::step]
        if (few[..., 0] != few[..., 1]).any() or (few[..., 0] != few[..., 2]).any():
            return None
    return pixels[..., 0]


def different(plane: Pixels) -> frozenset[int]:
    """The different numbers of (H, W) uint8."""
    counts: Any = cv2.calcHist([np.ascontiguousarray(plane)], [0], None, [256], [0, 256])
    return frozenset(map(int, np.flatnonzero(counts)))


def _is_busy(plane: Pixels) -> bool:
    apart = np.count_nonzero(plane[:, 1:] != plane[:, :-1]) + np.count_nonzero(plane[1:] != plane[:-1])
    return bool(apart > _BUSY * 2 * plane.size)


def remarks(where: str, pictures: Sequence[Seen], option: str) -> list[str]:
    """What is to be said of the pictures of a domain; `option` is the one that takes them for labels."""
    return [text for text in (_labels(where, pictures, option), _narrow(where, pictures)) if text]


def _labels(where: str, pictures: Sequence[Seen], option: str) -> str:
    numbers: frozenset[int] = frozenset().union(*(one.numbers for one in pictures))
    classes = numbers - {VOID}
    if not pictures or not all(one.numbers for one in pictures) or not _are_indices(classes):
        return ""
    count = max(classes) + 1
    void = f", and {VOID}, which is no label" if VOID in numbers else ""
    if any(one.of_palette for one in pictures):
        what, seem = f"a palette, of which they use the numbers 0 to {count - 1}{void}", "labels by colour"
    elif count == 2:
        what, seem = f"the numbers 0 and 1 alone{void}, which a network sees as black", "masks"
    else:
        what = f"few numbers, from {min(classes)} to {count - 1}{void}, which a network sees as nearly black"
        seem = "indices of classes"
    grey = "" if all(one.channels == 1 or one.of_palette for one in pictures) else ", saved as grey ones,"
    return f"{where}: the pictures have {what}. They seem to be {seem}: {option} {count} takes them{grey} as labels"


def _are_indices(classes: frozenset[int]) -> bool:
    highest = max(classes, default=0)
    return 1 <= highest <= _HIGHEST and (highest <= _CERTAIN or len(classes) >= _DENSE * highest)


def _narrow(where: str, pictures: Sequence[Seen]) -> str:
    deep = [one for one in pictures if one.dtype != "uint8"]
    if len(deep) < len(pictures) or len({one.full for one in deep}) != 1:
        return ""
    text = narrow(min(one.low for one in deep), max(one.high for one in deep), deep[0].full)
    return f"{where}: the pictures have {text}" if text else ""


def narrow(low: float, high: float, full: float) -> str:
    """That numbers from `low` to `high` are a small part of 0 to `full`, and what to do; empty if they are not."""
    span = high - low
    if span > NARROW * full or span <= 0:
        return ""
    start = 0.0 if low < NARROW * high else low
    factor = float(Fraction(full) / Fraction(high - start))
    by = f"{int(factor)}" if full > 1 else f"{factor:.3g}"
    sees = [2 * value / full - 1 for value in (low, high)]
    moved = f"(v - {start:g}) * {by}" if start else f"v * {by}"
    return (
        f"values from {low:g} to {high:g} of {full:g}, {span / full:.1%} of the range: a network sees {sees[0]:.3f} to "
        f"{sees[1]:.3f}. Stretch all pictures of the set alike beforehand, each value v to {moved}"
    )
