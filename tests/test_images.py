"""Pictures in and out: depth, alpha, orientation, limits, damage, and files that appear whole or not at all."""

import contextlib
import io
import multiprocessing
import os
import random
import socket
import stat
import subprocess
import sys
import zlib
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps, TiffImagePlugin

from i2i import images
from i2i.errors import ImageError, OutputError
from i2i.images import Limits, Picture, decode, encode, probe, read, write


def gradient(height=12, width=17, channels=3, dtype=np.uint8):
    full = 1.0 if dtype == np.float32 else np.iinfo(dtype).max
    values = np.random.default_rng(channels).random((height, width, channels)) * full
    return values.astype(dtype)


def pillow_bytes(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif_bytes(**tags):
    exif = Image.Exif()
    exif[271] = "a maker"
    for tag, value in tags.items():
        exif[int(tag[1:])] = value
    return exif.tobytes()


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
    pytest.importorskip("tifffile")
    picture = Picture(gradient(channels=5, dtype=dtype))
    back = decode(encode(picture, "TIFF"))
    assert back.pixels.dtype == dtype and np.array_equal(back.pixels, picture.pixels)
    with pytest.raises(OutputError, match="5"):
        encode(picture, "PNG")


def test_five_channels_without_tifffile_say_what_to_install(monkeypatch):
    data = encode(Picture(gradient(channels=5)), "TIFF")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(ImageError, match=r"i2i\[large\]"):
        decode(data)


def test_sixteen_bits_are_scaled_for_eight_bit_formats():
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8, 1)
    back = decode(encode(Picture(ramp), "BMP"))
    assert np.array_equal(back.pixels, np.rint(ramp / 257).astype(np.uint8))


MODES = {
    "1": Image.fromarray(gradient(channels=1)[..., 0]).convert("1"),
    "L": Image.fromarray(gradient(channels=1)[..., 0]),
    "LA": Image.fromarray(gradient(channels=2), "LA"),
    "P": Image.fromarray(gradient()).quantize(7),
    "RGB": Image.fromarray(gradient()),
    "RGBA": Image.fromarray(gradient(channels=4)),
}


@pytest.mark.parametrize("mode", MODES)
def test_png_modes_agree_with_pillow(mode):
    picture = decode(pillow_bytes(MODES[mode], "PNG"))
    expected = np.array(MODES[mode].convert("RGBA"))
    assert np.array_equal(images.with_channels(picture.pixels, 3), expected[..., :3])
    assert (picture.alpha is not None) == (mode in ("LA", "RGBA"))
    assert picture.alpha is None or np.array_equal(picture.alpha, expected[..., 3])


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_transparent_colour_of_a_png_becomes_alpha(mode):
    colour = {"P": 3, "L": int(np.asarray(MODES["L"])[0, 0]), "RGB": tuple(np.asarray(MODES["RGB"])[0, 0].tolist())}
    data = pillow_bytes(MODES[mode], "PNG", transparency=colour[mode])
    expected = np.array(Image.open(io.BytesIO(data)).convert("RGBA"))
    assert expected[..., 3].min() == 0
    assert np.array_equal(decode(data).alpha, expected[..., 3])


def test_cmyk_jpeg_becomes_rgb():
    data = pillow_bytes(MODES["RGB"].convert("CMYK"), "JPEG", quality=95)
    assert np.array_equal(decode(data).pixels, np.array(Image.open(io.BytesIO(data)).convert("RGB")))


def _sixteen_bit_png(pixels, colour_type, transparent=b""):
    def chunk(kind, content):
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    height, width = pixels.shape[:2]
    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([16, colour_type, 0, 0, 0])
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    colour = chunk(b"tRNS", transparent) if transparent else b""
    data = chunk(b"IHDR", head) + colour + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bit_png(colour_type, channels):
    pixels = gradient(channels=channels, dtype=np.uint16)
    picture = decode(_sixteen_bit_png(pixels, colour_type))
    colours = channels if channels % 2 else channels - 1
    assert np.array_equal(picture.pixels, pixels[..., :colours])
    assert (picture.alpha is None) if channels % 2 else np.array_equal(picture.alpha, pixels[..., -1])


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3)])
def test_transparent_colour_of_a_sixteen_bit_png(colour_type, channels):
    pixels = gradient(channels=channels, dtype=np.uint16)
    picture = decode(_sixteen_bit_png(pixels, colour_type, pixels[0, 0].astype(">u2").tobytes()))
    assert np.array_equal(picture.pixels, pixels)
    assert picture.alpha[0, 0] == 0 and (picture.alpha == 65535).sum() == pixels[..., 0].size - 1


