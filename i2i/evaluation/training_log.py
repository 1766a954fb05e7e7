"""The log of a training: `log.jsonl` as series of numbers, messages and validations, and how it validated.

A training may be writing to the log; its last line may be half written, and others may be damaged.
"""

import json
import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from i2i.config import RUN_CONFIG, RUN_LOG, read_options
from i2i.errors import InputError, UsageError
from i2i.evaluation.options import HIGHER_IS_BETTER, LOWER_IS_BETTER, EvaluationOptions

MAX_VALUE = 1e100  # far beyond float32, and differences of two such numbers are still numbers
_MAX_COUNT = 1 << 53  # above, a float is another number
VALIDATION_SEED = 0  # for every validation, whatever the seed of the run


@dataclass
class Series:
    """The values of one quantity, by step."""

    steps: "array[float]" = field(default_factory=lambda: array("d"))
    values: "array[float]" = field(default_factory=lambda: array("d"))

    def add(self, step: int, value: float) -> None:
        self.steps.append(step)
        self.values.append(value)


@dataclass(frozen=True)
class Validation:
    """The metrics of one validation, by name (`fake_B/l1`)."""

    step: int
    epoch: int
    metrics: dict[str, float]


@dataclass
class Message:
    """A message, the name of its subject, and at which steps it came first and last, and how often."""

    name: str
    text: str
    first: int | None
    last: int | None
    count: int = 1


@dataclass
class Log:
    """The content of a log. `damaged` counts unreadable lines, `not_finite` values that are null or beyond
    `MAX_VALUE`; `last` holds the state at the last step.
    """

    losses: dict[str, Series] = field(default_factory=dict)
    validations: list[Validation] = field(default_factory=list)
    health: dict[str, Message] = field(default_factory=dict)
    events: dict[str, Message] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)
    skipped: int = 0
    not_finite: int = 0
    damaged: int = 0

    @property
    def metrics(self) -> dict[str, Series]:
        """The metrics of the validations."""
        found: dict[str, Series] = {}
        for validation in self.validations:
            for name, value in validation.metrics.items():
                found.setdefault(name, Series()).add(validation.step, value)
        return found


def read_log(run: Path, kinds: Sequence[str] = ()) -> Log:
    """The log in a run folder, or only its lines of some `kinds`; an empty one if there is no file.

    Raises `InputError` if the system refuses to read it.
    """
    log, path = Log(), run / RUN_LOG
    try:
        if path.exists() and not path.is_file():  # a pipe may never answer
            raise InputError(f"{path}: cannot be read: not a file")
        with path.open("rb") as file:
            for line in filter(bytes.strip, file):
                if not kinds or any(f'"{kind}"'.encode() in line for kind in kinds):
                    _add(log, line, kinds)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    return log


def _add(log: Log, line: bytes, kinds: Sequence[str]) -> None:
    try:
        entry = json.loads(line)
        kind = entry["kind"]
        if kinds and kind not in kinds:
            return
        if kind == "step":
            _add_step(log, entry)
        elif kind == "validation":
            log.validations.append(
                Validation(_whole(entry["step"]), _whole(entry["epoch"]), _numbers(log, entry["metrics"]))
            )
        else:
            _add_message(log.health if kind == "health" else log.events, entry)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError):
        log.damaged += line.endswith(b"\n")  # the last line of a run in progress may be half written


def best_steps(validations: Sequence[Validation]) -> dict[str, int]:
    """Metric → the step of its best value, the earliest of equals; metrics without a better end are left out."""
    best: dict[str, int] = {}
    for name in dict.fromkeys(name for validation in validations for name in validation.metrics):
        kind = name.rpartition("/")[2]
        if kind in HIGHER_IS_BETTER or kind in LOWER_IS_BETTER:
            sign = -1 if kind in HIGHER_IS_BETTER else 1
            values = [(sign * v.metrics.get(name, math.nan), i, v.step) for i, v in enumerate(validations)]
            if known := [value for value in values if not math.isnan(value[0])]:
                best[name] = min(known)[2]
    return best


def run_options(run: Path) -> dict[str, Any]:
    """The options in a run's `config.yaml` by name, whichever group they are in; empty if it cannot be read."""
    try:
        return read_options(run / RUN_CONFIG)
    except UsageError:
        return {}


def _add_step(log: Log, entry: dict[str, Any]) -> None:
    step, losses = _whole(entry["step"]), _numbers(log, entry["losses"])
    log.skipped += entry.get("skipped") == 1
    log.last = {name: entry[name] for name in ("step", "images", "epoch", "lr") if _number(entry.get(name)) is not None}
    for name, value in losses.items():
        log.losses.setdefault(name, Series()).add(step, value)


