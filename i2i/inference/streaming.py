"""Pictures larger than memory through a convolutional generator: the same result as if they had fitted.

The layers run over bands of rows, one pass of the picture after another; a normalisation by the statistics of the
picture takes those of all of it. Each pass is a chain of layers between two points of the schedule. Its input and its
result are rows in a spool, in memory or in a file.
"""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from i2i.acceleration.inference import Moments
from i2i.acceleration.rows import Queue, RowLayer
from i2i.device import precise
from i2i.images import to_pixels, to_tensor
from i2i.images.large import IN_MEMORY, Bands, Spool
from i2i.images.picture import Depth, Pixels
from i2i.inference.scaling import mirrored, padded
from i2i.inference.schedule import Lane, Layer, Pass, convolution, layers_of, normalisation, schedule
from i2i.networks import GeneratorConfig
from i2i.networks.resnet import ResnetConfig, ResnetGenerator

BAND_BYTES = 1 << 24
"""How large the largest result in the network may be at one time; some copies of it are held."""
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


def stream_tensor(network: nn.Module, x: Tensor, **options: Any) -> Tensor:
    """(C, H, W) in [-1, 1] translated, float32 on the CPU. `options` are those of `stream`."""
    out = torch.empty((_of(network).config.out_channels, *x.shape[-2:]))

    def take(top: int, rows: Tensor) -> None:
        out[:, top : top + rows.shape[1]] = rows

    stream(_of(network), lambda top, bottom: x[:, top:bottom], (x.shape[-2], x.shape[-1]), take, **options)
    return out


def stream_bands(network: nn.Module, bands: Bands, sink: RowSink, depth: Depth = np.uint8, **options: Any) -> None:
    """The picture of `bands` through `network`; `sink` gets the result from top to bottom in that depth.

    `options` are those of `stream`; what is kept in a file for an 8-bit result is by default of half precision. Raises
    `ImageError` where the network's channels cannot be had from the picture, else as `stream`.
    """
    inner, size = _of(network), (bands.height, bands.width)

    def rows(top: int, bottom: int) -> Tensor:
        return to_tensor(bands.read(top, bottom).channels(inner.config.in_channels))

    def take(top: int, part: Tensor) -> None:
        sink(top, to_pixels(part, depth))

    if depth == np.uint8 and "keep" not in options:
        large = spool_bytes(inner, *size) > options.get("in_memory", IN_MEMORY)
        options["keep"] = torch.float16 if large else torch.float32
    try:
        stream(inner, rows, size, take, **options)
    except OverflowError:
        stream(inner, rows, size, take, **options | {"keep": torch.float32})


def _of(network: nn.Module) -> ResnetGenerator:
    assert isinstance(network, ResnetGenerator), "only what `streamable` says can be streamed"
    return network


def spool_bytes(network: ResnetGenerator, height: int, width: int, keep: torch.dtype = torch.float32) -> int:
    """The size of the spool for a picture of that size."""
    limits = network.size_multiple, network.minimum_size
    return schedule(layers_of(network), padded(height, *limits), padded(width, *limits), keep.itemsize).spool_bytes


def stream(
    network: ResnetGenerator,
    rows: Callable[[int, int], Tensor],
    size: tuple[int, int],
    sink: Callable[[int, Tensor], object],
    *,
    keep: torch.dtype = torch.float32,
    autocast: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    folder: Path | None = None,
    in_memory: int = IN_MEMORY,
    band_bytes: int = BAND_BYTES,
) -> None:
    """A picture of `size`, height and width, through `network`: the same numbers as if it went through as a whole.

    `rows(top, bottom)` gives its rows (C, bottom - top, width) float32 in [-1, 1], any of them, any number of times.
    `sink` gets the number of the first row and rows (C, h, width) of the result, from top to bottom. The spool between
    passes holds values of the type `keep`: in memory up to `in_memory` bytes, else in a file in `folder`. The
    network must be on `device` and in the mode in which it translates. Raises `OutputError` if there is no room
    for the spool, `OverflowError` for values that half precision does not have.
    """
    layers, picture = layers_of(network), _Framed(network, rows, size)
    plan = schedule(layers, picture.height, picture.width, keep.itemsize)
    with torch.inference_mode(), Spool(plan.spool_bytes, folder, in_memory) as kept:
        lanes = _Lanes(kept, picture.width, keep, torch.device(device))
        moments: dict[int, Moments] = {}
        for step in plan.passes:
            chain = _chain(layers, step, lanes, moments, picture, autocast or torch.float32)
            found, done = Moments(), 0
            for band, last in _bands(layers, step, lanes, picture, band_bytes):
                made: Tensor | None = band
                for layer in chain:
                    made = None if made is None else layer(made, last)
                if made is None:
                    continue
                if step.end == len(layers):
                    picture.crop(done, made.float(), sink)
                else:
                    found.add(made)
                    if step.target is not None:
                        lanes.write(step.target.main, done, made)
                done += made.shape[2]
            moments[step.end] = found


