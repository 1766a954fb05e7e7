"""Everything that a training shows: its log, sample grids, health, pictures that could not be read, its end."""

import copy
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn
from torch.nn import functional as F

from i2i import images, machine
from i2i.algorithms.algorithm import AnyAlgorithm
from i2i.data.folders import listed
from i2i.data.options import MAX_DAMAGED, classes
from i2i.data.pair import Datasets, ImagePair, ImagePairs
from i2i.errors import InputError, OutputError, as_typed
from i2i.images.palettes import VOID, Palette, to_colours
from i2i.networks.blocks import for_translation
from i2i.training.health import HealthMonitor
from i2i.training.log import RunLog
from i2i.training.options import RunOptions
from i2i.training.run_folder import Changes, RunFolder, next_commands
from i2i.training.step import ProcessGroup, Progress, TrainingStep

CAPTION = 16  # pixels above a grid, for the names of its columns
_LINE = 2  # pixels between cells

Palettes = Mapping[str, Palette | None]
"""`A`, `B` as the algorithm sees them → the classes of labels; None for pictures."""
Skipped = Callable[[Sequence[str]], None]
Waiting = list[tuple[dict[str, Any], dict[str, Tensor]]]
"""Facts and losses of steps; these are still on the device, which nothing waits for."""
Row = dict[str, Tensor]
"""Name of a column → picture (C, H, W) in [-1, 1], on the CPU."""


def palettes_of(options: RunOptions) -> Palettes:
    """The classes of the labels of both domains."""
    a, b = classes(options)
    return {"A": a, "B": b} if options.direction == "a2b" else {"A": b, "B": a}


