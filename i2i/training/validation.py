"""When to measure on the held-out split, what came out last, and what the learning rate makes of it."""

import math
from typing import Any

from torch import nn

from i2i.signals import Signals
from i2i.training.distributed import Processes
from i2i.training.options import RunOptions
from i2i.training.samples import Observer
from i2i.training.schedule import Plateau


class Validation:
    """The metric is the mean L1 of the last validation; it belongs to the weights of that very step.

    `improved`: whether the last validation, if its metric is finite, is better than every saved state's.
    """

    def __init__(self, options: RunOptions, observer: Observer, processes: Processes, signals: Signals) -> None:
        self.options, self.observer, self.processes, self.signals = options, observer, processes, signals
        self.plateau = Plateau(options.patience)
        self.due = False
        self.improved = False
        self._measured: tuple[int, float] | None = None
        self._best = math.inf

    def metric_at(self, step: int) -> float | None:
        """The metric of the weights of `step`, if they were validated and it is finite."""
        return self._measured[1] if self._measured and self._measured[0] == step else None

    def epoch_ended(self, epoch: int) -> None:
        """To be called when `epoch` epochs are done."""
        every = self.options.validate_every
        self.due |= bool(every) and epoch % every == 0 and self.observer.data.validation is not None

    def run(self, networks: dict[str, nn.Module], step: int) -> dict[str, float] | None:
        """The numbers of `Observer.validate` at `step`; None if a signal came, and it is still due."""
        # A process that stopped alone would leave the others waiting; alone, it may stop at once.
        alone = self.processes.world_size == 1
        numbers = self.observer.validate(
            networks, self.options.validate_images, lambda: alone and self.signals.received
        )
        if numbers is None:
            return None
        self.due = False
        distances = [value for name, value in numbers.items() if name.endswith("/l1")]
        metric = sum(distances) / len(distances)
        self._measured = (step, metric) if math.isfinite(metric) else None
        self.improved = metric < self._best  # false for NaN
        self.plateau.update(metric)
        return numbers

    def saved(self, step: int) -> None:
        """To be called when the state of `step` is on the disk with its metric: only then is it the one to beat."""
        metric = self.metric_at(step)
        if metric is not None:
            self._best = min(self._best, metric)

    def state(self) -> dict[str, Any]:
        measured = list(self._measured) if self._measured else None
        return {
            "plateau": self.plateau.state(),
            "validation_due": self.due,
            "measured": measured,
            "best_metric": self._best,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.plateau.load_state(state["plateau"])
        self.due = state["validation_due"]
        measured = state.get("measured")
        self._measured = (measured[0], measured[1]) if measured else None
        self._best = state.get("best_metric", math.inf)
        self.saved(state["step"])
