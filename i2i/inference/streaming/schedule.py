"""The choice of results to keep on the way through the layers, and of those to compute again.

A normalisation by the statistics of the whole picture is a barrier: every row before it must have been computed
once before the first row behind it can be. The layers before a barrier are run again from the last result that
was kept, or the result at the barrier is kept itself, in a spool. Keeping costs the writing and reading of its
bytes, running again costs its multiplications; the cheapest choice is found by dynamic programming.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from i2i.inference.streaming.layers import Layer

# seconds, roughly, on two cores: of a multiplication (with its addition), of a value that a layer gives, and of a
# byte written or read
_SECONDS_A_PRODUCT, _SECONDS_A_VALUE, _SECONDS_A_BYTE = 6e-12, 6e-10, 1.4e-9


@dataclass(frozen=True)
class Lane:
    """One tensor that is kept: its rows (W, C) stand `stride` bytes apart from `start` on."""

    channels: int
    zoom: Fraction
    start: int
    stride: int


@dataclass(frozen=True)
class Cut:
    """The tensors kept at the barrier before layer `index`: its input, and the rows that go around it, if any."""

    index: int
    main: Lane
    around: Lane | None = None


@dataclass(frozen=True)
class Pass:
    """Layers `start` to `end` (exclusive) over the whole picture, to measure for layer `end`, or to the result.

    It reads `source` (None: the picture) and keeps `target` (None: nothing).
    """

    start: int
    end: int
    source: Cut | None
    target: Cut | None


@dataclass(frozen=True)
class Schedule:
    """The passes in their order, and the size of the spool that they need."""

    passes: tuple[Pass, ...]
    spool_bytes: int


def schedule(layers: Sequence[Layer], height: int, width: int, item_bytes: int) -> Schedule:
    """The cheapest way to take a picture of that size through the layers, keeping `item_bytes` a value."""
    barriers = [i for i, layer in enumerate(layers) if layer.measures]
    kept = _cheapest(layers, barriers, item_bytes)
    cuts, total = _placed(layers, kept[1:-1], height, width, item_bytes)
    passes = []
    for start, end in itertools.pairwise(kept):
        source, target = cuts.get(start), cuts.get(end)
        passes += [Pass(start, k, source, None) for k in barriers if start < k < end]
        passes.append(Pass(start, end, source, target))
    return Schedule(tuple(passes), total)


def _cheapest(layers: Sequence[Layer], barriers: Sequence[int], item_bytes: int) -> list[int]:
    """Where something is kept, from 0, the picture itself, to the end."""
    places = [0, *barriers, len(layers)]
    done = [0.0]
    for layer in layers:
        values = layer.channels * float(layer.zoom**2)
        done.append(done[-1] + layer.work * _SECONDS_A_PRODUCT + values * _SECONDS_A_VALUE)
    moved = [sum(_values(layers, i)) * item_bytes * _SECONDS_A_BYTE for i in range(len(layers))] + [0.0]
    moved[0] = 0.0
    best: dict[int, tuple[float, list[int]]] = {0: (0.0, [0])}
    for j, end in enumerate(places[1:], 1):
        if end < len(layers) and layers[end - 1].zoom >= 1:
            continue  # nothing of the full size is kept, whatever it costs
        options = []
        for i, start in enumerate(places[:j]):
            if start not in best:
                continue
            between = places[i + 1 : j + 1]
            again = sum(done[k] - done[start] + moved[start] for k in between)
            cost, path = best[start]
            options.append((cost + again + moved[end], [*path, end]))
        best[end] = min(options)
    return best[len(layers)][1]


def _values(layers: Sequence[Layer], index: int) -> list[float]:
    """Values per pixel of the picture that are alive in front of a layer: its input, and what goes around it."""
    if index == 0:
        return []
    before = [layers[index - 1]]
    if (fork := open_fork(layers, index)) is not None:
        before.append(layers[fork])
    return [layer.channels * float(layer.zoom**2) for layer in before]


def open_fork(layers: Sequence[Layer], index: int) -> int | None:
    """The fork before layer `index` whose end is not before it."""
    found = None
    for i, layer in enumerate(layers[:index]):
        if layer.kind == "fork":
            found = i
        elif layer.kind == "add":
            found = None
    return found


def _placed(
    layers: Sequence[Layer], kept: Sequence[int], height: int, width: int, item_bytes: int
) -> tuple[dict[int, Cut], int]:
    """The cuts and the size of the spool. Each is written over the one before, whose rows have been read by then.

    That holds where a cut begins and ends no further back than the next one, for both are used from the front.
    """
    cuts: dict[int, Cut] = {}
    start, size, total = 0, 0, 0
    for index in reversed(kept):
        alive = [layers[index - 1]]
        if (fork := open_fork(layers, index)) is not None:
            alive.append(layers[fork])
        rows = [int(width * layer.zoom) * layer.channels * item_bytes for layer in alive]
        own = sum(rows) * int(height * alive[0].zoom)
        start = max(start, start + size - own)
        size = own
        total = max(total, start + size)
        lanes = [Lane(layer.channels, layer.zoom, start + sum(rows[:i]), sum(rows)) for i, layer in enumerate(alive)]
        cuts[index] = Cut(index, *lanes)
    return cuts, total
