"""Losses that any generator may take beside those of its paper: against another structure, flicker, and grids."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from i2i.device import exact_float32

STRUCTURE_SIZE = 11  # pixels of the window of `structure_loss`, which a picture has at least
_SIGMA = 1.5
_C2 = 0.03**2
GRID_SIZE, _GRID_WINDOW = 32, 64  # pixels, at least, of a picture for `grid_loss`, and of its windows where they fit
_PERIOD = 4  # pixels: after two doublings
_BESIDE = 3  # bins, beyond what Hann's window smears
_FINE = 1 / 6.4  # cycles a pixel from where on a frequency counts as texture
_LEAST = 1e-3  # a power of texture below what anybody sees, of pictures in [-1, 1]
_SHIFT, _ANGLE, _ZOOM = 2.0, torch.pi / 180, 0.03  # of `stability_loss`: pixels, radians, a share; each way
_NOISE = 0.02  # standard deviation, of pictures in [-1, 1]


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

    It leaves colours free, and brightness, whose comparison in SSIM is left out. The window is a Gaussian of 11 pixels.
    Both inputs are (N, 1 or 3, H, W) in [-1, 1], H and W at least 11. The result is a scalar from 0 to 2, computed in
    float32 also under autocast.
    """
    with torch.autocast(made.device.type, enabled=False), exact_float32():  # variances are small differences
        x, y = ((luminance(images.float()) + 1) / 2 for images in (made, source))
        places = torch.arange(STRUCTURE_SIZE, device=x.device, dtype=x.dtype) - STRUCTURE_SIZE // 2
        row = torch.exp(-places.square() / (2 * _SIGMA**2))
        row = row / row.sum()

        def smoothed(values: Tensor) -> Tensor:
            return F.conv2d(F.conv2d(values, row[None, None, None]), row[None, None, :, None])

        moments = smoothed(torch.cat([x, y, x * x, y * y, x * y]))
        mean_x, mean_y, xx, yy, xy = moments.chunk(5)
        covariance = xy - mean_x * mean_y
        variances = (xx - mean_x.square()) + (yy - mean_y.square())
        return 1 - ((2 * covariance + _C2) / (variances + _C2)).mean()


def stability_loss(generator: Callable[[Tensor], Tensor], x: Tensor, made: Tensor) -> Tensor:
    """mean (G(T(x) + noise) - T(G(x)))² over the pixels that T takes from within the picture, a scalar (Eilertsen,
    Mantiuk, Unger, "Single-frame Regularization for Temporally Stable CNNs", CVPR 2019, arXiv:1902.10424).

    G commutes with a small change T of the picture: a shift, rotation and zoom, drawn for each picture, and noise on
    the input alone. It keeps film from flickering, and it regularises where pictures are few. Deviations from the
    paper: no shear; T(G(x)) is a constant, so that the loss costs one more pass of G and no gradient of the
    interpolation.

    `x` is (N, C, H, W) in [-1, 1], `made` is G(x), of the same height and width. torch's global generator on the CPU
    draws T. All but G is computed in float32.
    """
    grid = _moves(len(x), x.shape[2], x.shape[3]).to(x.device, non_blocking=True)
    with torch.no_grad():
        moved = _sampled(x.float(), grid).clamp(-1, 1)
        expected = _sampled(made.detach().float(), grid)
        inside = (grid.abs() <= 1).all(dim=-1)[:, None]
    found = generator((moved + _NOISE * torch.randn_like(moved)).to(x.dtype))
    apart = (found.float() - expected).square() * inside
    return apart.sum() / (inside.sum() * found.shape[1])


def _moves(count: int, height: int, width: int) -> Tensor:
    """Where each pixel of each picture comes from, (N, H, W, 2) in [-1, 1] from border to border."""
    right, down, angle, zoom = (2 * torch.rand(4, count) - 1) * torch.tensor([_SHIFT, _SHIFT, _ANGLE, _ZOOM])[:, None]
    cosine, sine = (1 + zoom) * torch.cos(angle), (1 + zoom) * torch.sin(angle)
    across = torch.stack([cosine, -sine * height / width, 2 * right / width])
    along = torch.stack([sine * width / height, cosine, 2 * down / height])
    return F.affine_grid(torch.stack([across, along]).permute(2, 0, 1), [count, 1, height, width], align_corners=False)


def _sampled(images: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(images, grid, mode="bicubic", padding_mode="reflection", align_corners=False)


def grid_loss(images: Tensor) -> Tensor:
    """Σ_k max(0, E_w[(P_w(k) - P̄_w(k)) / T_w]) over the 15 frequencies k whose period in x and y is 1, 2 or 4 pixels.

    A generator that doubles twice can draw a pattern that repeats every second or fourth pixel: a checkerboard (Odena
    et al. 2016, distill.pub/2016/deconv-checkerboard) or a weave (docs/lab-book.md), which a discriminator on frozen
    features may take for the texture of canvas. In the spectrum it is a line at a multiple of a quarter of the sampling
    rate. A real picture has no line there, because it knows nothing of the grid. Durall, Keuper, Keuper, "Watch your
    Up-Convolution", CVPR 2020 (arXiv:2003.01826), fit the whole spectrum of generated pictures to that of real ones.
    This loss lowers the lines and leaves the rest of the spectrum to the discriminator.

    P_w is the power spectrum of the mean of the channels in a window w of 64 × 64 pixels (32 × 32 in a smaller picture)
    under Hann's window. P̄_w(k) is the mean of four frequencies beside k. T_w is the mean power of texture, so that a
    pattern counts as much as it is visible. E_w is the mean over the windows of a picture. They overlap by half, and
    less than half a window at the right and bottom edges stays outside of them. No gradient flows to P̄_w and T_w, so
    the loss lowers lines and not texture.

    `images` is (N, C, H, W) in [-1, 1], H and W at least 32. The result is the mean over the pictures, a scalar ≥ 0,
    in float32.
    """
    side = _GRID_WINDOW if min(images.shape[2:]) >= _GRID_WINDOW else GRID_SIZE
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
