"""Train a network, or plan to: `i2i train ALGORITHM`, `scripts/train_ALGORITHM.py`, `i2i plan ALGORITHM`.

The options of a training are those of its algorithm and `RunOptions`; `--run` is `runs/ALGORITHM` by default. A plan is
the cost of a training on this machine, before it starts: hours, memory, disk; and options that take less memory. It
takes the options of the training, and trains a few steps in a process of their own; no run folder is made.
"""

import dataclasses
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt

from i2i.algorithms import ALGORITHMS
from i2i.algorithms.distill import STYLE_OR_PATH
from i2i.commands.options import POSITIONAL
from i2i.config import narrowed
from i2i.data.options import FolderOrURL, batch_size
from i2i.errors import UsageError
from i2i.terminal import say
from i2i.training import estimate
from i2i.training.estimate import Cost
from i2i.training.launch import open_data, train
from i2i.training.options import RunOptions, less_memory
from i2i.training.options import options_class as algorithm_options

__all__ = ["options_class", "plan", "train"]

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


@dataclass(frozen=True, kw_only=True)
class PlanCommand:
    """How to plan; everything else is the training's."""

    memory_limit: str = ""
    """Say whether the training takes at most so much, such as 4GB or 900MiB (of the GPU's memory where it runs on one),
    and which options take less."""
    measure_steps: Annotated[int, Ge(2)] = 5
    """Steps to measure, after a warm-up."""
    measure_seconds: Annotated[float, Gt(0)] = 15.0
    """Measure fewer steps, but at least two, if they take longer than this."""
    json: bool = False
    """Print JSON instead of text."""


@cache
def options_class(command: str, name: str) -> type[RunOptions]:
    """The options of `train` or `plan` by the algorithm of that name."""
    if command == "plan":
        return algorithm_options(ALGORITHMS[name], PlanCommand)
    fields: dict[str, Any] = {"run": (FolderOrURL | None, Path("runs") / name)}
    if name == "distill":  # its teacher comes first, without a flag
        fields["teacher"] = Annotated[str, STYLE_OR_PATH, POSITIONAL], ""
    return algorithm_options(ALGORITHMS[name], **fields)


def plan(name: str, options: RunOptions) -> None:
    algorithm, how = ALGORITHMS[name], narrowed(options, PlanCommand)
    limit = size(how.memory_limit) if how.memory_limit else None
    wanted = estimate.resolve_batch_size(algorithm, narrowed(options, algorithm_options(algorithm)))
    open_data(algorithm, dataclasses.replace(wanted, cache=None))
    say(f"training a few steps of {name} …")
    cost: Cost | None
    try:
        cost = estimate.estimate(algorithm, wanted, how.measure_steps, how.measure_seconds)
    except estimate.OutOfMemory:
        if limit is None:
            raise
        cost = None
    fits = limit is None or (cost is not None and cost.peak_bytes <= limit)
    tips = [f"{way}: {change}" for way, change in less_memory(wanted, batch_size(wanted)).items()]
    if how.json:
        found = {"cost": cost.to_mapping() if cost else None, "memory_limit": limit, "fits": fits, "tips": tips}
        print(json.dumps({"algorithm": name, **found}, indent=1))
    else:
        print("\n".join(text(name, cost)))
    if not fits:
        peak = "more than this machine has" if cost is None else gb(cost.peak_bytes)
        raise UsageError(f"memory_limit = {how.memory_limit}: the training takes {peak}. Take less with:", *tips)


def size(text: str) -> int:
    """Bytes of `4GB`, `900 MiB`, `2.5g`. Raises `UsageError`."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", text.lower())
    if not found or float(found[1]) == 0:
        raise UsageError(f"memory_limit = {text!r}: expected an amount of memory, such as 4GB or 900MiB")
    return int(float(found[1]) * UNITS[found[2] or ""])


def text(name: str, cost: Cost | None) -> list[str]:
    if cost is None:
        return [f"{name}: does not fit into this machine's memory"]
    m = cost.measured
    height, width = m["shape"][2:]
    looking = f", and {cost.validation_hours + cost.sample_hours:.2g} h of validation and samples (estimated)"
    workers = f", and {gb(m['worker_bytes'])} of data workers" if m["worker_bytes"] else ""
    return [
        f"{name} on {m['device']}, {m['threads']} threads, {width}x{height} px, batch {m['shape'][0]}",
        f"time    {cost.seconds_per_step:.3g} s a step (measured, median of {m['steps_measured']}), "
        f"{m['seconds_waiting']:.2g} s of it waiting for pictures",
        f"        {cost.steps:,} steps: {hours(cost.training_hours)} (computed){looking}",
        f"memory  {gb(m['peak_bytes'])} at most (measured){workers}",
        f"disk    {gb(m['state_bytes'])} a state, {gb(cost.disk_bytes)} in all (computed)",
    ]


def gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def hours(count: float) -> str:
    if count < 1:
        return f"{count * 60:.2g} min"
    return f"{count:.3g} h" if count < 72 else f"{count:,.0f} h ({count / 24:.1f} days)"
