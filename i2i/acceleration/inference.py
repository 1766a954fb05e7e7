"""Layers of a network that translates: the same function of each image, up to rounding; and the cost of a translation.

Convolutions keep their kernels in the layout in which they use them. Batch norm by the statistics of the image is
per-image normalisation, so no other image of a batch has an influence. On a CPU torch sums a channel in the memory
format channels last in one go, with up to 20 times the rounding of row by row. The error grows with the image: in
float32 it is 2e-4 deviations at 256×256, 3e-3 at 1024×1024, 2e-2 at 2048×2048 (docs/lab-book.md).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from i2i.acceleration import winograd
from i2i.acceleration.exchange import Accelerated, Network, become, exchange
from i2i.acceleration.training import ColumnConv2d, StridedConv2d, by_columns, column_kernels, is_plain, padded
from i2i.networks import GeneratorConfig
from i2i.networks.blocks import InstanceNorm, PaddingMode, for_translation
from i2i.networks.resnet import ResnetGenerator

Engine = Literal["eager", "compiled", "exported"]
"""How the network runs: torch as it is, torch with its compiler, another runtime after an export."""
_CHUNK_VALUES = 1 << 18  # so many stay in a processor's cache between two passes over them
_LARGE, _LARGE_16_BITS = 1 << 16, 1 << 20  # pixels from which `Moments` replaces torch's statistics


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


def _float64(x: Tensor) -> Tensor:
    return (x.cpu() if x.device.type == "mps" else x).double()  # Apple's GPUs have no float64


class Moments:
    """Count, mean and sum of squared deviations of each channel, in float64.

    Each chunk is centred on its own mean in float32 and then merged (Chan, Golub & LeVeque 1983). So nothing cancels
    where the mean is much larger than the deviation, and an image can come in parts.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean = self._squares = torch.zeros(1, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Adds the pixels of (1, C, H, W)."""
        values = rows.permute(0, 2, 3, 1).reshape(-1, rows.shape[1])
        for chunk in values.split(max(1, _CHUNK_VALUES // values.shape[1])):
            self._merge(chunk.float())

    def _merge(self, chunk: Tensor) -> None:
        mean = chunk.sum(0) / len(chunk)
        centred = chunk - mean
        # the part of the mean that was lost to rounding
        rest = _float64(centred.sum(0)) / len(chunk)
        squares = _float64(centred.square_().sum(0)) - rest.square() * len(chunk)
        delta = _float64(mean) + rest - self._mean.to(rest.device)
        total = self.count + len(chunk)
        self._mean = self._mean.to(rest.device) + delta * (len(chunk) / total)
        between = delta.square() * (self.count * len(chunk) / total)
        self._squares = self._squares.to(rest.device) + squares + between
        self.count = total

    def mean(self) -> Tensor:
        """Returns (C,) in float64."""
        return self._mean

    def variance(self) -> Tensor:
        """Returns the biased variance (C,) in float64."""
        return self._squares / max(1, self.count)


def normalize(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    in_place: bool = False,
) -> Tensor:
    """Returns (x - mean) / √(variance + eps) · weight + bias for each channel; if `in_place`, in float32 in x."""
    if not in_place or x.dtype != torch.float32:  # one pass; a mean far from 0 costs no more than its rounding in x did
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)
    scale = torch.rsqrt(variance + eps)
    scale = scale if weight is None else scale * weight
    x.sub_(mean[:, None, None]).mul_(scale[:, None, None])
    return x if bias is None else x.add_(bias[:, None, None])


class _PerImageBatchNorm(Accelerated):
    """Batch norm that takes the statistics of the images at hand: each image by itself, whatever its batch."""

    @classmethod
    def accepts(cls, module: nn.Module) -> bool:
        return not isinstance(module, nn.BatchNorm2d) or module.running_mean is None


class GroupBatchNorm(_PerImageBatchNorm, nn.BatchNorm2d):
    """Per-image batch norm as a group norm: fastest on a GPU and compiled."""

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x, self.num_features, self.weight, self.bias, self.eps)


class ExportedInstanceNorm(Accelerated, InstanceNorm):
    """Instance normalisation as the operation that other runtimes know."""

    def forward(self, x: Tensor) -> Tensor:
        return F.instance_norm(x, eps=self.eps)


class ExportedBatchNorm(_PerImageBatchNorm, nn.BatchNorm2d):
    """Per-image batch norm as the operation that other runtimes know."""

    def forward(self, x: Tensor) -> Tensor:
        return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)


class ExportedResnet(Accelerated, ResnetGenerator):
    """A residual generator that mixes its result with its input as rows of numbers. OpenVINO would compute images of
    three channels pixel by pixel, with three of the 16 lanes of a vector."""

    def output(self, features: Tensor, x: Tensor) -> Tensor:
        y: Tensor = self.head(features)
        return self.blended(y.flatten(1), x.flatten(1)).view(y.shape)


class ExactInstanceNorm(Accelerated, InstanceNorm):
    """Instance normalisation on a CPU that is exact and fast for large images."""

    def forward(self, x: Tensor) -> Tensor:
        return _exactly_normalized(x, None, None, self.eps)


class ExactBatchNorm(_PerImageBatchNorm, nn.BatchNorm2d):
    """Per-image batch norm on a CPU that is exact and fast for large images."""

    def forward(self, x: Tensor) -> Tensor:
        return _exactly_normalized(x, self.weight, self.bias, self.eps)


def _exactly_normalized(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    large = _LARGE if x.dtype == torch.float32 else _LARGE_16_BITS
    if len(x) > 1 or x.shape[2] * x.shape[3] < large:
        return F.group_norm(x, x.shape[1], weight, bias, eps)
    moments = Moments()
    moments.add(x)
    weight, bias = (None if value is None else value.float() for value in (weight, bias))
    return normalize(x, moments.mean().float(), moments.variance().float(), weight, bias, eps)


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
        return [PlainNoise, ExportedInstanceNorm, ExportedBatchNorm, ExportedResnet]
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
    # only the convolution that ends a network may compute by columns: a next layer of 16 bits refuses its float32
    head = network if isinstance(network, nn.Conv2d) else getattr(network, "head", None)
    if engine != "exported" and device.type == "cpu" and type(head) is nn.Conv2d and ColumnConv2d.accepts(head):
        become(head, PreparedColumnConv2d).prepare()
    return network


def peak_bytes(config: GeneratorConfig, side: int, by_torch: bool = True) -> int:
    """Returns the most bytes that results of operations hold at one time for an image of `side` × `side`, with the
    layers for torch on a CPU or with those for other runtimes."""
    with torch.device("meta"):
        network, picture = for_translation(config.build()), torch.empty(1, config.in_channels, side, side)
        accelerate_inference(network, "eager" if by_torch else "exported", torch.device("cpu"))
    with torch.inference_mode(), _Peak() as peak:
        network(picture)
    return peak.most


@cache
def multiplications(config: GeneratorConfig) -> float:
    """Returns the multiply-adds for each pixel of a square image with at least 256 pixels a side."""
    from torch.utils.flop_counter import FlopCounterMode

    side = max(-(-256 // config.size_multiple) * config.size_multiple, config.minimum_size)
    with torch.device("meta"):
        network, picture = config.build(), torch.empty(1, config.in_channels, side, side)
    with torch.inference_mode(), FlopCounterMode(display=False) as counted:
        for_translation(network)(picture)
    return counted.get_total_flops() / 2 / side**2


class _Peak(TorchDispatchMode):
    """Records the most bytes that results of operations hold at one time."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = 0
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self._alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self._alive = {key: entry for key, entry in self._alive.items() if not entry[0].expired()}
        self.most = max(self.most, sum(size for _, size in self._alive.values()))
        return result
