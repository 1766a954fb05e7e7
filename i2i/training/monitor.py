"""Everything that a training shows: its log, sample grids, health, pictures that could not be read, its end."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from torch import nn

from i2i.algorithms.algorithm import AnyAlgorithm
from i2i.data.folders import listed
from i2i.data.options import MAX_DAMAGED
from i2i.data.pair import Datasets
from i2i.errors import InputError, OutputError
from i2i.training.distributed import ProcessGroup
from i2i.training.health import HealthMonitor
from i2i.training.log import RunLog
from i2i.training.options import RunOptions
from i2i.training.run_folder import Changes, RunFolder, next_commands
from i2i.training.samples import Row, SampleGrid, grid, layout, palettes_of, save_grid
from i2i.training.schedule import Progress
from i2i.training.step import LossKinds

LISTED = 10
"""Pictures that the end of a run names."""


class SkippedImages:
    """Pictures that could not be read, in place of which the next one was used: each named once, all at the end.

    They are those that this process met, and all that were met before a resume, of `total` pictures or pairs.

    They are kept by their places within the data sets, which may be elsewhere when a run is resumed: `roots` has the
    folder or table of each, by its option.
    """

    def __init__(self, log: RunLog, group: ProcessGroup, total: int, roots: Mapping[str, Path]) -> None:
        self.log, self.group, self.total = log, group, total
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

    def report(self, step: int, names: Iterable[str]) -> None:
        """Name new ones; those of other processes are named at the end. Raises as `check` does."""
        for name in names:
            if (place := self._place(name)) not in self.places:
                self.places.add(place)
                self.log.event(step, f"cannot be read, the next one is used: {name!r}")
                self.check(())

    def report_all(self, step: int) -> None:
        """Say how many there were in all processes, and which."""
        if names := sorted(map(self._name, self.state())):
            what = "damaged picture was" if len(names) == 1 else "damaged pictures were"
            listed = ", ".join(map(repr, names[:LISTED])) + (", …" if len(names) > LISTED else "")
            self.log.event(step, f"{len(names)} {what} replaced: {listed}")

    def state(self) -> list[str]:
        """The places of all processes, in the first one."""
        return sorted(set().union(*self.group.gather(self.places)))

    def load_state(self, places: list[str]) -> None:
        self.places = set(places)


def _start(root: Path) -> str:
    """How the names of the pictures of a data set begin."""
    folder = root if root.is_dir() else root.parent
    return "" if folder == Path() else f"{folder}/".replace("//", "/")


class Monitor:
    """Follows a training in the run folder. All processes call it alike; the first one writes and speaks."""

    def __init__(
        self,
        algorithm: AnyAlgorithm,
        data: Datasets,
        options: RunOptions,
        folder: RunFolder,
        progress: Progress,
        kinds: LossKinds,
        group: ProcessGroup,
    ) -> None:
        self.algorithm, self.options, self.folder = algorithm, options, folder
        self.progress, self.group = progress, group
        self.log = RunLog(folder.path, progress.total_images, options.log_every, quiet=not group.first)
        roots = {name: root for name in ("data", "paired_data") if (root := getattr(options, name))}
        self.skipped = SkippedImages(self.log, group, data.count, roots)
        self.samples = SampleGrid(algorithm, data, group.device, palettes_of(options), self.report_skipped)
        self.health = HealthMonitor(algorithm, kinds, data.train, options, self.log, group)

    def started(self, validate_again: bool, notes: list[str], changes: Changes) -> None:
        """Open the log and describe the run; `notes`: what a resume found, `changes`: of options since then."""
        step = self.progress.step
        self.log.open(step, validate_again)
        self.folder.describe(self.options, str(self.group.device))
        self.folder.status("running", step, None)
        changed = [f"{option} was {before}, is now {now}" for option, (before, now) in changes.items()]
        for text in (*notes[:1], *changed, *notes[1:]):
            self.log.event(step, text)

    def report_skipped(self, names: Sequence[str]) -> None:
        """Name pictures that could not be read. Raises `InputError` when there are too many."""
        self.skipped.report(self.progress.step, names)

    def flush(self) -> None:
        """Fetch the losses from the device, log them and look at them."""
        values = self.log.fetch()
        if values is not None:
            self.group.average_([values])
        if lines := self.log.flush(values):
            self.health.steps(lines)
            self.log.show(lines[-1])

    def rows(self, networks: Mapping[str, nn.Module]) -> list[Row]:
        """The rows of a sample grid."""
        return self.samples.rows(networks, self.options.samples)

    def look(self, rows: list[Row], with_grid: bool, in_longer_run: bool) -> None:
        """Write a sample grid of these rows, if `with_grid`; look for what is wrong in them, unless a longer run would
        not look here."""
        step = self.progress.step
        if in_longer_run:
            self.health.look(step, rows)
        if not with_grid:
            return
        picture = grid(rows)
        try:
            self.folder.record_columns(layout(rows))
            save_grid(self.folder.sample_grid(step), picture)
        except (OutputError, OSError) as error:
            self.log.event(step, f"no sample grid: {error}")
        self.log.grid(step, picture)

    def summary(self) -> None:
        """Say which pictures could not be read, and what was wrong."""
        self.skipped.report_all(self.progress.step)
        self.health.summary(self.progress.step)

    def ended(self, reason: str, never_above_floor: str) -> None:
        """Say how the run ended, where its samples are and how to use it; `reason`: why it was stopped early."""
        step, folder = self.progress.step, self.folder
        trained = step > self.progress.began
        if never_above_floor and trained:
            self.log.event(step, never_above_floor)
        if not reason:
            folder.status("finished", step, 0)
            nothing = "" if trained else f"; nothing was left to do: {self.progress.why_finished()}"
            self.log.say(f"finished after {step} steps: {folder.path}{nothing}")
        else:
            folder.status("stopped", step, 0, reason)
            if trained:
                self.log.event(step, f"stopped after {step} steps: {reason}: {folder.path}")
            else:
                again = "To go on, change --stop-when or --stop-patience"
                self.log.say(f"stopped already, after {step} steps: {reason}: {folder.path}. {again}")
        for text in next_commands(folder, self.algorithm.from_noise, "generator" in self.options.own):
            self.log.say(text)
