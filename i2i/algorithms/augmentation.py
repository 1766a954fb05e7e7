"""Augmentation of every image that a discriminator sees, in any turn: DiffAugment or ADA, then instance noise.

Real and generated images go through the same random transformation T before D sees them, D(T(x)) and D(T(G(z))), in the
discriminator's turn and in the generator's, whose gradients come back through T. So the discriminator cannot learn a
few real images by heart, and the generator does not learn to paint T. Gradient penalties are taken at the transformed
images.

* DiffAugment: Zhao, Liu, Lin, Zhu, Han, "Differentiable Augmentation for Data-Efficient GAN Training", NeurIPS 2020
  (arXiv:2006.10738), Sec. 3.2.
* ADA: Karras, Aittala, Hellsten, Laine, Lehtinen, Aila, "Training Generative Adversarial Networks with Limited Data",
  NeurIPS 2020 (arXiv:2006.06676).
* Instance noise: Sønderby, Caballero, Theis, Shi, Huszár, "Amortised MAP Inference for Image Super-resolution", ICLR
  2017 (arXiv:1610.04490), Sec. 3.3; Arjovsky, Bottou, "Towards Principled Methods for Training Generative Adversarial
  Networks", ICLR 2017 (arXiv:1701.04862), Sec. 3. Gaussian noise on real and generated images alike, so that no
  discriminator is sure which is which; its standard deviation falls linearly to zero.

Everything is drawn for each picture from torch's global generator on the CPU, so a step seeded alike plays alike on any
device.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from i2i.device import precise
from i2i.errors import UsageError, nearest
from i2i.losses.adversarial import Logits, scales

COLOURS = ("brightness", "saturation", "contrast")  # together `color`
OPERATIONS = ("color", *COLOURS, "translation", "cutout")
Place = tuple[int, int]
PICTURES = 256  # that ADA sees before p moves: the paper's four batches of 64
_UNCHANGED = (0.0, 1.0, 1.0)  # the values at which `COLOURS` change nothing


class DiffAugment:
    """Some of `OPERATIONS`, named in a text with commas, always in that order; `color` is all of `COLOURS`. An empty
    text: nothing is done, nothing is drawn. Raises `UsageError` for an unknown name."""

    def __init__(self, names: str = "") -> None:
        found = [name.strip() for name in names.split(",")] if names.strip() else []
        for name in found:
            if name not in OPERATIONS:
                known = ", ".join(OPERATIONS)
                raise UsageError(f"unknown augmentation {name!r}.{nearest(name, OPERATIONS)} Known: {known}.")
        self.operations = tuple(name for name in OPERATIONS if name in found)

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


def checked_names(names: str) -> str:
    """`names`, if all are known. Raises `UsageError`."""
    DiffAugment(names)
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

    factors = (brightness, saturation, contrast)
    brightness, saturation, contrast = (_per_picture(factor.to(images.dtype), images) for factor in factors)
    images = adjust_brightness(images, brightness, clip_output=False)
    images = torch.lerp(images.mean(dim=1, keepdim=True), images, saturation)
    return torch.lerp(images.mean(dim=(1, 2, 3), keepdim=True), images, contrast)


def draw_shifts(count: int, height: int, width: int) -> list[Place]:
    """(down, right) in whole pixels for each picture, each way up to an eighth of its size."""
    return list(zip(*(_integers(-reach, reach, count) for reach in ((height + 4) // 8, (width + 4) // 8)), strict=True))


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


def _per_picture(values: Tensor, images: Tensor) -> Tensor:
    """(N,) → (N, 1, 1, 1), where the images are; nobody waits for the copy."""
    return values.to(images.device, non_blocking=True)[:, None, None, None]


def _integers(least: int, most: int, count: int) -> list[int]:
    return torch.randint(least, most + 1, (count,)).tolist()


def _half(size: int) -> int:
    return (size + 1) // 2


class ADA:
    """Each operation changes each picture with probability p, drawn for each by itself.

    p rises while the mean sign of the logits of real images, r_t = E[sign(D(x))], is above `target`, and falls while it
    is below: r_t says how sure the discriminator is of its training pictures (Sec. 3.1). p takes `pictures` pictures
    from 0 to 1. `decision_boundary` is the logit of sign 0. All discriminators of an algorithm share one p, which is
    decided on the device, where nobody waits for it.

    The paper's operations (App. B) here: pixel blitting, which is mirroring, quarter turns (half turns of what is not
    square) and shifts by up to an eighth in whole pixels; of the colour transforms brightness, contrast and saturation,
    as one, with the strengths of DiffAugment. Not here: general geometric transforms, luma flip, hue, filters, noise
    and cutout.

    `adapted`, (3,): p; the sum of signs since p moved last; of how many pictures. It belongs to the training state.
    """

    def __init__(self, target: float, pictures: int, decision_boundary: float = 0.0) -> None:
        self.target, self.pictures, self.decision_boundary = target, pictures, decision_boundary
        self.adapted = torch.zeros(3)
        self._step: int | None = None

    def __call__(self, images: Tensor, step: int, condition: Tensor | None = None) -> Tensor:
        """(N, C, H, W) in [-1, 1] → the same shape; with a `condition` as `DiffAugment` has it. p is the same for all
        of a step."""
        self.adapted = self.adapted.to(images.device)
        if step != self._step:
            self._adapt()
            self._step = step
        images = precise(images)
        images = self._sometimes(images, recolour(images, *draw_colours(len(images))))
        if condition is not None:
            images = torch.cat([condition, images], dim=1)
        images = self._sometimes(images, images.flip(3), torch.rand(len(images)) < 0.5)
        images = self._turned(images)
        return self._sometimes(images, translate(images, draw_shifts(len(images), *images.shape[-2:])))

    def _turned(self, images: Tensor) -> Tensor:
        square = images.shape[2] == images.shape[3]
        turns = torch.randint(4, (len(images),)) if square else 2 * torch.randint(2, (len(images),))
        turned = images
        for count in (1, 2, 3) if square else (2,):
            turned = torch.where(_per_picture(turns == count, images), images.rot90(count, (2, 3)), turned)
        return self._sometimes(images, turned)

    def _sometimes(self, images: Tensor, changed: Tensor, wanted: Tensor | None = None) -> Tensor:
        """Each picture `changed` with probability p, of those that are `wanted` (N,)."""
        draws = torch.rand(len(images))
        if wanted is not None:
            draws = torch.where(wanted, draws, 2.0)
        return torch.where(_per_picture(draws, images) < self.adapted[0], changed, images)

    @torch.no_grad()
    def observe(self, real: Logits) -> None:
        """The logits of real images in the discriminator's turn."""
        signs = [torch.sign(logits.float() - self.decision_boundary).mean() for logits in scales(real)]
        count = len(scales(real)[0])
        # not a number is what a step that is skipped may have given
        self.adapted[1] += count * torch.nan_to_num(torch.stack(signs).mean())
        self.adapted[2] += count

    def _adapt(self) -> None:
        p, signs, count = self.adapted
        moved = p + torch.sign(signs / count - self.target) * count / self.pictures
        fresh = torch.stack([moved.clamp(0, 1), torch.zeros_like(p), torch.zeros_like(p)])
        self.adapted.copy_(torch.where(count >= PICTURES, fresh, self.adapted))


