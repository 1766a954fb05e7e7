"""Metrics of pairs of pictures: pure functions, (N, C, H, W) in [-1, 1] → (N,), compared as intensities in [0, 1]."""

import torch
from torch import Tensor
from torch.nn import functional as F

from i2i.losses.structure import luminance

WINDOW = 11  # pixels of SSIM's Gaussian window, σ = 1.5
_SIGMA = 1.5
_C2 = 0.03**2
# Wang et al. 2003, Sec. 3.2: the weights of the five scales
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
MIN_SIDE = {
    "ssim": WINDOW,
    "luminance_ssim": WINDOW,
    "ms_ssim": WINDOW * 2 ** (len(_SCALE_WEIGHTS) - 1),
    "lpips": 64,
}
"""Pixels a side that a picture needs for a metric; one for all others."""


def _intensities(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    if output.shape != target.shape:
        raise ValueError(f"images of shapes {tuple(output.shape)} and {tuple(target.shape)} cannot be compared")
    return (output.float() + 1) / 2, (target.float() + 1) / 2


def l1(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference, 0 (equal) to 1."""
    a, b = _intensities(output, target)
    return (a - b).abs().flatten(1).mean(dim=1)


def psnr(output: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, -10 log10(MSE), at most 100 (equal images)."""
    a, b = _intensities(output, target)
    return -10 * torch.log10((a - b).square().flatten(1).mean(dim=1).clamp_min(1e-10))


def ssim(output: Tensor, target: Tensor) -> Tensor:
    """Structural similarity, -1 to 1 (equal), mean over pixels and channels (Wang et al. 2004, Eq. 13).

    Gaussian window of 11 pixels, σ = 1.5, K = (0.01, 0.03), edges mirrored. Images must be at least 11 pixels wide
    and high.
    """
    return _ssim(*_intensities(output, target))


def _ssim(a: Tensor, b: Tensor) -> Tensor:
    from kornia.metrics import ssim as ssim_map

    return ssim_map(a, b, window_size=WINDOW, max_val=1.0).flatten(1).mean(dim=1)


def ms_ssim(output: Tensor, target: Tensor) -> Tensor:
    """Multi-scale structural similarity, 0 to 1 (equal) (Wang, Simoncelli & Bovik 2003, Eq. 7).

    Contrast and structure at four scales, the mean over channels and the pixels where the window of `ssim` lies
    inside, and `ssim` at the fifth; between scales, the mean of 2×2 pixels. A negative value counts as 0. These
    are torchmetrics' conventions. Images must be at least 176 pixels wide and high. Raises `ValueError` for
    smaller ones.
    """
    a, b = _intensities(output, target)
    if min(a.shape[-2:]) < MIN_SIDE["ms_ssim"]:
        raise ValueError(f"MS-SSIM needs {MIN_SIDE['ms_ssim']} pixels a side, not {tuple(a.shape[-2:])}")
    result = torch.ones(len(a), device=a.device)
    for weight in _SCALE_WEIGHTS[:-1]:
        result = result * _contrast_structure(a, b).clamp_min(0) ** weight
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return result * _ssim(a, b).clamp_min(0) ** _SCALE_WEIGHTS[-1]


def _contrast_structure(a: Tensor, b: Tensor) -> Tensor:
    """Contrast times structure (Wang et al. 2004, Eq. 9 with Eq. 10, C₃ = C₂ / 2), the mean over an image."""
    from kornia.filters import get_gaussian_kernel1d

    taps = get_gaussian_kernel1d(WINDOW, _SIGMA, device=a.device, dtype=a.dtype)[0]
    rows, columns = (taps.reshape(shape).expand(a.shape[1], 1, -1, -1) for shape in ((1, 1, -1, 1), (1, 1, 1, -1)))

    def mean(x: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(x, rows, groups=x.shape[1]), columns, groups=x.shape[1])

    mean_a, mean_b = mean(a), mean(b)
    variances = mean(a * a) - mean_a**2 + mean(b * b) - mean_b**2
    return ((2 * (mean(a * b) - mean_a * mean_b) + _C2) / (variances + _C2)).flatten(1).mean(dim=1)


def luminance_ssim(output: Tensor, source: Tensor) -> Tensor:
    """SSIM of the luminances of outputs and inputs, -1 to 1 (same structure; colours do not count)."""
    return ssim(luminance(output), luminance(source))


def cycle_error(returned: Tensor, source: Tensor) -> Tensor:
    """Mean absolute difference of inputs and what came back through both directions, 0 to 1.

    The cycle consistency loss (Zhu et al. 2017, Eq. 2), measured on intensities in [0, 1].
    """
    return l1(returned, source)
