"""Losses that compare pictures: features of a discriminator, of a generator, of a pretrained network (Wang et al.
2018, arXiv:1711.11585, Sec. 3.3; Johnson, Alahi, Fei-Fei 2016, arXiv:1603.08155, Sec. 3.2; Park et al. 2020); and those
that any generator may take beside those of its paper: against another structure, spots, flicker, and grids."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from i2i.device import exact_float32, precise
from i2i.errors import UsageError, check_word
from i2i.networks.projected import STRIDES, feature_network, vgg_features

Features = Sequence[Sequence[Tensor]]
Negatives = Literal["picture", "batch"]
_VGG19: tuple[str | int, ...] = (64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", 512)
_SEEN = {2: 1 / 32, 7: 1 / 16, 12: 1 / 8, 21: 1 / 4, 30: 1.0}  # layers up to relu1_1 … relu5_1, and their weights
_LEAST = 1e-6
_FINEST, _DEEPEST = STRIDES.index(8), STRIDES.index(16) + 1
CONTENT_SIZE = 32  # pixels, which a picture has at least
_NOTHING = 1e-6  # a squared length of features that is as good as none
_LEAST_CONTRAST = 0.1  # in pictures in [-1, 1], so that the noise of a flat one does not count
_HOW = (
    "torchvision's ImageNet weights of VGG-19 as safetensors: python -c \"import torch, safetensors.torch as s; "
    "s.save_file(torch.load('vgg19-dcbb9e9d.pth', weights_only=True), 'vgg19.safetensors')\""
)


def feature_matching(made: Features, real: Features) -> Tensor:
    """Σᵢ 1/Nᵢ ‖Dᵢ(s, x) - Dᵢ(s, G(s))‖₁ over the layers of a discriminator but its logits (Eq. 4), the mean over
    scales.

    `made` and `real` have for each scale the outputs of all layers, from the first to the logits. No gradient flows to
    `real`.
    """
    scales = [
        torch.stack([F.l1_loss(one, other.detach()) for one, other in zip(ours[:-1], theirs[:-1], strict=True)]).sum()
        for ours, theirs in zip(made, real, strict=True)
    ]
    return torch.stack(scales).mean()


def feature_distance(made: Sequence[Tensor], expected: Sequence[Tensor]) -> Tensor:
    """1/L Σₗ ‖Fₗ - Tₗ‖² / ‖Tₗ‖² over L layers, each (N, Cₗ, Hₗ, Wₗ), the mean over the samples.

    F is `made`, T is `expected`; no gradient flows to T. The result is in float32 at least.
    """
    found = []
    for one, other in zip(made, expected, strict=True):
        mine, target = precise(one).flatten(1), precise(other.detach()).flatten(1)
        found.append((mine - target).square().mean(1) / (target.square().mean(1) + _LEAST))
    return torch.stack(found).mean()


def patch_nce(queries: Tensor, keys: Tensor, temperature: float = 0.07, negatives: Negatives = "picture") -> Tensor:
    """-log(exp(v·v⁺/τ) / (exp(v·v⁺/τ) + Σₙ exp(v·vₙ⁻/τ))), the mean over all patches, a scalar: the patchwise
    contrastive loss of CUT (Park et al. 2020, arXiv:2007.15651, Eq. 2 and 3).

    Each patch of the output must recognise its own patch of the input among others, as in InfoNCE (van den Oord et al.
    2018, arXiv:1807.03748). `queries` v and `keys` are (N, S, C), of unit length. v⁺ is the key of the same picture and
    place. v⁻ are the keys of the other places of the picture, or of the batch. No gradient flows to the keys. The
    result is in float32 at least.
    """
    check_word("negatives", negatives, Negatives)
    queries, keys = precise(queries), precise(keys.detach())
    if negatives == "batch":
        queries, keys = (x.flatten(0, 1)[None] for x in (queries, keys))
    with torch.autocast(queries.device.type, enabled=False):
        similarity = queries @ keys.mT / temperature  # (N, S, S): row s is about query s
    pictures, patches = similarity.shape[:2]
    own = torch.arange(patches, device=similarity.device).repeat(pictures)
    return F.cross_entropy(similarity.flatten(0, 1), own)


class Perceptual:
    """Σᵢ wᵢ ‖Fᵢ(x) - Fᵢ(G(s))‖₁ over five layers of VGG-19 (Simonyan & Zisserman 2015), w from 1/32 to 1.

    Raises `UsageError` if there is no such file, `ModelError` if it holds anything but those weights.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise UsageError(f"vgg = {path}: no such file; expected {_HOW}")
        self._network = vgg_features(path, _VGG19, tuple(_SEEN), _HOW)

    def __call__(self, made: Tensor, real: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] each, H and W at least 16 → a scalar; no gradient flows to `real`."""
        self._network.to(made.device)
        with torch.no_grad():
            expected = self._network(real)
        pairs = zip(_SEEN.values(), self._network(made), expected, strict=True)
        return torch.stack([weight * F.l1_loss(one, other) for weight, one, other in pairs]).sum()


class Content:
    """Σₖ (1 - cos(Fₖ(x), Fₖ(G(x)))) + ¼ |ℓ(x) - ℓ(G(x))|, the mean over places and pictures, a scalar from 0 up.

    F are features at strides 8 and 16 of a pretrained network (`feature_network`): they tell which things a
    picture shows, and where. ℓ is the luminance at a quarter of the size, without the picture's mean and contrast: it
    tells light from dark.

    After the feature reconstruction loss of Johnson et al. 2016, Eq. 2, which takes the squared distance of one layer.
    """

    def __init__(self, features: str) -> None:
        """Raises as `feature_network` does."""
        self.features = features
        self._network = feature_network(features)

    def __call__(self, made: Tensor, source: Tensor) -> Tensor:
        """(N, 1 or 3, H, W) in [-1, 1] each, H and W at least 32; no gradient flows to `source`. In float32."""
        self._network.to(made.device)
        with torch.autocast(made.device.type, enabled=False), exact_float32():
            made, source = made.float(), source.detach().float()
            with torch.no_grad():
                expected = self._seen(source)
            pairs = zip(self._seen(made), expected, strict=True)
            apart = [1 - _cosines(one, other).mean() for one, other in pairs]
            light = F.l1_loss(_light_and_dark(made), _light_and_dark(source))
            return torch.stack(apart).sum() + light / 4

    def _seen(self, x: Tensor) -> list[Tensor]:
        found: list[Tensor] = self._network(x.expand(-1, 3, -1, -1), _DEEPEST)
        return found[_FINEST:_DEEPEST]


def _cosines(one: Tensor, other: Tensor) -> Tensor:
    """The cosine of the features at each place, (N, H, W); 1 where both are nearly zero."""
    product = (one * other).sum(dim=1) + _NOTHING
    return product / ((one.square().sum(dim=1) + _NOTHING) * (other.square().sum(dim=1) + _NOTHING)).sqrt()


def _light_and_dark(images: Tensor) -> Tensor:
    x = F.avg_pool2d(luminance(images), 4)
    return (x - x.mean(dim=(2, 3), keepdim=True)) / (x.std(dim=(2, 3), keepdim=True) + _LEAST_CONTRAST)


STRUCTURE_SIZE = 11  # pixels of the window of `structure_loss`, which a picture has at least
_SIGMA = 1.5
_C2 = 0.03**2
SPOT_SIZE = 17  # pixels of the surroundings of a spot, which a picture has at least
_SPOT_REACH, _SPOT_ALLOWANCE = 9, 0.05  # pixels within which the source's own colours count; chroma of a visible spot
GRID_SIZE, _GRID_WINDOW = 32, 64  # pixels, at least, of a picture for `grid_loss`, and of its windows where they fit
_PERIOD = 4  # pixels: after two doublings
_BESIDE = 3  # bins, beyond what Hann's window smears
_FINE = 1 / 6.4  # cycles a pixel from where on a frequency counts as texture
_LEAST_POWER = 1e-3  # a power of texture below what anybody sees, of pictures in [-1, 1]
_SHIFT, _ANGLE, _ZOOM = 2.0, torch.pi / 180, 0.03  # for `stability_loss`: pixels, radians, a share; each way
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


def spot_loss(made: Tensor, source: Tensor) -> Tensor:
    """mean max(0, |s(y)| - max_Ω |s(x)| - τ) / τ, a scalar from 0 up; y is `made`, x is `source`.

    A generator that plays against a discriminator on frozen features puts spots of one saturated colour into small dark
    places (docs/lab-book.md). s is how far the chroma (C_B, C_R of Rec. 601) of a pixel is from the mean of its
    surroundings of 17 × 17 pixels. It may be as far as that of any pixel of the source in the window Ω of 9 × 9 around
    it, and τ = 0.05 further. So strokes may vary a colour, and a colour may move a little.

    Both are (N, 3, H, W) in [-1, 1], H and W at least 17. No gradient flows to `source`. In float32.
    """
    with torch.autocast(made.device.type, enabled=False):
        found = _chroma_contrast(made.float())
        with torch.no_grad():
            own = _chroma_contrast(source.float())
            allowed = F.max_pool2d(own, _SPOT_REACH, stride=1, padding=_SPOT_REACH // 2) + _SPOT_ALLOWANCE
        return F.relu(found - allowed).mean() / _SPOT_ALLOWANCE


def _chroma_contrast(images: Tensor) -> Tensor:
    """The distance of each pixel's chroma from the mean of its surroundings, (N, 1, H, W)."""
    light, (red, _, blue) = luminance(images), images.split(1, dim=1)
    chroma = torch.cat([0.564 * (blue - light), 0.713 * (red - light)], dim=1)
    around = F.avg_pool2d(F.pad(chroma, [SPOT_SIZE // 2] * 4, mode="reflect"), SPOT_SIZE, stride=1)
    return ((chroma - around).square().sum(dim=1, keepdim=True) + _NOTHING).sqrt()


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
    texture = power[..., fine].mean(dim=-1).detach() + _LEAST_POWER
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
