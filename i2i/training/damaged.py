"""Damaged pictures in place of which the next one was used: each named once, all counted at the end."""

from i2i.training.distributed import Processes
from i2i.training.logger import RunLog


class Damaged:
    def __init__(self, log: RunLog, processes: Processes) -> None:
        self.log, self.processes = log, processes
        self.names: set[str] = set()

    def tell(self, step: int, names: tuple[str, ...]) -> None:
        """Name those that are new."""
        for name in names:
            if name not in self.names:
                self.names.add(name)
                self.log.event(step, f"cannot be read, the next one is used: {name!r}")

    def count(self, step: int) -> None:
        """Say how many there were, in all processes."""
        names = set().union(*self.processes.gather(self.names))
        if names:
            what = "damaged picture was" if len(names) == 1 else "damaged pictures were"
            self.log.event(step, f"{len(names)} {what} replaced")
