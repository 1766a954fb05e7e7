"""Which picture is translated by which style, and what the copies are called.

What an augmentation will write: found, checked and named before anything is done."""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from i2i.data.folders import LeftOut, listed
from i2i.errors import InputError, UsageError
from i2i.folders.plan import Job, shown
from i2i.images import written_suffix
from i2i.models import styles
from i2i.models.info import DIRECTIONS
from i2i.models.styles import MODEL_SUFFIXES, STYLE_NAME
from i2i.tools.datasets.outputs import check_outputs, check_place
from i2i.tools.labelled.find import check, described, files_in, find, of_split, refuse, some
from i2i.tools.labelled.layout import Copies, Item, Layout
from i2i.tools.labelled.options import AugmentOptions


@dataclass(frozen=True)
class Copy:
    """A translation of a picture: by which style (its number), and what it and its labels are called."""

    item: Item
    style: int
    picture: Path
    labels: tuple[Path, ...]


def names_of(styles: Sequence[str], given: str) -> list[str]:
    """What the copies of each style are called. Raises `UsageError`."""
    names = [name.strip() for name in given.split(",")] if given else [_name(style) for style in styles]
    if len(names) != len(styles):
        raise UsageError(f"names = {given!r}: expected one for each of {len(styles)} styles, with commas between")
    for name in names:
        if not STYLE_NAME.fullmatch(name):
            raise UsageError(f"{name!r} cannot be a part of file names; choose another with --names")
    if twice := [name for name, count in Counter(name.lower() for name in names).items() if count > 1]:
        raise UsageError(f"several styles have the name {twice[0]!r}; choose others with --names a,b,...")
    return names


def _name(style: str) -> str:
    """`runs/monet`, `runs/monet/b2a.safetensors`, `hub:me/monet@main` and `monet` are all called monet."""
    path = Path(style.removeprefix("hub:").partition("@")[0] if style.startswith("hub:") else style)
    if path.suffix not in MODEL_SUFFIXES:
        return path.name or path.absolute().name
    return path.absolute().parent.name if path.stem in DIRECTIONS else path.stem


def choose(items: Sequence[Item], names: Sequence[str], options: AugmentOptions) -> list[Copy]:
    """The copies, style by style; what is drawn for a picture follows from the seed and its path."""
    count = max(1, round(options.fraction * len(items)))
    drawn = set(sorted(items, key=lambda item: _draw(options.seed, item, ""))[:count])
    styles = range(len(names))
    found = []
    for item in items:
        if item in drawn:
            ranked = sorted(styles, key=lambda style: _draw(options.seed, item, names[style]))
            found += [_copy(item, style, names[style]) for style in ranked[: options.copies]]
    return sorted(found, key=lambda copy: copy.style)


def _draw(seed: int, item: Item, name: str) -> bytes:
    return hashlib.blake2b(b"\0".join((str(seed).encode(), name.encode(), os.fsencode(item.picture)))).digest()


def _copy(item: Item, style: int, name: str) -> Copy:
    def renamed(path: Path, suffix: str) -> Path:
        return path.with_name(f"{path.stem}_{name}{suffix}")

    picture = renamed(item.picture, written_suffix(item.picture.suffix))
    return Copy(item, style, picture, tuple(renamed(label, label.suffix) for label in item.labels))


@dataclass(frozen=True)
class Plan:
    """`originals` are files to be copied as they are, `kept` the pictures among them; all relative.

    `problems` are the labels and pictures that are left out.
    """

    layout: Layout
    out: Path
    originals: tuple[Path, ...]
    kept: frozenset[Path]
    copies: tuple[Copy, ...]
    problems: dict[Path, str]
    passed: tuple[str, ...] = ()
    """What was not looked at, such as folders behind links."""

    def job(self, copy: Copy) -> Job:
        return Job(self.layout.folder / copy.item.picture, self.out / copy.picture, copy.picture)

    def outputs(self) -> list[Path]:
        relative = [*self.originals, *self.layout.lists]
        relative += [path for copy in self.copies for path in (copy.picture, *copy.labels)]
        return [self.out / path for path in relative]

    @property
    def summary(self) -> str:
        """What was found and what will come of it, in a line."""
        originals = f"{len(self.originals):,} files as they are" if self.originals else "no originals"
        return f"{self.layout.summary}; {len(self.copies):,} translated copies, {originals}"

    @property
    def notices(self) -> tuple[str, ...]:
        """What is left out, the first ten of it."""
        left_out = f"{len(self.problems)} labels or pictures do not match and are left out:"
        return (*self.passed, *((left_out, *some(self.problems)) if self.problems else ()))


def plan(folder: Path, out: Path, names: Sequence[str], options: AugmentOptions) -> Plan:
    """The plan for copies of these names. Reads labels and the headers of pictures.

    Raises `InputError` if there are no labels, or some do not match (unless `on_bad` is skip); `UsageError` for
    outputs that exist without `overwrite` or `skip_existing`, or that have the name of an input or of one another.
    """
    check_place(out, (folder,))
    left_out = LeftOut(folder)
    files = files_in(folder, left_out)
    layout = find(folder, options.layout, files)
    problems = check(layout)
    if options.on_bad == "error":
        refuse(problems, folder)
    good = [item for item in layout.items if item.picture not in problems]
    if not good:
        raise InputError(f"{shown(folder)}: none of its pictures has labels that match:", *listed(described(problems)))
    copies = tuple(choose(of_split(layout, good, options.split), names, options))
    bad = set(problems) | {label for item in layout.items if item.picture in problems for label in item.labels}
    bad -= {label for item in good for label in item.labels}
    originals = () if options.copies_only else tuple(f for f in files if f not in bad and f not in layout.lists)
    kept = frozenset() if options.copies_only else frozenset(item.picture for item in good)
    made = Plan(layout, out, originals, kept, copies, problems, tuple(left_out.lines))
    check_outputs(made.outputs(), [folder / path for path in files], options.overwrite, options.skip_existing)
    return made


def listed_copies(copies: Sequence[Copy]) -> Copies:
    """The copies of each picture."""
    found: dict[Path, list[Path]] = {}
    for copy in copies:
        found.setdefault(copy.item.picture, []).append(copy.picture)
    return found


def checked_styles(names: Sequence[str], options: AugmentOptions) -> list[str]:
    """What the copies of each style are called, after a look for the styles that can be had without a download."""
    if not names:
        raise UsageError("expected at least one style")
    options.check(len(names))
    called = names_of(names, options.names)
    for style in names:
        if not style.startswith("hub:") and not options.download:  # those are looked for when they are loaded
            styles.find(style, options.direction)
    return called
