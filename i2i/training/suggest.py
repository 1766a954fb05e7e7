"""What to change so that a training fits into a memory limit: a small search, every step of it measured.

It goes from what changes the result least to what changes it most, adding one change after the other until it fits,
and then takes back those that turn out not to be needed.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from i2i.algorithms.algorithm import Algorithm
from i2i.errors import UsageError
from i2i.training.cost import Cost, OutOfMemory, cost

MARGIN = 0.95  # of the limit is aimed at, where memory is predicted
SHRINK = 0.85
CROPS_TRIED = 3

Changes = dict[str, Any]


@dataclass(frozen=True)
class Attempt:
    """Changed options, and what the training then costs; None if it does not fit into the machine."""

    changes: Changes
    effect: str
    cost: Cost | None
    limit: int

    @property
    def fits(self) -> bool:
        return self.cost is not None and self.cost.peak_bytes <= self.limit

    @property
    def flags(self) -> str:
        """The changes as they are typed."""
        words = [f"--{k.replace('_', '-')}" + ("" if v is True else f" {v}") for k, v in self.changes.items()]
        return " ".join(words)


def suggest(
    algorithm: type[Algorithm],
    options: Any,
    limit: int,
    tell: Callable[[Attempt], None] = lambda attempt: None,
    measure: Callable[[type[Algorithm], Any], Cost] = cost,
) -> list[Attempt]:
    """What was tried, in order, from no change on; those that fit say so, and the last of them is the one to take.

    Raises `UsageError` if the limit is below what the networks take however small the pictures are.
    """
    tried: list[Attempt] = []

    def attempt(changes: Changes, effects: list[str]) -> Attempt:
        try:
            measured: Cost | None = measure(algorithm, replace(options, **changes))
        except OutOfMemory:
            measured = None
        tried.append(Attempt(changes, "; ".join(effects), measured, limit))
        tell(tried[-1])
        return tried[-1]

    latest = attempt({}, [])
    _check_possible(latest, limit)
    kept: list[tuple[Changes, str]] = []
    for step in _steps(options):
        if latest.fits:
            break
        kept.append(step)
        latest = attempt(*_together(kept))
        _check_possible(latest, limit)
    if not latest.fits:
        with contextlib.suppress(UsageError):  # the data may know a smallest size of their own
            for smaller in _crops(options, tried, limit):
                latest = attempt(*_together([*kept, smaller]))
                if latest.fits:
                    kept.append(smaller)
                    break
    if latest.fits:
        _take_back(kept, attempt)
    return tried


def _together(kept: list[tuple[Changes, str]]) -> tuple[Changes, list[str]]:
    changes: Changes = {}
    for more, _ in kept:
        changes |= more
    if changes.get("batch_size") == 1:  # a batch of one has one part
        changes.pop("micro_batches", None)
    return changes, [effect for _, effect in kept]


def _take_back(kept: list[tuple[Changes, str]], attempt: Callable[[Changes, list[str]], Attempt]) -> None:
    """Without each earlier change in turn: the last one alone may do."""
    for one in kept[:-1]:
        fewer = [other for other in kept if other is not one]
        if _together(fewer)[0] != _together(kept)[0] and attempt(*_together(fewer)).fits:
            kept.remove(one)


def _steps(options: Any) -> Iterator[tuple[Changes, str]]:
    """Changes short of smaller pictures, from the mildest on."""
    if getattr(options, "low_memory", None) is False:
        yield {"low_memory": True}, "the same gradients, computed again instead of stored"
    if options.batch_size > options.micro_batches:
        yield {"micro_batches": options.batch_size}, "the same result but for batch norm, in parts"
    if options.precision == "fp32":
        yield {"precision": "bf16"}, "coarser rounding"
    if options.batch_size > 1:
        yield {"batch_size": 1, "micro_batches": 1}, "more and smaller steps: another training"


def _crops(options: Any, tried: list[Attempt], limit: int) -> Iterator[tuple[Changes, str]]:
    """Smaller and smaller crops, the first as memory in proportion to the pixels predicts it from what was measured."""
    if options.preprocess in ("scale_width", "none"):
        return
    channels = options.channels_a, options.channels_b
    multiple, minimum = options.size_limits(*channels if options.direction == "a2b" else channels[::-1])
    least = max(multiple, math.ceil(minimum / multiple) * multiple)
    measured = [attempt.cost for attempt in tried if attempt.cost is not None]
    share = SHRINK
    if measured:
        fixed = measured[-1].measured["unavoidable_bytes"]
        share = math.sqrt(max(0.0, MARGIN * limit - fixed) / max(1, measured[-1].peak_bytes - fixed))
    before = options.crop_size
    for _ in range(CROPS_TRIED):
        crop = max(least, int(options.crop_size * share) // multiple * multiple)
        if crop >= before:
            return
        load = max(crop, round(options.load_size * crop / options.crop_size))
        yield {"crop_size": crop, "load_size": load}, "smaller pictures: another training"
        before, share = crop, share * SHRINK


def _check_possible(attempt: Attempt, limit: int) -> None:
    fixed = attempt.cost.measured["unavoidable_bytes"] if attempt.cost else 0
    if fixed > limit:
        raise UsageError(
            f"memory_limit: {limit / 1e9:.2f} GB are too little for anything: the program, the weights, their "
            f"gradients and Adam's moments alone take {fixed / 1e9:.2f} GB (measured); smaller networks, such as "
            "--ngf 32 --ndf 32, take less"
        )
