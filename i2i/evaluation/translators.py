"""Models that translate: their outputs are measured on their data, beside the inputs and held-out pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from i2i import images
from i2i.errors import ImageError, InputError, ModelError, OutputError, UsageError
from i2i.evaluation.data import EvaluationData, GeneratedImages, Item, PictureFiles, Pictures, display_name, open_data
from i2i.evaluation.options import (
    CONTENT,
    LABELS,
    PAIRED,
    SETS,
    EvaluationOptions,
    ModelUnderTest,
    find_model,
    opposite,
)
from i2i.evaluation.result import Evaluation, Measure, Row, gap_closed
from i2i.evaluation.sliced_wasserstein import patch_count
from i2i.evaluation.suite import INDICES, SAMPLE, SET_SIZE, MetricSuite, size_note
from i2i.evaluation.training_log import run_options
from i2i.files import sha256
from i2i.images import Picture, Pixels, palettes, to_pixels, with_depth
from i2i.inference.loaded_model import not_finite
from i2i.inference.translator import Translator
from i2i.models import model_file
from i2i.models.info import WEIGHTS_NAME, ModelInfo

Progress = Callable[[str], object]


@dataclass(frozen=True)
class EvaluationJob:
    """A model with the data that it is measured on, all checked.

    `labels` says which labels are scored: the model's own `outputs`, or those `read_back` from them by the label model;
    `labels_out` is their folder, if they are written. Rows of one `group` are compared.
    """

    model: ModelUnderTest
    translator: Translator
    facts: dict[str, Any]
    data: EvaluationData
    back: Translator | None
    labels: Literal["outputs", "read_back"] | None
    not_applicable: dict[str, str]
    labels_out: Path | None = None
    group: str = ""

    def translates_as(self, other: "EvaluationJob") -> bool:
        """Whether both take the same pictures in one direction, or between the same two named domains.

        A training counts directions by the sides of its own data, so where two models name the same two domains,
        the names decide.
        """
        if self.data.inputs != other.data.inputs:
            return False
        own, theirs = ((job.translator.info.input_domain, job.translator.info.output_domain) for job in (self, other))
        if set(own) == set(theirs):
            return own == theirs
        return self.translator.info.direction == other.translator.info.direction

    @property
    def patches(self) -> int | None:
        """As many patches for outputs, inputs and held-out pictures: with fewer, the same distance comes out larger."""
        data = self.data
        if data.held_out is None or data.reference is None:
            return None
        return patch_count(len(data.inputs), len(data.held_out), len(data.reference))


class TranslatorEvaluation:
    """Evaluates models on a data set; `progress` gets a line before each part of the work."""

    def __init__(self, suite: MetricSuite, progress: Progress) -> None:
        self.suite, self.options, self.progress = suite, suite.options, progress
        self.rows: dict[str, Row] = {}
        self.reader: Translator | None = None
        """The label model, which reads labels back from pictures."""
        if self.options.label_model:
            model = find_model(self.options.label_model, replace(self.options, direction=None))
            self.reader, suite.protocol["label_model"] = load(model.path, self.options, suite.device, None)
            suite.add_palette(self.reader.info.output_palette())

    def run(self, found: Sequence[ModelUnderTest], data: Path, others: Sequence[ModelUnderTest] = ()) -> Evaluation:
        """Measure the models, each on the part of `data` that it translates, and those `others` that translate the
        same. Raises as `evaluate` does."""
        for name in ("back", "reference"):
            value = getattr(self.options, name)
            if value and len({model.direction for model in found}) > 1:
                raise UsageError(f"{name} = {str(value)!r}: cannot serve both directions; choose one with --direction")
        for model in (*found, *others):
            self.suite.add_palette(model.info.output_palette() if model.info else None)
        for name in ("label_model", "labels_out"):
            if getattr(self.options, name) and self.suite.palette is None:
                raise UsageError(f"{name}: {self.suite.no_palette}")
        jobs, rest = ([self._job(model, data) for model in models] for models in (found, others))
        comparable = [other for other in rest if any(other.translates_as(job) for job in jobs)]
        if rest and not comparable:
            raise UsageError(
                f"against: {rest[0].model.name} translates {rest[0].facts['direction']}, and what is evaluated "
                f"{jobs[0].facts['direction']}; only models of the same direction can be compared"
            )
        jobs += comparable
        self._check(jobs)
        for job in jobs:
            group = next(i for i, other in enumerate(jobs) if job.translates_as(other))
            self._measure(replace(job, group=str(group), labels_out=self._labels_out(job, len(jobs) > 1)))
        return Evaluation(list(self.rows.values()), self.suite.protocol)

    def _job(self, model: ModelUnderTest, data: Path) -> EvaluationJob:
        suite, options = self.suite, self.options
        translator, facts = load(model.path, options, suite.device, options.direction)
        info = translator.info
        if info.in_units:
            raise UsageError(f"{model.name} is a model of values in units; evaluate measures pictures alone")
        if options.direction not in (None, info.direction):
            raise UsageError(f"direction = {options.direction!r}: {model.name} translates {facts['direction']}")
        found = open_data(data, info.direction, info.training.algorithm, options, run_options(model.path.parent))
        back = self._back(model, info.direction)
        no_labels = suite.no_palette if suite.palette is None else self._no_labels(found, info.direction, suite.palette)
        read_back = self.reader is not None and self.reader.info.direction != info.direction
        labels: Literal["outputs", "read_back"] | None = "read_back" if read_back else "outputs"
        not_applicable = dict.fromkeys(LABELS, no_labels) if no_labels else {}
        not_applicable |= self._not_applicable(found, back is not None)
        return EvaluationJob(model, translator, facts, found, back, None if no_labels else labels, not_applicable)

    def _back(self, model: ModelUnderTest, direction: str) -> Translator | None:
        """The model that goes back, if the cycle error is wanted. Raises `UsageError` for one that does not."""
        path, backwards = model.back, opposite(direction)
        if self.options.back:
            path = find_model(self.options.back, replace(self.options, direction=backwards)).path
        if path is None or not self.suite.wanted(["cycle_error"]):
            return None
        translator, _ = load(path, self.options, self.suite.device, backwards)
        if translator.info.direction == direction:
            raise UsageError(f"back: {path} translates {direction} as {model.name} does; it cannot go back")
        return translator

    def _not_applicable(self, data: EvaluationData, goes_back: bool) -> dict[str, str]:
        """The metrics of pictures that do not apply, each with the reason."""
        found: dict[str, str] = {}
        if data.targets is None:
            found |= dict.fromkeys(PAIRED, f"needs pairs, and {data.where} has none")
        if data.reference is None:
            others = [name for name in SETS if name != "diversity"]
            found |= dict.fromkeys(others, "needs the set that outputs should be like: --reference FOLDER")
        if not goes_back:
            found["cycle_error"] = "needs the model that goes back: --back MODEL"
        if data.targets is not None and self.suite.hold_indices(PictureFiles(data.targets)):
            found |= dict.fromkeys([*PAIRED, *SETS], INDICES)
        if self.suite.hold_indices(PictureFiles(data.inputs)):
            found |= dict.fromkeys(CONTENT, INDICES)
        return found

    def _no_labels(self, data: EvaluationData, direction: str, palette: palettes.Palette) -> str:
        """Why the outputs of a model of `direction` are not scored as labels; empty if they are."""
        reader = self.reader.info.direction if self.reader else None
        if reader is not None and reader != direction:
            return ""
        if data.targets is None and reader is None:
            return f"needs labels to compare with, and {data.where} has no pairs"
        if data.targets is None:
            return f"is read back from pictures made of labels, and the label model makes labels too ({reader})"

        def distance(items: Sequence[Item]) -> float:
            """How far, on average, the pixels of the first pictures are from the palette; 0 for class indices."""
            files = PictureFiles(items[:SAMPLE])
            some = [palettes.label_pixels(files.picture(i), palette) for i in range(len(files))]
            return float(np.mean([palettes.distance(pixels, palette) for pixels in some]))

        if reader is None and distance(data.inputs) < distance(data.targets):
            return (
                f"compares labels, and what this model ({direction}) is given looks more like those of the palette "
                "than what it should make: --label-model reads labels back from pictures"
            )
        return ""

    def _check(self, jobs: Sequence[EvaluationJob]) -> None:
        """Everything that can be refused before pictures are translated."""
        self.suite.admit({job.model.name: job.not_applicable for job in jobs})
        for job in jobs:
            info = job.translator.info
            if info.output_labels:
                self.suite.refuse_features(f"{job.model.name} makes labels")
            elif info.config.get("out_channels", 3) == 1 and info.encoding != "lab":
                self.suite.refuse_features(f"{job.model.name} makes grey pictures")
            self.suite.admit_colours(*(PictureFiles(items or []) for items in (job.data.reference, job.data.held_out)))
        if self.reader is not None and not any(job.labels == "read_back" for job in jobs):
            raise UsageError(
                f"label_model: it translates {self.reader.info.direction}, as what is evaluated does; labels are read "
                "back from the pictures of a model of the other direction"
            )
        for job in jobs:
            if (folder := self._labels_out(job, len(jobs) > 1)) is not None:
                label_files(folder, job.data.inputs)

    def _labels_out(self, job: EvaluationJob, several: bool) -> Path | None:
        """The folder for the labels of a model. Raises `OutputError` if the user's folder is not there."""
        folder = self.options.labels_out
        if folder is not None and not folder.is_dir():
            raise OutputError(f"labels_out = {folder}: no such folder")
        if folder is None or job.labels is None:
            return None
        return folder / job.model.path.stem if several else folder

    def _measure(self, job: EvaluationJob) -> None:
        data, suite, skip = job.data, self.suite, job.not_applicable
        size = self.options.size or (None if data.targets is not None else SET_SIZE)
        before = "" if size is None else ", before translation; also where outputs are compared with them"
        suite.protocol["inputs"] = f"{size_note(size)}{before}"
        self.progress(f"{job.model.name}: translating {len(data.inputs)} pictures of {data.where}")
        outputs = translate(job.translator, PictureFiles(data.inputs, job.translator.picture_channels, size))
        found: dict[str, Measure] = {}
        if data.targets is not None:
            found |= suite.pairs(outputs, PictureFiles(data.targets, size=size), skip)
        returned = None if job.back is None or "cycle_error" in skip else translate(job.back, outputs)
        found |= suite.content(outputs, PictureFiles(data.inputs, size=size), returned, skip)
        found |= self._labels(job, outputs)
        found |= self._sets(job, outputs)
        facts = {**job.facts, "data": data.where, **({"note": data.note} if data.note else {})}
        if data.reference is not None and suite.wanted(SETS, skip):
            facts["reference"] = f"{data.reference_from}, {len(data.reference)} pictures"
        self.rows[job.model.name] = Row(job.model.name, found, facts, job.group)
        self._add_baselines(job, found)

    def _sets(self, job: EvaluationJob, pictures: Pictures) -> dict[str, Measure]:
        data = job.data
        if not self.suite.wanted(SETS, job.not_applicable):
            return {}
        if data.reference is None:
            return self.suite.sets(pictures, None, job.not_applicable)
        self.progress(f"comparing {len(pictures)} pictures with the {len(data.reference)} of {data.reference_from}")
        return self.suite.sets(pictures, PictureFiles(data.reference), job.not_applicable, job.patches)

    def _labels(self, job: EvaluationJob, outputs: GeneratedImages) -> dict[str, Measure]:
        """Scores of the outputs' labels, or of those read back from outputs that are pictures; and their files."""
        if job.labels is None or self.suite.palette is None:
            return {}
        if job.labels == "read_back":
            assert self.reader is not None
            outputs = translate(self.reader, outputs)
        if job.labels_out is not None:
            try:
                job.labels_out.mkdir(exist_ok=True)
            except OSError as error:
                raise OutputError(f"labels_out = {job.labels_out}: cannot be created: {error.strerror}") from None
            for pixels, target in zip(outputs.pixels, label_files(job.labels_out, job.data.inputs), strict=True):
                classes = palettes.to_classes(pixels, self.suite.palette)
                images.write(target, Picture(classes[..., None]), replace=False)
        return self._scores(job, outputs.pixels)

    def _scores(self, job: EvaluationJob, pixels: list[Pixels]) -> dict[str, Measure]:
        right, details = job.data.targets, {}
        if job.labels == "read_back":
            model = self.suite.protocol["label_model"]
            right, details = job.data.inputs, {"read_back_by": f"{model['model']}, sha256 {model['sha256']}"}
        return self.suite.labels(pixels, PictureFiles(right or []), details)

    def _add_baselines(self, job: EvaluationJob, found: dict[str, Measure]) -> None:
        """Rows for the inputs and for held-out pictures, without pairs, and for real pictures by the label model; and
        how far SWD and KID came from the first to the second, among the details of `found`."""
        data, reader = job.data, self.reader
        inputs, held_out = (f"untranslated {display_name(data.where)}", f"held-out {display_name(data.held_out_from)}")
        if data.targets is None and self.suite.wanted(SETS, job.not_applicable):
            self._add_row(inputs, data.where, job, lambda: self._sets(job, PictureFiles(data.inputs)))
            if (items := data.held_out) is not None:
                self._add_row(held_out, data.held_out_from, job, lambda: self._sets(job, PictureFiles(items)))
        if reader is not None and job.labels == "read_back" and (targets := data.targets) is not None:
            name = f"real pictures, labels read back ({reader.info.direction})"
            pictures = PictureFiles(targets, reader.picture_channels)
            self._add_row(name, data.where, job, lambda: self._scores(job, translate(reader, pictures).pixels))
        begin, end = (self.rows[name].measures if name in self.rows else {} for name in (inputs, held_out))
        for name in {"swd", "kid"} & found.keys() & begin.keys() & end.keys():
            if begin[name].value > end[name].value:
                found[name].details.update(gap_closed(found[name], begin[name], end[name]))

    def _add_row(self, name: str, where: str, job: EvaluationJob, measure: Callable[[], dict[str, Measure]]) -> None:
        if name not in self.rows:
            self.rows[name] = Row(name, measure(), {"data": where}, job.group)


