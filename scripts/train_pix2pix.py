"""Train pix2pix on a folder of pairs.

python scripts/train_pix2pix.py --data datasets/facades --direction b2a --run runs/facades
"""

from dataclasses import dataclass

from i2i.algorithms.pix2pix import Pix2Pix, Pix2PixOptions
from i2i.cli import run
from i2i.training.launch import train
from i2i.training.options import RunOptions


@dataclass(frozen=True, kw_only=True)
class Options(Pix2PixOptions, RunOptions):
    pass


if __name__ == "__main__":
    run(lambda options: train(Pix2Pix, options), Options, "Train pix2pix on pairs of pictures.")
