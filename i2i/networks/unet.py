"""The U-Net generator of pix2pix (Isola et al. 2017, Sec. 6.1.1; after Ronneberger et al. 2015).

Encoder C64-C128-C256-C512 … C512, decoder mirrored, skip connections between layers of one size. Deviations
from the paper's text, shared with every published checkpoint: dropout stands in the decoder layers after
the innermost one (three of them at depth 8), not in the first three.

With `attention`, the features after that many halvings attend to each other (Zhang et al. 2019): both what lies deeper
and, through the skip connection, the decoder get what that gives.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.device import precise
from i2i.errors import UsageError
from i2i.networks.attention import SelfAttention
from i2i.networks.blocks import Norm, conv_bias, normalization
from i2i.networks.convolutions import DeepConv2d, DeepConvTranspose2d


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """A U-Net with `depth` halvings; `width` channels at half resolution (the reference's `ngf`)."""

    kind: ClassVar[str] = "unet"

    in_channels: Annotated[int, Interval(ge=1, le=256)] = 3
    out_channels: Annotated[int, Interval(ge=1, le=256)] = 3
    width: Annotated[int, Interval(ge=1, le=512)] = 64
    depth: Annotated[int, Interval(ge=5, le=12)] = 8
    norm: Norm = "batch"
    dropout: bool = True
    bias: bool | None = None
    """Biases before a normalisation; by default where there is no batch norm."""
    attention: Annotated[int, Interval(ge=0, le=11)] = 0
    """After how many halvings there is self-attention; 0 is none."""

    def __post_init__(self) -> None:
        if self.attention >= self.depth:
            raise UsageError(f"attention = {self.attention}: must come before the last of {self.depth} halvings")

    @property
    def size_multiple(self) -> int:
        """Height and width must be multiples of this: 2 to the depth."""
        return 1 << self.depth

    @property
    def minimum_size(self) -> int:
        """The smallest height and width."""
        return 1 << self.depth

    def build(self) -> "UNetGenerator":
        return UNetGenerator(self)


class Down(nn.Module):
    """Leaky ReLU (but for the first), 4×4 convolution with stride 2, normalisation (but for first and last)."""

    def __init__(self, conv: nn.Module, norm: nn.Module, first: bool) -> None:
        super().__init__()
        self.conv, self.norm, self.first = conv, norm, first

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x if self.first else F.leaky_relu(x, 0.2)))


class Up(nn.Module):
    """ReLU, transposed 4×4 convolution with stride 2, normalisation, dropout."""

    def __init__(self, conv: nn.Module, norm: nn.Module, dropout: bool) -> None:
        super().__init__()
        self.conv, self.norm = conv, norm
        self.dropout = nn.Dropout(0.5) if dropout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.norm(self.conv(torch.relu(x))))


class UNetGenerator(nn.Module):
    """(N, in_channels, H, W) → (N, out_channels, H, W), values in [-1, 1]; H and W multiples of 2^depth."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        self.size_multiple, self.minimum_size = config.size_multiple, config.minimum_size
        bias = conv_bias(config.norm, config.bias)
        last = config.depth - 1
        channels = [config.width * min(2**i, 8) for i in range(config.depth)]
        self.down = nn.ModuleList(
            Down(
                DeepConv2d(channels[i - 1] if i else config.in_channels, c, bias=bias),
                normalization(config.norm, c) if 0 < i < last else nn.Identity(),
                first=i == 0,
            )
            for i, c in enumerate(channels)
        )
        if config.attention:
            self.attention = SelfAttention(channels[config.attention - 1])
        self.up = nn.ModuleList()
        for i in range(last, 0, -1):
            inner = channels[i] * (1 if i == last else 2)
            conv = DeepConvTranspose2d(inner, channels[i - 1], bias=bias)
            dropout = config.dropout and 4 <= i < last
            self.up.append(Up(conv, normalization(config.norm, channels[i - 1]), dropout))
        head = nn.ConvTranspose2d(2 * config.width, config.out_channels, 4, stride=2, padding=1)
        self.up.append(Up(head, nn.Identity(), dropout=False))

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for halvings, down in enumerate(self.down, 1):
            x = down(x)
            if halvings == self.config.attention:
                x = self.attention(x)
            skips.append(x)
        x = self.up[0](skips.pop())
        for up in self.up[1:]:
            x = up(torch.cat([skips.pop(), x], dim=1))
        return torch.tanh(precise(x))
