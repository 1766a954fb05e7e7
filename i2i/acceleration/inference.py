"""Layers of a network that translates: the same function of each image, up to rounding.

Batch norm by the statistics of the image is per-image normalisation, so no other image of a batch has an influence.
Convolutions keep their kernels in the layout in which they use them.
"""

from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from i2i.acceleration import winograd
from i2i.acceleration.convolutions import ColumnConv2d, StridedConv2d, by_columns, column_kernels, is_plain, padded
from i2i.acceleration.exchange import Accelerated, Network, become, exchange
from i2i.acceleration.normalization import (
    ExactBatchNorm,
    ExactInstanceNorm,
    ExportedBatchNorm,
    ExportedInstanceNorm,
    GroupBatchNorm,
)
from i2i.networks.blocks import PaddingMode

Engine = Literal["eager", "compiled", "exported"]
"""How the network runs: torch as it is, torch with its compiler, another runtime after an export."""


class _PreparedConv2d(Accelerated):
    """A convolution that holds its kernels in another layout too, in the buffer `kernels`, which is not saved."""

    kernels: Tensor

    def lay_out(self, weight: Tensor) -> Tensor:
        """Returns the kernels in the layout of this class."""
        raise NotImplementedError

    def prepare(self) -> None:
        assert isinstance(self, nn.Conv2d)
        self.register_buffer("kernels", self.lay_out(self.weight.detach()), persistent=False)

    def release(self) -> None:
        del self.kernels

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], *arguments: Any) -> None:
        super()._load_from_state_dict(state_dict, *arguments)  # type: ignore[misc]
        self.prepare()


class PreparedColumnConv2d(_PreparedConv2d, nn.Conv2d):
    """A convolution with a large kernel and few output channels, by the columns of its kernels."""

    @classmethod
    def accepts(cls, module: nn.Module) -> bool:
        return ColumnConv2d.accepts(module)

    def lay_out(self, weight: Tensor) -> Tensor:
        return column_kernels(weight).contiguous()

    def forward(self, x: Tensor) -> Tensor:
        return by_columns(padded(self, x), self.kernels, self.bias)


class PreparedWinogradConv2d(_PreparedConv2d, nn.Conv2d):
    """A 3×3 convolution between many channels by `winograd`, its kernels transformed once into four times as many
    numbers. The result lies channels last."""

    @classmethod
    def accepts(cls, module: nn.Module) -> bool:
        return isinstance(module, nn.Conv2d) and is_plain(module, 3, 1, 1) and winograd.is_faster(module.weight)

    def lay_out(self, weight: Tensor) -> Tensor:
        return winograd.transformed(weight)

    def forward(self, x: Tensor) -> Tensor:
        mode = cast(PaddingMode, self.padding_mode)
        return winograd.correlate(x, self.kernels, 3, self.bias, mode)


class PlainNoise(Accelerated, nn.Dropout):
    """Dropout that stays on, with the noise of `nn.Dropout` for a float32 tensor in torch's own memory format, so that
    neither layout nor precision changes the noise."""

    @classmethod
    def accepts(cls, module: nn.Module) -> bool:
        return module.training

    def forward(self, x: Tensor) -> Tensor:
        noise = torch.empty(x.shape, dtype=torch.float32, device=x.device).bernoulli_(1 - self.p)
        return x * noise.div_(1 - self.p).to(x.dtype)


def layers(engine: Engine, device: torch.device, dtype: torch.dtype) -> list[type[Accelerated]]:
    """Returns the classes that translate fastest in `dtype` on `device`."""
    if engine == "exported":
        return [PlainNoise, ExportedInstanceNorm, ExportedBatchNorm]
    if device.type != "cpu":
        return [PlainNoise, GroupBatchNorm]
    if engine == "compiled":  # the compiler fuses torch's own normalisations and convolutions with their neighbours
        return [PlainNoise, GroupBatchNorm, StridedConv2d]
    found = [PlainNoise, ExactInstanceNorm, ExactBatchNorm, StridedConv2d]
    return [*found, PreparedWinogradConv2d] if dtype == torch.float32 else found


def accelerate_inference(
    network: Network, engine: Engine = "eager", device: torch.device | None = None, dtype: torch.dtype | None = None
) -> Network:
    """Exchanges the layers of `network`, which is in its mode of translation, for those that translate faster, in
    place. By default it will run on the device and in the type of its parameters."""
    first = next(network.parameters(), torch.empty(0))
    device = device or first.device
    exchange(network, layers(engine, device, dtype or first.dtype))
    if engine != "exported" and device.type == "cpu":
        _exchange_head(network)
    return network


def _exchange_head(network: nn.Module) -> None:
    """Only the convolution that ends a network may compute by columns: a next layer of 16 bits refuses its float32."""
    head = network if isinstance(network, nn.Conv2d) else getattr(network, "head", None)
    if type(head) is nn.Conv2d and PreparedColumnConv2d.accepts(head):
        become(head, PreparedColumnConv2d).prepare()
