"""Discriminators of patches: PatchGAN and PixelGAN (Isola et al. 2017, Sec. 3.2.2 and 6.1.2), and PatchGANs at several
scales (Wang, Liu, Zhu, Tao, Kautz, Catanzaro, "High-Resolution Image Synthesis and Semantic Manipulation with
Conditional GANs", CVPR 2018, arXiv:1711.11585, Sec. 3.2).

A PatchGAN gives a logit for each patch. With n = 1 … 5 layers a patch is 16, 34, 70, 142 or 286 pixels wide. A PixelGAN
judges each pixel by itself. In an anti-aliased PatchGAN (Park et al. 2020) a convolution of stride 1 and a blur halve
the size, and a patch is wider: 18, 40, 84, 172 or 348 pixels. With spectral normalisation (Miyato et al. 2018) all
convolutions have normalised weights and their results are not normalised.
"""

from dataclasses import dataclass, fields
from typing import Annotated, ClassVar

from annotated_types import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.networks import blocks
from i2i.networks.blocks import (
    BlurDownsample,
    DiscriminatorNorm,
    Norm,
    Sampling,
    SpectralConv2d,
    conv_bias,
    normalization,
)


@dataclass(frozen=True, kw_only=True)
class PatchGANConfig:
    """A PatchGAN with `layers` layers of stride 2; `width` channels in the first (the reference's `ndf`)."""

    kind: ClassVar[str] = "patchgan"

    in_channels: Annotated[int, Interval(ge=1, le=512)] = 3
    width: Annotated[int, Interval(ge=1, le=512)] = 64
    layers: Annotated[int, Interval(ge=1, le=8)] = 3
    norm: DiscriminatorNorm = "instance"
    bias: bool | None = None
    """Biases of convolutions before a normalisation. Default: yes, unless it is batch norm."""
    downsampling: Sampling = "strided"
    """How the network halves the size."""

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
    """(N, in_channels, H, W) → (N, 1, H', W') logits, one for each patch; no sigmoid."""

    def __init__(self, config: PatchGANConfig) -> None:
        super().__init__()
        self.config = config
        conv = SpectralConv2d if config.norm == "spectral" else nn.Conv2d
        bias, blurred = conv_bias(config.norm, config.bias), config.downsampling == "antialiased"
        widths = [config.width * min(2**i, 8) for i in range(config.layers + 1)]
        first = conv(config.in_channels, widths[0], 4, stride=1 if blurred else 2, padding=1)
        layers: list[nn.Module] = [first, nn.LeakyReLU(0.2, inplace=True)]
        for i in range(1, config.layers + 1):
            if blurred:
                layers.append(BlurDownsample(widths[i - 1]))
            stride = 2 if not blurred and i < config.layers else 1
            layers += [
                conv(widths[i - 1], widths[i], 4, stride=stride, padding=1, bias=bias),
                normalization(config.norm, widths[i]),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        self.layers = nn.Sequential(*layers, conv(widths[-1], 1, 4, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        if self.config.norm == "spectral":
            blocks.update_power_iterations(self.layers)
        return self.layers(x)

    def features(self, x: Tensor) -> list[list[Tensor]]:
        """Returns the results of its layers after the activation, from the first to the logits, as the only list."""
        if self.config.norm == "spectral":
            blocks.update_power_iterations(self.layers)
        return [activations(self.layers, x)]


def activations(layers: nn.Sequential, x: Tensor) -> list[Tensor]:
    """Returns the results of `layers` after each activation, and the last."""
    found = []
    for layer in layers:
        x = layer(x)
        if isinstance(layer, nn.LeakyReLU):
            found.append(x)
    return [*found, x]


@dataclass(frozen=True, kw_only=True)
class PixelGANConfig:
    """A discriminator of single pixels (a 1×1 "PatchGAN")."""

    kind: ClassVar[str] = "pixelgan"
    receptive_field: ClassVar[int] = 1
    minimum_size: ClassVar[int] = 1

    in_channels: Annotated[int, Interval(ge=1, le=512)] = 3
    width: Annotated[int, Interval(ge=1, le=512)] = 64
    norm: Norm = "instance"
    bias: bool | None = None
    """Biases of convolutions after the first. Default: yes, unless the norm is batch norm."""

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


@dataclass(frozen=True, kw_only=True)
class MultiScaleConfig(PatchGANConfig):
    """`scales` PatchGANs; the other options are those of each."""

    kind: ClassVar[str] = "multiscale_patchgan"

    scales: Annotated[int, Interval(ge=1, le=4)] = 3
    """Number of scales; the paper has three."""

    @property
    def each(self) -> PatchGANConfig:
        """The configuration of each PatchGAN."""
        return PatchGANConfig(**{field.name: getattr(self, field.name) for field in fields(PatchGANConfig)})

    @property
    def receptive_field(self) -> int:
        """The width in pixels of the patch that a logit of the coarsest scale judges."""
        return ((super().receptive_field + 1) << (self.scales - 1)) - 1

    @property
    def minimum_size(self) -> int:
        """The smallest height and width that leave one logit at the coarsest scale."""
        return ((super().minimum_size - 1) << (self.scales - 1)) + 1

    def build(self) -> "MultiScalePatchGAN":  # type: ignore[override]
        return MultiScalePatchGAN(self)


class MultiScalePatchGAN(nn.Module):
    """(N, in_channels, H, W) → logits (N, 1, H', W') of each scale, from the finest to the coarsest.

    Each scale has a PatchGAN with its own weights. Each halving averages 3×3 pixels around every second pixel; at the
    border it averages those that exist.
    """

    def __init__(self, config: MultiScaleConfig) -> None:
        super().__init__()
        self.config = config
        self.scales = nn.ModuleList(config.each.build() for _ in range(config.scales))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(D(part) for D, part in zip(self.scales, self.pyramid(x), strict=True))

    def features(self, x: Tensor) -> list[list[Tensor]]:
        """Returns for each scale the results of its layers after the activation, from the first to the logits."""
        parts = zip(self.scales, self.pyramid(x), strict=True)
        return [results for D, part in parts for results in D.features(part)]  # type: ignore[operator]

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """Returns the image at each scale."""
        found = [x]
        while len(found) < self.config.scales:
            found.append(F.avg_pool2d(found[-1], 3, stride=2, padding=1, count_include_pad=False))
        return found
