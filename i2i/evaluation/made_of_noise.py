"""Models that make pictures of noise: as many as there are to compare with, measured as a set."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from i2i import images
from i2i.data import folders
from i2i.data.folders import Split
from i2i.download import digest
from i2i.errors import ModelError, UsageError
from i2i.evaluation import applicable
from i2i.evaluation.instruments import Instruments
from i2i.evaluation.measures import Measure
from i2i.evaluation.options import CONTENT, LABELS, PAIRED, EvaluationOptions
from i2i.evaluation.pictures import Item, Made, PictureFiles, folder
from i2i.evaluation.record import Evaluation, Row
from i2i.evaluation.sliced_wasserstein import patch_count
from i2i.evaluation.subjects import Subject
from i2i.evaluation.tasks import no_pictures, shown_name
from i2i.inference.sample import Sampler, load_sampler
from i2i.models.info import FROM_NOISE, WEIGHTS_NAME, read_info

MOST = 10_000
WITHOUT_INPUTS = "compares outputs with what belongs to an input, and a picture made of noise has none"
_OF_TRANSLATIONS = ("back", "label_model", "palette", "labels_out")

Tell = Callable[[str], object]


def is_made_of_noise(path: Path) -> bool:
    """Whether the model at `path` makes pictures of noise."""
    try:
        return read_info(path).network in FROM_NOISE
    except ModelError:  # a checkpoint of the reference, or what is refused in a moment
        return False


def evaluate(
    found: Sequence[Subject],
    data: Path,
    options: EvaluationOptions,
    tell: Tell = lambda text: None,
) -> Evaluation:
    """The pictures of seeds 0 and on, as many as the training pictures of `data`, or `reference`, at most 10,000,
    against those; held-out pictures, of val, else test, unless `split` names one of them, are a row
    of their own.

    All are brought to the size that the generator makes, unless another is asked for. Raises as `evaluate.evaluate`.
    """
    for name in _OF_TRANSLATIONS:
        if value := getattr(options, name):
            raise UsageError(f"{name} = {str(value)!r}: is for models that translate, and this one makes pictures")
    if options.precision != "fp32":
        raise UsageError(f"precision = {options.precision!r}: pictures are made of noise in fp32 alone")
    applicable.check(options, [dict.fromkeys([*PAIRED, *CONTENT, *LABELS], WITHOUT_INPUTS)])
    samplers = [_opened(subject, options) for subject in found]
    for subject, sampler in zip(found, samplers, strict=True):
        if sampler.channels == 1:
            applicable.check_features(options, {subject.name: "makes grey pictures"})
    reference, where, held_out, held_out_from = _pictures(data, options)
    instruments = Instruments(replace(options, size=options.size or samplers[0].size))
    applicable.check_colours(options, PictureFiles(reference), PictureFiles(held_out))
    files, count = PictureFiles(reference), min(len(reference), options.max_pictures or MOST)
    patches = patch_count(count, len(files), *([len(held_out)] if held_out else []))

    def measured(pictures: Made | PictureFiles) -> dict[str, Measure]:
        return instruments.sets(pictures, files, (), patches)

    rows = []
    for subject, sampler in zip(found, samplers, strict=True):
        tell(f"{subject.name}: making {count} pictures, to be compared with the {len(files)} of {where}")
        made = Made([images.to_pixels(sampler(sampler.noise(seed))) for seed in range(count)])
        facts = {"reference": f"{where}, {len(files)} pictures", "noise": f"seeds 0 to {count - 1}"}
        rows.append(Row(subject.name, measured(made), {**_facts(subject, sampler), **facts}))
    if held_out:
        found_there = measured(PictureFiles(held_out))
        rows.append(Row(f"held-out {shown_name(held_out_from)}", found_there, {"data": str(held_out_from)}))
    return Evaluation(rows, instruments.protocol)


def _opened(subject: Subject, options: EvaluationOptions) -> Sampler:
    sampler = load_sampler(subject.path, options.device)
    if options.direction not in (None, sampler.info.direction):
        raise UsageError(f"direction = {options.direction!r}: {subject.name} has {sampler.info.direction} alone")
    if sampler.channels not in (1, 3):
        raise ModelError(f"{subject.path}: makes pictures of {sampler.channels} channels; 1 or 3 are measured")
    return sampler


def _pictures(data: Path, options: EvaluationOptions) -> tuple[list[Item], str, list[Item], Path]:
    """What to compare with and where it is; held-out pictures, if there are any, and where they are.

    Raises `InputError` for a split that was asked for and is not there.
    """
    limit = options.max_pictures
    splits: tuple[Split, ...] = (options.split,) if options.split and options.split != "train" else ("val", "test")
    held_out, held_out_from = next(((found, data / s) for s in splits if (found := _split(data, s, limit))), ([], data))
    if options.split in splits and not held_out:
        raise no_pictures(data, splits)
    if options.reference is not None:
        return folder(options.reference, limit), str(options.reference), held_out, held_out_from
    where = data / "train" if (data / "train").is_dir() else data
    return _split(data, "train", limit), str(where), held_out, held_out_from


def _split(data: Path, split: Split, limit: int | None) -> list[Item]:
    return [Item(path) for path in folders.one_domain(data, split)[:limit]]


def _facts(subject: Subject, sampler: Sampler) -> dict[str, str | int]:
    path, info = subject.path, sampler.info
    return {
        "model": str(path),
        "sha256": digest(path / WEIGHTS_NAME if path.is_dir() else path),
        "network": info.network,
        "algorithm": info.training.algorithm,
        "steps": info.training.steps,
    }
