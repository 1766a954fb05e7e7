"""A residual generator as a list of layers, and the choice of their results to keep on the way, or to compute again.

A normalisation by the statistics of the whole picture is a barrier: every row before it must have been computed
once before the first row behind it can be. The layers before a barrier are run again from the last result that
was kept, or the result at the barrier is kept itself, in a spool. Keeping costs the writing and reading of its
bytes, running again costs its multiplications; the cheapest choice is found by dynamic programming.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, cast

import torch
from torch import nn

from i2i.acceleration.inference import Moments
from i2i.acceleration.rows import Affine, Convolution, Doubling, RowLayer
from i2i.networks.blocks import BilinearUpsample, Blur, BlurUpsample, PaddingMode, SmoothUpsample, blur_filter
from i2i.networks.resnet import ConvNormReLU, ResidualBlock, ResnetGenerator, SeparableConv2d

Kind = Literal["convolution", "norm", "relu", "tanh", "fork", "add", "mix"]
_EPSILON = 1e-5  # that of `InstanceNorm`


@dataclass(frozen=True)
class Layer:
    """One layer; its result has `channels`, and `zoom` times the height and width of the picture.

    `work` is how many multiplications it takes for each pixel of the picture. `fork` and `add` are the two ends
    of a way around the layers between them; `around` is the number of the fork of the way that goes around it or ends
    at it. `mix` mixes the picture in, by its `share`.
    """

    kind: Kind
    channels: int
    zoom: Fraction
    work: float
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
        work = 0.0
        if kind == "convolution":
            before = zoom
            if isinstance(module, BilinearUpsample):
                zoom, values = zoom * 2, 16 * module.channels
            elif isinstance(module, Blur | BlurUpsample):
                zoom, values = zoom / module.stride if isinstance(module, Blur) else zoom * 2, module.filt.numel()
            else:
                assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
                zoom = zoom * 2 if isinstance(module, nn.ConvTranspose2d) else zoom / module.stride[0]
                channels, values = module.out_channels, module.weight.numel()
            work = values * float(min(before, zoom) ** 2)
        layers.append(Layer(kind, channels, zoom, work, module, around, network.config.input_share))
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
    if isinstance(module, SeparableConv2d | SmoothUpsample):
        for part in module:
            yield from _convolutions(part)
    elif not isinstance(module, nn.Identity):
        yield "convolution", module


def convolution(module: nn.Module, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> RowLayer:
    """The convolution that is to run over rows, in that type, on the device where the module is."""
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


# seconds, roughly, on two cores: of a multiplication (with its addition), of a value that a layer gives, and of a
# byte written or read
_SECONDS_A_PRODUCT, _SECONDS_A_VALUE, _SECONDS_A_BYTE = 6e-12, 6e-10, 1.4e-9


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
    """The cheapest way to take a picture of that size through the layers, keeping `item_bytes` a value."""
    barriers = [i for i, layer in enumerate(layers) if layer.measures]
    kept = _cheapest(layers, barriers, item_bytes)
    cuts, total = _placed(layers, kept[1:-1], height, width, item_bytes)
    passes = []
    for start, end in itertools.pairwise(kept):
        source, target = cuts.get(start), cuts.get(end)
        passes += [Pass(start, k, source, None) for k in barriers if start < k < end]
        passes.append(Pass(start, end, source, target))
    return Schedule(tuple(passes), total)


def _cheapest(layers: Sequence[Layer], barriers: Sequence[int], item_bytes: int) -> list[int]:
    """Where something is kept, from 0, the picture itself, to the end."""
    done = [0.0]
    for layer in layers:
        values = layer.channels * float(layer.zoom**2)
        done.append(done[-1] + layer.work * _SECONDS_A_PRODUCT + values * _SECONDS_A_VALUE)
    moved = [0.0] * (len(layers) + 1)
    for i in range(1, len(layers)):
        values = sum(layer.channels * float(layer.zoom**2) for layer in _alive(layers, i))
        moved[i] = values * item_bytes * _SECONDS_A_BYTE
    best: dict[int, tuple[float, list[int]]] = {0: (0.0, [0])}
    ends = (*barriers, len(layers))
    for end in ends:
        if end == len(layers) or layers[end - 1].zoom < 1:  # nothing of the full size is kept, whatever it costs
            options = []
            for start, (cost, path) in best.items():
                again = sum(done[k] - done[start] + moved[start] for k in ends if start < k <= end)
                options.append((cost + again + moved[end], [*path, end]))
            best[end] = min(options)
    return best[len(layers)][1]


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
