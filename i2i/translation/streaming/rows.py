"""Layers that take a picture from its top to its bottom, some rows at a time.

Each is called with the next rows (1, C, h, W) and whether they are the last, and returns those rows of its result
that are certain by now, or None. What the rows below will need is held back. So the memory follows from the width
of the picture and from how many rows come at once, never from its height.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from i2i.networks.blocks import by_columns, column_kernels

RowLayer = Callable[[Tensor, bool], Tensor | None]
Edge = Literal["zeros", "reflect", "replicate"]
_LARGE_KERNEL, _FEW_CHANNELS = 5, 4


class _Frame:
    """Puts rows under those that are held, and the edge of the picture around them."""

    def __init__(self, width: int, edge: Edge) -> None:
        self._width, self._edge = width, edge
        self._early: list[Tensor] = []
        self.held: Tensor | None = None

    def around(self, rows: Tensor, last: bool) -> Tensor | None:
        """None as long as there are too few rows for the upper edge to mirror them."""
        p, first = self._width, self.held is None
        if first:
            self._early.append(rows)
            if not last and sum(part.shape[2] for part in self._early) <= p:
                return None
            rows = self._early[0] if len(self._early) == 1 else torch.cat(self._early, 2)
            self._early.clear()
        above = p if self.held is None else self.held.shape[2]
        height = above + rows.shape[2] + (p if last else 0)
        shape = (1, rows.shape[1], height, rows.shape[3] + 2 * p)
        framed = torch.empty(shape, dtype=rows.dtype, device=rows.device, memory_format=torch.channels_last)
        inner = framed.narrow(2, above, rows.shape[2])
        inner.narrow(3, p, rows.shape[3]).copy_(rows)
        self._fill(inner, 3, True, True)
        if self.held is not None:
            framed.narrow(2, 0, above).copy_(self.held)
        self._fill(framed, 2, first, last)
        return framed

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
    """A convolution with `padding` pixels around the picture, which `edge` says what to fill with."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, stride: int, padding: int, edge: Edge, groups: int = 1
    ) -> None:
        self._weight, self._bias = weight.contiguous(memory_format=torch.channels_last), bias
        self._kernel, self._stride, self._groups = weight.shape[-1], stride, groups
        thin = self._kernel >= _LARGE_KERNEL and stride == 1 and len(weight) <= _FEW_CHANNELS
        self._columns = column_kernels(weight).contiguous(memory_format=torch.channels_last) if thin else None
        self._frame = _Frame(padding, edge)

    def __call__(self, rows: Tensor, last: bool) -> Tensor | None:
        framed = self._frame.around(rows, last)
        if framed is None:
            return None
        count = max(0, (framed.shape[2] - self._kernel) // self._stride + 1)
        self._frame.held = framed[:, :, count * self._stride :].clone()
        if count == 0:
            return None
        used = framed[:, :, : (count - 1) * self._stride + self._kernel]
        if self._columns is not None:
            return by_columns(used, self._columns, self._bias)
        return F.conv2d(used, self._weight, self._bias, self._stride, groups=self._groups)


class Doubling:
    """A transposed convolution of stride 2 to double the height and width.

    The picture is replicated by `padding` pixels first; `crop` rows and columns of the result are cut off.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, padding: int, crop: int, groups: int = 1) -> None:
        self._weight, self._bias, self._crop, self._groups = weight, bias, crop, groups
        # columns that the crop takes too many of
        self._more = 2 - 4 * padding + 2 * crop - weight.shape[-1]
        self._frame = _Frame(padding, "replicate")
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
        self._frame.held = framed[:, :, -1:].clone()
        return certain


class Affine:
    """A normalisation whose mean and variance (C,) are known, with its weight and bias if it has any."""

    def __init__(self, mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> None:
        self._mean, self._variance = mean, variance
        self._weight, self._bias, self._eps = weight, bias, eps

    def __call__(self, rows: Tensor, last: bool) -> Tensor:
        return F.batch_norm(rows.float(), self._mean, self._variance, self._weight, self._bias, False, 0.0, self._eps)


class Queue:
    """Rows on a way around other layers: put in where the ways part, taken out where they meet."""

    def __init__(self) -> None:
        self._parts: list[Tensor] = []

    def put(self, rows: Tensor) -> None:
        self._parts.append(rows)

    def take(self, count: int) -> Tensor:
        waiting = torch.cat(self._parts, 2)
        self._parts = [waiting[:, :, count:]]
        return waiting[:, :, :count]
