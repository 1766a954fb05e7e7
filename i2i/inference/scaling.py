"""The way of a picture to a network and back: at which size, and as which planes, pixels, labels of classes or CIE Lab.

A network that takes only some sizes sees a picture mirrored at its edges, and the result is cropped. A painter's
strokes are so many pixels wide: on a large picture nobody sees them. So a large picture is painted at the size at which
strokes look right, and enlarged with the details of the picture itself.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from PIL import Image

from i2i.errors import ImageError, InputError
from i2i.images import Limits, Picture, Pixels, from_planes, resize_planes, scaled_as_seen, to_planes
from i2i.images.palettes import VOID, Palette, boundaries, class_planes, holds_indices, labels_of, to_colours
from i2i.images.picture import NODATA, Depth
from i2i.images.units import Units, result_dtype
from i2i.models.info import ModelInfo

if TYPE_CHECKING:
    from torch import Tensor

Planes = TypeVar("Planes", Pixels, "Tensor")
"""Planes (N, C, H, W), as an array or as a tensor."""
Indices = np.ndarray[Any, np.dtype[np.int64]]


def padded(length: int, multiple: int, least: int) -> int:
    """The next multiple from `length` and `least` on."""
    return -(-max(length, least) // multiple) * multiple


def mirrored(length: int, multiple: int, least: int) -> tuple[Indices, int]:
    """Indices that pad `length` pixels to a multiple, at least `least`, mirrored as often as need be; and how many
    of them come before the first pixel."""
    whole = padded(length, multiple, least)
    before = (whole - length) // 2
    period = max(1, 2 * (length - 1))
    index = (np.arange(whole) - before) % period
    return np.minimum(index, period - index) if length > 1 else np.zeros_like(index), before


def fitted(batch: Planes, multiple: int, least: int, run: Callable[[Planes], Planes]) -> Planes:
    """`run(batch)`, arrays or tensors (N, C, H, W), with the batch padded for it and the result cropped back."""
    height, width = batch.shape[-2:]
    rows, top = mirrored(height, multiple, least)
    columns, left = mirrored(width, multiple, least)
    if len(rows) != height or len(columns) != width:
        around: Any = (..., rows[:, None], columns)  # torch takes arrays too, but does not say so
        batch = batch[around]
    return run(batch)[..., top : top + height, left : left + width]


RADIUS = 2
"""Each window of the guided filter has 2 · RADIUS + 1 pixels a side."""
EPSILON = 0.04
"""Variance, of values in [-1, 1], below which the picture's details are texture and stay away: a deviation of 25 levels
of 255."""
_MOST_GUIDES = 4
_BAND_PIXELS = 1 << 19
_SMALL_WEIGHT = 1e-3


Size = int | tuple[int, int]
"""The shorter side of a picture in pixels, or its height and width."""


def resized(height: int, width: int, size: Size) -> tuple[int, int]:
    """Height and width of a picture that is scaled to `size`. Raises `ImageError` if that is too large."""
    target = _by_side(height, width, size) if isinstance(size, int) else size
    Limits().check_size(*target)
    return target


def painted_size(height: int, width: int, paint_size: int) -> tuple[int, int]:
    """Height and width at which a picture is painted: the shorter side has at most `paint_size`, if that is not 0."""
    return _by_side(height, width, paint_size) if 0 < paint_size < min(height, width) else (height, width)


def _by_side(height: int, width: int, size: int) -> tuple[int, int]:
    scale = size / min(height, width)
    return max(size, round(height * scale)), max(size, round(width * scale))


def scaled(
    planes: Pixels, picture: Picture | None, shape: tuple[int, int], rows: tuple[float, float] | None = None
) -> tuple[Pixels, Pixels | None]:
    """The planes (C, H, W) of `picture` that a network takes, at the height and width `shape`, as they are seen; and
    alpha (h, w) where the picture has it and the network does not take it. `rows` as in `resize_planes`."""
    if picture is None or picture.alpha is None or picture.takes_alpha(len(planes)):
        alpha = picture is not None and picture.alpha is not None
        return resize_planes(planes, *shape, alpha=alpha, rows=rows), None
    both = np.concatenate([planes, to_planes(picture.alpha[..., None])])
    seen = resize_planes(both, *shape, alpha=True, rows=rows)
    return seen[:-1], seen[-1]


def shrunk(picture: Picture, channels: int, shape: tuple[int, int]) -> Pixels:
    """`scaled` for a picture without alpha that is larger than `shape`, to the bit, without all its planes at once.

    Pillow scales across, then down; so rows can be scaled across a band at a time.
    """

    def narrow(rows: slice) -> Pixels:
        planes = to_planes(picture.read(rows.start, rows.stop).channels(channels))
        how = Image.Resampling.BICUBIC
        return np.stack([np.asarray(_image(plane).resize((shape[1], len(plane)), how)) for plane in planes])

    bands = [narrow(rows) for rows in row_bands(picture.height, picture.width)]
    return resize_planes(np.concatenate(bands, axis=1), *shape)


def row_bands(height: int, width: int) -> Iterator[slice]:
    """The rows of a picture, some at a time."""
    step = max(1, _BAND_PIXELS // width)
    return (slice(top, min(top + step, height)) for top in range(0, height, step))


class Enlargement:
    """A painting (D, h, w) of `small` (C, h, w), at the `size`, height and width, of the picture that `small` shows.

    Upsampled alone a painting is blurred. So it gets the details of the picture, what its own upsampling lacks, as the
    painting has taken up its edges:

        q = p↑ + A↑ (I - I↓↑),    A = (Σ + ε U)⁻¹ cov(I, p)

    A is the linear map of the guided filter (He, Sun, Tang 2013, eq. 19) in the windows around each pixel of `small`,
    averaged over them and upsampled (He, Sun 2015, "Fast Guided Filter"). Their filter is A↑ I + b↑: it loses all of p
    that is no linear map of I, and so the strokes. Where the picture varies by less than ε, A is small, and its texture
    stays away.

    All planes are float32 in [-1, 1]. `alpha` (h, w) says how much is seen of each pixel of `small`: hidden colours
    then have no part in what is beside them. The guide of more than four channels is their mean.
    """

    def __init__(self, painted: Pixels, small: Pixels, size: tuple[int, ...], alpha: Pixels | None = None) -> None:
        guide = _guide(small)
        self._size, self._alpha, self._channels = (size[0], size[1]), alpha, len(painted)
        self._planes = np.concatenate([painted, guide])
        self._maps = _linear_maps(guide, painted, 1.0 if alpha is None else (alpha + 1) / 2 + _SMALL_WEIGHT)

    def rows(self, source: Pixels, top: int) -> Pixels:
        """Those rows of the result, (D, n, width), where `source` (C, n, width) are the picture's from row `top` on."""
        rows = slice(top, top + source.shape[1])
        planes = self._enlarged(rows)
        result, blurred = planes[: self._channels], planes[self._channels :]
        maps = _rows(self._maps, self._size, rows, Image.Resampling.BILINEAR)
        for i, detail in enumerate(_guide(source) - blurred):
            result += detail * maps[i * self._channels : (i + 1) * self._channels]
        return np.clip(result, -1, 1, out=result)

    def whole(self, source: Pixels) -> Pixels:
        """The result (D, height, width); `source` (C, height, width) is the picture."""
        result = np.empty((self._channels, *self._size), np.float32)
        for rows in row_bands(*self._size):
            result[:, rows] = self.rows(source[:, rows], rows.start)
        return result

    def pixels(self, source: Picture, channels: int, depth: Depth) -> Pixels:
        """`whole` for a picture, as pixels (height, width, D) of that depth, without all its planes at once."""
        result = np.empty((*self._size, self._channels), depth)
        for rows in row_bands(*self._size):
            planes = to_planes(source.read(rows.start, rows.stop).channels(channels))
            result[rows] = from_planes(self.rows(planes, rows.start), depth)
        return result

    def _enlarged(self, rows: slice) -> Pixels:
        def bicubic(planes: Pixels) -> Pixels:
            return _rows(planes, self._size, rows, Image.Resampling.BICUBIC)

        if self._alpha is None:
            return bicubic(self._planes)
        pixels = (np.concatenate([self._planes, self._alpha[None]]).transpose(1, 2, 0) + 1) / 2
        seen = scaled_as_seen(pixels, lambda part: bicubic(part.transpose(2, 0, 1)).transpose(1, 2, 0))
        return seen.transpose(2, 0, 1)[:-1] * 2 - 1


