"""The formulas of an evaluation, and how much their numbers would vary with other pictures.

Pairs of pictures, (N, C, H, W) in [-1, 1] → (N,), are compared as intensities in [0, 1]; labels by how many pixels have
the right class (Long et al. 2015, Sec. 5); a set of pictures by its diversity. `features` has the distances of sets.
`resized` is the one resizer of all measurements: which one it is changes FID by whole units (Parmar et al. 2022).

**Intervals.** A set's pictures are drawn anew, as many, with replacement, 1000 times (Efron 1979); no network runs
again. The draws follow from the seed and the number of pictures alone, so pictures at the same place of two sets of one
size are drawn together: pairs stay pairs, and two models with the same inputs are compared on the same pictures. For
sets that have nothing to do with each other that changes nothing but chance.

A number that is a mean, or a mean over pairs, is computed of each draw. A distance that is biased upward in small sets
would be biased once more in a draw, which holds fewer different pictures. Its draws are computed from the first-order
effect of each picture's weight instead (the influence function; Efron 1982, Ch. 6), so that its interval lies around
the number itself. The interval says how the number varies *for sets of this size*, and nothing of the bias.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from i2i.errors import InputError
from i2i.images import Pixels
from i2i.images.palettes import VOID
from i2i.losses.content import luminance

RESAMPLES = 1000
LEVEL = 0.95
ROWS = 256  # the matrix of all pairs is computed by so many rows, to save memory
_Z = 1.959963984540054  # standard normal quantile of (1 + LEVEL) / 2


@dataclass(frozen=True)
class Estimate:
    """A number, `resampled` (RESAMPLES,) in float64, None where draws say nothing, and the size of the smallest set."""

    value: float
    resampled: Tensor | None
    count: int

    def interval(self) -> tuple[float, float] | None:
        """The middle 95 % of the draws, their distances from the number widened by √(n / (n - 1)) · t / z.

        Without that, percentiles of few pictures are too narrow (Hesterberg 2015, The American Statistician 69(4),
        Sec. 4.1 and 5.3): t is Student's quantile of n - 1 degrees of freedom, z the normal one; at n = 10 the factor
        is 1.22, at n = 100 1.02. Draws without a number (NaN) are passed over. None for one picture, and where the
        number or all draws are not finite.
        """
        if self.resampled is None or self.count < 2:
            return None
        tails = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
        factor = (self.count / (self.count - 1)) ** 0.5 * student(self.count - 1) / _Z
        low, high = (self.value + factor * (torch.nanquantile(self.resampled, tails) - self.value)).tolist()
        return (low, high) if math.isfinite(low) and math.isfinite(high) else None

    @classmethod
    def of(cls, formula: Callable[..., Any], *numbers: "Estimate") -> "Estimate":
        """A formula of some numbers, computed draw by draw."""
        drawn = [number.resampled for number in numbers]
        resampled = None if any(values is None for values in drawn) else formula(*drawn)
        return cls(formula(*(number.value for number in numbers)), resampled, min(number.count for number in numbers))


def student(degrees: int) -> float:
    """The 97.5 % quantile of Student's t, within 0.2 % (Abramowitz & Stegun, 26.7.5; exact for 1 and 2 degrees)."""
    if degrees <= 2:
        return (12.706204736, 4.302652730)[degrees - 1]
    z, n = _Z, degrees
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / n**power for power, term in enumerate(terms, 1))


@lru_cache(maxsize=4)
def draws(count: int, seed: int) -> Tensor:
    """How often each of `count` pictures is in each draw: (RESAMPLES, count), float64; rows sum to `count`."""
    random = np.random.RandomState([seed, count])  # whose stream is the same in every NumPy
    places = random.randint(count, size=(RESAMPLES, count)) + count * np.arange(RESAMPLES)[:, None]
    counts = np.bincount(places.ravel(), minlength=RESAMPLES * count)
    return torch.from_numpy(counts.reshape(RESAMPLES, count)).double()


