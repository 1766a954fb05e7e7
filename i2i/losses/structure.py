"""A loss that keeps contrast and structure of the luminance, and leaves colours free."""

import torch
from torch import Tensor
from torch.nn import functional as F

from i2i.device import exact_float32

WINDOW = 11  # pixels, which a picture has at least
_SIGMA = 1.5
_C2 = 0.03**2


def luminance(images: Tensor) -> Tensor:
    """(N, 3, H, W) or (N, 1, H, W) as (N, 1, H, W): Rec. 601 luma, 0.299 R + 0.587 G + 0.114 B.

    Raises `ValueError` for another number of channels.
    """
    if images.shape[1] == 1:
        return images
    if images.shape[1] != 3:
        raise ValueError(f"images of {images.shape[1]} channels have no luminance")
    red, green, blue = images.split(1, dim=1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def structure_loss(made: Tensor, source: Tensor) -> Tensor:
    """1 - c·s of the luminances: the contrast c and the structure s of SSIM (Wang et al. 2004, Eq. 9 and 10).

    The window is a Gaussian of 11 pixels. SSIM's comparison of brightness is left out. Both inputs are (N, 1 or 3, H,
    W) in [-1, 1], H and W at least 11. The result is a scalar from 0 to 2, computed in float32 also under autocast.
    """
    with torch.autocast(made.device.type, enabled=False), exact_float32():  # variances are small differences
        x, y = ((luminance(images.float()) + 1) / 2 for images in (made, source))
        places = torch.arange(WINDOW, device=x.device, dtype=x.dtype) - WINDOW // 2
        row = torch.exp(-places.square() / (2 * _SIGMA**2))
        row = row / row.sum()

        def smoothed(values: Tensor) -> Tensor:
            return F.conv2d(F.conv2d(values, row[None, None, None]), row[None, None, :, None])

        moments = smoothed(torch.cat([x, y, x * x, y * y, x * y]))
        mean_x, mean_y, xx, yy, xy = moments.chunk(5)
        covariance = xy - mean_x * mean_y
        variances = (xx - mean_x.square()) + (yy - mean_y.square())
        return 1 - ((2 * covariance + _C2) / (variances + _C2)).mean()
