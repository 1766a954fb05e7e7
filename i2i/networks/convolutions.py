"""Convolutions with the parameters and the results (but for rounding) of torch's, computed in other ways where a CPU
trains faster by them (docs/lab-book.md). When translating they are torch's own: runtimes have ways of their own there.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.networks import winograd


def channels_last(x: Tensor) -> bool:
    """Whether (N, C, H, W) lies channels last in memory, and not in torch's own format too."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


class PaddedConv2d(nn.Conv2d):
    """An `nn.Conv2d` that can be computed in two steps: its padding, and the rest."""

    def padded(self, x: Tensor) -> Tensor:
        """x with its edges as the convolution pads them."""
        if not any(self._reversed_padding_repeated_twice):
            return x
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        return F.pad(x, self._reversed_padding_repeated_twice, mode=mode)


class ThinConv2d(PaddedConv2d):
    """A k×k convolution to few channels, with the parameters and the results (but for rounding) of `nn.Conv2d`.

    On a CPU training computes it `by_columns`, which is faster there (docs/lab-book.md) and gives float32 at least.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(x)
        return by_columns(self.padded(x), column_kernels(self.weight), self.bias)


class WideConv2d(PaddedConv2d):
    """A 3×3 or 4×4 convolution of stride 1 and padding 1 between many channels, with the parameters and the results
    (but for rounding) of `nn.Conv2d`.

    On a CPU training computes it by `winograd` in float32, best with channels last.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        padding_mode: winograd.Padding = "zeros",
        bias: bool = True,
        kernel_size: Literal[3, 4] = 3,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=1, padding_mode=padding_mode, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if not self.by_winograd(x):
            return super().forward(x)
        made: Tensor = winograd.Correlation.apply(self.padded(x), self.weight)
        if not channels_last(x):
            made = made.contiguous()
        return made if self.bias is None else made + self.bias[:, None, None]

    def by_winograd(self, x: Tensor) -> bool:
        """Whether it is computed by `winograd` for x: in training, where it pays."""
        training = torch.is_grad_enabled() and not torch.compiler.is_compiling()
        exact = x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        tiles = len(x) * x.shape[2] * x.shape[3] / winograd.tile_of(self.kernel_size[0]) ** 2
        return training and exact and tiles >= FEWEST_TILES and winograd.pays(self.weight)


FEWEST_TILES = 64
"""From so many tiles of a batch on, the transformed kernels, made anew at each step, are repaid."""


def column_kernels(weight: Tensor) -> Tensor:
    """(M, C, k, k) → (k·M, C, k, 1): the columns of the kernels, from left to right, as kernels of their own."""
    return weight.permute(3, 0, 1, 2).flatten(0, 1)[..., None]


def by_columns(x: Tensor, columns: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution, without padding, of x by the kernels whose `column_kernels` these are; float32 at least.

    One by columns, to k times as many channels, and the sum of those, each shifted by a column more than the last:
    convolutions to few channels leave most of a CPU's vectors empty.
    """
    size = columns.shape[2]
    made, width = len(columns) // size, x.shape[3] - size + 1
    parts = F.conv2d(x, columns)
    parts = parts.to(torch.promote_types(parts.dtype, torch.float32))
    total = parts[:, :made, :, :width].clone()
    for i in range(1, size):
        total += parts[:, i * made : (i + 1) * made, :, i : i + width]
    return total if bias is None else total + bias.to(total.dtype)[:, None, None]


class StridedConv2d(nn.Conv2d):
    """A square `nn.Conv2d` with a stride and zero padding.

    In bfloat16 on a processor with AMX, oneDNN (torch 2.11 to 2.14) reads beyond the picture where the result is one
    pixel wide and several high. So a result of that shape is computed on its side.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        misread = self.stride[0] > 1 and _is_bfloat16(input)
        if not (misread and _reach(self, input.shape[3]) == 1 < _reach(self, input.shape[2])):
            return super()._conv_forward(input, weight, bias)
        return super()._conv_forward(input.transpose(2, 3), weight.transpose(2, 3), bias).transpose(2, 3)


def _is_bfloat16(x: Tensor) -> bool:
    """Whether a CPU computes convolutions of x in it."""
    if x.device.type != "cpu":
        return False
    autocast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return autocast or x.dtype == torch.bfloat16


def _reach(conv: nn.Conv2d, size: int) -> int:
    """The height or width of the result."""
    return (size + 2 * int(conv.padding[0]) - conv.kernel_size[0]) // conv.stride[0] + 1


class DeepConv2d(StridedConv2d):
    """A 4×4 convolution to half the height and width, deep in a U-Net: many channels of few pixels.

    On a CPU training computes it as one product of matrices (N·H/2·W/2 × C·16 by C·16 × out_channels), which reads the
    weights as they lie in memory: torch lays them out anew at each call.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 4, stride=2, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2] // 2, x.shape[3] // 2
        if not _as_product(self.weight, len(x) * height * width):
            return super().forward(x)
        columns = F.unfold(x, 4, padding=1, stride=2)
        made = F.linear(columns.transpose(1, 2), self.weight.flatten(1), self.bias)
        return made.transpose(1, 2).unflatten(2, (height, width))


class DeepConvTranspose2d(nn.ConvTranspose2d):
    """A transposed 4×4 convolution to twice the height and width, as a product of matrices where `DeepConv2d` is one.

    The product, N·H·W × C by C × out_channels·16, has the columns of the result, added up where they overlap.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 4, stride=2, padding=1, bias=bias)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        height, width = x.shape[2:]
        if not _as_product(self.weight, len(x) * height * width):
            return super().forward(x, output_size)
        columns = x.flatten(2).transpose(1, 2) @ self.weight.flatten(1)
        made = F.fold(columns.transpose(1, 2), (2 * height, 2 * width), 4, padding=1, stride=2)
        return made if self.bias is None else made + self.bias.to(made.dtype)[:, None, None]


MOST_PIXELS = {torch.float32: 16, torch.bfloat16: 256}
"""Up to how many pixels, of a whole batch and on the smaller side, a product of matrices was measured to be faster than
the convolution, by what it is computed in."""


def _as_product(weight: Tensor, pixels: int) -> bool:
    """Whether training computes a deep convolution of so many pixels as a product of matrices."""
    if weight.device.type != "cpu" or not torch.is_grad_enabled() or not weight.is_contiguous():
        return False
    computed = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else weight.dtype
    return pixels <= MOST_PIXELS.get(computed, 0)
