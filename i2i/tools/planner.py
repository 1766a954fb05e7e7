"""Which options make a training fit into a memory limit: a small search, every step of it measured.

It goes from the change that alters the result least to the one that alters it most, and adds one after the other until
the training fits.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from i2i.algorithms.algorithm import AnyAlgorithm
from i2i.data.options import of_one_size
from i2i.errors import I2IError, UsageError
from i2i.training.estimate import Cost, OutOfMemory, estimate
from i2i.training.options import RunOptions
from i2i.training.step import of_parts

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
        return " ".join(_flag(name.replace("_", "-"), value) for name, value in self.changes.items())


def _flag(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    return f"--{name} {value}"


def suggest(
    algorithm: type[AnyAlgorithm],
    options: RunOptions,
    limit: int,
    report: Callable[[Attempt], None] = lambda attempt: None,
    measure: Callable[[type[AnyAlgorithm], RunOptions], Cost] = estimate,
) -> list[Attempt]:
    """The attempts, in order, from no change on. The last that fits is the one to take.

    Raises `UsageError` if the limit is below what the networks take however small the pictures are.
    """
    tried: list[Attempt] = []

    def attempt(steps: list[tuple[Changes, str]]) -> Attempt | None:
        """None if these changes do not apply, such as low memory to a U-Net."""
        changes = _together(steps, options)
        try:
            measured: Cost | None = measure(algorithm, replace(options, **changes))
        except OutOfMemory:
            measured = None
        except I2IError as error:  # the exit code says which kind of error the measurement had
            if not changes or error.exit_code != UsageError.exit_code:
                raise
            return None
        tried.append(Attempt(changes, "; ".join(effect for _, effect in steps), measured, limit))
        report(tried[-1])
        return tried[-1]

    latest = attempt([])
    assert latest is not None, "no change always applies"
    _check_possible(latest, limit)
    kept: list[tuple[Changes, str]] = []
    for step in _steps(options):
        if latest.fits:
            break
        if made := attempt([*kept, step]):
            kept.append(step)
            latest = made
            _check_possible(latest, limit)
    if not latest.fits:
        for smaller in _crops(options, tried, limit):
            if not (made := attempt([*kept, smaller])):
                break  # the data may know a smallest size of their own
            if made.fits:
                break
    return tried


def _together(steps: list[tuple[Changes, str]], options: Any) -> Changes:
    changes: Changes = {}
    for more, _ in steps:
        changes |= more
    # a batch of one has one part
    if changes.get("batch_size") == 1 and options.micro_batches == 1:
        changes.pop("micro_batches", None)
    return changes


def _steps(options: Any) -> Iterator[tuple[Changes, str]]:
    """Changes short of smaller pictures, from the mildest on."""
    if getattr(options, "low_memory", None) is False and not options.compile:  # these two contradict each other
        yield {"low_memory": True}, "the same gradients, computed again instead of stored"
    if options.batch_size > options.micro_batches:
        yield {"micro_batches": options.batch_size}, of_parts(options)
    if options.precision == "fp32":
        yield {"precision": "bf16"}, "coarser rounding"
    if options.batch_size > 1:
        yield {"batch_size": 1, "micro_batches": 1}, "more and smaller steps: another training"


def _crops(options: Any, tried: list[Attempt], limit: int) -> Iterator[tuple[Changes, str]]:
    """Smaller and smaller crops, the first as memory in proportion to the pixels predicts it from what was measured."""
    if not of_one_size(options.preprocess):
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
