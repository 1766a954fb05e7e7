"""What came out of an evaluation: rows of numbers, and the protocol that they depend on."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from i2i import __version__
from i2i.errors import UsageError
from i2i.evaluation.measures import Measure, difference
from i2i.evaluation.options import METRICS
from i2i.evaluation.sweep import Validation, best_steps

_BEGINNING = re.compile(rb'\{\n "i2i": "[^"\n]{1,99}",\n "command": "')  # of what `Evaluation.to_json` writes


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


@dataclass(frozen=True)
class Row:
    """The numbers of one set of pictures; `facts` say which model made them from what.

    Rows of one `group` are compared with the first of them.
    """

    name: str
    measures: dict[str, Measure]
    facts: dict[str, Any] = field(default_factory=dict)
    group: str = ""


@dataclass(frozen=True)
class Comparison:
    """A row less another: metric → `value`, `interval` and `differs`, see `measures.difference`."""

    row: str
    less: str
    differences: dict[str, dict[str, Any]]


def comparisons(rows: Sequence[Row]) -> list[Comparison]:
    """Each row with the first of its group, where there is something to compare."""
    first: dict[str, Row] = {}
    found = []
    for row in rows:
        base = first.setdefault(row.group, row)
        both = [name for name in METRICS if name in row.measures and name in base.measures and base is not row]
        differences = {name: difference(name, row.measures[name], base.measures[name]) for name in both}
        if told := {name: entry for name, entry in differences.items() if entry is not None}:
            found.append(Comparison(row.name, base.name, told))
    return found


@dataclass(frozen=True)
class Evaluation:
    """Rows of numbers, the protocol that they depend on and, of a run, the validations of its training with theirs."""

    rows: list[Row]
    protocol: dict[str, Any]
    validations: list[Validation] = field(default_factory=list)
    validation_protocol: dict[str, str] = field(default_factory=dict)

    def to_json(self, command: str = "") -> str:
        """ASCII: `table` (row → metric → number), `results` with all that is beside them, `comparisons`, `protocol`,
        `command`.

        Numbers that are not finite are null, as JSON has no others.
        """
        values: dict[str, Any] = {
            "i2i": __version__,
            "command": command,
            "table": {row.name: {name: measure.value for name, measure in row.measures.items()} for row in self.rows},
            "protocol": self.protocol,
            "results": [_detailed(row) for row in self.rows],
        }
        if compared := comparisons(self.rows):
            values["comparisons"] = [{"name": c.row, "less": c.less, "differences": c.differences} for c in compared]
        if self.validations:
            values["validations"] = [asdict(validation) for validation in self.validations]
            values["best_steps"] = best_steps(self.validations)
            values["validation_protocol"] = self.validation_protocol
        return json.dumps(_finite(values), indent=1, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """`value` with None for every number in it that is not finite."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _detailed(row: Row) -> dict[str, Any]:
    measures = {
        name: {"value": measure.value, "pictures": measure.pictures, **measure.beside}
        for name, measure in row.measures.items()
    }
    return {"name": row.name, **row.facts, "measures": measures}
