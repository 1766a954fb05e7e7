"""The list of styles for people and for programs."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from i2i.streams import printable
from i2i.translation.installed import installed_folder
from i2i.translation.styles import BUNDLED, Source, Style


def table(styles: Sequence[Style], cards: bool = False) -> str:
    """A group of lines for each source, without control characters; with `cards`, what is said of each under it."""
    titles: dict[Source, str] = {
        "run": "runs of your own",
        "installed": f"installed in {installed_folder()}",
        "bundled": f"bundled, in {BUNDLED}",
        "catalogue": "published by the authors; --download fetches what is (not here) when it is used",
    }
    rows = [_row(style) for style in styles]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(5)]
    lines = []
    for source, title in titles.items():
        group = [(style, row) for style, row in zip(styles, rows, strict=True) if style.source == source]
        if group:
            lines.append(printable(title))
            for style, row in group:
                lines += [_line(row, widths), *(_card(style) if cards else ())]
            lines.append("")
    lines.append("--style also takes a run folder, a model file, a checkpoint, and hub:owner/name")
    return "\n".join(lines)


def as_json(styles: Sequence[Style]) -> str:
    """A JSON list with an object for each style, ASCII alone, so that any path can be in it."""
    records = [asdict(style) | {"path": None if style.path is None else str(style.path)} for style in styles]
    return json.dumps(records, indent=2)


def _row(style: Style) -> list[str]:
    if style.problem:
        row = [style.name, "", f"cannot be used: {style.problem}", "", ""]
    else:
        arrow = f"{style.input_domain} → {style.output_domain}"
        row = [style.name, style.direction, arrow, _size(style), style.licence or "not stated"]
    return [printable(text) for text in row]


def _card(style: Style) -> list[str]:
    facts = list(style.card)
    facts += [f"paper: {style.paper}"] if style.paper else []
    facts += [f"from: {style.url}"] if style.url else []
    facts += [f"file: {style.path}"] if style.path else []
    return ["      " + printable(fact) for fact in facts]


def _size(style: Style) -> str:
    number = "" if style.size is None else f"{style.size / 1e6:.1f} MB"
    return number if style.path else f"({number or 'not here'})"


def _line(row: list[str], widths: list[int]) -> str:
    return "  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