class _Framed:
    """A picture by its rows, mirrored at its edges to a size that the network takes."""

    def __init__(
        self, network: ResnetGenerator, rows: Callable[[int, int], Tensor], size: tuple[int, int] | torch.Size
    ) -> None:
        (down, self._top), (right, self._left) = (
            mirrored(side, network.size_multiple, network.minimum_size) for side in size
        )
        self._rows, self._size = rows, size
        self._down, self._right = torch.from_numpy(down), torch.from_numpy(right)
        self.height, self.width = len(down), len(right)

    def rows(self, top: int, bottom: int) -> Tensor:
        """(1, C, bottom - top, width)."""
        index = self._down[top:bottom]
        first, behind = int(index.min()), int(index.max()) + 1
        band = self._rows(first, behind)
        if behind - first != bottom - top or int(index[0]) != first:
            band = band[:, index - first]
        if self.width != self._size[1]:
            band = band[:, :, self._right]
        return band[None]

    def crop(self, number: int, rows: Tensor, sink: Callable[[int, Tensor], object]) -> None:
        """Gives `sink` those of the rows of a result, (1, C, h, width) from `number` on, that are not of the frame."""
        first, behind = max(number, self._top), min(number + rows.shape[2], self._top + self._size[0])
        if first < behind:
            columns = slice(self._left, self._left + self._size[1])
            sink(first - self._top, rows[0, :, first - number : behind - number, columns])


class _Lanes:
    """Reads and writes rows (1, C, h, W) of the lanes of a spool, `width` being that of the picture."""

    def __init__(self, spool: Spool, width: int, dtype: torch.dtype, device: torch.device) -> None:
        self._spool, self.width, self._dtype, self.device = spool, width, dtype, device

    def read(self, lane: Lane, top: int, bottom: int) -> Tensor:
        data = torch.empty((bottom - top, int(self.width * lane.zoom), lane.channels), dtype=self._dtype)
        for start, part in self._parts(lane, top, data):
            self._spool.read(start, part)
        # a copy on the way to another device or type, which is what is computed with
        return data.permute(2, 0, 1)[None].to(self.device).to(torch.float32)

    def write(self, lane: Lane, top: int, rows: Tensor) -> None:
        data = rows[0].permute(1, 2, 0).to("cpu", self._dtype).contiguous()
        # the least and the greatest: a look at each value took a third of the time of the convolutions in bf16
        if self._dtype == torch.float16 and not all(map(torch.isfinite, torch.aminmax(data))):
            raise OverflowError("a value is too large for half precision")
        for start, part in self._parts(lane, top, data):
            self._spool.write(start, part)

    def _parts(self, lane: Lane, top: int, data: Tensor) -> list[tuple[int, memoryview]]:
        """Where the rows of `data` stand in the spool: together, or each for itself."""
        content = data.view(torch.uint8).numpy().reshape(-1).data
        size = len(content) // len(data)
        first = lane.start + top * lane.stride
        if lane.stride == size:
            return [(first, content)]
        return [(first + i * lane.stride, content[i * size : (i + 1) * size]) for i in range(len(data))]


def _bands(
    layers: Sequence[Layer], step: Pass, lanes: _Lanes, picture: _Framed, band_bytes: int
) -> Iterator[tuple[Tensor, bool]]:
    """The input of a pass from top to bottom: rows, and whether they are the last."""
    lane = None if step.source is None else step.source.main
    zoom = Fraction(1) if lane is None else lane.zoom
    height = int(picture.height * zoom)
    # as many rows at a time that no result is larger than it may be
    passed = layers[max(0, step.start - 1) : step.end]
    row = max(4 * layer.channels * picture.width * layer.zoom**2 / zoom for layer in passed)
    count = max(1, int(4 * zoom), int(band_bytes / row))
    for top in range(0, height, count):
        bottom = min(top + count, height)
        rows = picture.rows(top, bottom).to(lanes.device) if lane is None else lanes.read(lane, top, bottom)
        yield rows, bottom == height


def _chain(
    layers: Sequence[Layer],
    step: Pass,
    lanes: _Lanes,
    moments: dict[int, Moments],
    picture: _Framed,
    dtype: torch.dtype,
) -> list[RowLayer]:
    """Layers `step.start` to `step.end`; `moments` are the statistics for those that have been measured.

    Convolutions are computed in `dtype`.
    """
    queues: dict[int | None, Queue] = {}

    def opened(index: int) -> RowLayer:
        layer = layers[index]
        if layer.kind == "convolution":
            assert layer.module is not None
            return convolution(layer.module, dtype, lanes.device)
        if layer.kind == "norm":
            return normalisation(layer, moments.get(index), lanes.device)
        if layer.kind == "fork":
            if any(later.kind == "add" for later in layers[index : step.end]):
                queue = queues[index] = Queue()
                return _numbered(lambda rows, top, bottom: queue.put(rows))
            if step.target is None or (around := step.target.around) is None:
                return lambda rows, last: rows
            return _numbered(lambda rows, top, bottom: lanes.write(around, top, rows))
        if layer.kind == "add":
            if queued := queues.get(layer.around):
                return lambda rows, last: queued.take(rows.shape[2]).float().add_(rows)
            assert step.source is not None and step.source.around is not None
            kept = step.source.around
            return _numbered(lambda rows, top, bottom: lanes.read(kept, top, bottom).add_(rows))
        if layer.kind == "mix":
            return _numbered(lambda rows, top, bottom: rows.lerp_(picture.rows(top, bottom).to(rows), layer.share))
        return (lambda rows, last: rows.relu_()) if layer.kind == "relu" else lambda rows, last: precise(rows).tanh_()

    return [opened(index) for index in range(step.start, step.end)]


def _numbered(act: Callable[[Tensor, int, int], Tensor | None]) -> RowLayer:
    """A layer that gives `act` the rows, the number of the first, and that of the first one behind them.

    The rows go on unchanged if it returns None.
    """
    done = 0

    def layer(rows: Tensor, last: bool) -> Tensor:
        nonlocal done
        top, done = done, done + rows.shape[2]
        made = act(rows, top, done)
        return rows if made is None else made

    return layer
