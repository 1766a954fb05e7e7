"""The sliced Wasserstein distance against an independent pyramid in NumPy and scipy's distance in one dimension."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from evaluation_tools import changes, drawn, half_width
from scipy.special import stdtrit
from torch import Tensor

from i2i.evaluation.metrics import linear
from i2i.evaluation.sliced_wasserstein import (
    Influences,
    descriptors,
    laplacian_pyramid,
    levels_of,
    normalised,
    patch_count,
    sliced_wasserstein,
    swd,
)

pytestmark = pytest.mark.arithmetic


def pictures(count: int, size: int = 32, seed: int = 0, offset: float = 0.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(3, size, size, generator=generator) * (1 + offset * i / count) for i in range(count)]


def test_pyramid_is_that_of_burt_and_adelson() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    taps = np.array([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    kernel = np.outer(taps, taps)[None, None]

    def blurred(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return ndimage.convolve(x, kernel, mode="mirror")

    image = torch.stack(pictures(2)).double()
    expected, current = [], image.numpy()
    for _ in range(2):
        smaller = blurred(current)[:, :, ::2, ::2]
        spread = np.zeros_like(current)
        spread[:, :, ::2, ::2] = smaller
        expected.append(current - 4 * blurred(spread))
        current = smaller
    bands = laplacian_pyramid(image, 3)
    for band, right in zip(bands, [*expected, current], strict=True):
        np.testing.assert_allclose(band.numpy(), right, atol=1e-12)
    again = bands[-1]
    for band in reversed(bands[:-1]):  # and it can be undone
        spread = np.zeros(band.shape)
        spread[:, :, ::2, ::2] = again.numpy()
        again = band + torch.from_numpy(4 * blurred(spread))
    torch.testing.assert_close(again, image)


def test_distance_is_scipys_in_each_direction() -> None:
    stats = pytest.importorskip("scipy.stats")
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(200, 12, generator=generator, dtype=torch.float64)
    b = 1.5 * torch.randn(200, 12, generator=generator, dtype=torch.float64) + 0.3
    directions = torch.randn(70, 12, generator=torch.Generator().manual_seed(5)).double().numpy()
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    expected = [stats.wasserstein_distance(a.numpy() @ d, b.numpy() @ d) for d in directions]
    assert sliced_wasserstein(a, b, projections=70, seed=5) == pytest.approx(np.mean(expected), rel=1e-9)


def test_descriptors_are_patches_of_the_levels_spread_over_all_pictures() -> None:
    batch = [torch.full((3, 32, 32), float(i)) for i in range(4)]
    (levels,) = descriptors(batch, 10, [0], 32)
    assert [tuple(level.shape) for level in levels] == [(10, 147), (10, 147)]
    # the low-pass level of a flat picture is the picture, so a patch tells its source: 2, 3, 2 and 3 of each
    values, counts = levels[-1][:, 0].unique(return_counts=True)
    assert counts.tolist() == [2, 3, 2, 3] and len(values) == 4
    assert levels_of(256) == [256, 128, 64, 32, 16] and levels_of(40) == [40, 20]


def test_normalised_is_per_channel() -> None:
    patches = torch.cat([torch.randn(500, 49) * scale + scale for scale in (1.0, 5.0, 9.0)], dim=1)
    channels = normalised(patches, 3).reshape(500, 3, 49)
    torch.testing.assert_close(channels.mean(dim=(0, 2)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(channels.std(dim=(0, 2), unbiased=False), torch.ones(3))


def test_the_protocol_for_sets_of_unequal_size() -> None:
    many, few = pictures(12, seed=1), pictures(4, seed=2)
    other = [torch.nn.functional.avg_pool2d(p, 9, 1, 4) for p in pictures(4, seed=3)]  # normalised, but smooth
    near, far = swd(few, many, seeds=(0, 1)), swd(other, many, seeds=(0, 1))
    assert near.patches == far.patches == 4 * 128 and list(near.levels) == [32, 16]
    assert near.mean == pytest.approx(np.mean(list(near.levels.values()))) and near.std > 0
    assert far.mean > 1.2 * near.mean
    assert swd(few, many, seeds=(0, 1)) == near  # nothing else is random
    assert swd(few, many, seeds=(4,)) != swd(few, many, seeds=(5,))


def test_sets_that_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="without pictures"):
        swd([], pictures(2))
    with pytest.raises(ValueError, match="16, 16"):
        swd(pictures(2), pictures(2, size=16))


def test_the_number_from_its_protocol_alone() -> None:
    """512 directions, patches drawn as documented, each set normalised, 10³ times the mean over levels and seeds."""
    ndimage = pytest.importorskip("scipy.ndimage")
    taps = np.array([1.0, 4.0, 6.0, 4.0, 1.0]) / 16

    def blurred(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return ndimage.convolve(x, np.outer(taps, taps)[None], mode="mirror")

    def bands(picture: torch.Tensor) -> list[np.ndarray[Any, Any]]:
        image = picture.double().numpy()
        smaller = blurred(image)[:, ::2, ::2]
        spread = np.zeros_like(image)
        spread[:, ::2, ::2] = smaller
        return [image - 4 * blurred(spread), smaller]

    def drawn(pictures: list[torch.Tensor], count: int, seed: int) -> list[np.ndarray[Any, Any]]:
        generator, found = torch.Generator().manual_seed(seed), [[], []]
        for i, picture in enumerate(pictures):
            some = (i + 1) * count // len(pictures) - i * count // len(pictures)
            for level, band in enumerate(bands(picture)):
                rows, columns = (
                    torch.randint(band.shape[1] - 6, (some, 1, 1), generator=generator).flatten().tolist()
                    for _ in range(2)
                )
                found[level] += [band[:, r : r + 7, c : c + 7] for r, c in zip(rows, columns, strict=True)]
        stacked = [np.stack(level) for level in found]
        return [
            ((x - x.mean((0, 2, 3), keepdims=True)) / x.std((0, 2, 3), keepdims=True)).reshape(count, -1)
            for x in stacked
        ]

    a = pictures(9, seed=1)
    b = [torch.nn.functional.avg_pool2d(p, 5, 1, 2) for p in pictures(14, seed=2, offset=1.0)]
    values = []
    for seed in (3, 4):
        directions = torch.randn(512, 147, generator=torch.Generator().manual_seed(seed)).double().numpy()
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        for x, y in zip(drawn(a, 9 * 128, 2 * seed), drawn(b, 9 * 128, 2 * seed + 1), strict=True):
            values.append(np.abs(np.sort(x @ directions.T, axis=0) - np.sort(y @ directions.T, axis=0)).mean())
    found = swd(a, b, seeds=(3, 4))
    assert found.patches == 1152 and found.mean == pytest.approx(1000 * np.mean(values), rel=1e-4)
    assert found.levels[16] == pytest.approx(1000 * np.mean(values[1::2]), rel=1e-4)


def test_how_many_patches() -> None:
    assert patch_count(60, 240) == 7680 and patch_count(513, 240, 751) == 30720
    assert patch_count(512, 512) == patch_count(700, 6000) == 65536
    few = pictures(2)
    assert swd(few, few, (0,), patches=300).patches == 300


def test_flat_pictures_have_no_noise_to_compare() -> None:
    """The rest of one colour in a band-pass level is rounding, and must not be blown up."""
    noise = torch.randn(300, 3 * 49, generator=torch.Generator().manual_seed(0))
    assert not normalised(0.1 + 1e-6 * noise, 3).any()
    assert normalised(0.1 + 1e-3 * noise, 3).std() == pytest.approx(1, abs=1e-3)
    flat = [torch.full((3, 32, 32), 0.1)] * 3
    assert swd(flat, flat, seeds=(0,)).mean == 0
    assert 0 < swd(flat, pictures(3), seeds=(0,)).mean < 1000


def test_how_a_patchs_weight_moves_the_sliced_wasserstein_distance() -> None:
    """By scipy's distance of weighted values, each set normalised by weighted means and deviations of its channels."""
    stats, count = pytest.importorskip("scipy.stats"), 64
    a, b = drawn(25, 6), drawn(25, 6, seed=1) ** 3
    directions = torch.randn(count, 6, generator=torch.Generator().manual_seed(5)).double()
    directions /= directions.norm(dim=1, keepdim=True)

    def weighted(x: Tensor, w: Tensor) -> Tensor:
        x, p = x.reshape(25, 2, 3), (w / w.sum())[:, None, None]
        middle = (p * x).sum(dim=0, keepdim=True).mean(dim=2, keepdim=True)
        variance = (p * (x - middle).square()).sum(dim=0, keepdim=True).mean(dim=2, keepdim=True)
        return ((x - middle) / variance.sqrt()).reshape(25, 6)

    def distance(w: Tensor, v: Tensor) -> Tensor:
        x, y = weighted(a, w) @ directions.T, weighted(b, v) @ directions.T
        each = [stats.wasserstein_distance(x[:, k], y[:, k], w, v) for k in range(count)]
        return torch.tensor(np.mean(each))

    ones = torch.ones(25, dtype=torch.float64)
    x, y = normalised(a, 2), normalised(b, 2)
    assert float(distance(ones, ones)) == pytest.approx(sliced_wasserstein(x, y, count, seed=5))
    moves: list[Callable[[Tensor], Tensor]] = [lambda w: distance(w, ones), lambda w: distance(ones, w)]
    sides = Influences(x, 2), Influences(y, 2)
    value, both = sliced_wasserstein(x, y, count, 5, sides), [side.found(count) for side in sides]
    assert value == sliced_wasserstein(x, y, count, seed=5)
    for found, moved in zip(both, moves, strict=True):
        assert float(found.sum()) == pytest.approx(0, abs=1e-9)
        expected = changes(lambda w: moved(torch.cat([w, ones[2:]])), 2)  # noqa: B023 (called at once)
        torch.testing.assert_close(found[:2], expected, rtol=1e-3, atol=1e-6)


