"""Pictures of values in units, such as reflectance, Kelvin or Hounsfield: the range of a network, and no data.

A picture in units holds float32 in [0, 1], its values by the range. Values outside the range are clipped. Pixels
without data are `missing`: the network sees the mean of the others there, and the result has no data there again.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from i2i.errors import ImageError
from i2i.images.picture import NODATA, Geo, Picture, Pixels, row_blocks

ValueRange = tuple[float, float]
"""The values, lowest and highest, that are -1 and 1 in a network."""

_KEPT = (np.uint8, np.uint16, np.int16, np.float32)
_LEAST_STEPS = 255


@dataclass(frozen=True)
class Units:
    """The range of a picture in units, and the type of the values in its file; `clipped` counts those outside."""

    range: ValueRange
    dtype: "np.dtype[Any]"
    clipped: int = 0


def in_units(picture: Picture, values: ValueRange) -> Picture:
    """A picture whose planes hold the numbers of its file, in units. Profiles describe colours, and are left out.

    Raises `ImageError` for a palette, whose numbers are no values.
    """
    if picture.numbers is not None:
        raise ImageError("holds a palette of colours, and no values; expected numbers in units")
    bands = picture.pixels if picture.extra is None else np.dstack([picture.pixels, picture.extra])
    missing = missing_in(bands, no_data_of(picture.geo))
    colours = picture.pixels.shape[2]
    scaled, outside = to_units(bands, values, missing)
    return replace(
        picture,
        pixels=np.ascontiguousarray(scaled[..., :colours]),
        extra=None if picture.extra is None else np.ascontiguousarray(scaled[..., colours:]),
        alpha=None if picture.alpha is None else (picture.alpha / np.iinfo(picture.alpha.dtype).max).astype(np.float32),
        icc=None,
        colour=None,
        units=Units(values, bands.dtype, outside),
        missing=missing,
    )


def as_stored(picture: Picture) -> Picture:
    """The reverse of `in_units`: the numbers for a file, with its value for no data; a plain picture as it is.

    A type that cannot hold that value gets NaN, or 0 where it has none.
    """
    if picture.units is None and picture.missing is None:
        return picture
    dtype = picture.pixels.dtype if picture.units is None else picture.units.dtype
    given = no_data_of(picture.geo)
    no_data = _held(given, dtype)

    def stored(plane: Pixels | None) -> Pixels | None:
        if plane is None:
            return None
        values = plane if picture.units is None else from_units(plane, picture.units.range, dtype)
        return values if picture.missing is None else with_no_data(values, picture.missing, no_data)

    geo: Geo = {tag: value for tag, value in picture.geo.items() if tag != NODATA}
    if given is not None or picture.missing is not None:
        geo[NODATA] = picture.geo[NODATA] if given is not None and _is(given, no_data) else f"{no_data:g}"
    pixels = stored(picture.pixels)
    assert pixels is not None
    return replace(picture, pixels=pixels, extra=stored(picture.extra), geo=geo, units=None, missing=None)


def result_dtype(stored: "np.dtype[Any]", values: ValueRange) -> "np.dtype[Any]":
    """The type of results in the range `values` for a file of `stored`.

    It stays if it is written here and, for integers, holds the whole range in at least 255 steps. Else it is float32.
    """
    if stored.kind == "f" or stored.type not in _KEPT:
        return np.dtype(np.float32)
    limits = np.iinfo(stored)
    fits = limits.min <= values[0] and values[1] <= limits.max and values[1] - values[0] >= _LEAST_STEPS
    return stored if fits else np.dtype(np.float32)


def no_data_of(geo: Geo) -> float | None:
    """The value for no data that a GeoTIFF names, if it is a number."""
    try:
        return float(str(geo.get(NODATA, "")))
    except ValueError:
        return None


def missing_in(values: Pixels, no_data: float | None) -> Pixels | None:
    """(H, W) bool: where a channel of (H, W, C) is NaN or `no_data`; None if it is so nowhere."""
    missing = np.zeros(values.shape[:2], bool)
    number = None if no_data is None or math.isnan(no_data) else _stored(float(no_data), values.dtype)
    for rows in row_blocks(values):
        if values.dtype.kind == "f":
            missing[rows] |= np.isnan(values[rows]).any(axis=2)
        if number is not None:
            missing[rows] |= (values[rows] == number).any(axis=2)
    return missing if missing.any() else None


def to_units(values: Pixels, limits: ValueRange, missing: Pixels | None = None) -> tuple[Pixels, int]:
    """Values (H, W, C) of a range as float32 in [0, 1], clipped, and how many of those that are there were outside.

    A pixel that is `missing` has the mean of its channel.
    """
    low, high = limits
    units, outside = np.empty(values.shape, np.float32), 0
    for rows in row_blocks(values):
        with np.errstate(invalid="ignore", over="ignore"):
            units[rows] = np.clip((values[rows].astype(np.float64) - low) / (high - low), 0, 1)
        clipped = (values[rows] < low) | (values[rows] > high)
        outside += int(np.count_nonzero(clipped if missing is None else clipped & ~missing[rows][..., None]))
    if missing is not None:
        there = units[~missing]
        units[missing] = there.mean(axis=0, dtype=np.float64) if len(there) else 0.5
    return units, outside


def from_units(units: Pixels, limits: ValueRange, dtype: "np.dtype[Any]") -> Pixels:
    """The reverse of `to_units`, in `dtype`: integers are rounded, and stop at the bounds of their type."""
    low, high = limits
    values = np.empty(units.shape, dtype)
    for rows in row_blocks(units):
        exact = units[rows].astype(np.float64) * (high - low) + low
        if dtype.kind != "f":
            exact = np.clip(np.rint(exact), np.iinfo(dtype).min, np.iinfo(dtype).max)
        values[rows] = exact
    return values


def with_no_data(values: Pixels, missing: Pixels, no_data: float) -> Pixels:
    """(H, W, C) with `no_data` where `missing`; others that have come out as that number move to the next one."""
    made = values.copy()
    if not math.isnan(no_data):
        number = values.dtype.type(no_data)
        made[values == number] = _beside(number)
    made[missing] = no_data
    return made


def _stored(number: float, dtype: "np.dtype[Any]") -> Any:
    """`number` as a file of that type holds it; None where it does not."""
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return dtype.type(number)
    limits = np.iinfo(dtype)
    return dtype.type(int(number)) if number.is_integer() and limits.min <= number <= limits.max else None


def _held(no_data: float | None, dtype: "np.dtype[Any]") -> float:
    """The value for no data in a result of `dtype`."""
    number = None if no_data is None else _stored(no_data, dtype)
    if number is None or (math.isinf(number) and not math.isinf(no_data or 0)):
        return math.nan if dtype.kind == "f" else 0.0
    return float(number)


def _is(given: float, held: float) -> bool:
    """Whether the text for `given` also names `held`, as read back into its type."""
    return math.isnan(held) if math.isnan(given) else math.isclose(given, held, rel_tol=1e-6)


def _beside(number: "np.floating[Any] | np.integer[Any]") -> Any:
    """The next number of that type on the way to zero, or away from it."""
    if isinstance(number, np.floating):
        return np.nextafter(number, number.dtype.type(0) if number else number.dtype.type(1))
    return number - 1 if number > 0 else number + 1