@pytest.mark.parametrize("big", [False, True])
def test_sixteen_bit_gray_is_not_clipped(big):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    order = ">" if big else "<"
    entries = [(256, 4, 16), (257, 4, 16), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    entries += [(278, 4, 16), (279, 4, 512)]
    data = _tiff(order, entries, ramp.astype(f"{order}u2").tobytes())
    picture = decode(data)
    assert picture.pixels.dtype == np.uint16 and picture.pixels.dtype.isnative
    assert np.array_equal(picture.pixels[..., 0], ramp)
    assert np.array_equal(decode(pillow_bytes(Image.fromarray(ramp), "PNG")).pixels[..., 0], ramp)


def test_thirty_two_bit_tiff():
    whole = np.array([[0, 2**31, 2**32 - 1]], np.uint32)
    entries = [(256, 4, 3), (257, 4, 1), (258, 3, 32), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    entries += [(278, 4, 1), (279, 4, 12)]
    assert np.allclose(decode(_tiff("<", entries, whole.tobytes())).pixels.ravel(), [0, 0.5, 1])
    assert np.allclose(
        decode(pillow_bytes(Image.fromarray(np.array([[0.25, 1]], np.float32)), "TIFF")).pixels.ravel(), [0.25, 1]
    )
    with pytest.raises(ImageError, match="0 to 1"):
        decode(pillow_bytes(Image.fromarray(np.array([[0, 255]], np.float32)), "TIFF"))


def _tiff(order, entries, strip):
    endian = "little" if order == "<" else "big"

    def number(value, size):
        return value.to_bytes(size, endian)

    directory = number(len(entries), 2)
    for tag, kind, value in entries:
        field = number(value, 2) + b"\0\0" if kind == 3 else number(value, 4)
        directory += number(tag, 2) + number(kind, 2) + number(1, 4) + field
    head = b"II*\0" if order == "<" else b"MM\0*"
    return head + number(8 + len(strip), 4) + strip + directory + b"\0\0\0\0"


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


def _png_header(width, height):
    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + head + zlib.crc32(b"IHDR" + head).to_bytes(4, "big") + b"\0\0\0\0IDAT"


@pytest.mark.parametrize("size", [(100_000, 100_000), (70_000, 1), (30_000, 30_000), (0, 5)])
def test_limits_come_before_decoding(tmp_path, monkeypatch, size):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    path = tmp_path / "bomb.png"
    path.write_bytes(_png_header(*size))
    for look in (read, probe):
        with pytest.raises(ImageError):
            look(path)


def test_limits_of_bytes_and_own_limits(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(pillow_bytes(MODES["RGB"], "PNG"))
    with pytest.raises(ImageError, match="bytes: at most 10"):
        read(path, Limits(file_bytes=10))
    with pytest.raises(ImageError, match="at most 100"):
        probe(path, Limits(pixels=100))
    path.write_bytes(b"")
    with pytest.raises(ImageError, match="empty"):
        read(path)


SEEDS = {
    **{f"png {mode}": pillow_bytes(image, "PNG") for mode, image in MODES.items()},
    "png 16": encode(Picture(gradient(dtype=np.uint16)), "PNG"),
    "jpeg": pillow_bytes(MODES["RGB"], "JPEG", exif=exif_bytes(_274=6)),
    "jpeg progressive": pillow_bytes(MODES["RGB"], "JPEG", progressive=True),
    "jpeg cmyk": pillow_bytes(MODES["RGB"].convert("CMYK"), "JPEG"),
    "webp": pillow_bytes(MODES["RGB"], "WEBP"),
    "webp lossless": pillow_bytes(MODES["RGBA"], "WEBP", lossless=True),
    "tiff": pillow_bytes(MODES["RGB"], "TIFF"),
    "tiff lzw": pillow_bytes(MODES["RGBA"], "TIFF", compression="tiff_lzw"),
    "tiff 16": encode(Picture(gradient(dtype=np.uint16)), "TIFF"),
    "tiff 5": encode(Picture(gradient(channels=5)), "TIFF"),
    "bmp": pillow_bytes(MODES["RGB"], "BMP"),
    "bmp p": pillow_bytes(MODES["P"], "BMP"),
}


FUZZ_LIMITS = Limits(pixels=1 << 22)


def _mutated(data, dice):
    data = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        place = dice.randrange(len(data))
        kind = dice.choice(["byte", "bit", "insert", "cut", "delete"])
        if kind == "byte":
            data[place] = dice.randrange(256)
        elif kind == "bit":
            data[place] ^= 1 << dice.randrange(8)
        elif kind == "insert":
            data[place:place] = dice.randbytes(dice.randint(1, 8))
        elif kind == "cut" and place > 8:
            del data[place:]
        else:
            del data[place : place + dice.randint(1, 8)]
        data = data or bytearray(b"\0")
    return bytes(data)


def _repaired(data):
    """A PNG with right checksums, so that mutations reach what lies behind them."""
    out, place = data[:8], 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        chunk = data[place + 4 : place + 8 + length]
        out += data[place : place + 4] + chunk + zlib.crc32(chunk).to_bytes(4, "big")
        place += 12 + length
    return out + data[place:]


def _fuzz(path, name, part, count):
    """`count` mutations of a seed, each a picture or an `ImageError`; how many were pictures."""
    dice = random.Random(f"{name} {part}")
    whole = 0
    for _ in range(count):
        data = _mutated(SEEDS[name], dice)
        if name.startswith("png") and dice.random() < 0.7:
            data = _repaired(data)
        whole += _decodes(data)
        path.write_bytes(data)
        with contextlib.suppress(ImageError):
            probe(path, FUZZ_LIMITS)
    return whole


def _decodes(data):
    try:
        picture = decode(data, FUZZ_LIMITS)
    except ImageError as error:
        assert str(error)
        return False
    assert picture.pixels.ndim == 3 and picture.pixels.dtype in (np.uint8, np.uint16, np.float32)
    return True


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SEEDS)
def test_any_bytes_give_a_picture_or_an_image_error(tmp_path, name):
    _fuzz(tmp_path / "mutated", name, 0, 60)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_twenty_thousand_mutations_give_a_picture_or_an_image_error(tmp_path):
    # in processes of their own: a decoder that crashes breaks the pool, not the tests
    parts, count = 4, -(-20_000 // (4 * len(SEEDS)))
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        jobs = [
            pool.submit(_fuzz, tmp_path / f"{i}-{part}", name, part, count)
            for i, name in enumerate(SEEDS)
            for part in range(1, parts + 1)
        ]
        whole = sum(job.result() for job in jobs)
    assert 0 < whole < len(jobs) * count


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_refused(data):
    with pytest.raises(ImageError):
        decode(data)


@pytest.mark.parametrize("name", [n for n in SEEDS if not n.startswith("tiff")])
def test_truncated_is_an_error(name):
    data = SEEDS[name]
    for length in (len(data) // 2, len(data) * 3 // 4):
        with pytest.raises(ImageError):
            decode(data[:length])


def test_other_formats_are_refused_whatever_their_name(tmp_path):
    for format in ("GIF", "PPM", "ICO", "TGA"):
        path = tmp_path / f"{format}.png"
        path.write_bytes(pillow_bytes(MODES["RGB"], format))
        with pytest.raises(ImageError, match="not a PNG"):
            read(path)


@pytest.mark.timeout(10)
def test_special_files_do_not_block(tmp_path):
    os.mkfifo(tmp_path / "fifo.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.png"))
        for name in ("fifo.png", "socket.png"):
            for look in (read, probe):
                with pytest.raises(ImageError, match="not a regular file"):
                    look(tmp_path / name)
    for path in (tmp_path, tmp_path / "missing.png", Path("/dev/null")):
        with pytest.raises(ImageError):
            read(path)


def test_names_that_are_not_utf8(tmp_path, not_utf8):
    test_odd_names(tmp_path, f"{not_utf8}.png")


@pytest.mark.parametrize("name", ["with space'\".png", "new\nline.png", "-x.png", "x" * 251 + ".png"])
def test_odd_names(tmp_path, name):
    path = tmp_path / name
    write(path, Picture(gradient()))
    assert np.array_equal(read(path).pixels, gradient())
    assert probe(path) == (17, 12)


def test_write_refuses_unknown_suffix_and_too_large_webp(tmp_path):
    with pytest.raises(OutputError, match=r"\.gif"):
        write(tmp_path / "a.gif", Picture(gradient()))
    with pytest.raises(OutputError, match="17000x1"):
        write(tmp_path / "a.webp", Picture(np.zeros((1, 17_000, 3), np.uint8)))
    assert list(tmp_path.iterdir()) == []


def test_atomic_write_keeps_the_old_file_when_the_writer_fails(tmp_path):
    path = tmp_path / "state"
    images.atomic_write(path, lambda file: file.write(b"old"))
    old_umask = os.umask(0o027)
    try:
        images.atomic_write(path, lambda file: file.write(b"new"))
    finally:
        os.umask(old_umask)
    assert path.read_bytes() == b"new" and stat.S_IMODE(path.stat().st_mode) == 0o640

    def half(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        images.atomic_write(path, half)
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(ZeroDivisionError):
        images.atomic_write(path, lambda file: 1 / 0)
    with pytest.raises(OutputError, match="No such file"):
        images.atomic_write(tmp_path / "missing" / "state", lambda file: None)


FULL_DISK = """
import resource, signal, sys, torch
from pathlib import Path
from i2i.errors import OutputError
from i2i.images import atomic_write
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
path = Path(sys.argv[1])
writers = {
    "bytes": lambda file: file.write(bytes(1_000_000)),
    "pieces": lambda file: [file.write(bytes(1_000)) for _ in range(1_000)],
    "torch": lambda file: torch.save({"weights": torch.zeros(250_000)}, file),
}
for name, writer in writers.items():
    try:
        atomic_write(path, writer)
    except OutputError as error:
        print(name, error)
"""


def test_full_disk(tmp_path):
    path = tmp_path / "state"
    path.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["bytes", "pieces", "torch"]
    assert all(str(path) in line and "are free" in line for line in lines)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_bigtiff_is_written_back_with_its_description() -> None:
    source = io.BytesIO()
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[270] = "a description"
    Image.fromarray(np.full((8, 8, 3), 7, np.uint8)).save(source, "TIFF", big_tiff=True, tiffinfo=tags)
    picture = images.decode(source.getvalue())
    again = images.decode(images.encode(picture, "TIFF"))
    assert again.exif is not None
    assert b"a description" in again.exif
