"""A labelled folder in, the same folder with translated copies and their labels out.

A translation moves nothing, so a copy has the boxes, keypoints and masks of its original. Only names change: those of
the files, and those that stand in them.
"""

import contextlib
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from i2i import __version__
from i2i.config import from_mapping, narrowed, option_names, to_mapping
from i2i.errors import ExistsError, OutputError, UsageError
from i2i.files import atomic_write, make_folders, remove_strays
from i2i.folders.jobs import Job
from i2i.folders.pipeline import Pipeline, Stop
from i2i.folders.report import Progress, Record, Report
from i2i.inference.options import FolderOptions, ModelOptions
from i2i.inference.translator import Translator, load_translator
from i2i.terminal import printable
from i2i.tools.labelled.plan import AugmentOptions, Copy, Plan, checked_styles, plan
from i2i.urls import path_of


def augment_folder(
    folder: str | PathLike[str],
    out: str | PathLike[str],
    styles: Sequence[str],
    *,
    progress: Progress | None = None,
    stop: Stop = lambda: False,
    begin: Callable[[Plan], object] = lambda plan: None,
    finish: Callable[[Report], object] = lambda report: None,
    fetching: Callable[[int, int | None], object] | None = None,
    **options: Any,
) -> Report:
    """Write the labelled `folder` to `out` with copies of its pictures translated by `styles`, labels included.

    `options` are the fields of `AugmentOptions`. The report has a record for each copy. `begin` is called with
    the plan before the work, `finish` with the report at its end, also when an error ends it; `progress`, `stop`
    and `fetching` as in `translate_folder`.

    A label is written before its picture. The lists (COCO .json, ImageSets) come last and name the pictures that exist;
    when `stop()` has ended the work, they are left for the run that completes it.

    Raises, before any work, `InputError` for a folder without labels and labels that do not match; `UsageError` for
    wrong options, existing outputs, an output folder within the input, and a style that makes labels; `ModelError`.
    """
    started = time.time()
    chosen = from_mapping(AugmentOptions, options)
    names = checked_styles(styles, chosen)
    work = plan(path_of(folder), path_of(out), names, chosen)
    begin(work)
    model = vars(narrowed(chosen, ModelOptions))
    translators = [load_translator(style, **model, fetching=fetching) for style in styles]
    for style, translator in zip(styles, translators, strict=True):
        if translator.coding.outputs:
            raise UsageError(f"style {str(style)!r}: makes labels of pictures, not pictures")
    run = _Augmentation(work, chosen, stop, progress)
    try:
        run.originals()
        run.copies(translators)
        if not run.left:
            run.lists()
    finally:
        run.tidy(started)
        report = Report(tuple(run.record(copy) for copy in work.copies), _facts(work, styles, chosen), work.notices)
        finish(report)
    return report


