"""The formulas of an evaluation.

Pairs of pictures, (N, C, H, W) in [-1, 1] → (N,), are compared as intensities in [0, 1]; labels by how many pixels have
the right class (Long et al. 2015, Sec. 5); sets of pictures by distances of their features, (N, D) in float64, and by
the diversity of one set. Numbers come with their bootstrap draws, see `bootstrap`, which `seed` fixes. `resized` is the
one resizer of all measurements: which one it is changes FID by whole units (Parmar et al. 2022).
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from i2i.errors import InputError
from i2i.evaluation.bootstrap import Estimate, draws, linear, mean, mean_across, mean_of_pairs, of_pairs, weights
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


class Pictures(Protocol):
    """Pictures (C, H, W) in [-1, 1] by number, such as a list of tensors."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Tensor: ...


NEIGHBOURS = 3  # k of precision and recall
_DIVERSITY_SIZE = 32


def _checked(a: Tensor, b: Tensor, least: int, what: str) -> tuple[Tensor, Tensor]:
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"features of shapes {tuple(a.shape)} and {tuple(b.shape)} cannot be compared")
    _enough(min(len(a), len(b)), least, what)
    return a.double(), b.double()


def _enough(count: int, least: int, what: str) -> None:
    if count < least:
        raise InputError(f"{what} is undefined for a set of {count}: at least {least} pictures are needed")


def fid(a: Tensor, b: Tensor, seed: int = 0) -> Estimate:
    """Fréchet distance of the Gaussians with the sets' means and covariances (Heusel et al. 2017, Eq. 6).

    |μ_a - μ_b|² + tr(Σ_a + Σ_b - 2 (Σ_a Σ_b)^½), 0 and up. With Σ = XᵀX, X the centred features of a set over
    √(n - 1), the last trace is the sum of the singular values of X_a X_bᵀ, which needs no root of a matrix that may be
    singular. Symmetric. Biased: for small sets it is too large, and numbers from sets of other sizes cannot be
    compared; the interval, by influences, is of the number for sets of these sizes. Raises `InputError` for one
    picture.
    """
    a, b = _checked(a, b, 2, "FID")
    centred = [(x - x.mean(dim=0)) / (len(x) - 1) ** 0.5 for x in (a, b)]
    bases, roots = zip(*(torch.linalg.qr(x) for x in centred), strict=True)
    left, mixed, right = torch.linalg.svd(roots[0] @ roots[1].T, full_matrices=False)
    shift = a.mean(dim=0) - b.mean(dim=0)
    traces = sum(x.square().sum() for x in centred)
    value = float(shift.square().sum() + traces - 2 * mixed.sum())
    sides = ((centred[0], bases[0] @ left, shift), (centred[1], bases[1] @ right.T, -shift))
    return linear(value, [_influences(x, vectors, mixed, away) for x, vectors, away in sides], seed)


def _influences(centred: Tensor, vectors: Tensor, mixed: Tensor, away: Tensor) -> Tensor:
    """dFID / dw of each picture's weight, (n,): through the mean, the trace, and the root of the product.

    `vectors` (n, r) are the singular vectors on the side of the set, `mixed` (r,) the singular values.
    """
    n = len(centred)
    through_mean = 2 * (n - 1) ** 0.5 / n * (centred @ away)
    found = through_mean + centred.square().sum(dim=1) - vectors.square() @ mixed
    return found - found.mean()


def kid(a: Tensor, b: Tensor, seed: int = 0) -> Estimate:
    """Squared maximum mean discrepancy, unbiased, with the kernel (x·y / D + 1)³ (Bińkowski et al. 2018, Sec. 4).

    It is the estimate from all pictures. The published code takes the mean over random subsets, which has the same
    expectation and more noise. May be below 0. The draws of the interval leave a picture's pairs with itself out, so
    that they too are unbiased. Raises `InputError` for one picture.
    """
    a, b = _checked(a, b, 2, "KID")
    of_a, of_b = weights(len(a), seed), weights(len(b), seed)
    within = mean_of_pairs(a, _kernel, of_a) + mean_of_pairs(b, _kernel, of_b)
    return of_pairs(within - 2 * mean_across(a, b, _kernel, of_a, of_b), min(len(a), len(b)))


def _kernel(u: Tensor, v: Tensor) -> Tensor:
    return (u @ v.T / u.shape[1] + 1) ** 3


