"""Train a network that colours grey pictures, from pictures in colour.

python scripts/train_colorization.py --data photos --run runs/colours
python scripts/train_colorization.py --config configs/colorization_photos.yaml
"""

from dataclasses import dataclass

from i2i.algorithms.colorization import Colorization, ColorizationOptions
from i2i.cli import run
from i2i.training.launch import train
from i2i.training.options import RunOptions


@dataclass(frozen=True, kw_only=True)
class Options(ColorizationOptions, RunOptions):
    pass


if __name__ == "__main__":
    run(
        lambda options: train(Colorization, options),
        Options,
        "Train a colorization network: lightness to colours, from pictures in colour.",
    )
