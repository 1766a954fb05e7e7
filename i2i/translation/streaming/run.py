"""A picture through the layers of a generator, pass by pass, band by band."""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from i2i.networks.resnet import ResnetGenerator
from i2i.spool import IN_MEMORY, spool
from i2i.translation.streaming.chain import Chain
from i2i.translation.streaming.lanes import Lanes
from i2i.translation.streaming.layers import Layer, layers_of
from i2i.translation.streaming.moments import Moments
from i2i.translation.streaming.schedule import Pass, schedule

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

    `sink` gets the result from top to bottom, some rows (1, C, h, width) at a time. What waits between passes
    is kept in a spool with `keep` a value: in memory up to `in_memory` bytes, else in a file in `folder`. The
    network must be on `device` and in the mode in which it translates. Raises `OutputError` if there is no room
    for the spool, `OverflowError` for values that half precision does not have.
    """
    layers = layers_of(network)
    plan = schedule(layers, source.height, source.width, keep.itemsize)
    place = torch.device(device)
    with torch.inference_mode(), spool(plan.spool_bytes, folder, in_memory) as kept:
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
    """What a pass reads, from top to bottom: rows, and whether they are the last."""

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
