"""DualGAN: Yi, Zhang, Tan, Gong, "DualGAN: Unsupervised Dual Learning for Image-to-Image Translation", ICCV 2017
(arXiv:1704.02510). Who adds an algorithm writes such a file, and a line in `ALGORITHMS`.

| here | paper |
|---|---|
| `real_A`, `real_B` | u, v |
| `G_AB`, `G_BA` | G_A, G_B |
| `D_B`, `D_A` | D_A, D_B |
| `lambda_A`, `lambda_B` | λ_U, λ_V |

Deviations: least squares by default (`--gan-mode wgangp` is nearest to the paper's Wasserstein distance), and one turn
of the critics for one of the generators.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.algorithms.algorithm import DISCRIMINATOR, GENERATOR, Algorithm, Losses, Player, Translators, Turn
from i2i.algorithms.options import NetworkOptions
from i2i.data.pair import ImagePair


@dataclass(frozen=True, kw_only=True)
class DualGANOptions(NetworkOptions):
    generator: str = "unet_256"
    """Any that takes pictures."""
    lambda_A: Annotated[float, Ge(0)] = 1000.0
    """Weight of what is restored of A."""
    lambda_B: Annotated[float, Ge(0)] = 1000.0
    """Weight of what is restored of B."""


class DualGAN(Algorithm):
    name = "dualgan"
    paired = False

    def __init__(self, options: DualGANOptions, in_channels: int = 3, out_channels: int = 3) -> None:
        self.options, self.gan, self.augmentation = options, options.gan_loss(), options.augmentation()
        self.G_AB = options.create_generator(in_channels, out_channels)
        self.G_BA = options.create_generator(out_channels, in_channels)
        self.D_A = options.create_discriminator(in_channels)
        self.D_B = options.create_discriminator(out_channels)

    def players(self) -> dict[Player, list[nn.Module]]:
        return {DISCRIMINATOR: [self.D_A, self.D_B], GENERATOR: [self.G_AB, self.G_BA]}

    def translators(self) -> dict[str, nn.Module]:
        return {"a2b": self.G_AB, "b2a": self.G_BA}

    def losses(self, batch: ImagePair, step: int) -> Iterator[Turn]:
        o, real_A, real_B = self.options, batch.a, batch.b
        fake_B, fake_A = self.G_AB(real_A), self.G_BA(real_B)

        input_A, input_B = self.augment(real_A, step), self.augment(real_B, step)
        seen_A, seen_B = self.augment(fake_A.detach(), step), self.augment(fake_B.detach(), step)
        yield DISCRIMINATOR, self.discriminator_losses("D_A", self.D_A, input_A, seen_A, more=True)  # Eq. 1
        yield DISCRIMINATOR, self.discriminator_losses("D_B", self.D_B, input_B, seen_B)  # Eq. 2

        losses = Losses(
            adversarial={
                "gan_AB": self.generator_loss(self.D_B, self.augment(fake_B, step), input_B),
                "gan_BA": self.generator_loss(self.D_A, self.augment(fake_A, step), input_A),
            },
            content={
                "cycle_A": o.lambda_A * F.l1_loss(self.G_BA(fake_B), real_A),  # Eq. 3
                "cycle_B": o.lambda_B * F.l1_loss(self.G_AB(fake_A), real_B),
            },
        )
        yield GENERATOR, losses

    def validation_pairs(self, batch: ImagePair, translators: Translators) -> dict[str, tuple[Tensor, Tensor]]:
        there, back = translators["a2b"], translators["b2a"]
        return {"cycle_A": (back(there(batch.a)), batch.a), "cycle_B": (there(back(batch.b)), batch.b)}

    def pictures(self, batch: ImagePair, translators: Translators) -> dict[str, Tensor]:
        fake_B, fake_A = translators["a2b"](batch.a), translators["b2a"](batch.b)
        return {"real_A": batch.a, "fake_B": fake_B, "real_B": batch.b, "fake_A": fake_A}
