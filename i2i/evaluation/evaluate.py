"""Evaluating a run, a model or two folders of pictures."""

from collections.abc import Callable, Sequence
from pathlib import Path

from i2i.errors import InputError, UsageError
from i2i.evaluation import labels, subjects, tasks
from i2i.evaluation.instruments import AS_THEY_ARE, SET_SIZE, Instruments, Pictures, at, translated
from i2i.evaluation.measures import Measure
from i2i.evaluation.options import LABELS, SETS, EvaluationOptions, check
from i2i.evaluation.pictures import Made, PictureFiles, folder, matched
from i2i.evaluation.record import Evaluation, Row
from i2i.evaluation.subjects import Subject
from i2i.evaluation.sweep import Validation, read_validations
from i2i.evaluation.tasks import Task
from i2i.images import Pixels

Tell = Callable[[str], object]
_REAL = "real pictures, labels read back"


def evaluate(inputs: Sequence[str], options: EvaluationOptions, tell: Tell = lambda text: None) -> Evaluation:
    """Evaluate what `inputs` name: a run folder; a model and, unless `data` is given, what to translate; two folders.

    `tell` is called with a line before each part of the work. Raises `UsageError` for options that contradict
    each other, `InputError` for pictures that cannot be compared, `ModelError` for a model, or a file of weights,
    that cannot be used.
    """
    check(options)
    if not 1 <= len(inputs) <= 2:
        raise UsageError("expected: a run folder, a model and pictures, or two folders of pictures")
    first = Path(inputs[0])
    if len(inputs) == 2 and first.is_dir() and not subjects.is_run(first) and not subjects.is_model_folder(first):
        return _of_folders(first, Path(inputs[1]), Instruments(options))
    if len(inputs) == 2 and options.data is not None:
        raise UsageError(f"data: given twice, {inputs[1]} and {options.data}")
    data = Path(inputs[1]) if len(inputs) == 2 else options.data
    if subjects.is_run(first):
        return _of_run(first, data, options, tell)
    subject = subjects.of_style(inputs[0], options.direction, options.download)
    if data is None:
        raise UsageError(f"{inputs[0]}: on which pictures? Give a data set or a folder after it")
    return _Models(Instruments(options), tell).evaluate([subject], data)


def _of_folders(made: Path, expected: Path, instruments: Instruments) -> Evaluation:
    options = instruments.options
    if options.unpaired:
        a, b = (PictureFiles(folder(path, options.max_pictures)) for path in (made, expected))
        found = instruments.sets(a, b)
    else:
        a, b = (PictureFiles(items) for items in matched(made, expected, options.max_pictures))
        found = instruments.pairs(a.at_size(options.size), b.at_size(options.size))
        if instruments.palette is not None:
            pixels = [a.pixels(i) for i in range(len(a))]
            found |= labels.of_labels(pixels, b, instruments.palette, instruments.wanted(LABELS))
        if set(options.metrics) & set(SETS):
            found |= instruments.sets(a, b)
    return _checked([Row(made.name, found, {"made": str(made), "compared with": str(expected)})], instruments)


def _of_run(run: Path, data: Path | None, options: EvaluationOptions, tell: Tell) -> Evaluation:
    """All model files of a run, on its own data unless others are given; and its validations."""
    validations = read_validations(run) if (run / "log.jsonl").exists() else []
    found = subjects.of_run(run, options.direction)
    if not found and (others := [subject.path.name for subject in subjects.of_run(run, None)]):
        raise UsageError(f"direction: {run} has no model of {options.direction}, only {', '.join(others)}")
    if not found and not validations:
        raise InputError(f"{run}: neither a model file nor a validation is in this run folder yet")
    instruments = Instruments(options)
    if found and data is None and validations and subjects.is_toy(run):
        tell("trained on toy pictures, which are drawn on the fly: only its validations are shown")
        found = []
    elif not found:
        tell(f"{run}: no model file is in this run folder yet: only its validations are shown")
    if not found:
        return Evaluation([], instruments.protocol, validations)
    return _Models(instruments, tell).evaluate(found, data or subjects.data_of_run(run), validations)


def _checked(rows: list[Row], instruments: Instruments, validations: Sequence[Validation] = ()) -> Evaluation:
    if not any(row.measures for row in rows):
        raise UsageError(
            f"nothing to measure: {', '.join(instruments.options.metrics) or 'no metric'} does not apply here "
            "(sets need --reference, the cycle error --back, labels --palette)"
        )
    return Evaluation(rows, instruments.protocol, list(validations))


