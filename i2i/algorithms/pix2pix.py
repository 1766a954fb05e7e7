"""pix2pix: Isola, Zhu, Zhou, Efros, "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017
(arXiv:1611.07004); and the same to colours and to labels.

| here | paper |
|---|---|
| `real_A`, `real_B`, `fake_B` | x, y, G(x, z) |
| `G`, `D` | G, D (judges pairs: x beside y) |
| `gan` (`vanilla`) | L_cGAN, Eq. 1; the generator maximises log D(x, G(x, z)), Sec. 3.3 |
| `lambda_L1` | λ = 100, Eq. 4 |

Deviations from the paper, all shared with the published code: the noise z is dropout alone (as Sec. 3.1 says);
dropout stands after the innermost decoder layer (see networks/unet.py); D is updated before G.

Colorization goes from the lightness of a picture (`real_A`: L*, 0 to 100 as -1 to 1) to its colours in CIE Lab
(`real_B`: a* and b*, -110 to 110 as -1 to 1), as Zhang, Isola, Efros, "Colorful Image Colorization", ECCV 2016
(arXiv:1603.08511), have it. Every picture in colour is a pair by itself. Deviation: no dropout, so that a picture
always gets the same colours. The model file says `encoding: lab`: translating keeps the lightness and writes RGB.

Segmentation goes from a photo to labels with a channel for each class (Sec. 4.4), with the cross-entropy of semantic
segmentation (Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015):
`class_cross_entropy` is the mean over pixels of their multinomial logistic loss (FCN, Sec. 4.3). Deviations: G's last
tanh is undone for the logits, so that any generator will do; D sees the softmax of those beside labels of 0 and 1, as
Luc et al. 2016 (arXiv:1611.08408) do; no dropout, so that the same photo gives the same labels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, TypeVar

import torch
from annotated_types import Ge
from torch import Tensor
from torch.nn import functional as F

from i2i.algorithms.algorithm import GENERATOR, ConditionalGAN, Losses, Translators, Turn
from i2i.algorithms.options import NetworkOptions
from i2i.data.options import channels, classes
from i2i.data.pair import ImagePair
from i2i.device import precise
from i2i.errors import UsageError, as_typed
from i2i.images.colours import join_lab, split_lab
from i2i.losses.adversarial import GanMode
from i2i.networks import GeneratorName
from i2i.networks.blocks import Norm
from i2i.networks.projected import Projected


@dataclass(frozen=True, kw_only=True)
class _PaperOptions(NetworkOptions):
    """The paper's networks and adversarial loss."""

    generator: GeneratorName = "unet_256"
    """`unet_<size>`, the same with `_attention`, or `resnet_<n>blocks`."""
    norm: Norm = "batch"
    """Normalisation in all networks, but for a discriminator with spectral normalisation."""
    gan_mode: GanMode = "vanilla"
    """The adversarial loss."""


@dataclass(frozen=True, kw_only=True)
class Pix2PixOptions(_PaperOptions):
    """The paper's defaults."""

    algorithm = "pix2pix"

    dropout: bool = True
    """Dropout in the generator, in training and when translating: the noise of the paper."""
    conditional: bool = True
    """The discriminator sees the input beside the output."""
    lambda_L1: Annotated[float, Ge(0)] = 100.0
    """Weight of the L1 loss."""


@dataclass(frozen=True, kw_only=True)
class ColorizationOptions(_PaperOptions):
    """pix2pix's defaults."""

    algorithm = "colorization"

    lambda_L1: Annotated[float, Ge(0)] = 100.0
    """Weight of the L1 loss on a* and b*."""


_L1Options = TypeVar("_L1Options", Pix2PixOptions, ColorizationOptions)


class _ByL1(ConditionalGAN[_L1Options]):
    """Outputs that D takes for real, and that are near `batch.b`."""

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


class Pix2Pix(_ByL1[Pix2PixOptions]):
    """`batch.a` → `batch.b`, from pairs."""

    name = Pix2PixOptions.algorithm
    test_dropout = True

    def __init__(self, options: Pix2PixOptions, in_channels: int = 3, out_channels: int = 3) -> None:
        super().__init__(options, in_channels, out_channels, conditional=options.conditional)


class Colorization(_ByL1[ColorizationOptions]):
    """`batch.a`, (N, 1, H, W) lightness → `batch.b`, (N, 2, H, W) colours, from pictures in colour."""

    name = ColorizationOptions.algorithm
    single_domain = True
    encoding = "lab"

    def __init__(self, options: ColorizationOptions, in_channels: int = 1, out_channels: int = 2) -> None:
        super().__init__(options, in_channels, out_channels)

    @classmethod
    def channels(cls, options: ColorizationOptions) -> tuple[int, int]:
        if options.channels_b != 3 or options.classes_b:
            raise UsageError("channels_b: colorization learns from pictures in colour, of 3 channels")
        if options.direction != "a2b":
            raise UsageError(
                f"direction = {options.direction!r}: colorization goes from lightness (A) to colours (B), a2b"
            )
        return 1, 2

    @classmethod
    def make_pair(cls, options: ColorizationOptions, picture: Tensor, seed: int) -> ImagePair:
        return ImagePair(*split_lab(picture))

    def discriminator_input(self, a: Tensor, b: Tensor, step: int) -> Tensor:
        pair = super().discriminator_input(a, b, step)
        # its features know pictures in RGB
        return join_lab(pair[:, :1], pair[:, 1:]) if isinstance(self.D, Projected) else pair

    def validation_pairs(self, batch: ImagePair, translators: Translators) -> dict[str, tuple[Tensor, Tensor]]:
        return {"fake_B": (join_lab(batch.a, translators["a2b"](batch.a)), join_lab(batch.a, batch.b))}

    def pictures(self, batch: ImagePair, translators: Translators) -> dict[str, Tensor]:
        fake_B = join_lab(batch.a, translators["a2b"](batch.a))
        return {"real_A": batch.a, "fake_B": fake_B, "real_B": join_lab(batch.a, batch.b)}