def _add_message(messages: dict[str, Message], entry: dict[str, Any]) -> None:
    text = str(entry.get("message") or entry.get("text") or json.dumps(entry))
    name, step = str(entry.get("name", "")), _count(entry.get("step"))
    message = messages.setdefault(f"{name}: {text}", Message(name, text, step, step, 0))
    message.count += 1
    message.last = step


def _numbers(log: Log, values: dict[str, Any]) -> dict[str, float]:
    numbers = {name: _number(value) for name, value in values.items()}
    log.not_finite += sum(number is None for number in numbers.values())
    return {name: number for name, number in numbers.items() if number is not None}


def _number(value: object) -> float | None:
    try:
        number = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        return None
    return number if abs(number) <= MAX_VALUE else None


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < _MAX_COUNT else None


def _whole(value: object) -> int:
    """Raises `ValueError` for what is no number of a step or an epoch."""
    if (count := _count(value)) is None:
        raise ValueError("not a whole number")
    return count


# How the pictures of a validation come to size, by the option `preprocess`.
_SWD_SIZE = " (256x256 for swd, unless they are squares of one size)"
_SIZES = {
    "resize_and_crop": "stretched to {crop_size}x{crop_size}",
    "crop": "their middle of {crop_size}x{crop_size}",
    "scale_shortside": "shorter side scaled, middle of {crop_size}x{crop_size} cut out",
    "scale_width_and_crop": "width scaled, flat ones stretched, middle of {crop_size}x{crop_size} cut out",
    "scale_width": f"{{load_size}} wide{_SWD_SIZE}",
    "none": f"at their own size{_SWD_SIZE}",
    "toy": "drawn at {crop_size}x{crop_size}",
}
# The pictures that the metrics of a validation compare, by how their names begin.
_COMPARED = {
    "fake": "outputs against their targets",
    "teacher": "outputs against those of the teacher",
    "cycle": "pictures restored from their translations, not of the translations",
    "identity": "pictures of the domain translated to, which should stay as they are, not of translations",
}
_COMPARED_ELSE = "outputs against their targets or, without pairs, of reconstructions"


def validation_protocol(options: Mapping[str, Any], metrics: Iterable[str]) -> dict[str, str]:
    """The protocol of a run's validations: `pictures` (how many, of which split, their size) and `numbers`.

    `options` are those of the run, see `run_options`; `metrics` are names as in the log (`cycle_A/l1`).
    """
    names = ("validate_images", "seed", "crop_size", "load_size")
    known = {name: number for name in names if (number := _count(options.get(name))) is not None}
    data, precision = options.get("data"), options.get("precision")
    kind = "toy" if data == "toy" else options.get("preprocess")
    try:
        size = _SIZES[str(kind)].format(**known)
    except KeyError:
        size = "size not known"
    place = f" of {data}".replace("\n", "\\n") if isinstance(data, str) else ""
    split = "those that toy holds out" if kind == "toy" else f"the val split{place}, or of test where there is no val"
    count = f"at most {known['validate_images']}" if "validate_images" in known else "number not known"
    parts = [
        f"{count}, the first of {split}",
        size,
        *(["labels as a channel for each class"] if options.get("classes_a") or options.get("classes_b") else []),
        "measured in float32" + (f" (trained in {precision})" if precision in ("bf16", "fp16") else ""),
        f"seed {VALIDATION_SEED} for dropout"
        + (f", {known['seed']} for toy pictures and noise" if "seed" in known else ""),
    ]
    return {"pictures": "; ".join(parts), "numbers": _compared(list(metrics))}


def _compared(metrics: list[str]) -> str:
    """Which pictures each metric compares."""
    kinds = {name.rpartition("/")[2] for name in metrics}
    groups: dict[str, list[str]] = {}
    means = (name.rpartition("/")[0] for name in metrics if not name.endswith(("swd", "luminance_ssim")))
    for subject in dict.fromkeys(means):
        groups.setdefault(_COMPARED.get(subject.partition("_")[0], _COMPARED_ELSE), []).append(subject)
    parts = ["luminance_ssim: means of outputs against their inputs"] if "luminance_ssim" in kinds else []
    parts += [f"{', '.join(subjects)}: means of {compared}" for compared, subjects in groups.items()]
    if "swd" in kinds:
        seeds = ", ".join(map(str, EvaluationOptions.seeds))
        parts.append(
            f"swd: outputs against the held-out pictures, as sets, one seed ({VALIDATION_SEED}), so not to be compared "
            f"with that of an evaluation, which has seeds ({seeds}), sizes and a reference of its own"
        )
    return "; ".join(parts)
