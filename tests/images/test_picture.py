"""Arrays and tensors: every value comes back, channels and depth follow their rules."""

import numpy as np
import pytest
import torch
from picture_samples import gradient
from PIL import Image

from i2i import images
from i2i.errors import ImageError
from i2i.images import Picture


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
        flat = picture.over(background)
        assert flat.alpha is None and flat.pixels.dtype == dtype
        assert (flat.icc, flat.format) == (b"profile", "WEBP")
        wanted = pixels * cover + value * (1 - cover)
        assert np.abs(flat.pixels - wanted).max() <= (0.51 if full > 1 else 1e-6)
        assert (flat.pixels[0, 0] == value).all() and (flat.pixels[0, 1] == pixels[0, 1]).all()
    opaque = Picture(pixels)
    assert opaque.over("white") is opaque
