"""Values in units: their range, what is missing, and the way back to the numbers of a file."""

import math
from typing import Any

import numpy as np
import pytest

from i2i import images
from i2i.errors import ImageError, OutputError
from i2i.images import Picture
from i2i.images.picture import NODATA, resized_missing
from i2i.images.units import (
    as_stored,
    from_units,
    in_units,
    missing_in,
    result_dtype,
    to_units,
    with_no_data,
)


def plane(*values: float, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return np.array(values, dtype).reshape(1, -1, 1)


def test_a_range_becomes_0_to_1_and_what_is_outside_is_clipped_and_counted() -> None:
    values = plane(200, 260, 320, 150, 400, np.inf)
    units, outside = to_units(values, (200, 320))
    assert units.ravel().tolist() == [0, 0.5, 1, 0, 1, 1] and outside == 3
    assert to_units(values, (200, 320), np.array([[0, 0, 0, 1, 0, 0]], bool))[1] == 2


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int16", "uint32", "int64", "float16", "float64"])
def test_every_type_of_numbers_goes_in(dtype: str) -> None:
    assert to_units(plane(0, 25, 100, dtype=dtype), (0, 100))[0].ravel().tolist() == [0, 0.25, 1]


def test_every_integer_of_16_bits_comes_back() -> None:
    values = np.arange(-(2**15), 2**15, dtype=np.int16).reshape(256, 256, 1)
    limits = (-32768.0, 32767.0)
    assert np.array_equal(from_units(to_units(values, limits)[0], limits, values.dtype), values)


def test_integers_are_rounded_and_stop_at_the_bounds_of_their_type() -> None:
    assert from_units(plane(0, 0.5, 1), (-10, 300), np.dtype(np.uint8)).ravel().tolist() == [0, 145, 255]
    assert from_units(plane(0.4996, 0.4994), (0, 1000), np.dtype(np.uint16)).ravel().tolist() == [500, 499]


def test_what_is_missing() -> None:
    values = np.stack([plane(1, np.nan, 3, 4)[..., 0], plane(1, 2, -9999, 4)[..., 0]], axis=2)
    missing = missing_in(values, -9999)
    assert missing is not None and missing.tolist() == [[False, True, True, False]]
    assert missing_in(plane(1, 2), -9999) is None and missing_in(plane(1, 2, dtype=np.uint8), -1) is None
    low = float(np.finfo(np.float32).min)
    found = missing_in(plane(low, 0), -3.4028234663852886e38)
    assert found is not None and found.tolist() == [[True, False]]


def test_the_network_sees_the_mean_of_the_others_where_data_are_missing() -> None:
    missing = np.array([[False, True, False]])
    assert to_units(plane(0, -9999, 50), (0, 100), missing)[0].ravel().tolist() == [0, 0.25, 0.5]
    assert to_units(plane(np.nan), (0, 100), np.array([[True]]))[0].ravel().tolist() == [0.5]


def test_a_result_that_happens_to_be_the_value_for_no_data_is_moved_to_its_neighbour() -> None:
    missing = np.array([[True, False, False]])
    made = with_no_data(plane(7, 0, 9, dtype=np.uint16), missing, 0)
    assert made.ravel().tolist() == [0, 1, 9]
    made = with_no_data(plane(7, -1, 9), missing, -1)
    assert made[0, 0, 0] == -1 and -1 < made[0, 1, 0] < -0.9999


def test_the_type_of_results() -> None:
    def of(stored: Any, *limits: float) -> Any:
        return result_dtype(np.dtype(stored), (limits[0], limits[1])).type

    assert of(np.uint16, 0, 10_000) == np.uint16 and of(np.int16, -1000, 3000) == np.int16
    assert of(np.uint16, 200, 330) == np.float32  # 130 steps are too few
    assert of(np.uint8, 0, 10_000) == of(np.uint16, -1, 300) == of(np.float64, 0, 1000) == np.float32
    assert of(np.int32, 0, 10_000) == np.float32


def test_what_is_missing_is_scaled_to_the_nearest() -> None:
    missing = np.array([[True, False], [False, False]])
    assert np.array_equal(resized_missing(missing, 4, 4), np.kron(missing, np.ones((2, 2))).astype(bool))
    assert resized_missing(missing, 1, 1).shape == (1, 1)


@pytest.mark.parametrize(
    ("dtype", "no_data", "written", "tag"),
    [
        ("float32", "-9999", -9999, "-9999"),
        ("float32", "-3.4028234663852886e+38", np.finfo(np.float32).min, "-3.4028234663852886e+38"),
        ("uint16", "65535", 65535, "65535"),
        ("int16", "-32768", -32768, "-32768"),
        ("float64", "-1.7976931348623157e+308", math.nan, "nan"),  # the result is float32, which has no such number
    ],
)
def test_no_data_come_back(dtype: str, no_data: str, written: float, tag: str) -> None:
    values = plane(0, 500, 1000, dtype=dtype)
    values[0, 1] = float(no_data)
    picture = in_units(Picture(values, geo={NODATA: no_data}), (0, 1000))
    assert picture.units is not None and picture.units.clipped == 0
    kept = result_dtype(values.dtype, (0, 1000))
    picture.units = type(picture.units)((0, 1000), kept)
    stored = as_stored(picture)
    assert stored.geo[NODATA] == tag and stored.pixels.dtype == kept
    assert np.array_equal(stored.pixels, plane(0, written, 1000, dtype=kept), equal_nan=kept.kind == "f")


def test_a_plain_picture_is_stored_as_it_is() -> None:
    picture = Picture(plane(0, 1))
    assert as_stored(picture) is picture


def test_a_palette_holds_no_values() -> None:
    with pytest.raises(ImageError, match="palette"):
        in_units(Picture(np.zeros((1, 1, 3), np.uint8), numbers=np.zeros((1, 1), np.uint8)), (0, 1))


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "BMP"])
def test_formats_of_colours_hold_no_values(format: Any) -> None:
    picture = in_units(Picture(plane(0, 1000, dtype=np.uint16)), (0, 1000))
    with pytest.raises(OutputError, match="use TIFF or NPY"):
        images.encode(picture, format)


def test_png_holds_whole_numbers_alone() -> None:
    whole = in_units(Picture(plane(0, 7, 10_000, dtype=np.uint16)), (0, 10_000))
    assert images.decode(images.encode(whole, "PNG")).pixels.ravel().tolist() == [0, 7, 10_000]
    with pytest.raises(OutputError, match="0 to 65535"):
        images.encode(in_units(Picture(plane(0, 7)), (0, 10)), "PNG")
