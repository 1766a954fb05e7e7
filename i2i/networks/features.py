"""Features of a residual generator that losses compare: the encoder G_enc of CUT (Park et al. 2020, Sec. 3.2), the
patch embedding of CUT, and the 1×1 convolutions of a distillation.

Layers have the numbers of CUT's published code: 0 is the input, padded for the first convolution; then each
convolution, normalisation, ReLU, blur and residual block counts one. An activation works in place, so the features of
the layer before it are rectified too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Interval, Len
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.device import precise
from i2i.networks.blocks import Norm
from i2i.networks.resnet import ResnetConfig, ResnetGenerator

_EPS = 1e-7  # as in the published code, added to the norm
_MODES = {"zero": "constant", "reflect": "reflect", "replicate": "replicate"}  # torch's names for padding a tensor


def layers(generator: ResnetGenerator) -> list[nn.Module]:
    """Returns the layers 1, 2, … of `generator` before its last convolution."""
    parts = [generator.stem, *generator.down, *generator.blocks, *generator.up]
    return [layer for part in parts for layer in (part if isinstance(part, nn.Sequential) else [part])]


def paper_layers(config: ResnetConfig) -> tuple[int, ...]:
    """Returns the layers of App. C.1: pixels, both halving convolutions, the first and the fifth (or last) block."""
    step, first = _halving(config), _first_block(config)
    blocks = {first, first + min(config.blocks, 5) - 1} if config.blocks else set()
    return (0, 4, 4 + step, *sorted(blocks))


def _halving(config: ResnetConfig) -> int:
    """Returns the number of layers in a halving; the blur of a separable convolution is a part of the convolution."""
    return 4 if config.downsampling == "antialiased" and not config.separable else 3


def _first_block(config: ResnetConfig) -> int:
    return 4 + 2 * _halving(config)


def comparable_layers(one: ResnetConfig, other: ResnetConfig, most: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns at most `most` layers of each of two generators that correspond: at a quarter of the size, the layer
    before the first block, the last block, and evenly spread blocks between them."""
    parts = min(most - 1, one.blocks, other.blocks)

    def spread(config: ResnetConfig) -> tuple[int, ...]:
        return tuple(_first_block(config) - 1 + round(config.blocks * i / max(parts, 1)) for i in range(parts + 1))

    return spread(one), spread(other)


def channels(generator: ResnetGenerator) -> list[int]:
    """Returns the numbers of channels of the layers 0, 1, …"""
    found = [generator.config.in_channels]
    for layer in layers(generator):
        found.append(getattr(layer, "out_channels", found[-1]))
    return found


def _results(generator: ResnetGenerator, x: Tensor, wanted: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
    """Yields number and result of each layer in order, from 0; pads the input only if 0 is in `wanted`."""
    yield 0, F.pad(x, (3, 3, 3, 3), mode=_MODES[generator.config.padding]) if 0 in wanted else x
    for number, layer in enumerate(layers(generator), 1):
        x = layer(x)
        yield number, x


def encode(generator: ResnetGenerator, x: Tensor, numbers: Sequence[int]) -> list[Tensor]:
    """Returns the results (N, C, H', W') of the layers `numbers`, in ascending order, and computes no further layer."""
    found = []
    for number, y in _results(generator, x, numbers):
        if number in numbers:
            found.append(y)
        if number == numbers[-1]:
            break
    return found


def translate(generator: ResnetGenerator, x: Tensor, numbers: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
    """Returns `generator(x)` and, from the same pass, `encode(generator, x, numbers)`."""
    found = []
    y = x
    for number, y in _results(generator, x, numbers):
        if number in numbers:
            found.append(y)
    return generator.output(y, x), found


@dataclass(frozen=True, kw_only=True)
class ProjectionConfig:
    """A perceptron for each compared layer; `in_channels` are the channels of the layers."""

    kind: ClassVar[str] = "projection"
    norm: ClassVar[Norm] = "none"
    bias: ClassVar[bool | None] = None

    in_channels: Annotated[tuple[int, ...], Len(1)] = (3,)
    width: Annotated[int, Interval(ge=1, le=4096)] = 256

    def build(self) -> "PatchProjection":
        return PatchProjection(self)


class PatchProjection(nn.Module):
    """The H_l of the paper, with two layers each and the names of the published code: `mlp_0`, `mlp_1`, …

    `forward(layer, patches)`: (N, S, in_channels[layer]) → (N, S, width), vectors of length 1. It computes in float32
    under autocast too: with the published first weights the numbers before the division are too small for float16.
    """

    def __init__(self, config: ProjectionConfig) -> None:
        super().__init__()
        self.config = config
        for i, channels in enumerate(config.in_channels):
            layers = nn.Linear(channels, config.width), nn.ReLU(), nn.Linear(config.width, config.width)
            self.add_module(f"mlp_{i}", nn.Sequential(*layers))

    def forward(self, layer: int, patches: Tensor) -> Tensor:
        with torch.autocast(patches.device.type, enabled=False):
            patches = precise(patches)
            z = self.get_submodule(f"mlp_{layer}")(patches)
            return z / (z.norm(dim=-1, keepdim=True) + _EPS)


@dataclass(frozen=True, kw_only=True)
class ChannelProjectionConfig:
    """A 1×1 convolution for each compared layer."""

    kind: ClassVar[str] = "channel_projection"
    norm: ClassVar[Norm] = "none"
    bias: ClassVar[bool | None] = None

    in_channels: Annotated[tuple[int, ...], Len(1)] = (3,)
    out_channels: Annotated[tuple[int, ...], Len(1)] = (3,)

    def build(self) -> "ChannelProjection":
        return ChannelProjection(self)


class ChannelProjection(nn.Module):
    """For each layer (N, in_channels, H, W) → (N, out_channels, H, W), the channels of the other generator."""

    def __init__(self, config: ChannelProjectionConfig) -> None:
        super().__init__()
        self.config = config
        pairs = zip(config.in_channels, config.out_channels, strict=True)
        self.layers = nn.ModuleList(nn.Conv2d(one, other, 1) for one, other in pairs)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        return [layer(x) for layer, x in zip(self.layers, features, strict=True)]


def patches_at(features: Tensor, places: Tensor) -> Tensor:
    """Returns the features (N, C, H, W) at `places`, (N, S) counted along the rows, as (N, S, C)."""
    index = places[:, None].expand(-1, features.shape[1], -1)
    return features.flatten(2).gather(2, index).mT
