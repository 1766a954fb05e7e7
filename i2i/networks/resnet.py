"""The residual generator of CycleGAN (Zhu et al. 2017, App. 7.2; after Johnson et al. 2016).

c7s1-64, d128, d256, R256 × blocks, u128, u64, c7s1-3. Deviation from the paper's text, shared with every
published checkpoint: `u` is a transposed 3×3 convolution with stride 2 and output padding 1. Where sampling is
anti-aliased, as in CUT (Park et al. 2020), `d` has stride 1 and is blurred to half the size after its ReLU, and
`u` is a 3×3 convolution of its input blurred, or resized, to double the size.

`separable` takes a convolution of each channel and one of 1×1 across channels in place of nearly every convolution
(Howard et al. 2017, "MobileNets", arXiv:1704.04861, Sec. 3.1), as the students of GAN Compression do in residual blocks
(Li et al. 2020, arXiv:2003.08936, Sec. 3.2). Deviations from those: halving, doubling and the last convolution are
separable too, the convolutions of 1×1 run at the smaller of the two sizes, and no normalisation stands between the two
convolutions (as in Xception, Chollet 2017, Sec. 4.7).

Of our own is `input_share`: the result is that share of the picture itself and the rest of what the network draws, so
that it can leave as it is what is fine as it is. A narrow network keeps more of a picture that way (docs/lab-book.md).
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Interval
from torch import Tensor, nn

from i2i.device import precise
from i2i.errors import UsageError
from i2i.networks import winograd
from i2i.networks.antialias import BilinearUpsample, BlurDownsample, BlurUpsample, Sampling, SmoothUpsample, Upsampling
from i2i.networks.blocks import Checkpointed, Norm, Padding, conv_bias, normalization, padding_mode
from i2i.networks.convolutions import StridedConv2d, ThinConv2d, WideConv2d, channels_last

_DOUBLINGS: dict[str, Callable[[int], nn.Module]] = {
    "antialiased": BlurUpsample,
    "resize": BilinearUpsample,
    "smooth": SmoothUpsample,
}


@dataclass(frozen=True, kw_only=True)
class ResnetConfig:
    """A residual generator. `width` is the number of channels at full resolution (the reference's `ngf`)."""

    kind: ClassVar[str] = "resnet"

    in_channels: Annotated[int, Interval(ge=1, le=256)] = 3
    out_channels: Annotated[int, Interval(ge=1, le=256)] = 3
    width: Annotated[int, Interval(ge=1, le=512)] = 64
    blocks: Annotated[int, Interval(ge=0, le=64)] = 9
    norm: Norm = "instance"
    dropout: bool = False
    padding: Padding = "reflect"
    bias: bool | None = None
    """Biases before a normalisation; by default where there is no batch norm."""
    downsampling: Sampling = "strided"
    """How the size is halved; CUT's networks are anti-aliased both ways."""
    upsampling: Upsampling = "strided"
    """How the size is doubled."""
    separable: bool = False
    """Depthwise separable convolutions: about an eighth of the multiplications."""
    input_share: Annotated[float, Interval(ge=0, le=0.9)] = 0.0
    """The share of the picture itself in the result."""

    def __post_init__(self) -> None:
        if self.input_share and self.in_channels != self.out_channels:
            raise UsageError(
                f"input_share = {self.input_share}: a picture of {self.in_channels} channels cannot be a part of a "
                f"result of {self.out_channels}"
            )

    @property
    def size_multiple(self) -> int:
        """Height and width must be multiples of this."""
        return 4

    @property
    def minimum_size(self) -> int:
        """The smallest height and width: at a quarter of the size, reflection needs two pixels."""
        return 8

    def build(self) -> "ResnetGenerator":
        return ResnetGenerator(self)


class ConvNormReLU(nn.Sequential):
    """Convolution, normalisation, ReLU; with a blur before them that doubles or after them that halves the size."""

    def __init__(
        self, conv: nn.Module, norm: nn.Module, upsample: nn.Module | None = None, downsample: nn.Module | None = None
    ) -> None:
        super().__init__()
        if upsample is not None:
            self.upsample = upsample
        self.conv, self.norm, self.relu = conv, norm, nn.ReLU(inplace=True)
        if downsample is not None:
            self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.laid_out(x))

    def laid_out(self, x: Tensor) -> Tensor:
        """x in the memory format of the weights: residual blocks may have given it another one."""
        if not isinstance(self.conv, nn.Conv2d | nn.ConvTranspose2d):
            return x
        last = channels_last(self.conv.weight)
        return x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


class SeparableConv2d(nn.Sequential):
    """A depthwise convolution (k×k, each channel for itself) and a pointwise one (1×1), and between them what halves or
    doubles the size, if anything; in the order in which they are given."""

    def __init__(self, out_channels: int, **parts: nn.Module) -> None:
        super().__init__(OrderedDict(parts))
        self.out_channels = out_channels


def depthwise(
    channels: int, kernel_size: int = 3, stride: int = 1, padding_mode: winograd.Padding = "zeros", bias: bool = False
) -> nn.Conv2d:
    """(N, C, H, W) → (N, C, H/stride, W/stride)."""
    padding, kind = kernel_size // 2, StridedConv2d if stride > 1 else nn.Conv2d
    return kind(channels, channels, kernel_size, stride, padding, groups=channels, padding_mode=padding_mode, bias=bias)


