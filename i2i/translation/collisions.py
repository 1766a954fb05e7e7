"""Outputs that would be one file: found before any work, refused or named apart."""

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from i2i.config import real
from i2i.data.folders import listed
from i2i.errors import UsageError
from i2i.translation.job import Job, shown


def _keys(jobs: Sequence[Job]) -> list[str]:
    """What makes targets one file: links in the output folder, and on many systems case and Unicode forms."""
    parents = {parent: real(parent) for parent in {job.target.parent for job in jobs}}
    paths = (str(parents[job.target.parent] / job.target.name) for job in jobs)
    return [unicodedata.normalize("NFC", path).casefold() for path in paths]


def _clashing(jobs: Sequence[Job]) -> list[Job]:
    jobs = [job for job in jobs if not job.refused]
    keys = _keys(jobs)
    counts = Counter(keys)
    # what is a folder for one result cannot be another result
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
        pairs = listed([f"{shown(job.source)} → {shown(job.target)}" for job in clashing])
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
    digest = hashlib.blake2b(os.fsencode(path), digest_size=4).hexdigest()
    return replace(job, target=job.target.with_name(f"{job.target.stem}_{digest}{job.target.suffix}"))
