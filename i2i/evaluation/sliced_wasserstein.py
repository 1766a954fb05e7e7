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

from i2i.evaluation.metrics import Pictures

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
    """The sliced Wasserstein distance of two sets, times 10³.

    * `mean`: over all levels and seeds; `std`: the deviation over the seeds of the mean of the levels.
    * `levels`: the distance at each level, by its size in pixels; `patches`: how many each level compares.
    * `influences`: how much each picture of both sets changes the mean, (N,); only on request.
    """

    mean: float
    std: float
    levels: dict[int, float]
    patches: int
    influences: tuple[Tensor, Tensor] | None = None


def swd(
    a: Pictures,
    b: Pictures,
    seeds: Sequence[int] = (0, 1, 2),
    patches: int | None = None,
    *,
    influences: bool = False,
) -> SlicedWasserstein:
    """Compare two sets of pictures, (C, S, S) each, all of one S and in [-1, 1]. Range: 0 and up.

    `patches` are taken of each set at each level, by default 128 a picture of the smaller set, see `patch_count`. Two
    comparisons are comparable where S and the numbers of patches are alike. With `influences`, the result holds how
    much each picture's weight moves the mean: dSWD / dw at w = 1, see `metrics`. Raises `ValueError` for an empty set
    and for pictures of other sizes.
    """
    if not len(a) or not len(b):
        raise ValueError("a set without pictures has no distance")
    size, channels = a[0].shape[-1], a[0].shape[0]
    count = patches or patch_count(len(a), len(b))
    left = descriptors(a, count, [2 * seed for seed in seeds], size)
    right = descriptors(b, count, [2 * seed + 1 for seed in seeds], size)
    moved = (torch.zeros(len(a), dtype=torch.float64), torch.zeros(len(b), dtype=torch.float64))
    values = torch.zeros(len(seeds), len(left[0]), dtype=torch.float64)
    for row, seed in enumerate(seeds):
        for level, (x, y) in enumerate(zip(left[row], right[row], strict=True)):
            sides = [Influences(x, channels), Influences(y, channels)] if influences else []
            values[row, level] = SCALE * sliced_wasserstein(x, y, seed=seed, influences=sides)
            for total, side in zip(moved, sides, strict=False):
                total += SCALE * _together(side.found(PROJECTIONS), len(total)) / values.numel()
    of_seeds = values.mean(dim=1)
    return SlicedWasserstein(
        mean=float(of_seeds.mean()),
        std=float(of_seeds.std(unbiased=False)),
        levels=dict(zip(levels_of(size), values.mean(dim=0).tolist(), strict=True)),
        patches=count,
        influences=moved if influences else None,
    )


def _together(of_patches: Tensor, pictures: int) -> Tensor:
    """The sums of each picture's patches, (pictures,), in the order of `descriptors`."""
    ends = torch.arange(1, pictures + 1) * len(of_patches) // pictures
    sums = torch.cat([torch.zeros(1, dtype=torch.float64), of_patches.cumsum(dim=0)])
    return sums[ends].diff(prepend=sums[:1])


def patch_count(*counts: int) -> int:
    """The number of patches to draw from each set, for sets of that many pictures."""
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


def descriptors(pictures: Pictures, count: int, seeds: Sequence[int], size: int) -> list[list[Tensor]]:
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


class Influences:
    """How much the distance moves with the weight of each descriptor (N, D) of a set, added up over directions.

    In a direction, weight at x moves the distance ∫ |F_a - F_b| by ∫_x^∞ sgn(F_a - F_b), Kantorovich's potential. It
    also moves mean and deviation of each channel, by which all descriptors of the set are normalised.
    """

    def __init__(self, descriptors: Tensor, channels: int) -> None:
        self.descriptors, self.channels = descriptors, channels
        self.potentials = torch.zeros(len(descriptors), dtype=torch.float64)
        # by how much the distances of all directions grow as all values of a channel do, by one, or by themselves
        self.shifts, self.scales = (torch.zeros(channels, dtype=torch.float64) for _ in range(2))

    def add(self, directions: Tensor, own: Tensor, indices: Tensor, other: Tensor) -> None:
        """Values of this set and of the other, (K, N), sorted along each of K directions; `indices` say where those of
        this set were."""
        count, each = len(self.descriptors), directions.reshape(len(directions), self.channels, -1)
        self.potentials += _unsorted(_potential(own, other), indices).double().sum(dim=0)
        signs = _unsorted((own - other).sign(), indices)
        self.shifts += (signs.sum(dim=1)[:, None] * each.sum(dim=2)).double().sum(dim=0) / count
        moved = (signs @ self.descriptors).reshape(each.shape)
        self.scales += (moved * each).double().sum(dim=(0, 2)) / count

    def found(self, projections: int) -> Tensor:
        """The influences on the mean over so many directions, (N,)."""
        patches = self.descriptors.double().reshape(len(self.descriptors), self.channels, -1)
        normalising = patches.mean(dim=2) @ self.shifts + (patches.square().mean(dim=2) - 1) / 2 @ self.scales
        moved = (self.potentials - normalising) / (len(patches) * projections)
        return moved - moved.mean()


def _potential(own: Tensor, other: Tensor) -> Tensor:
    """∫_x^max sgn(F_own - F_other) at each x of `own`, with its largest value; both (directions, N), sorted along N.

    Beyond, the integral is the same for all x, and a constant is no influence. Between own_i and own_(i+1) F_own is
    i / N, and F_other is less before other_i, as much until other_(i+1).
    """
    low, high = own[:, :-1], own[:, 1:]
    steps = other[:, :-1].clamp(low, high) + other[:, 1:].clamp(low, high) - low - high
    return torch.cat([steps, torch.zeros_like(own[:, :1])], dim=1).flip(1).cumsum(dim=1).flip(1)


def _unsorted(values: Tensor, indices: Tensor) -> Tensor:
    return torch.empty_like(values).scatter_(1, indices, values)


def sliced_wasserstein(
    a: Tensor, b: Tensor, projections: int = PROJECTIONS, seed: int = 0, influences: Sequence[Influences] = ()
) -> float:
    """The mean over random directions of the Wasserstein-1 distance of two sets (N, D) projected on them.

    Range: 0 and up. `influences` of both sets are added to.
    """
    directions = torch.randn(projections, a.shape[1], generator=torch.Generator().manual_seed(seed)).to(a)
    directions, distance = directions / directions.norm(dim=1, keepdim=True), 0.0
    for some in directions.split(_DIRECTIONS_AT_ONCE):
        x, y = (some @ a.T).sort(dim=1), (some @ b.T).sort(dim=1)
        distance += float((x.values - y.values).abs().mean(dim=1).sum())
        for side, own, other in zip(influences, (x, y), (y, x), strict=False):
            side.add(some, own.values, own.indices, other.values)
    return distance / projections
