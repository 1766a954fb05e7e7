"""The result of an evaluation: rows of numbers with their intervals, how they compare, and the protocol behind them.

`Evaluation.to_json` writes it for programs, `as_text` for people. Nothing here needs torch.
"""

import json
import math
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from i2i import __version__
from i2i.errors import UsageError
from i2i.evaluation.options import HIGHER_IS_BETTER, LOWER_IS_BETTER, METRICS
from i2i.evaluation.training_log import Validation, best_steps
from i2i.files import atomic_write
from i2i.terminal import printable

if TYPE_CHECKING:
    from i2i.evaluation.metrics import Estimate

REPORT_NAME = "evaluation.json"
"""The file in a run folder that the numbers of its models go to; the report page shows it."""
_BEGINNING = re.compile(rb'\{\n "i2i": "[^"\n]{1,99}",\n "command": "')  # as `Evaluation.to_json` writes it
# the ends of a metric's range, where its intervals end too; 0 to 1 for all others
_MIN = {"psnr": 0.0, "ssim": -1.0, "luminance_ssim": -1.0, "kid": -math.inf, "is": 1.0}
_MAX = {"psnr": 100.0} | dict.fromkeys(("lpips", "swd", "fid", "kid", "is"), math.inf)
_DEPENDS_ON = ("reference", "patches", "network", "palette", "read_back_by")  # details of a number
_VARIES_WITH_COUNT = ("fid", "is", "precision", "recall")
_PLACED = {
    *("value", "interval", "pictures", "reference", "network", "levels", "patches"),
    *("gap_closed", "gap_closed_interval"),
}
"""The details of a number that have a place of their own."""


@dataclass(frozen=True)
class Measure:
    """A number, and how many pictures it is measured on; `details` hold its interval, its parts, what it depends on.

    `estimate` has its bootstrap draws, by which it is compared with others.
    """

    value: float
    pictures: int
    details: dict[str, Any] = field(default_factory=dict)
    estimate: "Estimate | None" = field(default=None, repr=False, compare=False)


def measured(name: str, estimate: "Estimate", pictures: int, details: Mapping[str, Any] | None = None) -> Measure:
    """The number of a metric; its details hold the part of its 95 % interval in which the metric's numbers lie."""
    found: dict[str, Any] = {}
    if interval := estimate.interval():
        found["interval"] = [max(interval[0], _MIN.get(name, 0.0)), min(interval[1], _MAX.get(name, 1.0))]
    return Measure(estimate.value, pictures, {**found, **(details or {})}, estimate)


def gap_closed(output: Measure, inputs: Measure, held_out: Measure) -> dict[str, Any]:
    """How far outputs came from the inputs (0) to held-out pictures (1), as details of a distance."""
    assert output.estimate and inputs.estimate and held_out.estimate
    share = output.estimate.of(lambda a, b, c: (b - a) / (b - c), output.estimate, inputs.estimate, held_out.estimate)
    interval = share.interval()
    return {"gap_closed": share.value, **({"gap_closed_interval": list(interval)} if interval else {})}


def difference(name: str, one: Measure, other: Measure) -> dict[str, Any] | None:
    """`one` minus `other`: `value`, its 95 % `interval`, and `differs`, whether the interval excludes 0.

    None where the numbers depend on different things: sets of other sizes for a biased number, another network.
    """
    alike = all(one.details.get(key) == other.details.get(key) for key in _DEPENDS_ON)
    if name in _VARIES_WITH_COUNT and one.pictures != other.pictures:
        alike = False
    if one.estimate is None or other.estimate is None or not alike:
        return None
    found = one.estimate.of(operator.sub, one.estimate, other.estimate)
    interval = found.interval()
    differs = interval is not None and not interval[0] <= 0 <= interval[1]
    return {"value": found.value, "interval": list(interval) if interval else None, "differs": differs}


@dataclass(frozen=True)
class Row:
    """The numbers of one set of pictures; `facts` say which model made them from which data.

    Rows of one `group` are compared with the first of them.
    """

    name: str
    measures: dict[str, Measure]
    facts: dict[str, Any] = field(default_factory=dict)
    group: str = ""


