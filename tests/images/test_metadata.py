"""Metadata of files: read by their kind, bounded, dropped where damaged, never believed as more."""

import io
import struct
import zlib

import numpy as np
import pytest
from picture_samples import MODES, SRGB, exif_bytes, gradient, pillow_bytes, png, png_chunk
from PIL import Image, PngImagePlugin, features
from tiff_files import Kind, written

from i2i.images import Picture, decode, encode, not_kept_by, probe

RGB = np.array(MODES["RGB"])
P3 = (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
NAMES = ("exif", "xmp", "transparency", "interlace", "bbox", "gamma", "dpi", "icc_profile", "background", "loop")
MORE_NAMES = (
    "duration",
    "default_image",
    "srgb",
    "chromaticity",
    "aspect",
    "Raw profile type exif",
    "XML:com.adobe.xmp",
)
AVIF = pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")


def _with_chunks(data, *chunks):
    return data[:33] + b"".join(chunks) + data[33:]


def _bad_exif(format):
    """A file with an EXIF block that is none, and without one."""
    data, block = pillow_bytes(MODES["RGB"], format), b"hello world!"
    if format == "PNG":
        return _with_chunks(data, png_chunk(b"eXIf", block)), data
    if format == "JPEG":
        return data[:2] + b"\xff\xe1" + struct.pack(">H", 8 + len(block)) + b"Exif\0\0" + block + data[2:], data
    sides = (17 - 1).to_bytes(3, "little") + (12 - 1).to_bytes(3, "little")
    body = b"VP8X" + struct.pack("<II", 10, 8) + sides + data[12:] + b"EXIF" + struct.pack("<I", len(block)) + block
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body, data


@pytest.mark.parametrize("name", [*NAMES, *MORE_NAMES])
@pytest.mark.parametrize("mode", MODES)
def test_png_text_is_kept_under_any_keyword(mode, name):
    plain = pillow_bytes(MODES[mode], "PNG")
    for value in ("1", "b'Exif\\x00\\x00II*'", "<x/>", "\nexif\n 4\n4d4d\n"):
        found = decode(_with_chunks(plain, png_chunk(b"tEXt", name.encode() + b"\0" + value.encode())))
        wanted = decode(plain)
        assert np.array_equal(found.pixels, wanted.pixels)
        assert (found.alpha is None) == (wanted.alpha is None)
        assert found.exif is None and found.icc is None and found.colour is None and found.resolution is None


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_a_damaged_exif_block_is_dropped_and_the_picture_read(tmp_path, format):
    bad, plain = _bad_exif(format)
    assert np.array_equal(decode(bad).pixels, decode(plain).pixels) and decode(bad).exif is None
    (tmp_path / "a").write_bytes(bad)
    assert probe(tmp_path / "a") == (17, 12)


@AVIF
def test_a_damaged_exif_block_of_an_avif_is_dropped():
    data = pillow_bytes(MODES["RGB"], "AVIF", exif=exif_bytes(), speed=10)
    place = data.index(b"MM\0*", data.index(b"mdat"))
    found = decode(data[:place] + b"MM\x13*" + data[place + 4 :])
    assert np.array_equal(found.pixels, decode(data).pixels) and found.exif is None
    assert b"a maker" in decode(data).exif


@pytest.mark.parametrize(
    "kind", [b"iCCP", b"zTXt", b"iTXt", b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"eXIf", b"cICP", b"acTL"]
)
@pytest.mark.parametrize("content", [b"", b"\0", b"name", b"name\0\x07broken", b"\xff" * 40])
def test_damaged_metadata_chunks_are_ignored(kind, content):
    found = decode(_with_chunks(pillow_bytes(MODES["RGB"], "PNG"), png_chunk(kind, content)))
    assert np.array_equal(found.pixels, RGB) and found.icc is None and found.alpha is None


@pytest.mark.parametrize("name", [b"exif", b"APP1"])
@pytest.mark.parametrize("late", [False, True])
def test_exif_in_the_raw_profile_of_a_png_turns_it(tmp_path, name, late):
    block = exif_bytes(_274=6)
    text = b"\n%s\n%8d\n%s\n" % (name, len(block), block.hex().encode())
    chunk = png_chunk(b"zTXt", b"Raw profile type " + name + b"\0\0" + zlib.compress(text))
    plain = pillow_bytes(MODES["RGB"], "PNG")
    data = plain[:-12] + chunk + plain[-12:] if late else _with_chunks(plain, chunk)
    found = decode(data)
    assert np.array_equal(found.pixels, np.rot90(RGB, -1)) and b"a maker" in found.exif
    (tmp_path / "a").write_bytes(data)
    assert probe(tmp_path / "a") == (12, 17)


CHUNKS = {
    "cICP": png_chunk(b"cICP", bytes([12, 16, 0, 1])),
    "sRGB": png_chunk(b"sRGB", b"\1"),
}


@pytest.mark.promise("R34")
@pytest.mark.parametrize("kind", CHUNKS)
def test_the_colours_of_a_png_are_kept_chunk_for_chunk(kind):
    chunk = CHUNKS[kind]
    picture = decode(_with_chunks(pillow_bytes(MODES["RGB"], "PNG"), chunk))
    assert picture.colour == chunk
    assert chunk in encode(picture, "PNG") and not_kept_by(".png", picture) == []
    named = ["description of its colours dropped: JPEG has no place for it"]
    assert not_kept_by(".jpg", picture) == ([] if kind == "sRGB" else named)


def test_the_colours_of_srgb_are_no_loss():
    usual = png_chunk(b"gAMA", struct.pack(">I", 45_455))
    usual += png_chunk(b"cHRM", struct.pack(">8I", 31_270, 32_900, 64_000, 33_000, 30_000, 60_000, 15_000, 6_000))
    plain = pillow_bytes(MODES["RGB"], "PNG")
    assert not_kept_by(".jpg", decode(_with_chunks(plain, usual))) == []
    assert not_kept_by(".jpg", decode(_with_chunks(plain, usual, CHUNKS["cICP"]))) != []


@AVIF
def test_the_colours_of_an_avif_are_named():
    data = pillow_bytes(MODES["RGB"], "AVIF", speed=10)
    place = data.index(b"colrnclx") + 8
    assert decode(data).unread == ()
    picture = decode(data[:place] + struct.pack(">HH", 12, 16) + data[place + 4 :])
    assert not_kept_by(".png", picture) == ["not kept: description of its colours"]


def _bmp(kind, colours, profile=b""):
    data = pillow_bytes(MODES["RGB"], "BMP")
    start, pixels = 14 + 124, data[54:]
    head = data[:10] + struct.pack("<II", start, 124) + data[18:54] + bytes(16) + kind + colours
    return head + struct.pack("<4I", 4, 124 + len(pixels), len(profile), 0) + pixels + profile


def test_the_profile_of_a_bmp_is_kept_and_its_calibrated_colours_named():
    embedded = decode(_bmp(b"DEBM", bytes(48), SRGB))
    assert embedded.icc == SRGB and np.array_equal(embedded.pixels, RGB)
    assert not_kept_by(".png", embedded) == []
    # CIE XYZ of Display P3 (SMPTE EG 432-1), in 2.30
    ends = [0.48657, 0.22897, 0.0, 0.26567, 0.69174, 0.04511, 0.19822, 0.07929, 1.04394]
    colours = struct.pack("<9i3I", *(round(v * (1 << 30)) for v in ends), *[round(2.2 * 65_536)] * 3)
    assert decode(_bmp(bytes(4), colours)).unread == ("description of its colours",)
    assert decode(_bmp(b"BGRs", bytes(48))).unread == ()


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP", pytest.param("AVIF", marks=AVIF)])
def test_resolution_is_kept(format):
    back = decode(encode(Picture(gradient(), resolution=(300.0, 150.0)), format))
    assert back.resolution == pytest.approx((300, 150), abs=0.1)
    assert not_kept_by(f".{format.lower()}", Picture(gradient(), resolution=(300.0, 150.0))) == []


def test_resolution_is_turned_with_the_picture():
    data = pillow_bytes(MODES["RGB"], "PNG", dpi=(300, 150), exif=exif_bytes(_274=6))
    assert decode(data).resolution == pytest.approx((150, 300), abs=0.1)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", pytest.param("AVIF", marks=AVIF)])
def test_xmp_is_kept_and_says_upright(format):
    packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="%d"/>'
    data = encode(Picture(gradient(), xmp=packet % 6), format)
    back = decode(data)
    if format not in ("TIFF", "AVIF"):
        assert back.pixels.shape[:2] == (17, 12) and back.xmp == packet % 1
    assert b"adobe:ns:meta" in decode(encode(back, format)).xmp


@pytest.mark.promise("R34")
@pytest.mark.parametrize("said", ["me", "© 2024 Anna Müller", "著者"])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", pytest.param("AVIF", marks=AVIF)])
def test_copyright_survives(format, said):
    file = pillow_bytes(MODES["RGB"], "PNG", pnginfo=_texts(Copyright=said, Title="a name"))
    picture = decode(file)
    assert picture.texts == {"Copyright": said, "Title": "a name"}
    data = encode(picture, format)
    suffix = {"JPEG": ".jpg"}.get(format, f".{format.lower()}")
    assert any("Title" in note for note in not_kept_by(suffix, picture)) == (format != "PNG")
    for back in (decode(data), decode(encode(decode(data), format))):
        assert back.texts.get("Copyright") == said or said.encode() in back.exif


@pytest.mark.promise("R34")
@pytest.mark.parametrize("target", ["PNG", "JPEG", "WEBP", "TIFF", pytest.param("AVIF", marks=AVIF)])
@pytest.mark.parametrize("source", ["PNG", "JPEG", "WEBP", pytest.param("AVIF", marks=AVIF)])
@pytest.mark.parametrize("code", ["utf-8", "latin-1"])
def test_texts_of_exif_keep_their_bytes(source, target, code):
    block, said, lens = Image.Exif(), "© Müller".encode(code), "Öl".encode(code)
    block[271], block[33432] = "a maker", said
    block[34665] = {42036: lens}
    picture = decode(pillow_bytes(MODES["RGB"], source, exif=block.tobytes()))
    data = encode(picture, target)
    # the tags of a TIFF itself are written in UTF-8
    assert said in picture.exif and lens + b"\0" in picture.exif
    for found in (decode(data), decode(encode(decode(data), target))):
        assert said in found.exif or (target == "TIFF" and "© Müller".encode() in found.exif)
        assert lens + b"\0" in found.exif


def test_texts_that_an_exif_segment_has_no_room_for_are_named_and_the_rest_kept():
    texts = {"Author": "me", "Copyright": "x" * 65_500, "Description": "a name"}
    picture = Picture(gradient(), exif=exif_bytes(), texts=texts)
    back = decode(encode(picture, "JPEG")).exif
    assert b"a maker" in back and b"a name" in back and b"xxx" not in back
    assert not_kept_by(".jpg", picture) == ["text Copyright dropped: JPEG has no place for it"]
    for suffix in (".webp", ".png", ".tif"):
        assert not_kept_by(suffix, picture) == []


def test_texts_are_kept_where_the_exif_of_a_picture_is_too_long():
    picture = Picture(gradient(), exif=exif_bytes(_270="x" * 70_000), texts={"Author": "me and you"})
    back = decode(encode(picture, "JPEG")).exif
    assert b"me and you" in back and b"a maker" not in back
    assert not_kept_by(".jpg", picture) == ["EXIF dropped: JPEG has no place for it"]


def test_a_comment_that_is_longer_than_a_segment_is_named():
    picture = Picture(gradient(), texts={"Comment": "é" * 40_000})
    assert decode(encode(picture, "JPEG")).texts == {}
    assert not_kept_by(".jpg", picture) == ["text Comment dropped: JPEG has no place for it"]


def test_texts_of_a_tiff_are_bounded_and_without_control_characters():
    picture = decode(_tiff_saying((315, "s", b"\x1b[2Jme\0"), (33432, "s", b"x" * 70_000 + b"\0")))
    assert picture.texts == {"Author": "[2Jme"} and picture.unread == ("long texts",)


def _texts(**texts):
    info = PngImagePlugin.PngInfo()
    for name, value in texts.items():
        info.add_text(name, value)
    return info


def test_comments_of_jpeg_and_gif_are_texts():
    assert decode(pillow_bytes(MODES["RGB"], "JPEG", comment=b"of me")).texts == {"Comment": "of me"}
    assert decode(pillow_bytes(MODES["P"], "GIF", comment=b"of me")).texts == {"Comment": "of me"}
    assert Image.open(io.BytesIO(encode(Picture(gradient(), texts={"Comment": "me"}), "JPEG"))).info["comment"] == b"me"


def test_texts_are_bounded_and_without_control_characters():
    swelling = png_chunk(b"zTXt", b"Title\0\0" + zlib.compress(bytes(50_000_000)))
    told = png_chunk(b"tEXt", b"Author\0\x1b[2Jme\x07")
    picture = decode(_with_chunks(pillow_bytes(MODES["RGB"], "PNG"), swelling, told))
    assert picture.texts == {"Author": "[2Jme"} and picture.unread == ("long texts",)
    assert "not kept: long texts" in not_kept_by(".png", picture)


def test_picture_without_metadata_reports_no_loss():
    for suffix in (".png", ".jpg", ".webp", ".bmp", ".ppm", ".tif"):
        assert not_kept_by(suffix, Picture(gradient())) == []


def test_geo_tags_are_dropped_when_resized():
    source = Picture(gradient(), geo={33550: (2.0, 2.0, 0.0), 34737: "WGS 84"})
    assert Picture(gradient()).described_as(source).geo == source.geo
    smaller = Picture(gradient(6, 8)).described_as(source)
    assert smaller.geo == {}
    assert not_kept_by(".tif", smaller) == ["not kept: place on Earth (GeoTIFF), at another size"]


def test_png_pixels_are_read_from_any_split_of_idat():
    rows = [bytes(row) for row in np.random.default_rng(1).integers(0, 256, (300, 900), dtype=np.uint8)]
    whole = png(300, 300, 8, 2, rows)
    wanted = np.frombuffer(b"".join(rows), np.uint8).reshape(300, 300, 3)
    place = whole.index(b"IDAT")
    length = int.from_bytes(whole[place - 4 : place], "big")
    content = whole[place + 4 : place + 4 + length]
    pieces = b"".join(png_chunk(b"IDAT", content[i : i + 7001]) for i in range(0, length, 7001))
    for data in (
        whole,
        whole[: place - 4] + pieces + whole[-12:],
        whole[:-12] + png_chunk(b"IDAT", bytes(999)) + whole[-12:],
    ):
        assert np.array_equal(decode(data).pixels, wanted)


def _png_saying(kind, pattern, *values):
    return _with_chunks(pillow_bytes(MODES["RGB"], "PNG"), png_chunk(kind, struct.pack(pattern, *values)))


def _tiff_saying(*tags):
    return written(np.zeros((8, 8, 3), np.uint8), Kind(segment=(8, 0), tags=tags))


def _density(across, down):
    """The two numbers of an EXIF resolution in a JPEG, each above and below its line."""
    block = b"MM\0*\0\0\0\x08\0\3" + b"".join(
        struct.pack(">HHII", tag, 5, 1, 50 + 8 * i) for i, tag in enumerate((282, 283))
    )
    block += struct.pack(">HHIHH", 296, 3, 1, 2, 0) + bytes(4) + struct.pack(">4I", *across, *down)
    data = pillow_bytes(MODES["RGB"], "JPEG")
    return data[:2] + b"\xff\xe1" + struct.pack(">H", 8 + len(block)) + b"Exif\0\0" + block + data[2:]


_COLOURS, _RESOLUTION, _KEYS = "description of its colours", "an odd resolution", "odd GeoTIFF keys"
ODD = {
    "pHYs of 2^32": (_png_saying(b"pHYs", ">IIB", 0xFFFFFFFF, 0xFFFFFFFF, 1), _RESOLUTION),
    "pHYs of 0 across": (_png_saying(b"pHYs", ">IIB", 0, 3000, 1), _RESOLUTION),
    "EXIF of 0/0 down": (_density((72, 1), (0, 0)), _RESOLUTION),
    "EXIF of 0/0 across": (_density((0, 0), (72, 1)), _RESOLUTION),
    "EXIF of 2^32": (_density((0xFFFFFFFF, 1), (72, 1)), _RESOLUTION),
    "EXIF of 2^-32": (_density((72, 1), (1, 0xFFFFFFFF)), _RESOLUTION),
    "TIFF with white far off": (_tiff_saying((318, "2I", [0xFFFFFFFF, 1, 3, 10])), _COLOURS),
    "TIFF with white of 1e300": (_tiff_saying((318, "d", [1e300, 1e300])), _COLOURS),
    "TIFF with negative white": (_tiff_saying((318, "f", [-1, 0.3])), _COLOURS),
    "TIFF transfer above 16 bits": (_tiff_saying((301, "I", range(70_000, 70_256))), _COLOURS),
    "TIFF resolution of 2^32": (_tiff_saying((282, "2I", [0xFFFFFFFF, 1]), (283, "2I", [1, 0xFFFFFFFF])), _RESOLUTION),
    "TIFF resolution of 0/0": (_tiff_saying((282, "2I", [72, 1]), (283, "2I", [0, 0])), _RESOLUTION),
    "TIFF resolution of 1e300": (_tiff_saying((282, "d", [1e300]), (283, "d", [1e300])), _RESOLUTION),
    "GeoTIFF keys above 16 bits": (_tiff_saying((34735, "I", [1, 1, 0, 1, 70_000, 0, 1, 1])), _KEYS),
    "GeoTIFF keys of NaN": (_tiff_saying((34735, "d", [float("nan")] * 8)), _KEYS),
    "GeoTIFF keys of text": (_tiff_saying((34735, "s", b"keys\0")), _KEYS),
}  # fmt: skip


def test_primaries_without_a_white_point():
    srgb = [64, 100, 33, 100, 30, 100, 60, 100, 15, 100, 6, 100]
    assert decode(_tiff_saying((319, "2I", srgb))).unread == ()
    assert decode(_tiff_saying((319, "2I", [70, *srgb[1:]]))).unread == (_COLOURS,)


@pytest.mark.promise("R45")
@pytest.mark.parametrize("name", ODD)
def test_invalid_metadata_numbers_are_named_and_ignored(name):
    data, note = ODD[name]
    picture = decode(data() if callable(data) else data)
    assert picture.unread == (note,)
    for format in ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "PPM", *["AVIF"] * features.check("avif")):
        assert decode(encode(picture, format)).pixels.shape == picture.pixels.shape
        assert f"not kept: {note}" in not_kept_by(f".{format.lower()}", picture)


