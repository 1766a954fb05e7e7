"""Sliced Wasserstein distance over the Laplacian pyramid (Karras et al. 2018, arXiv:1710.10196, Sec. 5).

It compares two sets of pictures by the statistics of their small patches at each scale, without any trained
network: coarse levels see the composition, fine levels the brushwork.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

PATCH = 7
PATCHES_PER_IMAGE = 128
PROJECTIONS = 512
SMALLEST = 16
SCALE = 1000.0


def laplacian_pyramid(images: Tensor, levels: int) -> list[Tensor]:
    """(N, C, H, W) as `levels` band-pass images, each half the size of the one before, the last a low-pass one.

    Burt & Adelson 1983 with the binomial kernel [1 4 6 4 1] / 16 and mirrored edges. Height and width are
    multiples of 2^(levels - 1).
    """
    bands = []
    for _ in range(levels - 1):
        smaller = _blurred(images)[..., ::2, ::2]
        bands.append(images - _enlarged(smaller))
        images = smaller
    return [*bands, images]


def _kernel(images: Tensor) -> Tensor:
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], dtype=images.dtype, device=images.device) / 16
    return torch.outer(taps, taps).expand(images.shape[1], 1, 5, 5)


def _blurred(images: Tensor, gain: float = 1.0) -> Tensor:
    padded = F.pad(images, (2, 2, 2, 2), mode="reflect")
    return F.conv2d(padded, gain * _kernel(images), groups=images.shape[1])


def _enlarged(images: Tensor) -> Tensor:
    n, c, h, w = images.shape
    spread = images.new_zeros(n, c, 2 * h, 2 * w)
    spread[..., ::2, ::2] = images
    return _blurred(spread, gain=4.0)


def levels_of(size: int) -> list[int]:
    """The sizes of the levels for pictures of `size` pixels: `size`, `size` / 2, … 16."""
    levels = [size]
    while levels[-1] % 2 == 0 and levels[-1] // 2 >= SMALLEST:
        levels.append(levels[-1] // 2)
    return levels


def descriptors(batches: Iterable[Tensor], seed: int = 0) -> list[Tensor]:
    """For each level (pictures × 128, C · 49): 7×7 patches at random places of every picture.

    `batches` are (N, C, S, S) in any one range. The places follow from `seed`.
    """
    generator = torch.Generator().manual_seed(seed)
    found: list[list[Tensor]] = []
    for images in batches:
        bands = laplacian_pyramid(images, len(levels_of(images.shape[-1])))
        found = found or [[] for _ in bands]
        for level, band in enumerate(bands):
            found[level].append(_patches(band, generator))
    return [torch.cat(parts) for parts in found]


def _patches(band: Tensor, generator: torch.Generator) -> Tensor:
    n, c, h, w = band.shape
    top = torch.randint(h - PATCH + 1, (n, PATCHES_PER_IMAGE, 1, 1), generator=generator)
    left = torch.randint(w - PATCH + 1, (n, PATCHES_PER_IMAGE, 1, 1), generator=generator)
    rows, columns = top + torch.arange(PATCH)[:, None], left + torch.arange(PATCH)
    sample = torch.arange(n)[:, None, None, None]
    patches = band.permute(0, 2, 3, 1)[sample, rows, columns]  # (n, patches, 7, 7, c)
    return patches.permute(0, 1, 4, 2, 3).reshape(n * PATCHES_PER_IMAGE, c * PATCH * PATCH)


def normalised(patches: Tensor, channels: int) -> Tensor:
    """Descriptors with mean 0 and standard deviation 1 in each colour channel (over all of them)."""
    x = patches.reshape(len(patches), channels, -1)
    mean = x.mean(dim=(0, 2), keepdim=True)
    deviation = x.std(dim=(0, 2), keepdim=True, unbiased=False).clamp_min(1e-12)
    return ((x - mean) / deviation).reshape(len(patches), -1)


def sliced_wasserstein(a: Tensor, b: Tensor, projections: int = PROJECTIONS, seed: int = 0) -> float:
    """The mean over random directions of the Wasserstein-1 distance of two sets (N, D), (M, D) projected on them.

    Sets of unequal size are compared at equal quantiles. Range: 0 and up.
    """
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(a.shape[1], projections, generator=generator, dtype=a.dtype).to(a.device)
    directions = directions / directions.norm(dim=0)
    count = min(len(a), len(b))
    left, right = (_quantiles((x @ directions).sort(dim=0).values, count) for x in (a, b))
    return float((left - right).abs().mean())


def _quantiles(ordered: Tensor, count: int) -> Tensor:
    if len(ordered) == count:
        return ordered
    place = (torch.arange(count, device=ordered.device) + 0.5) * (len(ordered) / count)
    return ordered[place.long()]


def swd(a: Sequence[Tensor], b: Sequence[Tensor], channels: int = 3, seed: int = 0) -> list[float]:
    """Per level 10³ · SWD of two sets of `descriptors`; their mean is the usual single number."""
    return [
        SCALE * sliced_wasserstein(normalised(x, channels), normalised(y, channels), seed=seed)
        for x, y in zip(a, b, strict=True)
    ]
