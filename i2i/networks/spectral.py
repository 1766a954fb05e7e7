"""Spectral normalisation: Miyato, Kataoka, Koyama, Yoshida, "Spectral Normalization for Generative Adversarial
Networks", ICLR 2018 (arXiv:1802.05957).

A convolution's weight W, as a matrix with a row for each output channel, is divided by its largest singular value σ(W).
One power iteration for each update of the weight estimates σ(W) (Sec. 2.1, Alg. 1). It runs when the weight is first
used in training after the update. Other passes (parts of a batch, a penalty, a turn in which the layer is frozen, a
validation) leave the estimate as it is.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_FIRST_ITERATIONS = 15  # for weights that were just drawn
_TINY = 1e-12


class SpectralConv2d(nn.Conv2d):
    """A convolution by W / σ(W), with the parameters of `nn.Conv2d`.

    The scale of W changes no result; it changes how fast W turns. The buffer `u` estimates the left singular vector of
    σ(W) and belongs to the state.
    """

    u: Tensor
    seen: Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, **options: Any) -> None:
        super().__init__(in_channels, out_channels, kernel_size, **options)
        self.register_buffer("u", F.normalize(torch.randn(self.out_channels), dim=0))
        # The weight of the last iteration: torch's fused optimizers leave no other trace of an update. It starts as
        # not-a-number, which equals no weight.
        self.register_buffer("seen", torch.full_like(self.weight.detach(), torch.nan), persistent=False)
        self.restart_power_iteration()

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight / self.sigma(), self.bias)

    def sigma(self) -> Tensor:
        """Returns σ(W) = ‖Wᵀu‖, a scalar with a gradient, in the precision of the weight under autocast too."""
        with _without_autocast(self.weight):
            # a copy, because a backward pass may come after `u` has changed
            return (self.weight.flatten(1).t() @ self.u.clone()).norm().clamp_min(_TINY)

    def restart_power_iteration(self) -> None:
        """Estimates `u` anew, for a weight that was just drawn."""
        with torch.no_grad():
            for _ in range(_FIRST_ITERATIONS):
                self.u.copy_(self._iterate())

    def update_power_iteration(self) -> None:
        """Runs one power iteration if the weight is in training and has changed since the last one.

        The comparison stays on the device, so nothing waits for it.
        """
        if not (self.training and self.weight.requires_grad and torch.is_grad_enabled()):
            return
        with torch.no_grad():
            changed = (self.weight != self.seen).any()
            self.u.copy_(torch.where(changed, self._iterate(), self.u))
            self.seen.copy_(self.weight)

    def _iterate(self) -> Tensor:
        """v = Wᵀu / ‖Wᵀu‖; returns Wv / ‖Wv‖."""
        matrix = self.weight.flatten(1)
        with _without_autocast(matrix):
            v = F.normalize(matrix.t() @ self.u, dim=0)
            return F.normalize(matrix @ v, dim=0)


def _without_autocast(weight: Tensor) -> AbstractContextManager[Any]:
    """Switches autocast off for the device of `weight`; autocast does not know the device `meta`."""
    return nullcontext() if weight.is_meta else torch.autocast(weight.device.type, enabled=False)


def update_power_iterations(layers: Iterable[nn.Module]) -> None:
    """Updates the spectral layers among `layers`. A network calls it before it uses them."""
    for layer in layers:
        if isinstance(layer, SpectralConv2d):
            layer.update_power_iteration()
