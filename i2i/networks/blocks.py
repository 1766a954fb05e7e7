"""What the networks share: normalisation, padding, and how a network behaves at test time."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Norm = Literal["batch", "instance", "none"]
Padding = Literal["reflect", "replicate", "zero"]
Statistics = Literal["batch", "running"]


class InstanceNorm(nn.Module):
    """Instance normalisation without affine parameters (Ulyanov et al. 2016, arXiv:1607.08022).

    (N, C, H, W) → the same shape; each channel of each sample to mean 0 and variance 1 (biased, eps 1e-5).
    Written as group normalisation with one channel a group: the same numbers, faster on a CPU (docs/lab-book.md).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x, self.channels)

    def extra_repr(self) -> str:
        return str(self.channels)


def normalization(norm: Norm, channels: int) -> nn.Module:
    """The normalisation layer of that name for `channels` channels; `none` is the identity."""
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    return InstanceNorm(channels) if norm == "instance" else nn.Identity()


def padding_mode(padding: Padding) -> Literal["zeros", "reflect", "replicate"]:
    """torch's name for that padding."""
    return "zeros" if padding == "zero" else padding


def conv_bias(norm: Norm, bias: bool | None) -> bool:
    """Whether a convolution before `norm` keeps a bias: `bias` if given, else unless batch norm has its own."""
    return norm != "batch" if bias is None else bias


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
