"""`prepare-dataset`: get, check and shape data sets."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Interval, Lt

from i2i.commands.options import POSITIONAL
from i2i.errors import InputError, SomeFailed, UsageError, nearest
from i2i.terminal import counted, fetching, say_plain

if TYPE_CHECKING:
    from i2i.tools.datasets.fetch import PublicSet
    from i2i.tools.datasets.shape import Outcome


@dataclass(frozen=True, kw_only=True)
class PrepareDatasetCommand:
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
_VERBS: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "list": ((), set()),
    "download": (("NAME",), {"out", "keep_archive"}),
    "check": (("FOLDER",), {"full", "json"}),
    "combine": (("A", "B"), _WRITES),
    "split": (("FOLDER",), _WRITES),
    "divide": (("FOLDER",), _WRITES | {"val", "test", "seed", "domain", "link"}),
    "instances": (("LABELS", "MAPS"), _WRITES),
}
"""Verb → the words after it, and the options that it takes."""


def prepare_dataset(options: PrepareDatasetCommand) -> int:
    verb, places = _command(options)
    if verb == "list":
        from i2i.tools.datasets.fetch import SETS

        for entry in SETS:
            print(f"{entry.name:32} {entry.layout:13} {entry.shown_size if entry.urls else 'not fetched'}")
        return 0
    if verb == "download":
        return _download(places[0], options)
    if verb == "check":
        return _check(Path(places[0]), options)
    return _write(verb, [Path(place) for place in places], options)


def _command(options: PrepareDatasetCommand) -> tuple[str, list[str]]:
    """The verb, and the words after it. Raises `UsageError` for options that do not belong to it."""
    words = [*(("check", options.check) if options.check is not None else ()), *options.words]
    if not words:
        raise UsageError(f"expected one of {', '.join(_VERBS)} (see --help)")
    verb, *places = map(str, words)
    if verb not in _VERBS:
        raise UsageError(f"{verb}: unknown.{nearest(verb, _VERBS)} Expected one of {', '.join(_VERBS)}.")
    wanted, taken = _VERBS[verb]
    if len(places) != len(wanted):
        found = " ".join((verb, *places))
        raise UsageError(f"expected: i2i prepare-dataset {' '.join((verb, *wanted))}, found {found}")
    for field in fields(options):
        if getattr(options, field.name) != field.default and field.name not in taken | {"words", "check"}:
            raise UsageError(f"--{field.name.replace('_', '-')} does not belong to {verb}")
    return verb, places


def _download(name: str, options: PrepareDatasetCommand) -> int:
    from i2i.tools.datasets.fetch import fetch, find_set
    from i2i.tools.datasets.inspect import as_text, inspect

    entry = find_set(name)
    target = options.out or Path("datasets") / entry.folder
    if entry.urls:
        for line in (*_described(entry), f"  to        {target}"):
            say_plain(line)
    fetched = fetch(entry, target, keep_archive=options.keep_archive, progress=fetching())
    left_out = f", {fetched.left_out:,} other files left out" if fetched.left_out else ""
    say_plain(f"{fetched.pictures:,} pictures{left_out}; SHA-256 of the archive {fetched.sha256}")
    report = inspect(target)
    print(as_text(report))
    return 3 if report.damaged else 0


def _described(entry: "PublicSet") -> list[str]:
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


def _check(data: Path, options: PrepareDatasetCommand) -> int:
    from i2i.tools.datasets.inspect import as_json, as_text, inspect

    report = inspect(data, options.full)
    print(as_json(report) if options.json else as_text(report), flush=True)
    if report.exit_code == 4:
        raise InputError(f"{data}: {'; '.join(report.problems)}")
    return report.exit_code


def _write(verb: str, places: list[Path], options: PrepareDatasetCommand) -> int:
    from i2i.tools.datasets.pairs import add_instances, combine, separate
    from i2i.tools.datasets.shape import split_dataset

    if options.out is None:
        raise UsageError(f"{verb}: expected --out FOLDER")
    ways: dict[str, Callable[..., Outcome]]
    ways = {"combine": combine, "split": separate, "instances": add_instances, "divide": split_dataset}
    more = {name: getattr(options, name) for name in _VERBS[verb][1] - {"out"}}
    outcome = ways[verb](*places, options.out, **more)
    for path, reason in outcome.failed:
        say_plain(f"{path}: {reason}")
    say_plain(f"{outcome.done:,} written, {outcome.skipped:,} skipped, {len(outcome.failed):,} failed")
    if outcome.failed:
        raise SomeFailed(f"{counted(len(outcome.failed), 'picture', 'pictures')} failed; the others are done")
    return 0
