"""Folders of pictures side by side: pairs by name, then drawn as a contact sheet or a page with sliders."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from i2i.data.folders import find_images, first_lines
from i2i.errors import ImageError, InputError, OutputError, UsageError
from i2i.files import atomic_write
from i2i.images import SUFFIXES, WRITTEN, Picture, encode, read
from i2i.terminal import printable
from i2i.tools.contact_sheet import Row, draw, thumbnail
from i2i.tools.report import page
from i2i.tools.report.markup import escape
from i2i.tools.report.pictures import DRAG, EmbeddedPicture, Pair, comparisons, embed, evenly, in_colour

MARK = b"<!doctype html>\n<!-- i2i compare -->\n"
PAGES = (".html", ".htm")
SHEETS = (".png", ".jpg", ".jpeg")
MAX_ROWS = 24
"""So many rows are shown by default."""

T = TypeVar("T")


@dataclass
class Comparison:
    """The pictures of several folders that belong together.

    `rows` are the name of a picture and its file in each folder, `names` the folders' names. `notices` say what has no
    partner, `failed` what cannot be read.
    """

    names: tuple[str, ...]
    rows: list[tuple[str, tuple[Path, ...]]]
    notices: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def write_comparison(inputs: Sequence[Path], out: Path, most: int = MAX_ROWS, overwrite: bool = False) -> Comparison:
    """Compare folders, or single pictures, in `out`, a picture or a page by its suffix; at most `most` rows of them.

    A picture that cannot be read is left out and stands in `failed`. Raises `UsageError` for inputs of both kinds or
    another suffix, `InputError` if nothing belongs together or nothing of it can be read, `OutputError` for an `out`
    that exists or cannot be written.
    """
    suffix = out.suffix.lower()
    if suffix not in (*SHEETS, *PAGES):
        raise UsageError(f"-o {out}: expected the name of a picture ({', '.join(SHEETS)}) or of a page (.html)")
    if out.exists() and not overwrite:
        raise UsageError(f"{out}: exists; choose another name, or --overwrite")
    found = match(inputs, out)
    if len(found.rows) > most:
        found.notices.insert(0, f"{most} of {len(found.rows)} pictures are shown, evenly chosen; --max shows more")
        found.rows = evenly(found.rows, most)
    data = _page(found) if suffix in PAGES else _sheet(found, suffix)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out.parent}: cannot be made: {error.strerror}") from error
    atomic_write(out, lambda file: file.write(data), replace=overwrite)
    return found


def match(inputs: Sequence[Path], out: Path) -> Comparison:
    """Pictures by relative path without suffix, as pairs of a data set are; or single files in one row."""
    if len(inputs) < 2:
        raise UsageError("expected two folders or two pictures or more: i2i compare BEFORE AFTER -o SHEET.png")
    if missing := [path for path in inputs if not path.exists()]:
        raise InputError(f"{printable(missing[0])}: no such file or folder")
    folders = [path for path in inputs if path.is_dir()]
    if not folders:
        return Comparison(_names(inputs), [(inputs[0].stem, tuple(inputs))])
    if len(folders) < len(inputs):
        raise UsageError(f"{printable(folders[0])} is a folder and another input is a picture; give one kind")
    first, *others = (_Side(folder, [other for other in (*inputs, out) if other != folder]) for folder in folders)
    rows, lonely = [], []
    pairs: set[Path] = set()
    for name, path in first.files.items():
        partners = [other.partner(name) for other in others]
        there = [partner for partner in partners if partner is not None]
        pairs.update(there)
        if len(there) == len(others):
            rows.append((name, (path, *there)))
        else:
            lonely += [f"{path} has no partner in {o.folder}" for o, p in zip(others, partners, strict=True) if not p]
    lonely += [
        f"{path} has no partner in {first.folder}" for o in others for path in o.files.values() if path not in pairs
    ]
    if not rows:
        raise InputError(f"no picture in {printable(first.folder)} has the name of one in the others:", *lonely[:10])
    return Comparison(_names(folders), rows, first_lines(lonely))


class _Side:
    """The pictures of one folder, by relative path and without suffix, but those that lie in `others`."""

    def __init__(self, folder: Path, others: Sequence[Path]) -> None:
        self.folder = folder
        inner = [other for other in map(_real, others) if other.is_relative_to(_real(folder))]
        paths = [p for p in find_images(folder) if not any(_real(p).is_relative_to(other) for other in inner)]
        if not paths:
            raise InputError(
                f"{printable(folder)}: no pictures in this folder (looked for {', '.join(sorted(SUFFIXES))})"
            )
        self.files = {path.relative_to(folder).as_posix(): path for path in paths}
        self._by_stem: dict[str, list[Path]] = {}
        for name, path in self.files.items():
            self._by_stem.setdefault(_stem(name), []).append(path)

    def partner(self, name: str) -> Path | None:
        """The picture of that name here; of another suffix if there is one alone."""
        alike = self._by_stem.get(_stem(name), [])
        return self.files.get(name) or (alike[0] if len(alike) == 1 else None)


def _real(path: Path) -> Path:
    """As `Path.resolve`, which raises for a loop of links."""
    return Path(os.path.realpath(path))


def _stem(name: str) -> str:
    return Path(name).with_suffix("").as_posix()


def _names(paths: Sequence[Path]) -> tuple[str, ...]:
    """The last part of each path; the whole paths where two of these are equal."""
    names = [_real(path).name for path in paths]
    return tuple(names if len({*names}) == len(names) else map(str, paths))


def _readable(found: Comparison, made: Callable[[Picture, str], T]) -> Iterator[tuple[str, list[T]]]:
    """Each row's name, and its pictures after `made`; a row that cannot be read goes to `failed`.

    Raises `InputError` if none can be read.
    """
    for name, paths in found.rows:
        row = []
        for path, side in zip(paths, found.names, strict=True):
            try:
                row.append(made(read(path), f"{name}, {side}"))
            except ImageError as error:
                found.failed.append(f"{path}: {error}")
        if len(row) == len(paths):
            yield name, row
    if len(found.failed) >= len(found.rows):
        raise InputError("no pair of pictures can be read:", *first_lines(found.failed))


def _sheet(found: Comparison, suffix: str) -> bytes:
    rows = [Row(name, parts) for name, parts in _readable(found, lambda picture, _: thumbnail(in_colour(picture)))]
    format = WRITTEN[suffix]
    return encode(replace(Picture(draw(found.names, rows)), format=format), format)


def _page(found: Comparison) -> bytes:
    shown = [(name, _pairs(found.names, name, parts)) for name, parts in _readable(found, _embedded)]
    before, *after = map(escape, found.names)
    remark = f"{DRAG} Left of the line: {before}; right of it: {' or '.join(after)}."
    if len(after) == 1:
        sections = [
            comparisons([pair for _, pairs in shown for pair in pairs], "pictures", "Pictures", remark, few=True)
        ]
    else:
        sections = [
            comparisons(pairs, f"picture-{number}", escape(name, 100), remark if number == 1 else "", few=True)
            for number, (name, pairs) in enumerate(shown, 1)
        ]
    notices = [*found.notices, *found.failed]
    return page.build(MARK, "i2i compare", " · ".join(found.names), "", notices, sections)


def _embedded(picture: Picture, label: str) -> EmbeddedPicture:
    return embed(in_colour(picture), label, picture.icc if picture.pixels.shape[2] == 3 else None)


def _pairs(names: Sequence[str], name: str, pictures: Sequence[EmbeddedPicture]) -> list[Pair]:
    """The first picture with each of the others."""
    before, *others = pictures
    titles = [name] if len(others) == 1 else names[1:]
    return [Pair(before, after, title) for after, title in zip(others, titles, strict=True)]
