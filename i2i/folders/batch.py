"""A folder of pictures and films in, a folder of them out: reading, translating and writing overlap."""

import math
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np

from i2i import __version__
from i2i.config import from_mapping, option_names, to_mapping
from i2i.data.walking import suffix_of
from i2i.errors import OutputError, UsageError, as_typed
from i2i.files import make_folders, remove_strays
from i2i.folders import stores
from i2i.folders.clusters import open_cluster
from i2i.folders.jobs import Job, blend_of
from i2i.folders.parts import Parts, resolve
from i2i.folders.pipeline import Pipeline, Stop
from i2i.folders.plan import Inputs, Plan, Source, plan
from i2i.folders.report import Progress, Record, Report, ReportFile, records_of
from i2i.folders.worker import Fetching, Resolved, Style, Work, check_names, load
from i2i.images import LOSSY, WRITTEN, probe
from i2i.images.encoding import refusal_of_units
from i2i.images.large import LARGE_LIMITS
from i2i.inference.options import ALPHA, FolderOptions, mix_as_text, parse_mix
from i2i.inference.scaling import resized
from i2i.inference.translator import Translator
from i2i.models.info import ModelInfo
from i2i.terminal import printable, say_plain
from i2i.urls import StorePath, is_url, place_of

_COUNTED = 64


def translate_folder(
    inputs: Inputs,
    out: Source | None,
    style: Style = "",
    *,
    mix: Mapping[str, float] | str = "",
    progress: Progress | None = None,
    frames: Progress | None = None,
    stop: Stop = lambda: False,
    finish: Callable[[Report], object] = lambda report: None,
    fetching: Fetching | None = None,
    executor: Executor | None = None,
    report: Source | None = None,
    **options: Any,
) -> Report:
    """Translates pictures, films and folders. Results keep subfolders, names and formats in the folder `out`.

    * `inputs`: one or several paths of pictures, films or folders. A path may also be a URL such as
      `s3://bucket/photos`, here and for `out` and `mask`.
    * `out`: a folder; for one input file it may be the name of a picture or a film.
    * `style`: as for `load_translator`, or a `Translator`. For a `Translator`, options that choose model or device have
      no effect.
    * `mix`: several styles in place of `style`, as for `load_mix`: `{"monet": 0.6, "vangogh": 0.4}`.
    * `options`: the fields of `FolderOptions`, such as `overwrite=True`, `size=512`, or `mask="masks"`.
    * `progress(done, total, last)` is called after each input, `frames(done, total, film)` after frames of a film
      (`total` is 0 if unknown). The work ends early when `stop()` returns True. `finish(report)` is called at the end,
      also when an error ends the work.
    * `cluster`, one of the options, names a cluster that does the work, such as `"ray"` or `"dask://host:8786"`.
    * `executor`: a `concurrent.futures.Executor` whose workers do the work (docs/many-machines.md). They need the same
      i2i, style and folders at the same paths. The first worker chooses device, runtime, precision and threads for all.
      `frames` is not called then.
    * `report`: the file of the report. `run.json` is written at the end. `run.jsonl` gets a line for each input as soon
      as it is done or has failed; at the end the rest of the report goes into `run.json`.

    If a picture fails, the report has its reason, and the others are translated; with `strict=True` the first failure
    raises `SomeFailed`.

    These errors come before any work: `InputError` if there are no pictures; `UsageError` for wrong options, for
    existing outputs without `overwrite` or `skip_existing`, for an output that would replace an input, and for inputs
    with the same output path; `ModelError`; `OutputError` if `out` cannot be written.
    """
    began = time.time()
    options["mix"] = mix if isinstance(mix, str) else mix_as_text(parse_mix(mix))
    chosen = from_mapping(FolderOptions, options)
    chosen.check_style(style)
    check_names(style, chosen)
    file = ReportFile(None if report is None else place_of(report))
    todo = plan(inputs, out, chosen)
    sizes = _sizes(todo, chosen)
    if chosen.cluster and executor is not None:
        raise UsageError(f"cluster = {chosen.cluster!r} and an executor contradict each other")
    records: dict[Job, Record] = {}

    def finished(job: Job, record: Record) -> None:
        records[job] = record
        file.add(record)
        if progress is not None:
            progress(len(records), len(todo.todo), record.source)

    def ends() -> bool:
        return stop() or file.failed

    with ExitStack() as stack:
        runner: Pipeline | Parts
        if executor is None and not (chosen.cluster and todo.todo):
            translator = load(Work(style, chosen, sizes=sizes), fetching)
            resolved = Resolved.of(translator)
            runner = Pipeline(translator, chosen, finished, ends, frames)
            _check(resolved.info, todo.todo, chosen)
        else:
            work = Work.of(style, chosen, sizes, fetching)
            workers = executor if executor is not None else stack.enter_context(_cluster(chosen, progress))
            work, resolved = resolve(workers, work)
            runner = Parts(workers, work, finished, ends)
            _check(resolved.info, todo.todo, chosen)
            stack.enter_context(runner.ready(todo.todo))
            began = math.inf  # killed workers may leave something behind that is newer than the start
        file.begin(todo)
        try:
            runner.run(todo.todo)
        finally:
            remove_leftovers(todo, began)
            notices = (*todo.notices, *runner.notices)
            outcome = Report(records_of(todo, records), _facts(style, resolved, chosen), notices)
            try:
                file.end(outcome)
            finally:
                finish(outcome)
    return outcome


