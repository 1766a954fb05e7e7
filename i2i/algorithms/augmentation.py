"""What every image goes through before a discriminator sees it, in any turn: DiffAugment or ADA, then instance noise.

Instance noise: Sønderby, Caballero, Theis, Shi, Huszár, "Amortised MAP Inference for Image Super-resolution", ICLR 2017
(arXiv:1610.04490), Sec. 3.3; Arjovsky, Bottou, "Towards Principled Methods for Training Generative Adversarial
Networks", ICLR 2017 (arXiv:1701.04862), Sec. 3. Gaussian noise on real and generated images alike, so that no
discriminator tells them apart without doubt; its standard deviation falls linearly to zero.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.algorithms.ada import ADA
from i2i.algorithms.algorithm import in_one_batch
from i2i.algorithms.augment import DiffAugment
from i2i.losses.penalties import Logits
from i2i.networks.patchgan import MultiScalePatchGAN
from i2i.networks.projected import Projected


class Augmentation:
    """`always`, or `ada` in its place; then noise, whose deviation falls from `noise` to 0 in `noise_steps`."""

    def __init__(self, always: DiffAugment, ada: ADA | None = None, noise: float = 0.0, noise_steps: int = 1) -> None:
        self.always, self.ada, self.noise, self.noise_steps = always, ada, noise, noise_steps

    def __call__(self, images: Tensor, step: int, condition: Tensor | None = None) -> Tensor:
        """(N, C, H, W) in [-1, 1] → the same shape, as discriminators are to see them at that step.

        With a `condition` (N, K, H, W), (N, K + C, H, W): the condition before the images, moved as they are, so that
        the pair still fits, without noise and in its own colours.
        """
        shown = self.ada(images, step, condition) if self.ada else self.always(images, condition)
        return self._noisy(shown, images.shape[1], self.deviation(step))

    def changes(self, step: int) -> bool:
        """Whether anything becomes of an image at that step."""
        return bool(self.always.operations or self.ada or self.deviation(step))

    def deviation(self, step: int) -> float:
        """The standard deviation of the noise, in the images' range of [-1, 1]."""
        return self.noise * max(0.0, 1 - step / self.noise_steps)

    def observe(self, real: Logits) -> None:
        """What a discriminator, in its own turn, answers to real images: ADA goes by it."""
        if self.ada:
            self.ada.observe(real)

    def adapted(self) -> dict[str, Tensor]:
        """What belongs to the training state, and is alike in all processes once it is averaged over them."""
        return {"ada": self.ada.adapted} if self.ada else {}

    @staticmethod
    def _noisy(shown: Tensor, channels: int, deviation: float) -> Tensor:
        if not deviation:
            return shown
        count, every, *size = shown.shape
        made: dict[str, Any] = {"device": shown.device, "dtype": torch.promote_types(shown.dtype, torch.float32)}
        noise = deviation * torch.randn(count, channels, *size, **made)
        return shown + F.pad(noise, (0, 0, 0, 0, every - channels, 0))


def judged(discriminator: nn.Module, *batches: Tensor) -> list[Logits]:
    """The discriminator's logits of each batch: in one pass where that is faster, and the same."""
    if isinstance(discriminator, MultiScalePatchGAN | Projected):
        return [discriminator(batch) for batch in batches]
    return [*in_one_batch(discriminator, *batches)]
