"""The residual generator of CycleGAN (Zhu et al. 2017, App. 7.2; after Johnson et al. 2016).

c7s1-64, d128, d256, R256 × blocks, u128, u64, c7s1-3. Deviation from the paper's text, shared with every
published checkpoint: `u` is a transposed 3×3 convolution with stride 2 and output padding 1. With anti-aliased
sampling, as in CUT (Park et al. 2020), `d` has stride 1 and a blur halves the size after its ReLU, and `u` is a 3×3
convolution after a blur, or an interpolation, to double the size.

`separable` replaces nearly every convolution by a convolution of each channel and one of 1×1 across channels
(Howard et al. 2017, "MobileNets", arXiv:1704.04861, Sec. 3.1), as the students of GAN Compression do in residual blocks
(Li et al. 2020, arXiv:2003.08936, Sec. 3.2). Deviations from those: halving, doubling and the last convolution are
separable too, the convolutions of 1×1 run at the smaller of the two sizes, and no normalisation stands between the two
convolutions (as in Xception, Chollet 2017, Sec. 4.7).

`subpixel` computes nothing at the full size: c7-256 with stride 4, R256 × blocks, u128 without normalisation, and a
sub-pixel convolution, 3×3, that makes 2×2 pixels at each place (Shi et al. 2016, arXiv:1609.05158, Sec. 3.2). Behind a
last normalisation, places where tanh is ±1 grew and took the contrast of all others (docs/lab-book.md, 2026-12-01).

`input_share` is ours. The result is `input_share` · input + (1 - `input_share`) · tanh(…), so that the network can
leave parts of an image as they are. A narrow network keeps more of an image that way (docs/lab-book.md).

The coarse-to-fine generator of pix2pixHD: Wang, Liu, Zhu, Tao, Kautz, Catanzaro, "High-Resolution Image Synthesis
and Semantic Manipulation with Conditional GANs", CVPR 2018 (arXiv:1711.11585), Sec. 3.2 and App. A.

G1 is a residual generator that halves the size four times; it sees the image at half the size. G2 sees the image at
full size, halves it once, adds the last features of G1 and continues with three residual blocks. Each further enhancer
doubles the size again. Without enhancers the network is G1 alone.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, ClassVar

import torch
from annotated_types import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.device import precise
from i2i.errors import UsageError
from i2i.networks.blocks import (
    BilinearUpsample,
    BlurDownsample,
    BlurUpsample,
    Norm,
    Padding,
    PaddingMode,
    Sampling,
    SmoothUpsample,
    Upsampling,
    conv_bias,
    normalization,
    padding_mode,
)

_UPSAMPLINGS: dict[str, Callable[[int], nn.Module]] = {
    "antialiased": BlurUpsample,
    "resize": BilinearUpsample,
    "smooth": SmoothUpsample,
}


@dataclass(frozen=True, kw_only=True)
class ResnetConfig:
    """A residual generator with `width` channels at full resolution (the reference's `ngf`)."""

    kind: ClassVar[str] = "resnet"
    size_multiple: ClassVar[int] = 4
    """Height and width must be multiples of this."""
    minimum_size: ClassVar[int] = 8
    """The smallest height and width: at a quarter of the size, reflection needs two pixels."""

    in_channels: Annotated[int, Interval(ge=1, le=256)] = 3
    out_channels: Annotated[int, Interval(ge=1, le=256)] = 3
    width: Annotated[int, Interval(ge=1, le=512)] = 64
    blocks: Annotated[int, Interval(ge=0, le=64)] = 9
    norm: Norm = "instance"
    dropout: bool = False
    padding: Padding = "reflect"
    bias: bool | None = None
    """Biases of convolutions before a normalisation. Default: yes, unless it is batch norm."""
    downsampling: Sampling = "strided"
    upsampling: Upsampling = "strided"
    """How the network halves and doubles the size; CUT's networks are anti-aliased both ways."""
    separable: bool = False
    """Depthwise separable convolutions: about an eighth of the multiplications."""
    subpixel: bool = False
    """First convolution with stride 4, last one sub-pixel: no features at the full size."""
    input_share: Annotated[float, Interval(ge=0, le=0.9)] = 0.0
    """The share of the input in the result."""

    def __post_init__(self) -> None:
        if self.input_share and self.in_channels != self.out_channels:
            parts = f"a picture of {self.in_channels} channels cannot be a part of a result of {self.out_channels}"
            raise UsageError(f"input_share = {self.input_share}: {parts}")

    @property
    def halving_layers(self) -> int:
        """The number of layers in a halving; the blur of a separable convolution is a part of the convolution."""
        return 4 if self.downsampling == "antialiased" and not self.separable else 3

    @property
    def first_block(self) -> int:
        """The number of the first residual block among the layers (see `ResnetGenerator.layers`)."""
        return 4 if self.subpixel else 4 + 2 * self.halving_layers

    def build(self) -> "ResnetGenerator":
        return ResnetGenerator(self)


class ConvNormReLU(nn.Sequential):
    """Convolution, normalisation, ReLU, with an optional layer before them that doubles the size or after them that
    halves it."""

    def __init__(
        self, conv: nn.Module, norm: nn.Module, upsample: nn.Module | None = None, downsample: nn.Module | None = None
    ) -> None:
        super().__init__()
        if upsample is not None:
            self.upsample = upsample
        self.conv, self.norm, self.relu = conv, norm, nn.ReLU(inplace=True)
        if downsample is not None:
            self.downsample = downsample


class SeparableConv2d(nn.Sequential):
    """A depthwise convolution (k×k, each channel by itself) and a pointwise one (1×1), with an optional layer between
    them that halves or doubles the size; they run in the order in which they are given."""

    def __init__(self, out_channels: int, **parts: nn.Module) -> None:
        super().__init__(OrderedDict(parts))
        self.out_channels = out_channels


def depthwise(
    channels: int, kernel_size: int = 3, stride: int = 1, padding_mode: PaddingMode = "zeros", bias: bool = False
) -> nn.Conv2d:
    """(N, C, H, W) → (N, C, H/stride, W/stride)."""
    sizes = kernel_size, stride, kernel_size // 2
    return nn.Conv2d(channels, channels, *sizes, groups=channels, padding_mode=padding_mode, bias=bias)


def separable(
    in_channels: int, out_channels: int, kernel_size: int, padding_mode: PaddingMode, bias: bool
) -> SeparableConv2d:
    """Returns a separable convolution of stride 1."""
    each = depthwise(in_channels, kernel_size, padding_mode=padding_mode)
    return SeparableConv2d(out_channels, depthwise=each, pointwise=nn.Conv2d(in_channels, out_channels, 1, bias=bias))


def downsampling_layer(channels: int, config: ResnetConfig) -> ConvNormReLU:
    """(N, C, H, W) → (N, 2C, H/2, W/2)."""
    bias, out_channels = conv_bias(config.norm, config.bias), 2 * channels
    norm = normalization(config.norm, out_channels)
    if config.separable:
        return ConvNormReLU(_separable_downsampling(channels, out_channels, config.downsampling, bias), norm)
    if config.downsampling == "antialiased":
        conv = nn.Conv2d(channels, out_channels, 3, padding=1, bias=bias)
        return ConvNormReLU(conv, norm, downsample=BlurDownsample(out_channels))
    return ConvNormReLU(nn.Conv2d(channels, out_channels, 3, stride=2, padding=1, bias=bias), norm)


def _separable_downsampling(channels: int, out_channels: int, sampling: Sampling, bias: bool) -> SeparableConv2d:
    pointwise = nn.Conv2d(channels, out_channels, 1, bias=bias)
    if sampling == "strided":
        return SeparableConv2d(out_channels, depthwise=depthwise(channels, stride=2), pointwise=pointwise)
    blur = BlurDownsample(channels)
    return SeparableConv2d(out_channels, depthwise=depthwise(channels), downsample=blur, pointwise=pointwise)


def upsampling_layer(channels: int, config: ResnetConfig) -> ConvNormReLU:
    """(N, C, H, W) → (N, C/2, 2H, 2W)."""
    bias, out_channels = config.subpixel or conv_bias(config.norm, config.bias), channels // 2
    norm = nn.Identity() if config.subpixel else normalization(config.norm, out_channels)
    if config.separable:
        return ConvNormReLU(_separable_upsampling(channels, out_channels, config.upsampling, bias), norm)
    if config.upsampling != "strided":
        conv = nn.Conv2d(channels, out_channels, 3, padding=1, bias=bias)
        return ConvNormReLU(conv, norm, upsample=_UPSAMPLINGS[config.upsampling](channels))
    transposed = nn.ConvTranspose2d(channels, out_channels, 3, stride=2, padding=1, output_padding=1, bias=bias)
    return ConvNormReLU(transposed, norm)


def _separable_upsampling(channels: int, out_channels: int, sampling: Upsampling, bias: bool) -> SeparableConv2d:
    c = out_channels
    pointwise = nn.Conv2d(channels, c, 1, bias=False)
    if sampling == "strided":
        transposed = nn.ConvTranspose2d(c, c, 3, stride=2, padding=1, output_padding=1, groups=c, bias=bias)
        return SeparableConv2d(c, pointwise=pointwise, depthwise=transposed)
    upsample = _UPSAMPLINGS[sampling](c)
    return SeparableConv2d(c, pointwise=pointwise, upsample=upsample, depthwise=depthwise(c, bias=bias))


class ResidualBlock(nn.Module):
    """x + norm(conv(dropout(relu(norm(conv(x)))))), 3×3 (He et al. 2016)."""

    def __init__(self, channels: int, config: ResnetConfig) -> None:
        super().__init__()
        self.conv1 = _block_convolution(channels, config)
        self.norm1 = normalization(config.norm, channels)
        self.dropout = nn.Dropout(0.5) if config.dropout else nn.Identity()
        self.conv2 = _block_convolution(channels, config)
        self.norm2 = normalization(config.norm, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu_(self.norm1(self.conv1(x)))
        return x + self.norm2(self.conv2(self.dropout(y)))


def _block_convolution(channels: int, config: ResnetConfig) -> nn.Module:
    edge, bias = padding_mode(config.padding), conv_bias(config.norm, config.bias)
    if config.separable:
        return separable(channels, channels, 3, edge, bias)
    return nn.Conv2d(channels, channels, 3, padding=1, padding_mode=edge, bias=bias)


def _stem(config: "ResnetConfig | CoarseToFineConfig", channels: int, stride: int = 1) -> ConvNormReLU:
    """7×7, (N, in_channels, H, W) → (N, channels, H/stride, W/stride)."""
    edge, bias = padding_mode(config.padding), conv_bias(config.norm, config.bias)
    conv = nn.Conv2d(config.in_channels, channels, 7, stride, padding=3, padding_mode=edge, bias=bias)
    return ConvNormReLU(conv, normalization(config.norm, channels))


def _head(config: ResnetConfig) -> nn.Module:
    """The last convolution, (N, C, H', W') → (N, out_channels, H, W)."""
    w, channels, edge = config.width, config.out_channels, padding_mode(config.padding)
    if config.subpixel:
        conv = nn.Conv2d(2 * w, 4 * channels, 3, padding=1, padding_mode=edge)
        return nn.Sequential(OrderedDict(conv=conv, shuffle=nn.PixelShuffle(2)))
    if config.separable:
        return separable(w, channels, 7, edge, bias=True)
    return nn.Conv2d(w, channels, 7, padding=3, padding_mode=edge)


class ResnetGenerator(nn.Module):
    """(N, in_channels, H, W) → (N, out_channels, H, W), values in [-1, 1]; H and W are multiples of 4, at least 8."""

    def __init__(self, config: ResnetConfig) -> None:
        super().__init__()
        self.config = config
        self.size_multiple, self.minimum_size = config.size_multiple, config.minimum_size
        w = config.width
        halved, doubled = ((), (4 * w,)) if config.subpixel else ((w, 2 * w), (4 * w, 2 * w))
        self.stem = _stem(config, 4 * w, stride=4) if config.subpixel else _stem(config, w)
        self.down = nn.ModuleList(downsampling_layer(c, config) for c in halved)
        self.blocks = nn.ModuleList(ResidualBlock(4 * w, config) for _ in range(config.blocks))
        self.up = nn.ModuleList(upsampling_layer(c, config) for c in doubled)
        self.head = _head(config)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in (self.stem, *self.down, *self.blocks, *self.up):
            y = layer(y)
        return self.output(y, x)

    def output(self, features: Tensor, x: Tensor) -> Tensor:
        """Returns the result for the input `x` from its last features."""
        return self.blended(self.head(features), x)

    def blended(self, y: Tensor, x: Tensor) -> Tensor:
        """Returns tanh(y), mixed with the share of the input `x`; both may have any shape."""
        drawn = torch.tanh(y.float() if y.dtype.itemsize < 4 else y)  # in 16 bits tanh is 1 beyond 3.5
        share = self.config.input_share
        return drawn + share * (x - drawn) if share else drawn

    def layers(self) -> list[nn.Module]:
        """Returns the layers 1, 2, … before the last convolution, as the code of CUT numbers them (Park et al. 2020).

        0 is the input, padded for the first convolution; then each convolution, normalisation, ReLU, blur and residual
        block counts one. An activation works in place, so the features of the layer before it are rectified too.
        """
        parts = [self.stem, *self.down, *self.blocks, *self.up]
        return [layer for part in parts for layer in (part if isinstance(part, nn.Sequential) else [part])]

    def channels(self) -> list[int]:
        """Returns the numbers of channels of the layers 0, 1, …"""
        found = [self.config.in_channels]
        for layer in self.layers():
            found.append(getattr(layer, "out_channels", found[-1]))
        return found

    def encode(self, x: Tensor, numbers: Sequence[int]) -> list[Tensor]:
        """Returns the results (N, C, H', W') of the layers `numbers`, in ascending order, and computes no further
        layer."""
        results = islice(self._results(x, numbers), numbers[-1] + 1)
        return [y for number, y in results if number in numbers]

    def translate(self, x: Tensor, numbers: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        """Returns the result for `x` and, from the same pass, `encode(x, numbers)`."""
        found, y = [], x
        for number, y in self._results(x, numbers):
            if number in numbers:
                found.append(y)
        return self.output(y, x), found

    def _results(self, x: Tensor, wanted: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        """Yields number and result of each layer in order, from 0; pads the input only if 0 is in `wanted`."""
        mode = "constant" if self.config.padding == "zero" else self.config.padding
        yield 0, F.pad(x, (3, 3, 3, 3), mode=mode) if 0 in wanted else x
        for number, layer in enumerate(self.layers(), 1):
            x = layer(x)
            yield number, x


@dataclass(frozen=True, kw_only=True)
class CoarseToFineConfig:
    """`width` channels at the full size (32 in the paper), twice that for each halving on the way to G1's first."""

    kind: ClassVar[str] = "coarse_to_fine"

    in_channels: Annotated[int, Interval(ge=1, le=256)] = 3
    out_channels: Annotated[int, Interval(ge=1, le=256)] = 3
    width: Annotated[int, Interval(ge=1, le=512)] = 32
    enhancers: Annotated[int, Interval(ge=0, le=3)] = 1
    """Number of enhancers; 0 is G1 alone."""
    halvings: Annotated[int, Interval(ge=1, le=6)] = 4
    """Halvings in G1."""
    blocks: Annotated[int, Interval(ge=0, le=64)] = 9
    """Residual blocks in G1."""
    fine_blocks: Annotated[int, Interval(ge=0, le=64)] = 3
    """Residual blocks in each enhancer."""
    norm: Norm = "instance"
    dropout: bool = False
    padding: Padding = "reflect"
    bias: bool | None = None
    """Biases of convolutions before a normalisation. Default: yes, unless it is batch norm."""

    @property
    def size_multiple(self) -> int:
        """Height and width must be multiples of this."""
        return 1 << (self.halvings + self.enhancers)

    @property
    def minimum_size(self) -> int:
        """The smallest height and width: reflection needs two pixels at G1's smallest size, and four in its stem."""
        return max(2 * self.size_multiple, 4 << self.enhancers)

    @property
    def layer_config(self) -> ResnetConfig:
        """The configuration of the layers, which are those of the residual generator."""
        return ResnetConfig(norm=self.norm, dropout=self.dropout, padding=self.padding, bias=self.bias)

    def build(self) -> "CoarseToFineGenerator":
        return CoarseToFineGenerator(self)


class Coarse(nn.Sequential):
    """G1 without its last convolution: (N, in_channels, H, W) → (N, width, H, W)."""

    def __init__(self, config: CoarseToFineConfig, width: int) -> None:
        widths = [width << i for i in range(config.halvings + 1)]
        super().__init__(
            _stem(config, width),
            *(downsampling_layer(channels, config.layer_config) for channels in widths[:-1]),
            *(ResidualBlock(widths[-1], config.layer_config) for _ in range(config.blocks)),
            *(upsampling_layer(channels, config.layer_config) for channels in widths[:0:-1]),
        )


class Enhancer(nn.Module):
    """G2 without its last convolution: the image (N, in_channels, H, W) and the last features of the coarser network
    (N, 2·width, H/2, W/2) → (N, width, H, W)."""

    def __init__(self, config: CoarseToFineConfig, width: int) -> None:
        super().__init__()
        self.front = nn.Sequential(_stem(config, width), downsampling_layer(width, config.layer_config))
        self.back = nn.Sequential(
            *(ResidualBlock(2 * width, config.layer_config) for _ in range(config.fine_blocks)),
            upsampling_layer(2 * width, config.layer_config),
        )

    def forward(self, x: Tensor, coarser: Tensor) -> Tensor:
        return self.back(self.front(x) + coarser)


class CoarseToFineGenerator(nn.Module):
    """(N, in_channels, H, W) → (N, out_channels, H, W), values in [-1, 1]."""

    def __init__(self, config: CoarseToFineConfig) -> None:
        super().__init__()
        self.config = config
        self.size_multiple, self.minimum_size = config.size_multiple, config.minimum_size
        self.coarse = Coarse(config, config.width << config.enhancers)
        self.enhancers = nn.ModuleList(Enhancer(config, config.width << i) for i in reversed(range(config.enhancers)))
        edge = padding_mode(config.padding)
        self.head = nn.Conv2d(config.width, config.out_channels, 7, padding=3, padding_mode=edge)

    def forward(self, x: Tensor) -> Tensor:
        pyramid = [x]
        for _ in self.enhancers:
            pyramid.append(F.avg_pool2d(pyramid[-1], 3, stride=2, padding=1, count_include_pad=False))
        features = self.coarse(pyramid.pop())
        for enhancer in self.enhancers:
            features = enhancer(pyramid.pop(), features)
        return precise(self.head(features)).tanh()
