"""The game that pix2pix and its kin play: G makes of `batch.a` what D cannot tell from `batch.b`, seen beside `batch.a`
(Mirza & Osindero 2014, arXiv:1411.1784; Isola et al. 2017, Eq. 1)."""

from collections.abc import Callable, Iterator

from torch import Tensor, nn

from i2i.algorithms.algorithm import Algorithm, Losses, Translators, Turn, frozen, turn
from i2i.algorithms.augmentation import judged
from i2i.algorithms.options import NetworkOptions
from i2i.data.pair import ImagePair


class ConditionalGAN(Algorithm):
    """G, D, and D's turn. D is updated before G."""

    paired = True

    def __init__(
        self, options: NetworkOptions, in_channels: int, out_channels: int, conditional: bool = True, judge: bool = True
    ) -> None:
        """`conditional`: D sees the input beside the output. Without a `judge` there is no D, and no turn of it."""
        self.gan, self.augment = options.adversarial(), options.augmentation()
        self.conditional, self.apart = conditional, options.low_memory
        self.G = options.create_generator(in_channels, out_channels)
        if judge:
            self.D = options.create_discriminator(out_channels + (in_channels if conditional else 0))

    def players(self) -> dict[str, list[nn.Module]]:
        judges = {"discriminator": [self.D]} if hasattr(self, "D") else {}
        return judges | {"generator": [self.G]}

    def translators(self) -> dict[str, nn.Module]:
        return {"a2b": self.G}

    def shown(self, a: Tensor, b: Tensor, step: int) -> Tensor:
        """What D is shown: the pair, or the output alone."""
        return self.augment(b, step, condition=a if self.conditional else None)

    def judgement(self, real: Tensor, fake: Tensor) -> Iterator[Turn]:
        """D's turn (Eq. 1), on what it is `shown`; `fake` without a gradient."""
        yield from turn("discriminator", *self._judgements(real, fake), apart=self.apart)

    def deceit(self, real: Tensor, fake: Tensor) -> Tensor:
        """What G minimises to deceive D, on what that is `shown` (Isola et al. 2017, Sec. 3.3)."""
        with frozen(self.D):
            return self.gan.generator(self.D(fake), self.gan.rivals(self.D, real))

    def reconstructions(self, batch: ImagePair, translators: Translators) -> dict[str, tuple[Tensor, Tensor]]:
        return {"fake_B": (translators["a2b"](batch.a), batch.b)}

    def pictures(self, batch: ImagePair, translators: Translators) -> dict[str, Tensor]:
        return {"real_A": batch.a, "fake_B": translators["a2b"](batch.a), "real_B": batch.b}

    def _judgements(self, real: Tensor, fake: Tensor) -> list[Callable[[], Losses]]:
        """Fakes and real images apart only where memory counts and they are not compared."""

        def of_fake() -> Losses:
            return Losses(D_fake=0.5 * self.gan.fake(self.D(fake)))

        def of_real() -> Losses:
            logits = self.D(real)
            self.augment.observe(logits)
            return Losses(D_real=0.5 * self.gan.real(logits), **self.gan.penalty("D_penalty", self.D, real, fake))

        def of_both() -> Losses:
            fakes, reals = judged(self.D, fake, real)
            self.augment.observe(reals)
            penalty = self.gan.penalty("D_penalty", self.D, real, fake)
            return Losses(self.gan.terms("D", reals, fakes) | penalty)

        return [of_fake, of_real] if self.apart and not self.gan.relativistic else [of_both]