@dataclass
class _Augmentation:
    """A plan that is carried out: originals, copies style by style, lists."""

    plan: Plan
    options: AugmentOptions
    stop: Stop
    progress: Progress | None
    records: dict[Path, Record] = field(default_factory=dict)
    labels: defaultdict[Path, list[Path]] = field(default_factory=lambda: defaultdict(list))
    """The label files that this run has written, by the picture."""

    def originals(self) -> None:
        """Copy the originals, labels first: a picture without one would count as background."""
        layout = self.plan.layout
        pictures = {item.picture for item in layout.items}
        for path in sorted(self.plan.originals, key=lambda path: path in pictures):
            if self.stop():
                return
            target = self.plan.out / path
            if self._exists(target):
                continue
            if (data := layout.original(path, self.plan.out)) is not None:
                self._write(target, data)
            else:
                _copy(layout.folder / path, target, self.options.overwrite)

    def copies(self, translators: Sequence[Translator]) -> None:
        """Write the labels of all copies, then translate, style by style."""
        if self.stop():
            return
        for path in self.plan.layout.lists:  # an earlier run's name pictures that go now
            self._remove(path)
        for copy in self.plan.copies:
            if self.stop():
                return
            try:
                self._write_labels(copy)
            except ExistsError as error:  # another program's, and wrong for the picture
                self.records[copy.picture] = Record.of(self.plan.job(copy), "failed", str(error))
        for style, translator in enumerate(translators):
            self._translate([copy for copy in self.plan.copies if copy.style == style], translator)

    def _write_labels(self, copy: Copy) -> None:
        """An earlier run's picture goes first: if no new one comes, it would have no label, or a later one's."""
        self._remove(copy.picture)
        for source, label in zip(copy.item.labels, copy.labels, strict=True):
            if not self._exists(target := self.plan.out / label):
                self._write(target, self.plan.layout.label(source, copy.picture))
                self.labels[copy.picture].append(target)

    def _translate(self, copies: Sequence[Copy], translator: Translator) -> None:
        jobs = []
        for copy in (copy for copy in copies if copy.picture not in self.records):
            job = self.plan.job(copy)
            if self._exists(job.target):
                self.records[copy.picture] = Record.of(job, "skipped", "exists")
            else:
                jobs.append(job)
        known = vars(self.options)
        shared = FolderOptions(**{name: known[name] for name in option_names(FolderOptions) if name in known})
        Pipeline(translator, shared, self._finished, self.stop).run(jobs)

    def _finished(self, job: Job, record: Record) -> None:
        self.records[job.name] = record
        if self.progress is not None:
            self.progress(len(self.records), len(self.plan.copies), record.source)

    def lists(self) -> None:
        """Write the files that name many pictures."""
        there: defaultdict[Path, list[Path]] = defaultdict(list)
        for copy in self.plan.copies:
            if self.record(copy).status in ("done", "skipped"):
                there[copy.item.picture].append(copy.picture)
        for path in self.plan.layout.lists:
            data = self.plan.layout.listing(path, self.plan.kept, there, self.plan.out)
            self._write(self.plan.out / path, data, replace=self.options.overwrite or self.options.skip_existing)

    @property
    def left(self) -> bool:
        return any(self.record(copy).status == "left" for copy in self.plan.copies)

    def record(self, copy: Copy) -> Record:
        return self.records.get(copy.picture) or Record.of(self.plan.job(copy), "left")

    def tidy(self, started: float) -> None:
        """Remove the labels of copies that were not written, and half-written files of a killed run."""
        for copy in self.plan.copies:
            if not self.plan.job(copy).target.exists():  # a picture that exists keeps its label
                for path in self.labels[copy.picture]:
                    with contextlib.suppress(OSError):
                        path.unlink()
        for folder in {path.parent for path in self.plan.outputs()}:
            remove_strays(folder, started)

    def _remove(self, path: Path) -> None:
        if self.options.overwrite:
            try:
                (self.plan.out / path).unlink(missing_ok=True)
            except OSError as error:
                raise OutputError(f"{printable(self.plan.out / path)}: cannot be replaced: {error.strerror}") from error

    def _write(self, target: Path, data: bytes, replace: bool | None = None) -> None:
        make_folders(target.parent)
        replace = self.options.overwrite if replace is None else replace
        atomic_write(target, lambda file: file.write(data), replace=replace)

    def _exists(self, target: Path) -> bool:
        return self.options.skip_existing and target.exists()


def _facts(work: Plan, styles: Sequence[str], options: AugmentOptions) -> dict[str, Any]:
    """The facts of the report: how to do it again, and the labels that were found."""
    defaults, values = to_mapping(AugmentOptions()), to_mapping(options)
    return {
        "i2i": __version__,
        "styles": list(styles),
        "options": {name: value for name, value in values.items() if value != defaults[name]},
        "layout": work.layout.name,
        "summary": work.summary,
        "originals": len(work.originals),
        "left_out": len(work.problems),
    }


def _copy(source: Path, target: Path, replace: bool) -> None:
    try:
        with source.open("rb") as original:
            make_folders(target.parent)
            atomic_write(target, lambda file: shutil.copyfileobj(original, file), replace=replace)
    except OSError as error:
        raise OutputError(f"{printable(source)}: cannot be copied: {error.strerror}") from error
