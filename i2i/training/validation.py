"""Measuring on the held-out split: when, what came out, and whether that is enough to stop."""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import torch
from annotated_types import Interval
from torch import Tensor, nn

from i2i import images
from i2i.algorithms.algorithm import AnyAlgorithm
from i2i.data.pair import Datasets, ImagePair
from i2i.errors import InputError, UsageError
from i2i.evaluation.metrics import WINDOW, confusion, l1, luminance_ssim, psnr, scores, squared, ssim
from i2i.evaluation.sliced_wasserstein import PATCH, swd
from i2i.evaluation.training_log import VALIDATION_SEED
from i2i.images import Pixels
from i2i.images.palettes import VOID
from i2i.signals import Signals
from i2i.training.monitor import Palettes, Skipped, for_testing, pairs
from i2i.training.options import RunOptions
from i2i.training.schedule import CONTENT, floor_conditions, means, score, stop_conditions
from i2i.training.state_store import AList, Count, Kept, Text
from i2i.training.step import ProcessGroup

PAIR_METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"l1": l1, "psnr": psnr, "ssim": ssim}
LABEL_METRICS = ("pixel_accuracy", "mean_iou")
SWD = "swd"
SWD_SIZE = 256  # the size for pictures that are not squares of one size, as in an evaluation
SWD_SEEDS = (VALIDATION_SEED,)
"""One, where an evaluation has three: always the same draw, so that validations can be compared."""
LEAST_SIDE = {"ssim": WINDOW, SWD: PATCH}
PLATEAU_METRIC = "l1"  # the learning rate follows it, where it is measured
METRIC_OF_SETS = "swd_to_held_out"

Sets = dict[str, tuple[Pixels | None, Pixels]]
"""`fake_B` → an output and a real picture of its domain, in 8 bits; None for an output that is not finite."""
Counts = dict[str, Pixels]
"""`fake_B` → confusion matrix."""


def set_members(pictures: Mapping[str, Tensor]) -> Sets:
    """The members of the sets that swd compares, from the columns of a sample grid, (1, C, H, W) each."""
    found: Sets = {}
    for domain in "AB":
        fake, real = pictures.get(f"fake_{domain}"), pictures.get(f"real_{domain}")
        if fake is not None and real is not None and fake.shape[1] == real.shape[1]:
            finite = bool(torch.isfinite(fake).all())
            found[f"fake_{domain}"] = images.to_pixels(fake[0]) if finite else None, images.to_pixels(real[0])
    return found


def set_distances(members: Mapping[int, Sets]) -> dict[str, float]:
    """`<name>/swd` → 10³ · sliced Wasserstein distance of outputs to real pictures, by their places in the split.

    A function of the pictures, whichever process saw them. NaN where an output is not finite; nothing where
    pictures are smaller than 7 pixels.
    """
    found = {}
    for name in sorted({name for each in members.values() for name in each}):
        pairs_of_name = [members[place][name] for place in sorted(members)]
        tensors = [[images.to_tensor(side) for side in pair if side is not None] for pair in pairs_of_name]
        if min(min(picture.shape[-2:]) for pair in tensors for picture in pair) < PATCH:
            continue
        if any(len(pair) < 2 for pair in tensors):
            found[f"{name}/{SWD}"] = math.nan
            continue
        if len({side for pair in tensors for picture in pair for side in picture.shape[-2:]}) > 1:
            tensors = [[squared(picture, SWD_SIZE) for picture in pair] for pair in tensors]
        outputs, real = zip(*tensors, strict=True)
        found[f"{name}/{SWD}"] = swd(outputs, real, SWD_SEEDS).mean
    return found


def label_counts(output: Tensor, target: Tensor, classes: int) -> Pixels:
    """The confusion matrix of labels (1, K, H, W): the largest of the K first channels is a pixel's class. A pixel
    without a channel of `target` above 0 has no class."""
    right = target[0, :classes]
    known = (right > 0).any(dim=0)
    found, expected = (x.argmax(dim=0).cpu() for x in (output[0, :classes], right))
    return confusion(found.numpy(), expected.masked_fill(~known.cpu(), VOID).numpy(), classes)


