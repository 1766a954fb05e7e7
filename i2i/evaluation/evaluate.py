"""Evaluating a run, a model or two folders of pictures."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from i2i import images
from i2i.config import path_of
from i2i.device import exact_float32
from i2i.errors import InputError, UsageError
from i2i.evaluation import applicable, made_of_noise, subjects
from i2i.evaluation.instruments import Instruments
from i2i.evaluation.labels import of_labels
from i2i.evaluation.measures import Measure
from i2i.evaluation.models import Models
from i2i.evaluation.options import LABELS, SETS, EvaluationOptions, check, check_for_folders
from i2i.evaluation.pictures import PictureFiles, folder, matched
from i2i.evaluation.record import Evaluation, Row
from i2i.evaluation.subjects import Subject
from i2i.evaluation.sweep import read_protocol, read_validations
from i2i.evaluation.tasks import shown_name
from i2i.images.palettes import label_pixels

Tell = Callable[[str], object]


@exact_float32()
def evaluate(inputs: Sequence[str], options: EvaluationOptions, tell: Tell = lambda text: None) -> Evaluation:
    """Evaluate what `inputs` name: a run folder; a model and, unless `data` is given, what to translate; two folders.

    `tell` is called with a line before each part of the work. Raises `UsageError` for options that contradict
    each other or the inputs and for metrics asked for by name that do not apply, `InputError` for pictures that
    cannot be compared, `ModelError` for a model, or a file of weights, that cannot be used. All that can be told
    without translating is told before.
    """
    check(options)
    if not 1 <= len(inputs) <= 2:
        raise UsageError("expected: a run folder, a model and pictures, or two folders of pictures")
    paths = [path_of(name) for name in inputs]
    first = paths[0]
    if _is_of_pictures(first):
        return _of_folders(paths, options)
    if len(inputs) == 2 and options.data is not None:
        raise UsageError(f"data: given twice, {inputs[1]} and {options.data}")
    data = paths[1] if len(inputs) == 2 else options.data
    if data is not None:
        _check_data(data)
    if subjects.is_run(first):
        return _of_run(first, data, options, tell)
    subject = _named(inputs[0], options)
    if data is None:
        raise UsageError(f"{inputs[0]}: on which pictures? Give a data set or a folder after it")
    against = _against([subject], options)
    if made_of_noise.is_made_of_noise(subject.path):
        return made_of_noise.evaluate([subject, *against], data, options, tell)
    return Models(Instruments(options), tell).evaluate([subject], data, against)


def _against(found: Sequence[Subject], options: EvaluationOptions) -> list[Subject]:
    """The models that `--against` names. Raises `UsageError` for one that is there already, and for pictures."""
    others: list[Subject] = []
    for name in options.against:
        path = path_of(name)
        if _is_of_pictures(path):
            raise UsageError(
                f"against = {name!r}: a folder of pictures; expected a model or a run, as the first is one"
            )
        run = subjects.of_run(path, options.direction) if subjects.is_run(path) else []
        others += [replace(subject, name=f"{name} {subject.name}") for subject in run] or [_named(name, options)]
    names = [subject.path for subject in (*found, *others)]
    if twice := [subject.name for subject in others if names.count(subject.path) > 1]:
        raise UsageError(f"against = {twice[0]!r}: is measured already")
    return others


def _is_of_pictures(path: Path) -> bool:
    """Whether a path is neither a run nor a model, but what pictures are in. Raises `UsageError` for a picture."""
    if path.is_file() and path.suffix.lower() in images.SUFFIXES:
        raise UsageError(f"{path}: a picture; expected a folder of pictures, a run folder or a model")
    return path.is_dir() and not subjects.is_run(path) and not subjects.is_model_folder(path)


def _check_data(data: Path) -> None:
    if not data.exists():
        raise InputError(f"{data}: no such folder of pictures or data set")
    if data.is_file() and data.suffix.lower() in images.SUFFIXES:
        raise UsageError(f"{data}: a picture; expected a folder of pictures or a data set")


def _named(style: str, options: EvaluationOptions) -> Subject:
    """The model that the first input names. Raises `InputError` for a path where nothing is."""
    path = Path(style)
    if not path.exists() and not style.startswith("hub:") and len(path.parts) > 1:
        raise InputError(f"{style}: no such folder or model file")
    return subjects.of_style(style, options.direction, options.download)


def _of_folders(inputs: Sequence[Path], options: EvaluationOptions) -> Evaluation:
    check_for_folders(options)
    for path in inputs:
        if path.is_file():
            raise UsageError(f"{path}: a file; expected two folders of pictures")
    made = inputs[0]
    if len(inputs) == 1:
        folder(made)
        raise UsageError(f"{made}: a folder of pictures, no run and no model; give the folder to compare it with")
    expected = inputs[1]
    pairs = [_pictures(folder, expected, options) for folder in (made, *map(path_of, options.against))]
    unfit = [applicable.of_folders(a, b, options) for a, b in pairs]
    applicable.check(options, unfit)
    for a, b in pairs:
        applicable.check_colours(options, a, b)
    instruments, rows = Instruments(options, translating=False), []
    names = [str(a) for a in (made, *options.against)] if options.against else [shown_name(made)]
    for name, (a, b), without in zip(names, pairs, unfit, strict=True):
        instruments.note(applicable.notes(name, without, options))
        facts = {"made": name if options.against else str(made), "compared with": str(expected)}
        rows.append(Row(name, _compared(a, b, instruments, without), facts))
    return Evaluation(rows, instruments.protocol)


def _pictures(made: Path, expected: Path, options: EvaluationOptions) -> tuple[PictureFiles, PictureFiles]:
    if options.unpaired:
        a, b = (PictureFiles(folder(path, options.max_pictures)) for path in (made, expected))
    else:
        a, b = (PictureFiles(items) for items in matched(made, expected, options.max_pictures))
    return a, b


def _compared(
    a: PictureFiles, b: PictureFiles, instruments: Instruments, unfit: applicable.Unfit
) -> dict[str, Measure]:
    options = instruments.options
    found = instruments.pairs(a.at_size(options.size), b.at_size(options.size), unfit) if not options.unpaired else {}
    if instruments.palette is not None:
        pixels = [label_pixels(a.picture(i), instruments.palette) for i in range(len(a))]
        wanted = instruments.wanted(LABELS, unfit)
        found |= of_labels(pixels, b, instruments.palette, wanted, instruments.seed)
    if options.unpaired or options.features or set(options.metrics) & set(SETS):
        found |= instruments.sets(a, b, unfit)
    return found


def _of_run(run: Path, data: Path | None, options: EvaluationOptions, tell: Tell) -> Evaluation:
    """All model files of a run, on its own data unless others are given; and its validations."""
    validations = read_validations(run) if (run / "log.jsonl").exists() else []
    found = subjects.of_run(run, options.direction)
    if not found and (others := [subject.path.name for subject in subjects.of_run(run, None)]):
        raise UsageError(f"direction: {run} has no model of {options.direction}, only {', '.join(others)}")
    if not found and not validations:
        raise InputError(f"{run}: neither a model file nor a validation is in this run folder yet")
    evaluation = _of_models_of_run(run, found, data, options, tell, shows_validations=bool(validations))
    return replace(evaluation, validations=validations, validation_protocol=read_protocol(run, validations))


def _of_models_of_run(
    run: Path, found: list[Subject], data: Path | None, options: EvaluationOptions, tell: Tell, shows_validations: bool
) -> Evaluation:
    against = _against(found, options)
    if found and made_of_noise.is_made_of_noise(found[0].path) and (data or not subjects.is_toy(run)):
        return made_of_noise.evaluate([*found, *against], data or subjects.data_of_run(run), options, tell)
    instruments = Instruments(options)
    if found and data is None and shows_validations and subjects.is_toy(run):
        tell("trained on toy pictures, which are drawn on the fly: only its validations are shown")
        found = []
    elif not found:
        tell(f"{run}: no model file is in this run folder yet: only its validations are shown")
    if not found and against:
        raise UsageError(f"against = {options.against[0]!r}: there is no model in {run} to compare it with")
    if not found:
        return Evaluation([], instruments.protocol)
    return Models(instruments, tell).evaluate(found, data or subjects.data_of_run(run), against)
