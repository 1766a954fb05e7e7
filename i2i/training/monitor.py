"""Everything that a training shows: its log, sample grids, health, pictures that could not be read, its end."""

from collections.abc import Mapping, Sequence

from torch import nn

from i2i.algorithms.algorithm import AnyAlgorithm
from i2i.data.pair import Datasets
from i2i.errors import OutputError
from i2i.training.data_identity import SkippedImages
from i2i.training.distributed import ProcessGroup
from i2i.training.health import HealthMonitor
from i2i.training.log import RunLog
from i2i.training.options import RunOptions
from i2i.training.run_folder import Changes, RunFolder, next_commands
from i2i.training.samples import Row, SampleGrid, grid, layout, palettes_of, save_grid
from i2i.training.schedule import Progress
from i2i.training.step import LossKinds


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
        self.folder.status("running", step)
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
            folder.status("finished", step)
            nothing = "" if trained else f"; nothing was left to do: {self.progress.why_finished()}"
            self.log.say(f"finished after {step} steps: {folder.path}{nothing}")
        else:
            folder.status("stopped", step, reason=reason)
            if trained:
                self.log.event(step, f"stopped after {step} steps: {reason}: {folder.path}")
            else:
                again = "To go on, change --stop-when or --stop-patience"
                self.log.say(f"stopped already, after {step} steps: {reason}: {folder.path}. {again}")
        for text in next_commands(folder, self.algorithm.from_noise, "generator" in self.options.own):
            self.log.say(text)
