"""Colorization: pix2pix (Isola et al. 2017, arXiv:1611.07004) from the lightness of a picture to its colours in CIE Lab
(as Zhang, Isola, Efros, "Colorful Image Colorization", ECCV 2016, arXiv:1603.08511, have it).

| here | papers |
|---|---|
| `real_A` | x: L*, 0 to 100 as -1 to 1 |
| `real_B`, `fake_B` | y, G(x): a* and b*, -110 to 110 as -1 to 1 |
| `G`, `D` | G, D (judges pairs: x beside y) |
| `lambda_L1` | λ = 100, Eq. 4 of pix2pix |

Every picture in colour is a pair by itself. Deviations: those of pix2pix.py, and no dropout, so that a picture always
gets the same colours. The model file says `encoding: lab`: translating keeps the lightness and writes RGB.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge
from torch import Tensor
from torch.nn import functional as F

from i2i.algorithms.algorithm import GENERATOR, ConditionalGAN, Losses, Translators, Turn
from i2i.algorithms.options import NetworkOptions
from i2i.data.pair import ImagePair
from i2i.errors import UsageError
from i2i.images.colours import join_lab, split_lab
from i2i.losses.adversarial import GanMode
from i2i.networks.blocks import Norm
from i2i.networks.projected import Projected


@dataclass(frozen=True, kw_only=True)
class ColorizationOptions(NetworkOptions):
    """pix2pix's defaults."""

    algorithm = "colorization"

    generator: str = "unet_256"
    """`unet_<size>` or `resnet_<n>blocks`."""
    norm: Norm = "batch"
    """Normalisation in all networks."""
    gan_mode: GanMode = "vanilla"
    """The adversarial loss."""
    lambda_L1: Annotated[float, Ge(0)] = 100.0
    """Weight of the L1 loss on a* and b*."""


class Colorization(ConditionalGAN[ColorizationOptions]):
    """`batch.a`, (N, 1, H, W) lightness → `batch.b`, (N, 2, H, W) colours, from pictures in colour."""

    name = ColorizationOptions.algorithm
    single_domain = True
    encoding = "lab"

    def __init__(self, options: ColorizationOptions, in_channels: int = 1, out_channels: int = 2) -> None:
        super().__init__(options, in_channels, out_channels)

    @classmethod
    def channels(cls, options: ColorizationOptions) -> tuple[int, int]:
        if options.channels_b != 3 or options.classes_b:
            raise UsageError("channels_b: colorization learns from pictures in colour, of 3 channels")
        if options.direction != "a2b":
            raise UsageError(
                f"direction = {options.direction!r}: colorization goes from lightness (A) to colours (B), a2b"
            )
        return 1, 2

    @classmethod
    def make_pair(cls, options: ColorizationOptions, picture: Tensor, seed: int) -> ImagePair:
        return ImagePair(*split_lab(picture))

    def discriminator_input(self, a: Tensor, b: Tensor, step: int) -> Tensor:
        pair = super().discriminator_input(a, b, step)
        # its features know pictures in RGB
        return join_lab(pair[:, :1], pair[:, 1:]) if isinstance(self.D, Projected) else pair

    def losses(self, batch: ImagePair, step: int) -> Iterator[Turn]:
        real_A, real_B = batch.a, batch.b
        fake_B = self.G(real_A)
        real = self.discriminator_input(real_A, real_B, step)
        yield self.discriminator_turn(real, self.discriminator_input(real_A, fake_B.detach(), step))

        fake = self.discriminator_input(real_A, fake_B, step)
        yield (
            GENERATOR,
            Losses(
                adversarial={"G_gan": self.generator_loss(self.D, fake, real)},
                content={"G_L1": self.options.lambda_L1 * F.l1_loss(fake_B, real_B)},
                penalties=self.regularisers("G_{}", self.G, real_A, fake_B),
            ),
        )

    def validation_pairs(self, batch: ImagePair, translators: Translators) -> dict[str, tuple[Tensor, Tensor]]:
        return {"fake_B": (join_lab(batch.a, translators["a2b"](batch.a)), join_lab(batch.a, batch.b))}

    def pictures(self, batch: ImagePair, translators: Translators) -> dict[str, Tensor]:
        fake_B = join_lab(batch.a, translators["a2b"](batch.a))
        return {"real_A": batch.a, "fake_B": fake_B, "real_B": join_lab(batch.a, batch.b)}
