"""One training step against the plain one: the same weights, the same batch, in turn in one process.

python benchmarks/train.py --algorithm cyclegan --json benchmarks/results/train-cyclegan.json

The first step of each way is not timed; its losses are compared, as later ones drift apart by rounding alone. The limit
is that of convolutions forward and backward, the work that of the plain step.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import results
import torch
from ceiling import best, ceilings
from measuring import Figures, in_turn, parse, parser, positive, timed
from plain_training import plain_step
from torch.utils.flop_counter import FlopCounterMode

from i2i.algorithms import CycleGAN, Pix2Pix
from i2i.algorithms.algorithm import Algorithm
from i2i.algorithms.cyclegan import CycleGANOptions
from i2i.algorithms.pix2pix import Pix2PixOptions
from i2i.data.pair import ImagePair
from i2i.training.distributed import Processes
from i2i.training.options import TrainingOptions
from i2i.training.prepare import prepare
from i2i.training.step import TrainingStep, seed_step

WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "fp32": {},
    "bf16": {"precision": "bf16"},
    "fp32 compiled": {"compile": True},
    "bf16 compiled": {"precision": "bf16", "compile": True},
}
Step = Callable[[], dict[str, float]]


def main(arguments: Sequence[str] | None = None) -> results.Result:
    made = parser(__doc__, rounds=5)
    made.add_argument("--algorithm", choices=["cyclegan", "pix2pix"], default="cyclegan")
    made.add_argument("--ways", nargs="+", choices=list(WAYS), default=["fp32", "bf16"], help="beside plain")
    made.add_argument("--size", type=positive, default=256)
    made.add_argument("--batch-size", type=positive, default=1)
    made.add_argument("--options", type=json.loads, default={}, help='of the algorithm, such as {"ngf": 8}')
    options = parse(made, arguments)
    ways = list(dict.fromkeys(["plain", *options.ways]))
    steps = {way: step_of(way, options) for way in ways}
    facts, work = first_steps(steps)
    for fact in facts.values():
        fact["gflop"] = work
    limits = partial(ceilings, sorted({precision(way) for way in ways}), options.device, options.clock, backward=True)
    before = limits()
    taken = in_turn({way: partial(measure, step) for way, step in steps.items()}, options.rounds)
    title = f"One step of {options.algorithm}, {options.size} px, batch {options.batch_size}, {work:,.0f} GFLOP"
    table = results.table(title, options.clock, taken, facts)
    return results.finish("train", options, [table], best(before, limits()))


def precision(way: str) -> str:
    """In what its networks compute."""
    return str(WAYS[way].get("precision", "fp32"))


def build(name: str, **options: Any) -> Algorithm:
    """The algorithm as published, the same weights at each call."""
    torch.manual_seed(0)
    return CycleGAN(CycleGANOptions(**options)) if name == "cyclegan" else Pix2Pix(Pix2PixOptions(**options))


def step_of(way: str, options: argparse.Namespace) -> Step:
    """A step whose losses have arrived when it returns."""
    device, algorithm = torch.device(options.device), build(options.algorithm, **options.options)
    batch = random_batch(options.batch_size, options.size, device)
    if way == "plain":
        for network in algorithm.networks().values():
            network.to(device)
        return partial(plain_step(algorithm), batch)
    chosen = TrainingOptions(**WAYS[way])
    memory_format = prepare(algorithm, chosen, device)
    train_step = TrainingStep(algorithm, chosen, Processes(str(device)))
    given = ImagePair(*(x.contiguous(memory_format=memory_format) for x in (batch.a, batch.b)))
    return lambda: {key: float(loss) for key, loss in train_step(given, 0).items() if key != "skipped"}


def random_batch(count: int, size: int, device: torch.device) -> ImagePair:
    """(count, 3, size, size) twice, in [-1, 1], always the same."""
    torch.manual_seed(1)
    return ImagePair(*(torch.rand((count, 3, size, size)).to(device) * 2 - 1 for _ in range(2)))


def first_steps(steps: dict[str, Step]) -> tuple[dict[str, dict[str, Any]], float]:
    """Of every way's first step the seconds (compiling and all) and the losses, and how far they are from the first's.

    And the GFLOP of the first way's convolutions, forward and backward.
    """
    facts: dict[str, dict[str, Any]] = {}
    work = 0.0
    for way, step in steps.items():
        seed_step(0, 0)
        begun = time.perf_counter()
        losses = step()
        facts[way] = {"precision": precision(way), "first_seconds": time.perf_counter() - begun, "first_losses": losses}
        if not work:  # counted in a step of its own, for counting takes time
            with FlopCounterMode(display=False) as counted:
                step()
            work = counted.get_total_flops() / 1e9
        if "compile" in WAYS[way]:
            step()  # which may compile again
        facts[way]["loss_difference"] = apart(losses, next(iter(facts.values()))["first_losses"])
    return facts, work


def apart(losses: dict[str, float], expected: dict[str, float]) -> float:
    """The largest relative difference."""
    return max(abs(losses[key] - loss) / max(abs(loss), 1e-8) for key, loss in expected.items())


def measure(step: Step) -> Figures:
    """One further step."""
    seed_step(0, 0)
    return timed(step)


if __name__ == "__main__":
    main()
