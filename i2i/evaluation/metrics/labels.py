"""Metrics of labels: how many pixels have the right class (Long et al. 2015, Sec. 5)."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from i2i.evaluation.bootstrap import Estimate, draws
from i2i.images import Pixels
from i2i.images.palettes import VOID


@dataclass(frozen=True)
class LabelScores:
    """Each 0 to 1. `per_class` is the intersection over union of each class that occurs, by its index."""

    pixel_accuracy: float
    class_accuracy: float
    mean_iou: float
    per_class: dict[int, float]


def confusion(found: Pixels, right: Pixels, classes: int) -> Pixels:
    """Counts of pixels by right class and found class, (classes, classes + 1): the last column has no found label.

    Pixels without a right label are left out. Raises `ValueError` for pictures of different sizes.
    """
    if found.shape != right.shape:
        raise ValueError(f"labels of shapes {found.shape} and {right.shape} cannot be compared")
    known = right != VOID
    pairs = right[known].astype(np.int64) * (classes + 1) + np.minimum(found[known], classes)
    return np.bincount(pairs, minlength=classes * (classes + 1)).reshape(classes, classes + 1)


def scores(counts: Pixels) -> LabelScores:
    """The scores of a confusion matrix, which is summed over all pictures first.

    `per_class` holds the classes that are right or found somewhere. Raises `ValueError` if no pixel has a label.
    """
    if not counts.sum():
        raise ValueError("no pixel has a label")
    pixel_accuracy, class_accuracy, iou = rates(*(part.astype(np.float64) for part in _by_class(counts)))
    per_class = {i: float(value) for i, value in enumerate(iou) if not np.isnan(value)}
    return LabelScores(float(pixel_accuracy), float(class_accuracy), float(np.nanmean(iou)), per_class)


def resampled(counts: Sequence[Pixels], seed: int) -> dict[str, Estimate]:
    """The scores of all pictures with their bootstrap draws, from the confusion matrix of each picture."""
    total = scores(np.sum(counts, axis=0))
    drawn = draws(len(counts), seed).numpy()
    parts = zip(*(_by_class(matrix) for matrix in counts), strict=True)
    pixel_accuracy, class_accuracy, iou = rates(*(drawn @ np.stack(part) for part in parts))
    with warnings.catch_warnings(action="ignore"):  # a draw without labels has no mean
        mean_iou = np.nanmean(iou, axis=-1)
    found = {
        "pixel_accuracy": (total.pixel_accuracy, pixel_accuracy),
        "class_accuracy": (total.class_accuracy, class_accuracy),
        "mean_iou": (total.mean_iou, mean_iou),
    }
    return {name: Estimate(value, torch.from_numpy(varied), len(counts)) for name, (value, varied) in found.items()}


def _by_class(counts: Pixels) -> tuple[Pixels, Pixels, Pixels]:
    """The right, expected and found pixels of each class, as `rates` takes them."""
    return np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)[:-1]


def rates(right: Pixels, expected: Pixels, found: Pixels) -> tuple[Pixels, Pixels, Pixels]:
    """Pixel accuracy (…), class accuracy (…) and IoU (…, classes) from counts of pixels by class (…, classes), float64.

    With n_ij pixels of class i taken for j, `right` n_ii, `expected` t_i = Σ_j n_ij and `found` Σ_j n_ji: pixel
    accuracy Σ n_ii / Σ t_i; class accuracy, the mean of n_ii / t_i over the classes that are expected anywhere; IoU
    n_ii / (t_i + Σ_j n_ji - n_ii), NaN for a class that is neither expected nor found. The mean IoU is the mean over
    the others.
    """
    union = expected + found - right
    with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings(action="ignore"):  # no pixels: NaN
        class_accuracy = np.nanmean(np.where(expected > 0, right / expected, np.nan), axis=-1)
        return right.sum(axis=-1) / expected.sum(axis=-1), class_accuracy, np.where(union > 0, right / union, np.nan)
