"""Pictures and tensors of any size through a generator by bands: padded as the network needs it, cropped back.

`Streamer` decides what is too large for memory and sends it that way.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from i2i.errors import ImageError
from i2i.images import Picture, to_pixels, to_tensor
from i2i.images.large import Bands
from i2i.images.picture import Pixels
from i2i.images.spool import IN_MEMORY
from i2i.inference.memory import too_much
from i2i.inference.scaling import mirrored
from i2i.inference.streaming.run import spool_bytes, stream
from i2i.networks import GeneratorConfig
from i2i.networks.resnet import ResnetConfig, ResnetGenerator

RowSink = Callable[[int, Pixels], object]
"""Takes the first row's number and rows (h, W, C) of a result."""


def streamable(config: GeneratorConfig, dropout: bool = False) -> str | None:
    """None if such a network can be streamed, else why not; `dropout` says whether its noise is on."""
    if not isinstance(config, ResnetConfig):
        what = {"unet": "a U-Net", "coarse_to_fine": "a coarse-to-fine generator"}.get(config.kind, "this network")
        return f"{what} takes a picture only as a whole"
    if dropout and config.dropout:
        return "with the noise of dropout a picture is taken only as a whole"
    return None


def stream_picture(network: nn.Module, picture: Picture, **options: Any) -> Picture:
    """`picture` translated; depth, alpha and all that its file says are kept. `options` are those of `stream_bands`."""
    height, width = picture.pixels.shape[:2]
    channels = _of(network).config.out_channels
    pixels = np.empty((height, width, channels), picture.pixels.dtype)

    def take(top: int, rows: Pixels) -> None:
        pixels[top : top + len(rows)] = rows

    stream_bands(network, picture, take, pixels.dtype.type, **options)
    result = picture.with_pixels(pixels)
    if result.alpha is None:
        result.alpha = picture.alpha
    return result.described_as(picture)


def stream_tensor(network: nn.Module, x: Tensor, **options: Any) -> Tensor:
    """(C, H, W) in [-1, 1] translated, float32 on the CPU. `options` are those of `stream_bands`."""
    out = torch.empty((_of(network).config.out_channels, *x.shape[-2:]))

    def take(top: int, rows: Tensor) -> None:
        out[:, top : top + rows.shape[1]] = rows

    _cropped(_of(network), _Framed(lambda top, bottom: x[:, top:bottom], x.shape[-2:], network), take, **options)
    return out


def stream_bands(network: nn.Module, bands: Bands, sink: RowSink, depth: Any = np.uint8, **options: Any) -> None:
    """The picture of `bands` through `network`; `sink` gets the result from top to bottom in that depth.

    `options` are `autocast`, `device`, `folder`, `in_memory`, `band_bytes` and `keep` of `stream`; what is kept in a
    file for an 8-bit result is by default of half precision. Raises `ImageError` where the network's channels
    cannot be had from the picture, else as `stream`.
    """
    inner = _of(network)

    def rows(top: int, bottom: int) -> Tensor:
        return to_tensor(bands.read(top, bottom).channels(inner.config.in_channels))

    def take(top: int, part: Tensor) -> None:
        sink(top, to_pixels(part, depth))

    source = _Framed(rows, (bands.height, bands.width), network)
    if depth == np.uint8 and "keep" not in options:
        large = spool_bytes(inner, source.height, source.width) > options.get("in_memory", IN_MEMORY)
        options["keep"] = torch.float16 if large else torch.float32
    try:
        _cropped(inner, source, take, **options)
    except OverflowError:
        _cropped(inner, source, take, **options | {"keep": torch.float32})


class _Framed:
    """Rows (C, h, W) of a picture of `size`, mirrored at its edges to a size that the network takes."""

    def __init__(self, rows: Callable[[int, int], Tensor], size: tuple[int, int] | torch.Size, network: Any) -> None:
        self.size, self._rows = (size[0], size[1]), rows
        limits = network.size_multiple, network.minimum_size
        self._down, self.top = _indices(size[0], *limits)
        self._right, self.left = _indices(size[1], *limits)
        self.height, self.width = len(self._down), len(self._right)

    def rows(self, top: int, bottom: int) -> Tensor:
        index = self._down[top:bottom]
        first, behind = int(index.min()), int(index.max()) + 1
        band = self._rows(first, behind)
        if behind - first != bottom - top or int(index[0]) != first:
            band = band[:, index - first]
        if self.width != self.size[1]:
            band = band[:, :, self._right]
        return band[None]


def _indices(length: int, multiple: int, least: int) -> tuple[Tensor, int]:
    index, before = mirrored(length, multiple, least)
    return torch.from_numpy(index), before


def _cropped(network: ResnetGenerator, source: _Framed, sink: Callable[[int, Tensor], object], **options: Any) -> None:
    height, width = source.size
    done = 0

    def take(rows: Tensor) -> None:
        nonlocal done
        first, behind = max(done, source.top), min(done + rows.shape[2], source.top + height)
        if first < behind:
            sink(first - source.top, rows[0, :, first - done : behind - done, source.left : source.left + width])
        done += rows.shape[2]

    stream(network, source, take, **options)


def _of(network: nn.Module) -> ResnetGenerator:
    assert isinstance(network, ResnetGenerator), "only what `streamable` says can be streamed"
    return network


@dataclass(frozen=True)
class Streamer:
    """A network in the mode in which it translates, on `device`; `dropout`: its noise is on.

    `autocast` is the reduced type of its arithmetic, if any.
    """

    network: nn.Module
    config: GeneratorConfig
    dropout: bool = False
    device: torch.device | str = "cpu"
    autocast: torch.dtype | None = None

    def picture(self, picture: Picture) -> Picture:
        """`picture` translated; depth, alpha, colour profile and EXIF kept.

        Raises `ImageError` for a network that takes pictures only as a whole; `SpoolError` if there is no room for
        the spool.
        """
        self._check(*picture.pixels.shape[:2])
        return stream_picture(self.network, picture, **self._options)

    def array(self, planes: Pixels) -> Pixels:
        """(C, H, W) float32 in [-1, 1] translated. Raises as `picture`."""
        self._check(*planes.shape[-2:])
        return stream_tensor(self.network, torch.from_numpy(planes), **self._options).numpy()

    def bands(self, bands: Bands, sink: RowSink, depth: Any) -> None:
        """The picture of `bands` translated, to `sink` by rows of that depth. Raises as `picture`."""
        self._check(bands.height, bands.width)
        stream_bands(self.network, bands, sink, depth, **self._options)

    @property
    def _options(self) -> dict[str, Any]:
        return {"device": self.device, "autocast": self.autocast}

    def _check(self, height: int, width: int) -> None:
        if reason := streamable(self.config, self.dropout):
            raise ImageError(too_much(self.config, height, width, reason, _free(torch.device(self.device))))


def _free(device: torch.device) -> int | None:
    """The bytes of a GPU that this process can have, None elsewhere."""
    if device.type != "cuda":
        return None
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept
