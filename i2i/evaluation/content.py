"""What a translation keeps of its input, and whether its outputs differ: pure functions of images in [-1, 1]."""

from collections.abc import Sequence

import torch
from torch import Tensor

from i2i.evaluation.bootstrap import Estimate, mean_of_pairs, of_pairs, weights
from i2i.evaluation.metrics import l1, ssim
from i2i.evaluation.resizer import resized
from i2i.losses.structure import luminance

_DIVERSITY_SIZE = 32


def luminance_ssim(made: Tensor, source: Tensor) -> Tensor:
    """SSIM of the luminances of outputs and inputs, (N,), -1 to 1 (same structure; colours do not count).

    See `metrics.ssim`. Images must be at least 11 pixels wide and high.
    """
    return ssim(luminance(made), luminance(source))


def cycle_error(returned: Tensor, source: Tensor) -> Tensor:
    """Mean absolute difference of inputs and what came back through both directions, (N,), 0 to 1.

    The cycle consistency loss (Zhu et al. 2017, Eq. 2), measured on intensities in [0, 1].
    """
    return l1(returned, source)


def diversity(pictures: Sequence[Tensor], seed: int = 0) -> Estimate:
    """Mean L1 over all pairs of two pictures of a set, at 32×32 pixels, 0 (all alike) to 1.

    To be read beside the same number of the inputs: much below it, the outputs are alike. The draws of its interval
    leave a picture's pairs with itself out. Raises `ValueError` for fewer than two pictures.
    """
    count = len(pictures)
    if count < 2:
        raise ValueError("diversity is undefined for one picture")
    small = [resized(pictures[i], _DIVERSITY_SIZE, _DIVERSITY_SIZE).flatten() for i in range(count)]
    rows = (torch.stack(small).double() + 1) / 2
    return of_pairs(mean_of_pairs(rows, _mean_l1, weights(count, seed)), count)


def _mean_l1(some: Tensor, rows: Tensor) -> Tensor:
    return torch.stack([(rows - row).abs().mean(dim=1) for row in some])
