"""3×3 and 4×4 convolutions of stride 1 with a quarter of the multiplications: Winograd's (1980) minimal filtering, as
Lavin & Gray (2016, arXiv:1509.09308) use it.

F(4×4, 3×3) computes 4×4 pixels of the result at once from a tile of 6×6 pixels of the image. With a tile d and a kernel
g of one channel each, the result is Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A (their Eq. 8); over channels ⊙ becomes 36 products of
matrices. F(3×3, 4×4) uses the same points of interpolation, and so tiles of the same size.

These points are 0, ±2/3, ±3/2 and infinity. Lavin & Gray take 0, ±1, ±2 and infinity, with twice the error. With 256
channels in float32 our error is 1.0 to 1.5·10⁻⁶ deviations of the result, depending on how a library sums up products;
the error of torch's direct convolution is 0.2 to 1.2·10⁻⁶, depending on the processor (docs/design.md).
"""

import math
import threading
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from i2i.networks.blocks import PaddingMode

POINTS = (0.0, 2 / 3, -2 / 3, 3 / 2, -3 / 2)
SIDE = len(POINTS) + 1
"""Height and width of a tile of the image; infinity is a point too."""
FEWEST_CHANNELS, MOST_CHANNELS = {3: 64, 4: 128}, 512
"""Numbers of channels, by kernel size, between which it was measured to be faster. Above them the transformed kernels
would take much memory too."""
CHUNK_TILES = 256
"""About so many tiles pass the three steps together, so that intermediate results stay in the cache."""
MOST_KEPT = 1 << 24
"""At most so many numbers (64 MB) stay in memory for the next convolution in each of a few buffers."""


class Transforms(NamedTuple):
    """The matrices of F(m×m, r×r), m = 7 - r: `data` is Bᵀ (6×6), `kernel` is G ⊗ G (36×r²), which maps the
    concatenated rows of a kernel g to those of G g Gᵀ, and `result` is Aᵀ (m×6)."""

    data: Tensor
    kernel: Tensor
    result: Tensor


def tile_size(size: int) -> int:
    """Returns height and width of the part of the result that one tile gives, for kernels of that size."""
    return SIDE + 1 - size


@cache
def transforms(size: int, dtype: torch.dtype = torch.float32) -> Transforms:
    """Returns the matrices for kernels of that size, by Lagrange interpolation in `POINTS` and at infinity (Blahut
    2010, Sec. 5.2), computed in float64."""
    with torch.device("cpu"):
        data, kernel, result = _exact_transforms(size)
    return Transforms(data.to(dtype), kernel.to(dtype), result.to(dtype))


def _exact_transforms(size: int) -> Transforms:
    points, tile = torch.tensor(POINTS, dtype=torch.float64), tile_size(size)
    shapes = (SIDE, SIDE), (SIDE, size), (tile, SIDE)
    data, kernel, result = (torch.zeros(shape, dtype=torch.float64) for shape in shapes)
    for i, point in enumerate(points):
        others = torch.cat((points[:i], points[i + 1 :]))
        data[i, : SIDE - 1] = _polynomial(others)
        kernel[i] = point ** torch.arange(size) / (point - others).prod()
        result[:, i] = point ** torch.arange(tile)
    data[-1], kernel[-1, -1], result[-1, -1] = _polynomial(points), 1, 1
    return Transforms(data, torch.kron(kernel, kernel), result)


def _polynomial(roots: Tensor) -> Tensor:
    """Returns the coefficients of the product of (x - root), the constant one first."""
    made = torch.ones(1, dtype=roots.dtype)
    for root in roots:
        made = F.pad(made, (1, 0)) - root * F.pad(made, (0, 1))
    return made


def has_measured_channels(weight: Tensor) -> bool:
    """Returns whether kernels (K, C, r, r) have as many channels as were measured to be faster (docs/lab-book.md)."""
    return min(weight.shape[:2]) >= FEWEST_CHANNELS[weight.shape[-1]] and max(weight.shape[:2]) <= MOST_CHANNELS


def is_faster(weight: Tensor) -> bool:
    """Returns whether a convolution by kernels (K, C, r, r) is faster this way, where it is possible."""
    return has_measured_channels(weight) and weight.dtype == torch.float32 and weight.device.type == "cpu"


def transformed(weight: Tensor) -> Tensor:
    """Returns G g Gᵀ of kernels (K, C, r, r) as (36, K, C), in their type."""
    size = weight.shape[-1]
    kernel = transforms(size, weight.dtype).kernel
    return (kernel @ weight.reshape(-1, size**2).T).view(SIDE**2, *weight.shape[:2])


