"""What ails a training, told from numbers and pictures that are there anyway.

Each detector says in plain words what is wrong, or None. They see losses that the log has fetched, the rows of
a sample grid, and a few pixels of each batch before it goes to the device: nothing here waits for the device.
"""

import math
import statistics
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from i2i.losses.adversarial import Adversarial

SATURATED = "discriminator saturated"
NOT_LEARNING = "generator not learning"
SAME = "output equals input"
INVERTED = "colours inverted"
COLLAPSED = "one output for all inputs"
FLAT = "flat crops"
NOT_FINITE = "non-finite values"


def chance(game: Adversarial) -> float | None:
    """The loss of a discriminator that can tell nothing apart; None if the game has no such level (wgangp)."""
    undecided = torch.tensor(0.5 if game.mode == "lsgan" else 0.0)
    return float(game.discriminator(undecided, undecided)) or None


@dataclass
class Saturated:
    """A discriminator that is nearly always right, and sure of it: its gradients teach the generator nothing.

    Told from the median of its loss over `WINDOW` steps: below 4 % of `chance`, the loss of one that guesses.
    In runs that learn it stays above 15 % (lowest on facades); beside a generator that stands still it is below
    4 % by step 150.
    """

    WINDOW = 50
    SHARE = 0.04

    chance: float | None
    losses: dict[str, deque[float]] = field(default_factory=dict)

    def observe(self, losses: Mapping[str, float]) -> None:
        """The loss of each discriminator at one step, without penalties."""
        for name, loss in losses.items():
            if math.isfinite(loss):
                self.losses.setdefault(name, deque(maxlen=self.WINDOW)).append(loss)

    def complaint(self) -> str | None:
        if self.chance is None:
            return None
        medians = {name: statistics.median(past) for name, past in self.losses.items() if len(past) == self.WINDOW}
        sure = {name: median for name, median in medians.items() if median < self.SHARE * self.chance}
        if not sure:
            return None
        named = ", ".join(f"{name} {median:.2g}" for name, median in sure.items())
        return (
            f"loss {named} over the last {self.WINDOW} steps, where guessing has {self.chance:.2g}: it tells real "
            "from made without doubt, and the generator learns nothing from it. A smaller --ndf, or --gan-mode "
            "nonsaturating, which penalises it, may help"
        )

    def state(self) -> dict[str, list[float]]:
        return {name: list(past) for name, past in self.losses.items()}

    def load_state(self, state: Mapping[str, Sequence[float]]) -> None:
        self.losses = {name: deque(past, maxlen=self.WINDOW) for name, past in state.items()}


@dataclass
class NotLearning:
    """A generator none of whose reconstruction losses (L1, cycle, identity) falls.

    Told by comparing the median of the last `RECENT` steps with that of the first `FIRST`: none is below 95 %
    of it after `AFTER` steps. A generator that learns halves them in that time. Asked only until one has fallen
    so far, for later they may well be flat; adversarial losses say nothing, as both sides move.
    """

    FIRST, RECENT, AFTER = 20, 50, 150
    SHARE = 0.95

    begun: dict[str, list[float]] = field(default_factory=dict)
    recent: dict[str, deque[float]] = field(default_factory=dict)
    steps: int = 0
    learnt: bool = False

    def observe(self, losses: Mapping[str, float]) -> None:
        """The generator's losses of one step, the adversarial ones left out."""
        self.steps += 1
        if self.learnt:
            return
        for name, loss in losses.items():
            if not math.isfinite(loss):
                continue
            if len(begun := self.begun.setdefault(name, [])) < self.FIRST:
                begun.append(loss)
            self.recent.setdefault(name, deque(maxlen=self.RECENT)).append(loss)
        if self.steps >= self.FIRST + self.RECENT and any(share < self.SHARE for share in self._shares().values()):
            self.learnt = True

    def _shares(self) -> dict[str, float]:
        """Loss → what is left of it."""
        medians = {
            name: (statistics.median(past), statistics.median(self.recent[name]))
            for name, past in self.begun.items()
            if past
        }
        return {name: now / begun for name, (begun, now) in medians.items() if begun > 0}

    def complaint(self) -> str | None:
        if self.learnt or self.steps < self.AFTER or not (shares := self._shares()):
            return None
        named = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        return (
            f"after {self.steps} steps its losses are what they were at the start ({named}). Look at --lr, and "
            "whether the discriminator is far ahead of it"
        )

    def state(self) -> dict[str, Any]:
        recent = {name: list(past) for name, past in self.recent.items()}
        return {"begun": self.begun, "recent": recent, "steps": self.steps, "learnt": self.learnt}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.begun, self.steps, self.learnt = dict(state["begun"]), state["steps"], state["learnt"]
        self.recent = {name: deque(past, maxlen=self.RECENT) for name, past in state["recent"].items()}


@dataclass(frozen=True)
class Translation:
    """One direction in a sample grid: inputs, outputs and, in paired data, targets; each (C, H, W) in [-1, 1]."""

    name: str
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    targets: Sequence[Tensor] = ()