@dataclass(frozen=True, kw_only=True)
class SegmentationOptions(_PaperOptions):
    """Labels by class: `--classes-b` (or `--classes-a` with `--direction b2a`) says which there are."""

    algorithm = "segmentation"

    lambda_CE: Annotated[float, Ge(0)] = 10.0
    """Weight of the cross-entropy."""
    lambda_L1: Annotated[float, Ge(0)] = 0.0
    """Weight of the L1 loss between probabilities and labels."""
    lambda_gan: Annotated[float, Ge(0)] = 1.0
    """Weight of the adversarial loss; 0 trains without a discriminator, which labelled the facades better."""


class Segmentation(ConditionalGAN[SegmentationOptions]):
    """`batch.a`, a photo → `batch.b`, labels, from pairs."""

    name = SegmentationOptions.algorithm

    def __init__(self, options: SegmentationOptions, in_channels: int = 3, out_channels: int = 3) -> None:
        if not (options.lambda_CE or options.lambda_L1 or options.lambda_gan):
            raise UsageError("lambda_CE, lambda_L1, lambda_gan: all 0, so nothing would be learnt")
        options.needs_discriminator()
        options.needs("lambda_grid", False, "pictures that are made")
        super().__init__(options, in_channels, out_channels)

    @classmethod
    def channels(cls, options: SegmentationOptions) -> tuple[int, int]:
        target = classes(options)["ab".index(options.direction[2])]
        if target is None:
            side = options.direction[2]
            values = "facades, a file with a colour a line, or the number of classes"
            raise UsageError(f"classes_{side}: missing; {as_typed(f'classes_{side}')} takes {values}")
        return channels(options)

    def losses(self, batch: ImagePair, step: int) -> Iterator[Turn]:
        o, real_A, real_B = self.options, batch.a, batch.b
        output = self.G(real_A)
        fake_B = probabilities(output).where(known(real_B), -1.0)  # as the labels are where there is none

        content = {"G_CE": o.lambda_CE * class_cross_entropy(output, real_B)}
        penalties = self.regularisers("G_{}", self.G, real_A, output)
        if o.lambda_L1:
            content["G_L1"] = o.lambda_L1 * F.l1_loss(fake_B, real_B)  # Eq. 3, 4
        adversarial = {}
        if o.lambda_gan:
            real = self.discriminator_input(real_A, real_B, step)
            yield self.discriminator_turn(real, self.discriminator_input(real_A, fake_B.detach(), step))
            fake = self.discriminator_input(real_A, fake_B, step)
            adversarial = {"G_gan": o.lambda_gan * self.generator_loss(self.D, fake, real)}
        yield GENERATOR, Losses(adversarial=adversarial, content=content, penalties=penalties)

    def validation_pairs(self, batch: ImagePair, translators: Translators) -> dict[str, tuple[Tensor, Tensor]]:
        """Labels against labels: of K classes, the metric l1 is 2/K of the share of pixels that are wrong."""
        return {"fake_B": (decided(translators["a2b"](batch.a)).where(known(batch.b), -1.0), batch.b)}

    def pictures(self, batch: ImagePair, translators: Translators) -> dict[str, Tensor]:
        return {"real_A": batch.a, "fake_B": decided(translators["a2b"](batch.a)), "real_B": batch.b}


# Labels are (N, K, H, W): 1 in the channel of a pixel's class, -1 in the others; a pixel without a class has -1 in all.


def logits(output: Tensor) -> Tensor:
    """atanh(output): the logit of each class, from a generator's output in [-1, 1].

    The result is in float32 at least, and within ±8.7 there. The generator must take its tanh in float32: in 16 bits
    that is 1 for all logits beyond 3.5, and its gradient is lost.
    """
    output = precise(output)
    largest = 1 - torch.finfo(output.dtype).eps / 2
    return torch.atanh(output.clamp(-largest, largest))


def probabilities(output: Tensor) -> Tensor:
    """softmax(logits) of the classes, scaled from [0, 1] to [-1, 1], the range of labels."""
    return logits(output).softmax(dim=1) * 2 - 1


def known(labels: Tensor) -> Tensor:
    """Whether each pixel has a class: (N, 1, H, W) booleans."""
    return (labels > 0).any(dim=1, keepdim=True)


def class_cross_entropy(output: Tensor, labels: Tensor) -> Tensor:
    """-log softmax(logits)[class], the mean over all pixels (Long et al. 2015, Sec. 4.3).

    A pixel without a class counts as 0.
    """
    with torch.autocast(output.device.type, enabled=False):
        each = F.cross_entropy(logits(output), labels.argmax(dim=1), reduction="none")
        return (each * known(labels)[:, 0]).mean()


def decided(output: Tensor) -> Tensor:
    """Labels of the most likely classes: 1 for the largest output of a pixel, else -1."""
    return F.one_hot(output.argmax(dim=1), output.shape[1]).movedim(-1, 1).to(output.dtype) * 2 - 1
