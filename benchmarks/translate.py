"""Translating a folder of JPEGs to PNG, start-up included, against the plain way.

python benchmarks/translate.py --size 256 --count 200 --ways auto fp32 --json benchmarks/results/translate-256.json

Every way is a process of its own (`ways.py`). Each runs once before, with one picture, so that nothing is converted,
or read from the disk, for the first time. Results are compared with those of the plain way.
"""

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import models
import results
from measuring import Figures, in_turn, parse, parser, positive, timed, together
from pictures import apart, write_jpegs
from ways import WAYS, chosen, command


def main(arguments: Sequence[str] | None = None) -> results.Result:
    made = parser(__doc__, rounds=3)
    models.add_options(made)
    made.add_argument("--size", type=positive, default=256, help="side of the pictures")
    made.add_argument("--count", type=positive, default=200, help="pictures in the folder")
    made.add_argument("--pictures", type=Path, help="folder of pictures to make the JPEGs from; else they are drawn")
    made.add_argument("--ways", nargs="+", choices=list(WAYS), help="beside plain; by default all that are possible")
    options = parse(made, arguments)
    ways = chosen(options.ways, options.device)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = models.model_of(options, folder / "model.safetensors")
        write_jpegs(folder / "in", (options.size, options.size), options.count, options.pictures)
        (folder / "first").mkdir()
        (folder / "first" / "0000.jpg").hardlink_to(folder / "in" / "0000.jpg")

        def run(way: str, pictures: str) -> None:
            words = command(way, model, folder / pictures, folder / way, options.device)
            together([words], {"I2I_HOME": str(folder / "home")})

        def measure(way: str) -> Figures:
            return timed(partial(run, way, "in"))

        for way in ways:
            run(way, "first")
        taken = in_turn({way: partial(measure, way) for way in ways}, options.rounds)
        facts = {way: apart(folder / way, folder / "plain") for way in ways[1:]}
    title = f"{options.count} JPEGs of {options.size} px to PNG, {models.named(options)}, start-up included"
    return results.finish("translate", options, [results.table(title, options.clock, taken, facts)])


if __name__ == "__main__":
    main()
