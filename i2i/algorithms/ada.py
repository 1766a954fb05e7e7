"""Adaptive discriminator augmentation: Karras, Aittala, Hellsten, Laine, Lehtinen, Aila, "Training Generative
Adversarial Networks with Limited Data", NeurIPS 2020 (arXiv:2006.06676).

What a discriminator sees goes through operations of which each picture gets each with probability p, drawn by itself.
p rises while the mean sign of the logits of real images, r_t = E[sign(D(x))], is above a target, which is how sure the
discriminator is of what it has been trained with, and falls while it is below (Sec. 3.1).

Of the paper's operations (App. B) these are here: its pixel blitting, which is mirroring, quarter turns (half turns of
what is not square) and shifts by up to an eighth in whole pixels; and of its colour transforms brightness, contrast
and saturation, as one, with the strengths of DiffAugment. Not here: general geometric transforms, luma flip, hue,
filters, noise and cutout.

All discriminators of an algorithm share one p. It is decided on the device, where nobody waits for it; what is drawn
comes from torch's global generator on the CPU.
"""

import torch
from torch import Tensor

from i2i.algorithms.augment import draw_colours, draw_shifts, recolour, translate
from i2i.device import precise
from i2i.losses.penalties import Logits, scales

PICTURES = 256  # seen before p moves: the paper's four batches of 64


class ADA:
    """`target` of r_t, and how many pictures it takes p to go from 0 to 1. `decision_boundary` is the logit of sign 0.

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


def _per_picture(values: Tensor, images: Tensor) -> Tensor:
    """(N,) → (N, 1, 1, 1), where the images are; nobody waits for the copy."""
    return values.to(images.device, non_blocking=True)[:, None, None, None]
