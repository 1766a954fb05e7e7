"""Gradient penalties on a discriminator.

D(x) is the mean of a patch discriminator's logits, and with several scales the mean over the scales. ∇D is the gradient
with respect to the *input*. It is differentiated again, in float32 also under autocast.
"""

import torch
from torch import Tensor, nn

from i2i.device import precise

Logits = Tensor | tuple[Tensor, ...]
"""The output of a discriminator: (N, …), or a tuple with one such tensor for each scale."""


def scales(logits: Logits) -> tuple[Tensor, ...]:
    """The logits of each scale."""
    return (logits,) if isinstance(logits, Tensor) else logits


def _input_gradient(discriminator: nn.Module, x: Tensor) -> Tensor:
    """d D(x) / d x for each sample: (N, C, H, W) → (N, C·H·W), itself differentiable."""
    # what torch compiles cannot be differentiated twice
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
