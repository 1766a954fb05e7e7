"""An evaluation for people: plain tables, without control characters."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from i2i.evaluation.options import METRICS
from i2i.evaluation.sweep import Validation, best_steps
from i2i.streams import printable

if TYPE_CHECKING:
    from i2i.evaluation.record import Evaluation, Row


def table(evaluation: "Evaluation", command: str = "") -> str:
    """The numbers, then what they depend on, then the validations of a run, the best of each column marked,
    and what those depend on."""
    parts: list[list[str]] = []
    if evaluation.rows:
        parts.append(_numbers(evaluation.rows))
        parts += [_levels(evaluation.rows), _facts(evaluation.rows)]
    if evaluation.validations:
        protocol = [f"{name} of the validations: {value}" for name, value in evaluation.validation_protocol.items()]
        parts.append([*_sweep(evaluation.validations), *protocol])
    if evaluation.rows:
        parts.append([f"{name}: {_plain(value)}" for name, value in evaluation.protocol.items()])
    if command:
        parts.append([f"command: {command}"])
    return "\n\n".join("\n".join(map(printable, lines)) for lines in parts if lines)


def _numbers(rows: "Sequence[Row]") -> list[str]:
    """A line for each metric: the number, ± what it varies by, and of how many pictures."""
    lines = []
    for row in rows:
        lines.append([row.name, "", "", ""])
        for name in METRICS:
            if measure := row.measures.get(name):
                spread = measure.beside.get("std")
                count = f"n = {measure.pictures}"
                if (other := measure.beside.get("reference")) is not None:
                    count += f" against {other}"
                lines.append(
                    [f"  {name}", number(measure.value), "" if spread is None else f"± {number(spread)}", count]
                )
    return aligned(lines)


def _levels(rows: "Sequence[Row]") -> list[str]:
    found = [(row.name, row.measures["swd"]) for row in rows if "swd" in row.measures]
    if not found:
        return []
    sizes = list(found[0][1].beside["levels"])
    is_one = any("way_to_the_floor" in measure.beside for _, measure in found)
    head = ["10³ · SWD by level", *(f"{size} px" for size in sizes), "mean", "patches"]
    lines = [[*head, *(["way to the floor"] if is_one else [])]]
    for name, measure in found:
        values = [number(measure.beside["levels"].get(size, float("nan"))) for size in sizes]
        way = measure.beside.get("way_to_the_floor")
        cells = [name, *values, number(measure.value), f"{measure.beside['patches']:,}"]
        lines.append([*cells, *(["" if way is None else f"{100 * way:.0f} %"] if is_one else [])])
    return aligned(lines)


def _facts(rows: "Sequence[Row]") -> list[str]:
    return [f"{row.name}: {_plain(row.facts)}" for row in rows if row.facts]


def _sweep(validations: Sequence[Validation]) -> list[str]:
    names = list(dict.fromkeys(name for validation in validations for name in validation.metrics))
    best = best_steps(validations)
    lines = [["step", "epoch", *names]]
    for validation in validations:
        cells = [
            number(validation.metrics[name]) + (" *" if best.get(name) == validation.step else "  ")
            if name in validation.metrics
            else ""
            for name in names
        ]
        lines.append([str(validation.step), str(validation.epoch), *cells])
    return ["validations during training (* is the best of its column)", *aligned(lines)]


def number(value: float) -> str:
    """Four significant digits, without an exponent where that is short."""
    return f"{value:.4g}"


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    lines = [[printable(cell) for cell in line] for line in lines]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(entry)}" for key, entry in value.items() if entry not in (None, ""))
    return ", ".join(map(_plain, value)) if isinstance(value, list) else str(value)
