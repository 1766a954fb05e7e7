"""Scaled as seen: hidden colours have no part in what is beside them. And values that are no picture are refused."""

import numpy as np
import pytest
from picture_samples import gradient

from i2i.errors import ImageError
from i2i.images import from_planes, resize_planes, scaled_as_seen, to_planes


def _edge(hidden):
    """Red on the left, on the right nothing that is seen, of another colour."""
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[:, :8] = 255, 0, 0, 255
    pixels[:, 8:, :3] = hidden
    return to_planes(pixels)


@pytest.mark.parametrize("hidden", [(0, 255, 0), (0, 0, 0), (255, 255, 255)])
@pytest.mark.parametrize("size", [(7, 7), (16, 5), (33, 40)])
def test_hidden_colours_do_not_bleed_into_edges(hidden, size):
    found = from_planes(resize_planes(_edge(hidden), *size, alpha=True))
    seen = found[..., 3] > 2
    assert seen.any() and np.abs(found[seen][:, :3].astype(int) - (255, 0, 0)).max() <= 2
    # the others, and the alpha, are scaled as without
    plain = from_planes(resize_planes(_edge(hidden), *size))
    assert np.array_equal(found[..., 3], plain[..., 3])


def test_opaque_pictures_are_scaled_without_alpha():
    pixels = gradient(20, 30, 4)
    pixels[..., 3] = 255
    found, plain = (resize_planes(to_planes(pixels), 11, 9, alpha=alpha) for alpha in (True, False))
    assert np.abs(found - plain).max() < 1e-5


def test_scaling_as_seen_weighs_by_alpha():
    pixels = np.array([[[1.0, 0.25], [0.5, 0.75]]], np.float32)
    found = scaled_as_seen(pixels, lambda x: x.mean(axis=1, keepdims=True))
    assert found[0, 0] == pytest.approx([(1 * 0.25 + 0.5 * 0.75) / 1.0, 0.5])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_values_that_are_not_finite_are_no_picture(value, dtype):
    planes = np.zeros((3, 4, 5), np.float32)
    planes[1, 2, 3] = value
    with pytest.raises(ImageError, match="not finite"):
        from_planes(planes, dtype)