def correlate(
    x: Tensor, kernels: Tensor, size: int, bias: Tensor | None = None, padding: PaddingMode | None = None
) -> Tensor:
    """(N, C, H + r - 1, W + r - 1) → (N, K, H, W), channels last: the convolution of x, without padding, by kernels r×r
    from their `transformed` form (36, K, C); `size` is r. Everything is float32 on a CPU.

    With `padding`, x is (N, C, H, W), r is 3 and each edge gets one more pixel of that kind.
    """
    if padding is not None and size != 3:
        raise ValueError(f"kernels of {size}×{size}: padding is for those of 3×3")
    tile, overlap = tile_size(size), size - 1
    padded = _whole_tiles(x, size) if padding is None else _framed(x, padding)
    height, width = (side - (overlap if padding is None else 0) for side in x.shape[2:])
    rows, columns = ((side - overlap) // tile for side in padded.shape[1:3])
    shape = len(x), kernels.shape[1], tile * rows, tile * columns
    y = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    tiled = y.permute(0, 2, 3, 1).view(len(x), rows, tile, columns, tile, -1)
    buffers, (data, _, result) = _Buffers(), transforms(size)
    for part, n, top, bottom in _chunks(padded, size):
        of_points = buffers.product(
            buffers.both(data, buffers.copy(part), SIDE**2, -1, part.shape[-1]), kernels.transpose(1, 2)
        )
        target = tiled[n, top:bottom].permute(1, 3, 0, 2, 4)
        target.copy_(buffers.both(result, of_points, *target.shape))
    if bias is not None:
        y += bias[:, None, None]
    if (height, width) == shape[2:]:
        return y  # not a view, so that the next layer may work in place
    return y[:, :, :height, :width].clone(memory_format=torch.channels_last)


def gradients(
    x: Tensor, weight: Tensor, gradient: Tensor, wanted: Sequence[bool] = (True, True)
) -> tuple[Tensor | None, Tensor | None]:
    """Returns the gradients of `correlate` with respect to its input, of at least one image, and to the untransformed
    kernels, if `wanted`: the adjoints of its steps in reverse order."""
    size = weight.shape[-1]
    padded, kernels = _whole_tiles(x, size), transformed(weight)
    of_x = torch.zeros_like(padded) if wanted[0] else None
    of_kernels = torch.empty_like(kernels) if wanted[1] else None
    bands = _whole_bands(gradient, padded, size)
    buffers, around, (data, kernel, result) = _Buffers(), _Buffers("around"), transforms(size)
    for number, (part, n, top, bottom) in enumerate(_chunks(padded, size)):
        tiles = buffers.copy(bands[n, top:bottom].permute(1, 3, 0, 2, 4))
        of_points = buffers.both(result.T, tiles, SIDE**2, -1, len(weight))
        if of_kernels is not None:
            of_data = around.both(data, around.copy(part), SIDE**2, -1, part.shape[-1])
            of_kernels.baddbmm_(of_points.transpose(1, 2), of_data, beta=0 if number == 0 else 1)
        if of_x is None:
            continue
        target = _tiles(of_x[n], top, bottom, size)
        of_tiles = buffers.both(data.T, buffers.product(of_points, kernels), *target.shape)
        for i in range(SIDE):
            for j in range(SIDE):  # tiles overlap; the pixels at one place of all tiles do not
                target[i, j] += of_tiles[i, j]
    if of_x is not None:
        of_x = of_x[:, : x.shape[2], : x.shape[3]].contiguous().permute(0, 3, 1, 2)
    if of_kernels is None:
        return of_x, None
    return of_x, (of_kernels.flatten(1).T @ kernel).view(weight.shape)


class Context(Protocol):
    """The context of an autograd function: what its forward pass keeps for the backward pass."""

    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]

    def save_for_backward(self, *tensors: Tensor) -> None: ...


