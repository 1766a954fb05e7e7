"""The U-Net generator of pix2pix (Isola et al. 2017, Sec. 6.1.1; after Ronneberger et al. 2015).

Encoder C64-C128-C256-C512 … C512, decoder mirrored, skip connections between layers of one size. Deviations
from the paper's text, shared with every published checkpoint: dropout stands in the decoder layers after
the innermost one (three of them at depth 8), not in the first three.

`attention` adds self-attention after that many halvings: Zhang, Goodfellow, Metaxas, Odena, "Self-Attention Generative
Adversarial Networks", ICML 2019 (arXiv:1805.08318), Sec. 3. Each pixel receives a weighted mean of all pixels, so that
distant parts of an image can agree. The deeper layers and, through the skip connection, the decoder see its result.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.device import precise
from i2i.errors import UsageError
from i2i.networks.blocks import Norm, conv_bias, normalization


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
    """Biases of convolutions before a normalisation. Default: yes, unless it is batch norm."""
    attention: Annotated[int, Interval(ge=0, le=11)] = 0
    """Number of halvings before the self-attention; 0 is none."""

    def __post_init__(self) -> None:
        if self.attention >= self.depth:
            raise UsageError(f"attention = {self.attention}: must come before the last of {self.depth} halvings")

    @property
    def size_multiple(self) -> int:
        """Height and width must be multiples of this: 2 to the depth."""
        return 1 << self.depth

    minimum_size = size_multiple

    def build(self) -> "UNetGenerator":
        return UNetGenerator(self)


class SelfAttention(nn.Module):
    """(N, C, H, W) → (N, C, H, W): y = γ·o + x, Eq. 3, where γ is learnt and starts at 0, so that y is x at first.

    o_j = W_v Σ_i β_ji W_h x_i, Eq. 2, with β_ji = softmax over i of (W_f x_i)·(W_g x_j), Eq. 1. The four matrices are
    1×1 convolutions between C and C/8 channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 8)
        self.f = nn.Conv2d(channels, inner, 1, bias=False)
        self.g = nn.Conv2d(channels, inner, 1, bias=False)
        self.h = nn.Conv2d(channels, inner, 1, bias=False)
        self.v = nn.Conv2d(inner, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        # contiguous, with a dimension for heads: otherwise torch holds the weights of all pairs of pixels at once
        keys, queries, values = (
            conv(x).flatten(2).transpose(1, 2).unsqueeze(1).contiguous() for conv in (self.f, self.g, self.h)
        )
        mean = F.scaled_dot_product_attention(queries, keys, values, scale=1.0)  # (N, 1, H·W, C/8)
        return x + self.gamma * self.v(mean.transpose(2, 3).reshape(len(x), -1, *x.shape[2:]))


class Down(nn.Module):
    """Leaky ReLU (not in the first), 4×4 convolution with stride 2, normalisation (not in the first and the last)."""

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
    """(N, in_channels, H, W) → (N, out_channels, H, W), values in [-1, 1]; H and W are multiples of 2^depth."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        self.size_multiple, self.minimum_size = config.size_multiple, config.minimum_size
        bias = conv_bias(config.norm, config.bias)
        last = config.depth - 1
        channels = [config.width * min(2**i, 8) for i in range(config.depth)]
        self.down = nn.ModuleList(
            Down(
                nn.Conv2d(channels[i - 1] if i else config.in_channels, c, 4, stride=2, padding=1, bias=bias),
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
            conv = nn.ConvTranspose2d(inner, channels[i - 1], 4, stride=2, padding=1, bias=bias)
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
