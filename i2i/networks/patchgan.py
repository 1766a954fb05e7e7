"""PatchGAN and PixelGAN discriminators (Isola et al. 2017, Sec. 3.2.2 and 6.1.2).

A logit per patch. With n layers a patch is 16, 34, 70, 142, 286 pixels wide for n = 1 … 5; a PixelGAN judges
each pixel alone. Anti-aliased (Park et al. 2020), each halving is a convolution of stride 1 followed by a blur,
and a patch is wider: 18, 40, 84, 172, 348 pixels. With spectral normalisation (Miyato et al. 2018), the weights of all
convolutions are normalised in place of what they answer.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Interval
from torch import Tensor, nn

from i2i.networks.antialias import BlurDownsample, Sampling
from i2i.networks.blocks import DiscriminatorNorm, Norm, conv_bias, normalization
from i2i.networks.convolutions import WideConv2d
from i2i.networks.spectral import convolution, follow


@dataclass(frozen=True, kw_only=True)
class PatchGANConfig:
    """A PatchGAN with `layers` layers of stride 2; `width` channels in the first (the reference's `ndf`)."""

    kind: ClassVar[str] = "patchgan"

    in_channels: Annotated[int, Interval(ge=1, le=512)] = 3
    width: Annotated[int, Interval(ge=1, le=512)] = 64
    layers: Annotated[int, Interval(ge=1, le=8)] = 3
    norm: DiscriminatorNorm = "instance"
    bias: bool | None = None
    """Biases before a normalisation; by default where there is no batch norm."""
    downsampling: Sampling = "strided"
    """How the size is halved."""

    @property
    def receptive_field(self) -> int:
        """The width in pixels of the patch that one logit judges."""
        return (11 << self.layers) - 4 if self.downsampling == "antialiased" else (9 << self.layers) - 2

    @property
    def minimum_size(self) -> int:
        """The smallest height and width that leave one logit."""
        return 3 << self.layers

    def build(self) -> "PatchGAN":
        return PatchGAN(self)


class PatchGAN(nn.Module):
    """(N, in_channels, H, W) → (N, 1, H', W') logits, one per patch; no sigmoid."""

    def __init__(self, config: PatchGANConfig) -> None:
        super().__init__()
        self.config = config
        spectral, bias = config.norm == "spectral", conv_bias(config.norm, config.bias)
        conv = convolution(spectral)
        blurred = config.downsampling == "antialiased"
        stride = 1 if blurred else 2
        widths = [config.width * min(2**i, 8) for i in range(config.layers + 1)]
        layers: list[nn.Module] = [
            conv(config.in_channels, widths[0], 4, stride=stride, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        for i in range(1, config.layers + 1):
            if blurred:
                layers.append(BlurDownsample(widths[i - 1]))
            halves = not blurred and i < config.layers
            if spectral or halves:
                made = conv(widths[i - 1], widths[i], 4, stride=2 if halves else 1, padding=1, bias=bias)
            else:
                made = WideConv2d(widths[i - 1], widths[i], bias=bias, kernel_size=4)
            layers += [
                made,
                normalization(config.norm, widths[i]),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        self.layers = nn.Sequential(*layers, conv(widths[-1], 1, 4, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        if self.config.norm == "spectral":
            follow(self.layers)
        return self.layers(x)

    def features(self, x: Tensor) -> list[list[Tensor]]:
        """What each of its layers answers, after the activation, from the first to the logits: one list, as there is
        one scale."""
        if self.config.norm == "spectral":
            follow(self.layers)
        found = []
        for layer in self.layers:
            x = layer(x)
            if isinstance(layer, nn.LeakyReLU):
                found.append(x)
        return [[*found, x]]


@dataclass(frozen=True, kw_only=True)
class PixelGANConfig:
    """A discriminator of single pixels (a 1×1 "PatchGAN")."""

    kind: ClassVar[str] = "pixelgan"

    in_channels: Annotated[int, Interval(ge=1, le=512)] = 3
    width: Annotated[int, Interval(ge=1, le=512)] = 64
    norm: Norm = "instance"
    bias: bool | None = None
    """Biases after the first layer; by default where there is no batch norm."""

    @property
    def receptive_field(self) -> int:
        return 1

    @property
    def minimum_size(self) -> int:
        return 1

    def build(self) -> "PixelGAN":
        return PixelGAN(self)


class PixelGAN(nn.Module):
    """(N, in_channels, H, W) → (N, 1, H, W) logits, one per pixel."""

    def __init__(self, config: PixelGANConfig) -> None:
        super().__init__()
        self.config = config
        w, bias = config.width, conv_bias(config.norm, config.bias)
        self.layers = nn.Sequential(
            nn.Conv2d(config.in_channels, w, 1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(w, 2 * w, 1, bias=bias),
            normalization(config.norm, 2 * w),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(2 * w, 1, 1, bias=bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
