"""A labelled folder in, the same folder with translated copies and their labels out.

A translation moves nothing, so a copy has the boxes, keypoints and masks of its original. Only names change: those of
the files, and those that stand in them. Labels are checked, and copies drawn and named, before any work.
"""

import contextlib
import hashlib
import os
import re
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval, Le

from i2i import __version__
from i2i.config import from_mapping, narrowed, option_names, to_mapping
from i2i.data.folders import LeftOut, find_files, first_lines, listed, near_to
from i2i.data.walking import exists, is_folder
from i2i.errors import ExistsError, InputError, OutputError, UsageError, nearest
from i2i.files import atomic_write, make_folders, remove_strays
from i2i.folders.jobs import Job
from i2i.folders.report import Progress, Record, Report
from i2i.images import written_suffix
from i2i.inference.options import FolderOptions, ModelOptions
from i2i.models import styles as known_styles
from i2i.models.info import DIRECTIONS
from i2i.models.styles import MODEL_SUFFIXES, STYLE_NAME
from i2i.terminal import printable
from i2i.tools.datasets.shape import check_outputs, check_place
from i2i.tools.labelled.by_picture import Voc, Yolo
from i2i.tools.labelled.coco import Coco
from i2i.tools.labelled.layout import Layout, Masks, find_layout
from i2i.urls import path_of

if TYPE_CHECKING:
    from i2i.inference.translator import Translator


@dataclass(frozen=True, kw_only=True)
class AugmentOptions(ModelOptions):
    """How a labelled folder is augmented."""

    layout: Literal["auto", "yolo", "voc", "coco", "masks"] = "auto"
    """The kind of labels; auto looks for it, and says what it found."""
    names: str = ""
    """Names for the copies of each style, with commas between: photo_NAME.jpg. Default: the names of the styles."""
    copies: Annotated[int, Ge(1)] | None = None
    """Translate each picture by so many of the styles, drawn at random. Default: all."""
    fraction: Annotated[float, Gt(0), Le(1)] = 1.0
    """The share of the pictures that is translated, drawn at random."""
    split: str = ""
    """Translate only this split: pictures in a folder train/ or train2017/, ImageSets/*/train.txt, or *_train.json."""
    seed: Annotated[int, Interval(ge=0, lt=2**63)] = 0
    """Another number, other draws (and another noise where dropout stays on); the same number, the same."""
    copies_only: bool = False
    """Write the copies and their labels alone, without the originals."""
    on_bad: Literal["error", "skip"] = "error"
    """Labels that do not match: refuse before any work, or leave those pictures out."""
    quality: Annotated[int, Interval(ge=1, le=100)] | None = None
    """Quality of JPEG, WebP and AVIF copies, 1 to 100. Default: visually lossless."""
    overwrite: bool = False
    """Replace outputs that exist."""
    skip_existing: bool = False
    """Write only missing outputs; lists (COCO .json, ImageSets) are written anew."""
    batch_size: Annotated[int, Interval(ge=1, le=4096)] | Literal["auto"] = "auto"
    """Pictures of equal size that go through the network together; auto is 1 on a CPU, else 16."""
    workers: Annotated[int, Interval(ge=1, le=256)] | Literal["auto"] = "auto"
    """Threads that read, and as many that write; auto is 1 on a CPU, else up to 8. They change no result."""


LAYOUTS: tuple[type[Layout], ...] = (Coco, Voc, Yolo, Masks)


@dataclass(frozen=True)
class Copy:
    """A translation of the picture `source` by a style (its number); `labels` has the copy of each label."""

    source: Path
    style: int
    picture: Path
    labels: Mapping[Path, Path]


@dataclass(frozen=True)
class Plan:
    """The work of one augmentation, in relative paths. `originals` are copied unchanged; `kept` are the pictures there.

    `problems` names each label and picture that is left out, `not_read` places such as links to folders.
    """

    layout: Layout
    out: Path
    originals: Sequence[Path]
    kept: frozenset[Path]
    copies: Sequence[Copy]
    problems: Sequence[str]
    not_read: Sequence[str]

    def job(self, copy: Copy) -> Job:
        return Job(str(self.layout.folder / copy.source), str(self.out / copy.picture), str(copy.picture))

    def outputs(self) -> list[Path]:
        copied = (path for copy in self.copies for path in (copy.picture, *copy.labels.values()))
        return [self.out / path for path in (*self.originals, *self.layout.lists, *copied)]

    @property
    def summary(self) -> str:
        """The labels that were found and the files to write, in a line."""
        originals = f"{len(self.originals):,} files as they are" if self.originals else "no originals"
        return f"{self.layout.summary}; {len(self.copies):,} translated copies, {originals}"

    @property
    def notices(self) -> tuple[str, ...]:
        """The first ten labels and pictures that are left out, and what was not read."""
        left_out = f"{len(self.problems)} labels or pictures do not match and are left out:"
        return (*self.not_read, *((left_out, *first_lines(self.problems)) if self.problems else ()))


