"""What ails a training, told from numbers and pictures that are there anyway.

Each detector says in plain words what is wrong, or None. Those here see losses that the log has fetched, and a few
pixels of each batch before it goes to the device, so that nothing waits for it; what the rows of a sample grid tell
is in `picture_health.py`.
"""

import math
import statistics
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from i2i.losses.adversarial import Adversarial

SATURATED = "discriminator saturated"
NOT_LEARNING = "generator not learning"
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
    In runs that learn it stayed above 15 % in 8,000 steps on facades, and above 6 % in 11,753 on monet2photo; beside
    a generator that stands still it is below 4 % by step 150.
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

    Told by comparing the last `RECENT` steps with the first `FIRST`, by their medians and ranks, for a start may
    have spikes. A batch of other pictures has another loss, so that a fall counts only if it is more than 5 % and,
    by the rank sums, `ERRORS` standard errors, or to below `PLAIN` of the start, for `STAYS` steps on end. A generator
    that learns halves them in that time. Asked only until one has fallen so far, for later they may well be flat;
    adversarial losses say nothing, as both sides move. A loss that begins below `LEAST` has nowhere to fall: one of
    0.5 is, at a weight of 10, 2.5 % of the pictures' range.
    """

    FIRST, RECENT, AFTER = 20, 50, 150
    SHARE, PLAIN, ERRORS, STAYS = 0.95, 0.7, 3.0, 10
    LEAST = 0.5

    begun: dict[str, list[float]] = field(default_factory=dict)
    recent: dict[str, deque[float]] = field(default_factory=dict)
    steps: int = 0
    fallen: int = 0
    learnt: bool = False

    def observe(self, losses: Mapping[str, float]) -> None:
        """The generator's losses of one step, the adversarial ones left out."""
        self.steps += 1
        if self.learnt:
            return
        for name, loss in losses.items():
            if not math.isfinite(loss) or loss == 0:  # as that of pairs is in a batch without any: it says nothing
                continue
            if len(begun := self.begun.setdefault(name, [])) < self.FIRST:
                begun.append(loss)
            self.recent.setdefault(name, deque(maxlen=self.RECENT)).append(loss)
        if self.steps >= self.FIRST + self.RECENT:
            self.fallen = self.fallen + 1 if any(map(self._has_fallen, self.begun)) else 0
            self.learnt = self.fallen >= self.STAYS

    def _has_fallen(self, name: str) -> bool:
        begun, recent = self.begun[name], self.recent[name]
        if len(begun) < self.FIRST or len(recent) < self.RECENT:
            return False
        before, now = statistics.median(begun), statistics.median(recent)
        return now < self.PLAIN * before or (now < self.SHARE * before and _rank_sum(begun, recent) > self.ERRORS)

    def _shares(self) -> dict[str, float]:
        """Loss → what is left of it, of those seen often enough; none if one of them began with nothing to learn."""
        often = [name for name, past in self.recent.items() if len(past) == self.RECENT]
        medians = {n: (statistics.median(self.begun[n]), statistics.median(self.recent[n])) for n in often}
        if any(before < self.LEAST for before, _ in medians.values()):
            return {}
        return {name: now / before for name, (before, now) in medians.items()}

    def complaint(self) -> str | None:
        if self.learnt or self.steps < self.AFTER or not (shares := self._shares()):
            return None
        if min(shares.values()) < self.PLAIN:
            return None  # not for long enough
        named = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        return (
            f"after {self.steps} steps its losses {self._told(shares)} ({named} of the start). Look at --lr, and "
            "whether the discriminator is far ahead of it"
        )

    def _told(self, shares: Mapping[str, float]) -> str:
        if min(shares.values()) < self.SHARE:
            return "have fallen by no more than they differ from picture to picture"
        return "are what they were at the start" if max(shares.values()) < 2 - self.SHARE else "have not fallen"

    def state(self) -> dict[str, Any]:
        recent = {name: list(past) for name, past in self.recent.items()}
        return {
            "begun": self.begun,
            "recent": recent,
            "steps": self.steps,
            "fallen": self.fallen,
            "learnt": self.learnt,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.begun, self.steps, self.learnt = dict(state["begun"]), state["steps"], state["learnt"]
        self.fallen = state.get("fallen", 0)
        self.recent = {name: deque(past, maxlen=self.RECENT) for name, past in state["recent"].items()}


def _rank_sum(higher: Iterable[float], lower: Iterable[float]) -> float:
    """By how many standard errors the one sample lies above the other (Mann & Whitney 1947), whatever its outliers."""
    a, b = np.array(list(higher)), np.array(list(lower))
    above = float((a[:, None] > b).sum() + 0.5 * (a[:, None] == b).sum())
    return (above - len(a) * len(b) / 2) / math.sqrt(len(a) * len(b) * (len(a) + len(b) + 1) / 12)


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

    def complaint(self, names: Iterable[str] = (), narrow: str = "") -> str | None:
        """`narrow` says of the last that were flat that their numbers use a small part of their range, if so."""
        count = len(self.crops)
        if count < self.LEAST or sum(self.crops) <= self.SHARE * count:
            return None
        if narrow:
            return (
                f"{sum(self.crops)} of the last {count} crops span at most 4 of 255 levels, as their pictures "
                f"({'; '.join(names)}) have {narrow}"
            )
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
