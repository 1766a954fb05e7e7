"""The DCGAN: Radford, Metz, Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative
Adversarial Networks", ICLR 2016 (arXiv:1511.06434), Sec. 3 and Fig. 1.

The generator turns noise z ~ N(0, 1), as (N, z, 1, 1), into images of one size; the discriminator gives one logit for
each image of that size. There is no pooling and no fully connected layer: convolutions of stride 2 halve or double the
size between 4×4 and the image. Widths double with each halving, up to 8 times the outermost.

Deviations from the paper: 4×4 kernels, not 5×5; noise from a normal, not a uniform distribution; batch norm wherever
the paper has it, unless `norm` says otherwise.
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Interval
from pydantic import AfterValidator
from torch import Tensor, nn

from i2i.device import precise
from i2i.networks.blocks import Norm, conv_bias, normalization

SIZES = (16, 32, 64, 128, 256)


def checked_size(size: int) -> int:
    """Returns `size` if it is one of `SIZES`, else raises `ValueError`."""
    if size not in SIZES:
        raise ValueError(f"must be one of {', '.join(map(str, SIZES))}, not {size}")
    return size


Size = Annotated[int, AfterValidator(checked_size)]


@dataclass(frozen=True, kw_only=True)
class DCGANConfig:
    """A generator of images of `size`×`size` pixels with `width` channels at half the size (the reference's `ngf`)."""

    kind: ClassVar[str] = "dcgan"
    dropout: ClassVar[bool] = False

    in_channels: Annotated[int, Interval(ge=1, le=1024)] = 100
    """Length of the noise vector."""
    out_channels: Annotated[int, Interval(ge=1, le=64)] = 3
    width: Annotated[int, Interval(ge=1, le=512)] = 64
    size: Size = 64
    norm: Norm = "batch"
    bias: bool | None = None
    """Biases of convolutions before a normalisation. Default: yes, unless it is batch norm."""

    @property
    def size_multiple(self) -> int:
        """Height and width of its images."""
        return self.size

    minimum_size = size_multiple

    def build(self) -> "DCGANGenerator":
        return DCGANGenerator(self)


class DCGANGenerator(nn.Module):
    """Noise (N, in_channels, 1, 1) → (N, out_channels, size, size), values in [-1, 1]."""

    def __init__(self, config: DCGANConfig) -> None:
        super().__init__()
        self.config = config
        self.size_multiple, self.minimum_size = config.size_multiple, config.minimum_size
        bias = conv_bias(config.norm, config.bias)
        widths = _widths(config.width, config.size)[::-1]
        layers: list[nn.Module] = []
        channels = config.in_channels
        for i, width in enumerate(widths):
            # the first is the paper's "project and reshape": each number of z becomes 4×4 pixels
            stride, padding = (2, 1) if i else (1, 0)
            layers += [
                nn.ConvTranspose2d(channels, width, 4, stride=stride, padding=padding, bias=bias),
                normalization(config.norm, width),
                nn.ReLU(inplace=True),
            ]
            channels = width
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(channels, config.out_channels, 4, stride=2, padding=1))

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(precise(self.layers(z)))


@dataclass(frozen=True, kw_only=True)
class DCGANDiscriminatorConfig:
    """A discriminator of images of `size`×`size` pixels with `width` channels at half the size (`ndf`)."""

    kind: ClassVar[str] = "dcgan_discriminator"

    in_channels: Annotated[int, Interval(ge=1, le=128)] = 3
    width: Annotated[int, Interval(ge=1, le=512)] = 64
    size: Size = 64
    norm: Norm = "batch"
    bias: bool | None = None
    """Biases of convolutions before a normalisation. Default: yes, unless it is batch norm."""

    @property
    def minimum_size(self) -> int:
        """The smallest height and width that leave one logit."""
        return self.size

    def build(self) -> "DCGANDiscriminator":
        return DCGANDiscriminator(self)


class DCGANDiscriminator(nn.Module):
    """(N, in_channels, size, size) → (N, 1, 1, 1) logits; no sigmoid. Larger images get more logits."""

    def __init__(self, config: DCGANDiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        bias = conv_bias(config.norm, config.bias)
        layers: list[nn.Module] = []
        channels = config.in_channels
        for i, width in enumerate(_widths(config.width, config.size)):
            layers += [
                nn.Conv2d(channels, width, 4, stride=2, padding=1, bias=bias or i == 0),
                normalization(config.norm, width) if i else nn.Identity(),
                nn.LeakyReLU(0.2, inplace=True),
            ]
            channels = width
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 1, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def _widths(width: int, size: int) -> list[int]:
    """Returns the channels at size / 2, size / 4, … 4."""
    return [width * min(2**i, 8) for i in range(int(math.log2(size)) - 2)]


def noise(numbers: int, seed: int, truncation: float | None = None) -> Tensor:
    """Returns noise (numbers, 1, 1) from N(0, 1), a function of `seed`, for one image.

    Numbers beyond ±`truncation` are drawn again (Brock, Donahue, Simonyan 2019, arXiv:1809.11096, Sec. 3.1).
    """
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(numbers, 1, 1, generator=generator)
    while truncation is not None and bool((far := z.abs() > truncation).any()):
        z[far] = torch.randn(int(far.sum()), generator=generator)
    return z


def between(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Spherical interpolation (Shoemake 1985; of noise: White 2016, arXiv:1609.04468): `share` of the way from a to b.

    Normal noise in many dimensions lies near a sphere. Points on the straight line between two of them are shorter than
    any noise of the training. Where a and b are opposite or alike, this function takes the line nevertheless.
    """
    if share in (0.0, 1.0):
        return b if share else a
    cosine = float((a * b).sum() / (a.norm() * b.norm()))
    angle = math.acos(max(-1.0, min(1.0, cosine)))
    if math.sin(angle) < 1e-4:
        return a + share * (b - a)
    return (math.sin((1 - share) * angle) * a + math.sin(share * angle) * b) / math.sin(angle)
