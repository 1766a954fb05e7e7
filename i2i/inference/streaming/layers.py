"""A residual generator as a list of layers, one after another."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import torch
from torch import nn

from i2i.acceleration.inference import Moments
from i2i.acceleration.rows import Affine, Convolution, Doubling, RowLayer
from i2i.networks.blocks import BilinearUpsample, Blur, BlurUpsample, PaddingMode, SmoothUpsample, blur_filter
from i2i.networks.resnet import ConvNormReLU, ResidualBlock, ResnetGenerator, SeparableConv2d

Kind = Literal["convolution", "norm", "relu", "tanh", "fork", "add", "mix"]
_EDGES: dict[str, PaddingMode] = {"zeros": "zeros", "reflect": "reflect", "replicate": "replicate"}
_EPSILON = 1e-5  # that of `InstanceNorm`


@dataclass(frozen=True)
class Layer:
    """One layer; its result has `channels`, and `zoom` times the height and width of the picture.

    `work` is how many multiplications it takes for each pixel of the picture. `fork` and `add` are the two ends
    of a way around the layers between them; `mix` mixes the picture in, by its `share`.
    """

    kind: Kind
    channels: int
    zoom: Fraction
    work: float = 0
    module: nn.Module | None = None
    share: float = 0

    @property
    def measures(self) -> bool:
        """Whether it needs the statistics of the whole picture before it gives the first row."""
        if not isinstance(self.module, nn.BatchNorm2d):
            return self.kind == "norm"
        return self.module.running_mean is None


def layers_of(network: ResnetGenerator) -> list[Layer]:
    """The layers of a generator that is in the mode in which it translates, without dropout."""
    found = _Layers(network.config.in_channels)
    found.stage(network.stem)
    for stage in network.down:
        found.stage(stage)
    for block in network.blocks:
        found.block(block)
    for stage in network.up:
        found.stage(stage)
    found.convolution(network.head)
    found.plain("tanh")
    if network.config.input_share:
        found.mix(network.config.input_share)
    return found.layers


class _Layers:
    def __init__(self, channels: int) -> None:
        self.layers: list[Layer] = []
        self._channels, self._zoom = channels, Fraction(1)

    def plain(self, kind: Kind, module: nn.Module | None = None) -> None:
        if not isinstance(module, nn.Identity):
            self.layers.append(Layer(kind, self._channels, self._zoom, module=module))

    def mix(self, share: float) -> None:
        self.layers.append(Layer("mix", self._channels, self._zoom, share=share))

    def convolution(self, module: nn.Module) -> None:
        if isinstance(module, SeparableConv2d | SmoothUpsample):
            for part in module:
                self.convolution(part)
            return
        before = self._zoom
        if isinstance(module, Blur):
            self._zoom /= module.stride
            values = module.filt.numel()
        elif isinstance(module, BlurUpsample | BilinearUpsample):
            self._zoom *= 2
            values = 16 * module.channels if isinstance(module, BilinearUpsample) else module.filt.numel()
        else:
            assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
            doubles = isinstance(module, nn.ConvTranspose2d)
            self._zoom = self._zoom * 2 if doubles else self._zoom / module.stride[0]
            self._channels, values = module.out_channels, module.weight.numel()
        work = values * float(min(before, self._zoom) ** 2 if before < self._zoom else self._zoom**2)
        self.layers.append(Layer("convolution", self._channels, self._zoom, work, module))

    def stage(self, stage: nn.Module) -> None:
        assert isinstance(stage, ConvNormReLU)
        if hasattr(stage, "upsample"):
            self.convolution(stage.upsample)
        self.convolution(stage.conv)
        self.plain("norm", stage.norm)
        self.plain("relu")
        if hasattr(stage, "downsample"):
            self.convolution(stage.downsample)

    def block(self, block: nn.Module) -> None:
        assert isinstance(block, ResidualBlock)
        self.plain("fork")
        self.convolution(block.conv1)
        self.plain("norm", block.norm1)
        self.plain("relu")
        self.convolution(block.conv2)
        self.plain("norm", block.norm2)
        self.plain("add")


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
    edge = _EDGES[module.padding_mode]
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
