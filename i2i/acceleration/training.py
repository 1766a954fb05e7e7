"""Layers that train faster, with the parameters and (up to rounding) the results and gradients of the plain ones; and
residual blocks that compute their activations again.

Each class extends a plain layer by another way to compute it and falls back to the plain way where that is faster: on
other devices, without gradients, for sizes that were measured to gain nothing (docs/lab-book.md).
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from i2i.acceleration import winograd
from i2i.acceleration.exchange import Accelerated, Network, become, exchange
from i2i.networks.blocks import InstanceNorm, SpectralConv2d
from i2i.networks.resnet import ResidualBlock

LARGE_KERNEL, FEW_CHANNELS = 5, 4
"""From this kernel size on, and up to this number of output channels, a convolution is faster by columns."""
FEWEST_TILES = 64
"""From this number of tiles in a batch on, Winograd's filtering repays the transform of the kernels in each step."""
FEWEST_CHANNELS, FEWEST_HALVINGS = 128, 10
"""Convolutions of stride 2 are worth a product of matrices if one is as wide, or if there are as many, as in a U-Net.
A narrow PatchGAN has so few pixels in crops of 32 alone, where it would gain 0.2 ms a pass (docs/lab-book.md)."""
MOST_PIXELS = {torch.float32: 16, torch.bfloat16: 256}
"""Up to this number of pixels in a batch, on the smaller side, a product of matrices is faster than a convolution."""


def is_channels_last(x: Tensor) -> bool:
    """Returns whether (N, C, H, W) lies channels last in memory, and not contiguous in torch's own format too."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def padded(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Returns x with the padding of `conv`."""
    if not any(conv._reversed_padding_repeated_twice):
        return x
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    return F.pad(x, conv._reversed_padding_repeated_twice, mode=mode)


def is_plain(conv: nn.Conv2d | nn.ConvTranspose2d, kernel_size: int, stride: int, padding: int) -> bool:
    """Returns whether `conv` has these numbers for both sides, and neither groups nor dilation."""
    numbers = conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups
    return numbers == ((kernel_size,) * 2, (stride,) * 2, (padding,) * 2, (1, 1), 1)


def is_thin(weight: Tensor, stride: int, groups: int) -> bool:
    """Returns whether a convolution with this weight is faster by columns."""
    few = len(weight) <= FEW_CHANNELS < weight.shape[1]  # the first layer of a narrow network is none
    height, width = weight.shape[2:]
    return few and height == width >= LARGE_KERNEL and stride == groups == 1


def column_kernels(weight: Tensor) -> Tensor:
    """(M, C, k, k) → (k·M, C, k, 1): the columns of the kernels, from left to right, as kernels of their own."""
    return weight.permute(3, 0, 1, 2).flatten(0, 1)[..., None]


def by_columns(x: Tensor, columns: Tensor, bias: Tensor | None) -> Tensor:
    """Returns the convolution, without padding, of x by the kernels with these `column_kernels`, in float32 at least.

    Convolutions to few channels leave most of a CPU's vectors empty. This one has k times as many channels: it sums
    y_i(h, w + i) over the columns i = 0 … k - 1, where y_i is the convolution by column i.
    """
    size = columns.shape[2]
    channels, width = len(columns) // size, x.shape[3] - size + 1
    parts = F.conv2d(x, columns)
    parts = parts.to(torch.promote_types(parts.dtype, torch.float32))
    total = parts[:, :channels, :, :width].clone()
    for i in range(1, size):
        total += parts[:, i * channels : (i + 1) * channels, :, i : i + width]
    return total if bias is None else total + bias.to(total.dtype)[:, None, None]


class ColumnConv2d(Accelerated, nn.Conv2d):
    """A convolution with a large kernel and few output channels: in training on a CPU `by_columns`."""

    @classmethod
    def accepts(cls, module: nn.Module) -> bool:
        assert isinstance(module, nn.Conv2d)
        return is_thin(module.weight, max(module.stride), module.groups) and module.dilation == (1, 1)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(x)
        return by_columns(padded(self, x), column_kernels(self.weight), self.bias)


