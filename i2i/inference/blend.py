"""A translation blended with the picture that it was made from: how much of it, where, and with which colours.

A pixel of the result depends on the same pixel of both alone, so the rows of a large picture are blended one by one.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import numpy as np

from i2i.errors import ImageError, UsageError
from i2i.images import Picture, Pixels, from_planes, resize_planes, to_planes, with_channels, with_depth
from i2i.images.colours import from_linear, to_linear, with_luminance
from i2i.images.picture import white
from i2i.inference.options import Keep
from i2i.inference.scaling import row_bands, scaled
from i2i.models.info import ModelInfo

Mask = Pixels | Literal["alpha"]
Mixed = Callable[[Pixels, Pixels, Pixels], Pixels]
"""From rows of a picture, those of its translation and its share, in float32, to those of the result."""


@dataclass(frozen=True, eq=False)
class Blend:
    """How a translation is blended with its picture.

    * `strength`: the share of the translation in the result, 0 to 1, in linear light.
    * `mask`: the share for each pixel, multiplied by `strength`. (H, W) uint8, uint16 or float32 in [0, 1], or `alpha`.
    * `keep`: the translation first gets the `luminance` or the `colour` of the picture.

    Where the share is 0, a pixel is the picture's to the bit; where it is 1, without `keep`, the translation's.
    """

    strength: float = 1.0
    mask: Mask | None = None
    keep: Keep | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it takes the translation as it is."""
        return self.strength == 1 and self.mask is None and self.keep is None

    def check(self, info: ModelInfo) -> None:
        """Raises `UsageError` for a model whose results cannot be blended with its pictures."""
        if self.is_whole:
            return
        asked = {"strength": self.strength != 1, "mask": self.mask is not None, "keep": self.keep is not None}
        names = " and ".join(name for name, is_asked in asked.items() if is_asked)
        if info.output_labels:
            raise UsageError(f"{names}: this model makes labels, and a class cannot be blended with a picture")
        if info.input_labels:
            raise UsageError(f"{names}: this model takes labels, which are no picture to blend with")
        if info.input_range != info.output_range:
            raise UsageError(f"{names}: this model gives other units than it takes, which cannot be blended")
        if info.output_range is not None and self.keep is not None:
            raise UsageError(f"keep = {self.keep!r}: this model gives values in units, which are no colours")
        if info.encoding == "lab" and self.keep is not None:
            why = "has no other luminance" if self.keep == "luminance" else "would lose the colours again"
            raise UsageError(f"keep = {self.keep!r}: this model only colours a picture, which so {why}")

    def check_mask(self, size: tuple[int, ...], alpha: Pixels | None = None) -> None:
        """Raises `ImageError` for a mask that has not the height and width of a picture, `size`, and for a picture
        without the alpha that is the mask."""
        self._mask_of(alpha, size, size)

    def of(self, picture: Picture, made: Picture) -> Picture:
        """Returns `made`, the translation of `picture`, blended with it.

        If `made` has another size, picture and mask are scaled to it. Grey with colour gives colour. Raises
        `ImageError` for a mask that has not the size of `picture`, for a picture without the alpha that is the mask,
        and for channels of data that cannot be blended.
        """
        if self.is_whole:
            return made
        size, base = made.pixels.shape[:2], picture
        mask = self._mask_of(picture.alpha, picture.pixels.shape[:2], size)
        if size != picture.pixels.shape[:2]:
            base = _resized(picture, size)
        if self.strength == 0:
            return Picture(base.pixels, base.alpha, extra=base.extra).described_as(picture)
        if made.holds_data or made.units is not None:
            return self._of_data(base, made, mask)
        channels = max(base.pixels.shape[2], made.pixels.shape[2])
        own, new = (with_channels(one.pixels, channels) for one in (base, made))
        alpha = made.alpha
        if alpha is not None:
            shown = np.full_like(alpha, white(alpha)) if base.alpha is None else base.alpha
            alpha = self._by_rows(_numbers, shown[..., None], alpha[..., None], mask)[..., 0]
        return replace(made, pixels=self._by_rows(self._colours, own, new, mask), alpha=alpha)

    def of_planes(self, own: Pixels, made: Pixels) -> Pixels:
        """As `of`, for planes (C, H, W) float32 in [-1, 1] without alpha."""
        if self.is_whole:
            return made
        size = made.shape[1:]
        mask = self._mask_of(None, own.shape[1:], size)
        base = own if own.shape[1:] == size else resize_planes(own, *size)
        if self.strength == 0:
            return base
        channels = max(len(base), len(made))
        before, after = (with_channels(planes.transpose(1, 2, 0), channels) for planes in (base, made))
        unit = self._colours if channels in (1, 3) else _numbers

        def mixed(rows: Pixels, new: Pixels, share: Pixels) -> Pixels:
            return unit((rows + 1) / 2, (new + 1) / 2, share) * 2 - 1

        return self._by_rows(mixed, before, after, mask).transpose(2, 0, 1)

    def _mask_of(self, alpha: Pixels | None, own: tuple[int, ...], size: tuple[int, ...]) -> Pixels | None:
        """The mask of a picture of the height and width `own`, at the height and width `size`."""
        mask = alpha if isinstance(self.mask, str) else self.mask
        if mask is None:
            if self.mask is not None:
                raise ImageError("has no alpha that could be the mask")
            return None
        if mask.shape != own:
            sizes = f"is {own[1]}x{own[0]} pixels, but its mask {mask.shape[1]}x{mask.shape[0]}"
            raise ImageError(f"{sizes}; expected a mask of the same size")
        if mask.shape == size:
            return mask
        return np.clip(resize_planes(with_depth(mask, np.float32)[None], size[0], size[1])[0], 0, 1)

    def _of_data(self, base: Picture, made: Picture, mask: Pixels | None) -> Picture:
        bands = made.band_count
        if self.keep is not None:
            raise ImageError(f"holds {bands} channels of data, not colours; keep = {self.keep!r} needs colours")
        if base.band_count != bands:
            raise ImageError(f"has {base.band_count} channels and its translation {bands}: they cannot be blended")
        found = base.with_pixels(self._by_rows(_numbers, base.channels(bands), made.channels(bands), mask))
        return replace(made, pixels=found.pixels, extra=found.extra)

    def _by_rows(self, mixed: Mixed, base: Pixels, made: Pixels, mask: Pixels | None) -> Pixels:
        """`mixed(base, made, share)` by bands of rows, which bounds the memory; exact where the share is 0 or 1."""
        result = np.empty_like(made)
        for rows in row_bands(*made.shape[:2]):
            share = np.full((1, 1, 1), self.strength, np.float32)
            if mask is not None:
                share = share * with_depth(mask[rows], np.float32)[..., None]
            found = with_depth(mixed(base[rows], made[rows], share), made.dtype.type)
            if self.keep is None:
                found = np.where(share == 1, made[rows], found)
            result[rows] = np.where(share == 0, base[rows], found)
        return result

    def _colours(self, base: Pixels, made: Pixels, share: Pixels) -> Pixels:
        own, new = _light(base), _light(made)
        if self.keep is not None and base.shape[2] == 3:
            new = with_luminance(new, own) if self.keep == "luminance" else with_luminance(own, new)
        elif self.keep == "luminance":
            new = own
        return from_linear(own + share * (new - own))


