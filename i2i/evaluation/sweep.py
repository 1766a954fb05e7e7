"""The validations of a run in one table, from its `log.jsonl`."""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from i2i.config import read_yaml
from i2i.errors import UsageError
from i2i.evaluation import log_record
from i2i.evaluation.options import HIGHER_IS_BETTER, LOWER_IS_BETTER
from i2i.evaluation.validation_protocol import validation_protocol

_MAX_EPOCH = 1 << 53


@dataclass(frozen=True)
class Validation:
    """The metrics of one validation, by name (`b/l1`)."""

    step: int
    epoch: int
    metrics: dict[str, float]


def read_validations(run: Path) -> list[Validation]:
    """The validations in the log of a run, in its order; damaged lines, and values not finite, are passed over.

    Raises `InputError` if the log cannot be read.
    """
    return [
        Validation(step, row["epoch"], {name: value for name, value in row.items() if name != "epoch"})
        for step, row in log_record.read_validations(run / "log.jsonl")
        if isinstance(row["epoch"], int) and 0 <= row["epoch"] < _MAX_EPOCH
    ]


def read_protocol(run: Path, validations: Sequence[Validation]) -> dict[str, str]:
    """What `validations` of a run depend on, see `validation_protocol`; empty if there are none."""
    if not validations:
        return {}
    config: dict[str, Any] = {}
    with contextlib.suppress(UsageError):  # the numbers are there all the same, and that the rest is not known is said
        config = read_yaml(run / "config.yaml")
    return validation_protocol(config, dict.fromkeys(name for v in validations for name in v.metrics))


def best_steps(validations: Sequence[Validation]) -> dict[str, int]:
    """Metric → the step of its best value, the earliest of equals; metrics without a better end are left out."""
    best: dict[str, int] = {}
    for name in {name for validation in validations for name in validation.metrics}:
        kind = name.rpartition("/")[2]
        if kind not in HIGHER_IS_BETTER and kind not in LOWER_IS_BETTER:
            continue
        sign = -1 if kind in HIGHER_IS_BETTER else 1
        values = ((sign * v.metrics.get(name, math.nan), i, v.step) for i, v in enumerate(validations))
        if rows := [row for row in values if not math.isnan(row[0])]:
            best[name] = min(rows)[2]
    return best
