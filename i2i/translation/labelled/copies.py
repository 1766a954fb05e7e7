"""Which picture is translated by which style, and what the copies are called."""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from i2i.errors import UsageError
from i2i.images import written_suffix
from i2i.translation.installed import MODEL_SUFFIXES, STYLE_NAME
from i2i.translation.labelled.layout import Item
from i2i.translation.labelled.options import AugmentOptions
from i2i.translation.model_info import DIRECTIONS


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