def label_files(folder: Path, inputs: Sequence[Item]) -> list[Path]:
    """The files for the labels found for the inputs.

    Raises `UsageError` for those that exist, and for two of one name.
    """
    found = [folder / f"{item.path.stem}.png" for item in inputs]
    if len(set(found)) < len(found):
        raise UsageError(f"labels_out = {folder}: two inputs have the same name")
    if existing := [target for target in found if target.exists()]:
        raise UsageError(f"{existing[0]} exists; give an empty folder for --labels-out")
    return found


def load(
    path: Path, options: EvaluationOptions, device: torch.device, direction: str | None
) -> tuple[Translator, dict[str, Any]]:
    """The translator of a model, and its facts for the report. Raises `ModelError`, `UsageError`.

    `direction` is for a checkpoint of junyanz, whose file does not record it.
    """
    network, info = model_file.open_model(path, direction=direction if path.suffix == ".pth" else None)
    in_colour = bool(info.output_labels) or info.encoding == "lab"
    if not in_colour and info.config.get("out_channels", 3) not in (1, 3):
        raise ModelError(f"{path}: makes pictures of {info.config['out_channels']} channels; 1 or 3 are measured")
    translator = Translator(network, info, device, precision=options.precision, seed=options.seeds[0])
    direction = f"{info.direction} ({info.input_domain} → {info.output_domain})"
    return translator, facts(path, info, direction=direction)


