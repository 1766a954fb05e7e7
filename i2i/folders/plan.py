"""The plan of a folder's translation: jobs, named and checked before any work, from names alone.

Two results that would be one file are refused or named apart.
"""

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

from i2i.data.folders import listed
from i2i.data.walking import identity, prefix_of, suffix_of
from i2i.errors import ImageError, InputError, OutputError, UsageError, as_typed
from i2i.films import ANIMATED, NEEDS_PYAV, VIDEO, WRITTEN_VIDEO, has_pyav, is_animated, is_video
from i2i.films import WRITTEN as WRITTEN_FILMS
from i2i.films import written_suffix as written_film_suffix
from i2i.folders import stores
from i2i.folders.clusters import parse_address
from i2i.folders.jobs import Found, Job, MaskFiles, moving
from i2i.images import LOSSY, SUFFIXES, UNREAD, WRITTEN, written_suffix
from i2i.inference.options import FolderOptions
from i2i.terminal import counted, printable
from i2i.urls import StorePath, as_path, is_url, place_of, real


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
_OFTEN = 32


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
        in_place = as_typed("in_place", True)
        raise UsageError(f"{wrong}; give {as_typed('out', 'OUT')}, or {in_place} to replace the inputs")
    masks = MaskFiles(options.mask)
    found = Found(options, Path() if out is None else place_of(out), masks)
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
    _check_used(jobs, options, has_others=found.films > 0)
    if not options.in_place:
        jobs = without_collisions(jobs, options.on_collision)
    lacking = (job.source for job in jobs if job.film and (is_video(job.source) or is_video(job.target)))
    if not has_pyav() and (first := next(lacking, None)):
        raise UsageError(f"{printable(first)}: {NEEDS_PYAV}")
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


def _check_used(jobs: Sequence[Job], options: FolderOptions, has_others: bool) -> None:
    """Raises `UsageError` for an option that changes no result, because it is for films alone or for pictures alone.

    A quality without a format is for the results that have one. `has_others`: some films have no job, for want of PyAV.
    """
    if not (options.smooth or options.format):
        return
    results = {(job.film, suffix_of(job.target_text).lower()) for job in jobs}
    pictures, films = ({suffix for film, suffix in results if film == kind} for kind in (False, True))
    has_quality = any(suffix in WRITTEN_VIDEO or WRITTEN.get(suffix) in LOSSY for suffix in pictures | films)
    unused = {
        f"smooth = {options.smooth:g}: is for films, and no result is one": options.smooth
        and not (films or has_others),
        f"format = {options.format!r}: is for pictures, and all results are films": options.format
        and not (pictures or f".{options.format}" in films),
        f"quality = {options.quality}: no result has one ({', '.join(sorted(pictures | films))})": options.quality
        and options.format
        and not (has_quality or has_others),
    }
    if reason := next((reason for reason, holds in unused.items() if holds), ""):
        raise UsageError(f"{reason}; leave it out")


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
    """The one job with its result at `out`, a film where the input is one or has to be."""
    if len(jobs) != 1 or not alone:
        raise UsageError(f"{printable(out)} names one picture; several inputs need a folder")
    if format is not None and WRITTEN[f".{format}"] != WRITTEN.get(out.suffix.lower()):
        raise UsageError(f"{printable(out)} and {as_typed('format', format)} contradict each other")
    job, before, after = jobs[0], jobs[0].source.suffix.lower(), out.suffix.lower()
    is_still = before in SUFFIXES - ANIMATED
    if before in VIDEO and after not in WRITTEN_FILMS:
        raise UsageError(
            f"{printable(out)}: one picture cannot hold a film; films are written as {', '.join(sorted(WRITTEN_FILMS))}"
        )
    if is_still and after == ".gif":
        raise UsageError(f"{printable(out)}: .gif is not written; written are {', '.join(sorted(WRITTEN))}")
    if is_still and after in VIDEO:
        raise UsageError(f"{printable(job.source)} is a picture, and {printable(out)} would be a film")
    moves = job.film or (before in ANIMATED and _moves(job.source))
    return replace(job, target_text=str(out), film=after in WRITTEN_FILMS and (moves or after not in WRITTEN))


def _moves(source: Path) -> bool:
    return bool(moving([source])) if isinstance(source, StorePath) else is_animated(source)


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
            reason = f"this format cannot be written; without {as_typed('in_place')} it becomes another"
            job = replace(job, refused=reason)
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


def _folded(text: str) -> str:
    """A text that is equal for names that some file systems take for one: of other case or Unicode form."""
    return unicodedata.normalize("NFC", text).casefold()


