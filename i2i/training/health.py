"""Watches over a training: gives losses and sample grids to the detectors, and reports an issue once an episode."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from i2i.algorithms.algorithm import AnyAlgorithm
from i2i.data.pair import ImagePairs
from i2i.training import detectors
from i2i.training.distributed import ProcessGroup
from i2i.training.log import RunLog
from i2i.training.options import RunOptions
from i2i.training.step import LossKinds

QUIET = 100
FIRST_LOOK = 50
EARLY_LOOKS = (100, 200)
REMEMBERED = 50


class HealthMonitor:
    """The episodes of one run. An issue is reported when it is first seen, and is over after `QUIET` steps without it.

    Pictures are looked at from step `FIRST_LOOK` on, for before that the outputs of a generator are all alike: those of
    the sample grids, and at the steps `EARLY_LOOKS` the same without a grid. A generator may begin as the identity and
    move away: outputs that equal inputs are reported from the last early look on.
    """

    def __init__(
        self,
        algorithm: AnyAlgorithm,
        kinds: LossKinds,
        data: ImagePairs,
        options: RunOptions,
        log: RunLog,
        group: ProcessGroup,
    ) -> None:
        self.algorithm, self.kinds, self.data, self.options = algorithm, kinds, data, options
        self.log, self.group = log, group
        gan = getattr(algorithm, "gan", None)
        self.saturated = detectors.Saturated(detectors.chance(gan) if gan else None)
        self.not_learning = detectors.NotLearning(learnt=bool(options.init_from))
        self.episodes: dict[str, list[int]] = {}  # issue → since which step, last seen
        self.past: list[tuple[str, int, int]] = []
        self.skipped = 0
        self.bad_since: tuple[int, list[str]] | None = None

    def steps(self, lines: Sequence[dict[str, Any]]) -> None:
        """The log's lines of steps, in order, as they were fetched."""
        for line in lines:
            step, losses = line["step"], line["losses"]
            self.saturated.observe(self._of_discriminators(losses))
            self._report(step, detectors.SATURATED, self.saturated.issue())
            self.not_learning.observe({name: losses[name] for name in losses if name in self.kinds.content})
            self._report(step, detectors.NOT_LEARNING, self.not_learning.issue())
            self._finite(line)

    def _of_discriminators(self, losses: Mapping[str, float]) -> dict[str, float]:
        """The sum of the adversarial losses of each discriminator, under their names."""
        return {
            " + ".join(names): sum(losses[name] for name in names)
            for names in self.kinds.discriminators
            if all(name in losses for name in names)
        }

    def _finite(self, line: dict[str, Any]) -> None:
        step, losses = line["step"], line["losses"]
        if not line.get("skipped"):
            self.bad_since = None
            self._report(step, detectors.NOT_FINITE, None)
            return
        self.skipped += 1
        if self.options.precision == "fp16" and all(map(math.isfinite, losses.values())):
            return  # the loss scale was too large: as it should be, now and then
        samples = range(line["images"] - self.options.batch_size * self.group.world_size, line["images"])
        names = [self._name(t) for t in samples]
        self.bad_since = self.bad_since or (step, names)
        first = detectors.NOT_FINITE not in self.episodes
        self._note(step, detectors.NOT_FINITE)
        self.log.health(step, detectors.NOT_FINITE, detectors.not_finite(losses, names), first, pictures=names)

    def look(self, step: int, rows: Sequence[Mapping[str, Tensor]]) -> None:
        """The rows of a sample grid."""
        if step < FIRST_LOOK or not rows:
            return
        translations = self._translations(rows)
        for name, detect in detectors.PICTURE_DETECTORS.items():
            if name == detectors.SAME and step < EARLY_LOOKS[-1]:
                continue
            self._report(step, name, "; ".join(filter(None, map(detect, translations))) or None)

    def _translations(self, rows: Sequence[Mapping[str, Tensor]]) -> list[detectors.Translation]:
        found = []
        for source, target in (("A", "B"), ("B", "A")):
            names = (f"real_{source}", f"fake_{target}", f"real_{target}")
            inputs, outputs, reals = ([row[name] for row in rows if name in row] for name in names)
            if not outputs or not (inputs or reals):
                continue
            targets = reals if self.algorithm.paired else []
            others = [] if inputs else reals
            found.append(detectors.Translation(f"fake_{target}", inputs, outputs, targets, others))
        return found

    def _report(self, step: int, name: str, issue: str | None) -> None:
        if issue:
            if name not in self.episodes:
                self.log.health(step, name, issue)
            self._note(step, name)
        elif name in self.episodes and step - self.episodes[name][1] >= QUIET:
            since, last = self.episodes.pop(name)
            self.past = [*self.past, (name, since, last)][-REMEMBERED:]
            self.log.health(step, name, f"no longer, since step {last}", over=True)
        self.log.issues = list(self.episodes)

    def _note(self, step: int, name: str) -> None:
        self.episodes.setdefault(name, [step, step])[1] = step
        self.log.issues = list(self.episodes)

    def cause(self) -> str:
        """`, from step 7 on (a.png)` if the last steps were skipped, for the message of a training that diverged."""
        return f", from step {self.bad_since[0]} on ({'; '.join(self.bad_since[1])})" if self.bad_since else ""

    def summary(self, step: int) -> None:
        """Say what was wrong, and what still is."""
        episodes = [f"{name} from step {since} to {last}" for name, since, last in self.past]
        episodes += [f"{name} since step {since}" for name, (since, _) in self.episodes.items()]
        if self.skipped:
            episodes.append(f"{self.skipped} steps skipped" if self.skipped > 1 else "1 step skipped")
        if episodes:
            self.log.event(step, f"health of this training: {'; '.join(episodes)}")

    def _name(self, t: int) -> str:
        """The file or files of sample t."""
        names = getattr(self.data, "names", None)
        return f"sample {t}" if names is None else str(names(t))  # drawn, not read

    def state(self) -> dict[str, Any]:
        return {
            "saturated": self.saturated.state(),
            "not_learning": self.not_learning.state(),
            "episodes": self.episodes,
            "past": [list(episode) for episode in self.past],
            "skipped": self.skipped,
            "bad_since": list(self.bad_since) if self.bad_since else None,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.saturated.load_state(state["saturated"])
        self.not_learning.load_state(state["not_learning"])
        self.episodes = {name: list(episode) for name, episode in state["episodes"].items()}
        self.past = [(name, since, last) for name, since, last in state["past"]]
        self.skipped = state["skipped"]
        self.bad_since = tuple(state["bad_since"]) if state["bad_since"] else None
        self.log.issues = list(self.episodes)
