"""Every mode of picture comes in with the values that its format defines, and upright, once."""

import io
import zlib

import numpy as np
import plain_png
import pytest
from picture_samples import MODES, exif_bytes, gradient, pillow_bytes, png, png_chunk, sixteen_bit_png, tiff
from PIL import Image, ImageOps, features

from i2i import images
from i2i.errors import ImageError
from i2i.images import decode, encode, probe, read


@pytest.mark.promise("R34")
@pytest.mark.parametrize("mode", MODES)
def test_png_modes_agree_with_pillow(mode):
    picture = decode(pillow_bytes(MODES[mode], "PNG"))
    expected = np.array(MODES[mode].convert("RGBA"))
    assert np.array_equal(images.with_channels(picture.pixels, 3), expected[..., :3])
    assert (picture.alpha is not None) == (mode in ("LA", "RGBA"))
    assert picture.alpha is None or np.array_equal(picture.alpha, expected[..., 3])


@pytest.mark.promise("R34")
@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_transparent_colour_of_a_png_becomes_alpha(mode):
    colour = {"P": 3, "L": int(np.asarray(MODES["L"])[0, 0]), "RGB": tuple(np.asarray(MODES["RGB"])[0, 0].tolist())}
    data = pillow_bytes(MODES[mode], "PNG", transparency=colour[mode])
    expected = np.array(Image.open(io.BytesIO(data)).convert("RGBA"))
    assert expected[..., 3].min() == 0
    assert np.array_equal(decode(data).alpha, expected[..., 3])


