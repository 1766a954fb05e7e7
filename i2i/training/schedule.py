"""Options of the training loop; whether those of a training fit each other, and when a training is good enough.

Nothing here needs torch, so the command line answers at once.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from annotated_types import Ge, Gt, Interval
from pydantic import StringConstraints

from i2i.config import DeviceName
from i2i.data.options import TOY, FolderOrURL, Layout, check_crop
from i2i.data.walking import exists, is_file
from i2i.errors import InputError, UsageError, as_typed, nearest
from i2i.urls import StorePath

if TYPE_CHECKING:
    from i2i.training.options import RunOptions

Metric = Literal["l1", "psnr", "ssim", "swd", "pixel_accuracy", "mean_iou"]
# how much translations keep of their inputs: a floor or a goal, never the best metric, since doing nothing keeps most
CONTENT = "luminance_ssim"
METRICS: tuple[str, ...] = (*get_args(Metric), CONTENT)
LOWER_IS_BETTER = ("l1", "swd")
_CONDITION = re.compile(r"\s*(\w+)\s*(>=|<=|=)\s*([^\s=]+)\s*")

Policy = Literal["linear", "step", "cosine", "plateau", "constant"]


# a model file takes one line
Label = Annotated[str, StringConstraints(max_length=1000, pattern=r"^\P{Cc}*$")]


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How long, how fast, how often."""

    run: FolderOrURL | None = None
    """Folder of this run, here or in a store (s3://bucket/runs/x); the same command again resumes it."""
    domain_a: Label = ""
    """The name of domain A in the model files, such as Monet. Default: A."""
    domain_b: Label = ""
    """The name of domain B. Default: B."""
    licence: Label = ""
    """The licence of the weights, for the model files."""
    init_from: tuple[Path, ...] = ()
    """Start from these weights: styles, hub:owner/name, model files, or .pth files of pytorch-CycleGAN-and-pix2pix
    under their own names (latest_net_G_A.pth)."""
    n_epochs: Annotated[int, Ge(0)] = 100
    """Epochs at the full learning rate. An epoch is as long as the longer domain."""
    n_epochs_decay: Annotated[int, Ge(0)] = 100
    """Epochs after those, in which the learning rate falls to zero. With --lr-policy cosine it falls in the first
    n_epochs, and rises in these."""
    max_steps: Annotated[int, Ge(1)] | None = None
    """Stop after this many steps. The learning rate follows the epochs as without it."""
    lr: Annotated[float, Interval(gt=0, le=1e10)] = 2e-4
    """Learning rate of Adam."""
    lr_discriminator: Annotated[float, Interval(gt=0, le=1e10)] | None = None
    """Learning rate of the discriminators. Default: lr. Two time scales (Heusel et al. 2017): 4e-4 beside 1e-4."""
    beta1: Annotated[float, Interval(ge=0, lt=1)] = 0.5
    """Adam's first momentum."""
    beta2: Annotated[float, Interval(ge=0, lt=1)] = 0.999
    """Adam's second momentum."""
    lr_policy: Policy = "linear"
    """How the learning rate falls; plateau follows the validation metric."""
    lr_decay_epochs: Annotated[int, Ge(1)] = 50
    """Policy step: epochs between two falls. Policy plateau: see --patience."""
    patience: Annotated[int, Ge(0)] = 5
    """Policy plateau: validations without improvement before the learning rate falls."""
    ema: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Decay of the averaged generators, e.g. 0.999, less for the first steps; 0 is off. The model files hold the
    averages."""
    micro_batches: Annotated[int, Ge(1)] = 1
    """Parts in which a batch is computed, to save memory; gradients add up."""
    clip_grad: Annotated[float, Ge(0)] = 0.0
    """Largest norm of a player's gradient; 0 is off."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the forward pass; weights stay float32."""
    compile: bool = False
    """Compile the networks (torch.compile): faster steps, after minutes of compiling at every start."""
    device: DeviceName = "auto"
    """auto, cpu, cuda, cuda:<n> or mps."""
    deterministic: bool = False
    """Only deterministic algorithms: on a GPU slower, and exact."""
    save_every: Annotated[int, Ge(1)] = 1000
    """Steps between two saved states."""
    save_minutes: Annotated[float, Gt(0)] = 15.0
    """Save a state at least this often."""
    keep_last: Annotated[int, Ge(1)] = 2
    """How many states to keep (the best, where there is validation, is kept too)."""
    keep_every: Annotated[int, Ge(0)] = 0
    """Keep every state whose step is a multiple of this; 0 keeps none beside the last and the best."""
    sample_every: Annotated[int, Ge(1)] = 500
    """Steps between two sample grids. Grids also come with the first step, each validation and the last step."""
    samples: Annotated[int, Interval(ge=1, le=64)] = 4
    """Rows of a sample grid, spread evenly over the held-out pictures."""
    validate_every: Annotated[int, Ge(0)] = 5
    """Epochs between two validations on the val (else test) split; 0 is off."""
    validate_images: Annotated[int, Ge(1)] = 100
    """Pictures that a validation uses: the first of the split."""
    best_metric: Metric = "l1"
    """The metric that chooses the best model files (a2b-best.safetensors). l1, psnr and ssim compare outputs with their
    targets in paired data, in unpaired data pictures with their translations there and back (CUT: pictures of the
    target domain with their translations). swd is the sliced Wasserstein distance of outputs to held-out pictures of
    their domain, as sets. Labels also have mean_iou and pixel_accuracy."""
    best_floor: str = ""
    """Only validations that reach this can be the best, e.g. "luminance_ssim=0.5" beside --best-metric swd. The metric
    must be at least the number; l1 and swd at most. Separate several by commas: all must hold. luminance_ssim says how
    much structure translations keep of their inputs."""
    stop_when: str = ""
    """Stop when a validation has reached this, e.g. "ssim>=0.62". Separate several by commas: all must hold."""
    stop_patience: Annotated[int, Ge(0)] = 0
    """Stop after this many validations in a row that are no better by best_metric than the best, or below best_floor; 0
    never does."""
    log_every: Annotated[int, Ge(1)] = 50
    """Steps between two fetches of the losses from the device."""
    max_bad_steps: Annotated[int, Ge(1)] = 50
    """Stop after this many steps in a row with non-finite gradients (each is skipped)."""


