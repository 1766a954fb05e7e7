"""Sliced Wasserstein distance over the Laplacian pyramid (Karras et al. 2018, arXiv:1710.10196, Sec. 5).

It compares two sets of pictures by the statistics of their small patches at each scale, without any trained
network: coarse levels see the composition, fine levels the brushwork.

As there: levels from the pictures' size down to 16 px, patches of 7×7 pixels and all channels at random places,
128 a picture, each set normalised in each channel, 512 random directions. Here the sets may differ in size and
are small, and what the distance is between two draws of one distribution (its floor) depends on the numbers
compared. So the same number of patches is taken from both sets: 128 a picture of the smaller one, at most 65,536,
and as many in total, spread evenly, from all pictures of the larger one; and the mean over several seeds is given.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

PATCH = 7
PATCHES_PER_IMAGE = 128
MOST_PATCHES = 1 << 16
PROJECTIONS = 512
SMALLEST = 16
FLAT = 1e-4
SCALE = 1000.0
_DIRECTIONS_AT_ONCE = 64


@dataclass(frozen=True)
class SlicedWasserstein:
    """10³ · SWD: `mean` over the levels and seeds, `std` of the levels' mean over the seeds; `levels` by size in px.

    `patches` were compared at each level.
    """

    mean: float
    std: float
    levels: dict[int, float]
    patches: int


def swd(
    a: Sequence[Tensor],
    b: Sequence[Tensor],
    seeds: Sequence[int] = (0, 1, 2),
    patches: int | None = None,
) -> SlicedWasserstein:
    """Compare two sets of pictures, (C, S, S) each, all of one S and in [-1, 1]. Range: 0 and up.

    `patches` are taken of each set at each level, at most `MOST_PATCHES`; by default 128 a picture of the smaller
    set. Two comparisons are comparable where S and the numbers of patches are alike. Raises `ValueError` for an
    empty set and for pictures of other sizes.
    """
    if not len(a) or not len(b):
        raise ValueError("a set without pictures has no distance")
    size = a[0].shape[-1]
    count = min(patches, MOST_PATCHES) if patches else patch_count(len(a), len(b))
    left = descriptors(a, count, [2 * seed for seed in seeds], size)
    right = descriptors(b, count, [2 * seed + 1 for seed in seeds], size)
    values = torch.tensor(
        [
            [SCALE * sliced_wasserstein(x, y, seed=seed) for x, y in zip(in_a, in_b, strict=True)]
            for seed, in_a, in_b in zip(seeds, left, right, strict=True)
        ],
        dtype=torch.float64,
    )
    of_seeds = values.mean(dim=1)
    return SlicedWasserstein(
        mean=float(of_seeds.mean()),
        std=float(of_seeds.std(unbiased=False)),
        levels=dict(zip(levels_of(size), values.mean(dim=0).tolist(), strict=True)),
        patches=count,
    )


def patch_count(*counts: int) -> int:
    """How many patches are taken of each of the sets that hold so many pictures."""
    return min(PATCHES_PER_IMAGE * min(counts), MOST_PATCHES)


def levels_of(size: int) -> list[int]:
    """The sizes of the levels for pictures of `size` pixels: `size`, `size` / 2, … 16."""
    levels = [size]
    while levels[-1] % 2 == 0 and levels[-1] // 2 >= SMALLEST:
        levels.append(levels[-1] // 2)
    return levels


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


def descriptors(pictures: Sequence[Tensor], count: int, seeds: Sequence[int], size: int) -> list[list[Tensor]]:
    """For each seed and level (count, C · 49): 7×7 patches at random places, as many of each picture as possible.

    They are normalised: mean 0 and standard deviation 1 in each channel, over all patches of the level.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    levels = len(levels_of(size))
    found: list[list[list[Tensor]]] = [[[] for _ in range(levels)] for _ in seeds]
    for i in range(len(pictures)):
        picture = pictures[i]
        if picture.shape[-2:] != (size, size):
            raise ValueError(f"picture {i} has {tuple(picture.shape[-2:])} pixels, others {size}x{size}")
        wanted = (i + 1) * count // len(pictures) - i * count // len(pictures)
        for level, band in enumerate(laplacian_pyramid(picture[None], levels)):
            for generator, parts in zip(generators, found, strict=True):
                parts[level].append(_patches(band[0], wanted, generator))
    channels = pictures[0].shape[0]
    return [[normalised(torch.cat(level), channels) for level in parts] for parts in found]


def _patches(band: Tensor, count: int, generator: torch.Generator) -> Tensor:
    c, h, w = band.shape
    top = torch.randint(h - PATCH + 1, (count, 1, 1), generator=generator)
    left = torch.randint(w - PATCH + 1, (count, 1, 1), generator=generator)
    rows, columns = top + torch.arange(PATCH)[:, None], left + torch.arange(PATCH)
    return band[:, rows, columns].transpose(0, 1).reshape(count, c * PATCH * PATCH)


def normalised(patches: Tensor, channels: int) -> Tensor:
    """Descriptors with mean 0 and standard deviation 1 in each colour channel (over all of them).

    A channel whose standard deviation is below 10⁻⁴, of pictures in [-1, 1], is flat but for rounding: all 0.
    """
    x = patches.reshape(len(patches), channels, -1)
    mean = x.mean(dim=(0, 2), keepdim=True)
    deviation = x.std(dim=(0, 2), keepdim=True, unbiased=False)
    scaled = (x - mean) / deviation.clamp_min(FLAT)
    return torch.where(deviation < FLAT, 0.0, scaled).reshape(len(patches), -1)


def sliced_wasserstein(a: Tensor, b: Tensor, projections: int = PROJECTIONS, seed: int = 0) -> float:
    """The mean over random directions of the Wasserstein-1 distance of two sets (N, D) projected on them.

    Range: 0 and up. Raises `ValueError` for sets of unequal size.
    """
    if a.shape != b.shape:
        raise ValueError(f"sets of shapes {tuple(a.shape)} and {tuple(b.shape)}: as many descriptors in both, please")
    directions = torch.randn(projections, a.shape[1], generator=torch.Generator().manual_seed(seed)).to(a)
    directions = directions / directions.norm(dim=1, keepdim=True)
    total = 0.0
    for some in directions.split(_DIRECTIONS_AT_ONCE):  # sorted along the memory, and little of it at once
        left, right = ((some @ x.T).sort(dim=1).values for x in (a, b))
        total += float((left - right).abs().mean(dim=1).sum())
    return total / projections
