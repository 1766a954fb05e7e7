"""Pictures come upright, once."""

import io
import zlib

import numpy as np
import pytest
from picture_samples import MODES, exif_bytes, gradient, pillow_bytes
from PIL import Image, ImageOps, features

from i2i.images import Picture, decode, encode, probe, read

FORMATS = ["JPEG", "PNG", "WEBP", "TIFF", *(["AVIF"] if features.check("avif") else [])]


@pytest.mark.promise("R34")
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied_once(tmp_path, format, orientation):
    data = pillow_bytes(MODES["RGB"], format, exif=exif_bytes(_274=orientation))
    expected = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    picture = decode(data)
    assert np.array_equal(picture.pixels, expected)
    path = tmp_path / "picture"
    path.write_bytes(data)
    assert probe(path) == (expected.shape[1], expected.shape[0])
    again = decode(encode(picture, "PNG"))
    assert np.array_equal(again.pixels, expected)
    assert Image.open(io.BytesIO(encode(picture, "PNG"))).getexif().get(274) is None


@pytest.mark.promise("R34")
@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_alpha_is_turned_with_the_pixels(format):
    alpha = np.arange(12 * 17, dtype=np.uint8).reshape(12, 17) | 1
    whole = Image.fromarray(np.dstack([gradient(), alpha]))
    for orientation in range(1, 9):
        data = pillow_bytes(whole, format, exif=exif_bytes(_274=orientation), lossless=True)
        expected = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
        picture = decode(data)
        assert np.array_equal(picture.pixels, expected[..., :3])
        assert np.array_equal(picture.alpha, expected[..., 3])


def test_orientation_behind_the_pixels_of_a_png(tmp_path):
    data = pillow_bytes(MODES["RGB"], "PNG")
    content = exif_bytes(_274=6).removeprefix(b"Exif\0\0")
    chunk = len(content).to_bytes(4, "big") + b"eXIf" + content + zlib.crc32(b"eXIf" + content).to_bytes(4, "big")
    path = tmp_path / "late.png"
    path.write_bytes(data[:-12] + chunk + data[-12:])
    assert probe(path) == (12, 17)
    assert np.array_equal(read(path).pixels, np.rot90(np.array(MODES["RGB"]), -1))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bit_tiff_is_turned_like_an_eight_bit_one(tmp_path, orientation, channels):
    eight = gradient(channels=channels)
    # `encode` writes the block as it is, so this makes a TIFF that is to be turned
    turned = [
        encode(Picture(pixels, exif=exif_bytes(_274=orientation)), "TIFF")
        for pixels in (eight, eight.astype(np.uint16) * 257)
    ]
    expected = decode(turned[0]).pixels
    assert np.array_equal(decode(turned[1]).pixels, expected.astype(np.uint16) * 257)
    path = tmp_path / "a.tif"
    path.write_bytes(turned[1])
    assert probe(path) == expected.shape[1::-1]


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_orientation_out_of_range_is_ignored(value):
    data = pillow_bytes(MODES["RGB"], "PNG", exif=exif_bytes(_274=value))
    picture = decode(data)
    assert np.array_equal(picture.pixels, np.array(MODES["RGB"]))
    assert b"a maker" in picture.exif
