"""How far a training is, what that makes due, and its learning rate: functions of progress alone.

The policies have the names and numbers of the reference. `linear` is constant for `n_epochs`, then falls in equal steps
of 1 / (n_epochs_decay + 1); `cosine` has its half period at `n_epochs` (Loshchilov & Hutter 2017, Eq. 5, without
restarts); `step` multiplies by 0.1 every `lr_decay_epochs`; `plateau` follows a validation metric.

Images decide which sample comes next, and its epoch; steps decide where `--max-steps` ends. The two go apart when a run
is resumed with another batch size or number of processes, so neither is ever computed from the other.
"""

import math
from typing import Any

from i2i.data.options import batch_size
from i2i.training.options import Policy, RunOptions


def lr_factor(policy: Policy, epoch: int, n_epochs: int, n_epochs_decay: int, lr_decay_epochs: int = 50) -> float:
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


class Progress:
    """How far a run is, from its first step through all resumes. `began` is the step at which this process came in."""

    def __init__(self, options: RunOptions, epoch_length: int, world_size: int = 1) -> None:
        self.options, self.epoch_length, self.max_steps = options, epoch_length, options.max_steps
        self.images_per_step = batch_size(options) * world_size
        self.images_of_all_epochs = (options.n_epochs + options.n_epochs_decay) * epoch_length
        self.step = self.images_seen = self.began = 0

    def resume(self, step: int, images_seen: int) -> None:
        """Go on after `step`."""
        self.step, self.images_seen, self.began = step, images_seen, step

    def advance(self) -> None:
        """One step more."""
        self.step += 1
        self.images_seen += self.images_per_step

    @property
    def epoch(self) -> int:
        """The epoch of the next sample, from 0."""
        return self.images_seen // self.epoch_length

    @property
    def lr_factor(self) -> float:
        """The factor on the learning rate in this epoch, by the policy of the options."""
        o = self.options
        return lr_factor(o.lr_policy, self.epoch, o.n_epochs, o.n_epochs_decay, o.lr_decay_epochs)

    @property
    def total_images(self) -> int:
        """The images that will have been seen at the end, if every further step sees as many as one does now."""
        if self.max_steps is None:
            return self.images_of_all_epochs
        left = max(0, self.max_steps - self.step) * self.images_per_step
        return min(self.images_of_all_epochs, self.images_seen + left)

    @property
    def steps_left(self) -> int:
        """How many steps are still to be made."""
        return math.ceil(max(0, self.total_images - self.images_seen) / self.images_per_step)

    @property
    def finished(self) -> bool:
        """Whether no step is left."""
        return self.steps_left == 0

    def why_finished(self) -> str:
        """The option that says that no step is left, and what to type to go on."""
        if self.images_seen >= self.images_of_all_epochs:
            epochs = self.images_of_all_epochs // self.epoch_length
            return f"n_epochs + n_epochs_decay = {epochs} are done; to go on, give more --n-epochs or --n-epochs-decay"
        return f"max_steps = {self.max_steps}; to go on, give more --max-steps, or None for all epochs"

    def validation_due(self) -> bool:
        """Whether the last step ended an epoch after which there is a validation; a long step may end several."""
        period = self.options.validate_every * self.epoch_length
        return period > 0 and self.images_seen // period > (self.images_seen - self.images_per_step) // period
