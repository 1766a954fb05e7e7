"""How many pixels have the right label (Long et al. 2015, Sec. 5)."""

from dataclasses import dataclass

import numpy as np

from i2i.images import Pixels
from i2i.images.palettes import VOID


@dataclass(frozen=True)
class LabelScores:
    """Each 0 to 1. `per_class` is the intersection over union of each class that occurs, by its index."""

    pixel_accuracy: float
    class_accuracy: float
    mean_iou: float
    per_class: dict[int, float]


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
