"""Models translate, and their outputs are measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from i2i.errors import ModelError, UsageError
from i2i.evaluation import applicable, labels, subjects, tasks
from i2i.evaluation.instruments import AS_THEY_ARE, SET_SIZE, Instruments, Pictures, at, translated
from i2i.evaluation.label_task import LabelTask, label_task
from i2i.evaluation.measures import Measure, way_to_the_floor
from i2i.evaluation.options import LABELS, SETS
from i2i.evaluation.pictures import Item, Made, PictureFiles
from i2i.evaluation.record import Evaluation, Row
from i2i.evaluation.sliced_wasserstein import patch_count
from i2i.evaluation.subjects import Subject
from i2i.evaluation.tasks import Task, shown_name
from i2i.images import Pixels
from i2i.images.palettes import Palette
from i2i.inference.translator import Translator
from i2i.models.info import read_info

Tell = Callable[[str], object]


@dataclass(frozen=True)
class Planned:
    """A model with what it is measured on, all checked; `unfit` are the metrics that do not apply to it, and why.

    `group` is that of its rows.
    """

    subject: Subject
    translator: Translator
    facts: dict[str, Any]
    task: Task
    back: Translator | None
    label_task: LabelTask | None
    unfit: dict[str, str]
    group: str = ""

    def translates_as(self, other: "Planned") -> bool:
        """Whether both take the same pictures the same way: in one direction, or by the names of their domains.

        A training counts directions by the sides of its own data, so where two models name the same two domains,
        the names tell.
        """
        if self.task.inputs != other.task.inputs:
            return False
        mine, its = ((plan.translator.info.input_domain, plan.translator.info.output_domain) for plan in (self, other))
        if set(mine) == set(its):
            return mine == its
        return self.translator.info.direction == other.translator.info.direction


class Models:
    """`tell` is called with a line before each part of the work."""

    def __init__(self, instruments: Instruments, tell: Tell) -> None:
        self.instruments, self.options, self.tell = instruments, instruments.options, tell
        self.rows: list[Row] = []
        self._references: dict[tuple[Item, ...], PictureFiles] = {}

    def evaluate(self, found: Sequence[Subject], data: Path, against: Sequence[Subject] = ()) -> Evaluation:
        """The models, each on the part of `data` that it translates, and those of `against` that translate the same.

        Raises as `evaluate.evaluate` does.
        """
        for name in ("back", "reference"):
            value = getattr(self.options, name)
            if value and len({subject.direction for subject in found}) > 1:
                raise UsageError(f"{name} = {str(value)!r}: cannot serve both directions; choose one with --direction")
        for subject in (*found, *against):
            self.instruments.know(_palette(subject))
        self._check_palette()
        planned = [self._planned(subject, data) for subject in found]
        planned += self._alike([self._planned(subject, data) for subject in against], planned)
        self._check(planned)
        for plan in planned:
            first = next(i for i, other in enumerate(planned) if plan.translates_as(other))
            self._evaluate(replace(plan, group=str(first)), several=len(planned) > 1)
        return Evaluation(self.rows, self.instruments.protocol)

    def _check_palette(self) -> None:
        """Raises `UsageError` for options that mean nothing without a palette, if no model knows one."""
        for name in ("label_model", "labels_out"):
            if getattr(self.options, name) and self.instruments.palette is None:
                raise UsageError(f"{name}: {self.instruments.no_palette}")

    def _planned(self, subject: Subject, data: Path) -> Planned:
        options, device = self.options, self.instruments.device
        translator, facts = subjects.load(subject.path, options, device, options.direction)
        info, asked = translator.info, options.direction
        if asked not in (None, info.direction):
            raise UsageError(f"direction = {asked!r}: {subject.name} translates {facts['direction']}")
        task = tasks.task(data, info.direction, info.training.algorithm, options, subjects.configuration(subject.path))
        back = self._back(subject, info.direction)
        reader = self.instruments.label_model
        reads, palette = None if reader is None else reader.info.direction, self.instruments.palette
        scored = self.instruments.no_palette if palette is None else label_task(task, info.direction, reads, palette)
        if isinstance(scored, str):
            return Planned(subject, translator, facts, task, back, None, self._unfit(task, back, scored))
        return Planned(subject, translator, facts, task, back, scored, self._unfit(task, back, ""))

    def _alike(self, others: list[Planned], planned: list[Planned]) -> list[Planned]:
        """Those of `others` that translate what one of `planned` does. Raises `UsageError` if that is none."""
        alike = [plan for plan in others if any(plan.translates_as(own) for own in planned)]
        if others and not alike:
            raise UsageError(
                f"against: {others[0].subject.name} translates {others[0].facts['direction']}, and what is evaluated "
                f"{planned[0].facts['direction']}; only models of the same direction can be compared"
            )
        return alike

    def _unfit(self, task: Task, back: Translator | None, no_labels: str) -> dict[str, str]:
        return applicable.of_model(task, back is not None, no_labels, self.instruments.classes)

    def _back(self, subject: Subject, direction: str) -> Translator | None:
        """The model that goes back, if the cycle error is wanted. Raises `UsageError` for one that does not."""
        path = subject.back
        if self.options.back:
            path = subjects.of_style(self.options.back, tasks.opposite(direction), self.options.download).path
        if path is None or not self.instruments.wanted(["cycle_error"]):
            return None
        translator = subjects.load(path, self.options, self.instruments.device, tasks.opposite(direction))[0]
        if translator.info.direction == direction:
            raise UsageError(f"back: {path} translates {direction} as {subject.name} does; it cannot go back")
        return translator

    def _check(self, planned: Sequence[Planned]) -> None:
        applicable.check(self.options, [plan.unfit for plan in planned])
        self._check_features(planned)
        reader = self.instruments.label_model
        if reader is not None and not any(plan.label_task and plan.label_task.read_back for plan in planned):
            raise UsageError(
                f"label_model: it translates {reader.info.direction}, as what is evaluated does; labels are read back "
                "from the pictures of a model of the other direction"
            )
        for plan in planned:
            self.instruments.note(applicable.notes(plan.subject.name, plan.unfit, self.options))
            if (folder := self._labels_out(plan, len(planned) > 1)) is not None and plan.label_task is not None:
                labels.targets(folder, _names(plan.task))

    def _check_features(self, planned: Sequence[Planned]) -> None:
        """Raises `UsageError`, or `InputError` for pictures, unless `--features` is for pictures in colour."""
        for plan in planned:
            info = plan.translator.info
            if info.output_labels or (info.config.get("out_channels", 3) == 1 and info.encoding != "lab"):
                kind = "labels" if info.output_labels else "grey pictures"
                applicable.check_features(self.options, {plan.subject.name: f"makes {kind}"})
            for items in (plan.task.reference, plan.task.held_out):
                applicable.check_colours(self.options, PictureFiles(items or []))

    def _labels_out(self, plan: Planned, several: bool) -> Path | None:
        """Where the labels of a model go. Raises `OutputError` if the user's folder is not there."""
        folder = self.options.labels_out
        if folder is None:
            return None
        labels.check_folder(folder)
        return folder / plan.subject.path.stem if several else folder

    def _evaluate(self, plan: Planned, several: bool) -> None:
        task, unfit, instruments = plan.task, plan.unfit, self.instruments
        size = self.options.size or (None if task.expected is not None else SET_SIZE)
        instruments.protocol["inputs"] = (
            AS_THEY_ARE
            if size is None
            else f"{at(size)}, before translation; also where outputs are compared with them"
        )
        self.tell(f"{plan.subject.name}: translating {len(task.inputs)} pictures of {task.where}")
        outputs = translated(plan.translator, PictureFiles(task.inputs, plan.translator.picture_channels, size))
        found: dict[str, Measure] = {}
        if task.expected is not None:
            found |= instruments.pairs(outputs, PictureFiles(task.expected, size=size), unfit)
        returned = None if plan.back is None or "cycle_error" in unfit else translated(plan.back, outputs)
        found |= instruments.content(outputs, PictureFiles(task.inputs, size=size), returned, unfit)
        found |= self._labels(plan, outputs, self._labels_out(plan, several))
        found |= self._sets(outputs, task, unfit)
        facts = {**plan.facts, "data": task.where, **({"note": task.note} if task.note else {})}
        if task.reference is not None and instruments.wanted(SETS, unfit):
            facts["reference"] = f"{task.reference_from}, {len(task.reference)} pictures"
        self.rows.append(Row(plan.subject.name, found, facts, plan.group))
        self._baselines(plan)
        _note_way(found, self.rows, task)

    def _sets(self, pictures: Pictures, task: Task, unfit: applicable.Unfit) -> dict[str, Measure]:
        if not self.instruments.wanted(SETS, unfit):
            return {}
        if task.reference is None:
            return self.instruments.sets(pictures, None, unfit)
        # by the pictures themselves, for what they are called may be said of others too; and one object for them
        # all, as features are extracted once for each
        reference = self._references.setdefault(tuple(task.reference), PictureFiles(task.reference))
        self.tell(f"comparing {len(pictures)} pictures with the {len(reference)} of {task.reference_from}")
        return self.instruments.sets(pictures, reference, unfit, _patches(task))

    def _baselines(self, plan: Planned) -> None:
        """Without pairs: how far the inputs are from the reference, and how far what should not be far at all.

        With labels read back: what the label model makes of real pictures.
        """
        known, task = {row.name for row in self.rows}, plan.task
        if task.expected is None and self.instruments.wanted(SETS, plan.unfit):
            if (name := _inputs_name(task)) not in known:
                found = self._sets(PictureFiles(task.inputs), task, plan.unfit)
                self.rows.append(Row(name, found, {"data": task.where}, plan.group))
            if task.held_out is not None and (name := _held_out_name(task)) not in known:
                found = self._sets(PictureFiles(task.held_out), task, plan.unfit)
                self.rows.append(Row(name, found, {"data": task.held_out_from}, plan.group))
        reader, scored = self.instruments.label_model, plan.label_task
        if reader is None or scored is None or not scored.read_back or task.expected is None:
            return
        if (name := f"real pictures, labels read back ({reader.info.direction})") not in known:
            real = translated(reader, PictureFiles(task.expected, reader.picture_channels))
            self.rows.append(Row(name, self._scores(real.stored, scored), {"data": task.where}, plan.group))

    def _labels(self, plan: Planned, outputs: Made, folder: Path | None) -> dict[str, Measure]:
        """Outputs that are labels against those expected; outputs that are pictures by the labels read back."""
        scored, palette = plan.label_task, self.instruments.palette
        if scored is None or palette is None:
            return {}
        made = outputs.stored
        if scored.read_back:
            assert self.instruments.label_model is not None
            made = translated(self.instruments.label_model, outputs).stored
        if folder is not None:
            assert self.options.labels_out is not None
            if folder != self.options.labels_out:
                labels.subfolder(self.options.labels_out, folder.name)
            labels.write_labels(made, _names(plan.task), palette, folder)
        return self._scores(made, scored)

    def _scores(self, made: list[Pixels], scored: LabelTask) -> dict[str, Measure]:
        assert self.instruments.palette is not None
        wanted = self.instruments.wanted(LABELS)
        right, seed = PictureFiles(scored.right), self.instruments.seed
        found = labels.of_labels(made, right, self.instruments.palette, wanted, seed)
        if not scored.read_back:
            return found
        model = self.instruments.protocol["label_model"]
        reader = {"read_back_by": f"{model['model']}, sha256 {model['sha256']}"}
        return {name: replace(measure, beside=measure.beside | reader) for name, measure in found.items()}


