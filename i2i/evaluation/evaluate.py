"""`evaluate`: a run, a model or two folders of pictures in, rows of numbers with their protocol out.

Two folders and GANs are measured here, models that translate in `translators`. All are measured by one `MetricSuite`.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from i2i.device import exact_float32
from i2i.errors import InputError, ModelError, UsageError
from i2i.evaluation.data import (
    GeneratedImages,
    PictureFiles,
    display_name,
    matching_pairs,
    open_data_of_gan,
    pictures_in,
)
from i2i.evaluation.options import (
    CONTENT,
    LABELS,
    PAIRED,
    SETS,
    EvaluationOptions,
    Inputs,
    ModelUnderTest,
    data_of_run,
    find_inputs,
    find_other_models,
    is_toy,
    models_of_run,
)
from i2i.evaluation.result import Evaluation, Measure, Row
from i2i.evaluation.sliced_wasserstein import patch_count
from i2i.evaluation.suite import INDICES, MetricSuite, NotApplicable, refuse_lost
from i2i.evaluation.training_log import read_log, run_options, validation_protocol
from i2i.evaluation.translators import Progress, TranslatorEvaluation, facts
from i2i.images import to_pixels
from i2i.images.palettes import label_pixels
from i2i.inference.sample import Sampler, load_sampler
from i2i.urls import path_of

MAX_GENERATED = 10_000
"""The most pictures that a GAN makes, where the reference set has more."""
NO_INPUT = "compares outputs with what belongs to an input, and a picture made from noise has none"


def evaluate(inputs: Sequence[str], options: EvaluationOptions, progress: Progress = lambda text: None) -> Evaluation:
    """Evaluate `inputs`: a run folder; a model and, unless `data` is given, pictures to translate; or two folders.

    `progress` gets a line before each part of the work. Raises `UsageError` for options that contradict each other or
    the inputs and for metrics asked for by name that do not apply, `InputError` for pictures that cannot be compared,
    `ModelError` for a model, or a file of weights, that cannot be used. Most errors come before any translation.
    """
    return measure(find_inputs(inputs, options), options, progress)


@exact_float32()
def measure(found: Inputs, options: EvaluationOptions, progress: Progress = lambda text: None) -> Evaluation:
    """As `evaluate`, for inputs that `find_inputs` has found."""
    if found.folders:
        return _compare_folders(*found.folders, options)
    if found.run:
        return _evaluate_run(found.run, found.data, options, progress)
    assert found.model and found.data
    return _evaluate_models([found.model], found.data, options, progress)


def _evaluate_models(
    found: list[ModelUnderTest], data: Path, options: EvaluationOptions, progress: Progress
) -> Evaluation:
    others = find_other_models(found, options)
    if found[0].is_gan:
        return _evaluate_gans([*found, *others], data, options, progress)
    return TranslatorEvaluation(MetricSuite(options), progress).run(found, data, others)


def _evaluate_run(run: Path, data: Path | None, options: EvaluationOptions, progress: Progress) -> Evaluation:
    """All model files of a run, on its own data unless others are given; and its validations."""
    validations = read_log(run, ["validation"]).validations
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
        MetricSuite(options)  # refuses files that it cannot use
        evaluation = Evaluation([], {})
    metrics = dict.fromkeys(name for validation in validations for name in validation.metrics)
    protocol = validation_protocol(run_options(run), metrics) if validations else {}
    return replace(evaluation, validations=validations, validation_protocol=protocol)


def _compare_folders(outputs: Path, targets: Path, options: EvaluationOptions) -> Evaluation:
    """Folders of pictures and their targets, in pairs, or as sets where `unpaired`."""
    places = {str(outputs) if options.against else display_name(outputs): outputs}
    places |= {name: path_of(name) for name in options.against}
    pairs = {name: _open_folders(place, targets, options) for name, place in places.items()}
    refuse_lost(options, [_of_models(options)])  # before weights are fetched for the others
    suite = MetricSuite(options, translating=False)
    not_applicable = {name: _not_applicable(suite, a, b) for name, (a, b) in pairs.items()}
    suite.admit(not_applicable)
    for a, b in pairs.values():
        suite.admit_colours(a, b)
    rows = []
    for name, (a, b) in pairs.items():
        about = {"made": name if options.against else str(outputs), "compared with": str(targets)}
        rows.append(Row(name, _measure_folders(a, b, suite, not_applicable[name]), about))
    return Evaluation(rows, suite.protocol)


def _open_folders(outputs: Path, targets: Path, options: EvaluationOptions) -> tuple[PictureFiles, PictureFiles]:
    if options.unpaired:
        a, b = (pictures_in(path, options.max_pictures) for path in (outputs, targets))
    else:
        a, b = matching_pairs(outputs, targets, options.max_pictures)
    return PictureFiles(a), PictureFiles(b)


def _of_models(options: EvaluationOptions) -> dict[str, str]:
    """The metrics that apply to no two folders, whatever is in them."""
    found = dict.fromkeys(CONTENT, "compares outputs with what a model was given, and two folders have no model")
    pairs = [*PAIRED, *LABELS] if options.unpaired else []
    return found | dict.fromkeys(pairs, "compares pairs, and --unpaired compares sets")


def _not_applicable(suite: MetricSuite, outputs: PictureFiles, targets: PictureFiles) -> NotApplicable:
    found = _of_models(suite.options)
    if suite.options.unpaired:
        return found
    if suite.palette is None:
        return found | dict.fromkeys(LABELS, suite.no_palette)
    return found | dict.fromkeys([*PAIRED, *SETS] if suite.hold_indices(outputs, targets) else (), INDICES)


def _measure_folders(a: PictureFiles, b: PictureFiles, suite: MetricSuite, skip: NotApplicable) -> dict[str, Measure]:
    options, found = suite.options, dict[str, Measure]()
    if not options.unpaired:
        found |= suite.pairs(a.at_size(options.size), b.at_size(options.size), skip)
    if suite.palette is not None:
        found |= suite.labels([label_pixels(a.picture(i), suite.palette) for i in range(len(a))], b)
    if options.unpaired or options.features or set(options.metrics) & set(SETS):
        found |= suite.sets(a, b, skip)
    return found


def _evaluate_gans(
    found: Sequence[ModelUnderTest], data: Path, options: EvaluationOptions, progress: Progress
) -> Evaluation:
    """Pictures of seeds 0 and on, against the training pictures of `data` or `reference`: as many, at most 10,000.

    Held-out pictures, of val, else test, unless `split` names one of them, have a row of their own. All are brought to
    the size that the generator makes, unless another is asked for.
    """
    for name in ("back", "label_model", "palette", "labels_out"):
        if value := getattr(options, name):
            raise UsageError(f"{name} = {str(value)!r}: is for models that translate, and this one makes pictures")
    if options.precision != "fp32":
        raise UsageError(f"precision = {options.precision!r}: pictures are made from noise in fp32 alone")
    refuse_lost(options, [dict.fromkeys([*PAIRED, *CONTENT, *LABELS], NO_INPUT)])
    samplers = [_load_sampler(model, options) for model in found]
    pictures = open_data_of_gan(data, options)
    files, held_out = PictureFiles(pictures.reference or []), PictureFiles(pictures.held_out or [])
    suite = MetricSuite(replace(options, size=options.size or samplers[0].size))
    for model, sampler in zip(found, samplers, strict=True):
        if sampler.channels == 1:
            suite.refuse_features(f"{model.name} makes grey pictures")
    suite.admit_colours(files, held_out)
    count = min(len(files), options.max_pictures or MAX_GENERATED)
    patches = patch_count(count, len(files), *([len(held_out)] if len(held_out) else []))
    rows = []
    for model, sampler in zip(found, samplers, strict=True):
        where = pictures.reference_from
        progress(f"{model.name}: making {count} pictures, to be compared with the {len(files)} of {where}")
        made = GeneratedImages([to_pixels(sampler(sampler.noise(seed))) for seed in range(count)])
        about = {"reference": f"{where}, {len(files)} pictures", "noise": f"seeds 0 to {count - 1}"}
        measures = suite.sets(made, files, patches=patches)
        rows.append(Row(model.name, measures, facts(model.path, sampler.info) | about))
    if len(held_out):
        measures = suite.sets(held_out, files, patches=patches)
        rows.append(Row(f"held-out {display_name(pictures.held_out_from)}", measures, {"data": pictures.held_out_from}))
    return Evaluation(rows, suite.protocol)


def _load_sampler(model: ModelUnderTest, options: EvaluationOptions) -> Sampler:
    sampler = load_sampler(model.path, options.device)
    if options.direction not in (None, sampler.info.direction):
        raise UsageError(f"direction = {options.direction!r}: {model.name} has {sampler.info.direction} alone")
    if sampler.channels not in (1, 3):
        raise ModelError(f"{model.path}: makes pictures of {sampler.channels} channels; 1 or 3 are measured")
    return sampler
