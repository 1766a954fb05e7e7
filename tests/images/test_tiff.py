"""The kinds of TIFF that one decoder alone would get wrong."""

import io
import struct

import numpy as np
import pytest
import tifffile
from picture_samples import MODES, gradient, pillow_bytes, plain_tiff
from PIL import Image, ImageCms
from tiff_files import CMYK, DEFLATE, GREY, LZW, PALETTE, RGB, UNSPECIFIED, YCBCR, Kind, directory, samples
from tiff_files import written as built

from i2i.errors import ImageError
from i2i.images import Picture, decode, encode, not_kept_by, tiff_samples
from i2i.images.large import Canvas, Large, write_large


def written(pixels, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_planes_are_turned(dtype):
    pixels = gradient(dtype=dtype)
    given = pixels.transpose(2, 0, 1)
    data = written(given, photometric="rgb", planarconfig="separate", extratags=[(274, 3, 1, 6, True)])
    assert np.array_equal(decode(data).pixels, np.rot90(pixels, -1))


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


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", "<>")
def test_addresses_of_64_bits(order, big):
    kind = Kind(RGB, 16, order=order, big=big, compression=LZW, predictor=2)
    assert np.array_equal(decode(built(samples(kind), kind)).pixels, samples(kind))


@pytest.mark.parametrize("count", [1, 2])
def test_unspecified_channels_beside_colours_are_data(count):
    kind = Kind(RGB, extra=(UNSPECIFIED,) * count)
    stored = samples(kind)
    picture = decode(built(stored, kind))
    assert picture.alpha is None and np.array_equal(picture.extra, stored[..., 3:])
    assert np.array_equal(picture.channels(3 + count), stored)
    assert np.array_equal(picture.channels(3), stored[..., :3])
    assert picture.channels(1).shape[2] == 1
    with pytest.raises(ImageError, match=f"has {3 + count} channels where 6 are expected"):
        picture.channels(6)
    if count == 2:  # a constant in place of data would be a lie
        with pytest.raises(ImageError, match="has 5 channels where 4 are expected"):
            picture.channels(4)


def test_unspecified_channels_of_grey_are_data_as_it_is():
    kind = Kind(GREY, 16, extra=(UNSPECIFIED,))
    stored = samples(kind)
    picture = decode(built(stored, kind))
    assert np.array_equal(picture.channels(2), stored)
    with pytest.raises(ImageError, match="has 2 channels where 3 are expected"):
        picture.channels(3)


def test_a_network_of_four_channels_makes_data_of_data_and_alpha_of_colours():
    made = gradient(channels=4)
    data = decode(built(samples(Kind(RGB, extra=(UNSPECIFIED,))), Kind(RGB, extra=(UNSPECIFIED,))))
    result = data.with_pixels(made)
    assert result.alpha is None and np.array_equal(result.extra, made[..., 3:])
    again = decode(encode(result, "TIFF"))
    assert again.alpha is None and np.array_equal(again.channels(4), made)
    assert np.array_equal(decode(built(samples(Kind(RGB)), Kind(RGB))).with_pixels(made).alpha, made[..., 3])


def test_a_fourth_channel_that_is_not_declared_is_alpha():
    pixels = gradient(channels=4)
    for dtype in (np.uint8, np.uint16):
        picture = decode(plain_tiff(pixels.astype(dtype), photometric=2))
        assert np.array_equal(picture.alpha, pixels[..., 3].astype(dtype))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_with_their_number(dtype, odd):
    values = np.full((4, 5, 1), 0.5, dtype)
    values[1, 2:4] = odd
    kind = Kind(GREY, 8 * values.itemsize, "f", compression=DEFLATE)
    with pytest.raises(ImageError, match=r"^2 of 20 values are not finite; expected 0 to 1; only a model"):
        decode(built(values, kind))
    kind = Kind(GREY, 8 * values.itemsize, "f", tags=((42113, "s", b"nan\0"),))
    with pytest.raises(ImageError, match=r"not finite \(the file's value for no data is nan\)"):
        decode(built(values, kind))


@pytest.mark.parametrize("compression", [1, LZW, DEFLATE])
@pytest.mark.parametrize("nodata", [None, 7])
def test_missing_tiff_segments_have_the_nodata_value(compression, nodata):
    stored = samples(Kind(GREY, 16), height=16, width=48)
    tags = () if nodata is None else ((42113, "s", b"%d\0" % nodata),)
    kind = Kind(GREY, 16, compression=compression, segment=(16, 16), tags=tags)
    with tifffile.TiffFile(io.BytesIO(whole := built(stored, kind))) as file:
        (offsets, counts) = file.pages[0].dataoffsets, file.pages[0].databytecounts
    places = [(324, "I", [offsets[0], 0, offsets[2]]), (325, "I", [counts[0], 0, counts[2]])]
    sparse = built(stored, Kind(GREY, 16, compression=compression, segment=(16, 16), tags=(*tags, *places)))
    wanted = stored.copy()
    wanted[:, 16:32] = nodata or 0
    assert np.array_equal(decode(whole).pixels, stored) and np.array_equal(decode(sparse).pixels, wanted)


@pytest.mark.parametrize("compression", [1, LZW, DEFLATE])
def test_a_single_strip_whose_size_is_missing_goes_on_to_the_end(compression):
    kind = Kind(RGB, compression=compression, segment=(19, 0))
    stored, entry = samples(kind), struct.pack("<HHI", 279, 4, 1)
    whole = built(stored, kind)
    assert whole.count(entry) == 1
    data = whole.replace(entry, struct.pack("<HHI", 65_000, 4, 1))
    assert np.array_equal(decode(data).pixels, stored)


@pytest.mark.parametrize("fill_order", [1, 2])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "YCbCr"])
def test_jpeg_in_tiff_agrees_with_pillow(mode, fill_order):
    image = MODES["RGB"].resize((64, 48)).convert(mode)
    data = {n: pillow_bytes(image, "TIFF", compression="jpeg", quality=90, tiffinfo={266: n}) for n in (1, fill_order)}
    wanted = np.array(Image.open(io.BytesIO(data[1])).convert("L" if mode == "L" else "RGB"))
    assert np.array_equal(decode(data[fill_order]).pixels.squeeze(), wanted)