def for_testing(algorithm: AnyAlgorithm, networks: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Copies of `networks` in the mode in which they translate; training is not disturbed."""
    return {
        name: for_translation(copy.deepcopy(network), algorithm.test_statistics, algorithm.test_dropout)
        for name, network in networks.items()
    }


def pairs(dataset: ImagePairs, places: Sequence[int], device: torch.device, skipped: Skipped) -> Iterator[ImagePair]:
    """Batches of one, on `device`; `skipped` gets the names of pictures that could not be read."""
    for t in places:
        pair = dataset[t].to(device)
        skipped(pair.skipped)
        yield ImagePair(pair.a[None], pair.b[None], pair.skipped)


def in_colour(name: str, picture: Tensor, palettes: Palettes) -> Tensor:
    """Labels in the colours of their palette: `real_A`, `fake_B` are of the domains `batch.a` and `.b`."""
    palette = palettes.get(name[-1])
    if palette is None:
        return picture
    picture = picture[: len(palette)]  # without the edges of instances
    void = (picture <= 0).all(dim=0) & name.startswith("real")  # an output has the class that is likeliest
    labels = picture.argmax(dim=0).to(torch.uint8).masked_fill(void, VOID)
    return images.to_tensor(to_colours(labels.numpy(), palette))


def spread(length: int, count: int) -> list[int]:
    """At most `count` of the numbers 0 to `length` - 1, evenly spread, the first among them."""
    return [i * length // count for i in range(count)] if count < length else list(range(length))


def layout(rows: Sequence[Row]) -> dict[str, Any]:
    """The cells of a grid of these rows, as `samples/columns.json` records them: the names of its columns, the number
    of inputs, how many of them stand beside each other, and the height of the captions above, in pixels."""
    columns, count, per_row = list(rows[0]), len(rows), 1
    if len(columns) <= 2:  # as in a square, or fewer, so that none is left over
        per_row = next(n for n in range(math.isqrt(count), 0, -1) if count % n == 0)
    return {"columns": columns, "inputs": count, "inputs_per_row": per_row, "caption_height": CAPTION}


def grid(rows: Sequence[Row]) -> Tensor:
    """A row per input, a column per picture, the names of the columns above them: (3, H, W) in [0, 1].

    Rows of one or two pictures stand beside each other.
    """
    cells = [three_channels(picture) for row in rows for picture in row.values()]
    size = cells[0].shape[-2:]
    cells = [F.interpolate(x[None], size, mode="area")[0] if x.shape[-2:] != size else x for x in cells]
    names = list(rows[0]) * layout(rows)["inputs_per_row"]
    lined = F.pad(torch.stack(cells), (0, _LINE, 0, _LINE), value=1.0).unflatten(0, (-1, len(names)))
    # by hand, as torchvision's make_grid imports torch's compiler: two seconds at the start of each training
    made = F.pad(lined.permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2), (_LINE, 0, _LINE, 0), value=1.0).clamp(0, 1)
    return torch.cat([_captions(names, int(size[1]), made.shape[-1]), made], dim=1)


def _captions(names: Sequence[str], cell_width: int, width: int) -> Tensor:
    """(3, CAPTION, width): each name above its column, as large as fits; nothing above columns of a few pixels."""
    strip = Image.new("L", (width, CAPTION), 255)
    draw = ImageDraw.Draw(strip)
    for size in range(12, 5, -1):
        font = ImageFont.load_default(size)
        if max(draw.textlength(name, font) for name in names) <= cell_width:
            for column, name in enumerate(names):
                draw.text((_LINE + column * (cell_width + _LINE), CAPTION - size - 3), name, 0, font)
            break
    return torch.from_numpy(np.array(strip, np.float32) / 255).expand(3, -1, -1)


def three_channels(image: Tensor) -> Tensor:
    """(C, H, W) in [-1, 1] → (3, H, W) in [0, 1] for showing: grey repeated, more than three cut to three."""
    image = (image.float().cpu() + 1) / 2
    return image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)


def save_grid(path: Path, picture: Tensor) -> None:
    """Writes a grid, (3, H, W) in [0, 1], as PNG, whole or not at all; values that are not finite are black."""
    path.parent.mkdir(exist_ok=True)
    images.write(path, images.Picture(pixels=images.to_pixels(picture.nan_to_num() * 2 - 1)))


BF16_IS_SLOW = "this processor has no bf16, so that precision = bf16 is slower here than fp32; the results stay right"
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
                f"left out (by {as_typed('on_bad', 'skip')}):",
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
        self, train_step: TrainingStep, data: Datasets, options: RunOptions, folder: RunFolder, progress: Progress
    ) -> None:
        self.algorithm, self.options, self.folder = train_step.algorithm, options, folder
        self.progress, self.group = progress, train_step.group
        self.log = RunLog(folder.path, progress.total_images, quiet=not self.group.first)
        roots = {name: root for name in ("data", "paired_data") if (root := getattr(options, name))}
        self.skipped = SkippedImages(self.log, self.group, data.count, roots)
        self.source, self.palettes = data.validation or data.train, palettes_of(options)
        self.health = HealthMonitor(train_step, data.train, options, self.log)

    def started(self, validate_again: bool, notes: list[str], changes: Changes) -> None:
        """Open the log and describe the run; `notes`: what a resume found, `changes`: of options since then."""
        step = self.progress.step
        self.log.open(step, validate_again)
        self.folder.describe(self.options, str(self.group.device))
        self.folder.status("running", step, None)
        changed = [f"{option} was {before}, is now {now}" for option, (before, now) in changes.items()]
        slow = [BF16_IS_SLOW] if self._bf16_is_slow() else []
        for text in (*notes[:1], *changed, *notes[1:], *slow):
            self.log.event(step, text)

    def _bf16_is_slow(self) -> bool:
        return self.options.precision == "bf16" and self.group.device.type == "cpu" and not machine.has_bf16()

    def report_skipped(self, names: Sequence[str]) -> None:
        """Name pictures that could not be read. Raises `InputError` when there are too many."""
        self.skipped.report(self.progress.step, names)

    def flush(self, waiting: Waiting) -> None:
        """Fetch the losses of these steps from the device; log them and look at them."""
        if not waiting:
            return
        values = torch.stack([value.float() for _, losses in waiting for value in losses.values()])
        self.group.average_([values])
        numbers, lines = iter(values.tolist()), []
        for facts, losses in waiting:
            line = facts | {"losses": {name: next(numbers) for name in losses}}
            skipped = line["losses"].pop("skipped", 0) > 0
            lines.append(line | ({"skipped": 1} if skipped else {}))
        self.log.steps(lines)
        self.health.steps(lines)
        self.log.show(lines[-1])

    def rows(self, networks: Mapping[str, nn.Module], count: int | None = None) -> list[Row]:
        """Always the same pictures, for `count` inputs or as many as a sample grid has, spread evenly over the held-out
        ones, or over the training pictures where none are held out."""
        translators, found = for_testing(self.algorithm, networks), []
        places = spread(len(self.source), count or self.options.samples)
        with torch.inference_mode():
            for pair in pairs(self.source, places, self.group.device, self.report_skipped):
                torch.manual_seed(0)
                pictures = self.algorithm.pictures(pair, translators).items()
                found.append({name: in_colour(name, x[0].float().cpu(), self.palettes) for name, x in pictures})
        return found

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
                again = f"To go on, change {as_typed('stop_when')} or {as_typed('stop_patience')}"
                self.log.say(f"stopped already, after {step} steps: {reason}: {folder.path}. {again}")
        for text in next_commands(folder, self.algorithm.from_noise, "generator" in self.options.own):
            self.log.say(text)
