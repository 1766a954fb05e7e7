"""Pages that are one file: no server, no network, readable without scripts.

The text comes from anywhere, and everything is escaped here. Style and script stand in the file; a content security
policy allows these two by their hashes, pictures from `data:` addresses, and nothing else.

A chart shows thousands of numbers as a few hundred points: a smoothed line, and the band in which the numbers lie.
Charts are SVG, which a browser scales and colours; the script of the page only adds values under the pointer.
"""

import base64
import hashlib
import html
import json
import math
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import numpy as np

from i2i import __version__
from i2i.evaluation.training_log import Series
from i2i.terminal import printable

MAX_TEXT = 2_000


def escape(value: object, limit: int = MAX_TEXT) -> str:
    """`value` as text for HTML, in an element or a quoted attribute; the part beyond `limit` characters is cut.

    Control characters and lone surrogates appear as `\\x1b`.
    """
    text = str(value)
    return html.escape(printable(text if len(text) <= limit else text[:limit] + "…"))


def number(value: object) -> str:
    """A number with four digits, anything else as its text; escaped."""
    if isinstance(value, float):
        return escape(f"{value:.4g}") if math.isfinite(value) else "not finite"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 53:
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    return "–" if value is None else escape(value)


class Section(NamedTuple):
    """A part of a page with its heading; title and content are HTML. One without content does not appear."""

    name: str
    title: str
    content: str

    def __str__(self) -> str:
        head = f'<section id="{self.name}" aria-labelledby="{self.name}-h"><h2 id="{self.name}-h">{self.title}</h2>'
        return f"{head}\n{self.content}</section>\n"


def note(text: str) -> str:
    """A remark in small print; `text` is HTML."""
    return f'<p class="note">{text}</p>\n'


def plain(lines: Iterable[str], kind: str = "table") -> str:
    """Text in lines, as a terminal shows it: a `table` scrolls sideways, `notes` wrap, `options` wrap in columns."""
    return f'<pre class="{kind}" tabindex="0">' + "\n".join(map(escape, lines)) + "</pre>\n"


MAX_POINTS = 240
WIDTH, HEIGHT = 400, 200
LEFT, RIGHT, TOP, BOTTOM = 52, 24, 10, 26
_SMOOTHED_FROM = 20
_WINDOWS = 40
_LOG_FROM = 20.0

Numbers = np.ndarray[Any, np.dtype[np.float64]]
Scale = Callable[[Numbers | float], Numbers]


def chart(name: str, series: Series, smooth: bool = False) -> str:
    """A figure with a line and axes. `smooth` draws a band around the line, else each value is a dot.

    The vertical axis is logarithmic where all values are positive and the line spans a factor of twenty.
    """
    x, y, low, high = thinned(series) if smooth else _chosen(series)
    bottom, top = _range(y, low, high)
    logarithmic = bottom > 0 and y.max() / y.min() >= _LOG_FROM
    across, up = _scale(x[0], x[-1], LEFT, WIDTH - RIGHT), _scale(bottom, top, HEIGHT - BOTTOM, TOP, logarithmic)
    horizontal = _decades(bottom, top) if logarithmic else ticks(bottom, top, 6)
    drawn = _axes(across, up, ticks(x[0], x[-1], 4), horizontal) + _curve(across(x), up(y), up(low), up(high), smooth)
    if not smooth or len(x) == 1:
        drawn += "".join(_dot(across(a), up(b), f"step {a:,.0f}: {number(b)}") for a, b in zip(x, y, strict=True))
    places = np.column_stack([x, y, across(x).round(1), up(y).round(1)]).tolist()
    points = [[step, float(f"{value:.5g}"), *place] for step, value, *place in places]
    values = escape(json.dumps(points, separators=(",", ":")), 1 << 20)
    title, last = escape(name), number(y[-1]) + (" · log" if logarithmic else "")
    summary = (
        f"{len(series.steps)} values from step {x[0]:.0f} to {x[-1]:.0f}; "
        f"first {number(y[0])}, last {number(y[-1])}, lowest {number(y.min())}, highest {number(y.max())}"
    )
    return (
        f'<figure class="chart"><figcaption><b>{title}</b><span class="readout">{last}</span></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}: {summary}" '
        f'data-points="{values}">{drawn}</svg></figure>\n'
    )


def _axes(across: Scale, up: Scale, vertical: list[float], horizontal: list[float]) -> str:
    parts = []
    for tick in horizontal:
        parts.append(f'<path class="grid" d="M{LEFT} {up(tick):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{up(tick):.1f}" dy="4" text-anchor="end">{number(tick)}</text>')
    for tick in vertical:
        parts.append(f'<text x="{across(tick):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{tick:,.0f}</text>')
    return "".join(parts)


