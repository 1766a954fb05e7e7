"""PNG laid out here is what other readers take it for, whatever deflates it."""

import io
import zlib
from typing import Any

import numpy as np
import pytest
from picture_samples import SRGB, exif_bytes, gradient
from PIL import Image

from i2i.images import Picture, decode, encode, png


@pytest.fixture(params=["isal", "zlib"], autouse=True)
def codec(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test once with isal, once as if it were not installed."""
    if request.param == "zlib":
        monkeypatch.setattr(png, "_codec", zlib)
    else:
        assert png._codec is pytest.importorskip("isal.isal_zlib")
    return str(request.param)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [False, True])
def test_same_pixels_and_metadata(dtype: Any, channels: int, alpha: bool) -> None:
    clear = gradient(channels=1, dtype=dtype)[..., 0] if alpha else None
    picture = Picture(gradient(channels=channels, dtype=dtype), clear, exif=exif_bytes())
    picture.icc = SRGB if channels == 3 else None
    data = encode(picture, "PNG")
    with Image.open(io.BytesIO(data)) as image:
        image.load()  # which looks at the check sums
        assert image.info.get("icc_profile") == picture.icc
    back = decode(data)
    assert np.array_equal(back.pixels, picture.pixels) and back.pixels.dtype == dtype
    assert back.exif == picture.exif
    assert (back.alpha is None) if clear is None else np.array_equal(back.alpha, clear)  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", [1, 5, 100])
def test_bands_are_one_picture(rows: int) -> None:
    pixels = gradient(channels=3, dtype=np.uint16)
    bands = [pixels[top : top + rows] for top in range(0, len(pixels), rows)]
    found = decode(b"".join(png.parts(*pixels.shape[:2], bands, Picture(pixels), None)))  # type: ignore[call-arg]
    assert np.array_equal(found.pixels, pixels)


def test_isal_does_not_pack_small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """It packs few bytes differently from process to process."""
    monkeypatch.setattr(png, "_codec", None)
    pixels = gradient(channels=3)
    with Image.open(io.BytesIO(png.encode(pixels, Picture(pixels), None))) as opened:
        assert np.array_equal(np.asarray(opened), pixels)
    assert png.compress(b"i2i" * 1000) == zlib.compress(b"i2i" * 1000, 3)