def test_invalid_exif_resolution_does_not_override_a_valid_jfif_one():
    data = _density((0, 0), (72, 1))
    place = data.index(b"JFIF\0") + 7
    picture = decode(data[:place] + struct.pack(">BHH", 1, 300, 150) + data[place + 5 :])
    assert picture.resolution == (300, 150) and picture.unread == ()
    assert decode(encode(picture, "WEBP")).resolution == pytest.approx((300, 150))


def _told(picture):
    return picture.exif, picture.icc, picture.xmp, picture.texts


def test_packed_texts_of_a_png_have_a_bound_together_and_the_rest_is_named():
    wasted = b"".join(png_chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(15 << 20))) for _ in range(3))
    title = png_chunk(b"zTXt", b"Title\0\0" + zlib.compress(b"a name"))
    plain = pillow_bytes(MODES["RGB"], "PNG")
    assert decode(_with_chunks(plain, title, wasted)).texts == {"Title": "a name"}
    late = decode(_with_chunks(plain, wasted, title))
    assert _told(late) == (None, None, None, {}) and late.unread == ("packed texts of more than 32 MiB",)


def test_damaged_packed_texts_use_up_the_bound_of_no_others():
    broken = [png_chunk(b"zTXt", b"a%d\0\0" % i + zlib.compress(b"a text")[:-1] + b"?") for i in range(500)]
    title = png_chunk(b"zTXt", b"Title\0\0" + zlib.compress(b"a name"))
    assert decode(_with_chunks(pillow_bytes(MODES["RGB"], "PNG"), *broken, title)).texts == {"Title": "a name"}


