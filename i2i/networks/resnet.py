"""The residual generator of CycleGAN (Zhu et al. 2017, App. 7.2; after Johnson et al. 2016).

c7s1-64, d128, d256, R256 × blocks, u128, u64, c7s1-3. Deviation from the paper's text, shared with every
published checkpoint: `u` is a transposed 3×3 convolution with stride 2 and output padding 1.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Interval
from torch import Tensor, nn

from i2i.networks.blocks import Norm, Padding, conv_bias, normalization, padding_mode


@dataclass(frozen=True, kw_only=True)
class ResnetConfig:
    """A residual generator. `width` is the number of channels at full resolution (the reference's `ngf`)."""

    kind: ClassVar[str] = "resnet"

    in_channels: Annotated[int, Interval(ge=1, le=64)] = 3
    out_channels: Annotated[int, Interval(ge=1, le=64)] = 3
    width: Annotated[int, Interval(ge=1, le=512)] = 64
    blocks: Annotated[int, Interval(ge=0, le=64)] = 9
    norm: Norm = "instance"
    dropout: bool = False
    padding: Padding = "reflect"
    bias: bool | None = None
    """Biases before a normalisation; by default where there is no batch norm."""

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
    def __init__(self, conv: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = conv, norm, nn.ReLU(inplace=True)


class ResidualBlock(nn.Module):
    """x + norm(conv(dropout(relu(norm(conv(x)))))), 3×3 (He et al. 2016)."""

    def __init__(self, channels: int, config: ResnetConfig) -> None:
        super().__init__()
        bias = conv_bias(config.norm, config.bias)
        edge = padding_mode(config.padding)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, padding_mode=edge, bias=bias)
        self.norm1 = normalization(config.norm, channels)
        self.dropout = nn.Dropout(0.5) if config.dropout else nn.Identity()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, padding_mode=edge, bias=bias)
        self.norm2 = normalization(config.norm, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu_(self.norm1(self.conv1(x)))
        return x + self.norm2(self.conv2(self.dropout(y)))


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
        self.down = nn.ModuleList(
            ConvNormReLU(nn.Conv2d(c, 2 * c, 3, stride=2, padding=1, bias=bias), normalization(norm, 2 * c))
            for c in (w, 2 * w)
        )
        self.blocks = nn.ModuleList(ResidualBlock(4 * w, config) for _ in range(config.blocks))
        self.up = nn.ModuleList(
            ConvNormReLU(
                nn.ConvTranspose2d(2 * c, c, 3, stride=2, padding=1, output_padding=1, bias=bias),
                normalization(norm, c),
            )
            for c in (2 * w, w)
        )
        self.head = nn.Conv2d(w, config.out_channels, 7, padding=3, padding_mode=edge)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in (self.down, self.blocks, self.up):
            for layer in stage:
                x = layer(x)
        return torch.tanh(self.head(x))
