"""Halving and doubling that blur by a binomial filter against aliasing (Zhang 2019, arXiv:1904.11486).

As CUT (Park et al. 2020, arXiv:2007.15651) uses them: 3×3 over reflected edges to halve, 4×4 over replicated
edges to double. The filters are buffers that no training changes. `resize` doubles by bilinear interpolation,
which gives the same numbers as that blur but has no filter to store: before a convolution, the resize-convolution
of Odena et al. 2016 (distill.pub/2016/deconv-checkerboard). `smooth` blurs by 3×3 before it doubles so. That takes out
what alternates from pixel to pixel. The other two let a third of it pass, and the ReLU behind them folds it into a
weave of every second pixel of the doubled size (Karras et al. 2021, arXiv:2106.12423, Sec. 2; docs/lab-book.md).
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Sampling = Literal["strided", "antialiased"]
Upsampling = Literal["strided", "antialiased", "resize", "smooth"]


def blur_filter(size: int, channels: int = 1) -> Tensor:
    """The binomial filter (channels, 1, size, size): for 3 of sum 1, it halves; for 4 of sum 4, it doubles."""
    row = (1, 2, 1) if size == 3 else (1, 3, 3, 1)
    # in Python, for arithmetic on the device `meta` imports torch's compiler, which takes a second
    return torch.tensor([[[[a * b / 16 for b in row] for a in row]]] * channels)


class Blur(nn.Module):
    """(N, C, H, W) → (N, C, H, W), by the 3×3 filter over replicated edges."""

    stride: ClassVar[int] = 1
    edge: ClassVar[Literal["reflect", "replicate"]] = "replicate"
    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("filt", blur_filter(3, channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode=self.edge), self.filt, stride=self.stride, groups=x.shape[1])


class BlurDownsample(Blur):
    """(N, C, H, W) → (N, C, ⌈H/2⌉, ⌈W/2⌉); H and W at least 2."""

    stride, edge = 2, "reflect"


class BlurUpsample(nn.Module):
    """(N, C, H, W) → (N, C, 2H, 2W)."""

    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("filt", blur_filter(4, channels))

    def forward(self, x: Tensor) -> Tensor:
        # the filter's numbers, but the convolution takes 20 times as long in bfloat16 on a CPU
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class BilinearUpsample(nn.Module):
    """(N, C, H, W) → (N, C, 2H, 2W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    def extra_repr(self) -> str:
        return str(self.channels)


class SmoothUpsample(nn.Sequential):
    """(N, C, H, W) → (N, C, 2H, 2W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.blur, self.resize = Blur(channels), BilinearUpsample(channels)