def _keys(jobs: Sequence[Job]) -> tuple[list[str], set[str]]:
    """A key for each target, equal for targets that are one file: folders resolved, case and Unicode forms folded.

    In a store, names that differ at all are different files. Also the keys of all folders above them.
    """
    folders: dict[str, str] = {}
    keys = []
    for job in jobs:
        folder, name = os.path.split(job.target_text)
        stored = is_url(folder)
        if folder not in folders:
            folders[folder] = f"{folder}/" if stored else _folded(prefix_of(real(Path(folder))))
        keys.append(folders[folder] + (name if stored else _folded(name)))
    above: set[str] = set()
    for key in folders.values():
        while (key := os.path.dirname(key)) not in above:  # noqa: PTH120
            above.add(key)
    return keys, above


def _clashing(jobs: Sequence[Job]) -> list[Job]:
    jobs = [job for job in jobs if not job.refused]
    keys, folders = _keys(jobs)
    counts = Counter(keys)
    # a path cannot be the folder of one result and another result
    counts.update(folder for folder in folders if folder in counts)
    clashing = [(key, job.source_text, job) for key, job in zip(keys, jobs, strict=True) if counts[key] > 1]
    return [job for *_, job in sorted(clashing, key=lambda entry: entry[:2])]


def without_collisions(jobs: list[Job], policy: str) -> list[Job]:
    """`jobs` with a path of its own each. Raises `UsageError` with those that share one, unless `policy` is suffix."""
    clashing = _clashing(jobs)
    for attempt in range(3) if policy == "suffix" else ():
        alike = set(clashing)
        jobs = [_named_apart(job, attempt) if job in alike else job for job in jobs]
        clashing = _clashing(jobs) if clashing else []
    if clashing:
        pairs = listed([f"{printable(job.source)} → {printable(job.target)}" for job in clashing])
        hint = [] if policy == "suffix" else [f"Use {as_typed('on_collision', 'suffix')} to name them apart."]
        raise UsageError(f"{len(clashing)} inputs share their output paths:", *pairs, *hint)
    return jobs


def _named_apart(job: Job, attempt: int) -> Job:
    """The job whose result has its old suffix in its name; then a digest of its name, then one of its whole path."""
    source, target = job.source, job.target
    if attempt == 0:
        stem = f"{source.stem}_{source.suffix[1:]}"
    else:
        path = job.name.with_name(source.name) if attempt == 1 else source
        stem = f"{target.stem}_{hashlib.blake2b(os.fsencode(path.as_posix()), digest_size=4).hexdigest()}"
    return replace(job, target_text=str(target.with_name(stem + target.suffix)))


def _existing(all_jobs: Sequence[Job], jobs: Sequence[Job], out: Path, options: FolderOptions) -> set[Job]:
    """The jobs to skip, since their results exist. Raises `UsageError` for targets that are not to be replaced."""
    there = _by_listing()
    if isinstance(out, StorePath):
        there = {str(out / name) for name in stores.files(out, kind=OutputError) if stores.is_fit(name)}.__contains__
    existing = [job for job in jobs if not job.refused and there(job.target_text)]
    if not existing:
        return set()
    inputs = {_file(job.source_text) for job in all_jobs} - {None}
    skipped = set()
    for job in existing:
        found = _file(job.target_text)
        if found is None:  # a link to nothing is there, but it is no result
            continue
        if found in inputs:
            raise UsageError(f"{printable(job.target)} is an input and would be overwritten; choose another output")
        if not is_url(job.target_text) and os.path.isdir(job.target_text):  # noqa: PTH112
            raise UsageError(f"{printable(job.target)} is a folder where a picture would be written")
        skipped.add(job)
    if not (options.overwrite or options.skip_existing):
        names = listed([printable(job.target) for job in existing])
        exist = counted(len(existing), "output exists", "outputs exist")
        ways = f"{as_typed('overwrite', True)} (replace) or {as_typed('skip_existing', True)} (keep)"
        raise UsageError(f"{exist}; choose {ways}:", *names)
    return skipped if options.skip_existing else set()


def _by_listing() -> Callable[[str], bool]:
    """Returns a function that says which paths exist. It lists a folder that is asked about often, once.

    A look at each of many paths may go far; a large folder is not listed for a few. A missing one is looked for once.
    """
    asked: Counter[str] = Counter()
    names: dict[str, set[str]] = {}

    def there(path: str) -> bool:
        folder, name = os.path.split(path)
        asked[folder] += 1
        if asked[folder] == 1 and not os.path.lexists(folder or os.curdir):
            names[folder] = set()
        elif asked[folder] == _OFTEN and folder not in names:
            with suppress(OSError):
                names[folder] = set(map(_folded, os.listdir(folder or os.curdir)))  # noqa: PTH208
        # the file system may fold names, in its own way
        return (folder not in names or _folded(name) in names[folder]) and os.path.lexists(path)

    return there


def _file(path: str) -> tuple[int, int] | str | None:
    return path if is_url(path) else identity(path)
