"""The options of a run, and those with which it takes less memory."""

from collections.abc import Mapping
from dataclasses import dataclass, field, make_dataclass
from typing import Any

from i2i.algorithms.algorithm import AnyAlgorithm, own_options
from i2i.algorithms.options import NetworkOptions
from i2i.data.options import of_one_size
from i2i.data.pair import ImagePair
from i2i.errors import ResourceError, as_typed
from i2i.networks import Own
from i2i.training.schedule import TrainingOptions


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
        found[as_typed("low_memory", True)] = "the same result"
    if batch_size > parts:
        more = next(n for n in range(parts + 1, batch_size + 1) if not batch_size % n)
        found[as_typed("micro_batches", more)] = (
            "batch norm sees each part alone"
            if options.norm == "batch"
            else "negatives come from each part alone"
            if getattr(options, "negatives", None) == "batch"
            else "the same result"
        )
    if options.precision == "fp32":
        found[as_typed("precision", "bf16")] = "coarser rounding"
    if batch_size > 1:
        single = [as_typed(name, 1) for name in ("batch_size", *(("micro_batches",) if parts > 1 else ()))]
        found[" ".join(single)] = "another training, of smaller steps"
    smaller = (
        f"a {as_typed('crop_size')} below {options.crop_size}"
        if of_one_size(options.preprocess)
        else "smaller pictures"
    )
    found[smaller] = "another training"
    names = ("ngf", "ndf") if options.has_discriminator else ("ngf",)
    if wide := [as_typed(name, 32) for name in names if getattr(options, name) > 32]:
        found[" ".join(wide)] = "smaller networks"
    return found
