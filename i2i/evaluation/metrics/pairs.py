"""Metrics of pairs: of pictures, (N, C, H, W) in [-1, 1] → (N,), compared as intensities in [0, 1]; and of labels, how
many pixels have the right class (Long et al. 2015, Sec. 5)."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from i2i.evaluation.bootstrap import Estimate, draws
from i2i.images import Pixels
from i2i.images.palettes import VOID
from i2i.losses.regularisers import luminance

WINDOW = 11  # pixels of SSIM's Gaussian window, σ = 1.5
_SIGMA = 1.5
_C2 = 0.03**2
# Wang et al. 2003, Sec. 3.2: the weights of the five scales
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
MIN_SIDE = {
    "ssim": WINDOW,
    "luminance_ssim": WINDOW,
    "ms_ssim": WINDOW * 2 ** (len(_SCALE_WEIGHTS) - 1),
    "lpips": 64,
}
"""Pixels a side that a picture needs for a metric; one for all others."""


def _intensities(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    if output.shape != target.shape:
        raise ValueError(f"images of shapes {tuple(output.shape)} and {tuple(target.shape)} cannot be compared")
    return (output.float() + 1) / 2, (target.float() + 1) / 2


def l1(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference, 0 (equal) to 1."""
    a, b = _intensities(output, target)
    return (a - b).abs().flatten(1).mean(dim=1)


def psnr(output: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, -10 log10(MSE), at most 100 (equal images)."""
    a, b = _intensities(output, target)
    return -10 * torch.log10((a - b).square().flatten(1).mean(dim=1).clamp_min(1e-10))


def ssim(output: Tensor, target: Tensor) -> Tensor:
    """Structural similarity, -1 to 1 (equal), mean over pixels and channels (Wang et al. 2004, Eq. 13).

    Gaussian window of 11 pixels, σ = 1.5, K = (0.01, 0.03), edges mirrored. Images must be at least 11 pixels wide
    and high.
    """
    return _ssim(*_intensities(output, target))


def _ssim(a: Tensor, b: Tensor) -> Tensor:
    from kornia.metrics import ssim as ssim_map

    return ssim_map(a, b, window_size=WINDOW, max_val=1.0).flatten(1).mean(dim=1)


def ms_ssim(output: Tensor, target: Tensor) -> Tensor:
    """Multi-scale structural similarity, 0 to 1 (equal) (Wang, Simoncelli & Bovik 2003, Eq. 7).

    Contrast and structure at four scales, the mean over channels and the pixels where the window of `ssim` lies
    inside, and `ssim` at the fifth; between scales, the mean of 2×2 pixels. A negative value counts as 0. These
    are torchmetrics' conventions. Images must be at least 176 pixels wide and high. Raises `ValueError` for
    smaller ones.
    """
    a, b = _intensities(output, target)
    if min(a.shape[-2:]) < MIN_SIDE["ms_ssim"]:
        raise ValueError(f"MS-SSIM needs {MIN_SIDE['ms_ssim']} pixels a side, not {tuple(a.shape[-2:])}")
    result = torch.ones(len(a), device=a.device)
    for weight in _SCALE_WEIGHTS[:-1]:
        result = result * _contrast_structure(a, b).clamp_min(0) ** weight
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return result * _ssim(a, b).clamp_min(0) ** _SCALE_WEIGHTS[-1]


def _contrast_structure(a: Tensor, b: Tensor) -> Tensor:
    """Contrast times structure (Wang et al. 2004, Eq. 9 with Eq. 10, C₃ = C₂ / 2), the mean over an image."""
    from kornia.filters import get_gaussian_kernel1d

    taps = get_gaussian_kernel1d(WINDOW, _SIGMA, device=a.device, dtype=a.dtype)[0]
    rows, columns = (taps.reshape(shape).expand(a.shape[1], 1, -1, -1) for shape in ((1, 1, -1, 1), (1, 1, 1, -1)))

    def mean(x: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(x, rows, groups=x.shape[1]), columns, groups=x.shape[1])

    mean_a, mean_b = mean(a), mean(b)
    variances = mean(a * a) - mean_a**2 + mean(b * b) - mean_b**2
    return ((2 * (mean(a * b) - mean_a * mean_b) + _C2) / (variances + _C2)).flatten(1).mean(dim=1)


def luminance_ssim(output: Tensor, source: Tensor) -> Tensor:
    """SSIM of the luminances of outputs and inputs, -1 to 1 (same structure; colours do not count)."""
    return ssim(luminance(output), luminance(source))


def cycle_error(returned: Tensor, source: Tensor) -> Tensor:
    """Mean absolute difference of inputs and what came back through both directions, 0 to 1.

    The cycle consistency loss (Zhu et al. 2017, Eq. 2), measured on intensities in [0, 1].
    """
    return l1(returned, source)


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
