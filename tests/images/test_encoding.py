"""Each format keeps some parts of a picture, and scales, drops or refuses others."""

import io

import numpy as np
import pytest
from picture_samples import SRGB, exif_bytes, gradient
from PIL import Image, TiffImagePlugin, features

from i2i import images
from i2i.errors import OutputError, UsageError
from i2i.images import Picture, decode, encode, not_kept_by, probe, read, write, written_suffix
from i2i.images.formats import WRITTEN

WRITABLE = [f for f in sorted(set(WRITTEN.values())) if f != "AVIF" or features.check("avif")]


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("metadata", [False, True])
def test_lossless_round_trip(format, dtype, alpha, metadata):
    picture = Picture(gradient(dtype=dtype), gradient(channels=1, dtype=dtype)[..., 0] if alpha else None)
    if metadata:
        picture.icc, picture.exif = SRGB, exif_bytes()
    back = decode(encode(picture, format))
    assert back.format == format
    assert back.pixels.dtype == dtype and np.array_equal(back.pixels, picture.pixels)
    assert (back.alpha is not None) == alpha
    assert not alpha or np.array_equal(back.alpha, picture.alpha)
    if metadata:
        read_back = Image.Exif()
        read_back.load(back.exif)
        assert back.icc == SRGB and read_back[271] == "a maker"


@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_lossy_formats_carry_metadata(format):
    smooth = np.full((16, 16, 3), 90, np.uint8)
    back = decode(encode(Picture(smooth, icc=SRGB, exif=exif_bytes()), format))
    assert back.icc == SRGB and b"a maker" in back.exif
    assert np.abs(back.pixels.astype(int) - 90).max() <= 3


def test_profile_of_other_colours_is_not_carried():
    assert decode(encode(Picture(gradient(channels=1), icc=SRGB), "PNG")).icc is None


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_five_channel_tiff(dtype):
    picture = Picture(gradient(channels=5, dtype=dtype))
    back = decode(encode(picture, "TIFF"))
    assert back.pixels.dtype == dtype and np.array_equal(back.pixels, picture.pixels)
    with pytest.raises(OutputError, match="5"):
        encode(picture, "PNG")


def test_sixteen_bits_are_scaled_for_eight_bit_formats():
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8, 1)
    back = decode(encode(Picture(ramp), "BMP"))
    assert np.array_equal(back.pixels, np.rint(ramp / 257).astype(np.uint8))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [False, True])
def test_float_is_kept_by_tiff_and_scaled_by_others(channels, alpha):
    clear = gradient(channels=1, dtype=np.float32)[..., 0] if alpha else None
    picture = Picture(gradient(channels=channels, dtype=np.float32), clear)
    back = decode(encode(picture, "TIFF"))
    assert back.pixels.dtype == np.float32 and np.array_equal(back.pixels, picture.pixels)
    assert np.array_equal(back.alpha, clear) if alpha else back.alpha is None
    assert np.array_equal(decode(encode(picture, "PNG")).pixels, images.with_depth(picture.pixels, np.uint16))
    assert np.array_equal(decode(encode(picture, "BMP")).pixels, images.with_depth(picture.pixels, np.uint8))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_netpbm_round_trip(dtype, channels):
    picture = Picture(gradient(channels=channels, dtype=dtype), gradient(channels=1, dtype=dtype)[..., 0])
    back = decode(encode(picture, "PPM"))
    assert back.format == "PPM" and back.alpha is None
    assert back.pixels.dtype == dtype and np.array_equal(back.pixels, picture.pixels)


