"""Metrics of sets of pictures: distances of their features, (N, D) in float64, and the diversity of one set.

Each comes with its bootstrap draws, see `bootstrap`, which `seed` fixes. `resized` is the one resizer of all
measurements: which one it is changes FID by whole units (Parmar et al. 2022).
"""

from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from i2i.errors import InputError
from i2i.evaluation.bootstrap import Estimate, linear, mean, mean_across, mean_of_pairs, of_pairs, weights


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
