"""Mean and variance of channels, gathered as the rows come, as exact as if the whole were at hand.

Layers that take a picture from its top to its bottom, some rows at a time.

Each is called with the next rows (1, C, h, W) and whether they are the last, and returns those rows of its result
that are certain by now, or None. What the rows below will need is held back. So the memory follows from the width
of the picture and from how many rows come at once, never from its height.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from i2i.networks import winograd
from i2i.networks.convolutions import by_columns, column_kernels

_CHUNK_VALUES = 1 << 20  # so many stay in a processor's cache between the two looks at them


class Moments:
    """Count, mean and sum of squared deviations of each channel, in float64.

    Each chunk is centred on its own mean in float32, then merged (Chan, Golub & LeVeque 1983), so that nothing
    cancels where the mean is much larger than the deviation.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean = self._squares = torch.zeros(1, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Takes in (1, C, H, W)."""
        values = rows.permute(0, 2, 3, 1).reshape(-1, rows.shape[1])
        for chunk in values.split(max(1, _CHUNK_VALUES // values.shape[1])):
            self._merge(chunk.float())

    def _merge(self, chunk: Tensor) -> None:
        mean = chunk.sum(0) / len(chunk)
        centred = chunk - mean
        # what rounding left in the mean
        rest = centred.sum(0).double() / len(chunk)
        squares = centred.square_().sum(0).double() - rest.square() * len(chunk)
        delta = mean.double() + rest - self._mean.to(mean.device)
        total = self.count + len(chunk)
        self._mean = self._mean.to(mean.device) + delta * (len(chunk) / total)
        between = delta.square() * (self.count * len(chunk) / total)
        self._squares = self._squares.to(mean.device) + squares + between
        self.count = total

    def mean(self) -> Tensor:
        """(C,) float64."""
        return self._mean

    def variance(self) -> Tensor:
        """(C,) float64, divided by the count, as a normalisation takes it."""
        return self._squares / max(1, self.count)


RowLayer = Callable[[Tensor, bool], Tensor | None]
Edge = Literal["zeros", "reflect", "replicate"]
_LARGE_KERNEL, _FEW_CHANNELS = 5, 4


class _Frame:
    """Puts rows under those that are held, and the edge of the picture around them; all in values of `dtype`.

    Its memory is the same for all rows: had anew each time, it costs more than what is copied into it.
    """

    def __init__(self, width: int, edge: Edge, dtype: torch.dtype) -> None:
        self._width, self._edge, self._dtype = width, edge, dtype
        self._early: list[Tensor] = []
        self._memory: Tensor | None = None
        self._held: int | None = None

    def around(self, rows: Tensor, last: bool) -> Tensor | None:
        """What holds until the next call; None as long as there are too few rows for the upper edge to mirror them."""
        p, first = self._width, self._held is None
        if first:
            self._early.append(rows)
            if not last and sum(part.shape[2] for part in self._early) <= p:
                return None
            rows = self._early[0] if len(self._early) == 1 else torch.cat(self._early, 2)
            self._early.clear()
        above = p if self._held is None else self._held
        framed = self._room(above + rows.shape[2] + (p if last else 0), rows)
        inner = framed.narrow(2, above, rows.shape[2])
        inner.narrow(3, p, rows.shape[3]).copy_(rows)
        self._fill(inner, 3, True, True)
        self._fill(framed, 2, first, last)
        return framed

    def hold(self, framed: Tensor, start: int) -> None:
        """Keep the rows of `framed` from `start` on, for the rows that come next."""
        held = framed[:, :, start:]
        framed[:, :, : held.shape[2]] = held.clone()
        self._held = held.shape[2]

    def _room(self, height: int, rows: Tensor) -> Tensor:
        """So many rows, of which the first are those that are held."""
        if self._memory is None or self._memory.shape[2] < height:
            shape = (1, rows.shape[1], height + self._width, rows.shape[3] + 2 * self._width)
            memory = torch.empty(shape, dtype=self._dtype, device=rows.device, memory_format=torch.channels_last)
            if self._memory is not None and self._held:
                memory[:, :, : self._held] = self._memory[:, :, : self._held]
            self._memory = memory
        return self._memory[:, :, :height]

    def _fill(self, x: Tensor, dim: int, start: bool, end: bool) -> None:
        p, size = self._width, x.shape[dim]
        if p == 0:
            return
        for wanted, place, mirrored, nearest in (
            (start, 0, p + 1, p),
            (end, size - p, size - 2 * p - 1, size - p - 1),
        ):
            if not wanted:
                continue
            outside = x.narrow(dim, place, p)
            if self._edge == "zeros":
                outside.zero_()
            elif self._edge == "reflect":
                outside.copy_(x.narrow(dim, mirrored, p).flip(dim))
            else:
                outside.copy_(x.narrow(dim, nearest, 1).expand_as(outside))


class Convolution:
    """A convolution with `padding` pixels around the picture, which `edge` says what to fill with.

    It is computed in the type of its weight.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, stride: int, padding: int, edge: Edge, groups: int = 1
    ) -> None:
        self._weight, self._bias = weight.contiguous(memory_format=torch.channels_last), bias
        self._kernel, self._stride, self._groups = weight.shape[-1], stride, groups
        thin = self._kernel >= _LARGE_KERNEL and stride == groups == 1 and len(weight) <= _FEW_CHANNELS
        self._columns = column_kernels(weight).contiguous(memory_format=torch.channels_last) if thin else None
        wide = self._kernel == 3 and stride == groups == 1 and winograd.pays(weight)
        self._transformed = winograd.transformed(weight) if wide else None
        self._frame = _Frame(padding, edge, weight.dtype)

    def __call__(self, rows: Tensor, last: bool) -> Tensor | None:
        framed = self._frame.around(rows, last)
        if framed is None:
            return None
        count = max(0, (framed.shape[2] - self._kernel) // self._stride + 1)
        made = self._of(framed[:, :, : (count - 1) * self._stride + self._kernel]) if count else None
        self._frame.hold(framed, count * self._stride)
        return made

    def _of(self, framed: Tensor) -> Tensor:
        if self._columns is not None:
            return by_columns(framed, self._columns, self._bias)
        if self._transformed is not None:
            return winograd.correlate(framed, self._transformed, self._kernel, self._bias)
        return F.conv2d(framed, self._weight, self._bias, self._stride, groups=self._groups)


class Doubling:
    """A transposed convolution of stride 2 to double the height and width.

    The picture is replicated by `padding` pixels first; `crop` rows and columns of the result are cut off. It is
    computed in the type of its weight.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, padding: int, crop: int, groups: int = 1) -> None:
        self._weight, self._bias, self._crop, self._groups = weight, bias, crop, groups
        # columns that the crop takes too many of
        self._more = 2 - 4 * padding + 2 * crop - weight.shape[-1]
        self._frame = _Frame(padding, "replicate", weight.dtype)
        self._padding, self._rows, self._next = padding, 0, crop

    def __call__(self, rows: Tensor, last: bool) -> Tensor | None:
        framed = self._frame.around(rows, last)
        self._rows += rows.shape[2]
        if framed is None:
            return None
        above = self._padding + self._rows - (framed.shape[2] - (self._padding if last else 0))
        end = self._crop + 2 * self._rows if last else 2 * (self._padding + self._rows)
        doubled = F.conv_transpose2d(
            framed, self._weight, self._bias, 2, (0, self._crop), (0, self._more), groups=self._groups
        )
        certain = doubled[:, :, self._next - 2 * above : end - 2 * above]
        self._next = end
        self._frame.hold(framed, framed.shape[2] - 1)
        return certain


class Affine:
    """A normalisation whose mean and variance (C,) are known, with its weight and bias if it has any.

    Rows in float32 are changed in place.
    """

    def __init__(self, mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> None:
        self._mean, self._variance = mean, variance
        self._weight, self._bias, self._eps = weight, bias, eps
        scale = torch.rsqrt(variance + eps)
        self._scale = (scale if weight is None else scale * weight)[:, None, None]

    def __call__(self, rows: Tensor, last: bool) -> Tensor:
        if rows.dtype != torch.float32:  # to be rounded once
            return F.batch_norm(rows, self._mean, self._variance, self._weight, self._bias, False, 0.0, self._eps)
        rows.sub_(self._mean[:, None, None]).mul_(self._scale)
        return rows if self._bias is None else rows.add_(self._bias[:, None, None])


class Queue:
    """Rows on a way around other layers: put in where the ways part, taken out, to keep, where they meet."""

    def __init__(self) -> None:
        self._parts: list[Tensor] = []

    def put(self, rows: Tensor) -> None:
        self._parts.append(rows)

    def take(self, count: int) -> Tensor:
        waiting = torch.cat(self._parts, 2)
        self._parts = [waiting[:, :, count:]]
        return waiting[:, :, :count]
