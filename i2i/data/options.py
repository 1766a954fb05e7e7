"""The options of data sets, and whether they fit each other and the network."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Interval

from i2i.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Which pictures, and what is done to them before a network sees them."""

    data: Path | None = None
    """Folder of the data set, a CSV file of pairs, or `toy`: pictures drawn on the fly, unless the working directory
    has a `toy` of its own."""
    direction: Literal["a2b", "b2a"] = "a2b"
    """a2b translates A to B, b2a translates B to A."""
    channels_a: Annotated[int, Interval(ge=1, le=64)] = 3
    """Channels of domain A: 1 is luminance, 3 RGB, 4 RGB with alpha."""
    channels_b: Annotated[int, Interval(ge=1, le=64)] = 3
    """Channels of domain B."""
    preprocess: Literal["resize_and_crop", "crop", "scale_width", "scale_width_and_crop", "scale_shortside", "none"] = (
        "resize_and_crop"
    )
    """How a picture comes to size: stretched to a square, scaled by one side, cropped, or left as it is."""
    load_size: Annotated[int, Interval(ge=1, le=65_535)] = 286
    """Pixels that a side is scaled to before the crop."""
    crop_size: Annotated[int, Interval(ge=1, le=65_535)] = 256
    """Pixels of the side of the random square crop."""
    flip: bool = True
    """Mirror half of the samples left to right."""
    batch_size: Annotated[int, Ge(1)] = 1
    """Samples per step and process."""
    workers: Annotated[int, Interval(ge=0, le=256)] | Literal["auto"] = 2
    """Processes that prepare batches; 0 prepares them in the training process, auto measures how many are needed.
    Changes no result."""
    cache: Path | None = None
    """Folder for decoded and resized pictures, so that an epoch need not do that again: a picture of load_size 286
    takes 0.25 MB there. Changes no result; may be shared by runs, and deleted when none is running."""
    check: Literal["quick", "full", "off"] = "quick"
    """Check every picture before training: its header, by decoding it, or not at all."""
    on_bad: Literal["error", "skip"] = "error"
    """A damaged picture stops the training, or is replaced by the next one and counted, up to 5 % of all."""
    pairs: Literal["error", "intersect"] = "error"
    """Pictures without a partner are an error, or left out."""
    seed: Annotated[int, Interval(ge=0, le=2**32 - 1)] = 0
    """Seed of order, crops and flips, and of everything else random in the training."""


def check_sizes(options: DataOptions, multiple: int, minimum: int) -> None:
    """Raises `UsageError` if the network cannot take what the options would give it.

    `multiple` and `minimum` are the network's: a side is a multiple of the one and at least the other.
    """
    name = options.preprocess
    crops = name not in ("scale_width", "none")
    if options.batch_size > 1 and not crops:
        raise UsageError(
            f"batch_size = {options.batch_size}: with preprocess = {name} sizes vary, so only 1 is possible"
        )
    if crops and name != "crop" and options.crop_size > options.load_size:
        raise UsageError(
            f"crop_size = {options.crop_size}: cropped out of load_size = {options.load_size}, "
            f"so at most {options.load_size}"
        )
    side = "crop_size" if crops else "load_size"
    size = getattr(options, side)
    if crops and size % multiple:
        below, above = size // multiple * multiple, -(-size // multiple) * multiple
        nearest = f"{below} or {above}" if below >= minimum else f"{max(above, minimum)}"
        raise UsageError(f"{side} = {size}: this network takes multiples of {multiple}, for example {nearest}")
    if name != "none" and size < minimum:
        raise UsageError(f"{side} = {size}: this network takes at least {minimum}")
