"""A history of generated images for the discriminator (Shrivastava et al. 2017, Sec. 2.3; pool of 50 in CycleGAN)."""

import torch
from torch import Tensor


class ImagePool:
    """Up to `size` past fakes. Once it is full, each fake is, with probability ½, exchanged for an older one.

    Draws from torch's global generator on the CPU, so a step seeded alike plays alike. Size 0: no history.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: list[Tensor] = []
        self._one_size = False

    def __call__(self, fakes: Tensor) -> Tensor:
        """(N, C, H, W) → as many images, detached, each new or from the history."""
        fakes = fakes.detach()
        if self.size == 0:
            return fakes
        if self._one_size:
            self.images = [image for image in self.images if image.shape == fakes.shape[1:]]
        return torch.stack([self._exchange(fake) for fake in fakes])

    def _exchange(self, fake: Tensor) -> Tensor:
        if len(self.images) < self.size:
            self.images.append(self._keepable(fake))
            return fake
        if torch.rand(()) < 0.5:
            return fake
        place = int(torch.randint(self.size, ()))
        old, self.images[place] = self.images[place], self._keepable(fake)
        return old.to(fake.dtype)  # of a run that went on in another precision

    @staticmethod
    def _keepable(fake: Tensor) -> Tensor:
        """A step that diverged is skipped; its fakes must not come back in a later one."""
        return torch.nan_to_num(fake, nan=0.0, posinf=1.0, neginf=-1.0).clone()

    def state(self) -> list[Tensor]:
        """The images, oldest place first, on the CPU."""
        return [image.cpu() for image in self.images]

    def load_state(self, images: list[Tensor], device: torch.device, one_size: bool = False) -> None:
        """Continue with these images (the first `size` of them).

        With `one_size` all fakes are of one size. Images of another one, which a run with another crop made, are then
        dropped: no batch holds both.
        """
        self.images, self._one_size = [image.to(device) for image in images[: self.size]], one_size
