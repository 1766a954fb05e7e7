"""An evaluation for people: plain tables of what its JSON holds, for a terminal and for the page of a run."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from i2i.evaluation.options import HIGHER_IS_BETTER, LOWER_IS_BETTER, METRICS
from i2i.terminal import printable

_PLACED = {
    *("value", "interval", "pictures", "reference", "network", "levels", "patches"),
    *("gap_closed", "gap_closed_interval"),
}
"""The details of a number that have a place of their own."""


def text(values: Mapping[str, Any]) -> str:
    """The tables of what `Evaluation.to_mapping` gives, without control characters.

    The numbers and how models differ come first, then what they depend on, then the validations of a run with the best
    of each column marked. Raises `LookupError`, `TypeError`, `ValueError` or `AttributeError` for anything else.
    """
    results, parts = values.get("results", []), list[list[str]]()
    if results:
        parts += [_numbers(results), _comparisons(values.get("comparisons", [])), _levels(results), _gaps(results)]
        parts.append([f"{result['name']}: {_plain(facts)}" for result in results if (facts := _facts(result))])
    if validations := values.get("validations"):
        protocol = [f"{name} of the validations: {value}" for name, value in values["validation_protocol"].items()]
        parts.append([*_validations(validations, values["best_steps"]), *protocol])
    if results:
        parts.append([f"{name}: {_plain(value)}" for name, value in values["protocol"].items()])
    if command := values.get("command"):
        parts.append([f"command: {command}"])
    return "\n\n".join("\n".join(map(printable, lines)) for lines in parts if lines)


def _measured(results: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """The name of a row, a metric, and the number with its details."""
    for result in results:
        for name in METRICS:
            if name in result["measures"]:
                yield result["name"], name, result["measures"][name]


def _facts(result: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name not in ("name", "measures")}


def _numbers(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each metric: the number, its interval, how many pictures it is of, and all else that is known."""
    lines, above = [["", "", "95 % interval", ""]], ""
    for row, name, found in _measured(results):
        lines += [[row, "", "", ""]] if row != above else []
        above = row
        count = f"n = {found['pictures']}"
        count += f" against {found['reference']}" if "reference" in found else ""
        count += f", in {found['network']}" if "network" in found else ""
        more = _plain({key: value for key, value in found.items() if key not in _PLACED})
        lines.append([f"  {name}", _number(found["value"]), _interval(found), f"{count}, {more}" if more else count])
    return aligned(lines)


def _comparisons(comparisons: Sequence[Mapping[str, Any]]) -> list[str]:
    """How each row differs from the first of its group."""
    lines = []
    for comparison in comparisons:
        lines.append([f"{comparison['name']} less {comparison['less']}", "", "", ""])
        for name, found in comparison["differences"].items():
            value = _number(found["value"])
            signed = value if value.startswith(("-", "–")) else f"+{value}"
            lines.append([f"  {name}", signed, _interval(found), verdict(name, found)])
    return ["differences, with 95 % intervals", *aligned(lines)] if lines else []


def verdict(name: str, found: Mapping[str, Any]) -> str:
    """The result of `difference` in words."""
    if found["interval"] is None:
        return "too few pictures to tell"
    if not found["differs"]:
        return "no difference is shown"
    if name not in HIGHER_IS_BETTER and name not in LOWER_IS_BETTER:
        return "differs"
    return "better" if (found["value"] > 0) == (name in HIGHER_IS_BETTER) else "worse"


def _levels(results: Sequence[Mapping[str, Any]]) -> list[str]:
    found = [(row, measure) for row, name, measure in _measured(results) if name == "swd"]
    sizes = list(found[0][1]["levels"]) if found else []
    lines = [["10³ · SWD by level", *(f"{size} px" for size in sizes), "mean", "patches"]]
    for row, measure in found:
        values = [_number(measure["levels"].get(size)) for size in sizes]
        lines.append([row, *values, _number(measure["value"]), f"{measure['patches']:,}"])
    return aligned(lines) if found else []


def _gaps(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """How far outputs came from the inputs to held-out pictures."""
    lines = [["gap closed", "", "", "95 % interval"]]
    for row, name, measure in _measured(results):
        if (share := measure.get("gap_closed")) is not None:
            interval = measure.get("gap_closed_interval")
            percents = f"[{100 * interval[0]:.0f}, {100 * interval[1]:.0f}] %" if interval else ""
            lines.append([row, name, f"{100 * share:.0f} %", percents])
    return aligned(lines) if len(lines) > 1 else []


def _validations(validations: Sequence[Mapping[str, Any]], best: Mapping[str, int]) -> list[str]:
    """A line for each validation of a run."""
    names = list(dict.fromkeys(name for validation in validations for name in validation["metrics"]))

    def cell(validation: Mapping[str, Any], name: str) -> str:
        if name not in validation["metrics"]:
            return ""
        return _number(validation["metrics"][name]) + (" *" if best.get(name) == validation["step"] else "  ")

    lines = [["step", "epoch", *names]]
    lines += [[str(v["step"]), str(v["epoch"]), *(cell(v, name) for name in names)] for v in validations]
    return ["validations during training (* is the best of its column)", *aligned(lines)]


def _number(value: float | None) -> str:
    """Four significant digits, without an exponent where that is short; a dash for a number that is not finite."""
    return "–" if value is None else f"{value:.4g}"


def _interval(details: Mapping[str, Any]) -> str:
    """`[low, high]`; nothing where there is none."""
    found = details.get("interval")
    return f"[{_number(found[0])}, {_number(found[1])}]" if found else ""


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Lines of cells in columns of one width."""
    lines = [[printable(cell) for cell in line] for line in lines]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(entry)}" for key, entry in value.items() if entry not in (None, ""))
    if isinstance(value, float):
        return _number(value)
    return ", ".join(map(_plain, value)) if isinstance(value, list) else str(value)
