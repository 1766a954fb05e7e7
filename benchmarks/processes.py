"""The costs of a picture in two processes with a core each, against one process with all cores; start-up left out.

python benchmarks/processes.py --json benchmarks/results/processes.json

Each way translates `--few` pictures and then `--many`, and the slope between the two counts. The processes share the
folder by `--shard`, and have a thread each, as `torchrun` sets it.
"""

import argparse
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import models
import results
from measuring import CPU, Figures, in_turn, parse, parser, positive, slope, together
from pictures import apart, write_jpegs
from ways import WAYS, command

ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def main(arguments: Sequence[str] | None = None) -> results.Result:
    made = parser(__doc__, rounds=3)
    made.set_defaults(clock=CPU)
    models.add_options(made)
    made.add_argument("--size", type=positive, default=256, help="side of the pictures")
    made.add_argument("--few", type=positive, default=8)
    made.add_argument("--many", type=positive, default=72)
    made.add_argument("--processes", type=positive, default=2)
    made.add_argument("--way", choices=list(WAYS), default="auto")
    options = parse(made, arguments)
    number = options.processes
    ways = {
        "one process": (1, {}),
        "one process, one thread": (1, ONE_THREAD),
        f"{number} processes": (number, ONE_THREAD),
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        models.model_of(options, folder / "model.safetensors")
        for count in (options.few, options.many):
            write_jpegs(folder / f"in-{count}", (options.size, options.size), count)

        def run(way: str, count: int) -> None:
            translate(folder, folder / way, count, *ways[way], options)

        def measure(way: str) -> Figures:
            return slope(partial(run, way), options.few, options.many)

        for way in ways:
            run(way, options.few)
        taken = in_turn({way: partial(measure, way) for way in ways}, options.rounds)
        facts = {way: apart(folder / way, folder / "one process") for way in ways}
    title = f"Each further picture of {options.size} px, {models.named(options)}, {options.way}"
    return results.finish("processes", options, [results.table(title, options.clock, taken, facts)])


def translate(
    folder: Path, out: Path, count: int, processes: int, environment: dict[str, str], options: argparse.Namespace
) -> None:
    """The folder of `count` pictures by so many processes at once."""
    model, pictures = folder / "model.safetensors", folder / f"in-{count}"
    shards = [f"{number + 1}/{processes}" for number in range(processes)]
    commands = [command(options.way, model, pictures, out, options.device, "--shard", shard) for shard in shards]
    together(commands, {"I2I_HOME": str(folder / "home"), **environment})


if __name__ == "__main__":
    main()
