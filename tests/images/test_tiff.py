"""The kinds of TIFF that one decoder alone would get wrong."""

import io

import numpy as np
import pytest
import tifffile
from picture_samples import MODES, gradient, pillow_bytes, plain_tiff
from PIL import Image, ImageCms

from i2i.errors import ImageError
from i2i.images import decode


def written(pixels, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_may_be_zero(dtype):
    pixels = gradient(channels=1, dtype=dtype)
    assert np.array_equal(decode(plain_tiff(pixels, photometric=0)).pixels, np.iinfo(dtype).max - pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_planes_and_pixels(dtype, planar):
    pixels = gradient(channels=3, dtype=dtype)
    given = pixels if planar == "contig" else pixels.transpose(2, 0, 1)
    data = written(given, photometric="rgb", planarconfig=planar, compression="deflate")
    assert np.array_equal(decode(data).pixels, pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_planes_are_turned(dtype):
    pixels = gradient(dtype=dtype)
    given = pixels.transpose(2, 0, 1)
    data = written(given, photometric="rgb", planarconfig="separate", extratags=[(274, 3, 1, 6, True)])
    assert np.array_equal(decode(data).pixels, np.rot90(pixels, -1))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
def test_alpha_is_straight(dtype, kind):
    full = 1 if dtype == np.float32 else np.iinfo(dtype).max
    alpha = np.full((12, 17), full if full == 1 else full // 2 + 1, dtype)
    alpha[:6] = full
    colours = gradient(dtype=dtype)
    premultiplied = colours * (alpha[..., None].astype(float) / full)
    stored = premultiplied.round().astype(dtype) if full > 1 else premultiplied.astype(dtype)
    given = np.dstack([stored if kind == "assocalpha" else colours, alpha])
    picture = decode(written(given, photometric="rgb", extrasamples=[kind], compression="deflate"))
    assert np.array_equal(picture.alpha, alpha)
    # the rounding of a premultiplied value is doubled where alpha is a half
    assert np.abs(picture.pixels.astype(float) - colours).max() <= (1.5 if full > 1 else 1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats(dtype):
    pixels = gradient(channels=1, dtype=np.float32).astype(dtype)
    picture = decode(written(pixels[..., 0]))
    assert picture.pixels.dtype == np.float32 and np.array_equal(picture.pixels, pixels.astype(np.float32))


def test_signed_values():
    values = np.array([[[0], [32767], [16384]]], np.int16)
    assert decode(plain_tiff(values, tags=[(339, 3, 2)])).pixels.ravel().tolist() == [0, 65535, 32769]
    with pytest.raises(ImageError, match="from -5 to 7"):
        decode(plain_tiff(np.array([[[-5], [7]]], np.int16), tags=[(339, 3, 2)]))
    with pytest.raises(ImageError, match="from -5 to 7"):
        decode(plain_tiff(np.array([[[-5], [7]]], np.int8), tags=[(339, 3, 2)]))


def test_values_that_no_rule_covers_are_refused():
    pixels = gradient(channels=1, dtype=np.uint16)
    with pytest.raises(ImageError, match="CFA"):
        decode(written(pixels[..., 0], photometric="cfa"))
    with pytest.raises(ImageError, match="camera raw"):
        decode(plain_tiff(pixels, tags=[(50706, 4, 1)]))
    with pytest.raises(ImageError, match="complex"):
        decode(written(np.zeros((4, 4), np.complex64)))


@pytest.mark.promise("R34")
def test_cielab_agrees_with_a_colour_management_system():
    grid = np.stack(np.meshgrid(*[np.arange(100, 200, 20, np.uint8)] * 3), axis=-1).reshape(-1, 5, 3)
    srgb, lab = (ImageCms.createProfile(kind) for kind in ("sRGB", "LAB"))
    image = ImageCms.profileToProfile(Image.fromarray(grid), srgb, lab, outputMode="LAB")
    pixels = decode(pillow_bytes(image, "TIFF")).pixels
    back = np.array(ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB"))
    assert np.abs(pixels.astype(int) - back).max() <= 2


@pytest.mark.promise("R34")
@pytest.mark.parametrize(
    ("coefficients", "black"), [((299, 587, 114), 0), ((2126, 7152, 722), 0), ((2126, 7152, 722), 16)]
)
def test_luminance_and_chroma_follow_the_coefficients_of_the_file(coefficients, black):
    parts = np.array(coefficients) / sum(coefficients)
    red_weight, _, blue_weight = parts
    colours = np.random.default_rng(0).integers(0, 256, (9, 7, 3)).astype(float)
    luminance = colours @ parts
    cb = (colours[..., 2] - luminance) / (2 - 2 * blue_weight) + 128
    cr = (colours[..., 0] - luminance) / (2 - 2 * red_weight) + 128
    stored = np.stack([luminance * (235 - black if black else 255) / 255 + black, cb, cr], axis=-1)
    tags = [(529, "2I", 3, [n for part in coefficients for n in (part, sum(coefficients))], True)]
    reference = [black, 235 if black else 255, 128, 255, 128, 255]
    tags += [(530, "H", 2, [1, 1], True), (532, "2I", 6, [n for part in reference for n in (part, 1)], True)]
    data = written(stored.round().clip(0, 255).astype(np.uint8), photometric="ycbcr", extratags=tags)
    assert np.abs(decode(data).pixels - colours).max() <= 3


@pytest.mark.promise("R34")
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_tiff_modes_agree_with_pillow(mode):
    image = MODES[mode] if mode in MODES else MODES["RGB"].convert(mode)
    picture = decode(pillow_bytes(image, "TIFF"))
    expected = np.array(image.convert("RGBA"))
    colours = picture.pixels if picture.pixels.shape[2] == 3 else np.repeat(picture.pixels, 3, axis=2)
    # Pillow rounds the products of YCbCr, not their sum
    assert np.abs(colours.astype(int) - expected[..., :3]).max() <= (mode == "YCbCr")
    assert (picture.alpha is not None) == (mode in ("LA", "RGBA"))
    assert picture.alpha is None or np.array_equal(picture.alpha, expected[..., 3])


def test_a_float_tiff_is_turned_and_keeps_its_profile():
    pixels = gradient(dtype=np.float32)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    tags = [(274, 3, 1, 6, True), (34675, 7, len(profile), profile, True)]
    picture = decode(written(pixels, photometric="rgb", extratags=tags, description="a view"))
    assert np.array_equal(picture.pixels, np.rot90(pixels, -1))
    assert picture.icc == profile and b"a view" in picture.exif
