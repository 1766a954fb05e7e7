"""Which pictures and films go where: jobs, found, named and checked before any work.

Two outputs that would be one file are refused or named apart.
"""

import hashlib
import os
import stat
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

from i2i.config import nearest, path_of, real
from i2i.data.folders import listed
from i2i.data.walking import walk
from i2i.errors import ImageError, InputError, UsageError
from i2i.films import ANIMATED, NEEDS_PYAV, VIDEO, has_pyav, is_animated, needs_video
from i2i.films import WRITTEN as WRITTEN_FILMS
from i2i.films import written_suffix as written_film_suffix
from i2i.folders.masks import MaskFiles
from i2i.images import SUFFIXES, UNREAD, WRITTEN, written_suffix
from i2i.inference.options import FolderOptions
from i2i.terminal import printable


@dataclass(frozen=True)
class Job:
    """One picture or `film` to translate, and where the result goes; `refused` says why it cannot be read, if so.

    `name` is the path within the output folder that it would have had alone, the same on every machine. `mask` is the
    file of its mask, if it has one.
    """

    source: Path
    target: Path
    name: Path
    refused: str = ""
    film: bool = False
    mask: Path | None = None


@dataclass(frozen=True)
class Plan:
    """The work, in order.

    `todo` are the jobs to do, `skipped` those whose results exist, `special` those of pipes, sockets and devices.
    `other` counts the files that are neither. `found` are all pictures and films of the inputs, also of other shards.
    `notices` are remarks for the user.
    """

    todo: tuple[Job, ...]
    skipped: tuple[Job, ...] = ()
    special: tuple[Job, ...] = ()
    other: int = 0
    found: tuple[Path, ...] = ()
    notices: tuple[str, ...] = ()


def _keys(jobs: Sequence[Job]) -> list[str]:
    """A key for each target, equal for targets that are one file: folders resolved, case and Unicode forms folded."""
    parents = {parent: real(parent) for parent in {job.target.parent for job in jobs}}
    paths = (str(parents[job.target.parent] / job.target.name) for job in jobs)
    return [unicodedata.normalize("NFC", path).casefold() for path in paths]


def _clashing(jobs: Sequence[Job]) -> list[Job]:
    jobs = [job for job in jobs if not job.refused]
    keys = _keys(jobs)
    counts = Counter(keys)
    # a path cannot be the folder of one result and another result
    counts.update(folder for folder in {str(p) for key in keys for p in Path(key).parents} if folder in counts)
    clashing = [(key, str(job.source), job) for key, job in zip(keys, jobs, strict=True) if counts[key] > 1]
    return [job for *_, job in sorted(clashing, key=lambda entry: entry[:2])]


def without_collisions(jobs: list[Job], policy: str) -> list[Job]:
    """`jobs` with a path of its own each. Raises `UsageError` with those that share one, unless `policy` is suffix."""
    if policy == "suffix":
        for rename in (_with_suffix, _with_digest_of_name, _with_digest_of_source):
            alike = set(_clashing(jobs))
            jobs = [rename(job) if job in alike else job for job in jobs]
    if clashing := _clashing(jobs):
        pairs = listed([f"{printable(job.source)} → {printable(job.target)}" for job in clashing])
        hint = [] if policy == "suffix" else ["Use --on-collision suffix to name them apart."]
        raise UsageError(f"{len(clashing)} inputs share their output paths:", *pairs, *hint)
    return jobs


def _with_suffix(job: Job) -> Job:
    stem = f"{job.source.stem}_{job.source.suffix[1:]}"
    return replace(job, target=job.target.with_name(stem + job.target.suffix))


def _with_digest_of_name(job: Job) -> Job:
    return _with_digest(job, job.name.with_name(job.source.name))


def _with_digest_of_source(job: Job) -> Job:
    return _with_digest(job, job.source)