@pytest.mark.parametrize(
    ("name", "note"), [(b"iptc", "IPTC"), (b"8bim", "IPTC"), (b"x", "a raw profile of another kind")]
)
def test_raw_profiles_of_other_kinds_are_named(name, note):
    raw = png_chunk(b"zTXt", b"Raw profile type " + name + b"\0\0" + zlib.compress(b"\n%s\n 1\n00\n" % name))
    assert decode(_with_chunks(pillow_bytes(MODES["RGB"], "PNG"), raw)).unread == (note,)


def test_a_second_text_of_one_name_is_named():
    plain = pillow_bytes(MODES["RGB"], "PNG")
    for second in (png_chunk(b"tEXt", b"Title\0b"), png_chunk(b"zTXt", b"Title\0\0" + zlib.compress(b"b"))):
        picture = decode(_with_chunks(plain, png_chunk(b"tEXt", b"Title\0a"), second))
        assert picture.texts == {"Title": "a"} and picture.unread == ("a second text of the same name",)
    picture = decode(_with_chunks(plain, png_chunk(b"tEXt", b"Title\0a"), png_chunk(b"tEXt", b"T\7itle\0b")))
    assert picture.texts == {"Title": "a"}


@pytest.mark.parametrize("kind", [0, 2, 3])
def test_a_damaged_transparent_colour_is_dropped_and_named(kind):
    palette = png_chunk(b"PLTE", bytes(6)) if kind == 3 else b""
    whole = png_chunk(b"tRNS", {0: bytes(2), 2: bytes(6), 3: bytes(1)}[kind])
    for damaged in [whole[:-1] + b"!", *[png_chunk(b"tRNS", b"\0")] * (kind != 3)]:
        picture = decode(png(2, 1, 8, kind, [bytes(2 if kind != 2 else 6)], palette + damaged))
        assert picture.alpha is None and picture.unread == ("a damaged transparent colour",)