class WinogradConv2d(Accelerated, nn.Conv2d):
    """A 3×3 or 4×4 convolution of stride 1 between many channels: in float32 training on a CPU by `winograd`.

    Its input should lie channels last in memory; the result has the memory format of the input.
    """

    @classmethod
    def accepts(cls, module: nn.Module) -> bool:
        assert isinstance(module, nn.Conv2d)
        shape = any(is_plain(module, size, 1, 1) for size in winograd.FEWEST_CHANNELS)
        return shape and winograd.has_measured_channels(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        if not self.by_winograd(x):
            return super().forward(x)
        y: Tensor = winograd.Correlation.apply(padded(self, x), self.weight)
        if not is_channels_last(x):
            y = y.contiguous()
        return y if self.bias is None else y + self.bias[:, None, None]

    def by_winograd(self, x: Tensor) -> bool:
        """Returns whether it computes the convolution of x by `winograd`."""
        training = torch.is_grad_enabled() and not torch.compiler.is_compiling()
        exact = x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        tiles = len(x) * x.shape[2] * x.shape[3] / winograd.tile_size(self.kernel_size[0]) ** 2
        return training and exact and tiles >= FEWEST_TILES and winograd.is_faster(self.weight)


class _Strided(Accelerated):
    """Guards a convolution with a stride against wrong results on a CPU.

    In bfloat16 on a processor with AMX, oneDNN (torch 2.11 to 2.14) reads beyond the image if the result is one pixel
    wide and several pixels high. Such a convolution runs on the transposed image.
    """

    @classmethod
    def accepts(cls, module: nn.Module) -> bool:
        assert isinstance(module, nn.Conv2d)
        sides = {module.kernel_size, module.stride, module.dilation}
        alike = not isinstance(module.padding, str) and all(a == b for a, b in (*sides, module.padding))
        return alike and module.stride[0] > 1 and module.dilation == (1, 1)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        assert isinstance(self, nn.Conv2d)
        if not (_in_bfloat16(input) and _result_size(self, input.shape[3]) == 1 < _result_size(self, input.shape[2])):
            return nn.Conv2d._conv_forward(self, input, weight, bias)
        transposed = nn.Conv2d._conv_forward(self, input.transpose(2, 3), weight.transpose(2, 3), bias)
        return transposed.transpose(2, 3)


class StridedConv2d(_Strided, nn.Conv2d):
    """A convolution with a stride, right on every CPU."""


class StridedSpectralConv2d(_Strided, SpectralConv2d):
    """A spectrally normalised convolution with a stride, right on every CPU."""


def _in_bfloat16(x: Tensor) -> bool:
    """Returns whether a CPU computes convolutions of x in bfloat16."""
    if x.device.type != "cpu":
        return False
    autocast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return autocast or x.dtype == torch.bfloat16


def _result_size(conv: nn.Conv2d, size: int) -> int:
    """Returns the height or width of the result."""
    return (size + 2 * int(conv.padding[0]) - conv.kernel_size[0]) // conv.stride[0] + 1


class MatmulConv2d(_Strided, nn.Conv2d):
    """A 4×4 convolution that halves the size, deep in a U-Net: in training on a CPU one product of matrices.

    The product, N·H/2·W/2 × C·16 by C·16 × out_channels, reads the weights as they lie in memory. torch lays them out
    anew at each call, which takes longer than the convolution of a few pixels.
    """

    @classmethod
    def accepts(cls, module: nn.Module) -> bool:
        return isinstance(module, nn.Conv2d) and module.padding_mode == "zeros" and is_plain(module, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2] // 2, x.shape[3] // 2
        if not _as_product(self.weight, len(x) * height * width):
            return super().forward(x)
        columns = F.unfold(x, 4, padding=1, stride=2)
        y = F.linear(columns.transpose(1, 2), self.weight.flatten(1), self.bias)
        return y.transpose(1, 2).unflatten(2, (height, width))


class MatmulConvTranspose2d(Accelerated, nn.ConvTranspose2d):
    """A transposed 4×4 convolution that doubles the size: one product of matrices where `MatmulConv2d` is one.

    The product, N·H·W × C by C × out_channels·16, holds the columns of the result; `fold` adds up their overlaps.
    """

    @classmethod
    def accepts(cls, module: nn.Module) -> bool:
        return isinstance(module, nn.ConvTranspose2d) and is_plain(module, 4, 2, 1) and module.output_padding == (0, 0)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        height, width = x.shape[2:]
        if output_size is not None or not _as_product(self.weight, len(x) * height * width):
            return super().forward(x, output_size)
        columns = x.flatten(2).transpose(1, 2) @ self.weight.flatten(1)
        y = F.fold(columns.transpose(1, 2), (2 * height, 2 * width), 4, padding=1, stride=2)
        return y if self.bias is None else y + self.bias.to(y.dtype)[:, None, None]


def _as_product(weight: Tensor, pixels: int) -> bool:
    """Returns whether training computes a convolution of so many pixels as a product of matrices."""
    if weight.device.type != "cpu" or not torch.is_grad_enabled() or not weight.is_contiguous():
        return False
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else weight.dtype
    return pixels <= MOST_PIXELS.get(dtype, 0)


class TrainingInstanceNorm(Accelerated, InstanceNorm):
    """Instance normalisation with a faster gradient in channels last on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        if not (x.requires_grad and x.device.type == "cpu" and is_channels_last(x)) or torch.compiler.is_compiling():
            return super().forward(x)
        y: Tensor = _InstanceNorm.apply(x, self.eps)
        return y


def _row_mean(x: Tensor) -> Tensor:
    """Returns the mean of each channel (N, C, 1, 1), summed row by row."""
    return x.mean(3, keepdim=True).mean(2, keepdim=True)


class _NormContext(winograd.Context, Protocol):
    eps: float


class _InstanceNorm(torch.autograd.Function):
    """Instance normalisation whose gradient is a few operations on whole tensors.

    With y = (x - m)·r, where m is a channel's mean and r the reciprocal of its deviation, and E the mean over a
    channel: dx = r·(g - E[g] - y·E[g·y]).
    """

    @staticmethod
    def forward(ctx: _NormContext, x: Tensor, eps: float) -> Tensor:
        n, c, h, w = x.shape
        if x.dtype == torch.float32:
            mean = _row_mean(x)
            y = x - mean
            reciprocal = torch.rsqrt(_row_mean(y.square()) + eps)
            y *= reciprocal
        else:
            y, mean, reciprocal = torch.native_group_norm(x, None, None, n, c, h * w, c, eps)
        ctx.eps = eps
        # x and not y: the activation after the normalisation overwrites y
        ctx.save_for_backward(x, mean.view(n, c, 1, 1), reciprocal.view(n, c, 1, 1))
        return y

    @staticmethod
    def backward(ctx: _NormContext, *gradients: Tensor) -> tuple[Tensor, None]:
        (x, mean, reciprocal), (g,) = ctx.saved_tensors, gradients
        if torch.is_grad_enabled():  # a gradient penalty differentiates this gradient again
            return torch.autograd.grad(F.group_norm(x, x.shape[1], eps=ctx.eps), x, g, create_graph=True)[0], None
        if x.dtype == torch.float32:
            e_g, e_gy = _row_mean(g), _row_mean(g * (x - mean)) * reciprocal
        else:
            exact = torch.promote_types(torch.float32, x.dtype)
            e_g = g.mean((2, 3), keepdim=True, dtype=exact)
            e_gy = ((g * x).mean((2, 3), keepdim=True, dtype=exact) - mean * e_g) * reciprocal
        slope = reciprocal**2 * e_gy
        offset = slope * mean - reciprocal * e_g
        dx = torch.addcmul(offset.to(g.dtype), g, reciprocal.to(g.dtype))
        return dx.addcmul_(x, slope.to(g.dtype), value=-1), None


class TrainingBlock(Accelerated, ResidualBlock):
    """A residual block that lays out its input as its convolutions want it, and can save memory.

    `recomputed`: it keeps only its input for the backward pass and computes its activations again: the same gradients
    in less memory, for the time of a second forward pass (Chen et al. 2016, arXiv:1604.06174).
    `ends_run`: no block comes next, so it returns its result in the memory format of the other layers.
    """

    recomputed = False
    ends_run = False

    def forward(self, x: Tensor) -> Tensor:
        by_winograd = isinstance(self.conv1, WinogradConv2d) and self.conv1.by_winograd(x)
        if by_winograd:
            x = x.contiguous(memory_format=torch.channels_last)
        if self.recomputed and torch.is_grad_enabled():
            y: Tensor = checkpoint(self._block, x, use_reentrant=False, context_fn=self._contexts)
        else:
            y = self._block(x)
        if by_winograd and self.ends_run and not is_channels_last(self.conv1.weight):  # type: ignore[arg-type]
            y = y.contiguous()
        return y

    def _block(self, x: Tensor) -> Tensor:
        return super().forward(x)

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Returns the contexts of the first and the second computation."""
        return nullcontext(), _frozen_statistics(self)


@contextmanager
def _frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Inside, batch norm updates no running statistics: it has counted these images already."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d) and m.track_running_stats and m.training]
    momenta, counts = [norm.momentum for norm in norms], [norm.num_batches_tracked for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, count in zip(norms, momenta, counts, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


LAYERS: list[type[Accelerated]] = [
    TrainingInstanceNorm,
    TrainingBlock,
    ColumnConv2d,
    WinogradConv2d,
    MatmulConv2d,
    MatmulConvTranspose2d,
    StridedConv2d,
    StridedSpectralConv2d,
]


def accelerate_training(network: Network, dtype: torch.dtype | None = None) -> Network:
    """Exchanges the layers of `network` for those that train faster, in place; with the `dtype` in which they will
    compute where the network is, only for those that may compute in their own way there."""
    exchange(network, LAYERS if dtype is None else _useful(network, dtype))
    for parent in network.modules():
        for block, after in pairwise([*parent.children(), None]):
            if isinstance(block, TrainingBlock):
                block.ends_run = not isinstance(after, TrainingBlock)
    return network


def _useful(network: nn.Module, dtype: torch.dtype) -> list[type[Accelerated]]:
    modules, parameters = list(network.modules()), list(network.parameters())
    on_cpu = all(parameter.device.type == "cpu" for parameter in parameters)
    convolutions = [module for module in modules if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
    exact = on_cpu and dtype == torch.float32
    by_winograd = exact and any(type(conv) is nn.Conv2d and WinogradConv2d.accepts(conv) for conv in convolutions)
    halvings = [conv for conv in convolutions if MatmulConv2d.accepts(conv) or MatmulConvTranspose2d.accepts(conv)]
    wide = any(min(conv.weight.shape[:2]) >= FEWEST_CHANNELS for conv in halvings)
    by_product = on_cpu and (wide or len(halvings) >= FEWEST_HALVINGS)
    strided = on_cpu and dtype == torch.bfloat16
    useful: dict[type[Accelerated], bool] = {
        TrainingInstanceNorm: on_cpu and (by_winograd or any(map(is_channels_last, parameters))),
        TrainingBlock: by_winograd or any(getattr(module, "recomputed", False) for module in modules),
        ColumnConv2d: on_cpu,
        WinogradConv2d: by_winograd,
        MatmulConv2d: by_product,
        MatmulConvTranspose2d: by_product,
        StridedConv2d: strided,
        StridedSpectralConv2d: strided,
    }
    return [layer for layer in LAYERS if useful[layer]]


def recompute(network: nn.Module) -> int:
    """Makes all residual blocks of `network` compute their activations again; returns how many there are."""
    blocks = [module for module in network.modules() if isinstance(module, ResidualBlock)]
    for block in blocks:
        become(block, TrainingBlock).recomputed = True
    return len(blocks)
