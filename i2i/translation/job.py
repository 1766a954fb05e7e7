"""One picture to translate, and all of them."""

from dataclasses import dataclass
from pathlib import Path

from i2i.streams import printable


@dataclass(frozen=True)
class Job:
    """One picture to translate, and where the result goes; `refused` says why it cannot be read, if so.

    `name` is the path within the output folder that it would have had alone, the same on every machine.
    """

    source: Path
    target: Path
    name: Path
    refused: str = ""


@dataclass(frozen=True)
class Plan:
    """The work, in its order: `todo`, `skipped` (their results exist); `other` files were no pictures.

    `found` are all pictures of the inputs, those of other shards too.
    """

    todo: tuple[Job, ...]
    skipped: tuple[Job, ...] = ()
    special: tuple[Job, ...] = ()
    other: int = 0
    found: tuple[Path, ...] = ()


def shown(path: Path) -> str:
    """A path for a message, on one line: control characters and undecodable bytes escaped."""
    return printable(str(path))
