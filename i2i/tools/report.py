"""One run as one page: its health, pictures, curves, numbers and configuration, read from the run's folder."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import yaml

from i2i.config import RUN_CONFIG, RUN_FILES, is_run, read_options
from i2i.errors import I2IError, ImageError, InputError, UsageError
from i2i.evaluation.result import aligned, paragraphs
from i2i.evaluation.training_log import Log, Message, best_steps, read_log, validation_protocol
from i2i.files import atomic_write
from i2i.models.info import DIRECTIONS, ModelInfo, read_info
from i2i.tools.markup import Section, build, chart, escape, note, number, plain
from i2i.tools.pictures import (
    DRAG,
    MAX_SHORTER_SIDE,
    EmbeddedPicture,
    Pair,
    SampleColumns,
    comparisons,
    image,
    sample_grids,
    sample_pairs,
    translated_pairs,
)
from i2i.urls import real

MARK = b"<!doctype html>\n<!-- i2i report -->\n"
NAME = "report.html"
_SCALED = f"A picture whose shorter side is above {MAX_SHORTER_SIDE} pixels was scaled to that before."
SAMPLES = "samples"
COLUMNS = "columns.json"
_SAMPLE = re.compile(r"step-(\d{1,15})\.png")

T = TypeVar("T")


@dataclass
class RunFolder:
    """A run. Its parts are empty where the folder has none; `notices` say what could not be read."""

    path: Path
    log: Log
    config: Mapping[str, Any] = field(default_factory=dict)
    options: str = ""
    """The text of `config`."""
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

    def read(self, name: str, how: Callable[[Path], T]) -> T | None:
        """A file of the folder; None if there is none, and with a notice if it cannot be read."""
        try:
            if (path := self.path / name).is_file():  # a pipe may never answer
                return how(path)
        except (I2IError, OSError, ValueError, RecursionError) as error:
            self.notices.append(f"{name} is left out: {error}")
        return None


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
    run.config = run.read(RUN_CONFIG, read_options) or {}
    run.options = (run.read(RUN_CONFIG, _text) or "") if run.config else ""
    run.environment, run.status = (run.read(name, _json) or {} for name in ("environment.json", "status.json"))
    run.command = run.read("command.txt", _text) or ""
    names = ((_SAMPLE.fullmatch(file.name), file) for file in (path / SAMPLES).glob("*.png"))
    run.samples = dict(sorted((int(match[1]), file) for match, file in names if match))
    if columns := run.read(f"{SAMPLES}/{COLUMNS}", _json):
        run.columns = SampleColumns(**columns)
    for name in (f"{direction}{kind}.safetensors" for direction in DIRECTIONS for kind in ("", "-best")):
        if model := run.read(name, lambda file: (read_info(file), file.stat().st_size)):
            run.models[name] = model
    for file in sorted(path.glob("evaluation*.json")):
        if "results" in (values := run.read(file.name, _json) or {}):
            run.evaluations[file.name] = values
    return run


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _json(path: Path) -> dict[str, Any]:
    values = json.loads(path.read_bytes())
    return values if isinstance(values, dict) else {}


@dataclass(frozen=True)
class Written:
    """A report that was written: its file and size, what was left out, and which pictures were not translated."""

    path: Path
    size: int
    notices: tuple[str, ...]
    failed: tuple[str, ...]


def write_report(
    run: Path,
    out: Path | None = None,
    *,
    pictures: Path | None = None,
    direction: str | None = None,
    device: str = "auto",
) -> Written:
    """Write the report of the run in a folder to `out` (by default `report.html` in that folder).

    The run's model of `direction` translates `pictures`, a folder, for the page. An earlier report is replaced. Raises
    `InputError` if `run` is not the folder of a run, `UsageError` if `out` is something else than a report,
    `OutputError` if it cannot be written.
    """
    record, out = read_run(run), out or run / NAME
    replace = _check_replaceable(out)
    pairs, failed = translated_pairs(run, pictures, direction, device, record.notices) if pictures else ([], [])
    data = build_page(record, pairs, failed)
    atomic_write(out, lambda file: file.write(data), replace=replace)
    return Written(out, len(data), tuple(record.notices), tuple(failed))


def _check_replaceable(out: Path) -> bool:
    """Whether an earlier report is at `out`. Raises `UsageError` if something else is."""
    if not out.exists():
        return False
    try:
        beginning = out.open("rb").read(len(MARK)) if out.is_file() else b""
    except OSError as error:
        raise UsageError(f"{out}: exists and cannot be read: {error.strerror}") from None
    if beginning != MARK:
        raise UsageError(f"{out}: exists and is not a report of i2i; choose another name with -o")
    return True


def build_page(run: RunFolder, own: Sequence[Pair] = (), failed: Sequence[str] = ()) -> bytes:
    """The bytes of the page; `own` are pictures of the user with their translations. Notices are added to the run's."""
    if run.log.damaged:
        run.notices.append(f"log.jsonl: damaged lines left out: {run.log.damaged}")
    sections = [
        _health(run.log),
        comparisons(own, "pictures", "Your pictures", f"{DRAG} {_SCALED}"),
        comparisons(_last_samples(run), "compare", "Input and output", f"{DRAG} From the last sample grid."),
        _samples(run),
        _curves(run.log),
        Section("numbers", "Numbers", _numbers(run)),
        Section("configuration", "Configuration", _configuration(run)),
    ]
    return build(MARK, "i2i report", run.name, _summary(run), [*run.notices, *failed], sections)


