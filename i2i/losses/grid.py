"""A penalty on patterns that repeat with the grid of the generator.

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

WINDOW, SMALLEST = 64, 32  # pixels of height and width; the smaller one for pictures that have not so many
_PERIOD = 4  # pixels: after two doublings
_BESIDE = 3  # bins, beyond what Hann's window smears
_FINE = 1 / 6.4  # cycles a pixel from where on a frequency counts as texture
_LEAST = 1e-3  # a power of texture below what anybody sees, of pictures in [-1, 1]


def grid_loss(images: Tensor) -> Tensor:
    """Σ_k max(0, E_w[(P_w(k) - P̄_w(k)) / T_w]) over the 15 frequencies k whose period in x and y is 1, 2 or 4 pixels.

    P_w is the power spectrum of the mean of the channels in a window w of 64 × 64 pixels (32 × 32 in a smaller picture)
    under Hann's window. P̄_w(k) is the mean of four frequencies beside k. T_w is the mean power of texture, so that a
    pattern counts as much as it is visible. E_w is the mean over the windows of a picture. They overlap by half, and
    less than half a window at the right and bottom edges stays outside of them. No gradient flows to P̄_w and T_w, so
    the loss lowers lines and not texture.

    `images` is (N, C, H, W) in [-1, 1], H and W at least 32. The result is the mean over the pictures, a scalar ≥ 0,
    in float32.
    """
    side = WINDOW if min(images.shape[2:]) >= WINDOW else SMALLEST
    power = _power(images.float().mean(dim=1, keepdim=True), side)
    frequency = torch.fft.fftfreq(side, device=images.device).abs()
    fine = torch.maximum(frequency[:, None], frequency) >= _FINE
    texture = power[..., fine].mean(dim=-1).detach() + _LEAST
    places = range(0, side, side // _PERIOD)
    lines = [(row, column) for row in places for column in places][1:]
    above = [((power[..., row, column] - _beside(power, row, column)) / texture).mean(dim=1) for row, column in lines]
    return F.relu(torch.stack(above)).mean(dim=1).sum()


def _power(grey: Tensor, side: int) -> Tensor:
    """(N, 1, H, W) → (N, windows, side, side), of windows that overlap by half."""
    windows = F.unfold(grey, side, stride=side // 2).transpose(1, 2).unflatten(2, (side, side))
    hann = torch.hann_window(side, device=grey.device)
    weights = hann[:, None] * hann
    flat = (windows - windows.mean(dim=(2, 3), keepdim=True)) * weights
    return torch.fft.fft2(flat).abs().square() / weights.square().sum()


def _beside(power: Tensor, row: int, column: int) -> Tensor:
    side = power.shape[-1]
    rows = [power[..., (row + step) % side, column] for step in (-_BESIDE, _BESIDE)]
    columns = [power[..., row, (column + step) % side] for step in (-_BESIDE, _BESIDE)]
    return torch.stack(rows + columns).mean(dim=0).detach()