def _palette(subject: Subject) -> Palette | None:
    """The classes that a model makes, if its file tells."""
    try:
        return read_info(subject.path).output_palette()
    except ModelError:  # a checkpoint of the reference, or what is refused in a moment
        return None


def _names(task: Task) -> list[str]:
    return [str(item.path) for item in task.inputs]


def _patches(task: Task) -> int | None:
    """As many patches for outputs, inputs and held-out pictures: with fewer, the same distance comes out larger."""
    if task.held_out is None or task.reference is None:
        return None
    return patch_count(len(task.inputs), len(task.held_out), len(task.reference))


def _inputs_name(task: Task) -> str:
    return f"untranslated {shown_name(Path(task.where))}"


def _held_out_name(task: Task) -> str:
    return f"held-out {shown_name(Path(task.held_out_from))}"


def _note_way(found: dict[str, Measure], rows: Sequence[Row], task: Task) -> None:
    """Beside SWD and KID: how far the outputs came from the inputs (0) to held-out pictures of the domain (1)."""
    named = {row.name: row.measures for row in rows}
    begin, floor = (named.get(name, {}) for name in (_inputs_name(task), _held_out_name(task)))
    for name in ("swd", "kid"):
        if name in found and name in begin and name in floor and begin[name].value > floor[name].value:
            found[name].beside.update(way_to_the_floor(found[name], begin[name], floor[name]))
