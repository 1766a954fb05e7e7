"""Train pix2pixHD on pairs of pictures, or of label maps and pictures.

python scripts/train_pix2pixhd.py --data datasets/facades --direction b2a --classes-b facades --run runs/facades_hd
python scripts/train_pix2pixhd.py --config configs/pix2pixhd_facades.yaml
"""

from dataclasses import dataclass

from i2i.algorithms.pix2pixhd import Pix2PixHD, Pix2PixHDOptions
from i2i.cli import run
from i2i.training.launch import train
from i2i.training.options import RunOptions


@dataclass(frozen=True, kw_only=True)
class Options(Pix2PixHDOptions, RunOptions):
    pass


if __name__ == "__main__":
    run(lambda options: train(Pix2PixHD, options), Options, "Train pix2pixHD on pairs of pictures.")