def _guide(planes: Pixels) -> Pixels:
    return planes if len(planes) <= _MOST_GUIDES else planes.mean(axis=0, keepdims=True)


def _rows(planes: Pixels, size: tuple[int, int], rows: slice, how: Image.Resampling) -> Pixels:
    """Those rows of planes (N, h, w) that are enlarged to `size`: (N, n, width)."""
    scale = planes.shape[1] / size[0]
    top, bottom = rows.start * scale, rows.stop * scale
    # the kernels reach two pixels to each side
    first, behind = max(0, math.floor(top) - 2), min(planes.shape[1], math.ceil(bottom) + 2)
    wide = [_image(plane[first:behind]).resize((size[1], behind - first), how) for plane in planes]
    # the resized unit matrix holds the weights: one product for all planes is 4 times as fast
    unit, box = _image(np.eye(behind - first, dtype=np.float32)), (0, top - first, behind - first, bottom - first)
    weights = unit.resize((behind - first, rows.stop - rows.start), how, box)
    return np.asarray(weights) @ np.stack([np.asarray(band) for band in wide])


def _image(plane: Pixels) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(plane))


def _linear_maps(guide: Pixels, painted: Pixels, weight: Pixels | float) -> Pixels:
    """A of `Enlargement`, (C · D, h, w), of planes (C, h, w) and (D, h, w); pixels count by their `weight`."""
    import cv2  # here, for the start of every translation would wait for it

    def means(planes: Pixels) -> Pixels:
        side = 2 * RADIUS + 1
        return np.stack([cv2.blur(plane, (side, side), borderType=cv2.BORDER_REFLECT) for plane in planes])

    share = means(np.broadcast_to(np.float32(weight), guide.shape[1:])[None])

    def averages(planes: Pixels) -> Pixels:
        return means(planes * np.float32(weight)) / share

    def covariances(others: Pixels) -> Pixels:
        """(h, w, C, N) of the guide with `others` (N, h, w)."""
        products = averages((guide[:, None] * others).reshape(-1, *guide.shape[1:]))
        apart = averages(guide)[:, None] * averages(others)
        return (products.reshape(apart.shape) - apart).transpose(2, 3, 0, 1)

    regular = covariances(guide) + np.float32(EPSILON) * np.eye(len(guide), dtype=np.float32)
    maps = np.linalg.solve(regular, covariances(painted)).transpose(2, 3, 0, 1)
    return averages(maps.reshape(-1, *guide.shape[1:]))


