"""Losses that compare features: of a discriminator, of a generator, of a pretrained network (Wang et al. 2018,
arXiv:1711.11585, Sec. 3.3; Johnson, Alahi, Fei-Fei 2016, arXiv:1603.08155, Sec. 3.2; Park et al. 2020)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from i2i.device import exact_float32, precise
from i2i.errors import UsageError
from i2i.losses.regularisers import luminance
from i2i.networks.pretrained import STRIDES, feature_network, vgg_features

Features = Sequence[Sequence[Tensor]]
Negatives = Literal["picture", "batch"]
_VGG19: tuple[str | int, ...] = (64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", 512)
_SEEN = {2: 1 / 32, 7: 1 / 16, 12: 1 / 8, 21: 1 / 4, 30: 1.0}  # layers up to relu1_1 … relu5_1, and their weights
_LEAST = 1e-6
_FINEST, _DEEPEST = STRIDES.index(8), STRIDES.index(16) + 1
CONTENT_SIZE = 32  # pixels, which a picture has at least
_NOTHING = 1e-6  # a squared length of features that is as good as none
_LEAST_CONTRAST = 0.1  # of pictures in [-1, 1], so that the noise of a flat one does not count
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

    F are features at strides 8 and 16 of a pretrained network (`pretrained.feature_network`): they tell which things a
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
