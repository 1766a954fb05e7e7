"""Netpbm's files: binary ones of any maximum, plain ones of 255."""

import numpy as np
import pytest

from i2i.errors import ImageError
from i2i.images import Limits, decode


@pytest.mark.promise("R34")
@pytest.mark.parametrize(
    ("data", "values", "dtype"),
    [
        (b"P1\n# a comment\n3 2\n1 0 1\n010\n", [0, 255, 0, 255, 0, 255], np.uint8),
        (b"P4 3 2\n\xa0\x40", [0, 255, 0, 255, 0, 255], np.uint8),
        (b"P2 3 1 255\n0 7 255\n", [0, 7, 255], np.uint8),
        (b"P2 2 1 255 1 2 3 4", [1, 2], np.uint8),
        (b"P2 3 1 255 #c\n0 2#c\n 5", [0, 2, 5], np.uint8),
        (b"P5 3 1 5\n\0\2\5", [0, 102, 255], np.uint8),
        (b"P5 2 1 65535\n\0\1\xff\xff", [1, 65535], np.uint16),
        (b"P5 2 1 1023\n\0\1\3\xff", [64, 65535], np.uint16),
        (b"P3 1 1 255 1 2 3", [1, 2, 3], np.uint8),
        (b"P6\n1\n1\n255\n\1\2\3more", [1, 2, 3], np.uint8),
        (b"P6 1 1 65535 \0\1\0\2\xff\xff", [1, 2, 65535], np.uint16),
    ],
)
def test_values(data, values, dtype):
    picture = decode(data)
    assert picture.format == "PPM" and picture.pixels.dtype == dtype
    assert picture.pixels.shape[2] == (3 if data[1] in b"36" else 1)
    assert picture.pixels.ravel().tolist() == values


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"P6 2 1 255\n\1\2\3", "truncated"),
        (b"P2 3 1 255\n0 7", "truncated"),
        (b"P2 3 1 255\n100 77", "truncated"),
        (b"P1 3 1 1 0", "truncated"),
        (b"P5 3 1", "header"),
        (b"P5 3 1 0\n\0\0\0", "maximum of 0"),
        (b"P5 3 1 70000\n\0\0\0", "maximum of 70000"),
        (b"P5 2 1 5\n\0\6", "above the maximum"),
        (b"P2 2 1 255 -3 5", "no number of its range"),
        (b"P2 2 1 255 999999999 5", "no number of its range"),
        (b"P1 2 1 0 2", "no number of its range"),
        (b"P5 0 1 255\n", "empty"),
        (b"P6 99999 99999 255\n", "a side"),
    ],
)
def test_netpbm_errors_name_the_cause(data, reason):
    with pytest.raises(ImageError, match=reason):
        decode(data)


def test_netpbm_header_larger_than_data_is_refused_early():
    with pytest.raises(ImageError, match="truncated"):
        decode(b"P3 10000 10000 255 1 2 3", Limits())