def test_a_transparent_colour_has_the_bits_of_the_depth():
    grey = decode(png(2, 1, 8, 0, [b"\1\2"], png_chunk(b"tRNS", b"\1\1")))
    assert grey.alpha.tolist() == [[0, 255]]
    colour = decode(png(2, 1, 8, 2, [b"\1\2\3\4\5\6"], png_chunk(b"tRNS", b"\7\1\7\2\7\3")))
    assert colour.alpha.tolist() == [[0, 255]]
    bits = decode(png(2, 1, 1, 0, [b"\x40"], png_chunk(b"tRNS", b"\0\3")))
    assert bits.alpha.tolist() == [[255, 0]]
    deep = decode(png(2, 1, 16, 0, [b"\1\1\0\1"], png_chunk(b"tRNS", b"\1\1")))
    assert deep.alpha.tolist() == [[0, 65_535]]


def exif_of(entries, order="<", count=None, sign=b"II*\0"):
    """A block of tags of one short number, which may claim another `count` of them."""
    rows = b"".join(struct.pack(order + "HHIHxx", tag, 3, 1, value) for tag, value in entries)
    return sign + struct.pack(order + "IH", 8, count or len(entries)) + rows


@pytest.mark.parametrize(
    "block",
    [
        exif_of([(274, 6)]),
        exif_of([(274, 6), (0x9999, 1)], count=40),
        b"Exif\0\0" + exif_of([(274, 6)]),
        exif_of([(274, 6)], sign=b"II\0*"),
        exif_of([(274, 6)], ">", sign=b"MM*\0"),
    ],
    ids=["no next", "cut short", "twice Exif", "odd sign II", "odd sign MM"],
)
def test_the_orientation_of_odd_exif_counts(block):
    segment = b"Exif\0\0" + block
    data = pillow_bytes(MODES["RGB"], "JPEG")
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]
    height, width = MODES["RGB"].height, MODES["RGB"].width
    assert decode(data).pixels.shape == (width, height, 3) != (height, width, 3)