def _cluster(options: FolderOptions, progress: Progress | None) -> AbstractContextManager[Executor]:
    """The cluster that `options` name. Where progress is shown, lost workers are too."""
    share = 0.0 if options.gpu_share is None and options.device == "cpu" else options.gpu_share
    return open_cluster(options.cluster, gpu_share=share, say=say_plain if progress else lambda text: None)


def remove_leftovers(work: Plan, before: float) -> None:
    """Remove the half-written files that a killed run left in the folders of this work."""
    for folder in {os.path.dirname(job.target_text) for job in (*work.todo, *work.skipped)}:  # noqa: PTH120
        if not is_url(folder):
            remove_strays(Path(folder), before)


def _sizes(todo: Plan, options: FolderOptions) -> tuple[tuple[int, int], ...] | None:
    """Heights and widths from the headers, scaled to `size`; None for too many pictures, or pictures in a store."""
    if options.runtime != "auto" or any(job.film for job in todo.todo) or len(todo.found) > _COUNTED:
        return None
    if any(map(is_url, todo.found)):
        return None
    sizes = []
    for path in todo.found:
        with suppress(Exception):  # its error is reported when its turn comes
            width, height = probe(Path(path), LARGE_LIMITS)
            sizes.append((height, width) if options.size is None else resized(height, width, options.size))
    return tuple(sizes)


def _facts(style: Style, resolved: Resolved, options: FolderOptions) -> dict[str, Any]:
    """The facts that repeat this work: the model, and the options that differ from their defaults."""
    defaults, values = FolderOptions(), to_mapping(options)
    changed = {
        name: values[name] for name in option_names(options) if getattr(options, name) != getattr(defaults, name)
    }
    return {
        "i2i": __version__,
        "style": "" if isinstance(style, Translator) else str(style) or resolved.style,
        "model": to_mapping(resolved.info),
        "mix": resolved.mix,
        "device": resolved.device,
        "runtime": resolved.runtime,
        "precision": resolved.precision,
        "paint_size": resolved.paint_size,
        "options": changed,
    }


def _check(info: ModelInfo, jobs: Sequence[Job], options: FolderOptions) -> None:
    """Whether this model may do these jobs, and the first result be written. Raises `UsageError`, `OutputError`."""
    if film := next((job for job in jobs if job.film), None):
        if info.output_labels:
            raise UsageError(
                f"{printable(film.target)}: this model makes labels, whose colours a film would change; translate its "
                "frames as PNG"
            )
        if info.in_units:
            raise UsageError(
                f"{printable(film.source)}: this model is of values in units, and a film holds colours; "
                "give pictures (TIFF, NPY), or a style of pictures"
            )
    for suffix, job in {suffix_of(job.target_text): job for job in reversed(jobs)}.items():
        format = WRITTEN.get(suffix.lower())
        if info.output_labels and format in LOSSY:
            raise UsageError(
                f"{printable(job.target)}: this model makes labels, whose colours {suffix} would change; give "
                f"{as_typed('format', 'png')}"
            )
        if format and info.output_range is not None and (reason := refusal_of_units(format, np.dtype(np.uint16))):
            raise UsageError(f"{printable(job.target)}: {reason}; give {as_typed('format', 'tif')}")
    blend_of(options, None if options.mask is None else ALPHA).check(info)
    _probe(jobs)


def _probe(jobs: Sequence[Job]) -> None:
    """Whether the first result could be written, found out before a network runs for nothing."""
    for job in jobs[:1]:
        if isinstance(job.target, StorePath):
            stores.check_writable(job.target)
            return
        folder = job.target.parent
        make_folders(folder)
        try:
            with tempfile.NamedTemporaryFile(dir=folder, prefix=".i2i-", suffix=".part"):
                pass
        except OSError as error:
            raise OutputError(f"{printable(folder)}: cannot be written: {error.strerror}") from error
