"""`log.jsonl` as series of numbers and messages. A run may be writing to it; lines may be damaged."""

import json
import math
import stat
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from i2i.errors import InputError

MAX_LINE_BYTES = 1 << 20
MAX_SERIES = 40
MAX_MESSAGES = 200
MAX_VALIDATIONS = 10_000
MAX_NUMBERS = 1 << 18
"""Of one quantity; of more, every second is dropped, again and again, which a curve of some hundred points hides."""
LARGEST = 1e100  # far beyond float32, and differences of two such numbers are still numbers
_MAX_STEP = 1 << 53
_NAME, _TEXT = 80, 500


@dataclass
class Series:
    """The values of one quantity, by step; of `count` that there were, each `every`-th."""

    steps: "array[float]" = field(default_factory=lambda: array("d"))
    values: "array[float]" = field(default_factory=lambda: array("d"))
    count: int = 0
    every: int = 1

    def add(self, step: int, value: float) -> None:
        self.count += 1
        if len(self.steps) >= MAX_NUMBERS:
            self.steps, self.values, self.every = self.steps[1::2], self.values[1::2], 2 * self.every
        if self.count % self.every:
            return
        self.steps.append(step)
        self.values.append(value)


@dataclass
class Message:
    """A message, the name of what it is about, and when it was said first, last, and how often."""

    name: str
    text: str
    first: int | None
    last: int | None
    count: int = 1


@dataclass
class Log:
    """What a log says. `damaged` counts the lines that are not readable, `not_finite` the values that are null
    or beyond `LARGEST`.

    `other_series` and `other_messages` count what is beyond the limits and not kept.
    """

    losses: dict[str, Series] = field(default_factory=dict)
    metrics: dict[str, Series] = field(default_factory=dict)
    validations: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    health: dict[str, Message] = field(default_factory=dict)
    events: dict[str, Message] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)
    steps: int = 0
    skipped: int = 0
    not_finite: int = 0
    damaged: int = 0
    other_validations: int = 0
    other_series: set[str] = field(default_factory=set)
    other_messages: int = 0


def read_log(path: Path) -> Log:
    """The log in a file; an empty one if there is no file. Raises `InputError` if the system refuses to read it."""
    log = Log()
    for line, whole in _lines(path):
        entry = _entry(line)
        if entry is None:
            log.damaged += whole  # the last line of a run in progress may be half written
        elif entry.get("kind") == "step":
            _add_step(log, entry)
        elif entry.get("kind") == "validation":
            _add_validation(log, entry)
        else:
            _add_message(log, entry)
    return log


def read_validations(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Only the validations of the log in a file, as `Log.validations`. Raises `InputError` like `read_log`."""
    log = Log()
    for line, _ in _lines(path):
        if b'"validation"' in line and (entry := _entry(line)) is not None and entry["kind"] == "validation":
            _add_validation(log, entry)
    return log.validations


def _lines(path: Path) -> Iterator[tuple[bytes, bool]]:
    """Each line, and whether it has an end. Of one that is too long, the beginning."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # from a pipe nothing may ever come
            raise InputError(f"{path}: cannot be read: not a file")
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES):
                whole = line.endswith(b"\n")
                while not whole and (rest := file.readline(MAX_LINE_BYTES)):
                    whole = rest.endswith(b"\n")
                    line = line[:1]  # not JSON: the line is damaged
                if line.strip():
                    yield line, whole
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("kind"), str) else None


def _step(entry: dict[str, Any]) -> int | None:
    step = entry.get("step")
    return step if isinstance(step, int) and not isinstance(step, bool) and 0 <= step < _MAX_STEP else None


def _add_step(log: Log, entry: dict[str, Any]) -> None:
    step, losses = _step(entry), entry.get("losses")
    if step is None or not isinstance(losses, dict):
        log.damaged += 1
        return
    log.steps += 1
    log.skipped += entry.get("skipped") == 1
    log.last = {name: entry[name] for name in ("step", "images", "epoch", "lr") if _number(entry.get(name)) is not None}
    _add_numbers(log, log.losses, step, losses)


def _add_validation(log: Log, entry: dict[str, Any]) -> None:
    step, metrics = _step(entry), entry.get("metrics")
    if step is None or not isinstance(metrics, dict):
        log.damaged += 1
        return
    kept = _add_numbers(log, log.metrics, step, metrics)
    if len(log.validations) >= MAX_VALIDATIONS:
        log.other_validations += 1
        return
    epoch = entry.get("epoch")
    log.validations.append((step, {**kept, "epoch": epoch if _number(epoch) is not None else None}))


def _add_numbers(log: Log, series: dict[str, Series], step: int, values: dict[str, Any]) -> dict[str, float]:
    kept = {}
    for key, value in values.items():
        name = key[:_NAME]
        if name not in series and len(series) >= MAX_SERIES:
            if len(log.other_series) < 10 * MAX_SERIES:
                log.other_series.add(name)
        elif (number := _number(value)) is None:
            log.not_finite += 1
        else:
            series.setdefault(name, Series()).add(step, number)
            kept[name] = number
    return kept


def _number(value: Any) -> float | None:
    try:
        number = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        return None
    return number if abs(number) <= LARGEST else None


def _add_message(log: Log, entry: dict[str, Any]) -> None:
    messages = log.health if entry["kind"] == "health" else log.events
    text, name = entry.get("message", entry.get("text")), entry.get("name")
    shown = (text if isinstance(text, str) else json.dumps(entry))[:_TEXT]
    name, step = name[:_NAME] if isinstance(name, str) else "", _step(entry)
    key = f"{name}: {shown}"
    if message := messages.get(key):
        message.count += 1
        message.last = step
    elif len(messages) < MAX_MESSAGES:
        messages[key] = Message(name, shown, step, step)
    else:
        log.other_messages += 1
