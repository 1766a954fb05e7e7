"""How much a number would vary with other pictures: bootstrap intervals, and the difference of two numbers.

A set's pictures are drawn anew, as many, with replacement, 1000 times (Efron 1979); no network runs again. The draws
follow from the seed and the number of pictures alone, so pictures at the same place of two sets of one size are drawn
together: pairs stay pairs, and two models with the same inputs are compared on the same pictures. For sets that have
nothing to do with each other that changes nothing but chance.

A number that is a mean, or a mean over pairs, is computed of each draw. A distance that is biased upward in small sets
would be biased once more in a draw, which holds fewer different pictures. Its draws are computed from the first-order
effect of each picture's weight instead (the influence function; Efron 1982, Ch. 6), so that its interval lies around
the number itself. The interval says how the number varies *for sets of this size*, and nothing of the bias.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

RESAMPLES = 1000
LEVEL = 0.95
ROWS = 256  # of a matrix of all pairs, at once: of all of them memory could run out
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

    def minus(self, other: "Estimate") -> "Estimate":
        """The difference, draw by draw."""
        return self._with(other, lambda a, b: a - b)

    def divided_by(self, other: "Estimate") -> "Estimate":
        """The ratio, draw by draw."""
        return self._with(other, lambda a, b: a / b)

    def _with(self, other: "Estimate", combined: Callable[[Any, Any], Any]) -> "Estimate":
        drawn = self.resampled is not None and other.resampled is not None
        resampled = combined(self.resampled, other.resampled) if drawn else None
        return Estimate(combined(self.value, other.value), resampled, min(self.count, other.count))


def student(degrees: int) -> float:
    """The 97.5 % quantile of Student's t, within 1 % from 3 degrees of freedom on (Abramowitz & Stegun, 26.7.5)."""
    z, n = _Z, degrees
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / n**power for power, term in enumerate(terms, 1))


@lru_cache(maxsize=4)
def draws(count: int, seed: int) -> Tensor:
    """How often each of `count` pictures is in each draw: (RESAMPLES, count), float64; rows sum to `count`."""
    random = np.random.RandomState([seed, count])  # whose stream is the same in every NumPy
    places = random.randint(count, size=(RESAMPLES, count)) + count * np.arange(RESAMPLES)[:, None]
    counts = np.bincount(places.ravel(), minlength=RESAMPLES * count)
    return torch.from_numpy(counts.reshape(RESAMPLES, count)).double()


def weights(count: int, seed: int) -> Tensor:
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


def mean_of_pairs(pictures: Tensor, between: Between, weights: Tensor) -> Tensor:
    """For each row w of `weights` Σ w_i w_j k_ij / Σ w_i w_j over i ≠ j, the mean over pairs of different pictures.

    k is `between` of the `pictures` (N, D), and symmetric. A picture that was drawn twice makes no pair with itself.
    NaN for a draw of one picture alone.
    """
    total = torch.zeros(len(weights), dtype=torch.float64)
    for begin, block in _blocks(pictures, pictures, between):
        some = weights[:, begin : begin + len(block)]
        total += (some * (weights @ block.T)).sum(dim=1) - some.square() @ block.diagonal(begin)
    pairs = weights.sum(dim=1).square() - weights.square().sum(dim=1)
    return torch.where(pairs > 0, total / pairs, torch.nan)


def mean_across(a: Tensor, b: Tensor, between: Between, of_a: Tensor, of_b: Tensor) -> Tensor:
    """For rows v of `of_a` and w of `of_b` Σ v_i w_j k_ij / Σ v_i w_j, the mean over all pairs of a picture of each.

    k is `between` of `a` (M, D) and `b` (N, D); rows of weights sum to M and N.
    """
    total = torch.zeros(len(of_a), dtype=torch.float64)
    for begin, block in _blocks(a, b, between):
        total += (of_a[:, begin : begin + len(block)] * (of_b @ block.T)).sum(dim=1)
    return total / (len(a) * len(b))


def _blocks(a: Tensor, b: Tensor, between: Between) -> Iterator[tuple[int, Tensor]]:
    """Rows of the matrix of all pairs, and where they begin."""
    for begin in range(0, len(a), ROWS):
        yield begin, between(a[begin : begin + ROWS], b)
