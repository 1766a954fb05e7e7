"""The content of a run folder."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from i2i.config import RUN_CONFIG, RUN_FILES, is_run, read_options, real
from i2i.errors import I2IError, InputError, UsageError
from i2i.evaluation.training_log import Log, read_log
from i2i.models.info import DIRECTIONS, ModelInfo, read_info

SAMPLES = "samples"
COLUMNS = "columns.json"
_SAMPLE = re.compile(r"step-(\d{1,15})\.png")


@dataclass(frozen=True)
class SampleColumns:
    """`samples/columns.json`: the names of the columns of a sample grid, such as `real_A`, and its layout.

    The grid shows `inputs` pictures with their outputs, `inputs_per_row` of them next to each other, below a strip of
    captions of `caption_height` pixels.
    """

    columns: list[str]
    inputs: int
    inputs_per_row: int = 1
    caption_height: int = 0

    @property
    def comparisons(self) -> list[tuple[int, int]]:
        """The columns to compare: each real picture with the one after it, and a last one, a target, with its fake."""
        names = self.columns
        found = [(i, i + 1) for i, name in enumerate(names[:-1]) if name.startswith("real_")]
        if found and names[-1].startswith("real_") and (fake := names[-1].replace("real_", "fake_")) in names:
            found.append((len(names) - 1, names.index(fake)))
        return found


@dataclass
class RunFolder:
    """A run. Its parts are empty where the folder has none; `notices` say what could not be read."""

    path: Path
    log: Log
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    samples: dict[int, Path] = field(default_factory=dict)
    columns: SampleColumns | None = None
    models: dict[str, tuple[ModelInfo, int]] = field(default_factory=dict)
    evaluations: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The files of `i2i evaluate`, by name."""
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
    try:
        run.config = read_options(path / RUN_CONFIG) if (path / RUN_CONFIG).exists() else {}
    except UsageError as error:
        run.notices.append(str(error))
    run.environment, run.status = _json(run, "environment.json"), _json(run, "status.json")
    run.command = _read(path / "command.txt").decode(errors="replace")
    names = ((_SAMPLE.fullmatch(file.name), file) for file in (path / SAMPLES).glob("*.png"))
    run.samples = dict(sorted((int(match[1]), file) for match, file in names if match))
    if columns := _json(run, f"{SAMPLES}/{COLUMNS}"):
        run.columns = SampleColumns(**columns)
    run.models = _models(run)
    files = {file.name: _json(run, file.name) for file in sorted(path.glob("evaluation*.json"))}
    run.evaluations = {name: values for name, values in files.items() if "table" in values}
    return run


def _read(path: Path) -> bytes:
    """The bytes of a file; empty if there is none."""
    return path.read_bytes() if path.is_file() else b""  # a pipe may never answer


def _json(run: RunFolder, name: str) -> dict[str, Any]:
    try:
        values = json.loads(_read(run.path / name) or b"{}")
    except (OSError, ValueError, RecursionError) as error:
        run.notices.append(f"{name} is left out: {error}")
        return {}
    return values if isinstance(values, dict) else {}


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
