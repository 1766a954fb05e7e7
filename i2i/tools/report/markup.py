"""HTML from text that nobody vouches for: everything is escaped here."""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from i2i.terminal import printable

MAX_TEXT = 2_000


def escape(value: object, limit: int = MAX_TEXT) -> str:
    """`value` as text for HTML, in an element or a quoted attribute; the part beyond `limit` characters is cut.

    Control characters and lone surrogates appear as `\\x1b`.
    """
    text = str(value)
    return html.escape(printable(text if len(text) <= limit else text[:limit] + "…"))


def number(value: object) -> str:
    """A number with four digits, a list of them with commas, anything else as its text; escaped."""
    if isinstance(value, list):
        return ", ".join(map(number, value))
    if isinstance(value, float):
        return escape(f"{value:.4g}") if math.isfinite(value) else "not finite"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 53:
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    return "–" if value is None else escape(value)


def section(name: str, title: str, content: str) -> str:
    """A section with its heading; nothing without content."""
    if not content:
        return ""
    return f'<section id="{name}" aria-labelledby="{name}-h"><h2 id="{name}-h">{title}</h2>\n{content}</section>\n'


def note(text: str) -> str:
    """A remark in small print; `text` is HTML."""
    return f'<p class="note">{text}</p>\n'


def table(header: Sequence[object], rows: Iterable[Sequence[str]], caption: str) -> str:
    """A table that scrolls sideways; the cells of `rows` are HTML, the header is text."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>' + "".join(f"<td>{cell}</td>" for cell in row[1:]) + "</tr>\n"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>\n"
    )


def facts(values: Mapping[str, Any]) -> str:
    """Names and values, nested ones as `outer.inner`."""
    shown = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(_plain(value)) or '–'}</dd></div>\n" for name, value in flat(values)
    )
    return f'<dl class="facts">{shown}</dl>\n'


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """The entries of nested mappings as (`outer.inner`, value)."""
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        found += flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [(f"{prefix}{key}", value)]
    return found


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if value is None:
        return "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
