"""Augmentation of every image that a discriminator sees, in any turn: DiffAugment or ADA, then instance noise.

Instance noise: Sønderby, Caballero, Theis, Shi, Huszár, "Amortised MAP Inference for Image Super-resolution", ICLR 2017
(arXiv:1610.04490), Sec. 3.3; Arjovsky, Bottou, "Towards Principled Methods for Training Generative Adversarial
Networks", ICLR 2017 (arXiv:1701.04862), Sec. 3. Gaussian noise on real and generated images alike, so that no
discriminator is sure which is which; its standard deviation falls linearly to zero.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.algorithms.ada import ADA
from i2i.algorithms.augment import DiffAugment
from i2i.losses.penalties import Logits
from i2i.networks.blocks import has_batch_norm
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
        seen = self.ada(images, step, condition) if self.ada else self.always(images, condition)
        return self._noisy(seen, images.shape[1], self.deviation(step))

    def changes(self, step: int) -> bool:
        """Whether anything becomes of an image at that step."""
        return bool(self.always.operations or self.ada or self.deviation(step))

    def deviation(self, step: int) -> float:
        """The standard deviation of the noise, in the images' range of [-1, 1]."""
        return self.noise * max(0.0, 1 - step / self.noise_steps)

    def observe(self, real: Logits) -> None:
        """The logits of a discriminator for real images, in its own turn: ADA follows them."""
        if self.ada:
            self.ada.observe(real)

    def adapted(self) -> dict[str, Tensor]:
        """Tensors of the training state that are averaged over all processes."""
        return {"ada": self.ada.adapted} if self.ada else {}

    @staticmethod
    def _noisy(seen: Tensor, channels: int, deviation: float) -> Tensor:
        if not deviation:
            return seen
        count, every, *size = seen.shape
        made: dict[str, Any] = {"device": seen.device, "dtype": torch.promote_types(seen.dtype, torch.float32)}
        noise = deviation * torch.randn(count, channels, *size, **made)
        return seen + F.pad(noise, (0, 0, 0, 0, every - channels, 0))


def forward_together(network: nn.Module, *batches: Tensor) -> list[Logits]:
    """`network(batch)` for each batch. One pass computes them all, which is faster, where it gives the same numbers:
    batches of one size, no batch norm, one scale."""
    separately = isinstance(network, MultiScalePatchGAN | Projected) or has_batch_norm(network)
    if separately or len({batch.shape[1:] for batch in batches}) > 1:
        return [network(batch) for batch in batches]
    return list(network(torch.cat(batches)).split([len(batch) for batch in batches]))
