"""Algorithms by name: one paper, one file."""

from i2i.algorithms.algorithm import AnyAlgorithm
from i2i.algorithms.cut import CUT
from i2i.algorithms.cyclegan import CycleGAN
from i2i.algorithms.distill import Distill
from i2i.algorithms.gan import GAN
from i2i.algorithms.pix2pix import Colorization, Pix2Pix, Segmentation
from i2i.algorithms.pix2pixhd import Pix2PixHD

__all__ = [
    "ALGORITHMS", "CUT", "GAN", "AnyAlgorithm", "Colorization", "CycleGAN", "Distill", "Pix2Pix", "Pix2PixHD",
    "Segmentation",
]  # fmt: skip

ALGORITHMS: dict[str, type[AnyAlgorithm]] = {
    algorithm.name: algorithm
    for algorithm in (Pix2Pix, Pix2PixHD, CycleGAN, CUT, Segmentation, Colorization, GAN, Distill)
}
