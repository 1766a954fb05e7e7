"""Adversarial losses, each on logits of any shape (a logit per patch), averaged to a scalar.

`generator(fake)` is what a generator minimises; `real(logits)` and `fake(logits)` are the two terms of a
discriminator, which minimises *half* their sum, so that it learns half as fast as the generator (Isola et al.
2017, Sec. 3.3; Zhu et al. 2017, Sec. 4). A relativistic loss has one term instead, of fakes against real images.

With a discriminator of several scales, each loss is the mean over the scales.

In a gradient penalty D(x) is the mean of a patch discriminator's logits, and with several scales the mean over the
scales. ∇D is the gradient with respect to the *input*. It is differentiated again, in float32 also under autocast.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.device import precise
from i2i.errors import UsageError, as_typed, check_word

Logits = Tensor | tuple[Tensor, ...]
"""The output of a discriminator: (N, …), or a tuple with one such tensor for each scale."""


def scales(logits: Logits) -> tuple[Tensor, ...]:
    """The logits of each scale."""
    return (logits,) if isinstance(logits, Tensor) else logits


def _input_gradient(discriminator: nn.Module, x: Tensor) -> Tensor:
    """d D(x) / d x for each sample: (N, C, H, W) → (N, C·H·W), itself differentiable."""
    # a compiled function cannot be differentiated twice
    with torch.autocast(x.device.type, enabled=False), torch.compiler.set_stance("force_eager"):
        x = precise(x.detach()).requires_grad_(True)
        values = [logits.flatten(1).mean(dim=1).sum() for logits in scales(discriminator(x))]
        value = sum(values[1:], values[0]) / len(values)
        (gradient,) = torch.autograd.grad(value, x, create_graph=True)
    return gradient.flatten(1)


def gradient_penalty(discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """E[(‖∇D(x̂)‖₂ - 1)²], x̂ uniform on the line from real to fake (Gulrajani et al. 2017, Eq. 3)."""
    share = torch.rand(len(real), 1, 1, 1, device=real.device, dtype=real.dtype)
    gradient = _input_gradient(discriminator, torch.lerp(real, fake.to(real.dtype), share))
    return (gradient.norm(dim=1) - 1).square().mean()


def input_gradient_penalty(discriminator: nn.Module, x: Tensor) -> Tensor:
    """½ E[‖∇D(x)‖²]: R1 on real images, R2 on fakes (Mescheder et al. 2018, Eq. 9 and 10)."""
    return 0.5 * _input_gradient(discriminator, x).square().sum(dim=1).mean()


GanMode = Literal["vanilla", "minimax", "lsgan", "hinge", "nonsaturating", "wgangp", "relativistic"]
Loss = Callable[..., Tensor]


def cross_entropy_real(logits: Tensor, label: float = 1.0) -> Tensor:
    """-log D(x), D = sigmoid(logits) (Goodfellow et al. 2014, Eq. 1). As a generator's loss: non-saturating.

    With another `label` α, -α log D(x) - (1 - α) log(1 - D(x)) (Salimans et al. 2016, Sec. 3.4).
    """
    loss = -F.logsigmoid(logits).mean()
    return loss if label == 1 else loss + (1 - label) * logits.mean()  # as log(1 - D) = log D - logit


def cross_entropy_fake(logits: Tensor) -> Tensor:
    """-log(1 - D(x)) (Goodfellow et al. 2014, Eq. 1)."""
    return -F.logsigmoid(-logits).mean()


def minimax(logits: Tensor) -> Tensor:
    """log(1 - D(x)), for a generator (Goodfellow et al. 2014, Eq. 1). The discriminator maximises it."""
    return -cross_entropy_fake(logits)


def least_squares_real(logits: Tensor, label: float = 1.0) -> Tensor:
    """(D(x) - 1)² (Mao et al. 2017, Eq. 9 without its 1/2); with another `label` in place of 1."""
    return (logits - label).square().mean()


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


def relativistic(better: Tensor, worse: Tensor) -> Tensor:
    """-log sigmoid(D(better) - D(worse)), row by row and patch by patch (Jolicoeur-Martineau 2019, Eq. 2; Huang et al.
    2024, Eq. 2): a discriminator wants real images better than fakes, a generator its fakes better than real ones.

    Raises `UsageError` for logits of different shapes.
    """
    if better.shape != worse.shape:
        sizes = " and ".join("x".join(map(str, logits.shape[-2:])) for logits in (better, worse))
        raise UsageError(
            f"gan_mode = 'relativistic': compares pictures patch by patch, but these have {sizes} patches; crop all "
            f"to one size ({as_typed('preprocess', 'resize_and_crop')})"
        )
    return F.softplus(worse - better).mean()


def _mean(losses: list[Tensor]) -> Tensor:
    """The mean of the losses of all scales."""
    return losses[0] if len(losses) == 1 else torch.stack(losses).mean()


def _precise(logits: Logits) -> list[Tensor]:
    """The logits of each scale, in float32 or better: in 16 bits means are coarse."""
    return [scale.float() if scale.dtype.itemsize < 4 else scale for scale in scales(logits)]


_TERMS: dict[str, tuple[Loss, Loss, Loss]] = {  # generator, real, fake
    "vanilla": (cross_entropy_real, cross_entropy_real, cross_entropy_fake),
    "minimax": (minimax, cross_entropy_real, cross_entropy_fake),
    "nonsaturating": (cross_entropy_real, cross_entropy_real, cross_entropy_fake),
    "lsgan": (least_squares_real, least_squares_real, least_squares_fake),
    "hinge": (critic_real, hinge_real, hinge_fake),
    "wgangp": (critic_real, critic_real, critic_fake),
}
_LABELLED = ("vanilla", "minimax", "nonsaturating", "lsgan")


@dataclass(frozen=True)
class GANLoss:
    """The adversarial loss of one `mode`.

    `vanilla` is cross-entropy; `minimax` the same with the generator's loss that saturates; `nonsaturating` the same
    with the R1 penalty. `wgangp` is the Wasserstein distance with a gradient penalty of weight `lambda_gp`;
    `relativistic` compares fakes with real images. `lsgan` takes least squares, `hinge` the hinge loss.

    `r1_gamma` and `r2_gamma` are the weights of the penalties R1, by default 10 with `nonsaturating` and 0 with
    others, and R2. The label of real images is 1 - `label_smoothing`. Raises `UsageError` for a mode without labels.
    """

    mode: GanMode
    lambda_gp: float = 10.0
    r1_gamma: float | None = None
    r2_gamma: float = 0.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_word("mode", self.mode, GanMode)
        if self.label_smoothing and self.mode not in _LABELLED:
            raise UsageError(
                f"label_smoothing = {self.label_smoothing}: gan_mode = {self.mode!r} has no labels; it is for "
                f"{', '.join(_LABELLED)}"
            )

    @property
    def relativistic(self) -> bool:
        """Whether the loss compares fakes with real images."""
        return self.mode == "relativistic"

    @property
    def _r1(self) -> float:
        return self.r1_gamma if self.r1_gamma is not None else 10.0 * (self.mode == "nonsaturating")

    @property
    def decision_boundary(self) -> float | None:
        """The logit between real and fake; None if only differences of logits count."""
        if self.mode in ("wgangp", "relativistic"):
            return None
        return 0.5 if self.mode == "lsgan" else 0.0

    def generator(self, fake: Logits, real: Logits | None = None) -> Tensor:
        """The loss of a generator; `real` is the logits of real images from `real_logits`."""
        if self.relativistic:
            assert real is not None, "a relativistic loss needs the logits of real images"
            return _mean([*map(relativistic, _precise(fake), _precise(real))])
        return _mean([*map(_TERMS[self.mode][0], _precise(fake))])

    def real_logits(self, discriminator: nn.Module, real: Tensor) -> Logits | None:
        """The logits of real images, if the generator's loss compares its fakes with them; else nothing is computed."""
        if not self.relativistic:
            return None
        with torch.no_grad():
            logits: Logits = discriminator(real)
        return logits

    def real(self, logits: Logits) -> Tensor:
        """The discriminator's term of real images; a relativistic loss has none."""
        loss, label = _TERMS[self.mode][1], (1 - self.label_smoothing,) if self.label_smoothing else ()
        return _mean([loss(scale, *label) for scale in _precise(logits)])

    def fake(self, logits: Logits) -> Tensor:
        """The discriminator's term of fakes; a relativistic loss has none."""
        return _mean([*map(_TERMS[self.mode][2], _precise(logits))])

    def named_losses(self, name: str, real: Logits, fake: Logits) -> dict[str, Tensor]:
        """Half the discriminator's terms, under `<name>_fake` and `<name>_real`; or `<name>_pair`, if one term."""
        if self.relativistic:
            return {f"{name}_pair": 0.5 * _mean([*map(relativistic, _precise(real), _precise(fake))])}
        return {f"{name}_fake": 0.5 * self.fake(fake), f"{name}_real": 0.5 * self.real(real)}

    def discriminator(self, real: Logits, fake: Logits) -> Tensor:
        """The sum of `named_losses`."""
        first, *more = self.named_losses("", real, fake).values()
        return sum(more, first)

    def penalty(self, name: str, discriminator: nn.Module, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """The sum of the penalties on `discriminator` under `name`, halved as the other terms are; or nothing."""
        made = []
        if self.mode == "wgangp" and self.lambda_gp:
            made.append(self.lambda_gp * gradient_penalty(discriminator, real, fake))
        if self._r1:
            made.append(self._r1 * input_gradient_penalty(discriminator, real))
        if self.r2_gamma:
            made.append(self.r2_gamma * input_gradient_penalty(discriminator, fake))
        return {name: 0.5 * sum(made[1:], made[0])} if made else {}
