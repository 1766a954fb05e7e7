"""Damaged pictures in place of which the next one was used: each named once, all named and counted at the end."""

from collections.abc import Iterable

from i2i.training.distributed import Processes
from i2i.training.logger import RunLog

LISTED = 10


class Damaged:
    """The names that this process met, and all that were met before it was resumed."""

    def __init__(self, log: RunLog, processes: Processes) -> None:
        self.log, self.processes = log, processes
        self.names: set[str] = set()

    def tell(self, step: int, names: Iterable[str]) -> None:
        """Name those that are new; what another process meets is named at the end."""
        for name in names:
            if name not in self.names:
                self.names.add(name)
                self.log.event(step, f"cannot be read, the next one is used: {name!r}")

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
