"""An evaluation for people: plain tables, without control characters."""

from collections.abc import Mapping, Sequence
from typing import Any

from i2i.evaluation.options import HIGHER_IS_BETTER, LOWER_IS_BETTER, METRICS
from i2i.evaluation.record import Evaluation, Row, comparisons
from i2i.evaluation.sweep import Validation, best_steps
from i2i.terminal import printable


def table(evaluation: Evaluation, command: str = "") -> str:
    """The numbers and by which of them models differ, then what they depend on, then the validations of a run, the best
    of each column marked, and what those depend on."""
    parts: list[list[str]] = []
    if evaluation.rows:
        parts += [_numbers(evaluation.rows), _comparisons(evaluation.rows), _levels(evaluation.rows)]
        parts += [_ways(evaluation.rows), _facts(evaluation.rows)]
    if evaluation.validations:
        protocol = [f"{name} of the validations: {value}" for name, value in evaluation.validation_protocol.items()]
        parts.append([*_sweep(evaluation.validations), *protocol])
    if evaluation.rows:
        parts.append([f"{name}: {_plain(value)}" for name, value in evaluation.protocol.items()])
    if command:
        parts.append([f"command: {command}"])
    return "\n\n".join("\n".join(map(printable, lines)) for lines in parts if lines)


def _numbers(rows: Sequence[Row]) -> list[str]:
    """A line for each metric: the number, its interval, and of how many pictures."""
    lines = [["", "", "95 % interval", ""]]
    for row in rows:
        lines.append([row.name, "", "", ""])
        for name in METRICS:
            if measure := row.measures.get(name):
                count = f"n = {measure.pictures}"
                if (other := measure.beside.get("reference")) is not None:
                    count += f" against {other}"
                if network := measure.beside.get("network"):
                    count += f", in {network}"
                lines.append([f"  {name}", number(measure.value), interval(measure.beside.get("interval")), count])
    return aligned(lines)


def _comparisons(rows: Sequence[Row]) -> list[str]:
    """How each row differs from the first of its group."""
    lines = []
    for comparison in comparisons(rows):
        lines.append([f"{comparison.row} less {comparison.less}", "", "", ""])
        for name, found in comparison.differences.items():
            told = verdict(name, found)
            lines.append([f"  {name}", f"{found['value']:+.4g}", interval(found["interval"]), told])
    return ["differences, with 95 % intervals", *aligned(lines)] if lines else []


def verdict(name: str, found: Mapping[str, Any]) -> str:
    """The result of `measures.difference` in words."""
    if found["interval"] is None:
        return "too few pictures to tell"
    if not found["differs"]:
        return "no difference is shown"
    if name not in HIGHER_IS_BETTER and name not in LOWER_IS_BETTER:
        return "differs"
    return "better" if (found["value"] > 0) == (name in HIGHER_IS_BETTER) else "worse"


def _levels(rows: Sequence[Row]) -> list[str]:
    found = [(row.name, row.measures["swd"]) for row in rows if "swd" in row.measures]
    if not found:
        return []
    sizes = list(found[0][1].beside["levels"])
    head = ["10³ · SWD by level", *(f"{size} px" for size in sizes), "mean", "patches"]
    lines = [head]
    for name, measure in found:
        values = [number(measure.beside["levels"].get(size, float("nan"))) for size in sizes]
        lines.append([name, *values, number(measure.value), f"{measure.beside['patches']:,}"])
    return aligned(lines)


def _ways(rows: Sequence[Row]) -> list[str]:
    """How far outputs came from the inputs to held-out pictures."""
    lines = []
    for row in rows:
        for name, measure in row.measures.items():
            if (way := measure.beside.get("way_to_the_floor")) is not None:
                low_high = measure.beside.get("way_interval")
                told = f"[{100 * low_high[0]:.0f}, {100 * low_high[1]:.0f}] %" if low_high else ""
                lines.append([row.name, name, f"{100 * way:.0f} %", told])
    return aligned([["way to the floor", "", "", "95 % interval"], *lines]) if lines else []


def _facts(rows: Sequence[Row]) -> list[str]:
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


def interval(low_high: Sequence[float] | None) -> str:
    """`[low, high]`; nothing where there is none."""
    return "" if low_high is None else f"[{number(low_high[0])}, {number(low_high[1])}]"


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    lines = [[printable(cell) for cell in line] for line in lines]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(entry)}" for key, entry in value.items() if entry not in (None, ""))
    return ", ".join(map(_plain, value)) if isinstance(value, list) else str(value)
