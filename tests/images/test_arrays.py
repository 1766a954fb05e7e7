"""Netpbm's files, and arrays of numbers in .npy files: all kinds of them, and files that mean harm."""

import io
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from i2i import images
from i2i.errors import ImageError
from i2i.images import Limits, Picture

NUMBERS = np.arange(24).reshape(4, 6)


def saved(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def with_header(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    text = header.encode("latin-1") + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2 if version == b"\x01\x00" else 4, "little") + text + data


def units(data: bytes) -> list[float]:
    """The values of a file by the range 0 to 23."""
    found = images.decode(data, values=(0, 23)).pixels * 23
    return np.rint(found[..., 0]).ravel().tolist()


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "<i2", ">i4", "<u8", "<f2", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_numbers_in_any_order(dtype: str, order: Any) -> None:
    assert units(saved(np.array(NUMBERS, dtype, order=order))) == list(range(24))


def test_height_width_and_channels() -> None:
    array = np.asfortranarray(np.random.default_rng(0).integers(0, 24, (5, 7, 4), np.uint16))
    picture = images.decode(saved(array), values=(0, 23))
    assert picture.format == "NPY" and picture.alpha is None
    assert np.array_equal(np.rint(picture.pixels * 23), array)


def test_the_size_is_in_the_header(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(saved(np.zeros((3, 9), ">f8")))
    assert images.probe(path) == (9, 3)


def test_without_a_range_it_is_a_picture_where_its_type_says_so() -> None:
    array = np.random.default_rng(0).integers(0, 65_536, (3, 4, 3), np.uint16)
    assert np.array_equal(images.decode(saved(array)).pixels, array)
    assert images.decode(saved(np.full((2, 2), 0.5))).pixels.dtype == np.float32
    with_alpha = images.decode(saved(np.dstack([array, array[..., :1]])))
    assert np.array_equal(with_alpha.pixels, array) and np.array_equal(with_alpha.alpha, array[..., 0])
    for wrong in (np.full((2, 2), 1.5), np.full((2, 2), np.nan), np.zeros((2, 2), np.int32)):
        with pytest.raises(ImageError, match="range_a"):
            images.decode(saved(wrong))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(3, 4, 1), (3, 4, 3), (3, 4, 5)])
def test_written_and_read(tmp_path: Path, dtype: Any, shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).random(shape).astype(np.float32)
    pixels = pixels if dtype == np.float32 else (pixels * 200).astype(dtype)
    images.write(tmp_path / "a.npy", Picture(pixels))
    written = np.load(tmp_path / "a.npy", allow_pickle=False)
    assert written.shape == (shape if shape[2] > 1 else shape[:2]) and written.dtype == dtype
    assert np.array_equal(written.reshape(shape), pixels)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Harm:
        def __reduce__(self) -> Any:
            return Path.touch, (marker,)

    data = saved(np.array([[Harm()]], object), allow_pickle=True)
    for values in (None, (0.0, 1.0)):
        with pytest.raises(ImageError, match="never unpickled"):
            images.decode(data, values=values)
    with pytest.raises(ImageError, match="never unpickled"):  # a pickle behind a header that promises numbers
        images.decode(with_header("{'descr': '|O', 'fortran_order': False, 'shape': (1, 1), }", pickle.dumps(Harm())))
    assert not marker.exists()


HOSTILE = {
    "a size that is not there": with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (60000, 60000), }"),
    "truncated": saved(np.zeros((40, 60)))[:-1],
    "truncated header": saved(NUMBERS)[:30],
    "no header": b"\x93NUMPY",
    "huge header": with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (1, 1), }" + " " * 60_000),
    "huge header, version 2": with_header(" " * (1 << 20) + "{}", version=b"\x02\x00"),
    "a length that is not there": b"\x93NUMPY\x02\x00" + (2**31).to_bytes(4, "little") + b"{}",
    "deep header": with_header("(" * 4000),
    "code": with_header("{'descr': __import__('os').abort(), 'fortran_order': False, 'shape': (1, 1), }"),
    "negative": with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -1), }", bytes(8)),
    "a bool for a side": with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (True, 1), }", b""),
    "empty": saved(np.zeros((0, 4))),
    "no channels": saved(np.zeros((4, 4, 0))),
    "vector": saved(np.zeros(4)),
    "four dimensions": saved(np.zeros((1, 1, 1, 1))),
    "channels first": saved(np.zeros((3, 99, 99))),
    "complex": saved(np.zeros((2, 2), complex)),
    "text": saved(np.full((2, 2), "a")),
    "dates": saved(np.zeros((2, 2), "M8[s]")),
    "records": saved(np.zeros((2, 2), [("a", "f4")])),
    "bool": saved(np.zeros((2, 2), bool)),
    "version 9": with_header("{}", version=b"\x09\x00"),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("values", [None, (0.0, 1.0)])
def test_files_that_mean_harm(name: str, values: Any) -> None:
    since = time.monotonic()
    with pytest.raises(ImageError):
        images.decode(HOSTILE[name], values=values)
    assert time.monotonic() - since < 0.5


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
def test_values(data: bytes, values: list[int], dtype: Any) -> None:
    picture = images.decode(data)
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
def test_netpbm_errors_name_the_cause(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        images.decode(data)


def test_netpbm_header_larger_than_data_is_refused_early() -> None:
    with pytest.raises(ImageError, match="truncated"):
        images.decode(b"P3 10000 10000 255 1 2 3", Limits())
