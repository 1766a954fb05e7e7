"""A residual generator as a list of layers, and which of their results are kept on the way.

A normalisation by the statistics of the whole picture is a barrier: every row before it must have been computed
once before the first row behind it can be. Rows smaller than the picture are kept there, in a spool. Rows of its full
size are computed again, from the last that were kept.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, cast

import torch
from torch import nn
from torch.nn import functional as F

from i2i.acceleration.inference import Moments
from i2i.acceleration.rows import Affine, Convolution, Doubling, RowLayer
from i2i.networks.blocks import BilinearUpsample, Blur, BlurUpsample, PaddingMode, blur_filter
from i2i.networks.resnet import ConvNormReLU, ResidualBlock, ResnetGenerator

Kind = Literal["convolution", "norm", "relu", "tanh", "fork", "add", "mix"]
_EPSILON = 1e-5  # that of `InstanceNorm`


@dataclass(frozen=True)
class Layer:
    """One layer; its result has `channels`, and `zoom` times the height and width of the picture.

    `fork` and `add` are the two ends of a way around the layers between them; `around` is the number of the fork of the
    way that goes around it or ends at it. `mix` mixes the picture in, by its `share`.
    """

    kind: Kind
    channels: int
    zoom: Fraction
    module: nn.Module | None
    around: int | None
    share: float

    @property
    def measures(self) -> bool:
        """Whether it needs the statistics of the whole picture before it gives the first row."""
        if not isinstance(self.module, nn.BatchNorm2d):
            return self.kind == "norm"
        return self.module.running_mean is None


def layers_of(network: ResnetGenerator) -> list[Layer]:
    """The layers of a generator that is in the mode in which it translates, without dropout."""
    layers: list[Layer] = []
    channels, zoom = network.config.in_channels, Fraction(1)
    around = None
    for kind, module in _flat(network):
        if isinstance(module, BilinearUpsample | BlurUpsample | nn.ConvTranspose2d):
            zoom *= 2
        elif isinstance(module, nn.PixelShuffle):
            zoom, channels = zoom * module.upscale_factor, channels // module.upscale_factor**2
        elif isinstance(module, Blur | nn.Conv2d):
            zoom /= module.stride if isinstance(module, Blur) else module.stride[0]
        channels = getattr(module, "out_channels", channels)
        layers.append(Layer(kind, channels, zoom, module, around, network.config.input_share))
        if kind in ("fork", "add"):
            around = len(layers) - 1 if kind == "fork" else None
    return layers


def _flat(network: ResnetGenerator) -> Iterator[tuple[Kind, nn.Module | None]]:
    """The kinds of its layers in their order, and those that are modules."""
    for part in (network.stem, *network.down, *network.blocks, *network.up):
        if isinstance(part, ResidualBlock):
            yield "fork", None
            yield from _normed(part.conv1, part.norm1)
            yield "relu", None
            yield from _normed(part.conv2, part.norm2)
            yield "add", None
        else:
            assert isinstance(part, ConvNormReLU)
            yield from _convolutions(getattr(part, "upsample", nn.Identity()))
            yield from _normed(part.conv, part.norm)
            yield "relu", None
            yield from _convolutions(getattr(part, "downsample", nn.Identity()))
    yield from _convolutions(network.head)
    yield "tanh", None
    if network.config.input_share:
        yield "mix", None


def _normed(convolution: nn.Module, norm: nn.Module) -> Iterator[tuple[Kind, nn.Module]]:
    yield from _convolutions(convolution)
    if not isinstance(norm, nn.Identity):
        yield "norm", norm


def _convolutions(module: nn.Module) -> Iterator[tuple[Kind, nn.Module]]:
    if isinstance(module, nn.Sequential):  # a separable or a sub-pixel convolution, a smooth upsampling
        for part in module:
            yield from _convolutions(part)
    elif not isinstance(module, nn.Identity):
        yield "convolution", module


def convolution(module: nn.Module, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> RowLayer:
    """The convolution that is to run over rows, in that type, on the device where the module is.

    The shuffle of a sub-pixel convolution makes two rows of each, whatever rows come.
    """
    if isinstance(module, nn.PixelShuffle):
        return lambda rows, last: F.pixel_shuffle(rows, module.upscale_factor)
    if isinstance(module, Blur):
        return Convolution(module.filt.to(dtype), None, module.stride, 1, module.edge, len(module.filt))
    if isinstance(module, BlurUpsample):
        return Doubling(module.filt.to(dtype), None, 1, 3, len(module.filt))
    if isinstance(module, BilinearUpsample):
        weight = blur_filter(4).repeat(module.channels, 1, 1, 1)
        return Doubling(weight.to(device, dtype), None, 1, 3, module.channels)
    assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
    weight, bias = module.weight.to(dtype), None if module.bias is None else module.bias.to(dtype)
    if isinstance(module, nn.ConvTranspose2d):
        return Doubling(weight, bias, 0, int(module.padding[0]), module.groups)
    edge = cast(PaddingMode, module.padding_mode)
    return Convolution(weight, bias, module.stride[0], int(module.padding[0]), edge, module.groups)


def normalisation(layer: Layer, measured: Moments | None, device: torch.device | str = "cpu") -> RowLayer:
    """A normalisation by what was measured for it, or by the statistics of its training."""
    module = layer.module
    if measured is not None:
        mean, variance = measured.mean().float().to(device), measured.variance().float().to(device)
    else:
        assert isinstance(module, nn.BatchNorm2d) and module.running_mean is not None
        assert module.running_var is not None
        mean, variance = module.running_mean, module.running_var
    if not isinstance(module, nn.BatchNorm2d):
        return Affine(mean, variance, None, None, _EPSILON)
    return Affine(mean, variance, module.weight, module.bias, module.eps)


@dataclass(frozen=True)
class Lane:
    """One tensor that is kept: its rows (W, C) stand `stride` bytes apart from `start` on."""

    channels: int
    zoom: Fraction
    start: int
    stride: int


@dataclass(frozen=True)
class Cut:
    """The tensors kept at a barrier: the input of the layer behind it, and the rows that go around that, if any."""

    main: Lane
    around: Lane | None = None


@dataclass(frozen=True)
class Pass:
    """Layers `start` to `end` (exclusive) over the whole picture, to measure for layer `end`, or to the result.

    It reads `source` (None: the picture) and keeps `target` (None: nothing).
    """

    start: int
    end: int
    source: Cut | None
    target: Cut | None


@dataclass(frozen=True)
class Schedule:
    """The passes in their order, and the size of the spool that they need."""

    passes: tuple[Pass, ...]
    spool_bytes: int


def schedule(layers: Sequence[Layer], height: int, width: int, item_bytes: int) -> Schedule:
    """The way to take a picture of that size through the layers, keeping `item_bytes` a value."""
    barriers = [i for i, layer in enumerate(layers) if layer.measures]
    kept = [0, *(i for i in barriers if layers[i - 1].zoom < 1), len(layers)]
    cuts, total = _placed(layers, kept[1:-1], height, width, item_bytes)
    passes = []
    for start, end in itertools.pairwise(kept):
        source, target = cuts.get(start), cuts.get(end)
        passes += [Pass(start, k, source, None) for k in barriers if start < k < end]
        passes.append(Pass(start, end, source, target))
    return Schedule(tuple(passes), total)


def _alive(layers: Sequence[Layer], index: int) -> list[Layer]:
    """The layers whose results are alive in front of layer `index`: its input, and what goes around it."""
    around = layers[index].around
    return [layers[index - 1]] + ([] if around is None else [layers[around]])


def _placed(
    layers: Sequence[Layer], kept: Sequence[int], height: int, width: int, item_bytes: int
) -> tuple[dict[int, Cut], int]:
    """The cuts and the size of the spool. Each is written over the one before, whose rows have been read by then.

    That holds where a cut begins and ends no further back than the next one, for both are used from the front.
    """
    cuts: dict[int, Cut] = {}
    start, size, total = 0, 0, 0
    for index in reversed(kept):
        alive = _alive(layers, index)
        rows = [int(width * layer.zoom) * layer.channels * item_bytes for layer in alive]
        own = sum(rows) * int(height * alive[0].zoom)
        start = max(start, start + size - own)
        size = own
        total = max(total, start + size)
        lanes = [Lane(layer.channels, layer.zoom, start + sum(rows[:i]), sum(rows)) for i, layer in enumerate(alive)]
        cuts[index] = Cut(*lanes)
    return cuts, total
