"""The options of data sets, and whether they fit each other and the network."""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Interval
from pydantic import BeforeValidator

from i2i.config import PathUnless
from i2i.errors import UsageError, as_typed
from i2i.files import staged
from i2i.urls import StorePath, is_url, store_path

if TYPE_CHECKING:
    from i2i.images.palettes import Palette

Layout = Literal["unpaired", "paired", "one domain"]
"""The folders of a data set (`i2i.data.folders`)."""
TOY = Path("toy")
"""The data set that is drawn on the fly."""
NAMED_CLASSES = frozenset({"facades", "toy"})
"""The names of `images.palettes.PALETTES`."""
MAX_DAMAGED = 0.05
"""The part of all pictures that may be damaged and left out."""


def local(place: object) -> Any:
    """The copy on this machine of a place in a store, or of its URL; any other value as it is."""
    place = store_path(place) if is_url(place) else place
    return staged(place) if isinstance(place, StorePath) else place


FolderOrURL = Annotated[Path | StorePath, BeforeValidator(local)]
"""The type of an option for a folder of this machine or of a store. Its value is on this machine (see `staging`)."""


def _as_text(value: object) -> object:
    """How many classes there are is a number in YAML."""
    return str(value) if type(value) is int else value


Classes = Annotated[str, BeforeValidator(_as_text), PathUnless(NAMED_CLASSES)]


def _as_range(value: object) -> object:
    """A pair of numbers as text, and any text checked: `LOW:HIGH`."""
    if isinstance(value, list | tuple) and len(value) == 2:
        value = f"{value[0]}:{value[1]}"
    if isinstance(value, str) and value:
        parsed_range(value)
    return value


def parsed_range(text: str) -> tuple[float, float]:
    """The two numbers of `LOW:HIGH`. Raises `ValueError`."""
    low, _, high = text.partition(":")
    try:
        limits = float(low), float(high)
    except ValueError:
        limits = math.nan, math.nan
    if not (math.isfinite(limits[1] - limits[0]) and limits[0] < limits[1]):
        raise ValueError("expected LOW:HIGH, two numbers, the lower one first, such as 0:10000")
    return limits


Range = Annotated[str, BeforeValidator(_as_range)]


def _as_pipeline(value: object) -> object:
    """A pipeline within a configuration, or an `A.Compose`, as JSON."""
    if isinstance(value, list) and any(hasattr(one, "to_dict") for one in value):
        raise ValueError("expected one pipeline, A.Compose([...]), in place of a list of transforms")
    try:
        if hasattr(value, "to_dict"):
            value = value.to_dict()
        elif isinstance(value, os.PathLike):
            return os.fspath(value)
        return json.dumps(value, default=lambda one: one.value) if isinstance(value, list | dict) else value
    except (AttributeError, NotImplementedError, ValueError) as error:
        raise ValueError(f"this pipeline cannot be written down: {error}") from None