class Augmentation:
    """`always`, or `ada` in its place; then noise, whose deviation falls from `noise` to 0 in `noise_steps`."""

    def __init__(self, always: DiffAugment, ada: ADA | None = None, noise: float = 0.0, noise_steps: int = 1) -> None:
        self.always, self.ada, self.noise, self.noise_steps = always, ada, noise, noise_steps

    def __call__(self, images: Tensor, step: int, condition: Tensor | None = None) -> Tensor:
        """(N, C, H, W) in [-1, 1] → the same shape, as discriminators are to see them at that step.

        With a `condition` (N, K, H, W), (N, K + C, H, W): the condition before the images, moved as they are, so that
        the pair still fits, without noise and in its own colours.
        """
        seen = self.ada(images, step, condition) if self.ada else self.always(images, condition)
        if not (deviation := self.deviation(step)):
            return seen
        (count, every, *size), channels = seen.shape, images.shape[1]
        dtype = torch.promote_types(seen.dtype, torch.float32)
        noise = deviation * torch.randn(count, channels, *size, dtype=dtype, device=seen.device)
        return seen + F.pad(noise, (0, 0, 0, 0, every - channels, 0))

    def changes(self, step: int) -> bool:
        """Whether anything becomes of an image at that step."""
        return bool(self.always.operations or self.ada or self.deviation(step))

    def deviation(self, step: int) -> float:
        """The standard deviation of the noise, in the images' range of [-1, 1]."""
        return self.noise * max(0.0, 1 - step / self.noise_steps)