def output_equals_input(seen: Translation, least: float = 0.02) -> str | None:
    """Mean |output - input| below 0.02 of the range, 5 levels of 255: less than a look could tell apart.

    Silent in pairs whose target is nearly the input too.
    """
    distance = _distance(seen.outputs, seen.inputs)
    wanted = _distance(seen.targets, seen.inputs) if seen.targets else None
    if distance is None or distance >= least or (wanted is not None and wanted < 2 * least):
        return None
    return (
        f"{seen.name} changes its input by {distance:.1%} of the range. Less --lambda-identity, or a discriminator "
        "that sees more (--discriminator), may help"
    )


def colours_inverted(seen: Translation, most: float = -0.5) -> str | None:
    """Brightness of output and input (in paired data, target) correlate below -0.5: light became dark.

    Two generators that both invert agree with each other, so that a cycle loss does not mind.
    """
    other = seen.targets or seen.inputs
    correlation = statistics.fmean(map(_correlation, seen.outputs, other))
    if not correlation < most:
        return None
    against = "target" if seen.targets else "input"
    return (
        f"{seen.name} is light where its {against} is dark (correlation {correlation:.2f}). Unless the domains "
        "are so, start again, with another --seed or more --lambda-identity"
    )


def one_output(seen: Translation, least: float = 0.05) -> str | None:
    """The outputs differ from their mean by less than 5 % of what the inputs do from theirs. Needs two inputs."""
    inputs, outputs = _spread(seen.inputs), _spread(seen.outputs)
    if len(seen.inputs) < 2 or inputs == 0 or outputs >= least * inputs:
        return None
    return (
        f"{seen.name} shows the same for {len(seen.inputs)} different inputs (they differ {outputs / inputs:.1%} "
        "as much as those). The generator has collapsed: go back to a state before, or start again with a smaller --lr"
    )


PICTURE_DETECTORS = {SAME: output_equals_input, INVERTED: colours_inverted, COLLAPSED: one_output}


def _distance(some: Sequence[Tensor], others: Sequence[Tensor]) -> float | None:
    """Mean absolute difference of intensities, 0 to 1; None for pictures that cannot be compared."""
    if not some or any(a.shape != b.shape for a, b in zip(some, others, strict=True)):
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


def flat(pictures: Tensor, levels: float = 4.0) -> list[bool]:
    """Which of the pictures (N, C, H, W) in [-1, 1], on the CPU, are of one colour: no channel spans more than 4 of
    255 levels.

    Looks at about 32 x 32 of their pixels, which takes microseconds.
    """
    few = pictures.numpy()[..., :: max(1, pictures.shape[-2] // 32), :: max(1, pictures.shape[-1] // 32)]
    spans = few.max(axis=(2, 3)) - few.min(axis=(2, 3))  # in numpy, whose calls cost less than torch's
    return [bool(span <= levels / 127.5) for span in spans.max(axis=1)]


@dataclass
class FlatCrops:
    """Crops of one colour, in a generator with instance norm, which turns each of them into the same picture.

    Ill when more than 10 % of the last `WINDOW` crops are flat: each is a step from which nothing is learnt.
    """

    WINDOW, LEAST = 100, 40
    SHARE = 0.1

    crops: deque[bool] = field(default_factory=lambda: deque(maxlen=FlatCrops.WINDOW))
    found: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=3))

    def observe(self, flats: Iterable[bool], samples: Iterable[int], side: int) -> None:
        """Which of the crops are flat, which samples they are, and of which side: 0 for `batch.a`, 1 for `batch.b`.

        `found` has the last that were flat.
        """
        for is_flat, sample in zip(flats, samples, strict=True):
            self.crops.append(is_flat)
            if is_flat:
                self.found.append((sample, side))

    def complaint(self, names: Iterable[str] = ()) -> str | None:
        count = len(self.crops)
        if count < self.LEAST or sum(self.crops) <= self.SHARE * count:
            return None
        return (
            f"{sum(self.crops)} of the last {count} crops are of one colour, and instance norm makes the same picture "
            f"of each ({'; '.join(names)}). A smaller --load-size, a larger --crop-size or --norm batch may help, or "
            "leaving such pictures out"
        )

    def state(self) -> dict[str, list[Any]]:
        return {"crops": list(self.crops), "found": [list(crop) for crop in self.found]}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.crops = deque(state["crops"], maxlen=self.WINDOW)
        self.found = deque(((sample, side) for sample, side in state["found"]), maxlen=3)


def not_finite(losses: Mapping[str, float], names: Sequence[str], damaged: Sequence[str]) -> str:
    """Why a step was skipped: `names` are its pictures, `damaged` those of them that hold NaN or infinity."""
    broken = [name for name, loss in losses.items() if not math.isfinite(loss)]
    where = f"losses {', '.join(broken)}" if broken else "gradients"
    if damaged:
        return f"{where}, step skipped; these pictures hold NaN or infinity: {'; '.join(damaged)}"
    return f"{where}, step skipped; its pictures, which are finite: {'; '.join(names)}"
