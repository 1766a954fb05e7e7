"""Layers that process an image from its top to its bottom, some rows at a time.

A layer receives the next rows (1, C, h, W) and whether they are the last. It returns the rows of its result that are
certain by now, or None, and holds back the rows that later ones depend on. So its memory depends on the width of the
image and on the number of rows in a call, never on the height of the image.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from i2i.acceleration import winograd
from i2i.acceleration.inference import normalize
from i2i.acceleration.training import by_columns, column_kernels, is_thin
from i2i.networks.blocks import PaddingMode

RowLayer = Callable[[Tensor, bool], Tensor | None]


class _Frame:
    """Appends rows to the held ones and pads them at the edges of the image, in values of `dtype`.

    It reuses its memory: new memory for each call would cost more than the copy.
    """

    def __init__(self, width: int, edge: PaddingMode, dtype: torch.dtype) -> None:
        self._width, self._edge, self._dtype = width, edge, dtype
        self._early: list[Tensor] = []
        self._memory: Tensor | None = None
        self._held: int | None = None

    def around(self, rows: Tensor, last: bool) -> Tensor | None:
        """Returns held and new rows with padding, valid until the next call, or None: too few to mirror at the top."""
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
        """Holds the rows of `framed` from `start` on for the next call."""
        held = framed[:, :, start:]
        framed[:, :, : held.shape[2]] = held.clone()
        self._held = held.shape[2]

    def _room(self, height: int, rows: Tensor) -> Tensor:
        """Returns memory for so many rows; the held ones come first."""
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
    """A convolution, in the type of its weight, of the image with `padding` pixels of the kind `edge` around it."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, stride: int, padding: int, edge: PaddingMode, groups: int = 1
    ) -> None:
        self._weight, self._bias = weight.contiguous(memory_format=torch.channels_last), bias
        self._kernel, self._stride, self._groups = weight.shape[-1], stride, groups
        self._columns = (
            column_kernels(weight).contiguous(memory_format=torch.channels_last)
            if is_thin(weight, stride, groups)
            else None
        )
        wide = self._kernel == 3 and stride == groups == 1 and winograd.is_faster(weight)
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
    """A transposed convolution of stride 2, in the type of its weight, that doubles height and width.

    `padding` replicates the edge by so many pixels first; `crop` removes so many rows and columns of the result.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, padding: int, crop: int, groups: int = 1) -> None:
        self._weight, self._bias, self._crop, self._groups = weight, bias, crop, groups
        # columns that the crop removes too many
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
    """A normalisation with known mean and variance (C,), and a weight and a bias or None. It changes float32 rows in
    place."""

    def __init__(self, mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> None:
        self._numbers = mean, variance, weight, bias, eps

    def __call__(self, rows: Tensor, last: bool) -> Tensor:
        return normalize(rows, *self._numbers, in_place=True)


class Queue:
    """Rows on a skip connection: from the fork to the sum."""

    def __init__(self) -> None:
        self._parts: list[Tensor] = []

    def put(self, rows: Tensor) -> None:
        self._parts.append(rows)

    def take(self, count: int) -> Tensor:
        waiting = torch.cat(self._parts, 2)
        self._parts = [waiting[:, :, count:]]
        return waiting[:, :, :count]
