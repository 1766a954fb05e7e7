"""Watches over a training: hands each detector of `health` what it looks at, and says once per spell what is wrong."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from i2i.algorithms.algorithm import Algorithm
from i2i.data.pair import ImagePair, ImagePairs
from i2i.data.seeming import narrow
from i2i.data.slots import PixelPair
from i2i.errors import I2IError
from i2i.images import Pixels
from i2i.images.picture import white
from i2i.training import health, picture_health
from i2i.training.distributed import Processes
from i2i.training.logger import RunLog
from i2i.training.options import RunOptions

QUIET = 100
FIRST_LOOK = 50
EARLY_LOOKS = (100, 200)
REMEMBERED = 50
LISTED = 10


class Watch:
    """The spells of one run. An ailment is told when it is first seen, and is over after `QUIET` steps without it.

    Pictures are looked at from step `FIRST_LOOK` on, for before that a generator's outputs are all alike: those of
    the sample grids, and at the steps `EARLY_LOOKS` the same without a grid. That outputs equal inputs is told from
    the last of those on, for a generator may begin so and move away. What a loss is goes by its name: a
    discriminator's begins with the name of its network, penalties say so, and adversarial losses of a generator
    have `gan` in theirs.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        turns: Mapping[str, set[str]],
        data: ImagePairs,
        options: RunOptions,
        log: RunLog,
        processes: Processes,
    ) -> None:
        self.algorithm, self.turns, self.data, self.options = algorithm, turns, data, options
        self.log, self.processes = log, processes
        judges = algorithm.players().get("discriminator", [])
        self.discriminators = [n for n, net in algorithm.networks().items() if any(net is judge for judge in judges)]
        game = getattr(algorithm, "gan", None)
        self.saturated = health.Saturated(health.chance(game) if game else None)
        self.not_learning = health.NotLearning(learnt=bool(options.init_from))
        generators = algorithm.translators().values()
        self.normalises = not algorithm.from_noise and any(
            getattr(net.config, "norm", "") == "instance" for net in generators
        )
        self.flat = health.FlatCrops()
        self.spells: dict[str, list[int]] = {}  # ailment → since which step, last seen
        self.past: list[tuple[str, int, int]] = []
        self.skipped = 0
        self.blamed: list[str] = []  # pictures that hold NaN
        self.bad_since: tuple[int, list[str]] | None = None

    def crops(self, step: int, batch: ImagePair, images_seen: int) -> None:
        """The batch of step number `step`, on the CPU, before it goes to the device."""
        if not self.normalises:
            return
        first = images_seen + self.processes.rank * len(batch)
        for side, pictures in enumerate((batch.a,) if self.algorithm.paired else (batch.a, batch.b)):
            self.flat.observe(health.flat(pictures), range(first, first + len(batch)), side)
        complaint = self.flat.complaint()
        if complaint and health.FLAT not in self.spells:  # names are looked up for the message alone
            names = [self._name(t, side) for t, side in self.flat.found]
            complaint = self.flat.complaint(names, self._narrow())
        self._tell(step, health.FLAT, complaint)

    def _narrow(self) -> str:
        """Whether the pictures that were flat last have more than 8 bits, and use little of their range."""
        found = [pixels for t, side in self.flat.found if (pixels := self._pixels(t, side)) is not None]
        if not found or any(pixels.dtype == np.uint8 for pixels in found):
            return ""
        lows, highs = [int(pixels.min()) for pixels in found], [int(pixels.max()) for pixels in found]
        return narrow(min(lows), max(highs), white(found[0]))

    def _pixels(self, t: int, side: int) -> Pixels | None:
        """One side of sample t, once more, for it is a function of t; None of data that are not files."""
        look = getattr(self.data, "pixels", None)
        try:
            pair: PixelPair | None = look(t) if look else None
        except I2IError:
            return None
        return None if pair is None else (pair.a, pair.b)[side]

    def steps(self, lines: Sequence[dict[str, Any]]) -> None:
        """The log's lines of steps, in order, as they were fetched."""
        for line in lines:
            step, losses = line["step"], line["losses"]
            self.saturated.observe(self._judgements(losses))
            self._tell(step, health.SATURATED, self.saturated.complaint())
            names = self.turns.get("generator", set())
            self.not_learning.observe({n: v for n, v in losses.items() if n in names and _is_content(n)})
            self._tell(step, health.NOT_LEARNING, self.not_learning.complaint())
            self._finite(line)

    def _judgements(self, losses: Mapping[str, float]) -> dict[str, float]:
        """Discriminator → the sum of its losses, without penalties."""
        names = sorted(self.turns.get("discriminator", set()))  # in an order that is the same in every process
        found: dict[str, float] = {}
        for network in self.discriminators:
            own = [n for n in names if (n == network or n.startswith(f"{network}_")) and "penalty" not in n]
            if own and all(n in losses for n in own):
                found[network] = sum(losses[n] for n in own)
        return found

    def _finite(self, line: dict[str, Any]) -> None:
        step, losses = line["step"], line["losses"]
        if not line.get("skipped"):
            self.bad_since = None
            self._tell(step, health.NOT_FINITE, None)
            return
        self.skipped += 1
        if self.options.precision == "fp16" and all(map(math.isfinite, losses.values())):
            return  # the loss scale was too large: as it should be, now and then
        samples = range(line["images"] - self.options.batch_size * self.processes.world_size, line["images"])
        names = [self._name(t) for t in samples]
        self.bad_since = self.bad_since or (step, names)
        damaged = [self._name(t, side) for t in samples for side in self._sides_with_nan(t)]
        new = [name for name in damaged if name not in self.blamed]
        self.blamed += new
        first = health.NOT_FINITE not in self.spells
        aloud = len(self.blamed) <= LISTED if new else first and not damaged
        text = health.not_finite(losses, names, damaged)
        self._note(step, health.NOT_FINITE)
        self.log.health(step, health.NOT_FINITE, text, aloud, pictures=damaged or names)

    def look(self, step: int, rows: Sequence[Mapping[str, Tensor]]) -> None:
        """The rows of a sample grid, see `Observer.look`."""
        if step < FIRST_LOOK or not rows:
            return
        seen = self._translations(rows)
        for name, detect in picture_health.PICTURE_DETECTORS.items():
            if name == picture_health.SAME and step < EARLY_LOOKS[-1]:
                continue
            self._tell(step, name, "; ".join(filter(None, map(detect, seen))) or None)

    def _translations(self, rows: Sequence[Mapping[str, Tensor]]) -> list[picture_health.Translation]:
        found = []
        for source, target in (("A", "B"), ("B", "A")):
            names = (f"real_{source}", f"fake_{target}", f"real_{target}")
            inputs, outputs, reals = ([row[name] for row in rows if name in row] for name in names)
            if not outputs or not (inputs or reals):
                continue
            targets = reals if self.algorithm.paired else []
            others = [] if inputs else reals
            found.append(picture_health.Translation(f"fake_{target}", inputs, outputs, targets, others))
        return found

    def _tell(self, step: int, name: str, complaint: str | None) -> None:
        if complaint:
            if name not in self.spells:
                self.log.health(step, name, complaint)
            self._note(step, name)
        elif name in self.spells and step - self.spells[name][1] >= QUIET:
            since, last = self.spells.pop(name)
            self.past = [*self.past, (name, since, last)][-REMEMBERED:]
            self.log.health(step, name, f"no longer, since step {last}", over=True)
        self.log.ailments = list(self.spells)

    def _note(self, step: int, name: str) -> None:
        self.spells.setdefault(name, [step, step])[1] = step
        self.log.ailments = list(self.spells)

    def blame(self) -> str:
        """`, from step 7 on (a.png)` if the last steps were skipped, for the message of a training that diverged."""
        return f", from step {self.bad_since[0]} on ({'; '.join(self.bad_since[1])})" if self.bad_since else ""

    def summary(self, step: int) -> None:
        """Say what was wrong, and what still is."""
        told = [f"{name} from step {since} to {last}" for name, since, last in self.past]
        told += [f"{name} since step {since}" for name, (since, _) in self.spells.items()]
        if self.skipped:
            told.append(f"{self.skipped} steps skipped" if self.skipped > 1 else "1 step skipped")
        if told:
            self.log.event(step, f"health of this training: {'; '.join(told)}")

    def _name(self, t: int, side: int | None = None) -> str:
        """The files of sample t; that of one side (0 for `a`, 1 for `b`) where they can be told apart."""
        names = getattr(self.data, "names", None)
        if names is None:  # drawn, not read
            return f"sample {t}"
        both = str(names(t)).split(", ")
        if side is None or len(both) != 2:
            return ", ".join(both)
        return both[side if self.options.direction == "a2b" else 1 - side]

    def _sides_with_nan(self, t: int) -> list[int]:
        try:
            pair = self.data[t]  # once more: it is a function of t
        except I2IError:
            return []
        return [side for side, picture in enumerate((pair.a, pair.b)) if not bool(torch.isfinite(picture).all())]

    def state(self) -> dict[str, Any]:
        return {
            "saturated": self.saturated.state(),
            "not_learning": self.not_learning.state(),
            "flat": self.flat.state(),
            "spells": self.spells,
            "past": [list(spell) for spell in self.past],
            "skipped": self.skipped,
            "blamed": self.blamed,
            "bad_since": list(self.bad_since) if self.bad_since else None,
        }

    def load_state(self, state: dict[str, Any] | None) -> None:
        """Go on watching; a state from before there was a watch says nothing of how its training began."""
        if state is None:
            self.not_learning.learnt = True
            return
        self.saturated.load_state(state["saturated"])
        self.not_learning.load_state(state["not_learning"])
        self.flat.load_state(state["flat"])
        self.spells = {name: list(spell) for name, spell in state["spells"].items()}
        self.past = [(name, since, last) for name, since, last in state["past"]]
        self.skipped, self.blamed = state["skipped"], list(state["blamed"])
        self.bad_since = tuple(state["bad_since"]) if state["bad_since"] else None
        self.log.ailments = list(self.spells)


def _is_content(name: str) -> bool:
    """Whether a generator's loss says how far its pictures are from what they should be: not one that goes by a
    discriminator, which changes, as feature matching does too; nor those of stability and grid, least at first."""
    return not any(part in name for part in ("gan", "_FM", "stability", "grid"))
