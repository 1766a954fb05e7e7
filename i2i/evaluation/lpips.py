"""LPIPS (Zhang et al. 2018): torchmetrics' network and heads, with a backbone from a file of the user."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from i2i.errors import ModelError, UsageError
from i2i.evaluation.weights_file import StateDict, read_weights

_WHAT = "torchvision's ImageNet weights of AlexNet (alexnet-owt-7be5be79.pth) or VGG-16 (vgg16-397923af.pth)"
LEAST = 64  # pixels a side

Lpips = Callable[[Tensor, Tensor], Tensor]


def load(path: Path, device: torch.device | str = "cpu") -> tuple[Lpips, str, str]:
    """The distance, the backbone's name (`alex` or `vgg`) and the file's SHA-256.

    The distance takes two batches (N, 3, H, W) in [-1, 1] to (N,): 0 (equal) and up, Eq. 1 of the paper with the
    learned weights of its version 0.1, which come with torchmetrics. Raises `UsageError` without torchmetrics or
    the file, `ModelError` if it holds anything else; no code in it is ever run.
    """
    try:
        from torchmetrics.functional.image.lpips import _LPIPS
    except ImportError:
        raise UsageError("LPIPS needs torchmetrics: pip install 'i2i[metrics]'") from None
    if not path.is_file():
        raise UsageError(f"lpips = {path}: no such file; expected {_WHAT}")
    weights, sha256 = read_weights(path, _WHAT)
    kind = _kind(path, weights)
    # its own heads, a backbone without weights: it neither fetches nor opens anything of the user's
    network = _LPIPS(pretrained=True, net=kind, pnet_rand=True)
    backbone = {_place(name): name for name in network.net.state_dict()}
    for source, target in backbone.items():
        if source not in weights or weights[source].shape != network.net.state_dict()[target].shape:
            raise ModelError(f"{path}: {source} is missing or has another shape; expected {_WHAT}")
    network.net.load_state_dict({target: weights[source].float() for source, target in backbone.items()})
    network = network.to(device).eval()

    def distance(made: Tensor, expected: Tensor) -> Tensor:
        with torch.inference_mode():
            result: Any = network(made.float().to(device), expected.float().to(device))
        return result.flatten(1).mean(dim=1).cpu()

    return distance, kind, sha256


def _kind(path: Path, weights: StateDict) -> Any:
    first = weights.get("features.0.weight")
    if first is not None and first.shape == (64, 3, 11, 11):
        return "alex"
    if first is not None and first.shape == (64, 3, 3, 3) and "features.28.weight" in weights:
        return "vgg"
    raise ModelError(f"{path}: not the weights of a backbone of LPIPS; expected {_WHAT}")


def _place(name: str) -> str:
    """`slice2.3.weight` of torchmetrics is `features.3.weight` of torchvision."""
    return "features." + name.partition(".")[2]