def _with_digest(job: Job, path: Path) -> Job:
    digest = hashlib.blake2b(os.fsencode(path.as_posix()), digest_size=4).hexdigest()
    return replace(job, target=job.target.with_name(f"{job.target.stem}_{digest}{job.target.suffix}"))


Source = str | PathLike[str]
Inputs = Source | Sequence[Source]
STDIN = "-"


def plan(inputs: Inputs, out: Source | None, options: FolderOptions) -> Plan:
    """Plans the work of `translate_folder` for these inputs and options, from names alone.

    An input is a picture, a folder, or `-` for a list of either on the standard input, separated by lines or,
    if there is one, by NUL bytes. Raises `InputError` if there are no pictures; `UsageError` for options that
    contradict each other, for existing outputs without `overwrite` or `skip_existing`, for an output that would
    replace an input, and for inputs with one output path.
    """
    options.check()
    sources = [inputs] if isinstance(inputs, str | PathLike) else list(inputs)
    if (out is None) != options.in_place:
        wrong = "the place for the results is missing" if out is None else "two places for the results"
        raise UsageError(f"{wrong}; give -o OUT, or --in-place to replace the inputs")
    masks = MaskFiles(options.mask)
    found = _Found(options, Path() if out is None else path_of(out), masks)
    for source in sources:
        found.add(source)
    jobs = _masked(found.jobs(), masks)
    if not jobs:
        searched = ", ".join(printable(Path(s)) for s in sources) or "no inputs"
        if found.films:
            raise UsageError(f"{searched}: {NEEDS_PYAV}")
        raise InputError(f"no pictures found in {searched} (looked for {', '.join(sorted(SUFFIXES | VIDEO))})")
    if options.in_place:
        jobs = _in_place(jobs)
    elif _names_a_picture(found.out, sources):
        jobs = [_renamed(jobs, sources, found.out, options.format)]
    if not options.in_place:
        jobs = without_collisions(jobs, options.on_collision)
    _check_extra(jobs)
    mine = _shard(jobs, options)
    existing = set() if options.in_place else _existing(jobs, mine, options)
    # a link to nothing is there, but it is no result
    skipped = {job for job in existing if options.skip_existing and os.path.exists(job.target)}  # noqa: PTH110
    return Plan(
        todo=tuple(job for job in mine if job not in skipped),
        skipped=tuple(job for job in mine if job in skipped),
        special=tuple(_shard(found.special, options)),
        other=found.other,
        found=tuple(job.source for job in jobs),
        notices=found.notices(),
    )


def _check_extra(jobs: Sequence[Job]) -> None:
    missing = [job for job in jobs if job.film and needs_video(job.source, job.target)]
    if missing and not has_pyav():
        raise UsageError(f"{printable(missing[0].source)}: {NEEDS_PYAV}")


