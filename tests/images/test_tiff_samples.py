"""TIFF of every kind of samples against what was written, by formulas of the test's own."""

import numpy as np
import pytest
from tiff_files import (
    CIELAB,
    COLOURS,
    DEFLATE,
    DEPTHS,
    ICCLAB,
    LZW,
    NAMES,
    PALETTE,
    PLAIN,
    PREMULTIPLIED,
    YCBCR,
    Kind,
    expected,
    sampled,
    samples,
    settings,
    written,
)

from i2i.errors import ImageError
from i2i.images import decode, probe
from i2i.images.large import Large


def depth(kind):
    if kind.photometric == PALETTE:
        return np.uint8
    return np.float32 if kind.kind == "f" or kind.bits > 16 else np.uint8 if kind.bits <= 8 else np.uint16


def check(kind):
    stored = samples(kind)
    picture = decode(written(stored, kind))
    colours, bands, alpha = expected(stored, kind)
    if COLOURS[kind.photometric] == 1 and kind.photometric != PALETTE:
        colours, bands = np.dstack([colours, bands]), bands[..., :0]
    found = [picture.pixels] + ([] if picture.extra is None else [picture.extra])
    assert picture.pixels.dtype == depth(kind) and picture.pixels.dtype.isnative, kind
    assert [part.shape[2] for part in found] == [n for n in (colours.shape[2], bands.shape[2]) if n], kind
    assert (picture.alpha is None) == (alpha is None), kind
    full = 1 if picture.pixels.dtype == np.float32 else np.iinfo(picture.pixels.dtype).max
    # a half step where it was rounded once; conversions of colours have constants of seven digits, in float32
    step = 2e-6 if full == 1 else 0.5001 / full + {YCBCR: 3e-5, CIELAB: 3e-5, ICCLAB: 3e-5}.get(kind.photometric, 0)
    if PREMULTIPLIED in kind.extra and kind.photometric in (PALETTE, YCBCR, CIELAB, ICCLAB):
        # a colour that was rounded before it is divided by a small alpha
        seen = alpha > 0.5
        assert np.abs(picture.pixels / full - colours)[seen].max() <= 3.5 * step, kind
    else:
        tolerance = step if PREMULTIPLIED not in kind.extra or full > 1 else 1e-4
        assert np.abs(picture.pixels / full - colours).max() <= tolerance, kind
    if picture.extra is not None:
        assert np.abs(picture.extra / full - bands).max() <= step, kind
    if alpha is not None:
        assert picture.alpha.dtype == picture.pixels.dtype and np.abs(picture.alpha / full - alpha).max() <= step, kind


@pytest.mark.promise("R34")
@pytest.mark.parametrize("name", NAMES)
def test_samples_come_as_their_tags_say(name):
    for kind in sampled(NAMES[name], 12):
        check(kind)


@pytest.mark.slow
@pytest.mark.promise("R34")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", NAMES)
def test_samples_come_as_their_tags_say_in_every_setting(name):
    for kind, bits in DEPTHS[NAMES[name]]:
        for setting in settings(NAMES[name], kind, bits):
            check(setting)


@pytest.mark.parametrize("name", NAMES)
def test_samples_come_by_bands_as_they_come_at_once(name, tmp_path):
    path = tmp_path / "a.tif"
    for kind in sampled(NAMES[name], 3):
        path.write_bytes(data := written(samples(kind), kind))
        whole = decode(data)
        with Large(path, folder=tmp_path) as large:
            assert (large.width, large.height) == probe(path)
            parts = [large.read(top, min(top + 7, large.height)) for top in range(0, large.height, 7)]
        for field in ("pixels", "extra", "alpha"):
            found, wanted = [getattr(part, field) for part in parts], getattr(whole, field)
            assert (wanted is None) == (found[0] is None), kind
            assert wanted is None or np.array_equal(np.concatenate(found), wanted), kind


@pytest.mark.parametrize("compression", [PLAIN, LZW, DEFLATE])
@pytest.mark.parametrize("shared", [(2, 2), (4, 2), (1, 4)])
@pytest.mark.parametrize("rows", [19, 64])
def test_an_only_strip_may_end_within_the_rows_that_share_colours(compression, shared, rows):
    check(Kind(YCBCR, compression=compression, segment=(19, 0), subsampling=shared, tags=((278, "I", [rows]),)))


def test_strips_that_each_end_within_the_rows_that_share_colours_are_refused_by_name():
    kind = Kind(YCBCR, segment=(5, 0), subsampling=(2, 2))
    with pytest.raises(ImageError, match="colours that 2 rows share in strips or tiles of 5 rows is not read here"):
        decode(written(samples(kind), kind))
