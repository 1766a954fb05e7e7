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

from i2i.algorithms.algorithm import DISCRIMINATOR, GENERATOR, Algorithm, ImagePool, Losses, Player, Translators, Turn
from i2i.algorithms.options import UnpairedOptions, check_one_size, check_one_unit
from i2i.data.options import classes
from i2i.data.pair import ImagePair
from i2i.errors import UsageError, as_typed


@dataclass(frozen=True, kw_only=True)
class CycleGANOptions(UnpairedOptions):
    """The paper's defaults."""

    algorithm = "cyclegan"

    lambda_cycle_A: Annotated[float, Ge(0)] = 10.0
    """Weight of A → B → A."""
    lambda_cycle_B: Annotated[float, Ge(0)] = 10.0
    """Weight of B → A → B."""
    lambda_identity: Annotated[float, Ge(0)] = 0.5
    """Weight of the identity loss, as a share of the cycle weights; 0 turns it off."""
    lambda_paired: Annotated[float, Ge(0)] = 10.0
    """Weight of the L1 distance of a translation from its partner, where --paired-data has some (Tripathy et al. 2018,
    arXiv:1805.03189); not in the paper."""
    pool_size: Annotated[int, Ge(0)] = 50
    """Past fakes that each discriminator may see again; 0 turns it off."""


class CycleGAN(Algorithm[CycleGANOptions]):
    """A ↔ B, from two sets of images without pairs."""

    name = CycleGANOptions.algorithm
    paired = False
    supports_pairs = True

    def __init__(self, options: CycleGANOptions, in_channels: int = 3, out_channels: int = 3) -> None:
        if options.lambda_identity and in_channels != out_channels:
            raise UsageError(
                f"lambda_identity = {options.lambda_identity}: an identity loss needs as many channels in A "
                f"({in_channels}) as in B ({out_channels}); use {as_typed('lambda_identity', 0)}"
            )
        self.options = options
        self.gan, self.augmentation = options.gan_loss(), options.augmentation()
        self.content = options.create_content(in_channels, out_channels)
        self.G_AB = options.create_generator(in_channels, out_channels)
        self.G_BA = options.create_generator(out_channels, in_channels)
        self.D_A = options.create_discriminator(in_channels)
        self.D_B = options.create_discriminator(out_channels)
        self.pool_A, self.pool_B = ImagePool(options.pool_size), ImagePool(options.pool_size)

    @classmethod
    def channels(cls, options: CycleGANOptions) -> tuple[int, int]:
        if options.instance_edges:
            raise UsageError("instance_edges: CycleGAN's way back cannot make the edges; leave it out")
        if options.paired_data and not options.lambda_paired:
            raise UsageError(f"paired_data = {options.paired_data}: its pairs have no effect with lambda_paired = 0")
        options.needs("lambda_paired", options.paired_data is not None, "paired_data")
        check_one_size(options)
        check_one_unit(options, options.lambda_identity)
        labels = {palette is not None for palette in classes(options)}
        if len(labels) > 1 and options.lambda_identity:
            way = as_typed("lambda_identity", 0)
            raise UsageError(f"classes: an identity loss cannot compare labels with pictures; use {way}")
        return super().channels(options)

    def players(self) -> dict[Player, list[nn.Module]]:
        return {GENERATOR: [self.G_AB, self.G_BA], DISCRIMINATOR: [self.D_A, self.D_B]}

    def translators(self) -> dict[str, nn.Module]:
        return {"a2b": self.G_AB, "b2a": self.G_BA}

    def losses(self, batch: ImagePair, step: int) -> Iterator[Turn]:
        o, real_A, real_B = self.options, batch.a, batch.b
        input_A, input_B = self.augment(real_A, step), self.augment(real_B, step)  # for the discriminators

        fake_B = self.G_AB(real_A)
        yield (
            GENERATOR,
            Losses(
                adversarial={"gan_AB": self.generator_loss(self.D_B, self.augment(fake_B, step), input_B)},  # Eq. 1
                content=self._paired("AB", fake_B, batch)
                | {"cycle_A": o.lambda_cycle_A * F.l1_loss(self.G_BA(fake_B), real_A)},  # Eq. 2
                penalties=self.regularisers("{}_AB", self.G_AB, real_A, fake_B) | self.likeness("_AB", fake_B, real_A),
                more=True,
            ),
        )
        fake_A = self.G_BA(real_B)
        yield (
            GENERATOR,
            Losses(
                adversarial={"gan_BA": self.generator_loss(self.D_A, self.augment(fake_A, step), input_A)},
                content=self._paired("BA", fake_A, batch)
                | {"cycle_B": o.lambda_cycle_B * F.l1_loss(self.G_AB(fake_A), real_B)},
                penalties=self.regularisers("{}_BA", self.G_BA, real_B, fake_A) | self.likeness("_BA", fake_A, real_B),
                more=o.lambda_identity > 0,
            ),
        )
        if o.lambda_identity:  # each generator gets pictures of the domain that it translates to (Sec. 5.2)
            share_A, share_B = o.lambda_identity * o.lambda_cycle_A, o.lambda_identity * o.lambda_cycle_B
            yield GENERATOR, Losses(content={"identity_A": share_A * F.l1_loss(self.G_BA(real_A), real_A)}, more=True)
            yield GENERATOR, Losses(content={"identity_B": share_B * F.l1_loss(self.G_AB(real_B), real_B)})

        past_A, past_B = self.augment(self.pool_A(fake_A), step), self.augment(self.pool_B(fake_B), step)
        yield DISCRIMINATOR, self.discriminator_losses("D_A", self.D_A, input_A, past_A, terms=False, more=True)
        yield DISCRIMINATOR, self.discriminator_losses("D_B", self.D_B, input_B, past_B, terms=False)

    def _paired(self, way: str, fake: Tensor, batch: ImagePair) -> dict[str, Tensor]:
        """The L1 distance of translations from their partners, 0 where there is none; the mean over all, so that
        micro-batches add up."""
        if batch.is_pair is None or not self.options.lambda_paired:
            return {}
        apart = (fake - (batch.b if way == "AB" else batch.a)).abs().flatten(1).mean(dim=1)
        return {f"paired_{way}": self.options.lambda_paired * (apart * batch.is_pair).mean()}

    def validation_pairs(self, batch: ImagePair, translators: Translators) -> dict[str, tuple[Tensor, Tensor]]:
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
