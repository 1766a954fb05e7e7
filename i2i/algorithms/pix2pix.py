"""pix2pix: Isola, Zhu, Zhou, Efros, "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017
(arXiv:1611.07004).

| here | paper |
|---|---|
| `real_A`, `real_B`, `fake_B` | x, y, G(x, z) |
| `G`, `D` | G, D (judges pairs: x beside y) |
| `gan` (`vanilla`) | L_cGAN, Eq. 1; the generator maximises log D(x, G(x, z)), Sec. 3.3 |
| `lambda_L1` | λ = 100, Eq. 4 |

Deviations from the paper, all shared with the published code: the noise z is dropout alone (as Sec. 3.1 says);
dropout stands after the innermost decoder layer (see networks/unet.py); D is updated before G.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge
from torch.nn import functional as F

from i2i.algorithms.algorithm import GENERATOR, ConditionalGAN, Losses, Turn
from i2i.algorithms.options import NetworkOptions
from i2i.data.pair import ImagePair
from i2i.losses.adversarial import GanMode
from i2i.networks.blocks import Norm


@dataclass(frozen=True, kw_only=True)
class Pix2PixOptions(NetworkOptions):
    """The paper's defaults."""

    algorithm = "pix2pix"

    generator: str = "unet_256"
    """`unet_<size>`, the same with `_attention`, or `resnet_<n>blocks`."""
    norm: Norm = "batch"
    """Normalisation in all networks, but for a discriminator with spectral normalisation."""
    dropout: bool = True
    """Dropout in the generator, in training and when translating: the noise of the paper."""
    gan_mode: GanMode = "vanilla"
    """The adversarial loss."""
    conditional: bool = True
    """The discriminator sees the input beside the output."""
    lambda_L1: Annotated[float, Ge(0)] = 100.0
    """Weight of the L1 loss."""


class Pix2Pix(ConditionalGAN[Pix2PixOptions]):
    """`batch.a` → `batch.b`, from pairs."""

    name = Pix2PixOptions.algorithm
    test_dropout = True

    def __init__(self, options: Pix2PixOptions, in_channels: int = 3, out_channels: int = 3) -> None:
        super().__init__(options, in_channels, out_channels, conditional=options.conditional)

    def losses(self, batch: ImagePair, step: int) -> Iterator[Turn]:
        real_A, real_B = batch.a, batch.b
        fake_B = self.G(real_A)

        real = self.discriminator_input(real_A, real_B, step)
        yield self.discriminator_turn(real, self.discriminator_input(real_A, fake_B.detach(), step))

        fake = self.discriminator_input(real_A, fake_B, step)
        yield (
            GENERATOR,
            Losses(
                adversarial={"G_gan": self.generator_loss(self.D, fake, real)},  # Sec. 3.3
                content={"G_L1": self.options.lambda_L1 * F.l1_loss(fake_B, real_B)},  # Eq. 3, 4
                penalties=self.regularisers("G_{}", self.G, real_A, fake_B),
            ),
        )