def separable(
    in_channels: int, out_channels: int, kernel_size: int, padding_mode: winograd.Padding, bias: bool
) -> SeparableConv2d:
    """A convolution of stride 1 by two."""
    each = depthwise(in_channels, kernel_size, padding_mode=padding_mode)
    return SeparableConv2d(out_channels, depthwise=each, pointwise=nn.Conv2d(in_channels, out_channels, 1, bias=bias))


def halved(channels: int, config: ResnetConfig) -> ConvNormReLU:
    """(N, C, H, W) → (N, 2C, H/2, W/2)."""
    bias, made = conv_bias(config.norm, config.bias), 2 * channels
    norm = normalization(config.norm, made)
    if config.separable:
        return ConvNormReLU(_separably_halved(channels, made, config.downsampling, bias), norm)
    if config.downsampling == "antialiased":
        return ConvNormReLU(WideConv2d(channels, made, bias=bias), norm, downsample=BlurDownsample(made))
    return ConvNormReLU(StridedConv2d(channels, made, 3, stride=2, padding=1, bias=bias), norm)


def _separably_halved(channels: int, made: int, sampling: Sampling, bias: bool) -> SeparableConv2d:
    pointwise = nn.Conv2d(channels, made, 1, bias=bias)
    if sampling == "strided":
        return SeparableConv2d(made, depthwise=depthwise(channels, stride=2), pointwise=pointwise)
    blur = BlurDownsample(channels)
    return SeparableConv2d(made, depthwise=depthwise(channels), downsample=blur, pointwise=pointwise)


def doubled(channels: int, config: ResnetConfig) -> ConvNormReLU:
    """(N, C, H, W) → (N, C/2, 2H, 2W)."""
    bias, made = conv_bias(config.norm, config.bias), channels // 2
    norm = normalization(config.norm, made)
    if config.separable:
        return ConvNormReLU(_separably_doubled(channels, made, config.upsampling, bias), norm)
    if config.upsampling != "strided":
        doubling = _DOUBLINGS[config.upsampling](channels)
        return ConvNormReLU(WideConv2d(channels, made, bias=bias), norm, upsample=doubling)
    transposed = nn.ConvTranspose2d(channels, made, 3, stride=2, padding=1, output_padding=1, bias=bias)
    return ConvNormReLU(transposed, norm)


def _separably_doubled(channels: int, made: int, sampling: Upsampling, bias: bool) -> SeparableConv2d:
    pointwise = nn.Conv2d(channels, made, 1, bias=False)
    if sampling == "strided":
        doubling = nn.ConvTranspose2d(made, made, 3, 2, padding=1, output_padding=1, groups=made, bias=bias)
        return SeparableConv2d(made, pointwise=pointwise, depthwise=doubling)
    larger, each = _DOUBLINGS[sampling](made), depthwise(made, bias=bias)
    return SeparableConv2d(made, pointwise=pointwise, upsample=larger, depthwise=each)


class ResidualBlock(Checkpointed):
    """x + norm(conv(dropout(relu(norm(conv(x)))))), 3×3 (He et al. 2016)."""

    def __init__(self, channels: int, config: ResnetConfig) -> None:
        super().__init__()
        self.conv1 = _convolution(channels, config)
        self.norm1 = normalization(config.norm, channels)
        self.dropout = nn.Dropout(0.5) if config.dropout else nn.Identity()
        self.conv2 = _convolution(channels, config)
        self.norm2 = normalization(config.norm, channels)

    def inner(self, x: Tensor) -> Tensor:
        y = torch.relu_(self.norm1(self.conv1(x)))
        return self.norm2(self.conv2(self.dropout(y)))

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.conv1, WideConv2d) and self.conv1.by_winograd(x):
            x = x.contiguous(memory_format=torch.channels_last)
        return x + self.sparing(x)


def _convolution(channels: int, config: ResnetConfig) -> nn.Module:
    edge, bias = padding_mode(config.padding), conv_bias(config.norm, config.bias)
    if config.separable:
        return separable(channels, channels, 3, edge, bias)
    return WideConv2d(channels, channels, edge, bias)


class ResnetGenerator(nn.Module):
    """(N, in_channels, H, W) → (N, out_channels, H, W), values in [-1, 1]; H and W multiples of 4, at least 8."""

    def __init__(self, config: ResnetConfig) -> None:
        super().__init__()
        self.config = config
        self.size_multiple, self.minimum_size = config.size_multiple, config.minimum_size
        w, norm, bias = config.width, config.norm, conv_bias(config.norm, config.bias)
        edge = padding_mode(config.padding)
        self.stem = ConvNormReLU(
            nn.Conv2d(config.in_channels, w, 7, padding=3, padding_mode=edge, bias=bias),
            normalization(norm, w),
        )
        self.down = nn.ModuleList(halved(c, config) for c in (w, 2 * w))
        self.blocks = nn.ModuleList(ResidualBlock(4 * w, config) for _ in range(config.blocks))
        self.up = nn.ModuleList(doubled(c, config) for c in (4 * w, 2 * w))
        self.head: nn.Module = (
            separable(w, config.out_channels, 7, edge, bias=True)
            if config.separable
            else ThinConv2d(w, config.out_channels, 7, padding=3, padding_mode=edge)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        for stage in (self.down, self.blocks, self.up):
            for layer in stage:
                y = layer(y)
        return self.finished(y, x)

    def finished(self, features: Tensor, x: Tensor) -> Tensor:
        """The result for the picture `x`, whose last features (N, width, H, W) are these."""
        drawn = torch.tanh(precise(self.head(features)))
        share = self.config.input_share
        return drawn + share * (x - drawn) if share else drawn
