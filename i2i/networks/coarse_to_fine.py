"""The coarse-to-fine generator of pix2pixHD: Wang, Liu, Zhu, Tao, Kautz, Catanzaro, "High-Resolution Image Synthesis
and Semantic Manipulation with Conditional GANs", CVPR 2018 (arXiv:1711.11585), Sec. 3.2 and App. A.

G1 is a residual generator that halves the size four times; it sees the image at half the size. G2 sees the image at
full size, halves it once, adds the last features of G1 and continues with three residual blocks. Each further enhancer
doubles the size again. Without enhancers the network is G1 alone.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.device import precise
from i2i.networks.blocks import Norm, Padding, conv_bias, normalization, padding_mode
from i2i.networks.resnet import ConvNormReLU, ResidualBlock, ResnetConfig, downsampling_layer, upsampling_layer


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


def _stem(config: CoarseToFineConfig, channels: int) -> ConvNormReLU:
    """7×7, (N, in_channels, H, W) → (N, channels, H, W)."""
    edge, bias = padding_mode(config.padding), conv_bias(config.norm, config.bias)
    conv = nn.Conv2d(config.in_channels, channels, 7, padding=3, padding_mode=edge, bias=bias)
    return ConvNormReLU(conv, normalization(config.norm, channels))


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
