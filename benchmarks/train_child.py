"""Training steps in a process of its own: python train_child.py JSON

`Task` says which. Prints JSON: of the first step the seconds and the losses, then, for every line that it is given,
the seconds of a further step and the most memory that the process has had. As in a training of one's own, nothing that
one way asks of the process, such as how its memory is kept, helps or hinders another.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from measuring import timed
from plain_training import plain_step
from torch.utils.flop_counter import FlopCounterMode

from i2i.acceleration import prepare
from i2i.algorithms import CycleGAN, Pix2Pix
from i2i.algorithms.algorithm import Algorithm
from i2i.algorithms.cyclegan import CycleGANOptions
from i2i.algorithms.pix2pix import Pix2PixOptions
from i2i.data.pair import ImagePair
from i2i.machine import keep_freed_memory
from i2i.training.estimate import memory_peak
from i2i.training.schedule import TrainingOptions
from i2i.training.step import ProcessGroup, TrainingStep, seed_step

WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "fp32": {},
    "bf16": {"precision": "bf16"},
    "fp32 compiled": {"compile": True},
    "bf16 compiled": {"precision": "bf16", "compile": True},
}
Step = Callable[[], dict[str, float]]


@dataclass(frozen=True)
class Task:
    """One of `WAYS` to train `algorithm` (`cyclegan` or `pix2pix`, with `options` of it) on `device`."""

    way: str
    algorithm: str
    size: int = 256
    batch_size: int = 1
    device: str = "cpu"
    options: dict[str, Any] = field(default_factory=dict)


def main() -> None:
    task = Task(**json.loads(sys.argv[1]))
    step = step_of(task)
    say(first_step(task, step))
    device = torch.device(task.device)
    for _ in sys.stdin:
        seed_step(0, 0)
        say(timed(step) | {"resident_mb": memory_peak(device) / 1e6})


def say(facts: dict[str, Any]) -> None:
    print(json.dumps(facts), flush=True)


def step_of(task: Task) -> Step:
    """A step whose losses have arrived when it returns."""
    device, algorithm = torch.device(task.device), build(task)
    batch = random_batch(task.batch_size, task.size, device)
    if task.way == "plain":
        for network in algorithm.networks().values():
            network.to(device)
        return partial(plain_step(algorithm), batch)
    chosen = TrainingOptions(**WAYS[task.way])
    memory_format = prepare(algorithm.networks().values(), device, chosen.precision, chosen.compile)
    if device.type == "cpu":
        keep_freed_memory()  # as the trainer does
    train_step = TrainingStep(algorithm, chosen, ProcessGroup(str(device)))
    given = ImagePair(*(x.contiguous(memory_format=memory_format) for x in (batch.a, batch.b)))
    return lambda: {key: float(loss) for key, loss in train_step(given, 0).items() if key != "skipped"}


def build(task: Task) -> Algorithm:
    """The algorithm as published, the same weights at each call."""
    torch.manual_seed(0)
    if task.algorithm == "cyclegan":
        return CycleGAN(CycleGANOptions(**task.options))
    return Pix2Pix(Pix2PixOptions(**task.options))


def random_batch(count: int, size: int, device: torch.device) -> ImagePair:
    """(count, 3, size, size) twice, in [-1, 1], always the same."""
    torch.manual_seed(1)
    return ImagePair(*(torch.rand((count, 3, size, size)).to(device) * 2 - 1 for _ in range(2)))


def first_step(task: Task, step: Step) -> dict[str, Any]:
    """Its seconds, compiling and all, and its losses; of the plain way also the GFLOP of a step's convolutions."""
    seed_step(0, 0)
    begun = time.perf_counter()
    losses = step()
    facts: dict[str, Any] = {"first_seconds": time.perf_counter() - begun, "first_losses": losses}
    if task.way == "plain":
        with FlopCounterMode(display=False) as counted:  # in a step of its own, for counting takes time
            step()
        facts["gflop"] = counted.get_total_flops() / 1e9
    if "compile" in WAYS[task.way]:
        step()  # which may compile again
    return facts


if __name__ == "__main__":
    main()
