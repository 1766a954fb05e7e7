"""Toy pictures as data sets, as the options ask for them."""

from functools import partial
from typing import Any

from i2i.data.image_sets import Sample
from i2i.data.options import DataOptions, classes
from i2i.data.pair import Datasets
from i2i.data.toy import MIN_SIZE, TOY, ToyDomain, ToyPairs, ToyUnpaired
from i2i.errors import UsageError
from i2i.images import palettes


def toys(options: DataOptions, paired: bool, multiple: int, minimum: int, sample: Sample | None) -> Datasets:
    """Toy pictures of `crop_size`. Raises `UsageError` for what they have not, or a size that does not fit."""
    _check(options, paired, multiple, minimum)
    given: dict[str, Any] = {"size": options.crop_size, "seed": options.seed, "direction": options.direction}
    if sample:
        made: Any = partial(ToyDomain, sample=sample, **given)
    elif paired:
        made = partial(ToyPairs, one_hot_labels=bool(options.classes_a), edges=options.instance_edges, **given)
    else:
        made = partial(ToyUnpaired, **given)
        if options.paired_data:
            return Datasets(made(paired_share=options.paired_share), made(train=False))
    return Datasets(made(), made(train=False))


def _check(options: DataOptions, paired: bool, multiple: int, minimum: int) -> None:
    if (options.channels_a, options.channels_b) != (3, 3):
        raise UsageError("data = toy: its pictures have 3 channels; leave channels_a and channels_b at 3")
    labels = classes(options)
    if labels not in ((None, None), (palettes.TOY, None)) or (labels[0] and not paired):
        raise UsageError(
            "classes: of the toy pictures domain A of the pairs holds labels, --classes-a toy, and no other"
        )
    if options.paired_data not in (None, TOY):
        raise UsageError(f"paired_data = {options.paired_data}: goes with --data {options.paired_data}, not with toy")
    if options.random_zoom < 1:
        raise UsageError(f"random_zoom = {options.random_zoom}: toy pictures are drawn as large as crops; leave it out")
    size, least = options.crop_size, max(MIN_SIZE, minimum)
    if size < least:
        raise UsageError(f"crop_size = {size}: toy pictures for this network have at least {least}")
    if size % multiple:
        raise UsageError(f"crop_size = {size}: this network takes toy pictures of multiples of {multiple}")
