"""Adversarial losses, each on logits of any shape (a logit per patch), averaged to a scalar.

`generator(fake)` is what a generator minimises; `real(logits)` and `fake(logits)` are the two terms of a
discriminator, which minimises *half* their sum, so that it learns at half the generator's pace (Isola et al.
2017, Sec. 3.3; Zhu et al. 2017, Sec. 4).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.losses.penalties import gradient_penalty, r1_penalty

GanMode = Literal["vanilla", "lsgan", "hinge", "nonsaturating", "wgangp"]
Loss = Callable[[Tensor], Tensor]


def cross_entropy_real(logits: Tensor) -> Tensor:
    """-log D(x), D = sigmoid(logits) (Goodfellow et al. 2014, Eq. 1). As a generator's loss: non-saturating."""
    return -F.logsigmoid(logits).mean()


def cross_entropy_fake(logits: Tensor) -> Tensor:
    """-log(1 - D(x)) (Goodfellow et al. 2014, Eq. 1)."""
    return -F.logsigmoid(-logits).mean()


def least_squares_real(logits: Tensor) -> Tensor:
    """(D(x) - 1)² (Mao et al. 2017, Eq. 9 without its 1/2)."""
    return (logits - 1).square().mean()


def least_squares_fake(logits: Tensor) -> Tensor:
    """D(x)² (Mao et al. 2017, Eq. 9 without its 1/2)."""
    return logits.square().mean()


def hinge_real(logits: Tensor) -> Tensor:
    """max(0, 1 - D(x)) (Lim & Ye 2017; Miyato et al. 2018, Eq. 16)."""
    return F.relu(1 - logits).mean()


def hinge_fake(logits: Tensor) -> Tensor:
    """max(0, 1 + D(x)) (Lim & Ye 2017; Miyato et al. 2018, Eq. 16)."""
    return F.relu(1 + logits).mean()


def critic_real(logits: Tensor) -> Tensor:
    """-D(x) (Arjovsky et al. 2017, Eq. 2; also the generator's hinge loss)."""
    return -logits.mean()


def critic_fake(logits: Tensor) -> Tensor:
    """D(x) (Arjovsky et al. 2017, Eq. 2)."""
    return logits.mean()


def _precise(logits: Tensor) -> Tensor:
    """Logits in float32 at least: under autocast they come in 16 bits, too coarse for a mean."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


_TERMS: dict[str, tuple[Loss, Loss, Loss]] = {  # generator, real, fake
    "vanilla": (cross_entropy_real, cross_entropy_real, cross_entropy_fake),
    "nonsaturating": (cross_entropy_real, cross_entropy_real, cross_entropy_fake),
    "lsgan": (least_squares_real, least_squares_real, least_squares_fake),
    "hinge": (critic_real, hinge_real, hinge_fake),
    "wgangp": (critic_real, critic_real, critic_fake),
}


@dataclass(frozen=True)
class Adversarial:
    """The game of one `mode`: `vanilla` (cross-entropy), `lsgan`, `hinge`, `nonsaturating` (cross-entropy with
    the R1 penalty, weight `r1_gamma`), `wgangp` (Wasserstein with a gradient penalty, weight `lambda_gp`)."""

    mode: GanMode
    lambda_gp: float = 10.0
    r1_gamma: float = 10.0

    def generator(self, fake: Tensor) -> Tensor:
        return _TERMS[self.mode][0](_precise(fake))

    def real(self, logits: Tensor) -> Tensor:
        return _TERMS[self.mode][1](_precise(logits))

    def fake(self, logits: Tensor) -> Tensor:
        return _TERMS[self.mode][2](_precise(logits))

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Half the sum of both terms."""
        return 0.5 * (self.real(real) + self.fake(fake))

    def penalty(self, name: str, discriminator: nn.Module, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """The mode's penalty on `discriminator` under `name`, halved as the other terms are; or nothing."""
        if self.mode == "wgangp" and self.lambda_gp:
            return {name: 0.5 * self.lambda_gp * gradient_penalty(discriminator, real, fake)}
        if self.mode == "nonsaturating" and self.r1_gamma:
            return {name: 0.5 * self.r1_gamma * r1_penalty(discriminator, real)}
        return {}