class Coding:
    """The way to a network and back for pictures as planes, (C, H, W) float32 in [-1, 1].

    `source(picture, size)` holds the pixels that we keep, possibly resized; its `input` is the network's, and
    `result(output)` turns the network's output back into a picture. A picture whose shorter side is longer than
    `paint_size` goes through the network at that size; 0: at its own.
    """

    def __init__(self, info: ModelInfo, in_channels: int, paint_size: int) -> None:
        self.inputs, self.outputs, self.lab = info.input_palette(), info.output_palette(), info.encoding == "lab"
        self.plain, self.edges, self.output_range = info.plain, info.instance_edges, info.output_range
        self.picture_channels = 3 if self.inputs or self.lab else in_channels
        self.paint_size = paint_size

    def network_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width at which a picture of that size goes through the network."""
        return painted_size(height, width, self.paint_size)

    def source(self, picture: Picture, size: Size | None) -> "Source":
        """Raises `ImageError` if the picture lacks the channels that the network takes."""
        own = picture.height, picture.width
        if self.plain and size is None and picture.alpha is None and (shape := self.network_size(*own)) != own:
            return Source(self, None, shrunk(picture, self.picture_channels, shape), picture)
        if self.inputs:
            planes = _indices(picture, self.inputs, picture.alpha if self.edges else None)
        else:
            planes = to_planes(picture.channels(self.picture_channels))
        return self._sized(planes, size, picture)

    def source_of_planes(self, planes: Pixels, size: Size | None) -> "Source":
        """As `source`, for a picture that consists of `picture_channels` planes already."""
        return self._sized(_indices(Picture(from_planes(planes)), self.inputs) if self.inputs else planes, size, None)

    def _sized(self, own: Pixels, size: Size | None, picture: Picture | None) -> "Source":
        planes = own
        if size is not None:
            shape = resized(own.shape[1], own.shape[2], size)
            planes = _nearest(own, shape) if self.inputs else scaled(own, picture, shape)[0]
        shape = self.network_size(planes.shape[1], planes.shape[2])
        if shape == planes.shape[1:]:
            return Source(self, planes, planes, picture, size)
        small, alpha = scaled(own, picture, shape)
        return Source(self, planes, small, picture, size, alpha)

    def encode(self, source: Pixels) -> Pixels:
        """The network's input; for colorization, L* from 0 to 100 as -1 to 1. (That imports torch.)"""
        if self.inputs:
            planes = np.stack([source[0], boundaries(*source)]) if self.edges else source[:1]
            return class_planes(planes, len(self.inputs))
        return lightness(source) if self.lab else source

    def decode(self, output: Pixels, source: Pixels) -> Pixels:
        """The planes of a picture. (For colorization this imports torch.)"""
        if self.lab:
            import torch

            from i2i.images.colours import join_lab

            return join_lab(torch.from_numpy(lightness(source)), torch.from_numpy(output)).numpy()
        if self.outputs:
            classes = output.argmax(axis=0).astype(np.uint8)
            return to_planes(classes[..., None] if self.outputs.indexed else to_colours(classes, self.outputs))
        return output

    def unlabelled(self, picture: Picture) -> float:
        """Returns the share of pixels whose colour is not in the palette; 0 for networks without labels."""
        if not self.inputs or holds_indices(picture, self.inputs):
            return 0.0
        return float((labels_of(picture, self.inputs) == VOID).mean())

    def depth(self, picture: Picture) -> Depth:
        """Returns the dtype of the result: 8 bits for labels, float32 for values in units, else that of the picture."""
        if self.outputs:
            return np.uint8
        if self.output_range is not None:
            return np.float32
        stored = picture.pixels.dtype if picture.units is None else picture.units.dtype
        return stored.type if stored in (np.uint8, np.uint16) else np.float32

    def described(self, pixels: Pixels, picture: Picture, size: Size | None) -> Picture:
        """Returns the pixels of a result with the alpha of `picture`, scaled to `size`, and all that its file says."""
        in_units = self.output_range is not None
        result = Picture(pixels) if in_units and not picture.holds_data else picture.with_pixels(pixels)
        described = result.described_as(picture)
        if self.outputs:  # labels: neither the profile nor the camera's data are about them
            lost = described.unread[len(picture.unread) :]
            kept = replace(result, format=picture.format, resolution=picture.resolution)
            if described.missing is not None:
                kept.pixels[described.missing] = VOID if self.outputs.indexed else 0
                described.geo = {tag: value for tag, value in described.geo.items() if tag != NODATA}
            return replace(kept, geo=described.geo, unread=lost)
        if self.output_range is None:
            described.units = None
        else:
            stored = picture.pixels.dtype if picture.units is None else picture.units.dtype
            described.units = Units(self.output_range, result_dtype(stored, self.output_range))
            described.icc = described.colour = None
        if result.alpha is None and picture.alpha is not None and not self.edges:
            alpha = picture.alpha
            if size is not None:
                planes = resize_planes(to_planes(alpha[..., None]), *pixels.shape[:2])
                alpha = from_planes(planes, self.depth(picture))[..., 0]
            described.alpha = alpha
        if self.lab and picture.pixels.shape[2] == 1:  # the profile of the file is for grey, and the result is sRGB
            described.icc = described.colour = None
        return described


