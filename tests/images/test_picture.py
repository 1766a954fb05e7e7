"""Pictures as arrays and tensors: values, channels, depth and alpha follow their rules."""

import numpy as np
import pytest
import torch
from picture_samples import gradient
from PIL import Image

from i2i import images
from i2i.errors import ImageError
from i2i.images import Picture, from_planes, resize_planes, scaled_as_seen, to_planes


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_value_survives_the_tensor(dtype):
    values = np.arange(np.iinfo(dtype).max + 1, dtype=dtype).reshape(16, -1, 1)
    tensor = images.to_tensor(values)
    assert tensor.dtype == torch.float32 and tensor.shape[0] == 1
    assert tensor.min() == -1 and tensor.max() == 1
    assert np.array_equal(images.to_pixels(tensor, dtype), values)


def test_to_tensor_leaves_float_pixels_alone():
    pixels = gradient(1, 1, 1, np.float32)
    before = pixels.copy()
    images.to_tensor(pixels)
    assert np.array_equal(pixels, before)


def test_values_outside_are_clamped():
    assert images.to_pixels(torch.tensor([[[-3.0, 0.0, 3.0]]])).ravel().tolist() == [0, 128, 255]


def test_float_pixels_from_a_tensor_are_clamped_and_not_rounded():
    pixels = images.to_pixels(torch.tensor([[[-3.0, -0.999, 0.5, 3.0]]]), np.float32)
    assert pixels.dtype == np.float32
    assert np.allclose(pixels.ravel(), [0, 0.0005, 0.75, 1])


@pytest.mark.parametrize("source", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("target", [np.uint8, np.uint16, np.float32])
def test_depth_is_scaled_to_the_full_range(source, target):
    full = {np.uint8: 255, np.uint16: 65535, np.float32: 1}
    ends = np.array([[[0, full[source]]]], source)
    assert images.with_depth(ends, target).ravel().tolist() == [0, full[target]]
    assert images.with_depth(ends, target).dtype == target


def test_channels():
    opaque = Picture(gradient())
    clear = Picture(gradient(), gradient(channels=1)[..., 0])
    assert np.array_equal(opaque.channels(1)[..., 0], np.array(Image.fromarray(opaque.pixels).convert("L")))
    assert np.array_equal(opaque.channels(4)[..., 3], np.full((12, 17), 255))
    assert np.array_equal(clear.channels(4)[..., 3], clear.alpha)
    assert np.array_equal(clear.channels(2)[..., 1], clear.alpha)
    assert clear.channels(3).shape == (12, 17, 3)
    assert np.ptp(Picture(gradient(channels=1)).channels(3), axis=2).max() == 0
    with pytest.raises(ImageError, match="3 channels where 6"):
        opaque.channels(6)


@pytest.mark.promise("R34")
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_over_a_background(dtype):
    full = 1 if dtype == np.float32 else np.iinfo(dtype).max
    pixels, alpha = gradient(dtype=dtype), gradient(channels=1, dtype=dtype)[..., 0]
    alpha[0, :2] = 0, full
    picture = Picture(pixels, alpha, icc=b"profile", format="WEBP")
    cover = alpha[..., None].astype(float) / full
    for background, value in (("white", full), ("black", 0)):
        flat = picture.composited_on(background)
        assert flat.alpha is None and flat.pixels.dtype == dtype
        assert (flat.icc, flat.format) == (b"profile", "WEBP")
        wanted = pixels * cover + value * (1 - cover)
        assert np.abs(flat.pixels - wanted).max() <= (0.51 if full > 1 else 1e-6)
        assert (flat.pixels[0, 0] == value).all() and (flat.pixels[0, 1] == pixels[0, 1]).all()
    opaque = Picture(pixels)
    assert opaque.composited_on("white") is opaque


def test_rows_of_a_picture() -> None:
    picture = Picture(gradient(), alpha=gradient(channels=1)[..., 0])
    part = picture.read(3, 8)
    assert np.array_equal(part.pixels, picture.pixels[3:8]) and np.array_equal(part.alpha, picture.alpha[3:8])
    assert (part.height, part.width) == (5, 17)


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


def test_opaque_alpha_does_not_change_resizing():
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
