"""Large pictures by bands of rows, against a picture that goes through as a whole: seconds, memory, differences.

python benchmarks/stream.py --json benchmarks/results/stream.json
python benchmarks/stream.py --sizes 8192 --rounds 1 --json benchmarks/results/stream-8192.json

Every measurement is a process of its own (`stream_child.py`), whose start is left out. Seconds are those of a million
pixels, so that sizes can be compared; the first row is a whole picture of `--base` px. The result of the bands is
compared with the whole picture of that size where this fits into memory, naive tiles with the first row.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import models
import numpy as np
import results
from measuring import CPU, WALL, Figures, in_turn, parse, parser, positive, together
from pictures import levels, mosaic, pictures_in
from stream_child import KEEPS, Task

from i2i.images.large import IN_MEMORY, spool_folder
from i2i.inference.loaded_model import bytes_per_pixel, fits
from i2i.inference.streaming import spool_bytes
from i2i.models.info import read_info
from i2i.networks import GeneratorConfig
from i2i.networks.resnet import ResnetConfig

COMPARED = 2048
"""Up to this side the unrounded results are kept, and compared."""
DISK_BYTES = 1 << 29


def main(arguments: Sequence[str] | None = None) -> results.Result:
    made = parser(__doc__, rounds=3)
    models.add_options(made)
    made.add_argument("--base", type=positive, default=1024, help="side of the picture that goes through as a whole")
    made.add_argument("--sizes", type=positive, nargs="+", default=[1024, 2048], help="sides of what goes by bands")
    made.add_argument("--keep", nargs="+", choices=list(KEEPS), help="the spool's numbers; fp16 alone above 2048 px")
    made.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="fp32")
    made.add_argument("--tile", type=positive, default=256, help="side of the naive tiles")
    made.add_argument("--in-memory", type=int, default=IN_MEMORY, help="bytes of the spool that stay in memory")
    made.add_argument("--pictures", type=Path, help="folder of pictures; else landscapes are drawn")
    options = parse(made, arguments)
    with tempfile.TemporaryDirectory(dir=spool_folder()) as scratch:
        folder = Path(scratch)
        model = models.model_of(options, folder / "model.safetensors")
        found = pictures_in(options.pictures) if options.pictures else []
        np.save(folder / "picture.npy", mosaic(found, options.base, options.base))
        config = read_info(model).network_config()
        tasks = planned(folder, model, config, options)
        peaks: dict[str, float] = dict.fromkeys(tasks, 0.0)

        def measure(way: str) -> Figures:
            return child(way, tasks[way], peaks)

        taken = in_turn({way: partial(measure, way) for way in tasks}, options.rounds)
        facts = {way: {"peak_mb": peaks[way]} | differences(task, tasks) for way, task in tasks.items()}
        for way, task in tasks.items():
            if task.way == "bands":
                facts[way]["spool_mb"] = spool_mb(config, task)
    title = f"A million pixels, {models.named(options)}, {options.precision}"
    written, read = disk_speed(DISK_BYTES)
    notes = f"Disk: {written:,.0f} MB/s written, {read:,.0f} MB/s read."
    return results.finish("stream", options, [results.table(title, options.clock, taken, facts)], notes=notes)


def planned(folder: Path, model: Path, config: GeneratorConfig, options: argparse.Namespace) -> dict[str, Task]:
    """The measured ways, by the names of the rows."""
    shared = {name: getattr(options, name) for name in ("precision", "device", "tile", "in_memory")}
    base = Task(str(model), str(folder / "picture.npy"), "", options.base, "whole", **shared)
    tasks = {named(base): base}
    if options.precision == "fp32":
        plain = replace(base, way="plain")
        tasks[named(plain)] = plain
    tiles = replace(base, way="tiles")
    tasks[named(tiles)] = tiles
    for side in options.sizes:
        one = replace(base, side=side, rounded=side > COMPARED)
        if side <= COMPARED and fits(bytes_per_pixel(config), side, side):
            tasks[named(one)] = one
        for keep in options.keep or (["fp16"] if side > COMPARED else list(KEEPS)):
            by_bands = replace(one, way="bands", keep=keep)
            tasks[named(by_bands)] = by_bands
    return {name: replace(task, out=str(folder / f"{number}")) for number, (name, task) in enumerate(tasks.items())}


def named(task: Task) -> str:
    """The name of its row."""
    more = {
        "plain": "whole, the plain way",
        "tiles": f"naive tiles of {task.tile}",
        "bands": f"bands, {task.keep} spool",
    }
    return f"{task.side}², {more.get(task.way, 'whole')}"


def child(way: str, task: Task, peaks: dict[str, float]) -> Figures:
    """Seconds of a million pixels; its peak goes to `peaks` if it is the highest."""
    found = json.loads(together([["benchmarks/stream_child.py", json.dumps(asdict(task))]], {})[0])
    peaks[way] = max(peaks[way], found["peak_mb"])
    return {clock: found[clock] / task.side**2 * 1e6 for clock in (WALL, CPU)}


def differences(task: Task, tasks: dict[str, Task]) -> dict[str, Any]:
    """How far the result is from that of the whole picture in torch's runtime, if there is one."""
    reference = tasks.get(named(replace(task, way="whole")))
    if reference is None or reference == task:
        return {}
    one, other = (np.fromfile(file, np.float32).reshape(task.side, task.side, 3) for file in (task.out, reference.out))
    apart = {"error": 2 * float(np.abs(one - other).max())}
    return apart | levels(*(np.rint(255 * picture).astype(np.uint8) for picture in (one, other)))


def spool_mb(config: GeneratorConfig, task: Task) -> float:
    """Megabytes of the spool for a picture of that size, whose sides are multiples of those that the network takes."""
    assert isinstance(config, ResnetConfig), "only residual generators go by bands"
    return spool_bytes(config.build(), task.side, task.side, KEEPS[task.keep]) / 1e6


def disk_speed(size: int) -> tuple[float, float]:
    """MB/s that the spool's disk takes and gives, what the system would keep of them dropped in between."""
    block = os.urandom(1 << 24)
    with tempfile.TemporaryFile(dir=spool_folder(), buffering=0) as file:
        begun = time.perf_counter()
        for _ in range(size // len(block)):
            file.write(block)
        os.fsync(file.fileno())
        written = time.perf_counter() - begun
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        begun = time.perf_counter()
        while file.read(len(block)):
            pass
        return size / 1e6 / written, size / 1e6 / (time.perf_counter() - begun)


if __name__ == "__main__":
    main()
