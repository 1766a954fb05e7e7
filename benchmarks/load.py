"""What the loader costs beside the plain way, per core: prints JSON.

python benchmarks/load.py --pictures datasets/monet2photo/trainB --out benchmarks/results/load.json

Each way loads the same JPEGs in turn, a round each, several rounds, in one thread: plain Pillow, ours without a cache,
ours from the cache (decoded and resized before), and that through a worker process, whose time counts too. Figures are
microseconds of processor time a picture, medians over the rounds; ratios are taken within a round. Without `--pictures`
landscapes are drawn, which are plainer than photographs and so decode faster.
"""

import argparse
import json
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))
from plain_loading import plain_batches

from i2i import images
from i2i.data.datasets import DataOptions, UnpairedImages
from i2i.data.loader import batches
from i2i.data.toy import ToyPairs

SIZES = {"600x800": (600, 800), "256x256": (256, 256)}
TARGETS = {"600x800": 20.0, "256x256": 8.0}
TILE = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, help="folder of pictures to make the JPEGs from")
    parser.add_argument("--count", type=int, default=60, help="JPEGs of each size")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, help="write the JSON there as well")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as scratch:
        rows = [measure(name, options, Path(scratch) / name) for name in SIZES]
    result = {"benchmark": "load", "machine": machine(), "drawn": options.pictures is None, "rows": rows}
    text = json.dumps(result, indent=1)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n")
    print(text)


def measure(name: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One row: pictures of one size."""
    paths = write_jpegs(folder, SIZES[name], options.count, options.pictures)
    half = len(paths) // 2
    uncached = UnpairedImages(paths[:half], paths[half:], DataOptions())
    cached = UnpairedImages(paths[:half], paths[half:], DataOptions(cache=folder / "cache"))
    began = time.process_time()
    same = all(torch.equal(uncached[t].a, cached[t].a) and torch.equal(uncached[t].b, cached[t].b) for t in range(half))
    building = time.process_time() - began
    same &= all(torch.equal(uncached[t].a, cached[t].a) for t in range(half))

    def ours(dataset: UnpairedImages, epochs: int, workers: int) -> Callable[[], float]:
        # two pictures a sample
        return lambda: seconds(batches(dataset, 0, epochs * half, 1, workers)) / (epochs * 2 * half)

    def through_a_worker() -> float:
        few, many = (seconds(batches(cached, 0, count, 1, 1)) for count in (half, 21 * half))
        return (many - few) / (20 * 2 * half)  # without its start

    ways = {
        "plain": lambda: seconds(plain_batches(paths)) / len(paths),
        "decoding": ours(uncached, 1, 0),
        "cache": ours(cached, 10, 0),
        "cache_one_worker": through_a_worker,
    }
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(options.rounds):
        for way, once in ways.items():
            taken[way].append(once())
    ratios = {
        way: statistics.median(plain / own for plain, own in zip(taken["plain"], times, strict=True))
        for way, times in taken.items()
        if way != "plain"
    }
    return {
        "pictures": name,
        "count": len(paths),
        "microseconds": {way: round(statistics.median(times) * 1e6, 1) for way, times in taken.items()},
        "times_as_fast_as_plain": {way: round(ratio, 2) for way, ratio in ratios.items()},
        "target": TARGETS[name],
        "same_with_cache": same,
        "cache_bytes": sum(entry.stat().st_size for entry in (folder / "cache").iterdir()),
        "first_epoch_microseconds": round(building / len(paths) * 1e6, 1),
    }


def seconds(batches: Iterable[object]) -> float:
    """Processor time of this process and of the workers that end meanwhile, over all these batches."""
    before = used()
    for _ in batches:
        pass
    return used() - before


def used() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def write_jpegs(folder: Path, size: tuple[int, int], count: int, source: Path | None) -> list[Path]:
    """JPEGs of that size, quality 90, laid out of as many pictures of 256 px as they take: as much detail as these."""
    folder.mkdir(parents=True)
    height, width = size
    rows, columns = -(-height // TILE), -(-width // TILE)
    found = sorted(path for path in source.rglob("*") if path.suffix.lower() in images.SUFFIXES) if source else []
    toys = ToyPairs(TILE)
    paths = []
    for number in range(count):
        tiles = [tile(found, toys, number * rows * columns + i) for i in range(rows * columns)]
        lines = [np.hstack(tiles[row * columns : (row + 1) * columns]) for row in range(rows)]
        paths.append(folder / f"{number:04}.jpg")
        Image.fromarray(np.vstack(lines)[:height, :width]).save(paths[-1], quality=90)
    return paths


def tile(found: list[Path], toys: ToyPairs, number: int) -> Any:
    if not found:
        return images.to_pixels(toys[number].b)
    pixels = images.read(found[number % len(found)]).channels(3)
    return np.asarray(Image.fromarray(pixels).resize((TILE, TILE), Image.Resampling.LANCZOS))


def machine() -> dict[str, Any]:
    name = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    versions = {"python": platform.python_version(), "torch": torch.__version__, "cv2": cv2.__version__}
    return {"processor": name, **versions, "numpy": np.__version__, "threads": 1}


if __name__ == "__main__":
    main()