def comparisons(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each row with the first of its group, where there is something to compare: the `name` of one, `less` that of the
    other, and the `differences`, metric → `difference`."""
    first: dict[str, Row] = {}
    found: list[dict[str, Any]] = []
    for row in rows:
        base = first.setdefault(row.group, row)
        both = [name for name in METRICS if name in row.measures and name in base.measures and base is not row]
        differences = {name: difference(name, row.measures[name], base.measures[name]) for name in both}
        if known := {name: entry for name, entry in differences.items() if entry is not None}:
            found.append({"name": row.name, "less": base.name, "differences": known})
    return found


@dataclass(frozen=True)
class Evaluation:
    """Rows of numbers, the protocol behind them and, for a run, the validations of its training with theirs."""

    rows: list[Row]
    protocol: dict[str, Any]
    validations: list[Validation] = field(default_factory=list)
    validation_protocol: dict[str, str] = field(default_factory=dict)

    def to_mapping(self, command: str = "") -> dict[str, Any]:
        """`table` (row → metric → number), `results` with all details, `comparisons`, `protocol`, `command`.

        Numbers that are not finite are None: JSON has no others.
        """
        values: dict[str, Any] = {
            "i2i": __version__,
            "command": command,
            "table": {row.name: {name: measure.value for name, measure in row.measures.items()} for row in self.rows},
            "protocol": self.protocol,
            "results": [{"name": row.name, **row.facts, "measures": _detailed(row.measures)} for row in self.rows],
        }
        if compared := comparisons(self.rows):
            values["comparisons"] = compared
        if self.validations:
            values["validations"] = [asdict(validation) for validation in self.validations]
            values["best_steps"] = best_steps(self.validations)
            values["validation_protocol"] = self.validation_protocol
        found: dict[str, Any] = _finite(values)
        return found

    def to_json(self, command: str = "") -> str:
        """`to_mapping` in ASCII."""
        return json.dumps(self.to_mapping(command), indent=1, allow_nan=False) + "\n"


def _detailed(measures: Mapping[str, Measure]) -> dict[str, Any]:
    return {name: {"value": m.value, "pictures": m.pictures, **m.details} for name, m in measures.items()}


def _finite(value: object) -> Any:
    """`value` with None for every number in it that is not finite."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_replaceable(path: Path) -> bool:
    """Whether an earlier evaluation is at `path`. Raises `UsageError` if something else is."""
    if not path.exists():
        return False
    try:
        beginning = path.open("rb").read(200) if path.is_file() else b""
    except OSError as error:
        raise UsageError(f"--report {path}: exists and cannot be read: {error.strerror}") from None
    if not _BEGINNING.match(beginning):
        raise UsageError(f"--report {path}: exists and is no evaluation of i2i; choose another name")
    return True


def write(evaluation: Evaluation, path: Path, command: str = "") -> None:
    """Write the JSON, in the place of an earlier evaluation. Raises `UsageError` if something else is there,
    `OutputError` if it cannot be written."""
    text = evaluation.to_json(command).encode("ascii")
    atomic_write(path, lambda file: file.write(text), replace=check_replaceable(path))


def as_text(values: Mapping[str, Any]) -> str:
    """The `paragraphs` of what `Evaluation.to_mapping` gives, for a terminal."""
    return "\n\n".join("\n".join(lines) for _, lines in paragraphs(values))


def paragraphs(values: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """The lines of each `table` and of each paragraph of `notes`, without control characters.

    The numbers and how models differ come first, then what they depend on, then the validations of a run with the best
    of each column marked. Raises `LookupError`, `TypeError`, `ValueError` or `AttributeError` for anything else than
    `Evaluation.to_mapping` gives.
    """
    results, parts = values.get("results", []), list[tuple[str, list[str]]]()
    if results:
        tables = [_numbers(results), _comparisons(values.get("comparisons", [])), _levels(results), _gaps(results)]
        parts += [("table", lines) for lines in tables]
        parts.append(("notes", [f"{row['name']}: {_plain(facts)}" for row in results if (facts := _facts(row))]))
    if validations := values.get("validations"):
        parts.append(("table", _validations(validations, values["best_steps"])))
        about = values["validation_protocol"].items()
        parts.append(("notes", [f"{name} of the validations: {value}" for name, value in about]))
    if results:
        parts.append(("notes", [f"{name}: {_plain(value)}" for name, value in values["protocol"].items()]))
    if command := values.get("command"):
        parts.append(("notes", [f"command: {command}"]))
    yield from ((kind, list(map(printable, lines))) for kind, lines in parts if lines)


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
