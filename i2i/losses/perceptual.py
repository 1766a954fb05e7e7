"""Losses that compare what networks see in two pictures (Wang et al. 2018, arXiv:1711.11585, Sec. 3.3)."""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.errors import ModelError, UsageError

Features = Sequence[Sequence[Tensor]]
_PLAN = (64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M", 512, 512, 512, 512, "M", 512)
_SEEN = {1: 1 / 32, 6: 1 / 16, 11: 1 / 8, 20: 1 / 4, 29: 1.0}  # relu1_1 … relu5_1 and their weights
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HOW = (
    "torchvision's ImageNet weights of VGG-19 as safetensors: python -c \"import torch, safetensors.torch as s; "
    "s.save_file(torch.load('vgg19-dcbb9e9d.pth', weights_only=True), 'vgg19.safetensors')\""
)


def feature_matching(made: Features, real: Features) -> Tensor:
    """Σᵢ 1/Nᵢ ‖Dᵢ(s, x) - Dᵢ(s, G(s))‖₁ over the layers of a discriminator but its logits, the scales' mean (Eq. 4).

    `made` and `real` are, of each scale, what the layers answer, from the first to the logits; no gradient flows to
    `real`.
    """
    scales = [
        torch.stack([F.l1_loss(one, other.detach()) for one, other in zip(ours[:-1], theirs[:-1], strict=True)]).sum()
        for ours, theirs in zip(made, real, strict=True)
    ]
    return torch.stack(scales).mean()


class Perceptual:
    """Σᵢ wᵢ ‖Fᵢ(x) - Fᵢ(G(s))‖₁ over five layers of VGG-19 (Simonyan & Zisserman 2015), w from 1/32 to 1.

    Raises `UsageError` if there is no such file, `ModelError` if it holds anything but those weights.
    """

    def __init__(self, path: Path) -> None:
        self._network = _vgg()
        if not path.is_file():
            raise UsageError(f"vgg = {path}: no such file; expected {_HOW}")
        try:
            weights = load_file(path)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{path}: not a safetensors file ({error}); expected {_HOW}") from None
        expected = self._network.state_dict()
        own = {name.removeprefix("features."): value.float() for name, value in weights.items()}
        for name, value in expected.items():
            if name not in own or own[name].shape != value.shape:
                raise ModelError(f"{path}: features.{name} is missing or has another shape; expected {_HOW}")
        self._network.load_state_dict({name: own[name] for name in expected})
        self._mean, self._deviation = (torch.tensor(values)[:, None, None] for values in (_MEAN, _DEVIATION))

    def __call__(self, made: Tensor, real: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] each, H and W at least 16 → a scalar; no gradient flows to `real`."""
        self._network.to(made.device)
        self._mean, self._deviation = self._mean.to(made.device), self._deviation.to(made.device)
        with torch.no_grad():
            expected = self._seen(real)
        pairs = zip(_SEEN.values(), self._seen(made), expected, strict=True)
        return torch.stack([weight * F.l1_loss(one, other) for weight, one, other in pairs]).sum()

    def _seen(self, x: Tensor) -> list[Tensor]:
        y, found = ((x + 1) / 2 - self._mean) / self._deviation, []
        for number, layer in enumerate(self._network):
            y = layer(y)
            if number in _SEEN:
                found.append(y)
        return found


def _vgg() -> nn.Sequential:
    """VGG-19 up to relu5_1, numbered as torchvision's `features`."""
    layers: list[nn.Module] = []
    channels = 3
    for entry in _PLAN:
        if isinstance(entry, int):
            layers += [nn.Conv2d(channels, entry, 3, padding=1), nn.ReLU()]
            channels = entry
        else:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers).requires_grad_(False).eval()
