"""Learning rates: the factor on `lr` in force during an epoch, a function of the epoch alone.

The names and numbers are the reference's: `linear` is constant for `n_epochs`, then falls in equal steps of
1 / (n_epochs_decay + 1); `cosine` has its half period at `n_epochs` (Loshchilov & Hutter 2017, Eq. 5, without
restarts); `step` multiplies by 0.1 every `lr_decay_epochs`. `plateau` follows a validation metric.
"""

import math
from typing import Any, Literal

Policy = Literal["linear", "step", "cosine", "plateau", "constant"]


def factor(policy: Policy, epoch: int, n_epochs: int, n_epochs_decay: int, lr_decay_epochs: int = 50) -> float:
    """The factor during `epoch` (from 0). 1 for `constant` and `plateau`."""
    if policy == "linear":
        return 1.0 - max(0, epoch + 1 - n_epochs) / (n_epochs_decay + 1)
    if policy == "step":
        return 0.1 ** (epoch // lr_decay_epochs)
    if policy == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * epoch / max(n_epochs, 1)))
    return 1.0


class Plateau:
    """Multiplies the factor by 0.2 when the metric (lower is better) has not fallen by 1 % for `patience` checks."""

    def __init__(self, patience: int = 5) -> None:
        self.patience = patience
        self.factor, self.best, self.waited = 1.0, math.inf, 0

    def update(self, metric: float) -> None:
        if metric < self.best * 0.99:
            self.best, self.waited = metric, 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.factor, self.waited = self.factor * 0.2, 0

    def state(self) -> dict[str, Any]:
        return {"factor": self.factor, "best": self.best, "waited": self.waited}

    def load_state(self, state: dict[str, Any]) -> None:
        self.factor, self.best, self.waited = state["factor"], state["best"], state["waited"]
