"""Distances between two sets of pictures by their features: pure functions of matrices (N, D), in float64."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from i2i.errors import InputError

NEIGHBOURS = 3  # k of precision and recall


@dataclass(frozen=True)
class Spread:
    """A mean over parts of the data, with the standard deviation and the 95 % interval of those parts."""

    mean: float
    std: float
    low: float
    high: float


def _spread(values: Tensor) -> Spread:
    low, high = torch.quantile(values, torch.tensor([0.025, 0.975], dtype=values.dtype)).tolist()
    return Spread(float(values.mean()), float(values.std(unbiased=False)), low, high)


def _checked(a: Tensor, b: Tensor, least: int, what: str) -> tuple[Tensor, Tensor]:
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"features of shapes {tuple(a.shape)} and {tuple(b.shape)} cannot be compared")
    _enough(min(len(a), len(b)), least, what)
    return a.double(), b.double()


def _enough(count: int, least: int, what: str) -> None:
    if count < least:
        raise InputError(f"{what} is undefined for a set of {count}: at least {least} pictures are needed")


def fid(a: Tensor, b: Tensor) -> float:
    """Fréchet distance of the Gaussians with the sets' means and covariances (Heusel et al. 2017, Eq. 6).

    |μ_a - μ_b|² + tr(Σ_a + Σ_b - 2 (Σ_a Σ_b)^½), 0 and up. With Σ = RᵀR the last trace is the sum of the singular
    values of R_a R_bᵀ, which needs no root of a matrix that may be singular. Symmetric. Biased: for small sets it
    is too large, and numbers from sets of other sizes cannot be compared. Raises `InputError` for one picture.
    """
    a, b = _checked(a, b, 2, "FID")
    roots = [torch.linalg.qr(x - x.mean(dim=0), mode="r").R / (len(x) - 1) ** 0.5 for x in (a, b)]
    mixed = torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
    traces = sum(root.square().sum() for root in roots)
    return float((a.mean(dim=0) - b.mean(dim=0)).square().sum() + traces - 2 * mixed)


def kid(a: Tensor, b: Tensor, subsets: int = 100, subset_size: int = 1000, seed: int = 0) -> Spread:
    """Squared maximum mean discrepancy, unbiased, with the kernel (x·y / D + 1)³ (Bińkowski et al. 2018, Sec. 4).

    The mean over `subsets` random subsets of both, which may be below 0, and the spread of the subsets. The
    subsets are those of torch-fidelity for the same seed. Raises `InputError` for sets smaller than a subset.
    """
    a, b = _checked(a, b, max(2, subset_size), "KID")
    draw = np.random.RandomState(seed)  # whose stream is the same in every NumPy
    values = []
    for _ in range(subsets):
        chosen = [torch.from_numpy(draw.choice(len(x), subset_size, replace=False)) for x in (a, b)]
        values.append(_mmd(a[chosen[0]], b[chosen[1]]))
    return _spread(torch.stack(values))


def _mmd(x: Tensor, y: Tensor) -> Tensor:
    n, dimensions = x.shape

    def kernel(u: Tensor, v: Tensor) -> Tensor:
        return (u @ v.T / dimensions + 1) ** 3

    within = sum(k.sum() - k.diagonal().sum() for k in (kernel(x, x), kernel(y, y)))
    return torch.as_tensor(within / (n * (n - 1)) - 2 * kernel(x, y).mean())


def inception_score(logits: Tensor, splits: int = 10, seed: int = 0) -> Spread:
    """exp E KL(p(y|x) ‖ p(y)), the mean over `splits` parts of a shuffled set (Salimans et al. 2016, Sec. 4).

    `logits` (N, classes). 1 (all alike) to the number of classes. The order is torch-fidelity's for the same seed.
    Raises `InputError` for fewer pictures than parts.
    """
    _enough(len(logits), splits, f"the Inception Score in {splits} parts")
    order = torch.from_numpy(np.random.RandomState(seed).permutation(len(logits)))
    log_p = logits.double()[order].log_softmax(dim=1)
    ends = [i * len(log_p) // splits for i in range(splits + 1)]
    scores = []
    for begin, end in pairwise(ends):
        part = log_p[begin:end]
        p = part.exp()
        entropy = torch.xlogy(p, p.mean(dim=0, keepdim=True))  # 0 for a class that no picture is of
        scores.append((p * part - entropy).sum(dim=1).mean().exp())
    return _spread(torch.stack(scores))


def precision_recall(made: Tensor, real: Tensor, neighbours: int = NEIGHBOURS) -> tuple[float, float]:
    """Improved precision and recall, each 0 to 1 (Kynkäänniemi et al. 2019, Eqs. 1 and 2).

    Precision: the share of `made` inside the manifold of `real`, which is the union of balls around its points,
    each reaching to the point's k-th neighbour; recall the other way round. Raises `InputError` for fewer than
    `neighbours` + 1 pictures.
    """
    made, real = _checked(made, real, neighbours + 1, f"precision and recall with {neighbours} neighbours")
    return _covered(made, real, neighbours), _covered(real, made, neighbours)


def _covered(points: Tensor, manifold: Tensor, neighbours: int, at_once: int = 1024) -> float:
    """The share of `points` inside a ball of `manifold`."""
    radius = torch.cat([_distances(part, manifold).kthvalue(neighbours + 1).values for part in manifold.split(at_once)])
    inside = [(_distances(part, manifold) <= radius).any(dim=1) for part in points.split(at_once)]
    return float(torch.cat(inside).double().mean())


def _distances(x: Tensor, y: Tensor) -> Tensor:
    # not by the matrix product, in whose rounding a point is not at 0 from itself
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