@pytest.mark.parametrize("fill_order", [1, 2])
@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_fax_agrees_with_pillow(compression, fill_order):
    data = pillow_bytes(MODES["1"], "TIFF", compression=compression, tiffinfo={266: fill_order})
    assert np.array_equal(decode(data).pixels[..., 0], np.array(MODES["1"]) * 255)


def test_an_old_jpeg_is_read_whole_and_not_by_bands(tmp_path):
    image = MODES["RGB"].resize((64, 48))
    jpeg = pillow_bytes(image, "JPEG", quality=95, subsampling=0)
    tags = [(256, "H", [64]), (257, "H", [48]), (258, "H", [8, 8, 8]), (259, "H", [6]), (262, "H", [6])]
    tags += [(277, "H", [3]), (278, "H", [48]), (273, "I", [16]), (279, "I", [len(jpeg)]), (512, "H", [1])]
    tags += [(513, "I", [16]), (514, "I", [len(jpeg)]), (530, "H", [1, 1])]
    place = 16 + len(jpeg)
    data = struct.pack("<2sHI", b"II", 42, place).ljust(16, b"\0") + jpeg + directory("<", tags, place)
    picture = decode(data)
    assert np.abs(picture.pixels.astype(int) - np.array(image)).mean() < 4
    path = tmp_path / "a.tif"
    path.write_bytes(data)
    with pytest.raises(ImageError, match="not read by bands"):
        Large(path, folder=tmp_path)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Kind(RGB, tags=((259, "H", [34712]),)), "packed with JPEG2000 is not read here"),
        (Kind(RGB, tags=((262, "H", [32844]),)), "kind LOGL with 8 bits a channel is not read here"),
        (Kind(RGB, tags=((258, "H", [8, 8, 16]),)), "channels of different types"),
        (Kind(RGB, tags=((258, "H", [8, 8, 16]), (262, "H", [32803]))), "channels of different types"),
        (Kind(CMYK, tags=((332, "H", [2]),)), "other inks than cyan, magenta, yellow and black"),
        (Kind(RGB, tags=((339, "H", [6, 6, 6]),)), "complex values of 8 bits is not read here"),
        (Kind(RGB, 32, "f", tags=((339, "H", [3] * 3), (262, "H", [8]))), "kind CIELAB with 32 bits"),
        (Kind(GREY, 12, compression=LZW, tags=((317, "H", [2]),)), "12 bits with predictor 2 is not read here"),
    ],
)
def test_sound_files_that_are_not_read_are_not_called_damaged(kind, reason):
    with pytest.raises(ImageError, match=reason) as caught:
        decode(built(samples(kind), kind))
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("compression", [1, LZW, DEFLATE, 32773])
def test_a_picture_that_ends_early_is_damaged(compression):
    kind = Kind(RGB, compression=compression, segment=(19, 0))
    data = built(samples(kind), kind)
    place = int.from_bytes(data[4:8], "little")
    with pytest.raises(ImageError, match="damaged"):
        decode(_shortened(data, place))


