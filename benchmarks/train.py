"""One training step against the plain one: the same weights, the same batch, interleaved in one process.

python benchmarks/train.py --algorithm cyclegan --json train-cyclegan.json
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from plain_training import plain_step

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


def build(name: str, **options: Any) -> Algorithm:
    """The algorithm as published, the same weights at each call."""
    torch.manual_seed(0)
    return CycleGAN(CycleGANOptions(**options)) if name == "cyclegan" else Pix2Pix(Pix2PixOptions(**options))


def step_of(way: str, name: str, batch: ImagePair, device: torch.device, **options: Any) -> Step:
    """A step on `batch` whose losses have arrived when it returns."""
    algorithm = build(name, **options)
    if way == "plain":
        for network in algorithm.networks().values():
            network.to(device)
        plain = plain_step(algorithm)
        return lambda: plain(batch)
    chosen = TrainingOptions(**WAYS[way])
    memory_format = prepare(algorithm, chosen, device)
    train_step = TrainingStep(algorithm, chosen, Processes(str(device)))
    given = ImagePair(*(x.contiguous(memory_format=memory_format) for x in (batch.a, batch.b)))
    return lambda: {key: float(loss) for key, loss in train_step(given, 0).items() if key != "skipped"}


def measure(steps: dict[str, Step], repetitions: int, cpu_time: bool) -> dict[str, dict[str, Any]]:
    """Way → seconds of each step, time (compiling and all) and losses of the first, the ratio to the first way."""
    clock = time.process_time if cpu_time else time.perf_counter
    found: dict[str, dict[str, Any]] = {way: {"seconds": []} for way in steps}
    for repetition in range(repetitions + 1):
        for way, step in steps.items():
            seed_step(0, 0)
            begun = clock()
            losses = step()
            took = clock() - begun
            if repetition:
                found[way]["seconds"].append(took)
            else:
                found[way] |= {"first_seconds": took, "first_losses": losses}
    first = next(iter(found.values()))
    for numbers in found.values():
        numbers["median"] = statistics.median(numbers["seconds"])
        numbers["ratio"] = first["median"] / numbers["median"]
        numbers["largest_loss_difference"] = max(
            abs(numbers["first_losses"][key] - loss) / max(abs(loss), 1e-8)
            for key, loss in first["first_losses"].items()
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithm", choices=["cyclegan", "pix2pix"], default="cyclegan")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=["plain", "fp32", "bf16"])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cpu-time", action="store_true", help="processor time, for a busy machine and one thread")
    parser.add_argument("--options", type=json.loads, default={}, help='of the algorithm, such as {"ngf": 8}')
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    torch.manual_seed(1)
    shape = (arguments.batch_size, 3, arguments.size, arguments.size)
    batch = ImagePair(*(torch.rand(shape, device=device) * 2 - 1 for _ in range(2)))
    steps = {
        way: step_of(way, arguments.algorithm, batch, device, **arguments.options)
        for way in dict.fromkeys(arguments.ways)
    }
    results = measure(steps, arguments.repetitions, arguments.cpu_time)
    for way, numbers in results.items():
        spread = f"{min(numbers['seconds']):.3f} to {max(numbers['seconds']):.3f}"
        print(
            f"{way}: {numbers['median']:.3f} s ({spread}), {numbers['ratio']:.2f} times the first, losses of the first "
            f"step within {numbers['largest_loss_difference']:.1e}"
        )
    if arguments.json:
        hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
        facts = {"hardware": hardware, "threads": torch.get_num_threads(), "torch": torch.__version__}
        asked = {key: value for key, value in vars(arguments).items() if key != "json"}
        arguments.json.write_text(json.dumps({**facts, "asked": asked, "results": results}, indent=1))


if __name__ == "__main__":
    main()
