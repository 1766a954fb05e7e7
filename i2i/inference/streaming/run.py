"""A picture through the layers of a generator, pass by pass, band by band.

Each pass is a chain of layers between two points of the schedule. Its input and its result are rows in a spool.
"""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from i2i.acceleration.inference import Moments
from i2i.acceleration.rows import Queue, RowLayer
from i2i.device import precise
from i2i.images.spool import IN_MEMORY, Spool
from i2i.inference.streaming.layers import Layer, convolution, layers_of, normalisation
from i2i.inference.streaming.schedule import Lane, Pass, open_fork, schedule
from i2i.networks.resnet import ResnetGenerator


class Lanes:
    """Reads and writes rows (1, C, h, W) of the lanes of a spool, `width` being that of the picture."""

    def __init__(self, spool: Spool, width: int, dtype: torch.dtype, device: torch.device) -> None:
        self._spool, self._width, self._dtype, self.device = spool, width, dtype, device

    def read(self, lane: Lane, top: int, bottom: int) -> Tensor:
        data = torch.empty((bottom - top, int(self._width * lane.zoom), lane.channels), dtype=self._dtype)
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


Picture = Callable[[int, int], Tensor]


class Chain:
    """Layers `step.start` to `step.end`; `moments` are the statistics for those that have been measured.

    `picture` gives rows `top` to `bottom` of the picture itself; convolutions are computed in `dtype`.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        step: Pass,
        lanes: Lanes,
        moments: dict[int, Moments],
        picture: Picture,
        dtype: torch.dtype,
    ) -> None:
        self._layers, self._step, self._lanes, self._moments = layers, step, lanes, moments
        self._picture, self._dtype = picture, dtype
        self._queues: dict[int, Queue] = {}
        self._chain = [self._open(i) for i in range(step.start, step.end)]

    def __call__(self, rows: Tensor, last: bool) -> Tensor | None:
        for layer in self._chain:
            result = layer(rows, last)
            if result is None:
                return None
            rows = result
        return rows

    def _open(self, index: int) -> RowLayer:
        layer = self._layers[index]
        if layer.kind == "convolution":
            assert layer.module is not None
            return convolution(layer.module, self._dtype, self._lanes.device)
        if layer.kind == "norm":
            return normalisation(layer, self._moments.get(index), self._lanes.device)
        if layer.kind == "fork":
            return self._fork(index)
        if layer.kind == "add":
            return self._add(index)
        if layer.kind == "mix":
            return _Mix(self._picture, layer.share)
        return _relu if layer.kind == "relu" else _tanh

    def _fork(self, index: int) -> RowLayer:
        target = self._step.target
        if any(layer.kind == "add" for layer in self._layers[index : self._step.end]):
            return _Put(self._queues.setdefault(index, Queue()))
        return _Write(self._lanes, target.around if target is not None else None)

    def _add(self, index: int) -> RowLayer:
        fork, source = open_fork(self._layers, index), self._step.source
        if fork in self._queues:
            return _Take(self._queues[fork])
        assert source is not None and source.around is not None
        return _Read(self._lanes, source.around)


class _Put:
    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def __call__(self, rows: Tensor, last: bool) -> Tensor:
        self._queue.put(rows)
        return rows


class _Take:
    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def __call__(self, rows: Tensor, last: bool) -> Tensor:
        return self._queue.take(rows.shape[2]).float().add_(rows)


class _Write:
    def __init__(self, lanes: Lanes, lane: Lane | None) -> None:
        self._lanes, self._lane, self._next = lanes, lane, 0

    def __call__(self, rows: Tensor, last: bool) -> Tensor:
        if self._lane is not None:
            self._lanes.write(self._lane, self._next, rows)
            self._next += rows.shape[2]
        return rows


class _Read:
    def __init__(self, lanes: Lanes, lane: Lane) -> None:
        self._lanes, self._lane, self._next = lanes, lane, 0

    def __call__(self, rows: Tensor, last: bool) -> Tensor:
        top, self._next = self._next, self._next + rows.shape[2]
        return self._lanes.read(self._lane, top, self._next).add_(rows)


class _Mix:
    def __init__(self, picture: Picture, share: float) -> None:
        self._picture, self._share, self._next = picture, share, 0

    def __call__(self, rows: Tensor, last: bool) -> Tensor:
        top, self._next = self._next, self._next + rows.shape[2]
        return rows.lerp_(self._picture(top, self._next).to(rows), self._share)


def _relu(rows: Tensor, last: bool) -> Tensor:
    return rows.relu_()


def _tanh(rows: Tensor, last: bool) -> Tensor:
    return precise(rows).tanh_()


BAND_BYTES = 1 << 24
"""How large the largest result in the network may be at one time; some copies of it are held."""


class Source(Protocol):
    """A picture whose height and width the network takes, by rows."""

    height: int
    width: int

    def rows(self, top: int, bottom: int) -> Tensor:
        """(1, C, bottom - top, width) float32 in [-1, 1]; any rows, any number of times."""


Sink = Callable[[Tensor], object]


def stream(
    network: ResnetGenerator,
    source: Source,
    sink: Sink,
    *,
    keep: torch.dtype = torch.float32,
    autocast: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    folder: Path | None = None,
    in_memory: int = IN_MEMORY,
    band_bytes: int = BAND_BYTES,
) -> None:
    """The picture of `source` through `network`, the same numbers as if it went through as a whole.

    `sink` gets the result from top to bottom, some rows (1, C, h, width) at a time. The spool between
    passes holds values of the type `keep`: in memory up to `in_memory` bytes, else in a file in `folder`. The
    network must be on `device` and in the mode in which it translates. Raises `OutputError` if there is no room
    for the spool, `OverflowError` for values that half precision does not have.
    """
    layers = layers_of(network)
    plan = schedule(layers, source.height, source.width, keep.itemsize)
    place = torch.device(device)
    with torch.inference_mode(), Spool(plan.spool_bytes, folder, in_memory) as kept:
        lanes = Lanes(kept, source.width, keep, place)
        moments: dict[int, Moments] = {}
        for step in plan.passes:
            bands = _Bands(layers, step, source, lanes, place, band_bytes)
            chain = Chain(layers, step, lanes, moments, source.rows, autocast or torch.float32)
            moments[step.end] = _run(bands, chain, step, lanes, sink if step.end == len(layers) else None)


def spool_bytes(network: ResnetGenerator, height: int, width: int, keep: torch.dtype = torch.float32) -> int:
    """The size of the spool for a picture of that size."""
    return schedule(layers_of(network), height, width, keep.itemsize).spool_bytes


class _Bands:
    """The input of a pass from top to bottom: rows, and whether they are the last."""

    def __init__(
        self, layers: Sequence[Layer], step: Pass, source: Source, lanes: Lanes, device: torch.device, band_bytes: int
    ) -> None:
        self._device = device
        self._source, self._lanes, self._lane = source, lanes, step.source.main if step.source is not None else None
        zoom = Fraction(1) if self._lane is None else self._lane.zoom
        self._height = int(source.height * zoom)
        # as many rows at a time that no result is larger than it may be
        passed = layers[max(0, step.start - 1) : step.end]
        row = max(4 * layer.channels * source.width * layer.zoom**2 / zoom for layer in passed)
        self._rows = max(1, int(4 * zoom), int(band_bytes / row))

    def __iter__(self) -> Iterator[tuple[Tensor, bool]]:
        for top in range(0, self._height, self._rows):
            bottom = min(top + self._rows, self._height)
            yield self._read(top, bottom), bottom == self._height

    def _read(self, top: int, bottom: int) -> Tensor:
        if self._lane is None:
            return self._source.rows(top, bottom).to(self._device)
        return self._lanes.read(self._lane, top, bottom)


def _run(bands: _Bands, chain: Chain, step: Pass, lanes: Lanes, sink: Sink | None) -> Moments:
    """One pass; `sink` gets its rows if they are the result, else they are measured, and kept if it is planned."""
    found, written = Moments(), 0
    for band, last in bands:
        rows = chain(band, last)
        if rows is None:
            continue
        if sink is not None:
            sink(rows.float())
            continue
        found.add(rows)
        if step.target is not None:
            lanes.write(step.target.main, written, rows)
            written += rows.shape[2]
    return found