def facts(path: Path, info: ModelInfo, **more: str) -> dict[str, Any]:
    """The facts of a model that stand beside its numbers."""
    return {
        "model": str(path),
        "sha256": sha256(path / WEIGHTS_NAME if path.is_dir() else path),
        "network": info.network,
        **more,
        "algorithm": info.training.algorithm,
        "steps": info.training.steps,
    }


def translate(translator: Translator, pictures: Pictures) -> GeneratedImages:
    """Pictures through a network, in 8 bits; those of labels as they are in their files.

    Raises `InputError` for inputs with other channels or values that are not finite, and `ModelError` for outputs that
    are not finite: in 8 bits they would be black, and measured as such.
    """
    if translator.coding.inputs and isinstance(pictures, PictureFiles):
        return GeneratedImages([_translated_labels(translator, pictures, i) for i in range(len(pictures))])
    channels, outputs = translator.picture_channels, []
    for i in range(len(pictures)):
        picture = pictures[i]
        if len(picture) != channels:
            raise InputError(f"pictures of {len(picture)} channels; {translator.info.network} takes {channels}")
        if not bool(torch.isfinite(picture).all()):
            raise InputError(f"{pictures.name(i)}: holds values that are not finite")
        output = translator.translate_tensor(picture)
        if not bool(torch.isfinite(output).all()):
            raise ModelError(f"{pictures.name(i)}: {not_finite(translator.info.network, translator.precision)}")
        outputs.append(to_pixels(output))
    return GeneratedImages(outputs)


def _translated_labels(translator: Translator, files: PictureFiles, index: int) -> Pixels:
    if files.size is not None:
        raise InputError("pictures of labels are measured at their own size: without --size, and with their partners")
    try:
        return with_depth(translator.translate(files.picture(index)).pixels, np.uint8)
    except ImageError as error:
        raise InputError(f"{files.name(index)}: {error}") from None
