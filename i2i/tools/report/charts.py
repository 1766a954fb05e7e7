"""Thousands of numbers as a chart of a few hundred points: a smoothed line, and the band in which the numbers lie.

Charts are SVG, which a browser scales and colours; the script of the page only adds values under the pointer.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from i2i.evaluation.training_log import Series
from i2i.tools.report.markup import escape, number

MAX_POINTS = 240
WIDTH, HEIGHT = 400, 200
LEFT, RIGHT, TOP, BOTTOM = 52, 24, 10, 26
_SMOOTHED_FROM = 20
_WINDOWS = 40
_LOG_FROM = 20.0

Scale = Callable[[float], float]


@dataclass(frozen=True)
class Curve:
    """Points from left to right: `x` steps, `y` smoothed values, `low` and `high` the band, of `count` numbers."""

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
        count=len(steps),
    )


def exact(series: Series) -> Curve:
    """Few numbers as they are; of more than `MAX_POINTS`, evenly chosen ones with the first and the last."""
    chosen = np.unique(np.linspace(0, len(series.steps) - 1, MAX_POINTS).round().astype(int))
    x, y = ([float(numbers[i]) for i in chosen] for numbers in (series.steps, series.values))
    return Curve(x, y, y, y, len(series.steps))


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


def chart(name: str, curve: Curve, points: bool = False) -> str:
    """A figure: the smoothed line, its band, axes; with `points` a dot for each value.

    The vertical axis is logarithmic where all values are positive and the line spans a factor of twenty.
    """
    low, high = _range(curve)
    logarithmic = min(curve.y) > 0 and low > 0 and max(curve.y) / min(curve.y) >= _LOG_FROM
    x = _scale(curve.x[0], curve.x[-1], LEFT, WIDTH - RIGHT, False)
    y = _scale(low, high, HEIGHT - BOTTOM, TOP, logarithmic)
    title = escape(name)
    drawn = _axes(curve, x, y, low, high, logarithmic) + _lines(curve, x, y, points)
    values = [[a, float(f"{b:.5g}"), round(x(a), 1), round(y(b), 1)] for a, b in zip(curve.x, curve.y, strict=True)]
    note = " · log" if logarithmic else ""
    return (
        f'<figure class="chart"><figcaption><b>{title}</b><span class="readout">'
        f"{number(curve.y[-1])}{note}</span></figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}: {_summary(curve)}" '
        f'data-points="{escape(json.dumps(values, separators=(",", ":")), 1 << 20)}">{drawn}</svg></figure>\n'
    )


def _summary(curve: Curve) -> str:
    best, worst = min(curve.y), max(curve.y)
    return (
        f"{curve.count} values from step {curve.x[0]:.0f} to {curve.x[-1]:.0f}; "
        f"first {number(curve.y[0])}, last {number(curve.y[-1])}, lowest {number(best)}, highest {number(worst)}"
    )


def _range(curve: Curve) -> tuple[float, float]:
    """What the axis spans: the line, and the band without its most extreme fiftieth on either side."""
    lows, highs = sorted(curve.low), sorted(curve.high)
    cut = len(lows) // 50
    low, high = min(*curve.y, lows[cut]), max(*curve.y, highs[-1 - cut])
    flat = high - low < 1e-9 * max(abs(high), abs(low), 1e-300)
    margin = (abs(high) / 10 or 1.0) if flat else (high - low) / 20
    return (low / 1.1 if low > 0 and low < margin else low - margin), high + margin


def _scale(first: float, last: float, start: float, end: float, logarithmic: bool) -> Scale:
    convert: Scale = math.log10 if logarithmic else float
    a, b = convert(first), convert(last)
    if a == b:
        return lambda _: (start + end) / 2

    def place(value: float) -> float:
        if logarithmic and value <= 0:
            return start
        return start + (end - start) * min(max((convert(value) - a) / (b - a), 0.0), 1.0)

    return place


def _axes(curve: Curve, x: Scale, y: Scale, low: float, high: float, logarithmic: bool) -> str:
    parts = []
    for tick in _decades(low, high) if logarithmic else ticks(low, high, 6):
        at = f"{y(tick):.1f}"
        parts.append(f'<path class="grid" d="M{LEFT} {at}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at}" dy="4" text-anchor="end">{number(tick)}</text>')
    for tick in ticks(curve.x[0], curve.x[-1], 4):
        parts.append(f'<text x="{x(tick):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{tick:,.0f}</text>')
    return "".join(parts)


def _lines(curve: Curve, x: Scale, y: Scale, points: bool) -> str:
    line = _path(curve.x, curve.y, x, y)
    band = line_back = ""
    if curve.low != curve.high:
        line_back = _path(curve.x[::-1], curve.low[::-1], x, y).replace("M", "L", 1)
        band = f'<path class="band" d="{_path(curve.x, curve.high, x, y)}{line_back}Z"/>'
    dots = ""
    if points or len(curve.x) == 1:
        dots = "".join(
            f'<circle class="dot" cx="{x(a):.1f}" cy="{y(b):.1f}" r="3">'
            f"<title>step {a:,.0f}: {number(b)}</title></circle>"
            for a, b in zip(curve.x, curve.y, strict=True)
        )
    return f'{band}<path class="line" d="{line}"/>{dots}'


def _path(xs: Sequence[float], ys: Sequence[float], x: Scale, y: Scale) -> str:
    return "M" + "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in zip(xs, ys, strict=True))


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers between two others."""
    if not high > low or not math.isfinite(high - low):
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)] or [low]


def _decades(low: float, high: float) -> list[float]:
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = max(1, -(-len(exponents) // 5))
    return [10.0**e for e in exponents[::every] if low <= 10.0**e <= high]
