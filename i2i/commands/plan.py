"""The cost of a training on this machine, before it starts: time, memory, disk; and options that would take less.

i2i plan cyclegan --data datasets/monet2photo
i2i plan pix2pix --config configs/pix2pix_facades.yaml --memory-limit 4GB
i2i plan cyclegan --data toy --memory-limit 900MB --json

After the name of the algorithm come the options of its training. A few steps are trained in a process of their own; no
run folder is made.
"""

import dataclasses
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Gt

from i2i.config import narrowed
from i2i.errors import UsageError
from i2i.terminal import say

if TYPE_CHECKING:
    from i2i.tools.planner import Attempt
    from i2i.training.estimate import Cost

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to plan; everything else is the training's."""

    memory_limit: str = ""
    """Search for options with which the training takes at most so much, such as 4GB or 900MiB: of the GPU's memory
    where it runs on one, else of the process's."""
    measure_steps: Annotated[int, Ge(2)] = 5
    """Steps to measure, after a warm-up."""
    measure_seconds: Annotated[float, Gt(0)] = 15.0
    """Measure fewer steps, but at least two, if they take longer than this."""
    json: bool = False
    """Print JSON instead of text."""


def options_class(name: str) -> type[Any]:
    """The options of a plan for the training by the algorithm of that name."""
    from i2i.algorithms import ALGORITHMS
    from i2i.training import options

    return options.options_class(ALGORITHMS[name], Options)


def main(name: str, options: Any) -> None:
    from i2i.algorithms import ALGORITHMS

    plan(ALGORITHMS[name], options)


def size(text: str) -> int:
    """Bytes of `4GB`, `900 MiB`, `2.5g`. Raises `UsageError`."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", text.lower())
    if not found or float(found[1]) == 0:
        raise UsageError(f"memory_limit = {text!r}: expected an amount of memory, such as 4GB or 900MiB")
    return int(float(found[1]) * UNITS[found[2] or ""])


def plan(algorithm: Any, options: Any) -> None:
    from i2i.tools.planner import suggest
    from i2i.training.estimate import estimate, resolve_batch_size
    from i2i.training.launch import open_data
    from i2i.training.options import options_class

    limit = size(options.memory_limit) if options.memory_limit else None
    wanted = resolve_batch_size(algorithm, narrowed(options, options_class(algorithm)))
    open_data(algorithm, dataclasses.replace(wanted, cache=None))

    def measured(algorithm: Any, options_: Any) -> "Cost":
        return estimate(algorithm, options_, options.measure_steps, options.measure_seconds)

    say(f"training a few steps of {algorithm.name} …")
    attempts: list[Attempt] = []
    if limit is not None:
        attempts = suggest(algorithm, wanted, limit, lambda attempt: say(line(attempt)), measured)
    first = attempts[0].cost if attempts else measured(algorithm, wanted)
    if options.json:
        print(json.dumps(as_json(algorithm.name, first, attempts, limit), indent=1))
    else:
        print("\n".join([*text(algorithm.name, first), *advice(attempts, limit)]))
    if attempts and not any(attempt.fits for attempt in attempts):
        least = min((a.cost.peak_bytes for a in attempts if a.cost), default=0)
        raise UsageError(
            f"memory_limit = {options.memory_limit}: nothing that was tried fits"
            + (f", the least was {gb(least)}" if least else "")
            + "; smaller networks, such as --ngf 32 --ndf 32, take less"
        )


def text(name: str, cost: "Cost | None") -> list[str]:
    if cost is None:
        return [f"{name}: as it is, it does not fit into this machine's memory"]
    m = cost.measured
    height, width = m["shape"][2:]
    looking = f", and {cost.validation_hours + cost.sample_hours:.2g} h of validation and samples (estimated)"
    return [
        f"{name} on {m['device']}, {m['threads']} threads, {width}x{height} px, batch {m['shape'][0]}",
        f"time    {cost.seconds_per_step:.3g} s a step (measured, median of {m['steps_measured']}), "
        f"{m['seconds_waiting']:.2g} s of it waiting for pictures",
        f"        {cost.steps:,} steps: {hours(cost.training_hours)} (computed){looking}",
        f"memory  {gb(m['peak_bytes'])} at most (measured)"
        + (f", and {gb(m['worker_bytes'])} of data workers" if m["worker_bytes"] else ""),
        f"disk    {gb(m['state_bytes'])} a state, {gb(cost.disk_bytes)} in all (computed)",
    ]


def advice(attempts: list["Attempt"], limit: int | None) -> list[str]:
    if limit is None:
        return []
    lines = [f"limit   {gb(limit)}; tried, each measured:", *(f"        {line(attempt)}" for attempt in attempts)]
    if not (fitting := [attempt for attempt in attempts if attempt.fits]):
        return lines
    best = fitting[-1]
    what = f"take {best.flags}" if best.changes else "it fits as it is"
    return [*lines, f"        {what}" + (f" ({best.effect})" if best.effect else "")]


def line(attempt: "Attempt") -> str:
    what = attempt.flags or "as it is"
    if attempt.cost is None:
        return f"{what}: out of memory"
    fits = "fits" if attempt.fits else "does not fit"
    cost = attempt.cost
    return f"{what}: {gb(cost.peak_bytes)}, {fits}; {cost.seconds_per_step:.3g} s a step, {hours(cost.hours)}"


def as_json(name: str, cost: "Cost | None", attempts: list["Attempt"], limit: int | None) -> dict[str, Any]:
    fitting = [attempt for attempt in attempts if attempt.fits]
    return {
        "algorithm": name,
        "cost": cost.to_mapping() if cost else None,
        "memory_limit": limit,
        "tried": [
            {
                "changes": attempt.changes,
                "flags": attempt.flags,
                "effect": attempt.effect,
                "fits": attempt.fits,
                "cost": attempt.cost.to_mapping() if attempt.cost else None,
            }
            for attempt in attempts
        ],
        "suggestion": fitting[-1].changes if fitting else None,
    }


def gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def hours(count: float) -> str:
    if count < 1:
        return f"{count * 60:.2g} min"
    return f"{count:.3g} h" if count < 72 else f"{count:,.0f} h ({count / 24:.1f} days)"