def as_mask(picture: Picture) -> Pixels:
    """The luminance of a picture on black: (H, W) of its type. Raises `ImageError` for channels of data."""
    return with_channels(picture.composited_on("black").pixels, 1)[..., 0]


def checked_mask(picture: Picture) -> Pixels:
    """As `as_mask`. Raises `ImageError` also for integers 0 and 1 alone, which would hide nearly all."""
    mask = as_mask(picture)
    if mask.dtype != np.float32 and mask.max() == 1:
        raise ImageError(
            f"holds only the values 0 and 1; expected 0 to {np.iinfo(mask.dtype).max}, or an array of bool"
        )
    return mask


def _numbers(base: Pixels, made: Pixels, share: Pixels) -> Pixels:
    own, new = with_depth(base, np.float32), with_depth(made, np.float32)
    return own + share * (new - own)


def _light(pixels: Pixels) -> Pixels:
    if pixels.dtype == np.float32:
        return to_linear(pixels)
    return _table(int(white(pixels)))[pixels]


@cache
def _table(full: int) -> Pixels:
    """Linear light for each value of an integer type."""
    return to_linear((np.arange(full + 1) / full).astype(np.float32))


def _resized(picture: Picture, size: tuple[int, ...]) -> Picture:
    """`picture` at another height and width, as a translator scales it."""
    dtype = picture.pixels.dtype.type
    planes, alpha = scaled(to_planes(picture.channels(picture.band_count)), picture, (size[0], size[1]))
    found = picture.with_pixels(from_planes(planes, dtype))
    found.alpha = None if alpha is None else from_planes(alpha[None], dtype)[..., 0]
    return found
