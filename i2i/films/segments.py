"""The finished segments of a film that is being made, in a hidden folder beside the result.

Its name is a digest of the input and of everything on which the result depends. So the same work finds its segments
again after a kill, and other work never does.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from i2i.errors import LockedError, OutputError
from i2i.files import atomic_write, locked
from i2i.images import Pixels

State = Mapping[str, Pixels]
"""Arrays from which the next segment goes on."""
_BUSY = "another process is translating this film"
_LOCK = "lock"


class Segments:
    """Segments 0 to `count` - 1 are there, each whole, with the state behind the last one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        while self._segment(self.count).is_file():
            self.count += 1

    @property
    def paths(self) -> list[Path]:
        return [self._segment(number) for number in range(self.count)]

    def state(self) -> dict[str, Pixels]:
        """The state behind the last segment. One that is lost costs all segments."""
        if self.count:
            with contextlib.suppress(OSError, ValueError, EOFError), np.load(self._state(self.count - 1)) as arrays:
                return dict(arrays)
        self.count = 0
        return {}

    def add(self, data: bytes, state: State) -> None:
        """Keeps the next segment, with the state behind it, whole or not at all. Raises `OutputError`."""
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **state)
        # the state first: a segment that is there has its state
        atomic_write(self._state(self.count), lambda out: out.write(file.getvalue()))
        atomic_write(self._segment(self.count), lambda out: out.write(data))
        if self.count:
            self._state(self.count - 1).unlink(missing_ok=True)
        self.count += 1

    def remove(self) -> None:
        """Removes all of them: the film is done, or never will be."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _segment(self, number: int) -> Path:
        return self.folder / f"{number:06}.segment"

    def _state(self, number: int) -> Path:
        return self.folder / f"{number:06}.npz"


@contextmanager
def segments(target: Path, facts: Mapping[str, Any]) -> Iterator[Segments]:
    """The segments of the film at `target` that follows from `facts`; those of the same film by others are removed.

    Raises `LockedError` if another process is at work on them, `OutputError` if the folder cannot be made.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    stem = f".i2i-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:8]}-"
    folder = target.with_name(f"{stem}{digest}.film")
    for other in target.parent.glob(f"{stem}*.film"):
        if other != folder:
            with contextlib.suppress(LockedError, OutputError), locked(other / _LOCK, _BUSY):
                shutil.rmtree(other, ignore_errors=True)
    with locked(folder / _LOCK, _BUSY):
        yield Segments(folder)
    with contextlib.suppress(OSError):
        folder.rmdir()  # if there is nothing in it