class Correlation(torch.autograd.Function):
    """`correlate` by untransformed kernels with its `gradients`; it keeps only its arguments for them."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return correlate(x, transformed(weight), weight.shape[-1])

    @staticmethod
    def backward(ctx: Context, *gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return gradients(x, weight, gradient[0], ctx.needs_input_grad)
        # a gradient penalty differentiates these gradients again
        of_x, of_weight, _ = torch.ops.aten.convolution_backward(
            gradient[0], x, weight, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [*ctx.needs_input_grad, False]
        )
        return of_x, of_weight


class _Buffers:
    """Memory for the results of steps. Each thread keeps its own; new memory each time would take longer.

    There are two buffers. A step reads the result of the last step from one and writes to the other.
    """

    _kept = threading.local()

    def __init__(self, name: str = "") -> None:
        self._names = [f"{name} first", f"{name} second"]

    def copy(self, x: Tensor) -> Tensor:
        return self.take(x.shape).copy_(x)

    def product(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns the products of two batches of matrices, one for each point."""
        return torch.bmm(x, y, out=self.take((len(x), x.shape[1], y.shape[2])))

    def both(self, matrix: Tensor, x: Tensor, *shape: int) -> Tensor:
        """Returns the matrix (m×k) applied to both axes of x, k×k points of any further shape, in `shape`."""
        m, k = matrix.shape
        points = x.view(k, k, -1)
        for _ in range(2):
            lines = points.transpose(0, 1)
            points = torch.bmm(matrix.expand(len(lines), m, k), lines, out=self.take((len(lines), m, lines.shape[2])))
        return points.view(shape)

    def take(self, shape: Sequence[int]) -> Tensor:
        self._names.reverse()
        count, name = math.prod(shape), self._names[0]
        kept = getattr(self._kept, name, None)
        if kept is None or len(kept) < count:
            kept = None
            self._kept.__dict__.pop(name, None)  # frees it before the larger one exists
            with torch.inference_mode(False):  # so that every mode can write to it
                kept = torch.empty(count, dtype=torch.float32, device="cpu")
            if count <= MOST_KEPT:
                setattr(self._kept, name, kept)
        return kept[:count].view(shape)


def _whole_tiles(x: Tensor, size: int) -> Tensor:
    """(N, C, H + r - 1, W + r - 1) → (N, H' + r - 1, W' + r - 1, C), padded with zeros so that H' and W' are multiples
    of the tile size."""
    more = [-(side - size + 1) % tile_size(size) for side in x.shape[2:]]
    if any(more):
        x = F.pad(x, (0, more[1], 0, more[0]))
    return x.permute(0, 2, 3, 1).contiguous()


def _framed(x: Tensor, padding: PaddingMode) -> Tensor:
    """(N, C, H, W) → (N, H' + 2, W' + 2, C) as `_whole_tiles` for 3×3 kernels, with one pixel of padding; in a kept
    buffer."""
    height, width = x.shape[2:]
    tile = tile_size(3)
    if padding == "reflect" and min(height, width) < 2:
        raise ValueError(f"{height}×{width}: there is nothing to reflect")
    framed = _Buffers("frame").take([len(x), *(side + -side % tile + 2 for side in (height, width)), x.shape[1]])
    framed[:, 1 : height + 1, 1 : width + 1] = x.permute(0, 2, 3, 1)
    for dim, side in ((1, height), (2, width)):
        framed.narrow(dim, side + 2, framed.shape[dim] - side - 2).zero_()
        for edge, inside in ((0, 1), (side + 1, -1)):
            outside = framed.select(dim, edge)
            if padding == "zeros":
                outside.zero_()
            else:
                outside.copy_(framed.select(dim, edge + inside * (2 if padding == "reflect" else 1)))
    return framed


def _whole_bands(gradient: Tensor, padded: Tensor, size: int) -> Tensor:
    """(N, K, H, W) → (N, rows, m, columns, m, K), padded with zeros."""
    tile = tile_size(size)
    height, width = (side - size + 1 for side in padded.shape[1:3])
    more = (0, width - gradient.shape[3], 0, height - gradient.shape[2])
    if any(more):
        gradient = F.pad(gradient, more)
    last = gradient.permute(0, 2, 3, 1).contiguous()
    return last.view(len(last), height // tile, tile, width // tile, tile, -1)


def _chunks(padded: Tensor, size: int) -> Iterator[tuple[Tensor, int, int, int]]:
    """Yields tiles (6, 6, rows, columns, C), the index of their image, and their first and last row of tiles."""
    rows, columns = ((side - size + 1) // tile_size(size) for side in padded.shape[1:3])
    parts = max(1, round(rows * columns / CHUNK_TILES))
    together = -(-rows // parts)
    for n, picture in enumerate(padded):
        for top in range(0, rows, together):
            bottom = min(top + together, rows)
            yield _tiles(picture, top, bottom, size), n, top, bottom


def _tiles(picture: Tensor, top: int, bottom: int, size: int) -> Tensor:
    """Returns a view (6, 6, rows, columns, C) of the overlapping tiles of (H' + r - 1, W' + r - 1, C)."""
    tile = tile_size(size)
    row, pixel, one = picture.stride()
    columns = (picture.shape[1] - size + 1) // tile
    shape = (SIDE, SIDE, bottom - top, columns, picture.shape[2])
    start = picture.storage_offset() + tile * top * row
    return picture.as_strided(shape, (row, pixel, tile * row, tile * pixel, one), start)
