"""Any bytes give a picture or a reason: fuzzed in child processes, whose signals are counted."""

import io
import multiprocessing
import random
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_samples import MODES, exif_bytes, gradient, pillow_bytes, png
from PIL import features
from tiff_files import NAMES, sampled, samples, written

from i2i.errors import ImageError
from i2i.images import Limits, Picture, decode, encode, probe, read


def _planes():
    file = io.BytesIO()
    planes = gradient(dtype=np.uint16).transpose(2, 0, 1)
    tifffile.imwrite(file, planes, photometric="rgb", planarconfig="separate", compression="deflate")
    return file.getvalue()


SEEDS = {
    "tiff planes": _planes(),
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
    "gif": pillow_bytes(MODES["P"], "GIF", transparency=2),
    "gif animated": pillow_bytes(MODES["P"], "GIF", save_all=True, append_images=[MODES["RGB"]]),
    "png animated": pillow_bytes(MODES["RGB"], "PNG", save_all=True, append_images=[MODES["RGBA"]]),
    "ppm": encode(Picture(gradient(dtype=np.uint16)), "PPM"),
    "ppm plain": b"P3 4 2 255 " + b" ".join(b"%d" % i for i in range(24)),
    "tiff jpeg": pillow_bytes(MODES["RGB"], "TIFF", compression="jpeg"),
    "tiff float": encode(Picture(gradient(dtype=np.float32)), "TIFF"),
    "tiff g4": pillow_bytes(MODES["1"], "TIFF", compression="group4"),
    **({"avif": pillow_bytes(MODES["RGBA"], "AVIF", speed=10)} if features.check("avif") else {}),
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
        whole += _decodes(data, path)
    return whole


def _decodes(data, path):
    """Whether there is a picture in it. `probe` refuses nothing else, and for the same reason."""
    path.write_bytes(data)
    reason = ""
    try:
        picture = decode(data, FUZZ_LIMITS)
    except ImageError as error:
        reason = str(error)
        assert reason
    else:
        assert picture.pixels.ndim == 3 and picture.pixels.dtype in (np.uint8, np.uint16, np.float32)
    try:
        probe(path, FUZZ_LIMITS)
    except ImageError as error:
        assert str(error) == reason
    return not reason


def _exit_code(target, *given):
    """That of a child which calls it, killed after five minutes."""
    child = multiprocessing.get_context("fork").Process(target=target, args=given)
    child.start()
    child.join(300)
    if child.is_alive():
        child.kill()
        child.join()
    return child.exitcode


def _signals(folder, count):
    """The seeds whose children did not end well, with their exit codes; `count` mutations in all."""
    each = -(-count // len(SEEDS))
    codes = {name: _exit_code(_fuzz, folder / "mutated", name, count, each) for name in SEEDS}
    return {name: code for name, code in codes.items() if code != 0}


def _tiff_mutated(data, dice):
    """Bytes of it changed, or an entry of its directory: another tag, type, number of values, or value."""
    if dice.random() < 0.4:
        return _mutated(data, dice)
    data, big = bytearray(data), data[2:4] in (b"+\0", b"\0+")
    order = "little" if data[:2] == b"II" else "big"
    place = int.from_bytes(data[8:16] if big else data[4:8], order)
    head, size = (8, 20) if big else (2, 12)
    count = int.from_bytes(data[place : place + head], order)
    for _ in range(dice.randint(1, 3)):
        entry = place + head + size * dice.randrange(count)
        start, length = dice.choice([(0, 2), (2, 2), (4, (size - 4) // 2), (size - (size - 4) // 2, (size - 4) // 2)])
        value = dice.choice(
            [0, 1, 2, 3, 4, 7, 8, 12, 16, 255, 65_535, 1 << 20, (1 << 32) - 1, dice.randrange(len(data))]
        )
        data[entry + start : entry + start + length] = (value % (1 << 8 * length)).to_bytes(length, order)
    return bytes(data)


def _tiff_seeds():
    kinds = [kind for name in NAMES for kind in sampled(NAMES[name], 1)]
    return [written(samples(kind, 9, 11), kind) for kind in kinds] + [SEEDS[n] for n in SEEDS if n.startswith("tiff")]


def _fuzz_tiffs(path, part, count):
    dice, seeds = random.Random(part), _tiff_seeds()
    for _ in range(count):
        data = _tiff_mutated(dice.choice(seeds), dice)
        _decodes(data, path)


def _tiff_exit_codes(folder, parts, count):
    """The exit codes of children that fuzz `count` TIFFs each, one after the other."""
    return [_exit_code(_fuzz_tiffs, folder / "mutated", part, count) for part in range(parts)]


@pytest.mark.promise("R45")
def test_mutated_tiffs_of_every_kind_give_a_picture_or_an_image_error(tmp_path):
    assert _tiff_exit_codes(tmp_path, 1, 600) == [0]


@pytest.mark.slow
@pytest.mark.promise("R45")
@pytest.mark.timeout(6000)
def test_twenty_thousand_mutated_tiffs_give_a_picture_or_an_image_error(tmp_path):
    assert _tiff_exit_codes(tmp_path, 20, 1_000) == [0] * 20


@pytest.mark.promise("R45")
def test_a_thousand_mutations_give_a_picture_or_an_image_error(tmp_path):
    assert _signals(tmp_path, 1_000) == {}


@pytest.mark.slow
@pytest.mark.promise("R45")
@pytest.mark.timeout(1200)
def test_twenty_thousand_mutations_give_a_picture_or_an_image_error(tmp_path):
    assert _signals(tmp_path, 20_000) == {}


def test_some_mutations_still_decode(tmp_path):
    assert 0 < _fuzz(tmp_path / "mutated", "bmp", 0, 60) < 60


@pytest.mark.promise("R45")
@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_refused(data):
    with pytest.raises(ImageError):
        decode(data)


@pytest.mark.promise("R45", "H12")
@pytest.mark.parametrize("name", [n for n in SEEDS if not n.startswith("tiff") and "animated" not in n])
def test_truncated_is_an_error(name):
    data = SEEDS[name]
    for length in (len(data) // 2, len(data) * 3 // 4):
        with pytest.raises(ImageError):
            decode(data[:length])


@pytest.mark.promise("H1")
def test_a_png_whose_pixels_end_early_is_refused():
    rows = [bytes(64 * 3)] * 64
    whole = png(64, 64, 8, 2, rows)
    short = png(64, 64, 8, 2, rows[:5])
    assert decode(whole).pixels.shape == (64, 64, 3)
    with pytest.raises(ImageError):
        decode(short)
    length = int.from_bytes(whole[33:37], "big")
    for kept in (0, 1, 2, 7, length // 2, length - 5):
        content = whole[41 : 41 + kept]
        data = whole[:33] + len(content).to_bytes(4, "big") + b"IDAT" + content
        data += zlib.crc32(b"IDAT" + content).to_bytes(4, "big") + whole[-12:]
        with pytest.raises(ImageError):
            decode(data)


@pytest.mark.promise("R45")
@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "end", [b"", b"\xff", b"\xff\xd9", b"\xff\xda", b"\xff\xe1\0", b"\xff\xff\xff", b"\xff\1\xff\1", b"\xff\xd0\xff"]
)
def test_a_jpeg_that_ends_within_its_header_is_refused(tmp_path, end):
    data, path = pillow_bytes(MODES["RGB"], "JPEG"), tmp_path / "a"
    for start in (2, 20, data.index(b"\xff\xc0")):
        path.write_bytes(data[:start] + end)
        for look in (read, probe):
            with pytest.raises(ImageError):
                look(path)


@pytest.mark.promise("H12")
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_cut_anywhere_is_refused(progressive):
    data = pillow_bytes(MODES["RGB"].resize((96, 64)), "JPEG", progressive=progressive)
    for length in range(4, len(data) - 2, 37):
        with pytest.raises(ImageError):
            decode(data[:length])
