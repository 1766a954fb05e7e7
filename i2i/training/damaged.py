"""Damaged pictures in place of which the next one was used: each named once, all named and counted at the end."""

from collections.abc import Iterable

from i2i.data.folders import listed
from i2i.data.options import MAX_DAMAGED
from i2i.errors import InputError
from i2i.training.distributed import Processes
from i2i.training.logger import RunLog

LISTED = 10


class Damaged:
    """The names that this process met, and all that were met before it was resumed, of `total` pictures or pairs."""

    def __init__(self, log: RunLog, processes: Processes, total: int) -> None:
        self.log, self.processes, self.total = log, processes, total
        self.names: set[str] = set()

    def check(self, names: Iterable[str]) -> None:
        """Raises `InputError` if there are more, with those that were just met, than may be left out."""
        found = sorted(self.names.union(names))
        if len(found) > MAX_DAMAGED * self.total:
            raise InputError(
                f"{len(found)} of {self.total} pictures cannot be read, more than the {MAX_DAMAGED:.0%} that may be "
                "left out (by --on-bad skip):",
                *listed(found),
            )

    def tell(self, step: int, names: Iterable[str]) -> None:
        """Name those that are new; what another process meets is named at the end. Raises as `check` does."""
        for name in names:
            if name not in self.names:
                self.names.add(name)
                self.log.event(step, f"cannot be read, the next one is used: {name!r}")
                self.check(())

    def count(self, step: int) -> None:
        """Say how many there were in all processes, and which."""
        if names := self.state():
            what = "damaged picture was" if len(names) == 1 else "damaged pictures were"
            listed = ", ".join(map(repr, names[:LISTED])) + (", …" if len(names) > LISTED else "")
            self.log.event(step, f"{len(names)} {what} replaced: {listed}")

    def state(self) -> list[str]:
        """The names of all processes, in the first one."""
        return sorted(set().union(*self.processes.gather(self.names)))

    def load_state(self, names: list[str]) -> None:
        self.names = set(names)