@dataclass(frozen=True, eq=False)
class Source:
    """A picture on its way: its `planes`, the perhaps `small` ones that go through the network, and their alpha.

    Without `planes`, which take four times the memory of a picture, they are made a band of rows at a time.
    """

    coding: Coding
    planes: Pixels | None
    small: Pixels
    picture: Picture | None = None
    size: Size | None = None
    alpha: Pixels | None = None

    @property
    def input(self) -> Pixels:
        """The network's input, without the axis of a batch."""
        return self.coding.encode(self.small)

    def decoded(self, output: Pixels) -> Pixels:
        """The network's output as planes of a picture, at the size of `planes`."""
        assert self.planes is not None
        if self.small is not self.planes:
            output = Enlargement(output, self.small, self.planes.shape[-2:], self.alpha).whole(self.planes)
        return self.coding.decode(output, self.planes)

    def result(self, output: Pixels) -> Picture:
        """The network's output as a picture, with what the file of `picture` says and in its depth."""
        coding, picture = self.coding, self.picture
        assert picture is not None
        depth = coding.depth(picture)
        if self.planes is None:
            enlargement = Enlargement(output, self.small, (picture.height, picture.width))
            pixels = enlargement.pixels(picture, coding.picture_channels, depth)
        else:
            pixels = from_planes(self.decoded(output), depth)
        return coding.described(pixels, picture, self.size)


def _indices(picture: Picture, palette: Palette, instances: Pixels | None = None) -> Pixels:
    """Returns class indices, and instances, as planes."""
    try:
        classes = labels_of(picture, palette)
    except InputError as error:
        raise ImageError(str(error)) from None
    return np.stack([classes] if instances is None else [classes, instances]).astype(np.float32)


def _nearest(planes: Pixels, shape: tuple[int, int]) -> Pixels:
    import cv2  # here, for the start of every translation would wait for it

    return np.stack([cv2.resize(p, shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT) for p in planes])


def lightness(planes: Pixels) -> Pixels:
    """(3, H, W) sRGB in [-1, 1] → (1, H, W): CIE L*, 0 to 100 as -1 to 1. (This imports torch.)"""
    import torch

    from i2i.images.colours import split_lab

    return split_lab(torch.from_numpy(planes))[0].numpy()
