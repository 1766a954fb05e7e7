"""Damaged pictures in place of which the next one was used: each named once, all named and counted at the end."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from i2i.data.folders import listed
from i2i.data.options import MAX_DAMAGED
from i2i.errors import InputError
from i2i.training.distributed import Processes
from i2i.training.logger import RunLog

LISTED = 10


class Damaged:
    """The names that this process met, and all that were met before it was resumed, of `total` pictures or pairs.

    They are kept by their places within the data sets, which may be elsewhere when a run is resumed: `roots` has the
    folder or table of each, by its option.
    """

    def __init__(self, log: RunLog, processes: Processes, total: int, roots: Mapping[str, Path]) -> None:
        self.log, self.processes, self.total = log, processes, total
        within = {f"//{option}/": _start(root) for option, root in roots.items()}  # no path's text has two slashes
        self._starts = dict(sorted(within.items(), key=lambda item: -len(item[1])))
        self.places: set[str] = set()

    def _place(self, name: str) -> str:
        """The name of a picture, or of the two of a pair, within the data sets."""
        for mark, start in self._starts.items():
            name = re.sub(rf"(^|, ){re.escape(start)}(?!/)", rf"\1{mark}", name)
        return name

    def _name(self, place: str) -> str:
        for mark, start in self._starts.items():
            place = place.replace(mark, start)
        return place

    def check(self, names: Iterable[str]) -> None:
        """Raises `InputError` if there are more, with those that were just met, than may be left out."""
        found = sorted(map(self._name, self.places.union(map(self._place, names))))
        if len(found) > MAX_DAMAGED * self.total:
            raise InputError(
                f"{len(found)} of {self.total} pictures cannot be read, more than the {MAX_DAMAGED:.0%} that may be "
                "left out (by --on-bad skip):",
                *listed(found),
            )

    def tell(self, step: int, names: Iterable[str]) -> None:
        """Name those that are new; what another process meets is named at the end. Raises as `check` does."""
        for name in names:
            if (place := self._place(name)) not in self.places:
                self.places.add(place)
                self.log.event(step, f"cannot be read, the next one is used: {name!r}")
                self.check(())

    def count(self, step: int) -> None:
        """Say how many there were in all processes, and which."""
        if names := sorted(map(self._name, self.state())):
            what = "damaged picture was" if len(names) == 1 else "damaged pictures were"
            listed = ", ".join(map(repr, names[:LISTED])) + (", …" if len(names) > LISTED else "")
            self.log.event(step, f"{len(names)} {what} replaced: {listed}")

    def state(self) -> list[str]:
        """The places of all processes, in the first one."""
        return sorted(set().union(*self.processes.gather(self.places)))

    def load_state(self, places: list[str]) -> None:
        self.places = set(map(self._place, places))  # an older i2i kept names


def _start(root: Path) -> str:
    """How the names of the pictures of a data set begin."""
    folder = root if root.is_dir() else root.parent
    return "" if folder == Path() else f"{folder}/".replace("//", "/")
