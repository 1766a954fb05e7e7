"""What ails a generator, told from the rows of a sample grid: pure functions that say what is wrong, or None."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

SAME = "output equals input"
INVERTED = "colours inverted"
COLLAPSED = "one output for all inputs"


@dataclass(frozen=True)
class Translation:
    """One direction in a sample grid: inputs, outputs and, in paired data, targets; each (C, H, W) in [-1, 1].

    There are no inputs where outputs are made of noise; `others` are pictures of the domain to which outputs belong.
    """

    name: str
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    targets: Sequence[Tensor] = ()
    others: Sequence[Tensor] = ()

    def finite(self) -> "Translation":
        """Without the pictures of which a NaN or an infinity is part."""
        columns = (self.inputs, self.outputs, self.targets, self.others)
        rows = zip(*filter(None, columns), strict=True)
        kept = [n for n, row in enumerate(rows) if all(bool(torch.isfinite(picture).all()) for picture in row)]
        return Translation(self.name, *([column[n] for n in kept] if column else [] for column in columns))


def output_equals_input(seen: Translation, least: float = 0.02) -> str | None:
    """Mean |output - input| below 0.02 of the range of the inputs: less than a look could tell apart.

    Of full contrast that is 5 levels of 255. Silent in pairs whose target is nearly the input too, and without inputs.
    """
    seen = seen.finite()
    if not seen.inputs:
        return None
    distance = _distance(seen.outputs, seen.inputs)
    wanted = _distance(seen.targets, seen.inputs) if seen.targets else None
    if distance is None:
        return None
    span = _span(seen.inputs)
    if distance >= least * span or (wanted is not None and wanted < 2 * least * span):
        return None
    return (
        f"{seen.name} changes its input by {distance / span:.1%} of its range. Less --lambda-identity, or a "
        "discriminator that sees more (--discriminator), may help"
    )


def colours_inverted(seen: Translation, most: float = -0.5) -> str | None:
    """Brightness of output and input (in paired data, target) correlate below -0.5: light became dark.

    Two generators that both invert agree with each other, so that a cycle loss does not mind.
    """
    seen = seen.finite()
    other = seen.targets or seen.inputs
    if not other:
        return None
    correlation = statistics.fmean(map(_correlation, seen.outputs, other))
    if correlation >= most:
        return None
    against = "target" if seen.targets else "input"
    return (
        f"{seen.name} is light where its {against} is dark (correlation {correlation:.2f}). Unless the domains "
        "are so, start again, with another --seed or more --lambda-identity"
    )


def one_output(seen: Translation, least: float = 0.05) -> str | None:
    """The outputs differ from their mean by less than 5 % of what the targets, or without those the inputs, do.

    Made of noise, of what other pictures of their domain do. Needs two pictures. Silent if the targets are that much
    alike too: then they should be.
    """
    seen = seen.finite()
    if len(seen.outputs) < 2:
        return None
    inputs, outputs = _spread(seen.inputs or seen.others), _spread(seen.outputs)
    wanted = _spread(seen.targets) if seen.targets else inputs
    if inputs == 0 or wanted < least * inputs or outputs >= least * wanted:
        return None
    others = "targets" if seen.targets else "inputs" if seen.inputs else "pictures of the data set"
    return (
        f"{seen.name} shows the same for {len(seen.outputs)} different {'inputs' if seen.inputs else 'noises'} (they "
        f"differ {outputs / wanted:.1%} as much as the {others}). The generator has collapsed: go back to a state "
        "before, or start again with a smaller --lr"
    )


PICTURE_DETECTORS = {SAME: output_equals_input, INVERTED: colours_inverted, COLLAPSED: one_output}


def _distance(some: Sequence[Tensor], others: Sequence[Tensor]) -> float | None:
    """Mean absolute difference of intensities, 0 to 1; None for pictures that cannot be compared."""
    if not some or any(a.shape != b.shape for a, b in zip(some, others, strict=True)):
        return None
    return statistics.fmean(float((a.float() - b.float()).abs().mean()) / 2 for a, b in zip(some, others, strict=True))


def _span(pictures: Sequence[Tensor]) -> float:
    """Between which intensities all but 1 % at either end lie, 0 to 1: how far apart the two are."""
    low, high = np.percentile(np.concatenate([picture.float().cpu().numpy().ravel() for picture in pictures]), (1, 99))
    return float(high - low) / 2


def _thumbnail(picture: Tensor) -> Tensor:
    """Brightness, (32, 32): what is compared there has the size of objects, not of textures."""
    return F.adaptive_avg_pool2d(picture.float().mean(dim=0, keepdim=True), 32)[0]


def _correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's, of brightness; 0 if one of the two is all of one brightness."""
    a, b = (x - x.mean() for x in (_thumbnail(a), _thumbnail(b)))
    norm = float(a.norm() * b.norm())
    return float((a * b).sum()) / norm if norm > 1e-6 else 0.0


def _spread(pictures: Sequence[Tensor]) -> float:
    small = torch.stack([_thumbnail(picture) for picture in pictures])
    return float((small - small.mean(dim=0)).abs().mean())
