"""How many pixels have the right label (Long et al. 2015, Sec. 5)."""

import warnings
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

    See `rates`; `per_class` is of the classes that are expected or made. Raises `ValueError` if no pixel has a label.
    """
    if not counts.sum():
        raise ValueError("no pixel has a label")
    parts = [part.astype(np.float64) for part in (np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)[:-1])]
    pixel_accuracy, class_accuracy, iou = rates(*parts)
    per_class = {i: float(value) for i, value in enumerate(iou) if not np.isnan(value)}
    return LabelScores(float(pixel_accuracy), float(class_accuracy), float(np.nanmean(iou)), per_class)


def rates(right: Pixels, expected: Pixels, made: Pixels) -> tuple[Pixels, Pixels, Pixels]:
    """Pixel accuracy (…), class accuracy (…) and IoU (…, classes) from counts of pixels by class (…, classes), float64.

    With n_ij pixels of class i taken for j, `right` n_ii, `expected` t_i = Σ_j n_ij and `made` Σ_j n_ji: pixel accuracy
    Σ n_ii / Σ t_i, class accuracy the mean of n_ii / t_i over the classes that are expected anywhere, IoU
    n_ii / (t_i + Σ_j n_ji - n_ii), NaN for a class that is neither expected nor made; its mean over the others is the
    mean IoU.
    """
    union = expected + made - right
    with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings(action="ignore"):  # of no pixels: NaN
        class_accuracy = np.nanmean(np.where(expected > 0, right / expected, np.nan), axis=-1)
        return right.sum(axis=-1) / expected.sum(axis=-1), class_accuracy, np.where(union > 0, right / union, np.nan)
