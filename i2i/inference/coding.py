"""Pictures as the planes that a network takes, and its output as a picture: pixels, labels of classes, or CIE Lab."""

from dataclasses import dataclass, replace

import numpy as np

from i2i.errors import ImageError, InputError
from i2i.images import Picture, Pixels, from_planes, resize_planes, to_planes
from i2i.images.palettes import VOID, Palette, boundaries, holds_indices, labels_of, to_colours
from i2i.images.picture import NODATA, Depth
from i2i.images.units import Units, result_dtype
from i2i.inference.scaling import Enlargement, Size, painted_size, resized, scaled, shrunk
from i2i.models.info import ModelInfo

_BLACK, _WHITE = -1.0, 1.0


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
        planes = own if size is None else self._resized(own, resized(own.shape[-2], own.shape[-1], size), picture)
        shape = self.network_size(*planes.shape[-2:])
        if shape == planes.shape[-2:]:
            return Source(self, planes, planes, picture, size)
        small, alpha = scaled(own, picture, shape)
        return Source(self, planes, small, picture, size, alpha)

    def _resized(self, planes: Pixels, shape: tuple[int, int], picture: Picture | None) -> Pixels:
        """The planes of `picture` at another size; pixels that its alpha hides do not bleed into others."""
        if not self.inputs:
            return scaled(planes, picture, shape)[0]
        import cv2  # here, for the start of every translation would wait for it

        return np.stack([cv2.resize(p, shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT) for p in planes])

    def encode(self, source: Pixels) -> Pixels:
        if self.inputs:
            there = source[:1] == np.arange(len(self.inputs))[:, None, None]
            if self.edges:
                there = np.concatenate([there, boundaries(*source)[None]])
            return np.where(there, _WHITE, _BLACK).astype(np.float32)
        return lightness(source) if self.lab else source

    def decode(self, output: Pixels, source: Pixels) -> Pixels:
        if self.lab:
            return coloured(lightness(source), output)
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


def lightness(planes: Pixels) -> Pixels:
    """(3, H, W) sRGB in [-1, 1] → (1, H, W): CIE L*, 0 to 100 as -1 to 1. (This imports torch.)"""
    import torch

    from i2i.images.colours import split_lab

    return split_lab(torch.from_numpy(planes))[0].numpy()


def coloured(light: Pixels, ab: Pixels) -> Pixels:
    """L*, (1, H, W), with a* and b*, (2, H, W), all in [-1, 1] → sRGB, (3, H, W), clamped to [-1, 1]."""
    import torch

    from i2i.images.colours import join_lab

    return join_lab(torch.from_numpy(light), torch.from_numpy(ab)).numpy()
