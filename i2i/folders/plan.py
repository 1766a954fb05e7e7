"""Which pictures and films go where: jobs, found, named and checked before any work.

Two outputs that would be one file are refused or named apart.
"""

import hashlib
import os
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

from i2i.config import nearest, place_of, real
from i2i.data.folders import listed
from i2i.data.walking import prefix_of, suffix_of, walk
from i2i.errors import ImageError, InputError, OutputError, UsageError
from i2i.films import ANIMATED, NEEDS_PYAV, VIDEO, has_pyav, is_animated, needs_video
from i2i.films import WRITTEN as WRITTEN_FILMS
from i2i.films import written_suffix as written_film_suffix
from i2i.folders import stores
from i2i.folders.clusters import parse_address
from i2i.folders.jobs import Job, folded, without_collisions
from i2i.folders.masks import MaskFiles
from i2i.images import SUFFIXES, UNREAD, WRITTEN, written_suffix
from i2i.inference.options import FolderOptions
from i2i.terminal import printable
from i2i.urls import StorePath, as_path, is_url


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
    found: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


Source = str | PathLike[str]
Inputs = Source | Sequence[Source]
STDIN = "-"
_OFTEN = 32
"""A folder is listed once this many of its paths are in question."""


def plan(inputs: Inputs, out: Source | None, options: FolderOptions) -> Plan:
    """Plans the work of `translate_folder` for these inputs and options, from names alone.

    An input is a picture, a folder, or `-` for a list of either on the standard input, separated by lines or,
    if there is one, by NUL bytes. Raises `InputError` if there are no pictures; `UsageError` for options that
    contradict each other, for existing outputs without `overwrite` or `skip_existing`, for an output that would
    replace an input, and for inputs with one output path.
    """
    options.check()
    if options.cluster:
        parse_address(options.cluster)
    sources = [place_of(source) for source in ([inputs] if isinstance(inputs, str | PathLike) else inputs)]
    if (out is None) != options.in_place:
        wrong = "the place for the results is missing" if out is None else "two places for the results"
        raise UsageError(f"{wrong}; give -o OUT, or --in-place to replace the inputs")
    masks = MaskFiles(options.mask)
    found = _Found(options, Path() if out is None else place_of(out), masks)
    for source in sources:
        found.add(source)
    jobs = _masked(found.jobs(), masks)
    if not jobs:
        searched = ", ".join(map(printable, sources)) or "no inputs"
        if found.films:
            raise UsageError(f"{searched}: {NEEDS_PYAV}")
        raise InputError(f"no pictures found in {searched} (looked for {', '.join(sorted(SUFFIXES | VIDEO))})")
    if options.in_place:
        jobs = _in_place(jobs)
    elif _names_a_picture(found.out, alone := len(sources) == 1 and sources[0] not in found.folders):
        jobs = [_renamed(jobs, alone, found.out, options.format)]
    if not options.in_place:
        jobs = without_collisions(jobs, options.on_collision)
    _check_extra(jobs)
    mine = _shard(jobs, options)
    skipped = set() if options.in_place else _existing(jobs, mine, found.out, options)
    return Plan(
        todo=tuple(job for job in mine if job not in skipped),
        skipped=tuple(job for job in mine if job in skipped),
        special=tuple(_shard(found.special, options)),
        other=found.other,
        found=tuple(job.source_text for job in jobs),
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
        self.folders: set[Path] = set()
        """The inputs that are folders."""
        self.special: list[Job] = []
        self._moving: set[Path] = set()
        self._jobs: dict[str | tuple[str, Path], Job] = {}
        self._before = prefix_of(out)

    def jobs(self) -> list[Job]:
        return list(self._jobs.values())

    def notices(self) -> tuple[str, ...]:
        return (f"{self.films} films were left alone: {NEEDS_PYAV}",) if self.films else ()

    def add(self, source: Path) -> None:
        if str(source) != STDIN:
            self._input(source, None)
            return
        for name in _standard_input():
            path = place_of(name)
            # a relative name keeps its folders, so that files of one name from several folders can be told apart
            whole = isinstance(path, StorePath) or path.is_absolute() or ".." in path.parts
            self._input(path, None if whole else path)

    def _input(self, path: Path, name: Path | None) -> None:
        if isinstance(path, StorePath):
            self._store(path)
            return
        kind = _kind(path)
        if stat.S_ISDIR(kind):
            self.folders.add(path)
            self._folder(path, name or Path())
        else:
            self._add(str(path), str(name or path.name), special=kind != 0 and not stat.S_ISREG(kind))

    def _store(self, place: StorePath) -> None:
        """Adds the file of a store at a place, or those below it; names that begin with a dot are hidden."""
        others = tuple(map(prefix_of, self._others(place)))
        names = [name for name in stores.files(place, recursive=self.options.recursive) if not stores.is_hidden(name)]
        if not names:
            raise InputError(f"{printable(place)}: no such file or folder in the store")
        if names == [""]:
            self._moving |= stores.moving([place])
            self._add(str(place), place.name)
            return
        self.folders.add(place)
        before = prefix_of(place)
        found = [name for name in names if not (before + name).startswith(others)]
        self._moving |= stores.moving([place / stores.fit(n) for n in found if suffix_of(n).lower() in ANIMATED])
        for name in found:
            path = before + stores.fit(name)
            if not self.masks.is_for_all(path):
                reason = "" if stores.is_fit(name) else f"its name {name!a} {stores.UNFIT}"
                self._file(path, stores.fit(name), reason)

    def _folder(self, folder: Path, below: Path) -> None:
        others = self._others(folder)
        passed: dict[str, bool] = {}
        odd: set[str] = set()

        def refused(error: OSError) -> None:
            path = Path(error.filename)
            self._add(str(path), str(below / path.relative_to(folder)), f"cannot be listed: {error.strerror}")

        recursive, follow_links = self.options.recursive, self.options.follow_links
        start, begin = len(prefix_of(folder)), prefix_of(below)
        for path in walk(folder, refused, recursive=recursive, follow_links=follow_links, irregular=odd.add):
            parent = os.path.dirname(path)  # noqa: PTH120
            if parent not in passed:
                passed[parent] = any(real(Path(parent)).is_relative_to(other) for other in others)
            if passed[parent] or self.masks.is_for_all(path):
                continue
            self._file(path, begin + path[start:], special=path in odd)

    def _file(self, path: str, name: str, refused: str = "", special: bool = False) -> None:
        """Adds a file of a folder, if it is a picture or a film."""
        ending = suffix_of(path).lower()
        if ending in VIDEO and not has_pyav():
            self.films += 1
            self.other += 1
        elif ending in SUFFIXES or ending in UNREAD or ending in VIDEO:
            self._add(path, name, refused, special and _is_special(path))
        else:
            self.other += 1

    def _others(self, folder: Path) -> list[Path]:
        """Folders whose files are no inputs: those of the results and of the masks."""
        if self.masks.folder is not None and real(folder).is_relative_to(self.masks.folder):
            raise UsageError(f"{printable(folder)} holds the masks, and no pictures to translate; choose another input")
        return [path for path in (self._output(folder), self.masks.folder) if path is not None]

    def _output(self, folder: Path) -> Path | None:
        """Where results go, whatever links lead there: they are no inputs, unless the input is a part of them."""
        if self.options.in_place:
            return None
        inside, target = real(folder), real(self.out)
        if inside == target:
            raise UsageError(f"{printable(self.out)} is the input folder; choose another output folder")
        return None if inside.is_relative_to(target) else target

    def _add(self, source: str, name: str, refused: str = "", special: bool = False) -> None:
        before = suffix_of(name)
        film = not refused and self._is_film(source, before.lower())
        if film:
            after = written_film_suffix(before)
        else:
            after = f".{self.options.format}" if self.options.format else written_suffix(before)
        if not refused and after.lower() != before.lower():
            name = name.removesuffix(before) + after
        job = Job(source, self._before + name, name, refused, film)
        if special:
            self.special.append(job)
            return
        first = self._jobs.setdefault(job.target_text, job)
        if first is not job and first.source.absolute() != job.source.absolute():
            self._jobs.setdefault((job.target_text, job.source.absolute()), job)

    def _is_film(self, source: str, suffix: str) -> bool:
        if suffix in VIDEO:
            return True
        # with a format of pictures, or with another one, the first frame is meant
        moves = suffix in ANIMATED and self.options.format in (None, suffix.removeprefix("."))
        if is_url(source):
            return moves and as_path(source) in self._moving
        return moves and is_animated(Path(source))


def _masked(jobs: Sequence[Job], masks: MaskFiles) -> list[Job]:
    """The jobs with their masks; those that have none are refused. Raises `UsageError` if that is so for all."""
    if masks.path is None:
        return list(jobs)
    found = [_with_mask(job, masks) for job in jobs]
    refused = [job for job in found if not job.mask_text]
    if found and len(refused) == len(found):
        reasons = listed([f"{printable(job.source)}: {job.refused}" for job in refused])
        raise UsageError(f"{printable(masks.path)} has no mask for these pictures:", *reasons)
    return found


def _with_mask(job: Job, masks: MaskFiles) -> Job:
    try:
        return replace(job, mask_text=masks.of(job.name_text))
    except ImageError as error:
        return replace(job, refused=job.refused or str(error))


def _kind(path: Path) -> int:
    """The `st_mode` of an input through its links; 0 where they lead to nothing that can be looked at.

    Raises `InputError` if nothing is there.
    """
    with suppress(OSError):
        return path.stat().st_mode
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        near = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise InputError(f"{printable(path)}: no such file or folder.{nearest(path.name, near)}") from None
    except OSError as error:
        raise InputError(f"{printable(path)}: cannot be opened: {error.strerror}") from None
    return 0


def _standard_input() -> Iterator[str]:
    data = sys.stdin.buffer.read()
    if b"\0" in data:
        return map(os.fsdecode, data.removesuffix(b"\0").split(b"\0"))
    names = (os.fsdecode(name) for name in data.split(b"\n") if name.strip())
    # a list that was written on Windows
    return (name[:-1] if name.endswith("\r") and not os.path.lexists(name) else name for name in names)


def _is_special(path: str) -> bool:
    """A FIFO, a socket, a device: opening it could wait for ever or do something."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
    except OSError:
        return False  # reading it will say why
    return not stat.S_ISREG(mode)


def _names_a_picture(out: Path, alone: bool) -> bool:
    """Whether the output is no folder; `alone` is true if there is one input, which is none."""
    suffix = out.suffix.lower()
    if suffix not in (*SUFFIXES, *UNREAD, *VIDEO) or (not isinstance(out, StorePath) and out.is_dir()):
        return False
    if suffix in WRITTEN or suffix in WRITTEN_FILMS:
        return True
    if alone:
        written = ", ".join(sorted(WRITTEN_FILMS if suffix in VIDEO else WRITTEN))
        raise UsageError(f"{printable(out)}: {suffix} is not written; written are {written}")
    return False


def _renamed(jobs: Sequence[Job], alone: bool, out: Path, format: str | None) -> Job:
    if len(jobs) != 1 or not alone:
        raise UsageError(f"{printable(out)} names one picture; several inputs need a folder")
    if format is not None and WRITTEN[f".{format}"] != WRITTEN.get(out.suffix.lower()):
        raise UsageError(f"{printable(out)} and --format {format} contradict each other")
    return replace(jobs[0], target_text=str(out), film=_makes_a_film(jobs[0].source, out))


def _makes_a_film(source: Path, out: Path) -> bool:
    """Whether a film is to be made of `source`. Raises `UsageError` where the one is a film and the other cannot be."""
    before, after = source.suffix.lower(), out.suffix.lower()
    moves = before in VIDEO or (before in ANIMATED and _moves(source))
    if before in VIDEO and after not in WRITTEN_FILMS:
        raise UsageError(
            f"{printable(out)}: one picture cannot hold a film; films are written as {', '.join(sorted(WRITTEN_FILMS))}"
        )
    if before in SUFFIXES - ANIMATED and after == ".gif":
        raise UsageError(f"{printable(out)}: .gif is not written; written are {', '.join(sorted(WRITTEN))}")
    if before in SUFFIXES - ANIMATED and after in VIDEO:
        raise UsageError(f"{printable(source)} is a picture, and {printable(out)} would be a film")
    return after in WRITTEN_FILMS and (moves or after not in WRITTEN)


def _moves(source: Path) -> bool:
    return bool(stores.moving([source])) if isinstance(source, StorePath) else is_animated(source)


def _in_place(jobs: Sequence[Job]) -> list[Job]:
    """Each file once, behind its links, for a link would be replaced and not its file."""
    files: dict[str, Job] = {}
    folders: dict[str, str] = {}
    for job in jobs:
        folder, name = os.path.split(job.source_text)
        if folder not in folders:
            folders[folder] = prefix_of(real(as_path(folder)))
        path = folders[folder] + name
        if os.path.islink(path):  # noqa: PTH114
            path = os.path.realpath(path)
        ending = suffix_of(path)
        written = written_film_suffix(ending) if job.film else written_suffix(ending)
        if written != ending:
            job = replace(job, refused="this format cannot be written; without --in-place it becomes another")
        files.setdefault(path, replace(job, source_text=path, target_text=path))
    return list(files.values())


def _shard(jobs: list[Job], options: FolderOptions) -> list[Job]:
    number, parts = options.part()
    if options.shard_by == "index":
        return jobs[number::parts]
    return [job for job in jobs if _place(job) % parts == number]


def _place(job: Job) -> int:
    return int.from_bytes(
        hashlib.blake2b(os.fsencode(job.name_text.replace(os.sep, "/")), digest_size=8).digest(), "little"
    )


def _existing(all_jobs: Sequence[Job], jobs: Sequence[Job], out: Path, options: FolderOptions) -> set[Job]:
    """The jobs to skip, since their results exist. Raises `UsageError` for targets that are not to be replaced."""
    there: Callable[[str], bool] = _Listed().have
    if isinstance(out, StorePath):
        there = {str(out / name) for name in stores.files(out, kind=OutputError) if stores.is_fit(name)}.__contains__
    existing = [job for job in jobs if not job.refused and there(job.target_text)]
    if not existing:
        return set()
    inputs = {_identity(job.source_text) for job in all_jobs} - {None}
    skipped = set()
    for job in existing:
        identity = _identity(job.target_text)
        if identity is None:  # a link to nothing is there, but it is no result
            continue
        if identity in inputs:
            raise UsageError(f"{printable(job.target)} is an input and would be overwritten; choose another output")
        if not is_url(job.target_text) and os.path.isdir(job.target_text):  # noqa: PTH112
            raise UsageError(f"{printable(job.target)} is a folder where a picture would be written")
        skipped.add(job)
    if not (options.overwrite or options.skip_existing):
        names = listed([printable(job.target) for job in existing])
        exist = "1 output exists" if len(existing) == 1 else f"{len(existing)} outputs exist"
        raise UsageError(f"{exist}; choose --overwrite (replace) or --skip-existing (keep):", *names)
    return skipped if options.skip_existing else set()


class _Listed:
    """Says which paths exist. Lists a folder that is asked about often, for a look at each path costs more."""

    def __init__(self) -> None:
        self._asked: Counter[str] = Counter()
        self._names: dict[str, set[str] | None] = {}

    def have(self, path: str) -> bool:
        folder, name = os.path.split(path)
        self._asked[folder] += 1
        if self._asked[folder] == 1 and not os.path.lexists(folder or os.curdir):
            self._names[folder] = set()
        elif self._asked[folder] == _OFTEN and folder not in self._names:
            self._names[folder] = _names_in(folder)
        names = self._names.get(folder)
        # the file system may fold names, in its own way
        return (names is None or folded(name) in names) and os.path.lexists(path)


def _names_in(folder: str) -> set[str] | None:
    try:
        with os.scandir(folder or os.curdir) as entries:
            return {folded(entry.name) for entry in entries}
    except OSError:
        return None


def _identity(path: str) -> tuple[int, int] | str | None:
    if is_url(path):
        return path
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return status.st_dev, status.st_ino
