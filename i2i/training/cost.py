"""What a training will cost on this machine, before it is paid: time, memory, disk.

Seconds and memory are measured, by training a few steps in a process of its own (`trial`); what follows from them
for the whole training is computed, and named so.
"""

import dataclasses
import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from i2i import machine
from i2i.algorithms.algorithm import Algorithm
from i2i.config import to_mapping
from i2i.errors import I2IError, ResourceError


class OutOfMemory(ResourceError):
    """The trial did not fit into this machine."""


@dataclass(frozen=True)
class Cost:
    """`measured` is the answer of the trial (see `trial.measure`); the properties are computed from it."""

    options: Any
    measured: dict[str, Any]

    @property
    def seconds_per_step(self) -> float:
        return float(self.measured["seconds_per_step"])

    @property
    def peak_bytes(self) -> int:
        """The most memory at a time: of the training process, or of the accelerator."""
        return int(self.measured["peak_bytes"])

    @property
    def steps(self) -> int:
        return math.ceil(self.measured["total_images"] / self.measured["images_per_step"])

    @property
    def training_hours(self) -> float:
        return self.steps * self.seconds_per_step / 3600

    @property
    def validation_hours(self) -> float:
        """A picture of a validation is taken to cost what a row of a sample grid did."""
        if not self.options.validate_every:
            return 0.0
        period, step = self.options.validate_every * self.measured["epoch_images"], self.measured["images_per_step"]
        count, before = (steps * step // period for steps in (self.steps, self.steps - 1))
        if count == before:  # none is due after the last step, which is validated anyway
            count += 1
        count = min(count, self.steps)  # a step that is longer than the period ends in one validation
        return float(count * self.measured["validation_images"] * self.measured["seconds_per_look"] / 3600)

    @property
    def hours(self) -> float:
        return self.training_hours + self.validation_hours

    @property
    def disk_bytes(self) -> int:
        """Of the run folder: its states at the end, one of which is being replaced, and its model files."""
        best = 1 if self.validates else 0
        further = self.steps // self.options.keep_every if self.options.keep_every else 0
        states = self.options.keep_last + best + further + 1
        return int(states * self.measured["state_bytes"] + (1 + best) * self.measured["model_bytes"])

    @property
    def validates(self) -> bool:
        return bool(self.options.validate_every and self.measured["validation_images"])

    def to_mapping(self) -> dict[str, Any]:
        """Everything, as plain values."""
        computed = {
            "steps": self.steps,
            "training_hours": self.training_hours,
            "validation_hours": self.validation_hours,
            "hours": self.hours,
            "disk_bytes": self.disk_bytes,
        }
        return {"measured": self.measured, "computed": computed}


def cost(algorithm: type[Algorithm], options: Any, steps: int = 5, seconds: float = 15.0) -> Cost:
    """Train `steps` steps in a process of its own, fewer if they take longer than `seconds`, at least two.

    `options` are those of a training; its data must be there, its run folder is neither needed nor made, its cache
    not filled. Raises what the training would raise before it starts, `OutOfMemory` if a step does not fit.
    """
    wanted = to_mapping(dataclasses.replace(options, run=None, cache=None, init_from=(), check="off"))
    request = {"algorithm": algorithm.name, "options": wanted, "steps": steps, "seconds": seconds}
    # it measures alone
    environment = {name: value for name, value in os.environ.items() if name not in machine.VARIABLES}
    here = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (here, environment.get("PYTHONPATH", ""))))
    done = subprocess.run(
        [sys.executable, "-m", "i2i.training.trial"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode == -9:  # what the kernel does when no memory is left
        raise OutOfMemory("the trial was killed, which happens when memory runs out")
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        raise I2IError(f"the trial ended with {done.returncode}:", *done.stderr.strip()[-2000:].splitlines())
    answer = json.loads(lines[-1])
    if answer.get("out_of_memory"):
        raise OutOfMemory("memory ran out")
    if "error" in answer:
        error = I2IError(*answer["error"])
        error.exit_code = answer["exit_code"]
        raise error
    return Cost(options, answer)
