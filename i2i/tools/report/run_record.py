"""What lies in a run folder, as far as it can be read."""

import contextlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from i2i.config import read_yaml, real
from i2i.errors import I2IError, InputError, UsageError
from i2i.evaluation.log_record import Log, read_log
from i2i.models.info import DIRECTIONS, ModelInfo, read_info

MAX_JSON_BYTES = 4 << 20
MAX_EVALUATIONS = 50
MAX_EVALUATION_BYTES = 8 << 20
"""Of all evaluation files together; in memory JSON may take twenty times its bytes."""
_SIGNS = ("log.jsonl", "config.yaml", "status.json")
_SAMPLE = re.compile(r"step-(\d{1,15})\.png")


@dataclass
class RunRecord:
    """A run: its parts are empty where the folder has none. `notices` say what could not be read."""

    path: Path
    log: Log
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    samples: dict[int, Path] = field(default_factory=dict)
    models: dict[str, tuple[ModelInfo, int]] = field(default_factory=dict)
    evaluations: dict[str, dict[str, Any]] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return real(self.path).name or str(self.path)


def read_run(path: Path) -> RunRecord:
    """The run in a folder. Raises `InputError` if it is none."""
    try:
        if not path.is_dir():
            raise InputError(f"{path}: {'not a folder' if path.exists() else 'no such folder'}; expected that of a run")
        if not any((path / name).is_file() for name in _SIGNS):
            raise InputError(f"{path}: not the folder of a run: none of {', '.join(_SIGNS)} is in it")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    run = RunRecord(path, read_log(path / "log.jsonl"))
    run.config = _config(run)
    run.environment = _json(run, path / "environment.json")
    run.status = _json(run, path / "status.json")
    run.command = _text(run, path / "command.txt")
    run.samples = _samples(run)
    run.models = _models(run)
    run.evaluations = _evaluations(run)
    return run


def _config(run: RunRecord) -> dict[str, Any]:
    path = run.path / "config.yaml"
    try:
        return read_yaml(path) if path.exists() else {}
    except UsageError as error:
        run.notices.append(str(error))
        return {}


def _json(run: RunRecord, path: Path) -> dict[str, Any]:
    text = _text(run, path)
    if not text:
        return {}
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        run.notices.append(f"{path.name} is not a JSON object and is left out")
        return {}
    return values


def _text(run: RunRecord, path: Path) -> str:
    if path.exists() and not path.is_file():  # a pipe would be waited for
        run.notices.append(f"{path.name} is not a file")
        return ""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_JSON_BYTES + 1)
    except FileNotFoundError:
        return ""
    except OSError as error:
        run.notices.append(f"{path.name} cannot be read: {error.strerror}")
        return ""
    if len(data) > MAX_JSON_BYTES:
        run.notices.append(f"{path.name} has more than {MAX_JSON_BYTES:,} bytes and is left out")
        return ""
    return data.decode(errors="replace")


def _samples(run: RunRecord) -> dict[int, Path]:
    try:
        names = [(_SAMPLE.fullmatch(path.name), path) for path in (run.path / "samples").iterdir()]
    except OSError:
        return {}
    return dict(sorted((int(match[1]), path) for match, path in names if match))


def _models(run: RunRecord) -> dict[str, tuple[ModelInfo, int]]:
    found = {}
    names = [f"{direction}{kind}.safetensors" for direction in DIRECTIONS for kind in ("", "-best")]
    for path in (run.path / name for name in names):
        try:
            if path.exists():
                found[path.name] = read_info(path), path.stat().st_size
        except (I2IError, OSError) as error:
            run.notices.append(f"{path.name}: {error}")
    return found


def _evaluations(run: RunRecord) -> dict[str, dict[str, Any]]:
    paths = sorted(run.path.glob("evaluation*.json"))
    if len(paths) > MAX_EVALUATIONS:
        run.notices.append(f"{len(paths) - MAX_EVALUATIONS} of {len(paths)} evaluation files are left out")
    found: dict[str, dict[str, Any]] = {}
    left = MAX_EVALUATION_BYTES
    for path in paths[:MAX_EVALUATIONS]:
        with contextlib.suppress(OSError):  # reading it says why
            left -= path.stat().st_size
        if left < 0:
            run.notices.append(f"{path.name} and what follows are left out: more than {MAX_EVALUATION_BYTES:,} bytes")
            break
        found[path.name] = _json(run, path)
    return {name: values for name, values in found.items() if "table" in values or "metrics" in values}
