"""Instance normalisation, and batch normalisation by the statistics of each image, as the device at hand computes them
fastest and exactly enough.

On a CPU torch sums a channel in the memory format channels last in one go, with up to 20 times the rounding of row by
row. The error grows with the image: in float32 it is 2e-4 deviations at 256×256, 3e-3 at 1024×1024, 2e-2 at 2048×2048
(docs/lab-book.md).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.acceleration.convolutions import is_channels_last
from i2i.acceleration.exchange import Accelerated
from i2i.networks.blocks import InstanceNorm

_CHUNK_VALUES = 1 << 20  # so many stay in a processor's cache between two passes over them
_LARGE, _LARGE_16_BITS = 1 << 16, 1 << 20  # pixels from which `Moments` replaces torch's statistics


def _float64(x: Tensor) -> Tensor:
    return (x.cpu() if x.device.type == "mps" else x).double()  # Apple's GPUs have no float64


class Moments:
    """Count, mean and sum of squared deviations of each channel, in float64.

    Each chunk is centred on its own mean in float32 and then merged (Chan, Golub & LeVeque 1983). So nothing cancels
    where the mean is much larger than the deviation, and an image can come in parts.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean = self._squares = torch.zeros(1, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Adds the pixels of (1, C, H, W)."""
        values = rows.permute(0, 2, 3, 1).reshape(-1, rows.shape[1])
        for chunk in values.split(max(1, _CHUNK_VALUES // values.shape[1])):
            self._merge(chunk.float())

    def _merge(self, chunk: Tensor) -> None:
        mean = chunk.sum(0) / len(chunk)
        centred = chunk - mean
        # the part of the mean that was lost to rounding
        rest = _float64(centred.sum(0)) / len(chunk)
        squares = _float64(centred.square_().sum(0)) - rest.square() * len(chunk)
        delta = _float64(mean) + rest - self._mean.to(rest.device)
        total = self.count + len(chunk)
        self._mean = self._mean.to(rest.device) + delta * (len(chunk) / total)
        between = delta.square() * (self.count * len(chunk) / total)
        self._squares = self._squares.to(rest.device) + squares + between
        self.count = total

    def mean(self) -> Tensor:
        """Returns (C,) in float64."""
        return self._mean

    def variance(self) -> Tensor:
        """Returns the biased variance (C,) in float64."""
        return self._squares / max(1, self.count)


def normalize(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    in_place: bool = False,
) -> Tensor:
    """Returns (x - mean) / √(variance + eps) · weight + bias for each channel; if `in_place`, in float32 in x."""
    if x.dtype != torch.float32:  # rounded once
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)
    scale = torch.rsqrt(variance + eps)
    scale = scale if weight is None else scale * weight
    y = torch.sub(x, mean[:, None, None], out=x if in_place else None).mul_(scale[:, None, None])
    return y if bias is None else y.add_(bias[:, None, None])


class TrainingInstanceNorm(Accelerated, InstanceNorm):
    """Instance normalisation with a faster gradient in channels last on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        if not (x.requires_grad and x.device.type == "cpu" and is_channels_last(x)) or torch.compiler.is_compiling():
            return super().forward(x)
        y: Tensor = _InstanceNorm.apply(x, self.eps)
        return y


def _row_mean(x: Tensor) -> Tensor:
    """Returns the mean of each channel (N, C, 1, 1), summed row by row."""
    return x.mean(3, keepdim=True).mean(2, keepdim=True)


class _InstanceNorm(torch.autograd.Function):
    """Instance normalisation whose gradient is a few operations on whole tensors.

    With y = (x - m)·r, where m is a channel's mean and r the reciprocal of its deviation, and E the mean over a
    channel: dx = r·(g - E[g] - y·E[g·y]).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        n, c, h, w = x.shape
        if x.dtype == torch.float32:
            mean = _row_mean(x)
            y = x - mean
            reciprocal = torch.rsqrt(_row_mean(y.square()) + eps)
            y *= reciprocal
        else:
            y, mean, reciprocal = torch.native_group_norm(x, None, None, n, c, h * w, c, eps)
        ctx.eps = eps
        # x and not y: the activation after the normalisation overwrites y
        ctx.save_for_backward(x, mean.view(n, c, 1, 1), reciprocal.view(n, c, 1, 1))
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (x, mean, reciprocal), (g,) = ctx.saved_tensors, gradients
        if torch.is_grad_enabled():  # a gradient penalty differentiates this gradient again
            return torch.autograd.grad(F.group_norm(x, x.shape[1], eps=ctx.eps), x, g, create_graph=True)[0], None
        if x.dtype == torch.float32:
            e_g, e_gy = _row_mean(g), _row_mean(g * (x - mean)) * reciprocal
        else:
            exact = torch.promote_types(torch.float32, x.dtype)
            e_g = g.mean((2, 3), keepdim=True, dtype=exact)
            e_gy = ((g * x).mean((2, 3), keepdim=True, dtype=exact) - mean * e_g) * reciprocal
        slope = reciprocal**2 * e_gy
        offset = slope * mean - reciprocal * e_g
        dx = torch.addcmul(offset.to(g.dtype), g, reciprocal.to(g.dtype))
        return dx.addcmul_(x, slope.to(g.dtype), value=-1), None


class _PerImageBatchNorm(Accelerated):
    """Batch norm that takes the statistics of the images at hand: each image by itself, whatever its batch."""

    @classmethod
    def accepts(cls, module: nn.Module) -> bool:
        return not isinstance(module, nn.BatchNorm2d) or module.running_mean is None


class GroupBatchNorm(_PerImageBatchNorm, nn.BatchNorm2d):
    """Per-image batch norm as a group norm: fastest on a GPU and compiled."""

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x, self.num_features, self.weight, self.bias, self.eps)


class ExportedInstanceNorm(Accelerated, InstanceNorm):
    """Instance normalisation as the operation that other runtimes know."""

    def forward(self, x: Tensor) -> Tensor:
        return F.instance_norm(x, eps=self.eps)


class ExportedBatchNorm(_PerImageBatchNorm, nn.BatchNorm2d):
    """Per-image batch norm as the operation that other runtimes know."""

    def forward(self, x: Tensor) -> Tensor:
        return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)


class ExactInstanceNorm(Accelerated, InstanceNorm):
    """Instance normalisation on a CPU that is exact and fast for large images."""

    def forward(self, x: Tensor) -> Tensor:
        return _exactly_normalized(x, None, None, self.eps)


class ExactBatchNorm(_PerImageBatchNorm, nn.BatchNorm2d):
    """Per-image batch norm on a CPU that is exact and fast for large images."""

    def forward(self, x: Tensor) -> Tensor:
        return _exactly_normalized(x, self.weight, self.bias, self.eps)


def _exactly_normalized(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    large = _LARGE if x.dtype == torch.float32 else _LARGE_16_BITS
    if len(x) > 1 or x.shape[2] * x.shape[3] < large:
        return F.group_norm(x, x.shape[1], weight, bias, eps)
    moments = Moments()
    moments.add(x)
    weight, bias = (None if value is None else value.float() for value in (weight, bias))
    return normalize(x, moments.mean().float(), moments.variance().float(), weight, bias, eps)