def label_scores(total: Counts) -> dict[str, float]:
    """`<name>/<metric>` → value, from the counts of all pictures; nothing where no pixel has a label."""
    found = {name: scores(matrix) for name, matrix in total.items() if matrix.any()}
    return {f"{name}/{metric}": getattr(made, metric) for name, made in found.items() for metric in LABEL_METRICS}


def content_scores(pictures: Mapping[str, Tensor]) -> dict[str, float]:
    """`fake_B/luminance_ssim` of an output and its input, where both are pictures of one size."""
    found = {}
    for name, source in (("fake_B", "real_A"), ("fake_A", "real_B")):
        output, given = pictures.get(name), pictures.get(source)
        if output is None or given is None or output.shape[-2:] != given.shape[-2:]:
            continue
        if min(output.shape[-2:]) >= WINDOW and {output.shape[1], given.shape[1]} <= {1, 3}:
            found[f"{name}/{CONTENT}"] = float(luminance_ssim(output, given))
    return found


class HeldOut:
    """Measures an algorithm on the held-out split, through copies of its generators."""

    def __init__(
        self, algorithm: AnyAlgorithm, data: Datasets, group: ProcessGroup, palettes: Palettes, skipped: Skipped
    ) -> None:
        self.algorithm, self.pictures, self.group = algorithm, data.validation, group
        self.palettes, self.skipped = palettes, skipped

    def measure(
        self,
        networks: Mapping[str, nn.Module],
        images_used: int,
        stop: Callable[[], Any],
        sets: bool = False,
        content: bool = False,
    ) -> dict[str, float] | None:
        """`<name>/<metric>` → mean over the first `images_used` pictures; None once `stop()` is true.

        L1, PSNR and SSIM of `Algorithm.validation_pairs`; for labels L1, pixel accuracy and mean IoU. With `sets` also
        swd, with `content` the luminance SSIM of outputs and inputs. Every process measures its share of the pictures
        and gets the numbers of all.
        """
        assert self.pictures is not None
        translators = for_testing(self.algorithm, networks)
        count = min(len(self.pictures), images_used)
        share = range(self.group.rank, count, self.group.world_size)
        mine: dict[int, tuple[dict[str, float], Counts, Sets]] = {}
        torch.manual_seed(VALIDATION_SEED)
        with torch.inference_mode():
            for place, pair in zip(share, pairs(self.pictures, share, self.group.device, self.skipped), strict=True):
                if stop():
                    return None
                if pair.skipped:  # the picture in its place has a turn of its own
                    continue
                numbers, counts = self._measure(pair, translators)
                pictures = self._pictures(pair, translators) if sets or content else {}
                numbers |= content_scores(pictures) if content else {}
                mine[place] = numbers, counts, set_members(pictures) if sets else {}
        return self._summary(mine, count)

    def _summary(self, mine: Mapping[int, tuple[dict[str, float], Counts, Sets]], count: int) -> dict[str, float]:
        """The numbers of all processes: the same sums in the same order in each of them."""
        values: dict[str, list[float]] = {}
        total: Counts = {}
        members: dict[int, Sets] = {}
        for share in self.group.gather_everywhere(mine):
            for place, (numbers, counts, sets) in share.items():
                members[place] = sets
                for name, number in numbers.items():
                    values.setdefault(name, []).append(number)
                for name, matrix in counts.items():
                    total[name] = total[name] + matrix if name in total else matrix
        if not members:
            raise InputError(f"none of the {count} held-out pictures can be read")
        averages = {name: sum(numbers) / len(numbers) for name, numbers in values.items()}
        return averages | label_scores(total) | set_distances(members)

    def _pictures(self, pair: ImagePair, translators: Mapping[str, nn.Module]) -> dict[str, Tensor]:
        """The pictures that sets and content are measured on. Their random numbers leave the other metrics alone."""
        device = self.group.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            return self.algorithm.pictures(pair, translators)

    def _measure(self, pair: ImagePair, translators: Mapping[str, nn.Module]) -> tuple[dict[str, float], Counts]:
        found: dict[str, float] = {}
        counts: Counts = {}
        for name, (output, target) in self.algorithm.validation_pairs(pair, translators).items():
            palette = self.palettes.get(name[-1])
            if palette is not None:
                counts[name] = label_counts(output, target, len(palette))
            for metric, measure in PAIR_METRICS.items():
                if metric == "l1" or (palette is None and (metric != "ssim" or min(output.shape[-2:]) >= WINDOW)):
                    found[f"{name}/{metric}"] = float(measure(output, target))
        return found, counts


