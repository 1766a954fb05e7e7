"""How far the set of what the generators make is from the set of held-out pictures, while training."""

from collections.abc import Mapping

import torch
from torch import Tensor

from i2i import images
from i2i.evaluation.metrics.sliced_wasserstein import PATCH, swd
from i2i.evaluation.resizer import squared
from i2i.images import Pixels

SIZE = 256  # of pictures that are not squares of one size, as in an evaluation
SEEDS = (0,)  # one, where an evaluation has three: always the same draw, so that validations can be compared
METRIC = "swd"
LEAST = PATCH  # pixels a side

Seen = dict[str, tuple[Pixels | None, Pixels]]


def seen(pictures: Mapping[str, Tensor]) -> Seen:
    """Of the columns of a sample grid, (1, C, H, W) each, what is made of a domain and its real picture, in 8 bits.

    `fake_B` → (fake_B, real_B); None in the place of what is not finite.
    """
    found: Seen = {}
    for domain in "AB":
        fake, real = pictures.get(f"fake_{domain}"), pictures.get(f"real_{domain}")
        if fake is not None and real is not None and fake.shape[1] == real.shape[1]:
            finite = bool(torch.isfinite(fake).all())
            found[f"fake_{domain}"] = images.to_pixels(fake[0]) if finite else None, images.to_pixels(real[0])
    return found


def distances(pictures: Mapping[int, Seen]) -> dict[str, float]:
    """`<name>/swd` → 10³ · sliced Wasserstein distance, of what was seen of each held-out picture, by its place.

    A function of the pictures, whichever process saw them. NaN where something was not finite; nothing where
    pictures are smaller than 7 pixels.
    """
    found = {}
    for name in sorted({name for each in pictures.values() for name in each}):
        pairs = [pictures[place][name] for place in sorted(pictures)]
        sets = [[images.to_tensor(side) for side in pair if side is not None] for pair in pairs]
        if min(min(picture.shape[-2:]) for pair in sets for picture in pair) < LEAST:
            continue
        if any(len(pair) < 2 for pair in sets):
            found[f"{name}/{METRIC}"] = float("nan")
            continue
        made, real = zip(*map(tuple, _alike(sets)), strict=True)
        found[f"{name}/{METRIC}"] = swd(made, real, SEEDS).mean
    return found


def _alike(pairs: list[list[Tensor]]) -> list[list[Tensor]]:
    """All as they are, if they are squares of one size; else brought to `SIZE`."""
    sizes = {picture.shape[-2:] for pair in pairs for picture in pair}
    height, width = next(iter(sizes))
    if len(sizes) == 1 and height == width:
        return pairs
    return [[squared(picture, SIZE) for picture in pair] for pair in pairs]
