"""Layers and residual blocks in training: the faster classes, and blocks that compute their activations again."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from i2i.acceleration.convolutions import (
    ColumnConv2d,
    MatmulConv2d,
    MatmulConvTranspose2d,
    StridedConv2d,
    StridedSpectralConv2d,
    WinogradConv2d,
    is_channels_last,
)
from i2i.acceleration.exchange import Accelerated, Network, become, exchange
from i2i.acceleration.normalization import TrainingInstanceNorm
from i2i.networks.resnet import ResidualBlock


class TrainingBlock(Accelerated, ResidualBlock):
    """A residual block that lays out its input as its convolutions want it, and can save memory.

    `recomputed`: it keeps only its input for the backward pass and computes its activations again: the same gradients
    in less memory, for the time of a second forward pass (Chen et al. 2016, arXiv:1604.06174).
    `ends_run`: no block comes next, so it returns its result in the memory format of the other layers.
    """

    recomputed = False
    ends_run = False

    def forward(self, x: Tensor) -> Tensor:
        by_winograd = isinstance(self.conv1, WinogradConv2d) and self.conv1.by_winograd(x)
        if by_winograd:
            x = x.contiguous(memory_format=torch.channels_last)
        if self.recomputed and torch.is_grad_enabled():
            y: Tensor = checkpoint(self._block, x, use_reentrant=False, context_fn=self._contexts)
        else:
            y = self._block(x)
        if by_winograd and self.ends_run and not is_channels_last(self.conv1.weight):  # type: ignore[arg-type]
            y = y.contiguous()
        return y

    def _block(self, x: Tensor) -> Tensor:
        return super().forward(x)

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Returns the contexts of the first and the second computation."""
        return nullcontext(), _frozen_statistics(self)


@contextmanager
def _frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Inside, batch norm updates no running statistics: it has counted these images already."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d) and m.track_running_stats and m.training]
    momenta, counts = [norm.momentum for norm in norms], [norm.num_batches_tracked for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, count in zip(norms, momenta, counts, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


LAYERS: list[type[Accelerated]] = [
    TrainingInstanceNorm,
    TrainingBlock,
    ColumnConv2d,
    WinogradConv2d,
    MatmulConv2d,
    MatmulConvTranspose2d,
    StridedConv2d,
    StridedSpectralConv2d,
]


def accelerate_training(network: Network) -> Network:
    """Exchanges the layers of `network` for those that train faster, in place."""
    exchange(network, LAYERS)
    for parent in network.modules():
        for block, after in pairwise([*parent.children(), None]):
            if isinstance(block, TrainingBlock):
                block.ends_run = not isinstance(after, TrainingBlock)
    return network


def recompute(network: nn.Module) -> int:
    """Makes all residual blocks of `network` compute their activations again; returns how many there are."""
    blocks = [module for module in network.modules() if isinstance(module, ResidualBlock)]
    for block in blocks:
        become(block, TrainingBlock).recomputed = True
    return len(blocks)
