"""The validations of a run in one table, from its `log.jsonl`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from i2i.errors import InputError
from i2i.evaluation.options import HIGHER_IS_BETTER, LOWER_IS_BETTER

_MAX_BYTES = 1 << 30


@dataclass(frozen=True)
class Validation:
    """The metrics of one validation, by name (`b/l1`)."""

    step: int
    epoch: int
    metrics: dict[str, float]


def read_validations(run: Path) -> list[Validation]:
    """The validations in the log of a run, in its order; lines that are not whole are passed over.

    Raises `InputError` if the log cannot be read.
    """
    found = []
    try:
        with (run / "log.jsonl").open("rb") as lines:
            for line in lines:
                if b'"validation"' in line and (entry := _entry(line)) is not None:
                    found.append(entry)
    except OSError as error:
        raise InputError(f"{run / 'log.jsonl'}: cannot be read: {error.strerror}") from None
    return found


def _entry(line: bytes) -> Validation | None:
    try:
        values = json.loads(line)
        if values["kind"] != "validation":
            return None
        metrics = {str(k): float(v) for k, v in values["metrics"].items() if isinstance(v, int | float)}
        return Validation(int(values["step"]), int(values["epoch"]), metrics)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def best_steps(validations: Sequence[Validation]) -> dict[str, int]:
    """Metric → the step of its best value, the earliest of equals; metrics without a better end are left out."""
    best: dict[str, int] = {}
    for name in {name for validation in validations for name in validation.metrics}:
        kind = name.rpartition("/")[2]
        if kind not in HIGHER_IS_BETTER and kind not in LOWER_IS_BETTER:
            continue
        sign = -1 if kind in HIGHER_IS_BETTER else 1
        rows = [(sign * v.metrics[name], i, v.step) for i, v in enumerate(validations) if name in v.metrics]
        best[name] = min(rows)[2]
    return best
