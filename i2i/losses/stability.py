"""A loss that lets the output move with the input: Eilertsen, Mantiuk, Unger, "Single-frame Regularization for
Temporally Stable CNNs", CVPR 2019 (arXiv:1902.10424).

G commutes with a small change T of the picture, ‖G(T(x)) - T(G(x))‖²: a shift, rotation and zoom, drawn for each
picture, and noise on the input alone. It keeps film from flickering, and it regularises where pictures are few.

Deviations from the paper: no shear; T(G(x)) is a constant, so that the loss costs one more pass of G and no gradient of
the interpolation.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

_SHIFT, _ANGLE, _ZOOM = 2.0, torch.pi / 180, 0.03  # pixels, radians, a share; each way
_NOISE = 0.02  # standard deviation, of pictures in [-1, 1]


def stability_loss(generator: Callable[[Tensor], Tensor], x: Tensor, made: Tensor) -> Tensor:
    """mean (G(T(x) + noise) - T(G(x)))² over the pixels that T takes from within the picture, a scalar.

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
