"""The jobs of a plan, and paths for their results of which no two are one file."""

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from i2i.config import real
from i2i.data.folders import listed
from i2i.data.walking import prefix_of
from i2i.errors import UsageError
from i2i.terminal import printable
from i2i.urls import as_path, is_url


@dataclass(frozen=True, slots=True)
class SourceAndTarget:
    """Two paths, of this machine or in a store. They are kept as texts: there may be a million."""

    source_text: str
    target_text: str

    @property
    def source(self) -> Path:
        return as_path(self.source_text)

    @property
    def target(self) -> Path:
        return as_path(self.target_text)


@dataclass(frozen=True, slots=True)
class Job(SourceAndTarget):
    """One picture or `film` to translate, and where the result goes; `refused` says why it cannot be read, if so.

    `name` is the path within the output folder that it would have had alone, the same on every machine. `mask` is the
    file of its mask, if it has one.
    """

    name_text: str
    refused: str = ""
    film: bool = False
    mask_text: str = ""

    @property
    def name(self) -> Path:
        return Path(self.name_text)

    @property
    def mask(self) -> Path | None:
        return as_path(self.mask_text) if self.mask_text else None


def folded(text: str) -> str:
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
            folders[folder] = f"{folder}/" if stored else folded(prefix_of(real(Path(folder))))
        keys.append(folders[folder] + (name if stored else folded(name)))
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
        hint = [] if policy == "suffix" else ["Use --on-collision suffix to name them apart."]
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
