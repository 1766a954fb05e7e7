"""Spectral normalisation: Miyato, Kataoka, Koyama, Yoshida, "Spectral Normalization for Generative Adversarial
Networks", ICLR 2018 (arXiv:1802.05957).

A convolution's weight, as a matrix with a row for each output channel, is divided by its largest singular value
σ(W). That is followed by one power iteration for each update of the weight (Sec. 2.1, Alg. 1), made when the weight is
first used to be trained after the update: whatever else passes through the layer (parts of a batch, a penalty, a turn
in which it is frozen, a validation) changes nothing.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.networks.convolutions import StridedConv2d

_FIRST = 15  # iterations for weights just drawn
_TINY = 1e-12


class SpectralConv2d(StridedConv2d):
    """A convolution by W / σ(W); the parameters are those of `nn.Conv2d`. How W is scaled changes no result, but how
    fast W turns.

    `u`, the left singular vector of σ(W) as far as it is known, is a buffer, and belongs to the state.
    """

    u: Tensor
    seen: Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, **options: Any) -> None:
        super().__init__(in_channels, out_channels, kernel_size, **options)
        self.register_buffer("u", F.normalize(torch.randn(self.out_channels), dim=0))
        # the weight that `u` has followed, torch's fused updates leaving no other trace; not a number equals nothing
        self.register_buffer("seen", torch.full_like(self.weight.detach(), torch.nan), persistent=False)
        self.settle()

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight / self.sigma(), self.bias)

    def sigma(self) -> Tensor:
        """σ(W), a scalar, with its gradient; in the precision of the weight also under autocast."""
        with _exactly(self.weight):
            # a copy, for a backward pass may come after `u` has moved on
            return (self.weight.flatten(1).t() @ self.u.clone()).norm().clamp_min(_TINY)

    def settle(self) -> None:
        """For another weight altogether."""
        with torch.no_grad():
            for _ in range(_FIRST):
                self.u.copy_(self._iterated())

    def follow(self) -> None:
        """One power iteration, if the weight is being trained and has changed since the last one. (Decided on the
        device, where nobody waits for it.)"""
        if not (self.training and self.weight.requires_grad and torch.is_grad_enabled()):
            return
        with torch.no_grad():
            changed = (self.weight != self.seen).any()
            self.u.copy_(torch.where(changed, self._iterated(), self.u))
            self.seen.copy_(self.weight)

    def _iterated(self) -> Tensor:
        matrix = self.weight.flatten(1)
        with _exactly(matrix):
            v = F.normalize(matrix.t() @ self.u, dim=0)
            return F.normalize(matrix @ v, dim=0)


def _exactly(weight: Tensor) -> AbstractContextManager[Any]:
    """Without autocast, which does not know the device `meta`."""
    return nullcontext() if weight.is_meta else torch.autocast(weight.device.type, enabled=False)


def follow(layers: Iterable[nn.Module]) -> None:
    """Let the spectral layers among `layers` follow their weights, before those are used."""
    _follow(layers)


def _follow(layers: Iterable[nn.Module]) -> None:
    for layer in layers:
        if isinstance(layer, SpectralConv2d):
            layer.follow()


def keep_out_of_graphs() -> None:
    """To be called before networks are compiled. (It imports the compiler, for which nobody else should wait.)"""
    global _follow
    _follow = torch.compiler.disable(_follow)


def convolution(spectral: bool) -> Callable[..., nn.Conv2d]:
    """What makes a convolution of that kind."""
    return SpectralConv2d if spectral else StridedConv2d
