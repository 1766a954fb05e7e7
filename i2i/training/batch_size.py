"""The largest batch that fits, found before a training starts, by trials in processes of their own.

Batches of one and of two are measured, which says what each further image takes; the largest power of two that ought
to fit is tried, and halved until it does. The number found belongs into the run's options, so that it stays what it is
for as long as the run does: another batch size is another training.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from i2i.algorithms.algorithm import Algorithm
from i2i.config import read_yaml
from i2i.data.options import of_one_size
from i2i.device import choose_device
from i2i.errors import ResourceError, UsageError
from i2i.inference.memory import available
from i2i.machine import place
from i2i.terminal import say
from i2i.training.cost import Cost, OutOfMemory, cost
from i2i.training.state import States

LARGEST = 64
MARGIN = 0.9
"""The share of the memory that a training may take: its peak differs a little from step to step."""

Measure = Callable[[type[Algorithm], Any], Cost]
_shortest = partial(cost, steps=2, seconds=1.0)


def settled(algorithm: type[Algorithm], options: Any, measure: Measure = _shortest) -> Any:
    """`options` with a number for `batch_size` where that is auto: the run's own if it is resumed, else what fits.

    What is tried is said on the standard error stream. Raises `UsageError` where that cannot be found out, else as
    `fitting`.
    """
    if options.batch_size != "auto":
        return options
    if not of_one_size(options.preprocess):  # of whose pictures no two need be of one size
        return replace(options, batch_size=1)
    if options.micro_batches > 1:
        raise UsageError(f"batch_size = auto: finds what fits without micro_batches = {options.micro_batches}")
    if options.run is not None and States(options.run).steps():  # it is resumed
        return replace(options, batch_size=read_yaml(options.run / "config.yaml").get("batch_size", 1))
    if place().world_size > 1:
        raise UsageError("batch_size = auto: not found out by several processes; find it with one, and name it to all")
    if (room := _room(choose_device(options.device))) is None:
        raise UsageError("batch_size = auto: this system does not tell how much memory is free; name a number")
    found = fitting(algorithm, options, room, measure=measure)
    say(f"batch_size = auto: {found.batch_size} of {found}")
    return replace(options, batch_size=found.batch_size)


def _room(device: torch.device) -> int | None:
    """The bytes that a training on that device could have; None where that is not known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return available() if device.type == "cpu" else None


@dataclass(frozen=True)
class Fitting:
    """The batch size to train with; `peaks`: of each that was tried the peak of memory, None where it did not fit."""

    batch_size: int
    peaks: dict[int, int | None]

    def __str__(self) -> str:
        return ", ".join(
            f"{size}: {'does not fit' if peak is None else f'{peak / 1e9:.2f} GB'}" for size, peak in self.peaks.items()
        )


def fitting(
    algorithm: type[Algorithm],
    options: Any,
    room: int,
    largest: int = LARGEST,
    measure: Measure = _shortest,
    tell: Callable[[int, int | None], object] = lambda size, peak: None,
) -> Fitting:
    """The largest power of two, up to `largest`, that ought to fit by the first two trials, and does.

    Its batches take at most `MARGIN` of `room` bytes.

    `options` are those of a training, of whose batch size nothing is taken; each batch is measured in one part.
    `tell` gets each size tried and its peak. Raises `ResourceError` with the way out if not even one image fits;
    whatever the training would raise before it starts.
    """
    peaks: dict[int, int | None] = {}

    def fits(size: int) -> bool:
        try:
            peaks[size] = measure(algorithm, replace(options, batch_size=size, micro_batches=1)).peak_bytes
        except OutOfMemory:
            peaks[size] = None
        tell(size, peaks[size])
        peak = peaks[size]
        return peak is not None and peak <= MARGIN * room

    if not fits(1):
        found = "more than there is" if peaks[1] is None else f"{peaks[1] / 1e9:.2f} GB"
        raise ResourceError(
            f"batch_size = auto: one image of {options.crop_size}x{options.crop_size} takes {found} of the "
            f"{MARGIN * room / 1e9:.2f} GB that may be used: a smaller --crop-size, --low-memory or --precision bf16 "
            "takes less"
        )
    best = 1
    if largest >= 2 and fits(2):
        best = 2
        size = _predicted(peaks, room, largest)
        while size > best:
            if fits(size):
                best = size
            else:
                size //= 2
    return Fitting(best, peaks)


def _predicted(peaks: dict[int, int | None], room: int, largest: int) -> int:
    """The largest power of two that ought to fit, as batches of one and two tell."""
    one, two = peaks[1], peaks[2]
    assert one is not None and two is not None
    each = max(1, two - one)
    count = min(largest, 1 + (MARGIN * room - one) / each)
    return 1 << (int(count).bit_length() - 1)
