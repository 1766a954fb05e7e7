"""Get, check and shape data sets.

i2i prepare-dataset list
i2i prepare-dataset download horse2zebra
i2i prepare-dataset check datasets/horse2zebra --full
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Interval, Lt

from i2i.commands.options import POSITIONAL
from i2i.config import nearest
from i2i.errors import InputError, SomeFailed, UsageError
from i2i.terminal import say_plain
from i2i.tools.datasets.catalog import SETS, PublicSet, find_set


@dataclass(frozen=True, kw_only=True)
class Options:
    words: Annotated[tuple[Path, ...], POSITIONAL] = ()
    """list | download NAME | check FOLDER | combine A B -o OUT | split FOLDER -o OUT | divide FOLDER -o OUT |
    instances LABELS MAPS -o OUT"""
    out: Path | None = None
    """The folder for the result. Default for download: datasets/NAME."""
    check: Path | None = None
    """The same as `check FOLDER`."""
    full: bool = False
    """check: decode every picture, not just its header; finds hidden damage and near-duplicates."""
    json: bool = False
    """check: print JSON."""
    keep_archive: bool = False
    """download: keep the archive beside the folder."""
    val: Annotated[float, Ge(0), Lt(1)] = 0.1
    """divide: the fraction for val."""
    test: Annotated[float, Ge(0), Lt(1)] = 0.1
    """divide: the fraction for test."""
    seed: Annotated[int, Interval(ge=0, le=2**32 - 1)] = 0
    """divide: the seed of the random division."""
    domain: Literal["A", "B"] | None = None
    """divide: the pictures are domain A or B of an unpaired set (trainA/, testA/, ...)."""
    link: bool = False
    """divide: symbolic links instead of copies."""
    overwrite: bool = False
    """combine, split, divide, instances: replace outputs that exist."""
    skip_existing: bool = False
    """combine, split, divide, instances: write only missing outputs."""


_WRITES = {"out", "overwrite", "skip_existing"}
_OPTIONS = {
    "list": set(),
    "download": {"out", "keep_archive"},
    "check": {"full", "json"},
    "combine": _WRITES,
    "split": _WRITES,
    "divide": _WRITES | {"val", "test", "seed", "domain", "link"},
    "instances": _WRITES,
}
_PLACES = {
    "list": (),
    "download": ("NAME",),
    "check": ("FOLDER",),
    "combine": ("A", "B"),
    "instances": ("LABELS", "MAPS"),
}


def main(options: Options) -> int:
    verb, places = _command(options)
    if verb == "list":
        return _list()
    if verb == "download":
        return _download(find_set(places[0]), options)
    if verb == "check":
        return _check(Path(places[0]), options)
    return _write(verb, [Path(place) for place in places], options)


def _command(options: Options) -> tuple[str, tuple[str, ...]]:
    words = [str(word) for word in options.words]
    if options.check is not None:
        words = ["check", str(options.check), *words]
    if not words:
        raise UsageError(f"expected one of {', '.join(_OPTIONS)} (see --help)")
    verb, *places = words
    if verb not in _OPTIONS:
        raise UsageError(f"{verb}: unknown.{nearest(verb, _OPTIONS)} Expected one of {', '.join(_OPTIONS)}.")
    wanted = _PLACES.get(verb, ("FOLDER",))
    if len(places) != len(wanted):
        raise UsageError(f"expected: i2i prepare-dataset {' '.join((verb, *wanted))}, found {' '.join(words)}")
    for field in fields(options):
        given = getattr(options, field.name) != field.default
        if given and field.name not in _OPTIONS[verb] | {"words", "check"}:
            raise UsageError(f"--{field.name.replace('_', '-')} does not belong to {verb}")
    return verb, tuple(places)


def _list() -> int:
    for entry in SETS:
        print(f"{entry.name:32} {entry.layout:13} {entry.shown_size if entry.urls else 'not fetched'}")
    return 0


def _described(entry: PublicSet) -> list[str]:
    counts = ", ".join(f"{folder} {count:,}" for folder, count in entry.counts.items()) or "unknown"
    return [
        f"{entry.name}: {' / '.join(entry.domains)} ({entry.layout})",
        f"  from      {entry.urls[0]}",
        f"  size      {entry.shown_size}",
        f"  pictures  {counts}",
        f"  licence   {entry.licence}",
        f"  paper     {entry.paper}",
        f"  SHA-256   {entry.sha256 or 'not known beforehand, recorded'}",
    ]


def _download(entry: PublicSet, options: Options) -> int:
    from i2i.tools.datasets.fetch import fetch
    from i2i.tools.datasets.inspect import inspect
    from i2i.tools.datasets.report import as_text

    target = options.out or Path("datasets") / entry.folder
    if entry.urls:
        for line in (*_described(entry), f"  to        {target}"):
            say_plain(line)
    with _progress() as progress:
        fetched = fetch(entry, target, keep_archive=options.keep_archive, progress=progress)
    left_out = f", {fetched.unpacked.left_out:,} other files left out" if fetched.unpacked.left_out else ""
    say_plain(f"{fetched.unpacked.pictures:,} pictures{left_out}; SHA-256 of the archive {fetched.sha256}")
    report = inspect(target)
    print(as_text(report))
    return 3 if report.damaged else 0


def _check(data: Path, options: Options) -> int:
    from i2i.tools.datasets.inspect import inspect
    from i2i.tools.datasets.report import as_json, as_text

    report = inspect(data, options.full)
    print(as_json(report) if options.json else as_text(report), flush=True)
    if report.exit_code == 4:
        raise InputError(f"{data}: {'; '.join(report.problems)}")
    return report.exit_code


def _write(verb: str, places: list[Path], options: Options) -> int:
    from i2i.tools.datasets.instances import add_instances
    from i2i.tools.datasets.shape import combine, separate, split_dataset

    if options.out is None:
        raise UsageError(f"{verb}: expected --out FOLDER")
    again = {"overwrite": options.overwrite, "skip_existing": options.skip_existing}
    if verb == "combine":
        outcome = combine(places[0], places[1], options.out, **again)
    elif verb == "split":
        outcome = separate(places[0], options.out, **again)
    elif verb == "instances":
        outcome = add_instances(places[0], places[1], options.out, **again)
    else:
        outcome = split_dataset(
            places[0],
            options.out,
            val=options.val,
            test=options.test,
            seed=options.seed,
            domain=options.domain,
            link=options.link,
            **again,
        )
    for path, reason in outcome.failed:
        say_plain(f"{path}: {reason}")
    say_plain(f"{outcome.done:,} written, {outcome.skipped:,} skipped, {len(outcome.failed):,} failed")
    if outcome.failed:
        raise SomeFailed(f"{len(outcome.failed):,} pictures failed; the others are done")
    return 0


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int, int | None], None] | None]:
    if not sys.stderr.isatty():
        yield None
        return
    from rich import progress as bars
    from rich.console import Console

    columns = (bars.BarColumn(), bars.DownloadColumn(), bars.TransferSpeedColumn(), bars.TimeRemainingColumn())
    with bars.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