def weights_of(count: int, seed: int) -> Tensor:
    """A row of ones, the set as it is, and then the `draws`."""
    return torch.cat([torch.ones(1, count, dtype=torch.float64), draws(count, seed)])


def of_pairs(values: Tensor, count: int) -> Estimate:
    """A mean over pairs, one for each row of `weights`. Two pictures are one pair, so no draw differs from it."""
    return Estimate(float(values[0]), values[1:] if count > 2 else None, count)


def mean(values: Tensor, seed: int) -> Estimate:
    """The mean of a number of each picture, (N,)."""
    values = values.double()
    return Estimate(float(values.mean()), draws(len(values), seed) @ values / len(values), len(values))


def linear(value: float, influences: Sequence[Tensor], seed: int) -> Estimate:
    """A number that varies by `influences[k][i]` as the weight of picture i of set k, which is 1, grows."""
    moved = [(draws(len(u), seed) - 1) @ u.double() for u in influences]
    return Estimate(value, value + torch.stack(moved).sum(dim=0), min(map(len, influences)))


Between = Callable[[Tensor, Tensor], Tensor]
"""A number of each pair of pictures: (M, D) and (N, D) → (M, N)."""


def mean_of_pairs(
    a: Tensor, between: Between, of_a: Tensor, b: Tensor | None = None, of_b: Tensor | None = None
) -> Tensor:
    """For rows v of `of_a` and w of `of_b` Σ v_i w_j k_ij / Σ v_i w_j, the mean over pairs of a picture of each set.

    k is `between` of `a` (M, D) and `b` (N, D). Without `b` the pairs are of one set, k is symmetric, w is v and the
    sums are over i ≠ j: a picture that was drawn twice makes no pair with itself. NaN for a draw of one picture alone.
    """
    alone, others, drawn = b is None, a if b is None else b, of_a if of_b is None else of_b
    total = torch.zeros(len(of_a), dtype=torch.float64)
    for begin in range(0, len(a), ROWS):
        block, some = between(a[begin : begin + ROWS], others), of_a[:, begin : begin + ROWS]
        total += (some * (drawn @ block.T)).sum(dim=1)
        if alone:
            total -= some.square() @ block.diagonal(begin)
    pairs = of_a.sum(dim=1) * drawn.sum(dim=1) - (of_a.square().sum(dim=1) if alone else 0)
    return torch.where(pairs > 0, total / pairs, torch.nan)


class Pictures(Protocol):
    """Pictures (C, H, W) in [-1, 1] by number, such as a list of tensors."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Tensor: ...


def enough(count: int, least: int, what: str) -> None:
    """Raises `InputError` if `what` is undefined for so few pictures."""
    if count < least:
        raise InputError(f"{what} is undefined for a set of {count}: at least {least} pictures are needed")


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
    are torchmetrics' conventions. Images must be at least 176 pixels wide and high.
    """
    a, b = _intensities(output, target)
    result = torch.ones(len(a), device=a.device)
    for weight in _SCALE_WEIGHTS[:-1]:
        result = result * _contrast_structure(a, b).clamp_min(0) ** weight
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return result * _ssim(a, b).clamp_min(0) ** _SCALE_WEIGHTS[-1]


