"""Distances between images: pure functions, (N, C, H, W) in [-1, 1] → (N,), compared as intensities in [0, 1]."""

import torch
from torch import Tensor


def _intensities(made: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
    if made.shape != expected.shape:
        raise ValueError(f"images of shapes {tuple(made.shape)} and {tuple(expected.shape)} cannot be compared")
    return (made.float() + 1) / 2, (expected.float() + 1) / 2


def l1(made: Tensor, expected: Tensor) -> Tensor:
    """Mean absolute difference, 0 (equal) to 1."""
    a, b = _intensities(made, expected)
    return (a - b).abs().flatten(1).mean(dim=1)


def psnr(made: Tensor, expected: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, -10 log10(MSE), at most 100 (equal images)."""
    a, b = _intensities(made, expected)
    return -10 * torch.log10((a - b).square().flatten(1).mean(dim=1).clamp_min(1e-10))


def ssim(made: Tensor, expected: Tensor) -> Tensor:
    """Structural similarity, -1 to 1 (equal), mean over pixels and channels (Wang et al. 2004, Eq. 13).

    Gaussian window of 11 pixels, σ = 1.5, K = (0.01, 0.03). Images must be at least 11 pixels wide and high.
    """
    from kornia.metrics import ssim as ssim_map

    a, b = _intensities(made, expected)
    return ssim_map(a, b, window_size=11, max_val=1.0).flatten(1).mean(dim=1)
