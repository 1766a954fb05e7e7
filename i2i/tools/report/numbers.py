"""The numbers with their protocol: validations during training, and evaluation files beside them."""

from collections.abc import Mapping, Sequence
from typing import Any

from i2i.evaluation.options import HIGHER_IS_BETTER, LOWER_IS_BETTER
from i2i.evaluation.validation_protocol import validation_protocol
from i2i.tools.report.markup import MAX_CELL, escape, facts, fitted, flat, left_out, number, table
from i2i.tools.report.pictures import evenly
from i2i.tools.report.run_record import RunRecord
from i2i.tools.report.sections import columns_of, section

MAX_ROWS = 200
MAX_COLUMNS = 30
MAX_CHARACTERS = 2 << 20


def numbers(run: RunRecord) -> str:
    """Tables of the validations and of each evaluation file; a line where there are none."""
    parts = [_validations(run)] if run.log.validations else []
    parts += [_evaluation(name, values) for name, values in run.evaluations.items()]
    content = fitted(parts, MAX_CHARACTERS, "tables") or (
        '<p class="note">No validation in the log, and no evaluation*.json in the folder.</p>\n'
    )
    return section("numbers", "Numbers", content)


def _validations(run: RunRecord) -> str:
    rows = run.log.validations
    names = list(run.log.metrics)[:MAX_COLUMNS]
    best = {name: best_of([row[name] for _, row in rows if name in row], name) for name in names}
    chosen = evenly(rows, MAX_ROWS)
    cells = [
        [number(step), number(row["epoch"]), *(_marked(row.get(name), best[name]) for name in names)]
        for step, row in chosen
    ]
    left = left_out(len(rows) - len(chosen) + run.log.other_validations, "validations")
    return "<h3>During training</h3>\n" + _protocol(run) + table(["step", "epoch", *names], cells, "Validations") + left


def _protocol(run: RunRecord) -> str:
    protocol = validation_protocol(run.config, run.log.metrics)
    known = {name: run.environment.get(name) for name in ("device", "i2i")}
    told = "".join(f", {name} {escape(value, 60)}" for name, value in known.items() if value is not None)
    return (
        f'<p class="note">Pictures: {escape(protocol["pictures"])}. Numbers: {escape(protocol["numbers"])}. '
        f"The networks as they translate{told}. The best value of a column is bold where it is known which end is "
        "better.</p>\n"
    )


def best_of(values: Sequence[float], name: str) -> float | None:
    """The best of the values of a metric; None where it is not known whether high or low is good."""
    kind = name.rpartition("/")[2]
    if not values or kind not in (*HIGHER_IS_BETTER, *LOWER_IS_BETTER):
        return None
    return max(values) if kind in HIGHER_IS_BETTER else min(values)


def _marked(value: float | None, best: float | None) -> str:
    return f"<b>{number(value)}</b>" if value is not None and value == best else number(value)


def _evaluation(name: str, values: Mapping[str, Any]) -> str:
    """An evaluation file: its tables, and every other entry as the protocol."""
    tables = ("table", "metrics", "validations")
    content = "".join(_any_table(key, values[key]) for key in tables if key in values)
    rest = {key: value for key, value in values.items() if key not in tables}
    compared = rest.get("comparisons")
    if isinstance(compared, list) and compared and all(_is_comparison(entry) for entry in compared):
        content += _comparisons(compared)
        del rest["comparisons"]
    results = rest.get("results")
    if isinstance(results, list) and results and all(_is_result(result) for result in results):
        content += _results(results)
        kept = [{key: value for key, value in result.items() if key != "measures"} for result in results[:MAX_ROWS]]
        rest["results"] = {str(i): entries for i, entries in enumerate(kept, 1)}
    return f"<h3>{escape(name, MAX_CELL)}</h3>\n{content}" + (facts(rest) if rest else "")


def _is_result(result: Any, key: str = "measures") -> bool:
    measures = result.get(key) if isinstance(result, dict) else None
    return isinstance(measures, dict) and all(isinstance(measure, dict) for measure in measures.values())


def _is_comparison(entry: Any) -> bool:
    return _is_result(entry, "differences")


def _comparisons(compared: Sequence[Mapping[str, Any]]) -> str:
    """Each row less another, with the interval of the difference, bold where it does not hold 0."""
    found = [(entry, *each) for entry in compared for each in entry["differences"].items()]
    rows = []
    for entry, metric, difference in found[:MAX_ROWS]:
        value = _cell(difference.get("value"))
        names = [number(entry.get(key)) for key in ("name", "less")]
        marked = f"<b>{value}</b>" if difference.get("differs") is True else value
        rows.append([*names, escape(metric, MAX_CELL), marked, _interval(difference.get("interval"))])
    note = '<p class="note">Differences; bold where the interval does not hold 0.</p>\n'
    head = ("", "less", "metric", "difference", "95 % interval")
    return note + table(head, rows, "comparisons") + left_out(len(found) - MAX_ROWS, "rows")


def _interval(value: Any) -> str:
    """`[low, high]`, or whatever else the file has there."""
    return f"[{_cell(value)}]" if isinstance(value, list) and value else _cell(value) if value is not None else ""


def _results(results: Sequence[Mapping[str, Any]]) -> str:
    """The numbers of evaluate.py: intervals, ± the deviation of the parts, counts, and all else beside them."""
    found = [(result.get("name"), *entry) for result in results for entry in result["measures"].items()]
    header = ("", "metric", "value", "95 % interval", "±", "n", "against", "beside")
    shown = ("value", "interval", "std", "pictures", "reference")
    rows = []
    for name, metric, measure in found[:MAX_ROWS]:
        beside = flat({key: value for key, value in measure.items() if key not in shown})[:MAX_COLUMNS]
        told = ", ".join(f"{escape(key, MAX_CELL)} {_cell(value)}" for key, value in beside)
        cells = [(_interval if key == "interval" else _cell)(measure[key]) if key in measure else "" for key in shown]
        rows.append([number(name), escape(metric, MAX_CELL), *cells, told])
    return table(header, rows, "results") + left_out(len(found) - MAX_ROWS, "rows")


def _any_table(key: str, value: Any) -> str:
    """Rows as mappings, a mapping of mappings, a mapping of values, or rows as lists; what is nested is flattened."""
    if isinstance(value, dict) and value and all(isinstance(row, dict) for row in value.values()):
        value = [{"": name, **row} for name, row in value.items()]
    if isinstance(value, dict):
        value = [{"": name, "value": entry} for name, entry in flat(value)]
    if not isinstance(value, list):
        return f"<p>{escape(key)}: {escape(value)}</p>\n"
    rows = [_row(row) for row in value[:MAX_ROWS]]
    names = columns_of(rows, MAX_COLUMNS)
    if not names:
        return ""
    cells = [[_cell(row.get(name)) for name in names] for row in rows]
    return table(names, cells, key) + left_out(len(value) - MAX_ROWS, "rows")


def _row(row: Any) -> dict[Any, Any]:
    if isinstance(row, dict):
        return dict(flat(row))
    return dict(enumerate(row if isinstance(row, list) else [row]))


def _cell(value: Any) -> str:
    if isinstance(value, list) and len(value) <= MAX_COLUMNS:
        return ", ".join(map(number, value))
    return number(value)