def _curve(x: Numbers, y: Numbers, low: Numbers, high: Numbers, band: bool) -> str:
    around = _path(np.concatenate([x, x[::-1]]), np.concatenate([high, low[::-1]]))
    return (f'<path class="band" d="{around}Z"/>' if band else "") + f'<path class="line" d="{_path(x, y)}"/>'


def _dot(x: Numbers, y: Numbers, title: str) -> str:
    return f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3"><title>{title}</title></circle>'


def thinned(series: Series) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """At most `MAX_POINTS` bins of equally many steps: their last steps, means, 5th and 95th percentiles, smoothed."""
    order = np.argsort(np.array(series.steps), kind="stable")
    bins = [part for part in np.array_split(order, MAX_POINTS) if len(part)]
    steps, values = np.array(series.steps), np.array(series.values)
    x = np.array([steps[part[-1]] for part in bins])
    mean, low, high = np.array([(values[part].mean(), *np.percentile(values[part], (5, 95))) for part in bins]).T
    return x, smoothed(mean), smoothed(low), smoothed(high)


def smoothed(values: Numbers) -> Numbers:
    """An exponential moving average with the weight of a fortieth of the curve, its start without bias.

    Kingma & Ba ("Adam", 2015, Sec. 3) have the same correction. Fewer than twenty values stay as they are.
    """
    if len(values) < _SMOOTHED_FROM:
        return values
    keep = 1 - 1 / max(2.0, len(values) / _WINDOWS)
    total, weight, found = 0.0, 0.0, []
    for value in values:
        total, weight = keep * total + value, keep * weight + 1
        found.append(total / weight)
    return np.array(found)


def _chosen(series: Series) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """The values as they are; of more than `MAX_POINTS`, evenly chosen ones with the first and the last."""
    chosen = np.unique(np.linspace(0, len(series.steps) - 1, MAX_POINTS).round().astype(int))
    y = np.array(series.values)[chosen]
    return np.array(series.steps)[chosen], y, y, y


def _range(y: Numbers, low: Numbers, high: Numbers) -> tuple[float, float]:
    """The ends of the axis: the line, and the band without its most extreme fiftieth on either side."""
    cut = len(low) // 50
    bottom, top = float(min(y.min(), np.sort(low)[cut])), float(max(y.max(), np.sort(high)[-1 - cut]))
    flat = top - bottom < 1e-9 * max(abs(top), abs(bottom), 1e-300)
    margin = (abs(top) / 10 or 1.0) if flat else (top - bottom) / 20
    return (bottom / 1.1 if 0 < bottom < margin else bottom - margin), top + margin


def _scale(first: float, last: float, start: float, end: float, logarithmic: bool = False) -> Scale:
    """A function from numbers to places between `start` and `end`."""

    def convert(values: Numbers | float) -> Numbers:
        return np.log10(np.maximum(values, first)) if logarithmic else np.asarray(values, float)

    a, b = convert(first), convert(last)
    if a == b:
        return lambda values: np.full(np.shape(values), (start + end) / 2)
    return lambda values: start + (end - start) * np.clip((convert(values) - a) / (b - a), 0.0, 1.0)


def _path(xs: Numbers, ys: Numbers) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(xs, ys, strict=True))


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers between two others."""
    if not high > low or not math.isfinite(high - low):
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)] or [low]


def _decades(low: float, high: float) -> list[float]:
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = max(1, -(-len(exponents) // 5))
    return [10.0**e for e in exponents[::every] if low <= 10.0**e <= high]


def build(
    mark: bytes, kind: str, name: str, summary: str, notices: Sequence[str], sections: Sequence[Section]
) -> bytes:
    """The bytes of a page that begins with `mark`.

    `kind` and `name` are its title, `notices` say what was left out or could not be read. `summary` is HTML.
    """
    sections = [section for section in sections if section.content]
    links = " ".join(f'<a href="#{section.name}">{section.title}</a>' for section in sections)
    lines = "".join(f"<li>{escape(line)}</li>\n" for line in notices)
    style, script = (_resource(suffix) for suffix in (".css", ".js"))
    page = Template(_resource(".html")).substitute(
        policy=f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'",
        kind=escape(kind),
        name=escape(name, 200),
        style=style,
        script=script,
        summary=summary,
        links=links if len(sections) > 1 else "",
        notices=f'<ul class="notices">{lines}</ul>\n' if lines else "",
        sections="".join(map(str, sections)),
        version=escape(__version__),
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return mark + page.encode()


def _resource(suffix: str) -> str:
    return Path(__file__).with_suffix(suffix).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
