"""GAN: Goodfellow, Pouget-Abadie, Mirza, Xu, Warde-Farley, Ozair, Courville, Bengio, "Generative Adversarial Nets",
NeurIPS 2014 (arXiv:1406.2661), with the networks of DCGAN (Radford, Metz, Chintala, ICLR 2016, arXiv:1511.06434).

| here | paper |
|---|---|
| `z`, `real_B`, `fake_B` | z ~ p_z, x ~ p_data, G(z) |
| `G`, `D` | G, D (whose logits are of D's sigmoid) |
| `gan` (`minimax`) | the value function V(G, D), Eq. 1: both play the same cross-entropy |
| `gan` (`vanilla`, the default) | the generator maximises log D(G(z)) instead, Sec. 3 |
| `losses`: D's turn, then G's | Algorithm 1 with k = 1, as in the paper's experiments |

Deviations. From the GAN: Adam, not momentum, as in DCGAN; D minimises half of its cross-entropy, as everywhere here,
and G's turn has the noise of D's. From DCGAN: see networks/dcgan.py; and the learning rate falls in the second half
(`lr_policy` constant is the paper's).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from annotated_types import Ge, Interval
from torch import Tensor

from i2i.algorithms.algorithm import GENERATOR, ConditionalGAN, Losses, Translators, Turn
from i2i.algorithms.options import NetworkOptions
from i2i.config import checked
from i2i.data.options import of_one_size
from i2i.data.pair import ImagePair
from i2i.errors import UsageError, as_typed
from i2i.losses.adversarial import GanMode
from i2i.networks import DiscriminatorName, GeneratorName, generator_config
from i2i.networks.blocks import Norm
from i2i.networks.dcgan import DCGANConfig, noise


@dataclass(frozen=True, kw_only=True)
class GANOptions(NetworkOptions):
    """DCGAN's defaults."""

    algorithm = "gan"

    generator: GeneratorName = "dcgan_64"
    """`dcgan_<size>`, which makes pictures of that size: 16, 32, 64, 128 or 256."""
    discriminator: DiscriminatorName = "dcgan_64"
    """`dcgan_<size>`, `patchgan_<patch width>` or `pixelgan`."""
    latent_size: Annotated[int, Interval(ge=1, le=1024)] = 100
    """Numbers in the noise of a picture."""
    norm: Norm = "batch"
    """Normalisation in both networks."""
    gan_mode: GanMode = "vanilla"
    """The adversarial loss: minimax is the paper's first, vanilla its non-saturating form."""
    crop_size: Annotated[int, Interval(ge=1, le=65_535)] = 64
    """Pixels of the side of the random square crop: the size that the generator makes."""
    load_size: Annotated[int, Interval(ge=1, le=65_535)] = 64
    """Pixels that a side is scaled to before the crop."""
    batch_size: Annotated[int, Ge(1)] | Literal["auto"] = 128
    """Samples per step and process."""
    samples: Annotated[int, Interval(ge=1, le=64)] = 16
    """Rows of a sample grid: outputs of fixed noise, beside pictures."""
    best_metric: Literal["swd"] = "swd"
    """The metric that chooses the best model file: the sliced Wasserstein distance of outputs to held-out pictures."""

    def generator_config(self, in_channels: int, out_channels: int) -> DCGANConfig:
        for name in ("dropout", "input_share"):
            if value := getattr(self, name):
                raise UsageError(f"{name} = {value}: the generator of a GAN has no {name}; leave it out")
        config = generator_config(self.generator)
        if not isinstance(config, DCGANConfig):
            raise UsageError(f"generator = {self.generator!r}: translates pictures; a GAN takes noise: use dcgan_64")
        channels = {"in_channels": in_channels, "out_channels": out_channels}
        return checked(replace(config, **channels, width=self.ngf, norm=self.norm, bias=self.bias))

    def size_limits(self, in_channels: int, out_channels: int) -> tuple[int, int]:
        size = self.generator_config(in_channels, out_channels).size
        if self.crop_size != size:
            raise UsageError(
                f"crop_size = {self.crop_size}: {self.generator} makes pictures of {size}; give "
                f"{as_typed('crop_size', size)} or another {as_typed('generator')} dcgan_<size>"
            )
        return super().size_limits(in_channels, out_channels)


class GAN(ConditionalGAN[GANOptions]):
    """Noise → pictures like those of one set; `batch.a` is the noise, (N, z, 1, 1), `batch.b` the pictures."""

    name = GANOptions.algorithm
    paired = False
    single_domain = True
    from_noise = True
    test_statistics = "running"  # a picture must not depend on those made with it

    def __init__(self, options: GANOptions, in_channels: int = 100, out_channels: int = 3) -> None:
        options.needs("lambda_stability", False, "a picture to translate")
        super().__init__(options, in_channels, out_channels, conditional=False)

    @classmethod
    def channels(cls, options: GANOptions) -> tuple[int, int]:
        if options.direction != "a2b":
            raise UsageError(f"direction = {options.direction!r}: a GAN goes from noise to pictures; leave it out")
        if not of_one_size(options.preprocess):
            raise UsageError(
                f"preprocess = {options.preprocess}: the generator makes pictures of one size, so the data "
                "need one size too; use resize_and_crop, scale_width_and_crop, scale_shortside or crop"
            )
        return options.latent_size, options.channels_b

    @classmethod
    def make_pair(cls, options: GANOptions, picture: Tensor, seed: int) -> ImagePair:
        return ImagePair(a=noise(options.latent_size, seed), b=picture)

    def losses(self, batch: ImagePair, step: int) -> Iterator[Turn]:
        z, real_B = batch.a, batch.b
        fake_B = self.G(z)

        real, fake = self.augment(real_B, step), self.augment(fake_B.detach(), step)
        yield self.discriminator_turn(real, fake)  # Eq. 1

        loss = self.generator_loss(self.D, self.augment(fake_B, step), real)
        penalties = self.regularisers("G_{}", self.G, None, fake_B)
        yield GENERATOR, Losses(adversarial={"G_gan": loss}, penalties=penalties)

    def validation_pairs(self, batch: ImagePair, translators: Translators) -> dict[str, tuple[Tensor, Tensor]]:
        return {}  # no picture belongs to a noise

    def pictures(self, batch: ImagePair, translators: Translators) -> dict[str, Tensor]:
        return {"fake_B": translators["a2b"](batch.a), "real_B": batch.b}
