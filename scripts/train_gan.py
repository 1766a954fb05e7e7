"""Train a GAN on one folder of pictures: it makes others like them from noise, see scripts/sample.py.

python scripts/train_gan.py --data datasets/monets --run runs/gan_monet
python scripts/train_gan.py --config configs/gan_toy.yaml
"""

from dataclasses import dataclass

from i2i.algorithms.gan import GAN, GANOptions
from i2i.cli import run
from i2i.training.launch import train
from i2i.training.options import RunOptions


@dataclass(frozen=True, kw_only=True)
class Options(GANOptions, RunOptions):
    pass


if __name__ == "__main__":
    run(lambda options: train(GAN, options), Options, "Train a GAN on pictures, to make others like them from noise.")