Pipeline = Annotated[str, BeforeValidator(_as_pipeline), PathUnless(frozenset())]


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Which pictures, and what is done to them before a network sees them."""

    data: FolderOrURL | None = None
    """The data set: a folder, here or in a store (s3://bucket/pairs), a CSV file of pairs, or `toy` for pictures drawn
    on the fly."""
    direction: Literal["a2b", "b2a"] = "a2b"
    """a2b trains A to B, b2a trains B to A; CycleGAN trains both."""
    channels_a: Annotated[int, Interval(ge=1, le=64)] = 3
    """Channels of domain A: 1 (luminance), 3 (RGB) or 4 (RGB with alpha)."""
    channels_b: Annotated[int, Interval(ge=1, le=64)] = 3
    """Channels of domain B."""
    classes_a: Classes = ""
    """Domain A holds labels: `facades`, a text file with one colour a line, or the number of classes if its grey
    pictures hold class indices (255: no label). The network sees one channel for each class. Empty: A holds
    pictures."""
    classes_b: Classes = ""
    """Domain B holds labels, as --classes-a."""
    range_a: Range = ""
    """Domain A holds values in units, from LOW to HIGH, such as 0:10000 for reflectance or 200:330 for Kelvin: TIFF or
    .npy files of any numbers. Values outside are clipped. The model file says the range, so that a translation takes
    and gives such values. Empty: A holds pictures."""
    range_b: Range = ""
    """Domain B holds values in units, as --range-a."""
    instance_edges: bool = False
    """Add an input channel with the edges between instances (1, elsewhere -1). The input must be labels; their alpha
    channel tells instances apart."""
    preprocess: Literal["resize_and_crop", "crop", "scale_width", "scale_width_and_crop", "scale_shortside", "none"] = (
        "resize_and_crop"
    )
    """How pictures come to size: stretched to a square, scaled by one side, cropped, or left as they are."""
    load_size: Annotated[int, Interval(ge=1, le=65_535)] = 286
    """The size that pictures are scaled to before the crop, in pixels."""
    crop_size: Annotated[int, Interval(ge=1, le=65_535)] = 256
    """The side of the random square crop, in pixels."""
    random_zoom: Annotated[float, Interval(ge=0.05, le=1)] = 1.0
    """Crop at a random scale between this and 1, e.g. 0.333 for SinCUT; 1 is off."""
    flip: bool = True
    """Mirror half of the samples."""
    augment: Pipeline = ""
    """Change training crops by transforms of albumentations: a YAML file with a list of them, or one that `A.save`
    wrote. Both pictures of a pair are changed alike."""
    batch_size: Annotated[int, Ge(1)] | Literal["auto"] = 1
    """Samples per step and process. auto: the largest power of two up to 64 that fits into memory, measured before the
    run."""
    workers: Annotated[int, Interval(ge=0, le=256)] | Literal["auto"] = 2
    """Processes that load data; 0 loads in the training process. auto: as many as needed, measured. Results do not
    depend on it."""
    cache: Path | None = None
    """A folder for decoded and resized pictures, so that later epochs are faster; 0.25 MB for each picture of load size
    286. Several runs may share it."""
    check: Literal["auto", "quick", "full", "off"] = "auto"
    """Check the pictures before training. full: decode all. quick: read headers. auto: decode up to 5,000, read the
    other headers."""
    on_bad: Literal["error", "skip"] = "error"
    """Damaged pictures: stop (error), or replace each by the next one, up to 5 % of all (skip)."""
    pairs: Literal["error", "intersect"] = "error"
    """Pictures without a partner: stop (error), or leave them out (intersect)."""
    paired_data: FolderOrURL | None = None
    """Mix in pairs of the two domains from this data set (CycleGAN only)."""
    paired_share: Annotated[float, Interval(gt=0, lt=1)] = 0.25
    """The share of samples that come from --paired-data."""
    seed: Annotated[int, Interval(ge=0, le=2**32 - 1)] = 0
    """The seed of everything random in the training."""


def batch_size(options: DataOptions) -> int:
    """The batch size of a training that has begun: by then `auto` has become a number."""
    assert options.batch_size != "auto"
    return options.batch_size


def classes(options: DataOptions) -> "tuple[Palette | None, Palette | None]":
    """The classes of domain A and of B, None where it holds pictures. Raises `UsageError`, `InputError`."""
    from i2i.images.palettes import find  # here, so that a mistake in the options does not wait for the image libraries

    a = find(options.classes_a, "classes_a") if options.classes_a else None
    return a, find(options.classes_b, "classes_b") if options.classes_b else None


def ranges(options: DataOptions) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """The ranges of domain A and of B, None where it holds pictures or labels. Raises `UsageError`."""
    for side in "ab":
        given, labels = getattr(options, f"range_{side}"), getattr(options, f"classes_{side}")
        if given and labels:
            raise UsageError(f"range_{side} = {given}: domain {side.upper()} holds labels, which have no range")
        if given and options.data == TOY:
            raise UsageError(f"range_{side} = {given}: the toy data set holds pictures, and no values in units")
    a, b = (parsed_range(given) if given else None for given in (options.range_a, options.range_b))
    return a, b


def channels(options: DataOptions) -> tuple[int, int]:
    """The channels of `ImagePair.a` and `.b`: a domain of labels has one for each class."""
    given = zip(classes(options), (options.channels_a, options.channels_b), strict=True)
    sides = [len(palette) if palette else count for palette, count in given]
    ranges(options)
    source, target = sides if options.direction == "a2b" else reversed(sides)
    if not options.instance_edges:
        return source, target
    if not (options.classes_a if options.direction == "a2b" else options.classes_b):
        raise UsageError(
            "instance_edges: the input is no labels; "
            f"{as_typed(f'classes_{options.direction[0]}')} says which there are"
        )
    return source + 1, target


def check_mixing(options: DataOptions, supports_pairs: bool) -> None:
    """Raises `UsageError` if pairs are to be mixed in where an algorithm has no use for them."""
    if options.paired_data and not supports_pairs:
        raise UsageError(f"paired_data = {options.paired_data}: is for CycleGAN, which alone learns from both")
    if options.paired_share != DataOptions.paired_share and not options.paired_data:
        raise UsageError(
            f"paired_share = {options.paired_share}: of what {as_typed('paired_data')} names; give that too"
        )


def check_one_domain(options: DataOptions) -> None:
    """Raises `UsageError` for options that mean nothing where all pictures are of one domain, B."""
    defaults = DataOptions()
    of_two = ("classes_a", "classes_b", "range_a", "range_b", "instance_edges", "channels_a", "pairs", "paired_data")
    for name in of_two:
        if (value := getattr(options, name)) != getattr(defaults, name):
            raise UsageError(
                f"{name} = {value!r}: there is one domain of pictures, without labels or ranges; leave it out"
            )


def of_one_size(preprocess: str) -> bool:
    """Whether all samples are as large as the crop."""
    return preprocess not in ("scale_width", "none")


def check_crop(options: DataOptions) -> None:
    """Raises `UsageError` if the options of size contradict each other, whatever the network."""
    name, zoom, load, crop = options.preprocess, options.random_zoom, options.load_size, options.crop_size
    crops = of_one_size(name)
    if options.batch_size != 1 and not crops:
        raise UsageError(
            f"batch_size = {options.batch_size}: with preprocess = {name} sizes vary, so only 1 is possible"
        )
    if crops and name != "crop" and crop > load:
        raise UsageError(f"crop_size = {crop}: larger than load_size = {load}; expected at most {load}")
    if zoom == 1:
        return
    if not crops:
        raise UsageError(f"random_zoom = {zoom}: preprocess = {name} crops nothing")
    if options.instance_edges:
        raise UsageError(f"random_zoom = {zoom}: instance_edges would be lost between pixels")
    if name != "crop" and zoom * load < crop:
        raise UsageError(
            f"random_zoom = {zoom}: of load_size = {load} that is less than crop_size = {crop}; a larger "
            f"{as_typed('load_size')}, or at least {math.ceil(1000 * crop / load) / 1000}"
        )


def check_sizes(options: DataOptions, multiple: int, minimum: int) -> None:
    """Raises `UsageError` if the options of size contradict each other, or the network cannot take the samples.

    Height and width that the network takes are multiples of `multiple`, at least `minimum`.
    """
    check_crop(options)
    crops = of_one_size(options.preprocess)
    side, size = ("crop_size", options.crop_size) if crops else ("load_size", options.load_size)
    if crops and size % multiple:
        below, above = size // multiple * multiple, -(-size // multiple) * multiple
        nearest = f"{below} or {above}" if below >= minimum else f"{max(above, minimum)}"
        raise UsageError(f"{side} = {size}: this network takes multiples of {multiple}, for example {nearest}")
    if options.preprocess != "none" and size < minimum:
        raise UsageError(f"{side} = {size}: this network takes at least {minimum}")
