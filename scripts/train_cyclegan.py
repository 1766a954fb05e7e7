"""Train CycleGAN on two folders of pictures.

python scripts/train_cyclegan.py --data datasets/monet2photo --run runs/monet
"""

from dataclasses import dataclass

from i2i.algorithms.cyclegan import CycleGAN, CycleGANOptions
from i2i.cli import run
from i2i.training.launch import train
from i2i.training.options import RunOptions


@dataclass(frozen=True, kw_only=True)
class Options(CycleGANOptions, RunOptions):
    pass


if __name__ == "__main__":
    run(lambda options: train(CycleGAN, options), Options, "Train CycleGAN on two sets of pictures.")