def inception_score(logits: Tensor, splits: int = 10, seed: int = 0) -> tuple[Estimate, float]:
    """exp E KL(p(y|x) ‖ p(y)), the mean over `splits` parts of a shuffled set (Salimans et al. 2016, Sec. 4), and the
    standard deviation of the parts.

    `logits` (N, classes). 1 (all alike) to the number of classes. The order is torch-fidelity's for the same seed. The
    interval is by influences: more pictures would give more. Raises `InputError` for fewer pictures than parts.
    """
    _enough(len(logits), splits, f"the Inception Score in {splits} parts")
    order = torch.from_numpy(np.random.RandomState(seed).permutation(len(logits)))
    log_p = logits.double()[order].log_softmax(dim=1)
    ends = [i * len(log_p) // splits for i in range(splits + 1)]
    scores, influences = [], torch.zeros(len(log_p), dtype=torch.float64)
    for begin, end in pairwise(ends):
        part = log_p[begin:end]
        p = part.exp()
        entropy = torch.xlogy(p, p.mean(dim=0, keepdim=True))  # 0 for a class that no picture is of
        divergence = (p * part - entropy).sum(dim=1)
        scores.append(divergence.mean().exp())
        influences[order[begin:end]] = scores[-1] * (divergence - divergence.mean()) / (end - begin) / splits
    found = torch.stack(scores)
    return linear(float(found.mean()), [influences], seed), float(found.std(unbiased=False))


def precision(made: Tensor, real: Tensor, neighbours: int = NEIGHBOURS, seed: int = 0) -> Estimate:
    """Improved precision, 0 to 1 (Kynkäänniemi et al. 2019, Eqs. 1 and 2).

    The share of `made` inside the manifold of `real`, which is the union of balls around its points, each reaching to
    the point's k-th neighbour. The interval is over `made`; the manifold stays. Raises `InputError` for fewer than
    `neighbours` + 1 pictures.
    """
    made, real = _checked(made, real, neighbours + 1, f"precision and recall with {neighbours} neighbours")
    return mean(_covered(made, real, neighbours), seed)


def recall(made: Tensor, real: Tensor, neighbours: int = NEIGHBOURS, seed: int = 0) -> Estimate:
    """Improved recall: the share of `real` inside the manifold of `made`, see `precision`."""
    return precision(real, made, neighbours, seed)


def _covered(points: Tensor, manifold: Tensor, neighbours: int, at_once: int = 1024) -> Tensor:
    """Which of `points` are inside a ball of `manifold`."""
    radius = torch.cat([_distances(part, manifold).kthvalue(neighbours + 1).values for part in manifold.split(at_once)])
    return torch.cat([(_distances(part, manifold) <= radius).any(dim=1) for part in points.split(at_once)])


def _distances(x: Tensor, y: Tensor) -> Tensor:
    # not by the matrix product, in whose rounding a point is not at 0 from itself
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def diversity(pictures: Pictures, seed: int = 0) -> Estimate:
    """Mean L1 over all pairs of two pictures of a set, at 32×32 pixels, 0 (all alike) to 1.

    Read it beside the same number of the inputs: much below it, the outputs are alike. The draws of its interval leave
    a picture's pairs with itself out. Raises `InputError` for fewer than two pictures.
    """
    _enough(len(pictures), 2, "diversity")
    small = [resized(pictures[i], _DIVERSITY_SIZE, _DIVERSITY_SIZE).flatten() for i in range(len(pictures))]
    rows = (torch.stack(small).double() + 1) / 2
    return of_pairs(mean_of_pairs(rows, _mean_l1, weights(len(pictures), seed)), len(pictures))


def _mean_l1(some: Tensor, rows: Tensor) -> Tensor:
    return torch.stack([(rows - row).abs().mean(dim=1) for row in some])


RESIZER = "bicubic (a = -0.5), antialiased, float32, clamped: torch.nn.functional.interpolate(antialias=True)"


def resized(image: Tensor, height: int, width: int) -> Tensor:
    """(C, H, W) in [-1, 1] at another size; the same tensor if it has that size."""
    if image.shape[-2:] == (height, width):
        return image
    size = (height, width)
    return F.interpolate(image[None].float(), size, mode="bicubic", antialias=True, align_corners=False)[0].clamp(-1, 1)


def squared(image: Tensor, size: int) -> Tensor:
    """(C, size, size): the shorter side scaled to `size`, then the middle cut out."""
    height, width = image.shape[-2:]
    scale = size / min(height, width)
    image = resized(image, max(size, round(height * scale)), max(size, round(width * scale)))
    top, left = (image.shape[-2] - size) // 2, (image.shape[-1] - size) // 2
    return image[:, top : top + size, left : left + size]
