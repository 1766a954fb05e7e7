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

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.algorithms.algorithm import Algorithm, Losses, Translators, Turn, frozen, in_one_batch, turn
from i2i.algorithms.augmentation import judged
from i2i.algorithms.image_pool import ImagePool
from i2i.algorithms.options import UnpairedOptions, check_one_size
from i2i.data.options import classes
from i2i.data.pair import ImagePair
from i2i.errors import UsageError


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
    batch_identity: bool = False
    """Translate in one batch with the identity loss: the same losses, in more memory; for a GPU that one picture does
    not fill (on a CPU it is slower)."""
    lambda_paired: Annotated[float, Ge(0)] = 10.0
    """Weight of the L1 distance of a translation from its partner, where --paired-data has some (Tripathy et al. 2018,
    arXiv:1805.03189); not in the paper."""
    pool_size: Annotated[int, Ge(0)] = 50
    """How many past fakes each discriminator may be shown again; 0 turns it off."""


class CycleGAN(Algorithm):
    """A ↔ B, from two sets of images without pairs."""

    name = CycleGANOptions.algorithm
    paired = False
    mixes = True

    def __init__(self, options: CycleGANOptions, in_channels: int = 3, out_channels: int = 3) -> None:
        if options.lambda_identity and in_channels != out_channels:
            raise UsageError(
                f"lambda_identity = {options.lambda_identity}: an identity loss needs as many channels in A "
                f"({in_channels}) as in B ({out_channels}); use --lambda-identity 0"
            )
        if options.batch_identity and options.low_memory:
            raise UsageError("batch_identity = True: takes more memory, which low_memory = True is to save")
        if options.batch_identity and options.norm == "batch":
            raise UsageError("batch_identity = True: with norm = 'batch' a batch would normalise its images together")
        self.options = options
        self.gan, self.augment = options.adversarial(), options.augmentation()
        self.content = options.create_content(in_channels, out_channels)
        self.G_AB = options.create_generator(in_channels, out_channels)
        self.G_BA = options.create_generator(out_channels, in_channels)
        self.D_A = options.create_discriminator(in_channels)
        self.D_B = options.create_discriminator(out_channels)
        self.pool_A, self.pool_B = ImagePool(options.pool_size), ImagePool(options.pool_size)

    @classmethod
    def channels(cls, options: Any) -> tuple[int, int]:
        if options.instance_edges:
            raise UsageError("instance_edges: the way back would have to make them; leave it out")
        if options.paired_data and not options.lambda_paired:
            raise UsageError(f"paired_data = {options.paired_data}: lambda_paired = 0.0 makes nothing of its pairs")
        options.needs("lambda_paired", options.paired_data is not None, "paired_data")
        check_one_size(options)
        labels = {palette is not None for palette in classes(options)}
        if len(labels) > 1 and options.lambda_identity:
            raise UsageError("classes: labels and pictures have nothing to be compared by; use --lambda-identity 0")
        return super().channels(options)

    def players(self) -> dict[str, list[nn.Module]]:
        return {"generator": [self.G_AB, self.G_BA], "discriminator": [self.D_A, self.D_B]}

    def translators(self) -> dict[str, nn.Module]:
        return {"a2b": self.G_AB, "b2a": self.G_BA}

    def losses(self, batch: ImagePair, step: int) -> Iterator[Turn]:
        o, real_A, real_B = self.options, batch.a, batch.b
        shown_A, shown_B = self.augment(real_A, step), self.augment(real_B, step)
        fakes: dict[str, Tensor] = {}  # made in the generators' turn
        parts: list[Callable[[], Losses]] = [
            partial(self._cycle, "AB", batch, step, shown_B, fakes),
            partial(self._cycle, "BA", batch, step, shown_A, fakes),
        ]
        if o.lambda_identity and not o.batch_identity:
            parts += [
                lambda: self._identity("A", self.G_BA(real_A), real_A),
                lambda: self._identity("B", self.G_AB(real_B), real_B),
            ]
        yield from turn("generator", *parts, apart=o.low_memory)

        fake_A, fake_B = self.augment(self.pool_A(fakes["BA"]), step), self.augment(self.pool_B(fakes["AB"]), step)
        yield from turn(
            "discriminator",
            lambda: self._judgement("D_A", self.D_A, shown_A, fake_A),
            lambda: self._judgement("D_B", self.D_B, shown_B, fake_B),
            apart=o.low_memory,
        )

    def _cycle(self, way: str, batch: ImagePair, step: int, shown: Tensor, fakes: dict[str, Tensor]) -> Losses:
        """What the way there (`AB` or `BA`) and back gives; the fake, whose rivals are `shown`, goes to `fakes`."""
        o, there = self.options, way == "AB"
        G, back, D = (self.G_AB, self.G_BA, self.D_B) if there else (self.G_BA, self.G_AB, self.D_A)
        real, other = (batch.a, batch.b) if there else (batch.b, batch.a)
        losses = Losses()
        if o.lambda_identity and o.batch_identity:
            fake, same = in_one_batch(G, real, other)
            losses = self._identity(way[1], same, other)
        else:
            fake = G(real)
        fakes[way] = fake.detach()
        with frozen(D):
            losses[f"gan_{way}"] = self.gan.generator(D(self.augment(fake, step)), self.gan.rivals(D, shown))  # Eq. 1
        losses |= o.regularisers(f"{{}}_{way}", G, real, fake)
        losses |= o.kept(f"_{way}", self.content, fake, real)
        if batch.matched is not None and o.lambda_paired:
            losses[f"paired_{way}"] = o.lambda_paired * _of_pairs(fake, other, batch.matched)
        losses[f"cycle_{way[0]}"] = self._lambda(way[0]) * F.l1_loss(back(fake), real)  # Eq. 2
        return losses

    def _identity(self, domain: str, same: Tensor, real: Tensor) -> Losses:
        """`same` is made of `real`, which is of `domain` already, by the generator *to* that domain (Sec. 5.2)."""
        weight = self._lambda(domain) * self.options.lambda_identity
        return Losses({f"identity_{domain}": weight * F.l1_loss(same, real)})

    def _lambda(self, domain: str) -> float:
        return self.options.lambda_cycle_A if domain == "A" else self.options.lambda_cycle_B

    def _judgement(self, name: str, D: nn.Module, real: Tensor, fake: Tensor) -> Losses:
        of_real, of_fake = judged(D, real, fake)
        self.augment.observe(of_real)
        loss = self.gan.discriminator(of_real, of_fake)
        return Losses({name: loss, **self.gan.penalty(f"{name}_penalty", D, real, fake)})

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


def _of_pairs(made: Tensor, partner: Tensor, matched: Tensor) -> Tensor:
    """The L1 distance of rows that are pairs, 0 for others; the mean over all rows, so that micro-batches add up."""
    return ((made - partner).abs().flatten(1).mean(dim=1) * matched).mean()
