"""pix2pixHD: Wang, Liu, Zhu, Tao, Kautz, Catanzaro, "High-Resolution Image Synthesis and Semantic Manipulation with
Conditional GANs", CVPR 2018 (arXiv:1711.11585).

| here | paper |
|---|---|
| `real_A`, `real_B`, `fake_B` | s (labels, and where instances meet), x, G(s) |
| `G` (`pix2pixhd`) | G = {G1, G2}, Sec. 3.2 |
| `D` (`patchgan_70_multiscale`) | D_1, D_2, D_3, Sec. 3.2 |
| `lambda_FM` | λ = 10, Eq. 5; L_FM, Eq. 4 |
| `lambda_VGG` | λ = 10 of the perceptual loss, Sec. 3.3 |
| `--classes-a`, `--instance-edges` | one-hot label maps and the boundary map, Sec. 3.3 |

Deviations: each loss is the mean over the discriminators where Eq. 2 and 5 have sums, so that `lambda_FM` is the
paper's λ however many there are. The published code sums up the adversarial losses, G's and D's, and takes the mean of
feature matching alone: with its three discriminators its adversarial loss weighs three times as much beside L_FM and
L_VGG as ours. G1 and G2 are trained together from the start, where the paper begins with G1; convolutions of D pad by
1, as PatchGANs do here. Not here: the encoder of instance features (Sec. 3.4).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Interval
from torch import Tensor

from i2i.algorithms.algorithm import GENERATOR, ConditionalGAN, Losses, Turn, frozen
from i2i.algorithms.options import NetworkOptions
from i2i.data.pair import ImagePair
from i2i.errors import UsageError
from i2i.losses.content import Perceptual, feature_matching
from i2i.networks import DiscriminatorName, GeneratorName
from i2i.networks.patchgan import MultiScalePatchGAN, PatchGAN
from i2i.networks.projected import Projected


@dataclass(frozen=True, kw_only=True)
class Pix2PixHDOptions(NetworkOptions):
    """The paper's defaults."""

    algorithm = "pix2pixhd"

    generator: GeneratorName = "pix2pixhd"
    """`pix2pixhd`, its G1 alone `pix2pixhd_global`, or any other."""
    discriminator: DiscriminatorName = "patchgan_70_multiscale"
    """`patchgan_<patch width>`, the same with `_multiscale`: three scales; for pictures also `projected`."""
    ngf: Annotated[int, Interval(ge=1, le=512)] = 32
    """Channels of G2's first layer; G1 has twice as many."""
    lambda_FM: Annotated[float, Ge(0)] = 10.0
    """Weight of the feature matching loss."""
    lambda_VGG: Annotated[float, Ge(0)] = 0.0
    """Weight of the perceptual loss, 10 in the paper; needs --vgg."""
    vgg: Path | None = None
    """torchvision's weights of VGG-19, as a safetensors file."""


class Pix2PixHD(ConditionalGAN[Pix2PixHDOptions]):
    """`batch.a`, labels or pictures → `batch.b`, from pairs."""

    name = Pix2PixHDOptions.algorithm

    def __init__(self, options: Pix2PixHDOptions, in_channels: int = 3, out_channels: int = 3) -> None:
        if bool(options.lambda_VGG) != (options.vgg is not None):
            raise UsageError(f"lambda_VGG = {options.lambda_VGG}, vgg = {options.vgg}: give both or neither")
        super().__init__(options, in_channels, out_channels)
        if not isinstance(self.D, PatchGAN | MultiScalePatchGAN | Projected):
            raise UsageError(
                f"discriminator = {options.discriminator}: its layers are compared; use a patchgan or projected"
            )
        if options.vgg and out_channels != 3:
            raise UsageError(f"vgg: takes pictures of 3 channels, not of {out_channels}")
        self.perceptual = Perceptual(options.vgg) if options.vgg else None

    def losses(self, batch: ImagePair, step: int) -> Iterator[Turn]:
        o, real_A, real_B = self.options, batch.a, batch.b
        fake_B = self.G(real_A)
        real = self.discriminator_input(real_A, real_B, step)
        yield self.discriminator_turn(real, self.discriminator_input(real_A, fake_B.detach(), step))

        with frozen(self.D):  # features are compared place by place, so they are those of pictures without augmentation
            fake_features, real_features = self._features(real_A, fake_B), self._features(real_A, real_B.detach())
        if self.augmentation and self.augmentation.changes(step):
            loss = self.generator_loss(self.D, self.discriminator_input(real_A, fake_B, step), real)
        else:
            logits = [tuple(scale[-1] for scale in features) for features in (fake_features, real_features)]
            loss = self.gan.generator(*logits)
        matching = o.lambda_FM * feature_matching(fake_features, real_features)
        yield (
            GENERATOR,
            Losses(
                adversarial={"G_gan": loss, "G_FM": matching},  # Eq. 2, 4, 5
                content={"G_VGG": o.lambda_VGG * self.perceptual(fake_B, real_B)} if self.perceptual else {},
                penalties=self.regularisers("G_{}", self.G, real_A, fake_B),
            ),
        )

    def _features(self, a: Tensor, b: Tensor) -> list[list[Tensor]]:
        """The outputs of D's layers for a pair, at each scale; without a gradient where `b` needs none."""
        D: Any = self.D
        with torch.set_grad_enabled(b.requires_grad):
            found: list[list[Tensor]] = D.features(torch.cat([a, b], dim=1))
        return found
