"""A network rewritten to translate faster: the same function of each picture, up to rounding.

* Instance norm, and batch norm by the statistics of the picture, are per-sample normalisation, in the form that
  the runtime computes fastest; so no other picture of a batch has an influence.
* The last convolution of a residual generator is computed `by_columns`, wide ones of 3×3 by `winograd`.
* The noise of dropout is drawn in the plain layout in float32, so that it does not follow from layout or precision.
"""

import copy
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.networks import winograd
from i2i.networks.blocks import InstanceNorm
from i2i.networks.convolutions import ThinConv2d, WideConv2d, by_columns, column_kernels
from i2i.networks.resnet import ResnetGenerator

NormForm = Literal["group", "instance", "exact"]
_MANY, _VERY_MANY = 1 << 16, 1 << 20  # pixels


def fast_form(
    network: nn.Module, norms: NormForm = "group", split_head: bool = True, by_winograd: bool = False
) -> nn.Module:
    """A copy of `network`, which is in its mode of translation; it has the same parameters, not copies of them, but for
    the kernels that are laid out anew. `by_winograd` is for float32 on a CPU."""
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    fast = copy.deepcopy(network, dict(shared))
    for parent in list(fast.modules()):
        for name, child in list(parent.named_children()):
            if by_winograd and isinstance(child, WideConv2d) and WinogradConvolution.takes(child):
                setattr(parent, name, WinogradConvolution(child))
            elif (replaced := _replacement(child, norms)) is not None:
                setattr(parent, name, replaced)
    if split_head and isinstance(fast, ResnetGenerator) and isinstance(fast.head, ThinConv2d):
        fast.head = SplitConvolution(fast.head)
    return fast.train(network.training)


def _replacement(module: nn.Module, norms: NormForm) -> nn.Module | None:
    if isinstance(module, InstanceNorm) and norms == "instance":
        return nn.InstanceNorm2d(module.channels)
    if isinstance(module, InstanceNorm) and norms == "exact":
        return ExactNorm(module.channels)
    if isinstance(module, nn.BatchNorm2d) and module.running_mean is None:
        return _per_sample(module, norms)
    if isinstance(module, nn.Dropout):
        return PlainNoise(module.p) if module.training else nn.Identity()
    return None


def _per_sample(batch_norm: nn.BatchNorm2d, norms: NormForm) -> nn.Module:
    channels, eps = batch_norm.num_features, batch_norm.eps
    if norms == "exact":
        return ExactNorm(channels, eps, batch_norm.weight, batch_norm.bias)
    norm: nn.Module = (
        nn.InstanceNorm2d(channels, eps, affine=True) if norms == "instance" else nn.GroupNorm(channels, channels, eps)
    )
    norm.weight, norm.bias = batch_norm.weight, batch_norm.bias
    return norm


class ExactNorm(nn.Module):
    """Per-sample normalisation on a CPU. Its input, the output of a convolution, may be changed.

    Torch's sums over channels last lose digits as a picture grows: in float32 it is off by 2e-4 deviations at 256×256,
    3e-3 at 1024×1024, 2e-2 at 2048×2048. Above a size the statistics are those of `Moments`, which in float32 is
    faster too (docs/lab-book.md).
    """

    def __init__(
        self, channels: int, eps: float = 1e-5, weight: nn.Parameter | None = None, bias: nn.Parameter | None = None
    ) -> None:
        super().__init__()
        self.channels, self.eps, self.weight, self.bias = channels, eps, weight, bias

    def forward(self, x: Tensor) -> Tensor:
        many = _MANY if x.dtype == torch.float32 else _VERY_MANY
        if len(x) > 1 or x.shape[2] * x.shape[3] < many:
            return F.group_norm(x, self.channels, self.weight, self.bias, self.eps)
        from i2i.acceleration.rows import Affine, Moments

        moments = Moments()
        moments.add(x)
        found = moments.mean(), moments.variance(), self.weight, self.bias
        mean, variance, weight, bias = (None if value is None else value.float() for value in found)
        assert mean is not None and variance is not None
        normalised = Affine(mean, variance, weight, bias, self.eps)(x, True)
        assert normalised is not None
        return normalised


class SplitConvolution(nn.Module):
    """`conv`, of stride 1, by the columns of its kernel, which are laid out once."""

    def __init__(self, conv: ThinConv2d) -> None:
        super().__init__()
        self.padded = conv.padded
        self.columns = nn.Parameter(column_kernels(conv.weight.detach()).contiguous(), requires_grad=False)
        self.bias = nn.Parameter(conv.bias.detach().clone(), requires_grad=False) if conv.bias is not None else None

    def forward(self, x: Tensor) -> Tensor:
        return by_columns(self.padded(x), self.columns, self.bias)


class WinogradConvolution(nn.Module):
    """`conv` by `winograd`, its kernels transformed once: four times as many numbers. The result is channels last."""

    @staticmethod
    def takes(conv: WideConv2d) -> bool:
        return conv.kernel_size == (3, 3) and winograd.pays(conv.weight)

    def __init__(self, conv: WideConv2d) -> None:
        super().__init__()
        self.padding, self.bias = cast(winograd.Padding, conv.padding_mode), conv.bias
        self.kernels = nn.Parameter(winograd.transformed(conv.weight.detach()), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return winograd.correlate(x, self.kernels, 3, self.bias, self.padding)


class PlainNoise(nn.Module):
    """Dropout that stays on, with the noise that `nn.Dropout` draws for a float32 tensor in the plain layout."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        noise = torch.empty(x.shape, dtype=torch.float32, device=x.device).bernoulli_(1 - self.p)
        return x * noise.div_(1 - self.p).to(x.dtype)
