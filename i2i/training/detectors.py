"""Detectors of what can go wrong in a training. Each says in plain words what is wrong, or None.

Some see losses that the log has fetched, so that nothing waits for them. The others see the rows of a sample grid.
"""

import math
import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from i2i.losses.adversarial import GANLoss

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
    losses: dict[str, deque[float]] = field(default_factory=dict)

    def observe(self, losses: Mapping[str, float]) -> None:
        """The loss of each discriminator at one step, without penalties."""
        self.losses = {name: past for name, past in self.losses.items() if name in losses}  # after another --gan-mode
        for name, loss in losses.items():
            if math.isfinite(loss):
                self.losses.setdefault(name, deque(maxlen=self.WINDOW)).append(loss)

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
            "always right, and the generator learns nothing from it. A smaller --ndf, or "
            "--gan-mode nonsaturating, which penalises it, may help"
        )

    def state(self) -> dict[str, list[float]]:
        return {name: list(past) for name, past in self.losses.items()}

    def load_state(self, state: Mapping[str, Sequence[float]]) -> None:
        self.losses = {name: deque(past, maxlen=self.WINDOW) for name, past in state.items()}


@dataclass
class NotLearning:
    """A generator none of whose content losses (L1, cycle, identity) falls.

    A loss has fallen once the median of the last `RECENT` steps is below that of the first `FIRST` by more than chance
    explains: `SURE` standard errors of the difference, which follow from the spread of the last steps, and at least
    `LEAST_FALL`. Both are differences of logarithms, so shares of the loss. Once one has fallen, all may be flat. A
    loss that begins below `LEAST` has nowhere to fall: 0.5 is, at a weight of 10, 2.5 % of the range of pictures.
    """

    FIRST, RECENT, AFTER = 20, 50, 150
    SURE, LEAST_FALL = 3.5, 0.05
    LEAST = 0.5

    begun: dict[str, list[float]] = field(default_factory=dict)
    recent: dict[str, deque[float]] = field(default_factory=dict)
    steps: int = 0
    learnt: bool = False

    def observe(self, losses: Mapping[str, float]) -> None:
        """The content losses of one step."""
        self.steps += 1
        if self.learnt:
            return
        for name, loss in losses.items():
            if not math.isfinite(loss) or loss <= 0:  # a loss of pairs is 0 in a batch without any
                continue
            if len(begun := self.begun.setdefault(name, [])) < self.FIRST:
                begun.append(loss)
            self.recent.setdefault(name, deque(maxlen=self.RECENT)).append(loss)
        if self.steps >= self.FIRST + self.RECENT:
            self.learnt = any(map(self._has_fallen, self._seen_often()))

    def _seen_often(self) -> list[str]:
        return [name for name, past in self.recent.items() if len(past) == self.RECENT]

    def _has_fallen(self, name: str) -> bool:
        first, recent = ([math.log(loss) for loss in past[name]] for past in (self.begun, self.recent))
        level = statistics.median(recent)
        deviation = 1.48 * statistics.median(abs(loss - level) for loss in recent)
        error = 1.25 * deviation * math.sqrt(1 / len(first) + 1 / len(recent))  # of a difference of two medians
        return statistics.median(first) - level > max(self.SURE * error, self.LEAST_FALL)

    def issue(self) -> str | None:
        if self.learnt or self.steps < self.AFTER:
            return None
        levels = {name: statistics.median(self.begun[name]) for name in self._seen_often()}
        if not levels or min(levels.values()) < self.LEAST:
            return None
        shares = {name: statistics.median(self.recent[name]) / level for name, level in levels.items()}
        named = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        return (
            f"after {self.steps} steps its losses have hardly fallen ({named} of the start). Look at --lr, and "
            "whether the discriminator is far ahead of it"
        )

    def state(self) -> dict[str, Any]:
        return {
            "begun": self.begun,
            "recent": {name: list(past) for name, past in self.recent.items()},
            "steps": self.steps,
            "learnt": self.learnt,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.begun, self.steps, self.learnt = dict(state["begun"]), state["steps"], state["learnt"]
        self.recent = {name: deque(past, maxlen=self.RECENT) for name, past in state["recent"].items()}


def not_finite(losses: Mapping[str, float], names: Sequence[str]) -> str:
    """Why a step was skipped; `names` are its pictures."""
    broken = [name for name, loss in losses.items() if not math.isfinite(loss)]
    where = f"losses {', '.join(broken)}" if broken else "gradients"
    return f"{where}, step skipped; its pictures: {'; '.join(names)}"


@dataclass(frozen=True)
class Translation:
    """One direction in a sample grid: inputs, outputs and, in paired data, targets; each (C, H, W) in [-1, 1].

    There are no inputs where outputs come from noise; `others` are then real pictures of their domain.
    """

    name: str
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    targets: Sequence[Tensor] = ()
    others: Sequence[Tensor] = ()

    def finite(self) -> "Translation":
        """Without rows that hold a NaN or an infinity."""
        columns = (self.inputs, self.outputs, self.targets, self.others)
        rows = zip(*filter(None, columns), strict=True)
        kept = [n for n, row in enumerate(rows) if all(bool(torch.isfinite(picture).all()) for picture in row)]
        return Translation(self.name, *([column[n] for n in kept] if column else [] for column in columns))


def output_equals_input(seen: Translation, least: float = 0.02) -> str | None:
    """Mean |output - input| below 0.02 of the range of the inputs: too little to see.

    Of full contrast that is 5 levels of 255. Silent in pairs whose target is nearly the input too, and without inputs.
    """
    seen = seen.finite()
    if not seen.inputs:
        return None
    distance = _distance(seen.outputs, seen.inputs)
    wanted = _distance(seen.targets, seen.inputs) if seen.targets else None
    if distance is None:
        return None
    span = _span(seen.inputs)
    if distance >= least * span or (wanted is not None and wanted < 2 * least * span):
        return None
    return (
        f"{seen.name} changes its input by {distance / span:.1%} of its range. Less --lambda-identity, or a "
        "discriminator that sees more (--discriminator), may help"
    )


def colours_inverted(seen: Translation, most: float = -0.5) -> str | None:
    """Brightness of output and input (in paired data, target) correlate below -0.5: light became dark.

    Two generators that both invert agree with each other, so that a cycle loss does not mind.
    """
    seen = seen.finite()
    other = seen.targets or seen.inputs
    if not other:
        return None
    correlation = statistics.fmean(map(_correlation, seen.outputs, other))
    if correlation >= most:
        return None
    against = "target" if seen.targets else "input"
    return (
        f"{seen.name} is light where its {against} is dark (correlation {correlation:.2f}). Unless the domains "
        "are so, start again, with another --seed or more --lambda-identity"
    )


def one_output(seen: Translation, least: float = 0.05) -> str | None:
    """The outputs differ from their mean by less than 5 % of what the targets, or without those the inputs, do.

    For noise, than other pictures of their domain do. Needs two pictures. Silent if the targets are that much
    alike too: then they should be.
    """
    seen = seen.finite()
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
        "before, or start again with a smaller --lr"
    )


PICTURE_DETECTORS = {SAME: output_equals_input, INVERTED: colours_inverted, COLLAPSED: one_output}


def _distance(some: Sequence[Tensor], others: Sequence[Tensor]) -> float | None:
    """Mean absolute difference of intensities, 0 to 1; None for pictures that cannot be compared."""
    if not some or any(a.shape != b.shape for a, b in zip(some, others, strict=True)):
        return None
    return statistics.fmean(float((a.float() - b.float()).abs().mean()) / 2 for a, b in zip(some, others, strict=True))


def _span(pictures: Sequence[Tensor]) -> float:
    """Between which intensities all but 1 % at either end lie, 0 to 1: how far apart the two are."""
    low, high = np.percentile(np.concatenate([picture.float().cpu().numpy().ravel() for picture in pictures]), (1, 99))
    return float(high - low) / 2


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
