"""Options of the training loop, and those with which it takes less memory."""

from collections.abc import Mapping
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval
from pydantic import StringConstraints

from i2i.algorithms.algorithm import AnyAlgorithm, own_options
from i2i.algorithms.options import NetworkOptions
from i2i.data.options import FolderOrURL, of_one_size
from i2i.data.pair import ImagePair
from i2i.errors import ResourceError
from i2i.networks import Own
from i2i.training.schedule import Metric

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
    """Start from these weights: styles, model files, or .pth files of pytorch-CycleGAN-and-pix2pix under their own
    names (latest_net_G_A.pth)."""
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
    device: str = "auto"
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


@dataclass(frozen=True, kw_only=True)
class RunOptions(TrainingOptions, NetworkOptions):
    """The options of a run that all algorithms share; `options_class` adds those of one."""


def options_class(
    algorithm: type[AnyAlgorithm], *more: type, own: Mapping[str, Own] | None = None, **fields: tuple[Any, Any]
) -> type[RunOptions]:
    """The options of a training by `algorithm`; those of the classes `more` come before them.

    `fields` are options with another type and default, `own` networks from Python.
    """
    chosen = own_options(algorithm)
    listed = [(name, hint, field(default=default)) for name, (hint, default) in fields.items()]
    shared = {"algorithm": algorithm.name, "own": own or {}, "__doc__": chosen.__doc__}
    bases = (*more, chosen, RunOptions)
    made: type[RunOptions] = make_dataclass("Options", listed, bases=bases, namespace=shared, frozen=True, kw_only=True)
    return made


def batch_too_large(batch: ImagePair, options: RunOptions) -> ResourceError:
    """The error for a batch that does not fit, with options that take less memory."""
    parts = f", in {options.micro_batches} parts" if options.micro_batches > 1 else ""
    tried = f"batches of {len(batch)} at {batch.b.shape[-1]}x{batch.b.shape[-2]}{parts}"
    ways = [f"{way} ({change})" for way, change in less_memory(options, len(batch)).items()]
    return ResourceError(f"out of memory with {tried}. Try {', '.join(ways)}")


def less_memory(options: RunOptions, batch_size: int) -> dict[str, str]:
    """Options with which a training takes less memory, each with its effect on the result; the smallest first."""
    found, parts = {}, options.micro_batches
    if options.has_residual_blocks and not options.low_memory and not options.compile:
        found["--low-memory"] = "the same result"
    if batch_size > parts:
        found[f"--micro-batches {next(n for n in range(parts + 1, batch_size + 1) if not batch_size % n)}"] = (
            "batch norm sees each part alone"
            if options.norm == "batch"
            else "negatives come from each part alone"
            if getattr(options, "negatives", None) == "batch"
            else "the same result"
        )
    if options.precision == "fp32":
        found["--precision bf16"] = "coarser rounding"
    if batch_size > 1:
        found["--batch-size 1" + (" --micro-batches 1" if parts > 1 else "")] = "another training, of smaller steps"
    smaller = f"a --crop-size below {options.crop_size}" if of_one_size(options.preprocess) else "smaller pictures"
    found[smaller] = "another training"
    names = ("ngf", "ndf") if options.has_discriminator else ("ngf",)
    if wide := [f"--{name} 32" for name in names if getattr(options, name) > 32]:
        found[" ".join(wide)] = "smaller networks"
    return found
