"""`evaluate`: a run, a model or two folders of pictures in, rows of numbers with their protocol out.

The kind of the first input decides: two folders are compared here; the models of a run, or one that is named, go to
`translators` or `gan`. All of them measure by one `MetricSuite`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from i2i import images
from i2i.config import RUN_LOG, path_of
from i2i.device import exact_float32
from i2i.errors import InputError, UsageError
from i2i.evaluation import applicable
from i2i.evaluation.data import PictureFiles, display_name, matching_pairs, pictures_in
from i2i.evaluation.gan import evaluate_gans
from i2i.evaluation.models import (
    ModelUnderTest,
    data_of_run,
    find_model,
    find_other_models,
    is_pictures,
    is_run,
    is_toy,
    models_of_run,
)
from i2i.evaluation.options import SETS, EvaluationOptions, check, check_for_folders
from i2i.evaluation.result import REPORT_NAME, Evaluation, Measure, Row
from i2i.evaluation.suite import MetricSuite
from i2i.evaluation.training_log import read_validations, run_options, validation_protocol
from i2i.evaluation.translators import TranslatorEvaluation
from i2i.images.palettes import label_pixels

Progress = Callable[[str], object]


@exact_float32()
def evaluate(inputs: Sequence[str], options: EvaluationOptions, progress: Progress = lambda text: None) -> Evaluation:
    """Evaluate `inputs`: a run folder; a model and, unless `data` is given, pictures to translate; or two folders.

    `progress` gets a line before each part of the work. Raises `UsageError` for options that contradict each other or
    the inputs and for metrics asked for by name that do not apply, `InputError` for pictures that cannot be compared,
    `ModelError` for a model, or a file of weights, that cannot be used. Most errors come before any translation.
    """
    check(options)
    if not 1 <= len(inputs) <= 2:
        raise UsageError("expected: a run folder, a model and pictures, or two folders of pictures")
    paths = [path_of(name) for name in inputs]
    if is_pictures(paths[0]):
        return _compare_folders(paths, options)
    if len(inputs) == 2 and options.data is not None:
        raise UsageError(f"data: given twice, {inputs[1]} and {options.data}")
    data = paths[1] if len(inputs) == 2 else options.data
    if data is not None:
        _check_data(data)
    if is_run(paths[0]):
        return _evaluate_run(paths[0], data, options, progress)
    model = find_model(inputs[0], options)
    if data is None:
        raise UsageError(f"{inputs[0]}: on which pictures? Give a data set or a folder after it")
    return _evaluate_models([model], data, options, progress)


def report_path(inputs: Sequence[str]) -> Path | None:
    """The file for the numbers of a run, which its report page shows; None for other inputs."""
    run = path_of(inputs[0])
    return run / REPORT_NAME if is_run(run) else None


def _check_data(data: Path) -> None:
    if not data.exists():
        raise InputError(f"{data}: no such folder of pictures or data set")
    if data.is_file() and data.suffix.lower() in images.SUFFIXES:
        raise UsageError(f"{data}: a picture; expected a folder of pictures or a data set")


def _evaluate_models(
    found: list[ModelUnderTest], data: Path, options: EvaluationOptions, progress: Progress
) -> Evaluation:
    others = find_other_models(found, options)
    if found[0].is_gan:
        return evaluate_gans([*found, *others], data, options, progress)
    return TranslatorEvaluation(MetricSuite(options), progress).run(found, data, others)


def _evaluate_run(run: Path, data: Path | None, options: EvaluationOptions, progress: Progress) -> Evaluation:
    """All model files of a run, on its own data unless others are given; and its validations."""
    validations = read_validations(run) if (run / RUN_LOG).exists() else []
    found = models_of_run(run, options.direction)
    if not found and (others := [model.path.name for model in models_of_run(run, None)]):
        raise UsageError(f"direction: {run} has no model of {options.direction}, only {', '.join(others)}")
    if not found and not validations:
        raise InputError(f"{run}: neither a model file nor a validation is in this run folder yet")
    if not found:
        progress(f"{run}: no model file is in this run folder yet: only its validations are shown")
    elif data is None and validations and is_toy(run):
        progress("trained on toy pictures, which are drawn on the fly: only its validations are shown")
        found = []
    if found:
        evaluation = _evaluate_models(found, data or data_of_run(run), options, progress)
    elif options.against:
        raise UsageError(f"against = {options.against[0]!r}: there is no model in {run} to compare it with")
    else:
        evaluation = Evaluation([], {})
    metrics = dict.fromkeys(name for validation in validations for name in validation.metrics)
    protocol = validation_protocol(run_options(run), metrics) if validations else {}
    return replace(evaluation, validations=validations, validation_protocol=protocol)


def _compare_folders(inputs: Sequence[Path], options: EvaluationOptions) -> Evaluation:
    check_for_folders(options)
    for path in inputs:
        if path.is_file():
            raise UsageError(f"{path}: a file; expected two folders of pictures")
    if len(inputs) == 1:
        pictures_in(inputs[0])
        raise UsageError(f"{inputs[0]}: a folder of pictures, no run and no model; give the folder to compare it with")
    targets = inputs[1]
    pairs = [_open_folders(outputs, targets, options) for outputs in (inputs[0], *map(path_of, options.against))]
    not_applicable = [applicable.of_folders(a, b, options) for a, b in pairs]
    applicable.check(options, not_applicable)
    for a, b in pairs:
        applicable.check_colours(options, a, b)
    suite, rows = MetricSuite(options, translating=False), []
    names = [str(name) for name in (inputs[0], *options.against)] if options.against else [display_name(inputs[0])]
    for name, (a, b), skip in zip(names, pairs, not_applicable, strict=True):
        suite.note(applicable.notes(name, skip, options))
        facts = {"made": name if options.against else str(inputs[0]), "compared with": str(targets)}
        rows.append(Row(name, _measure_folders(a, b, suite, skip), facts))
    return Evaluation(rows, suite.protocol)


def _open_folders(outputs: Path, targets: Path, options: EvaluationOptions) -> tuple[PictureFiles, PictureFiles]:
    if options.unpaired:
        a, b = (pictures_in(path, options.max_pictures) for path in (outputs, targets))
    else:
        a, b = matching_pairs(outputs, targets, options.max_pictures)
    return PictureFiles(a), PictureFiles(b)


def _measure_folders(
    a: PictureFiles, b: PictureFiles, suite: MetricSuite, skip: applicable.NotApplicable
) -> dict[str, Measure]:
    options, found = suite.options, dict[str, Measure]()
    if not options.unpaired:
        found |= suite.pairs(a.at_size(options.size), b.at_size(options.size), skip)
    if suite.palette is not None:
        found |= suite.labels([label_pixels(a.picture(i), suite.palette) for i in range(len(a))], b)
    if options.unpaired or options.features or set(options.metrics) & set(SETS):
        found |= suite.sets(a, b, skip)
    return found
