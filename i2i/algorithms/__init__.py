"""Algorithms by name: one paper, one file."""

from i2i.algorithms.algorithm import Algorithm
from i2i.algorithms.cut import CUT
from i2i.algorithms.cyclegan import CycleGAN
from i2i.algorithms.pix2pix import Pix2Pix

ALGORITHMS: dict[str, type[Algorithm]] = {"pix2pix": Pix2Pix, "cyclegan": CycleGAN, "cut": CUT}
