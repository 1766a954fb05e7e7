"""The difficult pictures of others, where a folder of them is given with `--hard`; hard.tsv says what each is."""

import csv
from pathlib import Path

import numpy as np
import plain_png
import pytest
from child_cost import cost
from PIL import Image, ImageOps

from i2i.errors import ImageError
from i2i.images import decode, probe, read, with_channels
from i2i.images.picture import Picture

OUTCOMES = Path(__file__).with_name("hard.tsv")
UNREAD = "is not read here"
SECONDS, MEGABYTES = 5, 1000
# Pillow's own conversion of these has other colours: CIELAB, and luminance with other coefficients than JPEG's; the
# last, CMYK with alpha, it does not read
OTHER_COLOURS = {"pillow__hopper.Lab.tif", "pillow__lab.tif", "imagers__ycbcr_lzw_bt709.tif"}
OTHER_COLOURS |= {"imagers__TODO hpredict_cmyk.tiff"}


@pytest.fixture(scope="module")
def hard(request):
    folder = request.config.getoption("--hard")
    if folder is None:
        pytest.skip("needs a folder of difficult pictures: --hard DIR")
    return folder


def _rows():
    with OUTCOMES.open(newline="") as file:
        rows = csv.reader((line for line in file if not line.startswith("#")), delimiter="\t", quoting=csv.QUOTE_NONE)
        return dict(list(rows)[1:])


def _described(picture: Picture):
    height, width, channels = picture.pixels.shape
    depth = "float" if picture.pixels.dtype == np.float32 else 8 * picture.pixels.dtype.itemsize
    return f"{width}x{height} {depth} {channels} {'opaque' if picture.alpha is None else 'alpha'} {picture.format}"


def _outcome(path):
    try:
        picture = read(path)
    except ImageError as error:
        return str(error).partition(";")[0]
    assert probe(path) == picture.pixels.shape[1::-1]
    return _described(picture)


def _pictures(hard, *suffixes):
    for name, outcome in _rows().items():
        if outcome.split(" ")[-1] in suffixes and outcome[0].isdigit() and outcome.count(" ") == 4:
            yield hard / name


@pytest.mark.promise("R34", "R44", "R45")
def test_every_file_is_a_picture_or_has_a_fitting_reason(hard):
    costs = {name: cost(_outcome, hard / name, SECONDS) for name in _rows()}
    found = {name: outcome for name, (outcome, _, _) in costs.items()}
    for name, outcome in _rows().items():
        if outcome == UNREAD and found[name].endswith(f" {UNREAD}"):
            found[name] = UNREAD  # Pillow names the format, each version in its own words
    assert found == _rows()
    assert max(seconds for _, seconds, _ in costs.values()) < SECONDS
    assert max(megabytes for _, _, megabytes in costs.values()) < MEGABYTES


def test_the_folder_is_the_one_described(hard):
    found = {p.relative_to(hard).as_posix() for p in hard.glob("*/*") if p.is_file() and p.parent.name != "LICENCES"}
    assert found == set(_rows())


def test_png_agrees_with_a_decoder_of_the_specification(hard):
    for path in _pictures(hard, "PNG"):
        picture = read(path)
        # this one is slow, and knows nothing of the orientation in XMP
        if picture.pixels.size > 3_000_000 or "xmp_tags" in path.name:
            continue
        pixels, alpha = plain_png.decode(path.read_bytes())
        assert picture.pixels.dtype == pixels.dtype, path
        assert np.array_equal(with_channels(picture.pixels, 3), with_channels(pixels, 3)), path
        assert (picture.alpha is None) == (alpha is None), path
        assert alpha is None or np.array_equal(picture.alpha, alpha), path


def test_jpeg_agrees_with_the_references_beside_it(hard):
    references = [p for p in sorted((hard / "jpeg_variants").glob("*.png")) if p.with_suffix(".jpg").exists()]
    assert len(references) > 15
    for path in references:
        if "lossless" in path.name:
            continue
        given, wanted = (with_channels(read(p).pixels, 3).astype(int) for p in (path.with_suffix(".jpg"), path))
        # of another decoder, with other rounding and other upsampling of chroma
        assert np.abs(given - wanted).mean() < 4, path


def test_eight_bit_pictures_agree_with_pillow(hard):
    for path in _pictures(hard, "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "PPM"):
        picture = read(path)
        if picture.pixels.dtype != np.uint8 or path.name in OTHER_COLOURS:
            continue
        image = ImageOps.exif_transpose(Image.open(path))
        wanted = np.array(image.convert("RGBA"))
        shown = np.broadcast_to(wanted[..., 3:] > 0, wanted[..., :3].shape)
        assert np.array_equal(with_channels(picture.pixels, 3)[shown], wanted[..., :3][shown]), path
        if picture.alpha is None:
            assert wanted[..., 3].min() == 255, path
        else:
            assert np.array_equal(picture.alpha, wanted[..., 3]), path


def test_half_of_any_file_is_no_crash(hard):
    def half(path):
        try:
            return decode(path.read_bytes()[: path.stat().st_size // 2]) and "picture"
        except ImageError:
            return "reason"

    outcomes = {name: cost(half, hard / name, SECONDS)[0] for name in _rows()}
    assert set(outcomes.values()) <= {"picture", "reason"}