def plan(folder: Path, out: Path, names: Sequence[str], options: AugmentOptions) -> Plan:
    """The plan for copies with these names. Reads labels and the headers of pictures.

    Raises `InputError` for no labels, or some that do not match (unless `on_bad` is skip), `UsageError` for outputs.
    """
    check_place(out, (folder,))
    if not is_folder(folder):
        reason = "not a folder" if exists(folder) else "no such folder"
        raise InputError(f"{printable(folder)}: {reason}.{near_to(folder)}")
    left_out = LeftOut(folder)
    files = [Path(path).relative_to(folder) for path in find_files(folder, left_out)]
    layout = find_layout(folder, files, [kind for kind in LAYOUTS if options.layout in ("auto", kind.name)])
    found = layout.mismatches()
    problems = [f"{printable(path)}: {reason}" for path, reason in found.items()]
    if problems and options.on_bad == "error":
        mend = "Mend them, or use --on-bad skip to leave out those pictures, or annotations."
        what = f"{printable(folder)}: {len(problems)} labels or pictures do not match:"
        raise InputError(what, *listed(problems), mend)
    good = [picture for picture in layout.items if picture not in found]
    if not good:
        raise InputError(f"{printable(folder)}: none of its pictures has labels that match:", *listed(problems))
    copies = _draw_copies(layout, _of_split(layout, good, options.split), names, options)
    bad = found.keys() | {label for picture in layout.items if picture in found for label in layout.items[picture]}
    bad -= {label for picture in good for label in layout.items[picture]}
    originals = [] if options.copies_only else [path for path in files if path not in bad and path not in layout.lists]
    kept = frozenset(() if options.copies_only else good)
    work = Plan(layout, out, originals, kept, copies, problems, left_out.lines)
    check_outputs(work.outputs(), [folder / path for path in files], options.overwrite, options.skip_existing)
    return work


def checked_styles(styles: Sequence[str], options: AugmentOptions) -> list[str]:
    """The names for the copies of each style, after a look for the styles that need no download.

    Raises `UsageError` for options that contradict each other, unknown styles, and names that cannot be used.
    """
    if not styles:
        raise UsageError("expected at least one style")
    if options.copies is not None and options.copies > (count := len(styles)):
        raise UsageError(f"copies = {options.copies}: with {count} styles there are {count} translations of a picture")
    names = [name.strip() for name in options.names.split(",")] if options.names else list(map(_style_name, styles))
    if len(names) != len(styles):
        expected = f"expected one for each of {len(styles)} styles, with commas between"
        raise UsageError(f"names = {options.names!r}: {expected}")
    for name in names:
        if not STYLE_NAME.fullmatch(name):
            raise UsageError(f"{name!r} cannot be a part of file names; choose another with --names")
    if twice := [name for name, count in Counter(name.lower() for name in names).items() if count > 1]:
        raise UsageError(f"several styles have the name {twice[0]!r}; choose others with --names a,b,...")
    for style in styles:
        known_styles.check(style, options.direction, download=options.download)
    return names


def _style_name(style: str) -> str:
    """`runs/monet`, `runs/monet/b2a.safetensors`, `hub:me/monet@main` and `monet` are all called monet."""
    path = Path(style.removeprefix("hub:").partition("@")[0] if style.startswith("hub:") else style)
    if path.suffix not in MODEL_SUFFIXES:
        return path.name or path.absolute().name
    return path.absolute().parent.name if path.stem in DIRECTIONS else path.stem


def _of_split(layout: Layout, pictures: list[Path], split: str) -> list[Path]:
    """The pictures of a split. Raises `UsageError` if there is none."""
    if not split:
        return pictures
    belongs = re.compile(rf"(.*[_-])?{re.escape(split)}(\d{{4}})?")
    chosen = [picture for picture in pictures if any(map(belongs.fullmatch, layout.splits(picture)))]
    if not chosen:
        known = sorted({name for picture in pictures for name in layout.splits(picture)})
        hint, shown = nearest(split, known), ", ".join(known[:20])
        raise UsageError(f"split = {split!r}: no picture belongs to it.{hint} Found: {shown}")
    return chosen


