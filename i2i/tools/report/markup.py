"""HTML from text that nobody vouches for: everything is escaped here, and bounded."""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from i2i.terminal import printable

MAX_TEXT = 2_000
MAX_VALUE = 500
MAX_CELL = 200
MAX_ENTRIES = 300
_DEPTH = 4


def escape(value: object, limit: int = MAX_TEXT) -> str:
    """`value` as text for HTML, in an element or a quoted attribute.

    Control characters and lone surrogates appear as `\\x1b`, and what is beyond `limit` characters is cut.
    """
    text = str(value)
    return html.escape(printable(text if len(text) <= limit else text[:limit] + "…"))


def number(value: object) -> str:
    """A number with four digits, anything else as its text; escaped."""
    if isinstance(value, float):
        return escape(f"{value:.4g}") if math.isfinite(value) else "not finite"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 53:
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    return "–" if value is None else escape(value, MAX_CELL)


def table(header: Sequence[object], rows: Iterable[Sequence[str]], caption: str) -> str:
    """A table that scrolls sideways; the cells of `rows` are HTML, the header is text."""
    head = "".join(f'<th scope="col">{escape(name, MAX_CELL)}</th>' for name in header)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>' + "".join(f"<td>{cell}</td>" for cell in row[1:]) + "</tr>\n"
        for row in rows
    )
    name = escape(caption)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{name}"><table>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>\n"
    )


def facts(values: Mapping[str, Any]) -> str:
    """Names and values, nested ones as `outer.inner`; at most `MAX_ENTRIES`."""
    pairs = flat(values)
    shown = "".join(
        f"<div><dt>{escape(name, MAX_CELL)}</dt><dd>{escape(_plain(value), MAX_VALUE) or '–'}</dd></div>\n"
        for name, value in pairs[:MAX_ENTRIES]
    )
    return f'<dl class="facts">{shown}</dl>\n' + left_out(len(pairs) - MAX_ENTRIES, "entries")


def flat(values: Mapping[str, Any], prefix: str = "", depth: int = _DEPTH) -> list[tuple[str, Any]]:
    """The entries of nested mappings as (`outer.inner`, value); what is deeper stays a value."""
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, dict) and value and depth:
            found += flat(value, f"{prefix}{key}.", depth - 1)
        else:
            found.append((f"{prefix}{key}", value))
    return found


def left_out(count: int, what: str) -> str:
    """A line that says how many are not shown; nothing if none."""
    return f'<p class="note">{count:,} more {escape(what)} are not shown.</p>\n' if count > 0 else ""


def fitted(parts: Iterable[str], limit: int, what: str) -> str:
    """The first of `parts` that together have at most `limit` characters, and how many are left out."""
    kept, size, rest = [], 0, 0
    for part in parts:
        size += len(part)
        if size > limit:
            rest += 1
        else:
            kept.append(part)
    return "".join(kept) + left_out(rest, what)


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value[:MAX_ENTRIES])
    return {None: "none", True: "yes", False: "no"}.get(value, str(value)) if _is_word(value) else str(value)


def _is_word(value: Any) -> bool:
    return value is None or isinstance(value, bool)
