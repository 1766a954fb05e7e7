"""How far a training is: in steps, in images and in epochs, and what that makes due.

Images decide which sample comes next, and in which epoch it is; steps decide where `--max-steps` ends. The two go
apart when a run is resumed with another batch size or number of processes, so neither is ever computed from the other.
"""

import math

from i2i.data.options import batch_size
from i2i.training.options import RunOptions


class Progress:
    """How far a run is, from its first step through all resumes. `began` is the step at which this process came in."""

    def __init__(self, options: RunOptions, epoch_length: int, world_size: int = 1) -> None:
        self.epoch_length, self.max_steps = epoch_length, options.max_steps
        self.validate_every = options.validate_every
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
        """That of the next sample, from 0."""
        return self.images_seen // self.epoch_length

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
        """Which option says that no step is left, and what to type to go on."""
        if self.images_seen >= self.images_of_all_epochs:
            epochs = self.images_of_all_epochs // self.epoch_length
            return f"n_epochs + n_epochs_decay = {epochs} are done; to go on, give more --n-epochs or --n-epochs-decay"
        return f"max_steps = {self.max_steps}; to go on, give more --max-steps, or None for all epochs"

    def validation_due(self) -> bool:
        """Whether the last step ended an epoch after which there is a validation; a long step may end several."""
        period = self.validate_every * self.epoch_length
        return period > 0 and self.images_seen // period > (self.images_seen - self.images_per_step) // period
