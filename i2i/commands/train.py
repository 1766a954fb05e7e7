"""Train a network: `i2i train ALGORITHM`, and `scripts/train_ALGORITHM.py`.

The options of a training are those of its algorithm and `RunOptions`; `--run` is `runs/ALGORITHM` by default.
"""

from dataclasses import field, make_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from i2i.algorithms import ALGORITHMS
from i2i.algorithms.algorithm import own_options
from i2i.algorithms.distill import STYLE_OR_PATH
from i2i.commands.options import POSITIONAL
from i2i.training import launch
from i2i.training.options import RunOptions

_TEACHER = Annotated[str, STYLE_OR_PATH, POSITIONAL]


@cache
def options_class(name: str) -> type[Any]:
    """The options of the training by the algorithm of that name."""
    own = own_options(ALGORITHMS[name])
    fields: list[Any] = [("run", Path | None, field(default=Path("runs") / name))]
    if name == "distill":  # its teacher comes first, without a flag
        fields.append(("teacher", _TEACHER, field(default="")))
    return make_dataclass("Options", fields, bases=(own, RunOptions), frozen=True, kw_only=True)


def main(name: str, options: Any) -> None:
    launch.train(ALGORITHMS[name], options)
