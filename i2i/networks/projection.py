"""What features of a generator go through before they are compared: the patch embedding of CUT (Park et al. 2020,
Sec. 3.2), to points on a sphere, and the 1×1 convolutions of a distillation, to the channels of another generator."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Interval, Len
from torch import Tensor, nn

from i2i.device import precise
from i2i.networks.blocks import Norm

_EPS = 1e-7  # as in the published code, added to the norm


@dataclass(frozen=True, kw_only=True)
class ProjectionConfig:
    """A perceptron for each layer whose features are compared; `in_channels` are those of the layers."""

    kind: ClassVar[str] = "projection"
    norm: ClassVar[Norm] = "none"
    bias: ClassVar[bool | None] = None

    in_channels: Annotated[tuple[int, ...], Len(1)] = (3,)
    width: Annotated[int, Interval(ge=1, le=4096)] = 256

    def build(self) -> "PatchProjection":
        return PatchProjection(self)


class PatchProjection(nn.Module):
    """The H_l of the paper, of two layers each, named as in the published code: `mlp_0`, `mlp_1`, …

    `forward(layer, patches)`: (N, S, in_channels[layer]) → (N, S, width), each of length 1. In float32 also under
    autocast: with the published first weights the numbers before the division are too small for float16.
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
    """A 1×1 convolution for each layer whose features are compared."""

    kind: ClassVar[str] = "channel_projection"
    norm: ClassVar[Norm] = "none"
    bias: ClassVar[bool | None] = None

    in_channels: Annotated[tuple[int, ...], Len(1)] = (3,)
    out_channels: Annotated[tuple[int, ...], Len(1)] = (3,)

    def build(self) -> "ChannelProjection":
        return ChannelProjection(self)


class ChannelProjection(nn.Module):
    """Of each layer (N, in_channels, H, W) → (N, out_channels, H, W)."""

    def __init__(self, config: ChannelProjectionConfig) -> None:
        super().__init__()
        self.config = config
        pairs = zip(config.in_channels, config.out_channels, strict=True)
        self.layers = nn.ModuleList(nn.Conv2d(one, other, 1) for one, other in pairs)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        return [layer(x) for layer, x in zip(self.layers, features, strict=True)]


def patches_at(features: Tensor, places: Tensor) -> Tensor:
    """(N, C, H, W) at `places`, (N, S) counted along the rows → (N, S, C)."""
    index = places[:, None].expand(-1, features.shape[1], -1)
    return features.flatten(2).gather(2, index).mT
