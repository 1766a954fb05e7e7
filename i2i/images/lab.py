"""Pictures as lightness and colours: CIE L*a*b* of sRGB under D65, by kornia. (This imports torch.)"""

import torch
from torch import Tensor

LIGHTEST, AB_RANGE = 100.0, 110.0
"""L* goes from 0 to 100; a* and b* of sRGB from -108 to 98."""


def split(picture: Tensor) -> tuple[Tensor, Tensor]:
    """sRGB (…, 3, H, W) in [-1, 1] → L* (…, 1, H, W) and a*, b* (…, 2, H, W), 0 to 100 and -110 to 110 as [-1, 1]."""
    from kornia.color import rgb_to_lab  # here, for `--help` imports the algorithms and waits for no more than torch

    light, colours = rgb_to_lab((picture.float() + 1) / 2).split([1, 2], dim=-3)
    return light * (2 / LIGHTEST) - 1, colours / AB_RANGE


def joined(light: Tensor, colours: Tensor) -> Tensor:
    """What `split` gives, put together; colours that sRGB has not are clamped. Float32 at least."""
    from kornia.color import lab_to_rgb

    lab = torch.cat([(_precise(light) + 1) * (LIGHTEST / 2), _precise(colours) * AB_RANGE], dim=-3)
    return lab_to_rgb(lab) * 2 - 1


def _precise(values: Tensor) -> Tensor:
    return values.float() if values.itemsize < 4 else values