class Plateau(Kept):
    """Multiplies the factor by 0.2 when the metric (lower is better) has not fallen by 1 % for `patience` checks.

    The factor is one on the learning rate `lr`: another one begins anew.
    """

    lr: float
    factor: Annotated[float, Interval(ge=0, le=1)] = 1.0
    best: float = math.inf
    waited: Count = 0

    def update(self, metric: float, patience: int) -> None:
        if metric < self.best * 0.99:
            self.best, self.waited = metric, 0
            return
        self.waited += 1
        if self.waited > patience:
            self.factor, self.waited = self.factor * 0.2, 0


class Measured(Kept):
    """The validations of a run so far.

    A validation is `extra` at the end of a run, where a longer run would have none. `measured` has the step of the last
    one and its numbers, `above_floor` says whether the weights of then reach the floor. `record` is the best score of
    all regular validations, `stalled` how many came since.
    """

    plateau: Plateau
    validation_due: bool = False
    validation_extra: bool = False
    measured: Annotated[tuple[Count, dict[Text, float]], AList] | None = None
    measured_extra: bool = False
    above_floor: bool = True
    record: float = math.inf
    stalled: Count = 0


class Validation:
    """When a run is validated, the numbers of its last validation, and what follows: the learning rate of `plateau`,
    and an early stop.

    Metrics are means over a validation, and belong to the weights of that very step. A score is a metric's value,
    turned so that lower is better.
    """

    def __init__(self, options: RunOptions, held_out: HeldOut, group: ProcessGroup, signals: Signals) -> None:
        self.options, self.held_out, self.group, self.signals = options, held_out, group, signals
        self.conditions, self.floor = stop_conditions(options.stop_when), floor_conditions(options.best_floor)
        self.needed = {options.best_metric, *(condition.metric for condition in (*self.conditions, *self.floor))}
        self.kept = Measured(plateau=Plateau(lr=options.lr))

    @property
    def possible(self) -> bool:
        """Whether this run measures anything."""
        return bool(self.options.validate_every) and self.held_out.pictures is not None

    def schedule(self) -> None:
        """Make a regular validation due."""
        self.kept.validation_due |= self.possible

    def schedule_last(self) -> None:
        """Make a validation of a run's last weights due. Only the best model follows from it: a longer run would not
        have been measured here."""
        if self.possible and not self.kept.validation_due:
            self.kept.validation_due = self.kept.validation_extra = True

    def run(self, networks: Mapping[str, nn.Module], step: int) -> dict[str, float] | None:
        """The numbers of the validation of `step`; None if a signal came, and it is still due."""
        # A process that stopped alone would leave the others waiting; alone, it may stop at once.
        alone = self.group.world_size == 1
        numbers = self.held_out.measure(
            networks,
            self.options.validate_images,
            lambda: alone and self.signals.received,
            SWD in self.needed or self.held_out.algorithm.from_noise,
            CONTENT in self.needed,
        )
        if numbers is None:
            return None
        self.take(means(numbers), step)
        self.kept.validation_due = self.kept.validation_extra = False
        return numbers

    def take(self, measured: Mapping[str, float], step: int) -> None:
        """Keep the numbers of `step`, metric → mean. Raises `UsageError` if one that is needed is missing."""
        if missing := sorted(self.needed - measured.keys()):
            raise UsageError(self._missing(missing[0]))
        kept = self.kept
        kept.measured = (step, {name: number for name, number in measured.items() if math.isfinite(number)})
        kept.measured_extra = kept.validation_extra
        kept.above_floor = all(condition.holds(measured) for condition in self.floor)
        if kept.validation_extra:
            return
        if self.options.lr_policy == "plateau":
            follows = PLATEAU_METRIC if PLATEAU_METRIC in measured else self.options.best_metric
            kept.plateau.update(score(follows, measured), self.options.patience)
        now = score(self.options.best_metric, measured)
        if kept.above_floor and now < kept.record:  # NaN is no progress
            kept.record, kept.stalled = now, 0
        else:
            kept.stalled += 1

    def metrics_at(self, step: int) -> dict[str, float]:
        """Metric → mean of the weights of `step`, those that are finite; empty if they were not validated."""
        measured = self.kept.measured
        return measured[1] if measured and measured[0] == step else {}

    def score_at(self, step: int) -> float | None:
        """The score of the weights of `step`, if they were validated, it is finite, and the floor holds."""
        found = score(self.options.best_metric, self.metrics_at(step))
        return found if math.isfinite(found) and self.kept.above_floor else None

    def below_floor(self, step: int) -> str:
        """The metrics of `step` that are below `best_floor`, with their values; empty if none are."""
        metrics = self.metrics_at(step)
        return ", ".join(
            f"{c.metric} is {metrics.get(c.metric, math.nan):.4g}, not {str(c).removeprefix(c.metric)}"
            for c in self.floor
            if metrics and not c.holds(metrics)
        )

    def named_at(self, step: int) -> dict[str, float]:
        """As `metrics_at`, under names that explain themselves in a model file."""
        algorithm = self.held_out.algorithm
        of_sets = METRIC_OF_SETS if len(algorithm.translators()) == 1 else f"mean_{METRIC_OF_SETS}"
        of_pictures = "" if algorithm.paired else f"{algorithm.measured}_"
        names = {SWD: of_sets, CONTENT: CONTENT}
        return {names.get(name, f"{of_pictures}{name}"): number for name, number in self.metrics_at(step).items()}

    def stop_reason(self, step: int) -> str:
        """Why the training may end at `step`; empty if it may not."""
        metrics = {} if self.kept.measured_extra else self.metrics_at(step)  # a longer run would not have been measured
        if self.conditions and all(condition.holds(metrics) for condition in self.conditions):
            values = ", ".join(f"{c.metric} is {metrics[c.metric]:.4g}" for c in self.conditions)
            compared = self._compared(*(condition.metric for condition in self.conditions))
            return f"{', '.join(map(str, self.conditions))} is reached: {values} ({compared})"
        if not self.options.stop_patience or self.kept.stalled < self.options.stop_patience:
            return ""
        name = self.options.best_metric
        if self.floor and not math.isfinite(self.kept.record):
            return f"{', '.join(map(str, self.floor))} was not reached in {self.kept.stalled} validations"
        best = score(name, {name: self.kept.record})
        return f"{name} has not got better than {best:.4g} for {self.kept.stalled} validations ({self._compared(name)})"

    def _compared(self, *metrics: str) -> str:
        """The pictures that those metrics compare, in words."""
        algorithm = self.held_out.algorithm
        others = f"{algorithm.validation_note}; how good translations look, it cannot tell"
        others = "outputs against their targets" if algorithm.paired else others
        known = {SWD: "outputs against held-out pictures, as sets", CONTENT: "outputs against their inputs"}
        kinds = {metric: known.get(metric, others) for metric in metrics}
        if len(set(kinds.values())) == 1:
            return kinds[metrics[0]]
        return "; ".join(f"{metric}: {kind}" for metric, kind in kinds.items())

    def state(self) -> dict[str, Any]:
        return self.kept.model_dump()

    def load_state(self, state: Mapping[str, Any]) -> None:
        before = Measured.model_validate(dict(state))
        if self.options.lr_policy != "plateau" or before.plateau.lr != self.options.lr:
            before.plateau = self.kept.plateau
        before.validation_due &= self.possible
        before.validation_extra &= before.validation_due
        self.kept = before

    def _missing(self, metric: str) -> str:
        algorithm = self.held_out.algorithm
        if metric == CONTENT:
            return f"{metric}: outputs and inputs have other sizes, or fewer than {WINDOW} pixels a side"
        if metric in LEAST_SIDE and (metric == SWD or not algorithm.from_noise):
            return f"{metric}: the held-out pictures are too small for it ({LEAST_SIDE[metric]} pixels a side)"
        return f"{metric}: nothing that {algorithm.name} makes can be measured by it; use swd"
