"""CycleGAN: Zhu, Park, Isola, Efros, "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial
Networks", ICCV 2017 (arXiv:1703.10593).

| here | paper |
|---|---|
| `real_A`, `real_B` | x ∈ X, y ∈ Y |
| `G_AB`, `G_BA` | G: X → Y, F: Y → X |
| `D_A`, `D_B` (judge images *of* A, *of* B) | D_X, D_Y |
| `lambda_cycle_A`, `lambda_cycle_B` | λ = 10, Eq. 3, one per domain |
| `lambda_identity` | 0.5, a share of λ, Sec. 5.2 |

Deviations from the paper, all shared with the published code: the identity loss is on for every data set, the
paper has it for paintings only (`--lambda-identity 0` for the others); the generators are updated together,
then the discriminators.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.algorithms.algorithm import Algorithm, Losses, Translators, Turn, frozen
from i2i.algorithms.image_pool import ImagePool
from i2i.algorithms.options import NetworkOptions
from i2i.data.pair import ImagePair
from i2i.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class CycleGANOptions(NetworkOptions):
    """The paper's defaults."""

    lambda_cycle_A: Annotated[float, Ge(0)] = 10.0
    """Weight of A → B → A."""
    lambda_cycle_B: Annotated[float, Ge(0)] = 10.0
    """Weight of B → A → B."""
    lambda_identity: Annotated[float, Ge(0)] = 0.5
    """Weight of the identity loss, as a share of the cycle weights; 0 turns it off."""
    pool_size: Annotated[int, Ge(0)] = 50
    """How many past fakes each discriminator may be shown again; 0 turns it off."""


class CycleGAN(Algorithm):
    """A ↔ B, from two sets of images without pairs."""

    name = "cyclegan"
    paired = False

    def __init__(self, options: CycleGANOptions, in_channels: int = 3, out_channels: int = 3) -> None:
        if options.lambda_identity and in_channels != out_channels:
            raise UsageError(
                f"lambda_identity = {options.lambda_identity}: an identity loss needs as many channels in A "
                f"({in_channels}) as in B ({out_channels}); use --lambda-identity 0"
            )
        self.options = options
        self.gan, self.augment = options.adversarial(), options.augmentation()
        self.G_AB = options.create_generator(in_channels, out_channels)
        self.G_BA = options.create_generator(out_channels, in_channels)
        self.D_A = options.create_discriminator(in_channels)
        self.D_B = options.create_discriminator(out_channels)
        self.pool_A, self.pool_B = ImagePool(options.pool_size), ImagePool(options.pool_size)

    def players(self) -> dict[str, list[nn.Module]]:
        return {"generator": [self.G_AB, self.G_BA], "discriminator": [self.D_A, self.D_B]}

    def translators(self) -> dict[str, nn.Module]:
        return {"a2b": self.G_AB, "b2a": self.G_BA}

    def losses(self, batch: ImagePair, step: int) -> Iterator[Turn]:
        options, real_A, real_B = self.options, batch.a, batch.b
        lambda_A, lambda_B = options.lambda_cycle_A, options.lambda_cycle_B
        fake_B, fake_A = self.G_AB(real_A), self.G_BA(real_B)
        with frozen(self.D_A, self.D_B):
            losses = Losses(
                gan_AB=self.gan.generator(self.D_B(self.augment(fake_B))),  # Eq. 1
                gan_BA=self.gan.generator(self.D_A(self.augment(fake_A))),
                cycle_A=lambda_A * F.l1_loss(self.G_BA(fake_B), real_A),  # Eq. 2
                cycle_B=lambda_B * F.l1_loss(self.G_AB(fake_A), real_B),
            )
        if options.lambda_identity:  # Sec. 5.2
            losses["identity_A"] = lambda_A * options.lambda_identity * F.l1_loss(self.G_BA(real_A), real_A)
            losses["identity_B"] = lambda_B * options.lambda_identity * F.l1_loss(self.G_AB(real_B), real_B)
        yield "generator", losses

        fake_A, fake_B = self.augment(self.pool_A(fake_A)), self.augment(self.pool_B(fake_B))
        real_A, real_B = self.augment(real_A), self.augment(real_B)
        yield (
            "discriminator",
            Losses(
                D_A=self.gan.discriminator(self.D_A(real_A), self.D_A(fake_A)),
                D_B=self.gan.discriminator(self.D_B(real_B), self.D_B(fake_B)),
                **self.gan.penalty("D_A_penalty", self.D_A, real_A, fake_A),
                **self.gan.penalty("D_B_penalty", self.D_B, real_B, fake_B),
            ),
        )

    def reconstructions(self, batch: ImagePair, translators: Translators) -> dict[str, tuple[Tensor, Tensor]]:
        a2b, b2a = translators["a2b"], translators["b2a"]
        return {"cycle_A": (b2a(a2b(batch.a)), batch.a), "cycle_B": (a2b(b2a(batch.b)), batch.b)}

    def pictures(self, batch: ImagePair, translators: Translators) -> dict[str, Tensor]:
        a2b, b2a = translators["a2b"], translators["b2a"]
        fake_B, fake_A = a2b(batch.a), b2a(batch.b)
        return {
            "real_A": batch.a,
            "fake_B": fake_B,
            "cycle_A": b2a(fake_B),
            "real_B": batch.b,
            "fake_A": fake_A,
            "cycle_B": a2b(fake_A),
        }