@pytest.mark.parametrize("format", WRITABLE)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("alpha", [False, True])
def test_grey_stays_grey(format, dtype, alpha):
    full = np.iinfo(dtype).max
    clear = np.full((8, 8), full // 2, dtype) if alpha else None
    back = decode(encode(Picture(np.full((8, 8, 1), full // 4, dtype), clear), format))
    assert np.ptp(back.pixels.astype(int), axis=2).max() == 0
    if format in ("PNG", "TIFF"):
        assert back.pixels.shape[2] == 1 and back.pixels.dtype == dtype
        assert back.alpha is None if not alpha else np.array_equal(back.alpha, clear)


@pytest.mark.promise("R36")
@pytest.mark.parametrize("format", WRITABLE)
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (3, 3), (3, 1000), (1001, 1), (17, 31)])
def test_any_size_comes_back(tmp_path, format, size):
    for channels in (1, 3):
        path = tmp_path / "picture"
        path.write_bytes(encode(Picture(gradient(*size, channels)), format))  # type: ignore[call-arg]
        assert read(path).pixels.shape[:2] == size
        assert probe(path) == size[::-1]


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "AVIF"])
def test_quality(format):
    if format not in WRITABLE:
        pytest.skip("this Pillow has no AVIF")
    picture = Picture(gradient(64, 64))
    sizes = [len(encode(picture, format, quality)) for quality in (10, 60, 100)]
    assert sizes == sorted(set(sizes))
    assert sizes[0] < len(encode(picture, format)) <= sizes[2]
    for quality in (0, 101, -1):
        with pytest.raises(UsageError, match="1 to 100"):
            encode(picture, format, quality)


def test_suffixes():
    assert written_suffix(".PNG") == ".PNG" and written_suffix("") == ""
    assert written_suffix(".gif") == ".png" and written_suffix(".Pbm") == ".png" and written_suffix(".mpo") == ".jpg"
    assert written_suffix(".psd") == ".psd.png"
    for suffix in images.SUFFIXES:
        assert written_suffix(suffix) in WRITTEN
    assert not images.SUFFIXES & images.UNREAD
    assert all(s == s.lower() and s[0] == "." for s in [*images.SUFFIXES, *images.UNREAD])


@pytest.mark.parametrize("suffix", sorted(WRITTEN))
def test_every_suffix_names_its_format(tmp_path, suffix):
    if WRITTEN[suffix] not in WRITABLE:
        pytest.skip("this Pillow has no AVIF")
    path = tmp_path / f"a{suffix.upper()}"
    write(path, Picture(gradient()))
    assert read(path).format == WRITTEN[suffix]


def test_a_name_without_suffix_keeps_the_format_of_the_picture(tmp_path):
    for format, written in (("WEBP", "WEBP"), ("TIFF", "TIFF"), ("GIF", "PNG")):
        write(tmp_path / "name", Picture(gradient(), format=format))
        assert read(tmp_path / "name").format == written


def test_write_refuses_unknown_suffix_and_too_large_webp(tmp_path):
    for suffix in (".gif", ".psd", ".xyz"):
        with pytest.raises(OutputError, match=rf"\{suffix} is not written here"):
            write(tmp_path / f"a{suffix}", Picture(gradient()))
    with pytest.raises(OutputError, match="17000x1"):
        write(tmp_path / "a.webp", Picture(np.zeros((1, 17_000, 3), np.uint8)))
    with pytest.raises(OutputError, match="GIF"):
        encode(Picture(gradient()), "GIF")
    assert list(tmp_path.iterdir()) == []


def test_exif_too_long_for_a_jpeg_is_dropped():
    exif = Image.Exif()
    exif[270] = "x" * 70_000
    picture = Picture(gradient(), exif=exif.tobytes())
    assert decode(encode(picture, "JPEG")).exif is None
    assert decode(encode(picture, "PNG")).exif == picture.exif


def test_a_bigtiff_is_written_back_with_its_description() -> None:
    source = io.BytesIO()
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[270] = "a description"
    Image.fromarray(np.full((8, 8, 3), 7, np.uint8)).save(source, "TIFF", big_tiff=True, tiffinfo=tags)
    picture = images.decode(source.getvalue())
    again = images.decode(images.encode(picture, "TIFF"))
    assert again.exif is not None
    assert b"a description" in again.exif


LAYOUT = [254, 266, 278, 280, 317, 320, 322, 323, 324, 325, 338, 340, 341, 347, 50706, 512, 530, 532]


@pytest.mark.parametrize("tag", LAYOUT)
def test_the_layout_of_another_file_does_not_enter_a_tiff(tag):
    block = Image.Exif()
    block[tag], block[271] = 2, "a maker"
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    data = encode(Picture(pixels, exif=block.tobytes()), "TIFF")
    assert np.array_equal(decode(data).pixels, pixels)
    with Image.open(io.BytesIO(data)) as file:
        assert np.array_equal(np.asarray(file), pixels) and file.getexif()[271] == "a maker"


@pytest.mark.parametrize(
    ("suffix", "lost_words"),
    [
        (".png", []),
        (".tif", []),
        (".jpg", ["transparency", "8 bits"]),
        (".webp", ["8 bits"]),
        (".bmp", ["transparency", "8 bits", "EXIF", "profile"]),
        (".ppm", ["transparency", "EXIF", "profile"]),
    ],
)
def test_dropped_metadata_is_reported_per_format(suffix, lost_words):
    pixels = np.zeros((4, 5, 3), np.uint16)
    block = Image.Exif()
    block[271] = "a maker"
    picture = Picture(pixels, pixels[..., 0], b"\0" * 16 + b"RGB " + b"\0" * 100, block.tobytes())
    told = not_kept_by(suffix, picture)
    assert len(told) == len(lost_words) and all(word in text for word, text in zip(lost_words, told, strict=True))
