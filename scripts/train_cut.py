"""Train CUT on two folders of pictures, in one direction. FastCUT and SinCUT are configurations of it.

python scripts/train_cut.py --data datasets/monet2photo --direction b2a --run runs/cut_monet
python scripts/train_cut.py --config configs/fastcut_monet2photo.yaml
"""

from dataclasses import dataclass

from i2i.algorithms.cut import CUT, CUTOptions
from i2i.cli import run
from i2i.training.launch import train
from i2i.training.options import RunOptions


@dataclass(frozen=True, kw_only=True)
class Options(CUTOptions, RunOptions):
    pass


if __name__ == "__main__":
    run(lambda options: train(CUT, options), Options, "Train CUT on two sets of pictures, from A to B.")
