"""Conditional GANs, such as pix2pix: D sees `batch.b` or G's output beside `batch.a`, and G makes outputs that D takes
for real (Mirza & Osindero 2014, arXiv:1411.1784; Isola et al. 2017, Eq. 1)."""

from torch import Tensor, nn

from i2i.algorithms.algorithm import DISCRIMINATOR, GENERATOR, Algorithm, Options, Player, Translators, Turn
from i2i.data.pair import ImagePair


class ConditionalGAN(Algorithm[Options]):
    """G, D, and D's turn. D is updated before G."""

    paired = True

    def __init__(
        self,
        options: Options,
        in_channels: int,
        out_channels: int,
        conditional: bool = True,
        discriminator: bool = True,
    ) -> None:
        """`conditional`: D sees the input beside the output. Without a `discriminator` G learns from content losses."""
        self.options = options
        self.gan, self.augment = options.gan_loss(), options.augmentation()
        self.conditional = conditional
        self.G = options.create_generator(in_channels, out_channels)
        if discriminator:
            self.D = options.create_discriminator(out_channels + (in_channels if conditional else 0))

    def players(self) -> dict[Player, list[nn.Module]]:
        discriminator: dict[Player, list[nn.Module]] = {DISCRIMINATOR: [self.D]} if hasattr(self, "D") else {}
        return discriminator | {GENERATOR: [self.G]}

    def translators(self) -> dict[str, nn.Module]:
        return {"a2b": self.G}

    def discriminator_input(self, a: Tensor, b: Tensor, step: int) -> Tensor:
        """The pair, or the output alone, augmented."""
        return self.augment(b, step, condition=a if self.conditional else None)

    def discriminator_turn(self, real: Tensor, fake: Tensor) -> Turn:
        """The turn of D (Eq. 1) on inputs of D; `fake` has no gradient."""
        return DISCRIMINATOR, self.discriminator_losses("D", self.D, real, fake)

    def validation_pairs(self, batch: ImagePair, translators: Translators) -> dict[str, tuple[Tensor, Tensor]]:
        return {"fake_B": (translators["a2b"](batch.a), batch.b)}

    def pictures(self, batch: ImagePair, translators: Translators) -> dict[str, Tensor]:
        return {"real_A": batch.a, "fake_B": translators["a2b"](batch.a), "real_B": batch.b}