class _Found:
    """Turns inputs into jobs. A picture that is named twice is one job."""

    def __init__(self, options: FolderOptions, out: Path, masks: MaskFiles) -> None:
        self.options, self.out, self.masks = options, out, masks
        self.other = self.films = 0
        self.special: list[Job] = []
        self._jobs: dict[tuple[Path, Path], Job] = {}

    def jobs(self) -> list[Job]:
        return list(self._jobs.values())

    def notices(self) -> tuple[str, ...]:
        return (f"{self.films} films were left alone: {NEEDS_PYAV}",) if self.films else ()

    def add(self, source: Source) -> None:
        if str(source) != STDIN:
            self._input(path_of(source), None)
            return
        for name in _standard_input():
            path = path_of(name)
            # a relative name keeps its folders, so that files of one name from several folders can be told apart
            self._input(path, None if path.is_absolute() or ".." in path.parts else path)

    def _input(self, path: Path, name: Path | None) -> None:
        if os.path.isdir(path):  # noqa: PTH112 - which, unlike pathlib, never raises
            self._folder(path, name or Path())
        elif _there(path):
            self._add(path, name or Path(path.name))
        else:
            near = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
            raise InputError(f"{printable(path)}: no such file or folder.{nearest(path.name, near)}")

    def _folder(self, folder: Path, below: Path) -> None:
        others = [path for path in (self._output(folder), self.masks.folder) if path is not None]
        parents: dict[Path, bool] = {}

        def refused(error: OSError) -> None:
            path = Path(error.filename)
            self._add(path, below / path.relative_to(folder), f"cannot be listed: {error.strerror}")

        if self.masks.folder is not None and real(folder).is_relative_to(self.masks.folder):
            raise UsageError(f"{printable(folder)} holds the masks, and no pictures to translate; choose another input")
        names = walk(folder, refused, recursive=self.options.recursive, follow_links=self.options.follow_links)
        for path in names:
            if path.parent not in parents:
                parents[path.parent] = any(real(path.parent).is_relative_to(other) for other in others)
            if parents[path.parent] or self.masks.is_for_all(path):
                continue
            suffix = path.suffix.lower()
            if suffix in VIDEO and not has_pyav():
                self.films += 1
                self.other += 1
            elif suffix in SUFFIXES or suffix in UNREAD or suffix in VIDEO:
                self._add(path, below / path.relative_to(folder))
            else:
                self.other += 1

    def _output(self, folder: Path) -> Path | None:
        """Where results go, whatever links lead there: they are no inputs, unless the input is a part of them."""
        if self.options.in_place:
            return None
        inside, target = real(folder), real(self.out)
        if inside == target:
            raise UsageError(f"{printable(self.out)} is the input folder; choose another output folder")
        return None if inside.is_relative_to(target) else target

    def _add(self, source: Path, name: Path, refused: str = "") -> None:
        film = not refused and self._is_film(source, name.suffix.lower())
        if film:
            suffix = written_film_suffix(name.suffix)
        else:
            suffix = f".{self.options.format}" if self.options.format else written_suffix(name.suffix)
        same = refused or suffix.lower() == name.suffix.lower()
        renamed = name if same else name.with_name(name.stem + suffix)
        job = Job(source, self.out / renamed, renamed, refused, film)
        if not refused and _is_special(source):
            self.special.append(job)
        else:
            self._jobs.setdefault((source.absolute(), job.target), job)

    def _is_film(self, source: Path, suffix: str) -> bool:
        if suffix in VIDEO:
            return True
        # with a format of pictures, or with another one, the first frame is meant
        moves = suffix in ANIMATED and self.options.format in (None, suffix.removeprefix("."))
        return moves and is_animated(source)


def _masked(jobs: Sequence[Job], masks: MaskFiles) -> list[Job]:
    """The jobs with their masks; those that have none are refused. Raises `UsageError` if that is so for all."""
    found = [_with_mask(job, masks) for job in jobs]
    refused = [job for job in found if job.mask is None]
    if masks.path is not None and found and len(refused) == len(found):
        reasons = listed([f"{printable(job.source)}: {job.refused}" for job in refused])
        raise UsageError(f"{printable(masks.path)} has no mask for these pictures:", *reasons)
    return found


def _with_mask(job: Job, masks: MaskFiles) -> Job:
    try:
        return replace(job, mask=masks.of(job.name))
    except ImageError as error:
        return replace(job, refused=job.refused or str(error))