def test_influences_of_pictures_are_those_of_their_patches() -> None:
    """A picture that is unlike the others moves the distance most, and without it the distance is what they say."""
    pictures = [0.3 * drawn(3, 16, 16, seed=i).float() for i in range(12)]
    others = [0.3 * drawn(3, 16, 16, seed=100 + i).float() for i in range(9)]
    pictures[4] = pictures[4].cumsum(dim=1)
    found = swd(pictures, others, (0, 1), influences=True)
    assert found.influences is not None and [len(u) for u in found.influences] == [12, 9]
    assert int(found.influences[0].abs().argmax()) == 4 and float(found.influences[0][4]) > 0
    assert float(found.influences[0].sum()) == pytest.approx(0, abs=1e-6)
    assert swd(pictures, others, (0, 1)).influences is None


@pytest.mark.slow
def test_coverage_of_the_sliced_wasserstein_distance() -> None:
    """Its intervals are of the number for sets of this size, and rather too wide."""

    def pictures(count: int, noise: float, seed: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        rough = torch.randn(count, 3, 4, 4, generator=generator)
        smooth = torch.nn.functional.interpolate(rough, (16, 16), mode="bicubic")
        return list(0.3 * smooth + noise * torch.randn(count, 3, 16, 16, generator=generator))

    found = []
    for k in range(60):
        result = swd(pictures(16, 0.1, 2 * k), pictures(20, 0.5, 2 * k + 1), (0,), influences=True)
        assert result.influences is not None
        found.append(linear(result.mean, result.influences, 0))
    right = np.mean([estimate.value for estimate in found])
    intervals = [estimate.interval() or (0.0, 0.0) for estimate in found]
    assert np.mean([low <= right <= high for low, high in intervals]) >= 0.9
    widths = np.mean([half_width(estimate) for estimate in found]) / (
        stdtrit(15, 0.975) * np.std([e.value for e in found])
    )
    assert 0.8 <= widths <= 2.5
