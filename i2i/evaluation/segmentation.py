"""Labels as classes: colours snapped to a palette, and how many pixels are right (Long et al. 2015, Sec. 5)."""

from dataclasses import dataclass

import numpy as np

from i2i.errors import InputError
from i2i.evaluation.palettes import Palette
from i2i.images import Pixels, with_channels, with_depth

VOID = 255  # in a class-index picture: not counted


@dataclass(frozen=True)
class LabelScores:
    """Each 0 to 1. `per_class` is the intersection over union of each class that occurs, by its index."""

    pixel_accuracy: float
    class_accuracy: float
    mean_iou: float
    per_class: dict[int, float]


def to_classes(pixels: Pixels, palette: Palette) -> Pixels:
    """A picture of labels (H, W, C) as class indices (H, W) uint8.

    Colours go to the nearest of the palette (Euclidean in RGB; the lower index of two). A picture of one channel
    holds the indices themselves; 255 is a pixel without a label. Raises `InputError` for an index that is no
    class, and for more channels than three.
    """
    if pixels.shape[2] == 1:
        indices = pixels[..., 0]
        wrong = (indices >= len(palette)) & (indices != VOID)
        if indices.dtype != np.uint8 or wrong.any():
            kind = indices[wrong][0] if wrong.any() else indices.dtype
            raise InputError(f"a grey picture holds class indices, 0 to {len(palette) - 1} or {VOID}; found {kind}")
        return indices
    colours = with_depth(with_channels(pixels, 3), np.uint8).reshape(-1, 3)
    found, where = np.unique(colours, axis=0, return_inverse=True)
    distances = ((found[:, None].astype(np.int64) - palette.array()) ** 2).sum(axis=2)
    nearest: Pixels = distances.argmin(axis=1).astype(np.uint8)[where.reshape(pixels.shape[:2])]
    return nearest


def to_colours(classes: Pixels, palette: Palette) -> Pixels:
    """Class indices (H, W) as the palette's colours (H, W, 3) uint8; pixels without a label are black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette.array()
    return table[classes]


def confusion(made: Pixels, expected: Pixels, classes: int) -> Pixels:
    """Counts of pixels by expected class and made class, (classes, classes + 1): the last column has no made label.

    Pixels without an expected label are left out. Raises `ValueError` for pictures of different sizes.
    """
    if made.shape != expected.shape:
        raise ValueError(f"labels of shapes {made.shape} and {expected.shape} cannot be compared")
    known = expected != VOID
    pairs = expected[known].astype(np.int64) * (classes + 1) + np.minimum(made[known], classes)
    return np.bincount(pairs, minlength=classes * (classes + 1)).reshape(classes, classes + 1)


def scores(counts: Pixels) -> LabelScores:
    """The scores of a confusion matrix, which is summed over all pictures first.

    With n_ij pixels of class i taken for j and t_i = Σ_j n_ij: pixel accuracy Σ n_ii / Σ t_i, class accuracy the
    mean of n_ii / t_i over the classes that are expected anywhere, mean IoU that of n_ii / (t_i + Σ_j n_ji - n_ii)
    over the classes that are expected or made. Raises `ValueError` if no pixel has a label.
    """
    right, expected, made = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)[:-1]
    if not counts.sum():
        raise ValueError("no pixel has a label")
    union = expected + made - right
    there, seen = expected > 0, union > 0
    iou = right[seen] / union[seen]
    return LabelScores(
        pixel_accuracy=float(right.sum() / expected.sum()),
        class_accuracy=float((right[there] / expected[there]).mean()),
        mean_iou=float(iou.mean()),
        per_class={int(i): float(value) for i, value in zip(np.flatnonzero(seen), iou, strict=True)},
    )
