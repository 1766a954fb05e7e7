"""Health of a training: detectors of what can go wrong, and the monitor that reports an issue once an episode.

A detector says in plain words what is wrong, or None. Some see losses that the log has fetched, so that nothing waits
for them. The others see the rows of a sample grid.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from i2i.data.pair import ImagePairs
from i2i.errors import as_typed
from i2i.losses.adversarial import GANLoss
from i2i.training.log import RunLog
from i2i.training.options import RunOptions
from i2i.training.state_store import AList, Count, Kept, Text
from i2i.training.step import TrainingStep

SATURATED = "discriminator saturated"
NOT_LEARNING = "generator not learning"
NOT_FINITE = "non-finite values"
SAME = "output equals input"
INVERTED = "colours inverted"
COLLAPSED = "one output for all inputs"


def chance(gan: GANLoss) -> float | None:
    """The loss of a discriminator that guesses; None if the loss has no such level (wgangp)."""
    boundary = torch.tensor(0.5 if gan.mode == "lsgan" else 0.0)
    return float(gan.discriminator(boundary, boundary)) or None


@dataclass
class Saturated:
    """A discriminator that is nearly always right, and sure of it: its gradients teach the generator nothing.

    The median of its loss over `WINDOW` steps is below 4 % of `chance`, the loss of one that guesses. In runs that
    learn it stayed above 15 % in 8,000 steps on facades, and above 6 % in 11,753 on monet2photo; beside a generator
    that stands still it is below 4 % by step 150.
    """

    WINDOW = 50
    SHARE = 0.04

    chance: float | None
    losses: dict[str, list[float]] = field(default_factory=dict)

    def observe(self, losses: Mapping[str, float]) -> None:
        """The loss of each discriminator at one step, without penalties."""
        self.losses = {name: past for name, past in self.losses.items() if name in losses}  # after another --gan-mode
        for name, loss in losses.items():
            if math.isfinite(loss):
                self.losses[name] = [*self.losses.get(name, []), loss][-self.WINDOW :]

    def issue(self) -> str | None:
        if self.chance is None:
            return None
        medians = {name: statistics.median(past) for name, past in self.losses.items() if len(past) == self.WINDOW}
        sure = {name: median for name, median in medians.items() if median < self.SHARE * self.chance}
        if not sure:
            return None
        named = ", ".join(f"{name} {median:.2g}" for name, median in sure.items())
        return (
            f"loss {named} over the last {self.WINDOW} steps, where guessing has {self.chance:.2g}: it is "
            f"always right, and the generator learns nothing from it. A smaller {as_typed('ndf')}, or "
            f"{as_typed('gan_mode', 'nonsaturating')}, which penalises it, may help"
        )


class NotLearning(Kept, extra="forbid"):
    """A generator none of whose content losses (L1, cycle, identity) falls.

    A loss has fallen once three quarters of its last `SPAN` values are below `SHARE` of the median of its first ones:
    the more pictures differ, the farther it has to fall, or chance alone would do. Once one has fallen, all may be
    flat. A loss that begins below `LEAST` has nowhere to fall: 0.5 is, at a weight of 10, 2.5 % of the range of
    pictures.
    """

    SPAN: ClassVar = 50
    AFTER: ClassVar = 150
    SHARE: ClassVar = 0.97
    LEAST: ClassVar = 0.5

    begun: dict[Text, list[float]] = Field(default_factory=dict)
    recent: dict[Text, list[float]] = Field(default_factory=dict)
    steps: Count = 0
    learnt: bool = False

    @model_validator(mode="after")
    def _same_losses(self) -> Self:
        if self.begun.keys() != self.recent.keys():
            raise ValueError("begun and recent are of different losses")
        return self

    def observe(self, losses: Mapping[str, float]) -> None:
        """The content losses of one step."""
        self.steps += 1
        if self.learnt:
            return
        for name, loss in losses.items():
            if not math.isfinite(loss) or loss <= 0:  # a loss of pairs is 0 in a batch without any
                continue
            self.begun[name] = [*self.begun.get(name, []), loss][: self.SPAN]
            self.recent[name] = [*self.recent.get(name, []), loss][-self.SPAN :]
        if self.steps >= 2 * self.SPAN:
            quartiles = {name: statistics.quantiles(self.recent[name], n=4)[-1] for name in self._levels()}
            self.learnt = any(quartiles[name] < self.SHARE * level for name, level in self._levels().items())

    def _levels(self) -> dict[str, float]:
        """At which value each loss began that was seen often enough."""
        often = [name for name, past in self.recent.items() if len(past) == self.SPAN]
        return {name: statistics.median(self.begun[name]) for name in often}

    def issue(self) -> str | None:
        levels = self._levels()
        if self.learnt or self.steps < self.AFTER or not levels or min(levels.values()) < self.LEAST:
            return None
        shares = {name: statistics.median(self.recent[name]) / level for name, level in levels.items()}
        named = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        return (
            f"after {self.steps} steps its losses have hardly fallen ({named} of the start). If the samples do not "
            f"get better either, change {as_typed('lr')}, or weaken the discriminator ({as_typed('ndf')})"
        )


@dataclass
class Translation:
    """One direction in a sample grid: inputs, outputs and, in paired data, targets; each (C, H, W) in [-1, 1].

    There are no inputs where outputs come from noise; `others` are then real pictures of their domain. Rows that hold
    a NaN or an infinity are left out.
    """

    name: str
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    targets: Sequence[Tensor] = ()
    others: Sequence[Tensor] = ()

    def __post_init__(self) -> None:
        columns = (self.inputs, self.outputs, self.targets, self.others)
        rows = zip(*filter(None, columns), strict=True)
        kept = [n for n, row in enumerate(rows) if all(bool(torch.isfinite(picture).all()) for picture in row)]
        self.inputs, self.outputs, self.targets, self.others = (
            [column[n] for n in kept] if column else [] for column in columns
        )


def output_equals_input(seen: Translation, least: float = 0.02) -> str | None:
    """Mean |output - input| below 0.02 of the range of the inputs: too little to see.

    At full contrast that is 5 levels of 255. Silent in pairs whose target is nearly the input too, and without inputs.
    """
    distance, wanted = _distance(seen.outputs, seen.inputs), _distance(seen.targets, seen.inputs)
    if distance is None:
        return None
    # between which intensities all but 1 % at either end lie
    low, high = np.percentile(np.concatenate([x.float().cpu().numpy().ravel() for x in seen.inputs]), (1, 99))
    span = float(high - low) / 2
    if distance >= least * span or (wanted is not None and wanted < 2 * least * span):
        return None
    return (
        f"{seen.name} changes its input by {distance / span:.1%} of its range. Less "
        f"{as_typed('lambda_identity')}, or a "
        f"discriminator that sees more ({as_typed('discriminator')}), may help"
    )


def colours_inverted(seen: Translation, most: float = -0.5) -> str | None:
    """Brightness of output and input (in paired data, target) correlate below -0.5: light became dark.

    Two generators that both invert agree with each other, so that a cycle loss does not mind.
    """
    other = seen.targets or seen.inputs
    if not other:
        return None
    correlation = statistics.fmean(map(_correlation, seen.outputs, other))
    if correlation >= most:
        return None
    against = "target" if seen.targets else "input"
    return (
        f"{seen.name} is light where its {against} is dark (correlation {correlation:.2f}). Unless the domains "
        f"are so, start again, with another {as_typed('seed')} or more {as_typed('lambda_identity')}"
    )


def one_output(seen: Translation, least: float = 0.05) -> str | None:
    """The outputs differ from their mean by less than 5 % of what the targets, or without those the inputs, do.

    For noise, than other pictures of their domain do. Needs two pictures. Silent if the targets are that much
    alike too: then they should be.
    """
    if len(seen.outputs) < 2:
        return None
    inputs, outputs = _spread(seen.inputs or seen.others), _spread(seen.outputs)
    wanted = _spread(seen.targets) if seen.targets else inputs
    if inputs == 0 or wanted < least * inputs or outputs >= least * wanted:
        return None
    others = "targets" if seen.targets else "inputs" if seen.inputs else "pictures of the data set"
    return (
        f"{seen.name} shows the same for {len(seen.outputs)} different {'inputs' if seen.inputs else 'noises'} (they "
        f"differ {outputs / wanted:.1%} as much as the {others}). The generator has collapsed: go back to a state "
        f"before, or start again with a smaller {as_typed('lr')}"
    )


PICTURE_DETECTORS = {SAME: output_equals_input, INVERTED: colours_inverted, COLLAPSED: one_output}


def _distance(some: Sequence[Tensor], others: Sequence[Tensor]) -> float | None:
    """Mean absolute difference of intensities, 0 to 1; None where there are none, or none that can be compared."""
    if not some or not others or any(a.shape != b.shape for a, b in zip(some, others, strict=True)):
        return None
    return statistics.fmean(float((a.float() - b.float()).abs().mean()) / 2 for a, b in zip(some, others, strict=True))


def _thumbnail(picture: Tensor) -> Tensor:
    """Brightness, (32, 32): what is compared there has the size of objects, not of textures."""
    return F.adaptive_avg_pool2d(picture.float().mean(dim=0, keepdim=True), 32)[0]


def _correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's, of brightness; 0 if one of the two is all of one brightness."""
    a, b = (x - x.mean() for x in (_thumbnail(a), _thumbnail(b)))
    norm = float(a.norm() * b.norm())
    return float((a * b).sum()) / norm if norm > 1e-6 else 0.0


