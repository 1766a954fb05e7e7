"""The one resizer of all measurements: which one it is changes FID by whole units (Parmar et al. 2022)."""

from torch import Tensor
from torch.nn import functional as F

RESIZER = "bicubic (a = -0.5), antialiased, float32, clamped: torch.nn.functional.interpolate(antialias=True)"


def resized(image: Tensor, height: int, width: int) -> Tensor:
    """(C, H, W) in [-1, 1] at another size; the same tensor if it has that size."""
    if image.shape[-2:] == (height, width):
        return image
    size = (height, width)
    return F.interpolate(image[None].float(), size, mode="bicubic", antialias=True, align_corners=False)[0].clamp(-1, 1)


def squared(image: Tensor, size: int) -> Tensor:
    """(C, size, size): the shorter side scaled to `size`, then the middle cut out."""
    height, width = image.shape[-2:]
    scale = size / min(height, width)
    image = resized(image, max(size, round(height * scale)), max(size, round(width * scale)))
    top, left = (image.shape[-2] - size) // 2, (image.shape[-1] - size) // 2
    return image[:, top : top + size, left : left + size]