def _draw_copies(layout: Layout, pictures: list[Path], names: Sequence[str], options: AugmentOptions) -> list[Copy]:
    """The copies, style by style; the draws for a picture follow from the seed and its path."""

    def draw(picture: Path, name: str) -> bytes:
        parts = str(options.seed).encode(), name.encode(), os.fsencode(picture.as_posix())
        return hashlib.blake2b(b"\0".join(parts)).digest()

    def copy(picture: Path, style: int) -> Copy:
        def renamed(path: Path, suffix: str) -> Path:
            return path.with_name(f"{path.stem}_{names[style]}{suffix}")

        labels = {label: renamed(label, label.suffix) for label in layout.items[picture]}
        return Copy(picture, style, renamed(picture, written_suffix(picture.suffix)), labels)

    count = max(1, round(options.fraction * len(pictures)))
    drawn = set(sorted(pictures, key=lambda picture: draw(picture, ""))[:count])
    found = []
    for picture in (picture for picture in pictures if picture in drawn):
        ranked = sorted(range(len(names)), key=lambda style: draw(picture, names[style]))
        found += [copy(picture, style) for style in ranked[: options.copies]]
    return sorted(found, key=lambda copy: copy.style)


def augment_folder(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    styles: Sequence[str],
    *,
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
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
    from i2i.inference.translator import load_translator  # here: a plan needs no torch

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
        run.lists()
    finally:
        run.tidy(started)
        report = Report(tuple(map(run.record, work.copies)), _facts(work, styles, chosen), work.notices)
        finish(report)
    return report


@dataclass
class _Augmentation:
    """A plan that is carried out: originals, copies style by style, lists."""

    plan: Plan
    options: AugmentOptions
    stop: Callable[[], bool]
    progress: Progress | None
    records: dict[Path, Record] = field(default_factory=dict)
    labels: defaultdict[Path, list[Path]] = field(default_factory=lambda: defaultdict(list))
    """The label files that this run has written, by the picture."""

    def originals(self) -> None:
        """Copy the originals, labels first: a picture without one would count as background."""
        layout = self.plan.layout
        for path in sorted(self.plan.originals, key=layout.items.__contains__):
            if self.stop():
                return
            target = self.plan.out / path
            if self._exists(target):
                continue
            if (data := layout.original(path, self.plan.out)) is not None:
                self._write(target, data, self.options.overwrite)
            else:
                _copy(layout.folder / path, target, self.options.overwrite)

    def copies(self, translators: Sequence["Translator"]) -> None:
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
        for source, label in copy.labels.items():
            if not self._exists(target := self.plan.out / label):
                self._write(target, self.plan.layout.label(source, copy.picture), self.options.overwrite)
                self.labels[copy.picture].append(target)

    def _translate(self, copies: Sequence[Copy], translator: "Translator") -> None:
        from i2i.folders.pipeline import Pipeline

        jobs = [self.plan.job(copy) for copy in copies if copy.picture not in self.records]
        for job in jobs:
            if self._exists(job.target):
                self.records[job.name] = Record.of(job, "skipped", "exists")
        jobs = [job for job in jobs if job.name not in self.records]
        known = vars(self.options)
        shared = FolderOptions(**{name: known[name] for name in option_names(FolderOptions) if name in known})
        Pipeline(translator, shared, self._finished, self.stop).run(jobs)

    def _finished(self, job: Job, record: Record) -> None:
        self.records[job.name] = record
        if self.progress is not None:
            self.progress(len(self.records), len(self.plan.copies), record.source)

    def lists(self) -> None:
        """Write the files that name many pictures, once all copies are done with."""
        records = {copy.picture: self.record(copy).status for copy in self.plan.copies}
        if "left" in records.values():
            return
        there: defaultdict[Path, list[Path]] = defaultdict(list)
        for copy in self.plan.copies:
            if records[copy.picture] in ("done", "skipped"):
                there[copy.source].append(copy.picture)
        for path in self.plan.layout.lists:
            data = self.plan.layout.listing(path, self.plan.kept, there, self.plan.out)
            self._write(self.plan.out / path, data, self.options.overwrite or self.options.skip_existing)

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

    def _write(self, target: Path, data: bytes, replace: bool) -> None:
        make_folders(target.parent)
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