def _there(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise InputError(f"{printable(path)}: cannot be opened: {error.strerror}") from None
    return True


def _standard_input() -> Iterator[str]:
    data = sys.stdin.buffer.read()
    if b"\0" in data:
        return map(os.fsdecode, data.removesuffix(b"\0").split(b"\0"))
    names = (os.fsdecode(name) for name in data.split(b"\n") if name.strip())
    return (name if os.path.lexists(name) else name.removesuffix("\r") for name in names)


def _is_special(path: Path) -> bool:
    """A FIFO, a socket, a device: opening it could wait for ever or do something."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False  # reading it will say why
    return not stat.S_ISREG(mode)


def _names_a_picture(out: Path, sources: Sequence[Source]) -> bool:
    suffix = out.suffix.lower()
    if suffix not in (*SUFFIXES, *UNREAD, *VIDEO) or out.is_dir():
        return False
    if suffix in WRITTEN or suffix in WRITTEN_FILMS:
        return True
    if len(sources) == 1 and not os.path.isdir(sources[0]):  # noqa: PTH112
        written = ", ".join(sorted(WRITTEN_FILMS if suffix in VIDEO else WRITTEN))
        raise UsageError(f"{printable(out)}: {suffix} is not written; written are {written}")
    return False


def _renamed(jobs: Sequence[Job], sources: Sequence[Source], out: Path, format: str | None) -> Job:
    if len(jobs) != 1 or len(sources) != 1 or Path(sources[0]).is_dir():
        raise UsageError(f"{printable(out)} names one picture; several inputs need a folder")
    if format is not None and WRITTEN[f".{format}"] != WRITTEN.get(out.suffix.lower()):
        raise UsageError(f"{printable(out)} and --format {format} contradict each other")
    return replace(jobs[0], target=out, film=_makes_a_film(jobs[0].source, out))


def _makes_a_film(source: Path, out: Path) -> bool:
    """Whether a film is to be made of `source`. Raises `UsageError` where the one is a film and the other cannot be."""
    before, after = source.suffix.lower(), out.suffix.lower()
    moves = before in VIDEO or (before in ANIMATED and is_animated(source))
    if before in VIDEO and after not in WRITTEN_FILMS:
        raise UsageError(
            f"{printable(out)}: one picture cannot hold a film; films are written as {', '.join(sorted(WRITTEN_FILMS))}"
        )
    if before in SUFFIXES - ANIMATED and after == ".gif":
        raise UsageError(f"{printable(out)}: .gif is not written; written are {', '.join(sorted(WRITTEN))}")
    if before in SUFFIXES - ANIMATED and after in VIDEO:
        raise UsageError(f"{printable(source)} is a picture, and {printable(out)} would be a film")
    return after in WRITTEN_FILMS and (moves or after not in WRITTEN)


def _in_place(jobs: Sequence[Job]) -> list[Job]:
    """Each file once, behind its links, for a link would be replaced and not its file."""
    files: dict[Path, Job] = {}
    for job in jobs:
        path = real(job.source)
        written = written_film_suffix(path.suffix) if job.film else written_suffix(path.suffix)
        if written != path.suffix:
            job = replace(job, refused="this format cannot be written; without --in-place it becomes another")
        files.setdefault(path, replace(job, source=path, target=path))
    return list(files.values())


def _shard(jobs: list[Job], options: FolderOptions) -> list[Job]:
    number, parts = options.part()
    if options.shard_by == "index":
        return jobs[number::parts]
    return [job for job in jobs if _place(job) % parts == number]


def _place(job: Job) -> int:
    return int.from_bytes(hashlib.blake2b(os.fsencode(job.name.as_posix()), digest_size=8).digest(), "little")


def _existing(all_jobs: Sequence[Job], jobs: Sequence[Job], options: FolderOptions) -> set[Job]:
    """The jobs whose target exists."""
    jobs = [job for job in jobs if not job.refused]
    existing = {job for job in jobs if os.path.lexists(job.target)}
    inputs = {_identity(job.source) for job in all_jobs} - {None}
    for job in jobs:
        if job in existing and _identity(job.target) in inputs:
            raise UsageError(f"{printable(job.target)} is an input and would be overwritten; choose another output")
        if os.path.isdir(job.target):  # noqa: PTH112
            raise UsageError(f"{printable(job.target)} is a folder where a picture would be written")
    if existing and not (options.overwrite or options.skip_existing):
        names = listed([printable(job.target) for job in jobs if job in existing])
        exist = "1 output exists" if len(existing) == 1 else f"{len(existing)} outputs exist"
        raise UsageError(f"{exist}; choose --overwrite (replace) or --skip-existing (keep):", *names)
    return existing


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