def _spread(pictures: Sequence[Tensor]) -> float:
    small = torch.stack([_thumbnail(picture) for picture in pictures])
    return float((small - small.mean(dim=0)).abs().mean())


QUIET = 100
FIRST_LOOK = 50
EARLY_LOOKS = (100, 200)
REMEMBERED = 50


class Episodes(Kept, extra="forbid"):
    """The health of a run so far: its issues, each with the step since which it is there and the one at which it was
    seen last, and those that are over; the steps that were skipped, how many and since when, with the pictures of then.
    """

    saturated: dict[Text, list[float]] = Field(default_factory=dict)
    not_learning: NotLearning
    episodes: dict[Text, Annotated[tuple[int, int], AList]] = Field(default_factory=dict)
    past: list[Annotated[tuple[Text, int, int], AList]] = Field(default_factory=list)
    skipped: Count = 0
    bad_since: Annotated[tuple[int, list[Text]], AList] | None = None


class HealthMonitor:
    """The episodes of one run. An issue is reported when it is first seen, and is over after `QUIET` steps without it.

    Pictures are looked at from step `FIRST_LOOK` on, for before that the outputs of a generator are all alike: those of
    the sample grids, and at the steps `EARLY_LOOKS` the same without a grid. A generator may begin as the identity and
    move away: outputs that equal inputs are reported from the last early look on.
    """

    def __init__(self, train_step: TrainingStep, data: ImagePairs, options: RunOptions, log: RunLog) -> None:
        self.train_step, self.data, self.options, self.log = train_step, data, options, log
        gan = getattr(train_step.algorithm, "gan", None)
        self.saturated = Saturated(chance(gan) if gan else None)
        self.kept = Episodes(not_learning=NotLearning(learnt=bool(options.init_from)))
        log.issues = self.kept.episodes.keys()

    def steps(self, lines: Sequence[dict[str, Any]]) -> None:
        """The log's lines of steps, in order, as they were fetched."""
        for line in lines:
            step, losses = line["step"], line["losses"]
            self.saturated.observe(self._of_discriminators(losses))
            self._report(step, SATURATED, self.saturated.issue())
            self.kept.not_learning.observe({name: losses[name] for name in losses if name in self.train_step.content})
            self._report(step, NOT_LEARNING, self.kept.not_learning.issue())
            self._finite(line)

    def _of_discriminators(self, losses: Mapping[str, float]) -> dict[str, float]:
        """The sum of the adversarial losses of each discriminator, under their names."""
        known = [names for names in self.train_step.discriminators if losses.keys() >= set(names)]
        return {" + ".join(names): sum(losses[name] for name in names) for names in known}

    def _finite(self, line: dict[str, Any]) -> None:
        step, losses = line["step"], line["losses"]
        if not line.get("skipped"):
            self.kept.bad_since = None
            self._report(step, NOT_FINITE, None)
            return
        self.kept.skipped += 1
        broken = [name for name, loss in losses.items() if not math.isfinite(loss)]
        if self.options.precision == "fp16" and not broken:
            return  # the loss scale was too large: as it should be, now and then
        samples = range(line["images"] - self.options.batch_size * self.train_step.group.world_size, line["images"])
        name = getattr(self.data, "names", "sample {}".format)  # names of files; drawn samples have numbers
        names = [str(name(t)) for t in samples]
        self.kept.bad_since = self.kept.bad_since or (step, names)
        first = NOT_FINITE not in self.kept.episodes
        self._note(step, NOT_FINITE)
        where = f"losses {', '.join(broken)}" if broken else "gradients"
        why = f"{where}, step skipped; its pictures: {'; '.join(names)}"
        self.log.health(step, NOT_FINITE, why, first, pictures=names)

    def look(self, step: int, rows: Sequence[Mapping[str, Tensor]]) -> None:
        """The rows of a sample grid."""
        if step < FIRST_LOOK or not rows:
            return
        translations = self._translations(rows)
        for name, detect in PICTURE_DETECTORS.items():
            if name == SAME and step < EARLY_LOOKS[-1]:
                continue
            self._report(step, name, "; ".join(filter(None, map(detect, translations))) or None)

    def _translations(self, rows: Sequence[Mapping[str, Tensor]]) -> list[Translation]:
        found = []
        for source, target in (("A", "B"), ("B", "A")):
            names = (f"real_{source}", f"fake_{target}", f"real_{target}")
            inputs, outputs, reals = ([row[name] for row in rows if name in row] for name in names)
            if not outputs or not (inputs or reals):
                continue
            targets = reals if self.train_step.algorithm.paired else []
            others = [] if inputs else reals
            found.append(Translation(f"fake_{target}", inputs, outputs, targets, others))
        return found

    def _report(self, step: int, name: str, issue: str | None) -> None:
        if issue:
            if name not in self.kept.episodes:
                self.log.health(step, name, issue)
            self._note(step, name)
        elif name in self.kept.episodes and step - self.kept.episodes[name][1] >= QUIET:
            since, last = self.kept.episodes.pop(name)
            self.kept.past = [*self.kept.past, (name, since, last)][-REMEMBERED:]
            self.log.health(step, name, f"no longer, since step {last}", over=True)

    def _note(self, step: int, name: str) -> None:
        since, _ = self.kept.episodes.get(name, (step, step))
        self.kept.episodes[name] = since, step

    def cause(self) -> str:
        """`, from step 7 on (a.png)` if the last steps were skipped, for the message of a training that diverged."""
        since, names = self.kept.bad_since or (0, [])
        return f", from step {since} on ({'; '.join(names)})" if names else ""

    def summary(self, step: int) -> None:
        """Say what was wrong, and what still is."""
        episodes = [f"{name} from step {since} to {last}" for name, since, last in self.kept.past]
        episodes += [f"{name} since step {since}" for name, (since, _) in self.kept.episodes.items()]
        if self.kept.skipped:
            episodes.append(f"{self.kept.skipped} steps skipped" if self.kept.skipped > 1 else "1 step skipped")
        if episodes:
            self.log.event(step, f"health of this training: {'; '.join(episodes)}")

    def state(self) -> dict[str, Any]:
        self.kept.saturated = self.saturated.losses
        return self.kept.model_dump()

    def load_state(self, state: dict[str, Any]) -> None:
        self.kept = Episodes.model_validate(state)
        self.saturated.losses, self.log.issues = self.kept.saturated, self.kept.episodes.keys()