def _summary(run: RunFolder) -> str:
    """How the run stands, in a line."""
    last, status, options = run.log.last, run.status, run.config
    state = escape(status.get("status", "unknown state"), 30)
    words = [
        f"step {number(last.get('step', status.get('step', 0)))}",
        *(f"{name} {number(last[name])}" for name in ("images", "epoch", "lr") if name in last),
        *(escape(options[name], 60) for name in ("algorithm", "generator", "direction") if name in options),
        *([f"as of {escape(status['time'], 60)}"] if "time" in status else []),
    ]
    return f'<p class="lead"><span class="chip" data-state="{state}">{state}</span> ' + " · ".join(words) + "</p>\n"


def _health(log: Log) -> Section:
    """Messages of kind `health`, then other events."""
    content = _messages(log.health) or note("The log has no health messages.")
    counts = {"skipped steps": log.skipped, "values that were not finite": log.not_finite}
    counted = [f"{count:,} {subject}" for subject, count in counts.items() if count]
    content += f"<p>{', '.join(counted)}</p>\n" if counted else ""
    if log.events:
        content += f"<details><summary>Events ({len(log.events)})</summary>{_messages(log.events)}</details>\n"
    return Section("health", "Health", content)


def _messages(messages: Mapping[str, Message]) -> str:
    items = "".join(
        f"<li><span>{_when(m)}</span> {f'<b>{escape(m.name)}</b>: ' if m.name else ''}{escape(m.text)}</li>\n"
        for m in messages.values()
    )
    return f'<ul class="messages">{items}</ul>\n' if items else ""


def _when(message: Message) -> str:
    if message.first is None:
        return f"{message.count} times" if message.count > 1 else ""
    first = f"step {number(message.first)}"
    return first if message.count == 1 else f"{first} to {number(message.last)}, {message.count} times"


def _last_samples(run: RunFolder) -> list[Pair]:
    if not run.samples or run.columns is None:
        return []
    try:
        return sample_pairs(list(run.samples.values())[-1], run.columns)
    except ImageError:
        return []  # the notice stands where all grids are read


