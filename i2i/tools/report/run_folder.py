"""The content of a run folder, as far as it can be read."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from annotated_types import Ge
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated

from i2i.config import RUN_CONFIG, RUN_FILES, is_run, read_options, real
from i2i.errors import I2IError, InputError, UsageError
from i2i.evaluation.training_log import Log, read_log
from i2i.models.info import DIRECTIONS, ModelInfo, read_info

T = TypeVar("T")
SAMPLES = "samples"
COLUMNS = "columns.json"
_SAMPLE = re.compile(r"step-(\d{1,15})\.png")
_MAX_JSON_BYTES = 8 << 20


@validated(frozen=True)
class SampleColumns:
    """`samples/columns.json`: the names of the columns of a sample grid, such as `real_A`, and its layout.

    The grid shows `inputs` pictures with their outputs, `inputs_per_row` of them next to each other, below a strip of
    captions of `caption_height` pixels.
    """

    columns: list[str]
    inputs: Annotated[int, Ge(1)]
    inputs_per_row: Annotated[int, Ge(1)] = 1
    caption_height: Annotated[int, Ge(0)] = 0

    @property
    def comparisons(self) -> list[tuple[int, int]]:
        """The columns to compare: each real picture with the one after it, and a last one, a target, with its fake."""
        names = self.columns
        found = [(i, i + 1) for i, name in enumerate(names[:-1]) if name.startswith("real_")]
        if found and names[-1].startswith("real_") and (fake := names[-1].replace("real_", "fake_")) in names:
            found.append((len(names) - 1, names.index(fake)))
        return found


@validated(frozen=True)
class EvaluationFile:
    """The part of `evaluate.py`'s JSON that the page shows: numbers, their details, differences, and the protocol."""

    table: dict[str, dict[str, float | None]]
    protocol: dict[str, Any]
    results: list[dict[str, Any]] = field(default_factory=list)
    comparisons: list[dict[str, Any]] = field(default_factory=list)
    command: str = ""


@dataclass
class RunFolder:
    """A run: its parts are empty where the folder has none. `notices` say what could not be read."""

    path: Path
    log: Log
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    samples: dict[int, Path] = field(default_factory=dict)
    columns: SampleColumns | None = None
    models: dict[str, tuple[ModelInfo, int]] = field(default_factory=dict)
    evaluations: dict[str, EvaluationFile] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return real(self.path).name or str(self.path)


def read_run(path: Path) -> RunFolder:
    """The run in a folder. Raises `InputError` if it is none."""
    try:
        if not path.is_dir():
            raise InputError(f"{path}: {'not a folder' if path.exists() else 'no such folder'}; expected that of a run")
        if not is_run(path):
            raise InputError(f"{path}: not the folder of a run: none of {', '.join(RUN_FILES)} is in it")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    run = RunFolder(path, read_log(path))
    run.config = _config(run)
    run.environment = _json(run, "environment.json")
    run.status = _json(run, "status.json")
    run.command = _text(run, "command.txt")
    run.samples = _samples(run)
    if columns := _json(run, f"{SAMPLES}/{COLUMNS}"):
        run.columns = _checked(run, f"{SAMPLES}/{COLUMNS}", SampleColumns, columns)
    run.models = _models(run)
    for file in sorted(path.glob("evaluation*.json")):
        if (values := _json(run, file.name)) and (found := _checked(run, file.name, EvaluationFile, values)):
            run.evaluations[file.name] = found
    return run


def _config(run: RunFolder) -> dict[str, Any]:
    path = run.path / RUN_CONFIG
    try:
        return read_options(path) if path.exists() else {}
    except UsageError as error:
        run.notices.append(str(error))
        return {}


def _json(run: RunFolder, name: str) -> dict[str, Any]:
    text = _text(run, name)
    if not text:
        return {}
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        run.notices.append(f"{name} is not a JSON object and is left out")
        return {}
    return values


def _checked(run: RunFolder, name: str, kind: type[T], values: dict[str, Any]) -> T | None:
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        run.notices.append(f"{name} is left out: {place}: {first['msg']}")
        return None


def _text(run: RunFolder, name: str) -> str:
    path = run.path / name
    if not path.exists():
        return ""
    if not path.is_file():  # a pipe may never answer
        run.notices.append(f"{name} is not a file")
        return ""
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            run.notices.append(f"{name} has more than {_MAX_JSON_BYTES:,} bytes and is left out")
            return ""
        return path.read_bytes().decode(errors="replace")
    except OSError as error:
        run.notices.append(f"{name} cannot be read: {error.strerror}")
        return ""


def _samples(run: RunFolder) -> dict[int, Path]:
    try:
        names = [(_SAMPLE.fullmatch(path.name), path) for path in (run.path / SAMPLES).iterdir()]
    except OSError:
        return {}
    return dict(sorted((int(match[1]), path) for match, path in names if match))


def _models(run: RunFolder) -> dict[str, tuple[ModelInfo, int]]:
    found = {}
    names = [f"{direction}{kind}.safetensors" for direction in DIRECTIONS for kind in ("", "-best")]
    for path in (run.path / name for name in names):
        try:
            if path.exists():
                found[path.name] = read_info(path), path.stat().st_size
        except (I2IError, OSError) as error:
            run.notices.append(f"{path.name}: {error}")
    return found