@pytest.mark.promise("R34")
@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("colour_type", [0, 3])
@pytest.mark.parametrize("transparent", [False, True])
def test_few_bits_agree_with_the_specification(depth, colour_type, transparent):
    dice = np.random.default_rng(depth)
    rows = [dice.integers(0, 256, -(-13 * depth // 8), np.uint8).tobytes() for _ in range(9)]
    chunks = b""
    if colour_type == 3:
        chunks += png_chunk(b"PLTE", dice.integers(0, 256, 3 * 2**depth, np.uint8).tobytes())
    if transparent:
        value = rows[0][0] >> (8 - depth)
        chunks += png_chunk(b"tRNS", bytes([0, value]) if colour_type == 0 else bytes(range(value + 1))[::-1])
    data = png(13, 9, depth, colour_type, rows, chunks)
    pixels, alpha = plain_png.decode(data)
    picture = decode(data)
    assert np.array_equal(images.with_channels(picture.pixels, 3), images.with_channels(pixels, 3))
    assert (picture.alpha is None) == (alpha is None)
    assert alpha is None or (np.array_equal(picture.alpha, alpha) and alpha.min() == 0)


def test_an_animated_png_gives_its_default_picture():
    shown, other = (Image.fromarray(gradient(channels=3)).rotate(angle) for angle in (0, 180))
    data = pillow_bytes(shown, "PNG", save_all=True, append_images=[other], default_image=True)
    assert b"acTL" in data
    assert np.array_equal(decode(data).pixels, np.array(shown))


def test_a_broken_animation_does_not_hide_the_default_picture(tmp_path):
    data = pillow_bytes(MODES["RGB"], "PNG")
    control = png_chunk(b"acTL", b"\0\0\0\2\0\0\0\0") + png_chunk(b"fcTL", b"\0\0\0\7" + bytes(22))
    path = tmp_path / "a.png"
    path.write_bytes(data[:33] + control + data[33:])
    assert np.array_equal(read(path).pixels, np.array(MODES["RGB"]))
    assert probe(path) == (17, 12)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_an_animated_png_of_sixteen_bits_keeps_them(channels):
    pixels = gradient(channels=channels, dtype=np.uint16)
    data = sixteen_bit_png(pixels, {2: 4, 3: 2, 4: 6}[channels])
    size = b"\0\0\0\x11\0\0\0\x0c"
    control = png_chunk(b"acTL", b"\0\0\0\1\0\0\0\0") + png_chunk(b"fcTL", bytes(4) + size + bytes(14))
    picture = decode(data[:33] + control + data[33:])
    assert np.array_equal(picture.pixels, pixels[..., : 1 if channels == 2 else 3])


@pytest.mark.promise("R34")
def test_only_the_first_frame_is_read():
    frames = [Image.fromarray(gradient(channels=3)).rotate(angle) for angle in (0, 90, 180)]
    for format, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        data = pillow_bytes(frames[0], format, save_all=True, append_images=frames[1:], **options)
        picture = decode(data)
        assert picture.format == format
        assert np.array_equal(picture.pixels, np.array(Image.open(io.BytesIO(data)).convert("RGB")))
    first = decode(pillow_bytes(frames[0], "MPO", save_all=True, append_images=frames[1:]))
    assert first.format == "JPEG"
    assert np.abs(first.pixels.astype(int) - decode(pillow_bytes(frames[0], "JPEG")).pixels).max() == 0


def test_gif():
    gray = decode(pillow_bytes(MODES["L"], "GIF"))
    assert gray.format == "GIF" and np.array_equal(images.with_channels(gray.pixels, 3)[..., 0], np.array(MODES["L"]))
    colours = decode(pillow_bytes(MODES["P"], "GIF", transparency=3))
    assert np.array_equal(colours.alpha == 0, np.array(MODES["P"]) == 3)
    shown = colours.alpha > 0
    assert np.array_equal(colours.pixels[shown], np.array(MODES["P"].convert("RGB"))[shown])


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_bmp(mode):
    picture = decode(pillow_bytes(MODES[mode], "BMP"))
    expected = np.array(MODES[mode].convert("RGBA"))
    assert np.array_equal(images.with_channels(picture.pixels, 3), expected[..., :3])


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_avif(mode):
    data = pillow_bytes(MODES[mode], "AVIF", quality=100, subsampling="4:4:4")
    picture = decode(data)
    assert picture.format == "AVIF" and (picture.alpha is None) == (mode != "RGBA")
    expected = np.array(MODES[mode].convert("RGBA"))
    assert np.abs(images.with_channels(picture.pixels, 3).astype(int) - expected[..., :3]).max() <= 12
    assert picture.alpha is None or np.array_equal(picture.alpha, expected[..., 3])


@pytest.mark.promise("R34")
def test_cmyk_jpeg_becomes_rgb():
    data = pillow_bytes(MODES["RGB"].convert("CMYK"), "JPEG", quality=95)
    assert np.array_equal(decode(data).pixels, np.array(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.promise("R34", "H24")
@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bit_png(colour_type, channels):
    pixels = gradient(channels=channels, dtype=np.uint16)
    picture = decode(sixteen_bit_png(pixels, colour_type))
    colours = channels if channels % 2 else channels - 1
    assert np.array_equal(picture.pixels, pixels[..., :colours])
    assert (picture.alpha is None) if channels % 2 else np.array_equal(picture.alpha, pixels[..., -1])


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3)])
def test_transparent_colour_of_a_sixteen_bit_png(colour_type, channels):
    pixels = gradient(channels=channels, dtype=np.uint16)
    picture = decode(sixteen_bit_png(pixels, colour_type, pixels[0, 0].astype(">u2").tobytes()))
    assert np.array_equal(picture.pixels, pixels)
    assert picture.alpha[0, 0] == 0 and (picture.alpha == 65535).sum() == pixels[..., 0].size - 1


@pytest.mark.promise("R34", "H11")
@pytest.mark.parametrize("big", [False, True])
def test_sixteen_bit_gray_is_not_clipped(big):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    order = ">" if big else "<"
    entries = [(256, 4, 16), (257, 4, 16), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    entries += [(278, 4, 16), (279, 4, 512)]
    data = tiff(order, entries, ramp.astype(f"{order}u2").tobytes())
    picture = decode(data)
    assert picture.pixels.dtype == np.uint16 and picture.pixels.dtype.isnative
    assert np.array_equal(picture.pixels[..., 0], ramp)
    assert np.array_equal(decode(pillow_bytes(Image.fromarray(ramp), "PNG")).pixels[..., 0], ramp)


@pytest.mark.promise("R34")
def test_thirty_two_bit_tiff():
    whole = np.array([[0, 2**31, 2**32 - 1]], np.uint32)
    entries = [(256, 4, 3), (257, 4, 1), (258, 3, 32), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    entries += [(278, 4, 1), (279, 4, 12)]
    assert np.allclose(decode(tiff("<", entries, whole.tobytes())).pixels.ravel(), [0, 0.5, 1])
    assert np.allclose(
        decode(pillow_bytes(Image.fromarray(np.array([[0.25, 1]], np.float32)), "TIFF")).pixels.ravel(), [0.25, 1]
    )
    with pytest.raises(ImageError, match="0 to 1"):
        decode(pillow_bytes(Image.fromarray(np.array([[0, 255]], np.float32)), "TIFF"))


# Orientation


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


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_orientation_out_of_range_is_ignored(value):
    data = pillow_bytes(MODES["RGB"], "PNG", exif=exif_bytes(_274=value))
    picture = decode(data)
    assert np.array_equal(picture.pixels, np.array(MODES["RGB"]))
    assert b"a maker" in picture.exif