def _samples(run: RunFolder) -> Section:
    """The last grid, the earlier ones folded away; the script turns them into a scrubber."""
    grids = sample_grids(run.samples, run.notices)
    names = ", ".join(escape(name, 60) for name in run.columns.columns) if run.columns else ""
    content = note(f"Columns from left to right: {names}.") if names else ""
    *earlier, last = ["", *_figures(grids)]
    if len(grids) > 1:
        last = (
            '<div class="scrubber" hidden><button type="button" aria-label="Earlier grid">‹</button>'
            f'<input type="range" min="0" max="{len(grids) - 1}" step="1" value="{len(grids) - 1}" aria-label="Step">'
            '<button type="button" aria-label="Later grid">›</button><output></output></div>\n'
            f'{last}<details class="earlier"><summary>Earlier grids ({len(grids) - 1})</summary>'
            f"{''.join(earlier)}</details>\n"
        )
    return Section("samples", "Samples through time", f'{content}<div class="grids">{last}</div>\n' if grids else "")


def _figures(grids: Sequence[tuple[int, EmbeddedPicture]]) -> Iterator[str]:
    for step, grid in grids:
        yield f'<figure data-step="{step}">{image(grid)}<figcaption>Step {step:,}</figcaption></figure>\n'


def _curves(log: Log) -> Section:
    """A chart per metric of the validations and per loss."""
    metrics = "".join(chart(name, series) for name, series in log.metrics.items())
    losses = "".join(chart(name, series, smooth=True) for name, series in log.losses.items())
    content = f'<h3>Validation</h3>\n<div class="charts">{metrics}</div>\n' if metrics else ""
    if losses:
        explained = note("Line: smoothed mean; band: 5th to 95th percentile of the steps around.")
        content += f'<h3>Losses</h3>\n{explained}<div class="charts">{losses}</div>\n'
    return Section("curves", "Curves", content or note("The log has no steps yet."))


def _numbers(run: RunFolder) -> str:
    """The tables of the validations and of each evaluation file, each with its protocol."""
    parts: list[tuple[str, dict[str, Any]]] = []
    if validations := run.log.validations:
        known = {name: value for name in ("device", "i2i") if (value := run.environment.get(name)) is not None}
        protocol = validation_protocol(run.config, list(run.log.metrics)) | known
        values = {"validations": list(map(asdict, validations)), "best_steps": best_steps(validations)}
        parts.append(("During training", {**values, "validation_protocol": protocol}))
    parts += [(name, {**values, "validations": ()}) for name, values in run.evaluations.items()]
    content = ""
    for name, found in parts:
        try:
            shown = "".join(plain(lines, kind) for kind, lines in _joined(paragraphs(found)))
            content += f"<h3>{escape(name)}</h3>\n{shown}"
        except (AttributeError, LookupError, TypeError, ValueError):
            run.notices.append(f"{name} is left out: not as i2i evaluate writes it")
    return content or note("No validation in the log, and no evaluation*.json in the folder.")


def _joined(paragraphs: Iterable[tuple[str, list[str]]]) -> Iterator[tuple[str, list[str]]]:
    """Paragraphs of one kind together, an empty line between them."""
    for kind, group in groupby(paragraphs, lambda paragraph: paragraph[0]):
        yield kind, "\n\n".join("\n".join(lines) for _, lines in group).splitlines()


def _configuration(run: RunFolder) -> str:
    """Configuration, environment, command and model files."""
    environment = yaml.safe_dump(run.environment, sort_keys=False, allow_unicode=True) if run.environment else ""
    texts = (
        ("Options", "options", run.options),
        ("Environment", "options", environment),
        ("Command", "notes", run.command),
    )
    content = "".join(
        f"<h3>{title}</h3>\n{plain(text.strip().splitlines(), kind)}" for title, kind, text in texts if text
    )
    if run.models:
        lines = [["file", "network", "from", "to", "steps", "MB", "algorithm", "i2i"]]
        for name, (info, size) in run.models.items():
            training = info.training
            made = [number(training.steps), f"{size / 1e6:.1f}", training.algorithm, training.version]
            lines.append([name, info.network, info.input_domain, info.output_domain, *made])
        content += f"<h3>Model files</h3>\n{plain(aligned(lines))}"
    return content
