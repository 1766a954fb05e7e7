"""The layers of one pass, ready for its rows."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from i2i.device import precise
from i2i.translation.streaming.lanes import Lanes
from i2i.translation.streaming.layers import Layer, convolution, normalisation
from i2i.translation.streaming.moments import Moments
from i2i.translation.streaming.rows import Queue, RowLayer
from i2i.translation.streaming.schedule import Lane, Pass, open_fork

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
            return normalisation(layer, self._moments.get(index))
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
