"""The options of a run, as the scripts put them together."""

from dataclasses import dataclass

from i2i.algorithms.cut import CUTOptions
from i2i.algorithms.cyclegan import CycleGANOptions
from i2i.algorithms.gan import GANOptions
from i2i.algorithms.pix2pix import Pix2PixOptions
from i2i.training.options import RunOptions


@dataclass(frozen=True, kw_only=True)
class Pix2PixRun(Pix2PixOptions, RunOptions):
    pass


@dataclass(frozen=True, kw_only=True)
class CycleGANRun(CycleGANOptions, RunOptions):
    pass


@dataclass(frozen=True, kw_only=True)
class CUTRun(CUTOptions, RunOptions):
    pass


@dataclass(frozen=True, kw_only=True)
class GANRun(GANOptions, RunOptions):
    pass
