"""A picture does not show the grid on which a network computes it.

A generator that doubles twice can draw a pattern that repeats every second or fourth pixel: a checkerboard (Odena et
al. 2016, distill.pub/2016/deconv-checkerboard) or a weave (docs/lab-book.md), which a discriminator on frozen features
may take for the texture of canvas. In the spectrum it is a line at a multiple of a quarter of the sampling rate. A real
picture has no line there, because it knows nothing of the grid.

Durall, Keuper, Keuper, "Watch your Up-Convolution", CVPR 2020 (arXiv:2003.01826), fit the whole spectrum of generated
pictures to that of real ones. This loss lowers the lines and leaves the rest of the spectrum to the discriminator.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

WINDOW = 32  # pixels of height and width, which a picture has at least
_STRIDE = 16
_PERIOD = 4  # pixels: after two doublings
_BESIDE = 3  # bins, beyond what Hann's window smears
_FINE = 5  # bins from where on a frequency counts as texture
_LEAST = 1e-3  # a power of texture below what anybody sees, of pictures in [-1, 1]


def grid_loss(images: Tensor) -> Tensor:
    """Σ_k max(0, E_w[(P_w(k) - P̄_w(k)) / T_w]) over the 15 frequencies k whose period in x and y is 1, 2 or 4 pixels.

    P_w is the power spectrum of the mean of the channels in a window w of 32 × 32 pixels under Hann's window. P̄_w(k) is
    the mean of four frequencies beside k. T_w is the mean power of texture, so that a pattern counts as much as it is
    seen. E_w is the mean over all windows of all pictures. No gradient flows to P̄_w and T_w, so the loss lowers lines
    and not texture.

    `images` is (N, C, H, W) in [-1, 1], H and W at least 32; the result a scalar from 0 up. In float32.
    """
    power = _power(images.float().mean(dim=1, keepdim=True))
    bins = torch.arange(WINDOW, device=images.device)
    bins = torch.minimum(bins, WINDOW - bins)
    fine = torch.maximum(bins[:, None], bins[None, :]) >= _FINE
    texture = power[:, fine].mean(dim=1).detach() + _LEAST
    lines = [
        (row, column) for row in range(0, WINDOW, WINDOW // _PERIOD) for column in range(0, WINDOW, WINDOW // _PERIOD)
    ]
    above = [((power[:, row, column] - _beside(power, row, column)) / texture).mean() for row, column in lines[1:]]
    return F.relu(torch.stack(above)).sum()


def _power(grey: Tensor) -> Tensor:
    """(N, 1, H, W) → (windows, 32, 32)."""
    windows = F.unfold(grey, WINDOW, stride=_STRIDE).transpose(1, 2).reshape(-1, WINDOW, WINDOW)
    hann = torch.hann_window(WINDOW, device=grey.device)
    weights = hann[:, None] * hann
    flat = (windows - windows.mean(dim=(1, 2), keepdim=True)) * weights
    return torch.fft.fft2(flat).abs().square() / weights.square().sum()


def _beside(power: Tensor, row: int, column: int) -> Tensor:
    rows = [power[:, (row + step) % WINDOW, column] for step in (-_BESIDE, _BESIDE)]
    columns = [power[:, row, (column + step) % WINDOW] for step in (-_BESIDE, _BESIDE)]
    return torch.stack(rows + columns).mean(dim=0).detach()
