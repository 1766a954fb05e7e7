"""The network alone, from memory to memory in this process, against the plain way and the limits of the device.

python benchmarks/network.py --size 256 --json benchmarks/results/network-256.json

The limits are measured before and after, and the better counts: the fastest convolution of that precision, and reading
the network's weights once from memory.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import models
import numpy as np
import results
import torch
from ceiling import bandwidth, best, ceilings
from measuring import SETTLE, Figures, in_turn, parse, parser, positive, timed
from pictures import mosaic, pictures_in
from plain_translating import plain_network
from ways import WAYS, chosen

from i2i.images import to_planes
from i2i.inference.options import ModelOptions
from i2i.inference.prepare import load_file

ALONE = [way for way in WAYS if way not in ("auto", "fp32")]
Run = Callable[[], object]


def main(arguments: Sequence[str] | None = None) -> results.Result:
    made = parser(__doc__, rounds=9)
    models.add_options(made)
    made.add_argument("--size", type=positive, default=256, help="side of the picture")
    made.add_argument("--pictures", type=Path, help="folder of pictures; else landscapes are drawn")
    made.add_argument("--ways", nargs="+", choices=ALONE, help="beside plain; by default all that are possible")
    made.add_argument("--times", type=positive, default=3, help="runs a round, after one that does not count")
    made.add_argument("--batch-size", type=positive, default=1, help="pictures together, for a GPU")
    options = parse(made, arguments)
    ways = [way for way in chosen(options.ways, options.device) if way in ALONE]
    limits = partial(limits_of, sorted({precision(way) for way in ways}), options)
    with tempfile.TemporaryDirectory() as scratch:
        model = models.model_of(options, Path(scratch) / "model.safetensors")
        runs = {way: runner(way, model, planes(options), options.device) for way in ways}
        facts, work = facts_of(model, ways, options)
    before = limits()
    taken = in_turn({way: partial(measure, run, options) for way, run in runs.items()}, options.rounds)
    batch = f", {options.batch_size} together" if options.batch_size > 1 else ""
    title = f"{models.named(options)} alone, a picture of {options.size} px{batch}, {work:,.1f} GFLOP"
    return results.finish(
        "network", options, [results.table(title, options.clock, taken, facts)], best(before, limits())
    )


def precision(way: str) -> str:
    """In what it computes."""
    return WAYS[way].get("precision", "fp32")


def limits_of(precisions: list[str], options: argparse.Namespace) -> dict[str, float]:
    """The limits of the device."""
    speeds = ceilings(precisions, options.device, options.clock)
    return speeds | {"memory": bandwidth(options.device, options.clock)}


def planes(options: argparse.Namespace) -> Any:
    """(batch, 3, size, size) float32 in [-1, 1]."""
    found = pictures_in(options.pictures) if options.pictures else []
    one = to_planes(mosaic(found, options.size, options.size))
    return np.repeat(one[None], options.batch_size, 0)


def facts_of(model: Path, ways: list[str], options: argparse.Namespace) -> tuple[dict[str, dict[str, Any]], float]:
    """Way → precision, work and weights for each picture; and the GFLOP of the work."""
    network = plain_network(model)
    work = models.gflop(network, options.size)
    facts: dict[str, dict[str, Any]] = {}
    for way in ways:
        weights = models.weights_gb(network, precision(way)) / options.batch_size
        facts[way] = {"precision": precision(way), "gflop": work, "weights_gb": weights}
    return facts, work


def runner(way: str, model: Path, planes: Any, device: str) -> Run:
    """The network on `planes`, once it is called; its result is fetched."""
    if way != "plain":
        asked: dict[str, Any] = {"device": device, **WAYS[way]}
        return partial(load_file(model, ModelOptions(**asked)).runtime.run, planes)
    network = plain_network(model).to(device)

    def run() -> object:
        with torch.no_grad():
            return network(torch.from_numpy(planes).to(device)).cpu()

    return run


def measure(run: Run, options: argparse.Namespace) -> Figures:
    """The seconds of each picture."""
    time.sleep(SETTLE)
    run()
    return timed(lambda: [run() for _ in range(options.times)], options.times * options.batch_size)


if __name__ == "__main__":
    main()
