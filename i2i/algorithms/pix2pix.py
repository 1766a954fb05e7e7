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

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.algorithms.algorithm import Algorithm, Losses, Translators, Turn, frozen, in_one_batch, turn
from i2i.algorithms.options import NetworkOptions
from i2i.data.pair import ImagePair
from i2i.losses.adversarial import GanMode
from i2i.networks.blocks import Norm


@dataclass(frozen=True, kw_only=True)
class Pix2PixOptions(NetworkOptions):
    """The paper's defaults."""

    generator: str = "unet_256"
    """`unet_<size>` or `resnet_<n>blocks`."""
    norm: Norm = "batch"
    """Normalisation in all networks."""
    dropout: bool = True
    """Dropout in the generator, in training and when translating: the noise of the paper."""
    gan_mode: GanMode = "vanilla"
    """The adversarial loss."""
    conditional: bool = True
    """The discriminator sees the input beside the output."""
    lambda_L1: Annotated[float, Ge(0)] = 100.0
    """Weight of the L1 loss."""


class Pix2Pix(Algorithm):
    """`batch.a` → `batch.b`, from pairs."""

    name = "pix2pix"
    paired = True
    test_dropout = True

    def __init__(self, options: Pix2PixOptions, in_channels: int = 3, out_channels: int = 3) -> None:
        self.options = options
        self.gan, self.augment = options.adversarial(), options.augmentation()
        self.G = options.create_generator(in_channels, out_channels)
        self.D = options.create_discriminator(out_channels + (in_channels if options.conditional else 0))

    def players(self) -> dict[str, list[nn.Module]]:
        return {"discriminator": [self.D], "generator": [self.G]}

    def translators(self) -> dict[str, nn.Module]:
        return {"a2b": self.G}

    def _judged(self, a: Tensor, b: Tensor) -> Tensor:
        """What D is shown: the pair, or the output alone."""
        return self.augment(b, condition=a if self.options.conditional else None)

    def losses(self, batch: ImagePair, step: int) -> Iterator[Turn]:
        real_A, real_B = batch.a, batch.b
        fake_B = self.G(real_A)

        real, fake = self._judged(real_A, real_B), self._judged(real_A, fake_B.detach())
        yield from turn("discriminator", *self._judgements(real, fake), apart=self.options.low_memory)

        with frozen(self.D):
            losses = Losses(
                G_gan=self.gan.generator(self.D(self._judged(real_A, fake_B))),  # Sec. 3.3
                G_L1=self.options.lambda_L1 * F.l1_loss(fake_B, real_B),  # Eq. 3, 4
            )
        yield "generator", losses

    def _judgements(self, real: Tensor, fake: Tensor) -> list[Callable[[], Losses]]:
        """Eq. 1, fakes and real images apart only where memory counts."""

        def of_fake(logits: Tensor) -> Losses:
            return Losses(D_fake=0.5 * self.gan.fake(logits))

        def of_real(logits: Tensor) -> Losses:
            penalty = self.gan.penalty("D_penalty", self.D, real, fake)
            return Losses(D_real=0.5 * self.gan.real(logits), **penalty)

        def of_both() -> Losses:
            fakes, reals = in_one_batch(self.D, fake, real)
            return Losses(of_fake(fakes) | of_real(reals))

        if self.options.low_memory:
            return [lambda: of_fake(self.D(fake)), lambda: of_real(self.D(real))]
        return [of_both]

    def reconstructions(self, batch: ImagePair, translators: Translators) -> dict[str, tuple[Tensor, Tensor]]:
        return {"fake_B": (translators["a2b"](batch.a), batch.b)}

    def pictures(self, batch: ImagePair, translators: Translators) -> dict[str, Tensor]:
        return {"real_A": batch.a, "fake_B": translators["a2b"](batch.a), "real_B": batch.b}
