"""Thousands of numbers as a curve of a few hundred points: a smoothed line and the band in which the numbers lie."""

from dataclasses import dataclass

import numpy as np

from i2i.evaluation.page.log_record import Series

MAX_POINTS = 240
_SMOOTHED_FROM = 20
_WINDOWS = 40


@dataclass(frozen=True)
class Curve:
    """Points from left to right: `x` steps, `y` smoothed values, `low` and `high` the band. `count` numbers went in."""

    x: list[float]
    y: list[float]
    low: list[float]
    high: list[float]
    count: int


def thinned(series: Series) -> Curve:
    """At most `MAX_POINTS` bins of equally many steps.

    Per bin: the last step, the mean, the 5th and 95th percentile. From twenty bins on, these are smoothed
    exponentially with the weight of a fortieth of the curve, the start without bias (Kingma, Ba, "Adam", 2015,
    Sec. 3, has the same correction).
    """
    order = np.argsort(np.array(series.steps), kind="stable")
    steps, values = np.array(series.steps)[order], np.array(series.values)[order]
    bins = [part for part in np.array_split(np.arange(len(steps)), MAX_POINTS) if len(part)]
    return Curve(
        x=[float(steps[part[-1]]) for part in bins],
        y=smoothed([float(values[part].mean()) for part in bins]),
        low=smoothed([float(np.percentile(values[part], 5)) for part in bins]),
        high=smoothed([float(np.percentile(values[part], 95)) for part in bins]),
        count=series.count,
    )


def exact(series: Series) -> Curve:
    """Few numbers as they are; of more than `MAX_POINTS`, evenly chosen ones with the first and the last."""
    chosen = np.unique(np.linspace(0, len(series.steps) - 1, MAX_POINTS).round().astype(int))
    x, y = ([float(numbers[i]) for i in chosen] for numbers in (series.steps, series.values))
    return Curve(x, y, y, y, series.count)


def smoothed(values: list[float]) -> list[float]:
    """The exponential moving average of `values`, its start corrected; the values themselves if they are few."""
    if len(values) < _SMOOTHED_FROM:
        return list(values)
    keep = 1 - 1 / max(2.0, len(values) / _WINDOWS)
    mean, weight, found = 0.0, 0.0, []
    for value in values:
        mean = keep * mean + (1 - keep) * value
        weight = keep * weight + (1 - keep)
        found.append(mean / weight)
    return found