class _Models:
    """Models translate, and their outputs are measured."""

    def __init__(self, instruments: Instruments, tell: Tell) -> None:
        self.instruments, self.options, self.tell = instruments, instruments.options, tell
        self.rows: list[Row] = []
        self.several = False
        self._references: dict[str, PictureFiles] = {}

    def evaluate(self, found: Sequence[Subject], data: Path, validations: Sequence[Validation] = ()) -> Evaluation:
        """The models, each on the part of `data` that it translates."""
        self.several = len(found) > 1
        for subject in found:
            self._evaluate(subject, data)
        return _checked(self.rows, self.instruments, validations)

    def _evaluate(self, subject: Subject, data: Path) -> None:
        translator, facts = subjects.load(subject.path, self.options, self.instruments.device)
        task = tasks.task(data, translator.info.direction, translator.info.training.algorithm, self.options)
        size = self.options.size or (None if task.expected is not None else SET_SIZE)
        self.instruments.protocol["inputs"] = (
            AS_THEY_ARE
            if size is None
            else f"{at(size)}, before translation; also where outputs are compared with them"
        )
        self.tell(f"{subject.name}: translating {len(task.inputs)} pictures of {task.where}")
        outputs = translated(translator, PictureFiles(task.inputs, translator.config.in_channels, size))
        found: dict[str, Measure] = {}
        if task.expected is not None:
            found |= self.instruments.pairs(outputs, PictureFiles(task.expected, size=size))
        shown = PictureFiles(task.inputs, size=size)
        found |= self.instruments.content(outputs, shown, self._returned(subject, outputs))
        found |= self._labels(subject, outputs, task)
        if task.reference is not None and self.instruments.wanted(SETS):
            found |= self._sets(outputs, task)
            facts["reference"] = f"{task.reference_from}, {len(task.reference)} pictures"
        self.rows.append(Row(subject.name, found, {**facts, "data": task.where}))
        self._baselines(task)
        _note_way(found, self.rows, task)

    def _sets(self, pictures: Pictures, task: Task) -> dict[str, Measure]:
        assert task.reference is not None
        if task.reference_from not in self._references:
            self._references[task.reference_from] = PictureFiles(task.reference)
        self.tell(f"comparing {len(pictures)} pictures with the {len(task.reference)} of {task.reference_from}")
        return self.instruments.sets(pictures, self._references[task.reference_from])

    def _baselines(self, task: Task) -> None:
        """Without pairs: how far the inputs are from the reference, and how far what should not be far at all.

        With labels read back: what the label model makes of real pictures.
        """
        known = {row.name for row in self.rows}
        if task.expected is None and task.reference is not None and self.instruments.wanted(SETS):
            if (name := _inputs_name(task)) not in known:
                self.rows.append(Row(name, self._sets(PictureFiles(task.inputs), task), {"data": task.where}))
            if task.held_out is not None and (name := _held_out_name(task)) not in known:
                pictures = PictureFiles(task.held_out)
                self.rows.append(Row(name, self._sets(pictures, task), {"data": task.held_out_from}))
        model = self.instruments.label_model
        if model is not None and task.expected is not None and _REAL not in known:
            real = translated(model, PictureFiles(task.expected, model.config.in_channels))
            self.rows.append(Row(_REAL, self._scores(real.stored, task), {"data": task.where}))

    def _returned(self, subject: Subject, outputs: Made) -> Made | None:
        path = subject.back
        if self.options.back:
            path = subjects.of_style(self.options.back, None, self.options.download).path
        if path is None or not self.instruments.wanted(["cycle_error"]):
            return None
        return translated(subjects.load(path, self.options, self.instruments.device)[0], outputs)

    def _labels(self, subject: Subject, outputs: Made, task: Task) -> dict[str, Measure]:
        """Outputs that are labels against those expected; outputs that are pictures by the labels read back."""
        if self.instruments.palette is None or (self.instruments.label_model is None and task.expected is None):
            return {}
        made = outputs.stored
        if self.instruments.label_model is not None:
            made = translated(self.instruments.label_model, outputs).stored
        if self.options.labels_out is not None:
            names = [str(item.path) for item in task.inputs]
            folder = self.options.labels_out
            if self.several:
                folder = labels.subfolder(folder, subject.path.stem)
            labels.write_labels(made, names, self.instruments.palette, folder)
        return self._scores(made, task)

    def _scores(self, made: list[Pixels], task: Task) -> dict[str, Measure]:
        assert self.instruments.palette is not None
        read_back = self.instruments.label_model is not None
        right = task.inputs if read_back or task.expected is None else task.expected
        found = labels.of_labels(made, PictureFiles(right), self.instruments.palette, self.instruments.wanted(LABELS))
        if not read_back:
            return found
        model = self.instruments.protocol["label_model"]
        reader = {"read_back_by": f"{model['model']}, sha256 {model['sha256']}"}
        return {name: Measure(m.value, m.pictures, m.beside | reader) for name, m in found.items()}


def _inputs_name(task: Task) -> str:
    return f"untranslated {Path(task.where).name}"


def _held_out_name(task: Task) -> str:
    return f"held-out {Path(task.held_out_from).name}"


def _note_way(found: dict[str, Measure], rows: Sequence[Row], task: Task) -> None:
    """Beside SWD: how far the outputs came from the inputs (0) to held-out pictures of the domain (1)."""
    named = {row.name: row.measures["swd"].value for row in rows if "swd" in row.measures}
    begin, floor = named.get(_inputs_name(task)), named.get(_held_out_name(task))
    if "swd" in found and begin is not None and floor is not None and begin > floor:
        found["swd"].beside["way_to_the_floor"] = (begin - found["swd"].value) / (begin - floor)
