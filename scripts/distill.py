"""Train a small generator to do what a large one does: the same pictures at a tenth of the work.

python scripts/distill.py monet --data photos --run runs/monet-lite
python scripts/distill.py runs/monet/b2a.safetensors --data datasets/monet2photo --direction b2a \\
    --lambda-gan 1 --discriminator projected --gan-mode hinge --run runs/monet-lite
"""

from dataclasses import dataclass
from typing import Annotated

from i2i.algorithms.distill import STYLE_OR_PATH, Distill, DistillOptions
from i2i.cli import Positional, arg, run
from i2i.training.launch import train
from i2i.training.options import RunOptions


@dataclass(frozen=True, kw_only=True)
class Options(DistillOptions, RunOptions):
    teacher: Annotated[Positional[str], arg(metavar="TEACHER"), STYLE_OR_PATH] = ""
    """The generator to learn from: a model file, a run folder, or the name of a style."""


if __name__ == "__main__":
    run(lambda options: train(Distill, options), Options, "Train a small generator to do what a large one does.")