def test_a_long_maker_note_is_kept():
    tags = Image.Exif()
    tags[34665] = {37500: b"x" * (1 << 21)}
    found = decode(pillow_bytes(MODES["RGB"], "PNG", exif=tags.tobytes()))
    assert b"x" * (1 << 21) in found.exif


@pytest.mark.promise("R34")
@pytest.mark.parametrize("target", ["PNG", "JPEG", "WEBP", "TIFF", pytest.param("AVIF", marks=AVIF)])
def test_all_directories_of_exif_are_kept(target):
    """Also that of interoperability, which stands within that of EXIF; written and read by Pillow."""
    block, kept = Image.Exif(), {34665: {33434: 0.5, 40965: {1: "R98", 2: b"0100"}}, 34853: {1: "N"}}
    for tag, values in kept.items():
        block[tag] = values
    data = encode(decode(pillow_bytes(MODES["RGB"], "JPEG", exif=block.tobytes())), target)
    for found in (data, encode(decode(data), target)):
        exif = Image.open(io.BytesIO(found)).getexif()
        assert exif.get_ifd(40965) == {1: "R98", 2: b"0100"}
        assert exif.get_ifd(34665)[33434] == 0.5 and exif.get_ifd(34853)[1] == "N"


@pytest.mark.promise("R43")
@pytest.mark.parametrize("to", [8, 26, 1 << 20])
@pytest.mark.parametrize("pointer", [34665, 34853, 40965])
def test_directories_that_point_in_circles_or_nowhere_end(pointer, to):
    """The directory at 8 points to that at 26, and that to itself, to the first one, or out of the block."""
    first = struct.pack("<HHHIII", 1, 34665, 4, 1, 26, 0)
    inner = struct.pack("<HHHIIHHIHHI", 2, pointer, 4, 1, to, 33437, 3, 1, 7, 0, 0)
    block = b"Exif\0\0II*\0" + struct.pack("<I", 8) + first + inner
    found = decode(pillow_bytes(MODES["RGB"], "PNG", exif=block)).exif
    assert len(found) < 300 and struct.pack("<HHIHH", 33437, 3, 1, 7, 0) in found
