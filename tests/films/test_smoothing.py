"""Motion, blending, flicker and sharpness, against pictures whose motion is known."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
from film_samples import moving

from i2i.films.smoothing import Motion, Smoother, blended, motion, sharpness, warp_error
from i2i.images import Pixels

STEP = (2.0, 1.0)


def still(height: int, width: int) -> Motion:
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    ones = np.ones((height, width), np.float32)
    return Motion(columns, rows, ones, ones)


@pytest.mark.parametrize("size", [(96, 128), (300, 400)], ids=["small", "larger than the flow's side"])
def test_the_motion_of_a_shift_is_that_shift(size: tuple[int, int]) -> None:
    before, now = moving(2, *size, step=STEP)
    found = motion(before, now)
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float32)
    inner = np.s_[16:-16, 16:-16]
    assert np.abs(found.columns - columns - STEP[0])[inner].mean() < 0.15
    assert np.abs(found.rows - rows - STEP[1])[inner].mean() < 0.15
    assert found.sure[inner].mean() > 0.98 and found.alike[inner].mean() > 0.9
    assert found.error < 1e-3


def test_beyond_the_edge_nothing_is_sure() -> None:
    before, now = moving(2, step=(8, 0))
    assert motion(before, now).sure[:, -6:].mean() < 0.05


def test_at_a_cut_nothing_is_blended() -> None:
    first = moving(1)[0]
    other = np.random.default_rng(1).integers(0, 256, first.shape, np.uint8)
    moved = motion(first, other)
    assert moved.alike.mean() < 0.1
    assert np.abs(blended(moved.warped(first), other, moved, 0.9).astype(int) - other).mean() < 10


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_share_is_a_weight(dtype: type) -> None:
    full = np.iinfo(dtype).max
    before, now = np.full((8, 8, 3), full // 5 * 4, dtype), np.zeros((8, 8, 3), dtype)
    for share in (0.0, 0.25, 1.0):
        result = blended(before, now, still(8, 8), share)
        assert result.dtype == dtype and np.ptp(result) == 0
        assert abs(int(result[0, 0, 0]) - share * before[0, 0, 0]) <= 1


def test_the_warp_error_of_noise_is_twice_its_variance() -> None:
    a, b = np.random.default_rng(2).normal(0.5, 0.05, (2, 100, 100, 3)) * 255
    a8, b8 = (np.rint(x).astype(np.uint8) for x in (a, b))
    assert warp_error(a8.astype(np.float32), b8, still(100, 100)) == pytest.approx(2 * 0.05**2, rel=0.05)
    half = Motion(still(100, 100).columns, still(100, 100).rows, np.zeros((100, 100), np.float32), np.float32(0))
    assert warp_error(a8.astype(np.float32), b8, half) == 0


def test_sharpness_of_a_ramp_is_its_slope() -> None:
    ramp = np.broadcast_to((np.arange(100) * 2)[None, :, None], (50, 100, 3)).astype(np.uint8)
    assert sharpness(ramp) == pytest.approx(2 / 255 * 98 / 100, rel=0.02)
    blurred = [cv2.GaussianBlur(moving(1)[0], (0, 0), sigma) for sigma in (0.5, 1, 2)]
    assert sorted(map(sharpness, blurred), reverse=True) == list(map(sharpness, blurred))


def flickering(frames: list[Pixels]) -> list[Pixels]:
    """As a network's strokes: another noise in each frame."""
    noise = np.random.default_rng(3).normal(0, 12, (len(frames), *frames[0].shape))
    return [np.clip(np.rint(frame + one), 0, 255).astype(np.uint8) for frame, one in zip(frames, noise, strict=True)]


def test_flicker_is_a_third_at_most() -> None:
    sources = moving(12, 96, 128, step=(1.5, 0.7))
    smoother = Smoother(0.5, {})
    before = None
    for source, made in zip(sources, flickering(sources), strict=True):
        smoother(made, None if before is None else motion(before, source))
        before = source
    numbers = smoother.numbers()
    assert numbers["flicker_before"] > 3 * numbers["flicker_after"]
    assert numbers["flicker_input"] < numbers["flicker_after"]
    assert numbers["sharpness_after"] > 0.5 * numbers["sharpness_before"]


def test_a_smoother_goes_on_from_its_state() -> None:
    sources = moving(6)
    moves = [None, *(motion(a, b) for a, b in pairwise(sources))]
    whole, first = Smoother(0.6, {}), Smoother(0.6, {})
    expected = [whole(made, moved) for made, moved in zip(flickering(sources), moves, strict=True)]
    found = [first(made, moved) for made, moved in zip(flickering(sources)[:3], moves[:3], strict=True)]
    second = Smoother(0.6, {name: array.copy() for name, array in first.state().items()})
    found += [second(made, moved) for made, moved in zip(flickering(sources)[3:], moves[3:], strict=True)]
    assert all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True))
    assert whole.numbers() == second.numbers()