def _contrast_structure(a: Tensor, b: Tensor) -> Tensor:
    """Contrast times structure (Wang et al. 2004, Eq. 9 with Eq. 10, C₃ = C₂ / 2), the mean over an image."""
    from kornia.filters import gaussian_blur2d

    def inside(x: Tensor) -> Tensor:
        edge = WINDOW // 2
        return gaussian_blur2d(x, WINDOW, (_SIGMA, _SIGMA))[..., edge:-edge, edge:-edge]

    mean_a, mean_b = inside(a), inside(b)
    variances = inside(a * a) - mean_a**2 + inside(b * b) - mean_b**2
    return ((2 * (inside(a * b) - mean_a * mean_b) + _C2) / (variances + _C2)).flatten(1).mean(dim=1)


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

    Pixels without a right label are left out. Both pictures have one size.
    """
    known = right != VOID
    pairs = right[known].astype(np.int64) * (classes + 1) + np.minimum(found[known], classes)
    return np.bincount(pairs, minlength=classes * (classes + 1)).reshape(classes, classes + 1)


def scores(counts: Pixels) -> LabelScores:
    """The scores of a confusion matrix, which is summed over all pictures first.

    `per_class` holds the classes that are right or found somewhere. Raises `ValueError` if no pixel has a label.
    """
    if not counts.sum():
        raise ValueError("no pixel has a label")
    pixels, classes, mean_iou, iou = _rates(*(part.astype(np.float64) for part in _by_class(counts)))
    per_class = {i: float(value) for i, value in enumerate(iou) if not np.isnan(value)}
    return LabelScores(float(pixels), float(classes), float(mean_iou), per_class)


def resampled(counts: Sequence[Pixels], seed: int) -> dict[str, Estimate]:
    """The scores of all pictures with their bootstrap draws, from the confusion matrix of each picture."""
    total, drawn = scores(np.sum(counts, axis=0)), draws(len(counts), seed).numpy()
    varied = _rates(*(drawn @ np.stack(part) for part in zip(*map(_by_class, counts), strict=True)))
    return {
        name: Estimate(getattr(total, name), torch.from_numpy(values), len(counts))
        for name, values in zip(("pixel_accuracy", "class_accuracy", "mean_iou"), varied, strict=False)
    }


def _by_class(counts: Pixels) -> tuple[Pixels, Pixels, Pixels]:
    """The right, expected and found pixels of each class, as `_rates` takes them."""
    return np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)[:-1]


def _rates(right: Pixels, expected: Pixels, found: Pixels) -> tuple[Pixels, Pixels, Pixels, Pixels]:
    """Pixel accuracy (…), class accuracy (…), mean IoU (…) and IoU (…, classes) from float64 counts (…, classes).

    With n_ij pixels of class i taken for j, `right` n_ii, `expected` t_i = Σ_j n_ij and `found` Σ_j n_ji: pixel
    accuracy Σ n_ii / Σ t_i; class accuracy, the mean of n_ii / t_i over the classes that are expected anywhere; IoU
    n_ii / (t_i + Σ_j n_ji - n_ii), NaN for a class that is neither expected nor found. The mean IoU is the mean over
    the others.
    """
    union = expected + found - right
    with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings(action="ignore"):  # no pixels: NaN
        class_accuracy = np.nanmean(np.where(expected > 0, right / expected, np.nan), axis=-1)
        iou = np.where(union > 0, right / union, np.nan)
        return right.sum(axis=-1) / expected.sum(axis=-1), class_accuracy, np.nanmean(iou, axis=-1), iou


_DIVERSITY_SIZE = 32


def diversity(pictures: Pictures, seed: int = 0) -> Estimate:
    """Mean L1 over all pairs of two pictures of a set, at 32×32 pixels, 0 (all alike) to 1.

    Read it beside the same number of the inputs: much below it, the outputs are alike. The draws of its interval leave
    a picture's pairs with itself out. Raises `InputError` for fewer than two pictures.
    """
    enough(len(pictures), 2, "diversity")
    small = [resized(pictures[i], _DIVERSITY_SIZE, _DIVERSITY_SIZE).flatten() for i in range(len(pictures))]
    rows = (torch.stack(small).double() + 1) / 2

    def mean_l1(some: Tensor, all_rows: Tensor) -> Tensor:
        return torch.cdist(some, all_rows, p=1) / rows.shape[1]

    return of_pairs(mean_of_pairs(rows, mean_l1, weights_of(len(pictures), seed)), len(pictures))


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
