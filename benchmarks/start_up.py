"""Seconds from the start of a process to one translated picture, the model having been used before.

python benchmarks/start_up.py --json benchmarks/results/start-up.json

The process is waited for to its end. As in `translate.py`, each way runs once before.
"""

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import models
import results
from measuring import Figures, in_turn, parse, parser, positive, timed, together
from pictures import write_jpegs
from ways import WAYS, chosen, command


def main(arguments: Sequence[str] | None = None) -> results.Result:
    made = parser(__doc__, rounds=7)
    models.add_options(made)
    made.add_argument("--size", type=positive, default=256, help="side of the picture")
    made.add_argument("--ways", nargs="+", choices=list(WAYS), help="beside plain; by default all that are possible")
    options = parse(made, arguments)
    ways = chosen(options.ways, options.device)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = models.model_of(options, folder / "model.safetensors")
        write_jpegs(folder / "in", (options.size, options.size), 1)

        def run(way: str) -> None:
            words = command(way, model, folder / "in", folder / way, options.device)
            together([words], {"I2I_HOME": str(folder / "home")})

        def measure(way: str) -> Figures:
            return timed(partial(run, way))

        for way in ways:
            run(way)
        taken = in_turn({way: partial(measure, way) for way in ways}, options.rounds)
    title = f"From nothing to one picture of {options.size} px, {models.named(options)}"
    return results.finish("start_up", options, [results.table(title, options.clock, taken)])


if __name__ == "__main__":
    main()
