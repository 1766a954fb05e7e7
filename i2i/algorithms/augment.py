"""Differentiable augmentation of what a discriminator sees, for small data sets: Zhao, Liu, Lin, Zhu, Han,
"Differentiable Augmentation for Data-Efficient GAN Training", NeurIPS 2020 (arXiv:2006.10738).

Real and generated images go through the same random transformation T before D sees them: D(T(x)) and
D(T(G(z))), Sec. 3.2, in the discriminator's turn and in the generator's, whose gradients come back through T. So the
discriminator cannot learn the few real images by heart, and the generator does not learn to paint T. Gradient
penalties are taken where the discriminator sees them: at the transformed images.

Drawn per picture from torch's global generator on the CPU, so a step seeded alike plays alike on any device.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from i2i.config import nearest
from i2i.device import precise
from i2i.errors import UsageError

COLOURS = ("brightness", "saturation", "contrast")  # together `color`
OPERATIONS = ("color", *COLOURS, "translation", "cutout")
Place = tuple[int, int]
_UNCHANGED = (0.0, 1.0, 1.0)  # what each of `COLOURS` is where it changes nothing


class DiffAugment:
    """Some of `OPERATIONS`, named in a text with commas, always in that order; `color` is all of `COLOURS`. An empty
    text: nothing is done, nothing is drawn. Raises `UsageError` for an unknown name."""

    def __init__(self, names: str = "") -> None:
        self.operations = parse(names)

    def __call__(self, images: Tensor, condition: Tensor | None = None) -> Tensor:
        """(N, C, H, W) in [-1, 1] → the same shape, each picture changed in its own way; colours may leave [-1, 1].

        With a `condition` (N, K, H, W), (N, K + C, H, W): the condition before the images, moved and cut as they
        are, so that the pair still fits, but in its own colours. Those may be codes, as in a label map; and as they
        are the same beside a real and a generated image, they give neither away.
        """
        colours = COLOURS if "color" in self.operations else [name for name in COLOURS if name in self.operations]
        if colours:
            drawn = zip(COLOURS, draw_colours(len(images)), _UNCHANGED, strict=True)
            factors = [value if name in colours else torch.full_like(value, same) for name, value, same in drawn]
            images = recolour(precise(images), *factors)
        if condition is not None:
            images = torch.cat([condition, images], dim=1)
        height, width = images.shape[-2:]
        if "translation" in self.operations:
            images = translate(images, draw_shifts(len(images), height, width))
        if "cutout" in self.operations:
            images = cut_out(images, draw_corners(len(images), height, width))
        return images


def parse(names: str) -> tuple[str, ...]:
    """`cutout, color` → the operations named, in the order of `OPERATIONS`; none of an empty text.

    Raises `UsageError` for an unknown name.
    """
    found = [name.strip() for name in names.split(",")] if names.strip() else []
    for name in found:
        if name not in OPERATIONS:
            known = ", ".join(OPERATIONS)
            raise UsageError(f"unknown augmentation {name!r}.{nearest(name, OPERATIONS)} Known: {known}.")
    return tuple(name for name in OPERATIONS if name in found)


def checked_names(names: str) -> str:
    """`names`, if all are known. Raises `UsageError`."""
    parse(names)
    return names


def draw_colours(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Brightness in [-0.5, 0.5), saturation in [0, 2), contrast in [0.5, 1.5), (N,) each."""
    brightness, saturation, contrast = torch.rand(3, count)
    return brightness - 0.5, saturation * 2, contrast + 0.5


def recolour(images: Tensor, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
    """Add `brightness`; then scale by `saturation` what differs from a pixel's mean over its channels; then by
    `contrast` what differs from a picture's mean.

    kornia adds the brightness. Its saturation (about luma, not the mean) and contrast clamp to [0, 1], which
    would take the gradient of what leaves that range.
    """
    from kornia.enhance import adjust_brightness

    images = adjust_brightness(images, _like(brightness, images), clip_output=False)
    images = torch.lerp(images.mean(dim=1, keepdim=True), images, _like(saturation, images))
    return torch.lerp(images.mean(dim=(1, 2, 3), keepdim=True), images, _like(contrast, images))


def draw_shifts(count: int, height: int, width: int) -> list[Place]:
    """(down, right) in whole pixels for each picture, each way up to an eighth of its size."""
    return list(zip(*(_integers(-reach, reach, count) for reach in map(_eighth, (height, width))), strict=True))


def translate(images: Tensor, shifts: Sequence[Place]) -> Tensor:
    """Each picture moved by its shift; zeros, which is grey, come in.

    Cut from a padded copy, not sampled as kornia does: exact, and with a deterministic gradient on a GPU.
    """
    height, width = images.shape[-2:]
    down, right = (max(map(abs, way)) for way in zip(*shifts, strict=True))
    padded = F.pad(images, (right, right, down, down))
    corners = [(down - y, right - x) for y, x in shifts]
    return torch.cat([padded[i : i + 1, :, y : y + height, x : x + width] for i, (y, x) in enumerate(corners)])


def draw_corners(count: int, height: int, width: int) -> list[Place]:
    """(top, left) for each picture of a box of half its height and width, whose middle is anywhere in the picture."""
    sides = ((size, _half(size)) for size in (height, width))
    return list(zip(*(_integers(-(box // 2), size - (box + 1) // 2, count) for size, box in sides), strict=True))


def cut_out(images: Tensor, corners: Sequence[Place]) -> Tensor:
    """Zeros, which is grey, in the part of each picture's box that lies in the picture.

    kornia's random erasing keeps the box inside, so that the rim would be seen more often than the middle.
    """
    height, width = images.shape[-2:]
    mask = images.new_ones(len(images), 1, height, width)
    for i, (top, left) in enumerate(corners):
        mask[i, :, max(top, 0) : top + _half(height), max(left, 0) : left + _half(width)] = 0
    return images * mask


def _integers(least: int, most: int, count: int) -> list[int]:
    return torch.randint(least, most + 1, (count,)).tolist()


def _eighth(size: int) -> int:
    return (size + 4) // 8


def _half(size: int) -> int:
    return (size + 1) // 2


def _like(factors: Tensor, images: Tensor) -> Tensor:
    """A factor per picture, (N, 1, 1, 1), where the images are; nobody waits for the copy."""
    return factors.to(images, non_blocking=True)[:, None, None, None]