def check(options: "RunOptions", *, needs_data: bool = True, layout: Layout | None = None) -> None:
    """Checks the options without opening the data or building a network. With `layout`, looks for its folders.

    Raises `UsageError` for options that are missing or contradict each other, `InputError` for data that are not there.
    """
    if needs_data and options.data is None:
        raise UsageError(f"data: missing; give {as_typed('data')} a folder, a CSV file of pairs, or `toy`")
    if not isinstance(options.data, StorePath) and options.data not in (None, TOY):
        from i2i.data.folders import near_to, train_folders

        if not exists(options.data):
            raise InputError(f"data = {options.data}: no such folder.{near_to(options.data)}")
        if layout:
            train_folders(options.data, layout)
    if options.run is not None and not isinstance(options.run, StorePath) and is_file(options.run):
        raise UsageError(f"run = {options.run}: is a file; give {as_typed('run')} the name of a folder")
    if options.n_epochs + options.n_epochs_decay == 0:
        raise UsageError("n_epochs = 0, n_epochs_decay = 0: nothing to train")
    if options.batch_size != "auto":
        if options.batch_size % options.micro_batches:
            raise UsageError(f"micro_batches = {options.micro_batches}: must divide batch_size = {options.batch_size}")
        check_crop(options)
    stop_conditions(options.stop_when)
    floor_conditions(options.best_floor)
    if (name := follows_validation(options)) and not options.validate_every:
        value = getattr(options, name)
        raise UsageError(f"{name} = {value!r}: follows the validation, but validate_every = 0 turns it off")


def follows_validation(options: TrainingOptions) -> str:
    """The first option that needs validations; empty if there is none."""
    following = {
        "lr_policy": options.lr_policy == "plateau",
        "stop_when": bool(options.stop_when.strip()),
        "stop_patience": options.stop_patience > 0,
        "best_floor": bool(options.best_floor.strip()),
    }
    return next((name for name, follows in following.items() if follows), "")


@dataclass(frozen=True)
class Condition:
    """`metric` has come to `threshold` or better."""

    metric: str
    threshold: float

    def holds(self, means: Mapping[str, float]) -> bool:
        """Whether it holds for the means of a validation; not if the metric is missing or not finite."""
        return score(self.metric, means) <= score(self.metric, {self.metric: self.threshold})

    def __str__(self) -> str:
        """As it is written on a command line; every threshold has its own text."""
        sign = "<=" if self.metric in LOWER_IS_BETTER else ">="
        return f"{self.metric}{sign}{str(self.threshold).removesuffix('.0')}"


def stop_conditions(text: str) -> tuple[Condition, ...]:
    """`ssim>=0.62, l1<=0.1` as conditions; none of an empty text. Raises `UsageError`."""
    return _conditions(text, "stop_when", "one like ssim>=0.62 or l1<=0.1", equals=False)


def floor_conditions(text: str) -> tuple[Condition, ...]:
    """`luminance_ssim=0.5` (at least, for a metric that is better when lower at most), else as `stop_conditions`."""
    return _conditions(text, "best_floor", "one like luminance_ssim=0.5", equals=True)


def _conditions(text: str, option: str, example: str, *, equals: bool) -> tuple[Condition, ...]:
    where, found = f"{option} = {text!r}", []
    for part in text.split(",") if text.strip() else ():
        match = _CONDITION.fullmatch(part)
        if not match or (match[2] == "=" and not equals):
            raise UsageError(f"{where}: {part.strip()!r} is no condition; expected {example}")
        metric, sign, number = match.groups()
        if metric not in METRICS:
            known = ", ".join(METRICS)
            raise UsageError(f"{where}: unknown metric {metric!r}.{nearest(metric, METRICS)} Known: {known}.")
        try:
            threshold = float(number)
        except ValueError:
            threshold = math.nan
        if not math.isfinite(threshold):
            raise UsageError(f"{where}: {number!r} is no number")
        found.append(Condition(metric, threshold))
        if sign not in str(found[-1]):
            better = "lower" if metric in LOWER_IS_BETTER else "higher"
            raise UsageError(f"{where}: {metric} is better when {better}: write {found[-1]}")
    return tuple(found)


def score(metric: str, means: Mapping[str, float]) -> float:
    """The metric's value turned so that lower is better, which turns it back too; NaN if it was not measured."""
    value = means.get(metric, math.nan)
    return value if metric in LOWER_IS_BETTER else -value


def means(numbers: Mapping[str, float]) -> dict[str, float]:
    """Metric → its mean over what was measured, from `<what>/<metric>` → number."""
    found: dict[str, list[float]] = {}
    for name, value in numbers.items():
        found.setdefault(name.rpartition("/")[2], []).append(value)
    return {metric: sum(values) / len(values) for metric, values in found.items()}