def _shortened(data, place):
    """The directory first, and half of the pixels behind it."""
    pixels, tags = data[16:place], data[place:]
    count = int.from_bytes(tags[:2], "little")
    start = 16 + len(tags)
    fields = bytearray(data[:4] + struct.pack("<I", 16) + bytes(8) + tags)
    for i in range(18, 18 + 12 * count, 12):
        tag, kind, number, value = struct.unpack_from("<HHII", fields, i)
        if tag == 273:
            struct.pack_into("<I", fields, i + 8, start)
        elif number * {1: 1, 2: 1, 3: 2, 4: 4, 5: 8}[kind] > 4:
            struct.pack_into("<I", fields, i + 8, value - place + 16)
    return bytes(fields) + pixels[: len(pixels) // 2]


UNUSABLE = {
    "no numbers": [(529, "2I", [0, 0] * 3)],
    "zeros": [(529, "2I", [0, 1] * 3)],
    "no green": [(529, "2I", [1, 2, 0, 1, 1, 2])],
    "flat": [(532, "2I", [0, 1, 0, 1, 128, 1, 128, 1, 128, 1, 128, 1])],
    "no reference": [(532, "2I", [0, 0] * 6)],
}


@pytest.mark.parametrize("name", UNUSABLE)
@pytest.mark.parametrize("bits", [8, 16])
def test_invalid_ycbcr_tags_are_ignored(name, bits):
    stored = samples(Kind(YCBCR, bits))
    wanted = decode(built(stored, Kind(YCBCR, bits))).pixels
    assert np.array_equal(decode(built(stored, Kind(YCBCR, bits, tags=tuple(UNUSABLE[name])))).pixels, wanted)


GEO = {
    33550: (10.0, 10.0, 0.0),
    33922: (0.0, 0.0, 0.0, 500_000.0, 4_600_000.0, 0.0),
    34735: (1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 32633),
    34736: (6_378_137.0, 298.257),
    34737: "WGS 84 / UTM zone 33N|",
    42112: "<GDALMetadata></GDALMetadata>",
    42113: "-9999",
}


def described(*tags):
    """A file that says all that a TIFF can say of its picture."""
    geo = [(34735, "H", GEO[34735]), *((tag, "d", GEO[tag]) for tag in (33550, 33922, 34736))]
    geo += [(tag, "s", GEO[tag].encode() + b"\0") for tag in (34737, 42112, 42113)]  # type: ignore[attr-defined]
    rest = [(282, "2I", [118, 1]), (283, "2I", [59, 1]), (296, "H", [3]), (700, "s", b"<x:xmpmeta/>")]
    rest += [
        (33432, "s", "© somebody".encode() + b"\0"),
        (315, "s", b"an author\0"),
    ]
    rest += [
        (318, "2I", [3127, 10_000, 3290, 10_000]),
        (319, "2I", [64, 100, 33, 100, 30, 100, 60, 100, 15, 100, 6, 100]),
    ]
    kind = Kind(RGB, tags=(*geo, *rest, *tags))
    return built(samples(kind), kind)


def said(picture):
    return picture.geo, picture.resolution, picture.xmp, picture.texts, picture.unread


def test_metadata_of_a_picture_is_read_and_written_again(tmp_path):
    picture = decode(described())
    assert picture.geo == GEO and picture.unread == ()
    assert picture.resolution == pytest.approx((118 * 2.54, 59 * 2.54))
    assert picture.xmp == b"<x:xmpmeta/>"
    assert picture.texts == {"Copyright": "© somebody", "Author": "an author"}
    assert not_kept_by(".tif", picture) == []
    with Canvas(*picture.pixels.shape, np.uint8, tmp_path) as canvas:  # type: ignore[call-arg]
        canvas.fill(0, picture.pixels)
        write_large(tmp_path / "bands.tif", canvas, picture, "TIFF")
    (tmp_path / "whole.tif").write_bytes(encode(picture, "TIFF"))
    for name in ("whole", "bands"):
        again = decode((tmp_path / f"{name}.tif").read_bytes())
        assert again.resolution == pytest.approx(picture.resolution, rel=1e-6)
        assert (again.geo, again.xmp, again.texts) == (picture.geo, picture.xmp, picture.texts)
        with Large(tmp_path / f"{name}.tif", folder=tmp_path) as large:
            assert said(large.info) == said(again)


def test_geo_tags_are_dropped_when_rotated():
    picture = decode(described((274, "H", [6])))
    assert picture.geo == {} and "GeoTIFF" in picture.unread[0]
    assert picture.resolution == pytest.approx((59 * 2.54, 118 * 2.54))


@pytest.mark.parametrize(
    "tag", [(301, "H", list(range(0, 65_536, 256))), (318, "2I", [3127, 10_000, 3500, 10_000]), (319, "d", [0.7] * 6)]
)
def test_other_colours_than_those_of_srgb_are_named(tag):
    kind = Kind(RGB, tags=(tag,))
    assert decode(built(samples(kind), kind)).unread == ("description of its colours",)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_written_tiffs_are_read_by_tifffile(dtype):
    pixels = gradient(300, 200, 3, dtype)
    with tifffile.TiffFile(io.BytesIO(encode(Picture(pixels), "TIFF"))) as file:
        assert len(file.pages[0].dataoffsets) == (1 if dtype == np.uint8 else 2)
        assert np.array_equal(file.pages[0].asarray(), pixels)


def test_refused_tiff_values_report_their_range():
    kind = Kind(GREY, 32, "f")
    with pytest.raises(ImageError, match=r"^floating-point values from 5 to 7; expected 0 to 1; only a model"):
        decode(built(np.array([[[5], [7], [6]]], np.float32), kind))


def test_no_text_of_a_file_is_in_a_message():
    kind = Kind(GREY, 32, "f", tags=((42113, "s", b"\x1b[2Jred\0"),))
    with pytest.raises(ImageError, match=r"^floating-point values from 5 to 7; expected 0 to 1; only a model"):
        decode(built(np.array([[[5], [7], [6]]], np.float32), kind))


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("compression", [1, LZW, DEFLATE])
def test_a_strip_that_is_larger_than_a_band(planar, compression, monkeypatch):
    monkeypatch.setattr("i2i.images.tiff_samples._UNIT_BYTES", 300)
    for predictor in (1, 2) if compression != 1 else (1,):
        for segment in [(19, 0), (5, 0), (16, 16)]:
            kind = Kind(RGB, 16, planar=planar, compression=compression, predictor=predictor, segment=segment)
            assert np.array_equal(decode(built(samples(kind), kind)).pixels, samples(kind))


def test_a_palette_of_eight_bits_is_not_darkened():
    kind = Kind(PALETTE, 2, tags=((320, "H", [0, 10, 200, 255] * 3),))
    stored = samples(kind)
    assert np.array_equal(decode(built(stored, kind)).pixels[..., 0], np.array([0, 10, 200, 255])[stored[..., 0]])


@pytest.mark.promise("R45")
@pytest.mark.parametrize(
    "tag",
    [
        (34665, "I", [2]),
        (34665, "I", [4]),
        (34665, "I", [16]),
        (34665, "I", [1 << 31]),
        (34665, "i", [-5]),
        (34853, "f", [float("nan")]),
        (34853, "d", [float("inf")]),
        (274, "f", [float("inf")]),
        (301, "2I", [0] * 512),
        (338, "f", [float("nan")]),
    ],
)
@pytest.mark.parametrize("extra", [(), (UNSPECIFIED,)])
def test_a_damaged_tag_beside_the_pixels_does_not_cost_the_picture(tag, extra):
    kind = Kind(RGB, extra=extra, tags=(tag,))
    stored = np.full((8, 8, kind.samples), 255, np.uint8)
    assert np.array_equal(decode(built(stored, kind)).pixels, stored[..., :3])


def test_the_time_of_a_tiff_is_kept_in_its_exif_and_not_said_to_be_dropped():
    kind = Kind(RGB, tags=((306, "s", b"2020:01:01 00:00:00\0"),))
    picture = decode(built(samples(kind), kind))
    assert picture.texts == {}
    for suffix, format in ((".tif", "TIFF"), (".jpg", "JPEG"), (".png", "PNG")):
        assert not_kept_by(suffix, picture) == []
        assert b"2020:01:01 00:00:00" in decode(encode(picture, format)).exif


def test_the_numbers_of_a_palette_cost_no_second_unpacking(monkeypatch):
    kind, unpacked = Kind(PALETTE, 8, compression=DEFLATE), []
    stored, samples_of = samples(kind), tiff_samples.samples_of
    monkeypatch.setattr(tiff_samples, "samples_of", lambda *given: unpacked.append(given) or samples_of(*given))
    assert np.array_equal(decode(built(stored, kind)).numbers, stored[..., 0]) and len(unpacked) == 1
