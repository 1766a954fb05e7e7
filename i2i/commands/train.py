"""Train a network: `i2i train ALGORITHM`, and `scripts/train_ALGORITHM.py`.

The options of a training are those of its algorithm and `RunOptions`; `--run` is `runs/ALGORITHM` by default.
"""

from functools import cache
from pathlib import Path
from typing import Annotated, Any

from i2i.algorithms import ALGORITHMS
from i2i.algorithms.distill import STYLE_OR_PATH
from i2i.commands.options import POSITIONAL
from i2i.data.options import FolderOrURL
from i2i.training.launch import train as main
from i2i.training.options import RunOptions
from i2i.training.options import options_class as options_of

__all__ = ["main", "options_class"]

_TEACHER = Annotated[str, STYLE_OR_PATH, POSITIONAL]


@cache
def options_class(name: str) -> type[RunOptions]:
    """The options of the training by the algorithm of that name."""
    fields: dict[str, Any] = {"run": (FolderOrURL | None, Path("runs") / name)}
    if name == "distill":  # its teacher comes first, without a flag
        fields["teacher"] = _TEACHER, ""
    return options_of(ALGORITHMS[name], **fields)
