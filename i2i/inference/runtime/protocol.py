"""The interface between a translator and the library that runs its network. Nothing here needs torch."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from i2i.models.info import ModelInfo

Planes = np.ndarray[Any, np.dtype[np.float32]]
"""(N, C, H, W) float32 in [-1, 1]."""


class Device(Protocol):
    """As much of a `torch.device` as is needed without torch."""

    @property
    def type(self) -> str: ...


@dataclass(frozen=True)
class Cpu:
    """The CPU, for a runtime that does without torch."""

    type: str = "cpu"

    def __str__(self) -> str:
        return self.type


@dataclass(frozen=True)
class InputSpec:
    """The sizes and channels that a network takes, and its memory for each pixel (`memory.bytes_per_pixel`).

    That takes half a second to compute, so it may be None: not computed yet.
    """

    in_channels: int
    out_channels: int
    size_multiple: int
    minimum_size: int
    bytes_per_pixel: float | None


class Runtime(Protocol):
    """A network, ready to run. Several threads may call it; `precision` is fp32, bf16 or fp16."""

    @property
    def name(self) -> str: ...

    @property
    def precision(self) -> str: ...

    @property
    def device(self) -> Device: ...

    def run(self, batch: Planes, seed: int | None = None) -> Planes:
        """(N, in, H, W) to (N, out, H, W), H and W as the network takes them; `seed` is that of its noise."""
        ...


@dataclass(frozen=True)
class ConvertedModel:
    """A network in the format of another runtime: its `files` by name."""

    info: ModelInfo
    spec: InputSpec
    files: dict[str, bytes]
