"""The costs of the loader beside the plain way, per core: processor time of one thread.

python benchmarks/load.py --pictures datasets/monet2photo/trainB --json benchmarks/results/load.json

Each way loads the same JPEGs in turn: plain Pillow, ours without a cache, ours from the cache (decoded and resized
before), and that through a worker process, whose time counts too. Without `--pictures` landscapes are drawn, which are
plainer than photographs and so decode faster.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import cv2
import results
import torch
from measuring import CPU, Figures, in_turn, parse, parser, positive, slope, timed
from pictures import write_jpegs
from plain_loading import plain_batches

from i2i.data.datasets import Images
from i2i.data.options import DataOptions
from i2i.data.pair import batches

SIZES = {"600×800": (600, 800), "256×256": (256, 256)}


def main(arguments: Sequence[str] | None = None) -> results.Result:
    made = parser(__doc__, rounds=9)
    made.set_defaults(clock=CPU)
    made.add_argument("--pictures", type=Path, help="folder of pictures to make the JPEGs from")
    made.add_argument("--count", type=positive, default=60, help="JPEGs of each size, an even number")
    options = parse(made, arguments)
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            tables = [measured(name, options, Path(scratch) / str(size[0])) for name, size in SIZES.items()]
        return results.finish("load", options, tables, drawn=options.pictures is None)
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def measured(name: str, options: argparse.Namespace, folder: Path) -> results.Result:
    """The table of one size of pictures."""
    paths = write_jpegs(folder, SIZES[name], options.count, options.pictures)
    half = len(paths) // 2
    uncached = Images((paths[:half], paths[half:]), DataOptions())
    cached = Images((paths[:half], paths[half:]), DataOptions(cache=folder / "cache"))
    facts = {"from the cache": {"same": same(uncached, cached, half) and same(uncached, cached, half)}}

    def epochs(dataset: Images, number: int, workers: int = 0) -> Figures:
        samples = batches(dataset, 0, number * half, 1, workers)  # two pictures each
        return timed(partial(consume, samples), number * 2 * half)

    def through_a_worker() -> Figures:
        def load(pictures: int) -> None:
            consume(batches(cached, 0, pictures // 2, 1, 1))

        return slope(load, 2 * half, 42 * half)  # without its start

    ways: dict[str, Callable[[], Figures]] = {
        "plain": lambda: timed(partial(consume, plain_batches(paths)), len(paths)),
        "decoding": partial(epochs, uncached, 1),
        "from the cache": partial(epochs, cached, 10),
        "from the cache by a worker": through_a_worker,
    }
    return results.table(f"A picture of {name}", options.clock, in_turn(ways, options.rounds), facts)


def same(one: Images, other: Images, count: int) -> bool:
    """Whether both give the same samples."""
    pairs = ((one[t], other[t]) for t in range(count))
    return all(torch.equal(a.a, b.a) and torch.equal(a.b, b.b) for a, b in pairs)


def consume(things: Iterable[object]) -> None:
    """Take them all."""
    for _ in things:
        pass


if __name__ == "__main__":
    main()
