"""Features of sets of pictures, by a network."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from i2i.errors import ModelError
from i2i.evaluation.resizer import resized
from i2i.networks.pretrained import FeatureNetwork

INPUT = 224  # pixels a side, those that ImageNet's networks are trained with


@dataclass(frozen=True)
class Features:
    """Features of N pictures: `pool` (N, D) and `logits` (N, classes), float64, on the CPU, by `network`."""

    pool: Tensor
    logits: Tensor
    network: str = ""


class Pooled(nn.Module):
    """A network of `networks.pretrained` as `extract` takes it: its last features, the mean over space; no logits."""

    def __init__(self, network: FeatureNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.network(images)[-1].mean(dim=(2, 3))
        return features, features[:, :0]


def extract(
    pictures: Sequence[Tensor],
    network: nn.Module,
    size: int,
    device: torch.device | str = "cpu",
    batch: int = 32,
    name: str = "",
) -> Features:
    """The features of the pictures by `network` (images (N, 3, size, size) in [-1, 1] → features, logits).

    Each is stretched to `size` by the one resizer; grey is repeated. The network runs in float32 on `device`.
    `name` is the network's in the result. Raises `ModelError` if features are not finite.
    """
    network = network.to(device)
    found: list[tuple[Tensor, Tensor]] = []
    with torch.inference_mode():
        for begin in range(0, len(pictures), batch):
            some = [resized(pictures[i], size, size) for i in range(begin, min(begin + batch, len(pictures)))]
            images = torch.stack([x.expand(3, -1, -1) if len(x) == 1 else x for x in some])
            pool, logits = network(images.to(device))
            found.append((pool.double().cpu(), logits.double().cpu()))
            if not all(bool(x.isfinite().all()) for x in found[-1]):
                raise ModelError("the features of pictures are not finite; the weights are not those of the network")
    return Features(torch.cat([pool for pool, _ in found]), torch.cat([logits for _, logits in found]), name)
