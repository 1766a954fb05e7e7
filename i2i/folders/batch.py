"""A folder of pictures and films in, a folder of them out: reading, translating and writing overlap."""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from i2i import __version__
from i2i.config import from_mapping, option_names, to_mapping
from i2i.errors import OutputError, UsageError
from i2i.files import make_folders, remove_strays
from i2i.folders.masks import blend_of
from i2i.folders.pipeline import Pipeline, Stop
from i2i.folders.plan import Inputs, Job, Plan, Source, plan
from i2i.folders.report import Progress, Report, records_of
from i2i.images import LOSSY, WRITTEN, probe
from i2i.images.encoding import refusal_of_units
from i2i.images.large import LARGE_LIMITS
from i2i.inference import mix as mixing
from i2i.inference.options import ALPHA, FolderOptions, ModelOptions, checked_mix, mix_as_text
from i2i.inference.scaling import resized
from i2i.inference.translator import Translator, load_translator
from i2i.terminal import printable

Style = str | PathLike[str] | Translator
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
    fetching: Callable[[int, int | None], object] | None = None,
    **options: Any,
) -> Report:
    """Translates pictures, films, and folders of them, into the folder `out`, with the same tree, names and formats.

    * `inputs`: a path or several, to pictures, films or folders.
    * `out`: a folder; for one input file it may be the name of a picture or a film.
    * `style`: as for `load_translator`, or a `Translator`. The options that choose model or device have no effect on a
      `Translator`.
    * `mix`: several styles in place of `style`, as for `load_mix`: `{"monet": 0.6, "vangogh": 0.4}`.
    * `options`: the fields of `FolderOptions`, such as `overwrite=True`, `size=512`, or `mask="masks"`.
    * `progress` is called with the number of finished inputs, their total and the last one; `frames` with the number of
      finished frames of a film, their total (0 if it is not known) and the film. `stop()` ends the work early when it
      is true. `finish` gets the report at the end, also when an error ends the work.

    A picture that fails is a record of the report, and the others go on; with `strict=True` the first one raises
    `SomeFailed`.

    These errors come before any work: `InputError` if there are no pictures; `UsageError` for wrong options, for
    existing outputs without `overwrite` or `skip_existing`, for an output that would replace an input, and for inputs
    with one output path; `ModelError`; `OutputError` if `out` cannot be written.
    """
    started = time.time()
    options["mix"] = mix if isinstance(mix, str) else mix_as_text(checked_mix(mix))
    chosen = from_mapping(FolderOptions, options)
    chosen.check_style(style)
    todo = plan(inputs, out, chosen)
    translator = style if isinstance(style, Translator) else _load(style, chosen, todo, fetching)
    _check_labels(translator, todo.todo)
    _check_units(translator, todo.todo)
    blend_of(chosen, None if chosen.mask is None else ALPHA).check(translator.info)
    _probe(todo.todo)
    pipeline = Pipeline(translator, chosen, progress, stop, frames)
    try:
        pipeline.run(todo.todo)
    finally:
        remove_leftovers(todo, started)
        facts = _facts(style, translator, chosen)
        report = Report(records_of(todo, pipeline.records), facts, (*todo.notices, *pipeline.notices))
        finish(report)
    return report


def remove_leftovers(work: Plan, before: float) -> None:
    """Remove the half-written files that a killed run left in the folders of this work."""
    for folder in {job.target.parent for job in (*work.todo, *work.skipped)}:
        remove_strays(folder, before)


def _load(style: str | PathLike[str], options: FolderOptions, todo: Plan, fetching: Any) -> Translator:
    names = option_names(ModelOptions())
    chosen = {name: getattr(options, name) for name in names}
    few = options.runtime == "auto" and not any(job.film for job in todo.todo)
    sizes = _sizes(todo.found, options.size) if few else None
    if options.mix:
        return mixing.load_mix(options.mix, **chosen, sizes=sizes, fetching=fetching)
    return load_translator(style, **chosen, sizes=sizes, fetching=fetching)


def _sizes(pictures: Sequence[Path], size: int | None) -> list[tuple[int, int]] | None:
    """Heights and widths by the headers, scaled to `size`; None if the pictures are more than is worth looking at."""
    if len(pictures) > _COUNTED:
        return None
    sizes = []
    for path in pictures:
        with suppress(Exception):  # its error is reported when its turn comes
            width, height = probe(path, LARGE_LIMITS)
            sizes.append((height, width) if size is None else resized(height, width, size))
    return sizes


def _facts(style: Style, translator: Translator, options: FolderOptions) -> dict[str, Any]:
    """The facts that repeat this work: the model, and the options that differ from their defaults."""
    defaults, values = FolderOptions(), to_mapping(options)
    changed = {
        name: values[name] for name in option_names(options) if getattr(options, name) != getattr(defaults, name)
    }
    return {
        "i2i": __version__,
        "style": "" if isinstance(style, Translator) else str(style) or translator.style,
        "model": to_mapping(translator.info),
        "mix": mixing.facts(translator),
        "device": str(translator.device),
        "runtime": translator.runtime,
        "precision": translator.precision,
        "paint_size": translator.paint_size,
        "options": changed,
    }


def _check_labels(translator: Translator, jobs: Sequence[Job]) -> None:
    """Raises `UsageError` if labels would be written into a format that blurs them."""
    if not translator.coding.outputs:
        return
    if films := [job for job in jobs if job.film]:
        raise UsageError(
            f"{printable(films[0].target)}: this model makes labels, whose colours a film would change; translate its "
            "frames as PNG"
        )
    if lossy := [job for job in jobs if WRITTEN.get(job.target.suffix.lower()) in LOSSY]:
        raise UsageError(
            f"{printable(lossy[0].target)}: this model makes labels, whose colours {lossy[0].target.suffix} "
            "would change; give --format png"
        )


def _check_units(translator: Translator, jobs: Sequence[Job]) -> None:
    """Raises `UsageError` for films, and if values in units would be written into a format of colours."""
    if translator.info.in_units and (films := [job for job in jobs if job.film]):
        raise UsageError(
            f"{printable(films[0].source)}: this model is of values in units, and a film holds colours; "
            "give pictures (TIFF, NPY), or a style of pictures"
        )
    if translator.info.output_range is None:
        return
    for job in jobs:
        format = WRITTEN.get(job.target.suffix.lower())
        if format is not None and (reason := refusal_of_units(format, np.dtype(np.uint16))):
            raise UsageError(f"{printable(job.target)}: {reason}; give --format tif")


def _probe(jobs: Sequence[Job]) -> None:
    """Whether the first result could be written, found out before a network runs for nothing."""
    for job in jobs[:1]:
        folder = job.target.parent
        try:
            make_folders(folder)
            with tempfile.NamedTemporaryFile(dir=folder, prefix=".i2i-", suffix=".part"):
                pass
        except OSError as error:
            raise OutputError(f"{printable(folder)}: cannot be written: {error.strerror}") from error
