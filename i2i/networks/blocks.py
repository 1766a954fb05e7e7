"""What the networks share: normalisation, padding, and how a network behaves at test time."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from i2i.networks import winograd
from i2i.networks.convolutions import channels_last

Norm = Literal["batch", "instance", "none"]
DiscriminatorNorm = Literal["batch", "instance", "none", "spectral"]
Padding = Literal["reflect", "replicate", "zero"]
Statistics = Literal["batch", "running"]


class InstanceNorm(nn.Module):
    """Instance normalisation without affine parameters (Ulyanov et al. 2016, arXiv:1607.08022).

    (N, C, H, W) → the same shape; each channel of each sample to mean 0 and variance 1 (biased, eps 1e-5).
    Written as group normalisation with one channel a group: the same numbers, faster on a CPU (docs/lab-book.md).
    Where a CPU trains in the memory format channels last, torch's gradient of that is slow, and ours is taken.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad and x.device.type == "cpu" and channels_last(x) and not torch.compiler.is_compiling():
            normalised: Tensor = _InstanceNorm.apply(x)
            return normalised
        return F.group_norm(x, self.channels)

    def extra_repr(self) -> str:
        return str(self.channels)


def _mean(x: Tensor) -> Tensor:
    """(N, C, 1, 1): of each channel, row by row."""
    return x.mean(3, keepdim=True).mean(2, keepdim=True)


class _InstanceNorm(torch.autograd.Function):
    """Instance normalisation with a gradient out of whole-tensor operations, which are fast in channels last.

    With y = (x - m)·r, where m is a channel's mean and r the reciprocal of its deviation, and E the mean over a
    channel: dx = r·(g - E[g] - y·E[g·y]).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        # torch sums channels last in one go: up to 20 times the rounding (docs/lab-book.md)
        if x.dtype == torch.float32:
            mean = _mean(x)
            y = x - mean
            reciprocal = torch.rsqrt(_mean(y.square()) + 1e-5)
            y *= reciprocal
        else:
            y, mean, reciprocal = torch.native_group_norm(x, None, None, n, c, h * w, c, 1e-5)
        # not y, which the activation after it overwrites
        ctx.save_for_backward(x, mean.view(n, c, 1, 1), reciprocal.view(n, c, 1, 1))
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x, mean, reciprocal), (g,) = ctx.saved_tensors, gradients
        if torch.is_grad_enabled():  # to be differentiated again, for a gradient penalty
            return torch.autograd.grad(F.group_norm(x, x.shape[1]), x, g, create_graph=True)[0]
        if x.dtype == torch.float32:
            e_g, e_gy = _mean(g), _mean(g * (x - mean)) * reciprocal
        else:
            exact = torch.promote_types(torch.float32, x.dtype)
            e_g = g.mean((2, 3), keepdim=True, dtype=exact)
            e_gy = ((g * x).mean((2, 3), keepdim=True, dtype=exact) - mean * e_g) * reciprocal
        slope = reciprocal**2 * e_gy
        offset = slope * mean - reciprocal * e_g
        dx = torch.addcmul(offset.to(g.dtype), g, reciprocal.to(g.dtype))
        return dx.addcmul_(x, slope.to(g.dtype), value=-1)


def normalization(norm: DiscriminatorNorm, channels: int) -> nn.Module:
    """The normalisation layer of that name for `channels` channels; `none` is the identity, and so is `spectral`, which
    is a matter of the convolutions."""
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    return InstanceNorm(channels) if norm == "instance" else nn.Identity()


def padding_mode(padding: Padding) -> winograd.Padding:
    """torch's name for that padding."""
    return "zeros" if padding == "zero" else padding


def conv_bias(norm: DiscriminatorNorm, bias: bool | None) -> bool:
    """Whether a convolution before `norm` keeps a bias: `bias` if given, else unless batch norm has its own."""
    return norm != "batch" if bias is None else bias


class Checkpointed(nn.Module):
    """A module that `recompute` can tell to keep nothing of `inner(x)` for its backward but x.

    `checkpointing`: whether it does. The same gradients in less memory, for the time of a second forward pass
    (Chen et al. 2016, arXiv:1604.06174).
    """

    checkpointing = False

    def inner(self, x: Tensor) -> Tensor:
        """What is computed, and computed again in the backward."""
        raise NotImplementedError

    def sparing(self, x: Tensor) -> Tensor:
        """`inner(x)`, with the same random numbers and without a trace in running statistics the second time."""
        if not (self.checkpointing and torch.is_grad_enabled()):
            return self.inner(x)
        made: Tensor = checkpoint(self.inner, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _again(self)))
        return made


@contextmanager
def _again(module: nn.Module) -> Iterator[None]:
    """Inside, batch norm counts nothing: it has seen these images already."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d) and m.track_running_stats and m.training]
    momenta, counts = [norm.momentum for norm in norms], [norm.num_batches_tracked for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, count in zip(norms, momenta, counts, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def recompute(network: nn.Module) -> int:
    """Let all parts of `network` that can compute their activations again in the backward do so; how many did."""
    parts = [module for module in network.modules() if isinstance(module, Checkpointed)]
    for part in parts:
        part.checkpointing = True
    return len(parts)


def for_translation(network: nn.Module, statistics: Statistics = "batch", dropout: bool = False) -> nn.Module:
    """Put `network` in the mode in which it translates, in place, for good; returns it.

    `statistics="batch"`: batch norm takes its statistics from the pictures at hand, as pix2pix does at test
    time (Isola et al. 2017, Sec. 3.4), and never updates anything; `"running"`: the averages of training.
    `dropout`: the noise of pix2pix stays on. The network is not meant to be trained afterwards.
    """
    network.eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.train(dropout)
        elif isinstance(module, nn.BatchNorm2d) and statistics == "batch":
            # Without running buffers, batch norm uses the statistics of its input even in eval mode.
            module.running_mean = module.running_var = module.num_batches_tracked = None
    return network


def has_batch_norm(network: nn.Module) -> bool:
    """Whether one sample's output depends on the other samples of its batch (while training)."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


def finite(tensors: list[Tensor]) -> bool:
    """Whether every number of every tensor is finite (waits for the device)."""
    return all(bool(torch.isfinite(t).all()) for t in tensors if t.is_floating_point())
