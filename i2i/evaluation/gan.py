"""GANs: pictures generated from noise, as many as there are to compare with, measured as a set."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from i2i.data.folders import Split
from i2i.errors import ModelError, UsageError
from i2i.evaluation import applicable, models
from i2i.evaluation.data import (
    GeneratedImages,
    Item,
    PictureFiles,
    Pictures,
    display_name,
    no_pictures,
    pictures_in,
    split_of_one_domain,
)
from i2i.evaluation.metrics.sliced_wasserstein import patch_count
from i2i.evaluation.models import ModelUnderTest
from i2i.evaluation.options import CONTENT, LABELS, PAIRED, EvaluationOptions
from i2i.evaluation.result import Evaluation, Measure, Row
from i2i.evaluation.suite import MetricSuite
from i2i.images import to_pixels
from i2i.inference.sample import Sampler, load_sampler

MAX_PICTURES = 10_000
WITHOUT_INPUTS = "compares outputs with what belongs to an input, and a picture made of noise has none"
_OF_TRANSLATIONS = ("back", "label_model", "palette", "labels_out")


def evaluate_gans(
    found: Sequence[ModelUnderTest], data: Path, options: EvaluationOptions, progress: Callable[[str], object]
) -> Evaluation:
    """Pictures of seeds 0 and on, against the training pictures of `data`, or `reference`: as many, at most 10,000.

    Held-out pictures, of val, else test, unless `split` names one of them, have a row of their own. All are brought to
    the size that the generator makes, unless another is asked for. Raises as `evaluate` does.
    """
    _check(options)
    samplers = [_load(model, options) for model in found]
    reference, where, held_out, held_out_from = _pictures(data, options)
    applicable.check_colours(options, PictureFiles(reference), PictureFiles(held_out))
    suite = MetricSuite(replace(options, size=options.size or samplers[0].size))
    files, count = PictureFiles(reference), min(len(reference), options.max_pictures or MAX_PICTURES)
    patches = patch_count(count, len(files), *([len(held_out)] if held_out else []))

    def measure(pictures: Pictures) -> dict[str, Measure]:
        return suite.sets(pictures, files, patches=patches)

    rows = []
    for model, sampler in zip(found, samplers, strict=True):
        progress(f"{model.name}: making {count} pictures, to be compared with the {len(files)} of {where}")
        pictures = GeneratedImages([to_pixels(sampler(sampler.noise(seed))) for seed in range(count)])
        facts: dict[str, Any] = models.facts(model.path, sampler.info)
        facts |= {"reference": f"{where}, {len(files)} pictures", "noise": f"seeds 0 to {count - 1}"}
        rows.append(Row(model.name, measure(pictures), facts))
    if held_out:
        name = f"held-out {display_name(held_out_from)}"
        rows.append(Row(name, measure(PictureFiles(held_out)), {"data": str(held_out_from)}))
    return Evaluation(rows, suite.protocol)


def _check(options: EvaluationOptions) -> None:
    for name in _OF_TRANSLATIONS:
        if value := getattr(options, name):
            raise UsageError(f"{name} = {str(value)!r}: is for models that translate, and this one makes pictures")
    if options.precision != "fp32":
        raise UsageError(f"precision = {options.precision!r}: pictures are made of noise in fp32 alone")
    applicable.check(options, [dict.fromkeys([*PAIRED, *CONTENT, *LABELS], WITHOUT_INPUTS)])


def _load(model: ModelUnderTest, options: EvaluationOptions) -> Sampler:
    sampler = load_sampler(model.path, options.device)
    if options.direction not in (None, sampler.info.direction):
        raise UsageError(f"direction = {options.direction!r}: {model.name} has {sampler.info.direction} alone")
    if sampler.channels not in (1, 3):
        raise ModelError(f"{model.path}: makes pictures of {sampler.channels} channels; 1 or 3 are measured")
    if sampler.channels == 1:
        applicable.check_features(options, model.name, "makes grey pictures")
    return sampler


def _pictures(data: Path, options: EvaluationOptions) -> tuple[list[Item], str, list[Item], Path]:
    """The reference set and its place; held-out pictures, if there are any, and their place.

    Raises `InputError` for a split that was asked for and is not there.
    """
    limit = options.max_pictures
    splits: tuple[Split, ...] = (options.split,) if options.split in ("val", "test") else ("val", "test")
    found = ((split_of_one_domain(data, split, limit), data / split) for split in splits)
    held_out, held_out_from = next(((items, place) for items, place in found if items), ([], data))
    if options.split in splits and not held_out:
        raise no_pictures(data, splits)
    if options.reference is not None:
        return pictures_in(options.reference, limit), str(options.reference), held_out, held_out_from
    where = data / "train" if (data / "train").is_dir() else data
    return split_of_one_domain(data, "train", limit), str(where), held_out, held_out_from
