"""sRGB and linear light, and colours with another luminance."""

import numpy as np
import pytest
import torch

from i2i.images import Pixels
from i2i.images.colours import from_linear, join_lab, split_lab, to_linear, with_luminance

# the row of Y in the matrix of IEC 61966-2-1
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])


def _colours(low: float, high: float) -> Pixels:
    return np.random.default_rng(0).uniform(low, high, (64, 64, 3)).astype(np.float32)


def test_srgb_transfer_agrees_with_the_standard() -> None:
    # computed by hand from IEC 61966-2-1: the straight part, its end, the curve
    values = np.array([0.0, 0.02, 0.04045, 0.5, 1.0], np.float32)
    light = np.array([0.0, 0.00154799, 0.00313080, 0.21404114, 1.0])
    np.testing.assert_allclose(to_linear(values), light, atol=1e-7)
    np.testing.assert_allclose(from_linear(light.astype(np.float32)), values, atol=1e-6)


def test_every_16_bit_value_survives_linear_light() -> None:
    values = np.arange(65_536)
    found = from_linear(to_linear((values / 65_535).astype(np.float32))) * 65_535
    assert np.array_equal(np.rint(found), values)


def test_linear_light_round_trip_keeps_values_outside_srgb() -> None:
    values = np.array([-0.25, -0.01, 1.25], np.float32)
    np.testing.assert_allclose(from_linear(to_linear(values)), values, atol=1e-6)


def test_luminance_transfer_stays_inside_srgb() -> None:
    colours, light = _colours(0, 1), _colours(0, 1)[::-1]
    found = with_luminance(colours, light)
    np.testing.assert_allclose(found @ LUMINANCE, light @ LUMINANCE, atol=1e-4)
    assert found.min() >= -1e-6 and found.max() <= 1 + 1e-6


def test_black_and_white_have_no_colour() -> None:
    for grey in (0.0, 1.0):
        np.testing.assert_allclose(
            with_luminance(_colours(0, 1), np.full((1, 1, 3), grey, np.float32)), grey, atol=1e-5
        )


def test_a_star_and_b_star_stay_where_srgb_has_the_colour() -> None:
    """kornia's L*a*b* is the independent reading of the same formula."""
    colours, light = _colours(0.3, 0.5), np.repeat(_colours(0.35, 0.45)[..., :1], 3, axis=2)

    def lab(linear: Pixels) -> tuple[torch.Tensor, torch.Tensor]:
        return split_lab(torch.from_numpy(from_linear(linear).transpose(2, 0, 1)) * 2 - 1)

    expected = join_lab(lab(light)[0], lab(colours)[1])
    assert expected.min() > -1 and expected.max() < 1  # none was clamped
    found = from_linear(with_luminance(colours, light)).transpose(2, 0, 1) * 2 - 1
    np.testing.assert_allclose(found, expected.numpy(), atol=0.004)  # half an 8-bit level: kornia's white is rounded


def test_luminance_transfer_of_a_colour_to_itself_is_identity() -> None:
    colours = _colours(0, 1)
    np.testing.assert_allclose(with_luminance(colours, colours), colours, atol=1e-4)


@pytest.mark.parametrize("luminance", [0.05, 0.5, 0.9])
def test_a_colour_that_srgb_lacks_keeps_its_hue(luminance: float) -> None:
    """It moves straight to the grey of its luminance, so the order of its channels stays."""
    found = with_luminance(np.array([[[1.0, 0.2, 0.0]]], np.float32), np.full((1, 1, 3), luminance, np.float32))[0, 0]
    assert found[0] > found[1] > found[2]
