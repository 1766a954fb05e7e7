"""Networks in whose features pictures are compared: Inception for FID, KID and IS, LPIPS, and any for KID.

Their weights come from a file of the user. It is read without running any code in it, and checked against the network.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import inception as blocks

from i2i.download import download
from i2i.errors import DownloadError, ModelError, UsageError
from i2i.evaluation.metrics import Pictures, resized
from i2i.files import home, sha256
from i2i.models import state_dicts
from i2i.models.state_dicts import StateDict, refuse_nonfinite, refuse_other_shapes
from i2i.networks.pretrained import FeatureNetwork

INCEPTION_NAME = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION_NAME}"
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
INCEPTION_BYTES = 95_628_359
INCEPTION_SIDE = 299
IMAGENET_SIDE = 224
"""Pixels a side of the pictures that ImageNet's networks are trained with."""
_INCEPTION = f"the Inception weights of FID ({INCEPTION_NAME}, or pytorch-fid's pt_inception-2015-12-05-6726825d.pth)"
_BACKBONES = "torchvision's ImageNet weights of AlexNet (alexnet-owt-7be5be79.pth) or VGG-16 (vgg16-397923af.pth)"

Lpips = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Features:
    """Features of N pictures: `pool` (N, D) and `logits` (N, classes), float64, on the CPU, by `network`."""

    pool: Tensor
    logits: Tensor
    network: str = ""


def extract(
    pictures: Pictures,
    network: nn.Module,
    size: int,
    device: torch.device | str = "cpu",
    batch: int = 32,
    name: str = "",
) -> Features:
    """The features of the pictures by `network` (images (N, 3, size, size) in [-1, 1] → features, logits).

    Each picture is stretched to `size` by the one resizer; grey is repeated. The network runs in float32 on `device`.
    Raises `ModelError` if features are not finite.
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


class Pooled(nn.Module):
    """A feature network as `extract` takes it: its last features, the mean over space; no logits."""

    def __init__(self, network: FeatureNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.network(images)[-1].mean(dim=(2, 3))
        return features, features[:, :0]


class Inception(nn.Module):
    """Images (N, 3, 299, 299) in [-1, 1] → features (N, 2048) and logits without bias (N, 1008).

    torchvision's blocks with the pooling of the TensorFlow graph of 2015-12-05, whose weights the authors of
    pytorch-fid and torch-fidelity converted: 1008 classes, pooling that does not count the padding, and a maximum
    instead of a mean in the last block.
    """

    def __init__(self) -> None:
        super().__init__()
        kinds = [blocks.BasicConv2d, _BlockA, blocks.InceptionB, _BlockC, blocks.InceptionD, _BlockE]
        self.net: Any = blocks.Inception3(
            1008, aux_logits=False, inception_blocks=[*kinds, blocks.InceptionAux], init_weights=False
        )
        self.net.Mixed_7c.takes_maximum = True

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = ((images.float() + 1) * 127.5 - 128) / 128  # the graph's own scaling of 0 … 255
        for name, layer in self.net.named_children():  # in the order of the graph
            if name not in ("avgpool", "dropout", "fc"):
                x = layer(x)
        features = x.mean(dim=(2, 3))
        return features, features @ self.net.fc.weight.T


def _mean_inside(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, kernel_size=3, stride=1, padding=1, count_include_pad=False)


class _BlockA(blocks.InceptionA):
    def _forward(self, x: Tensor) -> list[Tensor]:
        return [*super()._forward(x)[:-1], self.branch_pool(_mean_inside(x))]


class _BlockC(blocks.InceptionC):
    def _forward(self, x: Tensor) -> list[Tensor]:
        return [*super()._forward(x)[:-1], self.branch_pool(_mean_inside(x))]


class _BlockE(blocks.InceptionE):
    takes_maximum = False

    def _forward(self, x: Tensor) -> list[Tensor]:
        pooled = F.max_pool2d(x, kernel_size=3, stride=1, padding=1) if self.takes_maximum else _mean_inside(x)
        return [*super()._forward(x)[:-1], self.branch_pool(pooled)]


def load_inception(path: Path) -> tuple[Inception, str]:
    """The network with the weights in a file, on the CPU, and the file's SHA-256.

    Raises `ModelError` if the file holds anything else; no code in it is ever run.
    """
    with torch.device("meta"):
        network = Inception()
    with _refused(path, _INCEPTION):
        fill(network.net, read_weights(path))
        for name, variance in network.net.named_buffers():
            if name.endswith("running_var") and bool((variance < 0).any()):
                raise ModelError(f"{name} holds a variance below 0")
    return network.eval(), sha256(path)


def find_inception(file: Path | None, *, fetch: bool = False) -> Path | None:
    """The user's file, or the one in the cache, where `fetch` puts it first; None if there is none.

    Raises `ModelError` if fetching fails.
    """
    cached = home() / "metrics" / INCEPTION_NAME
    if file is not None or cached.is_file() or not fetch:
        return file or (cached if cached.is_file() else None)
    cached.parent.mkdir(parents=True, exist_ok=True)
    try:
        download(INCEPTION_URL, cached, sha256=INCEPTION_SHA256, size=INCEPTION_BYTES)
    except DownloadError as error:
        raise ModelError(f"{error}; by hand, put the file at {cached}") from None
    return cached


def load_lpips(path: Path, device: torch.device | str = "cpu") -> tuple[Lpips, str, str]:
    """LPIPS (Zhang et al. 2018), the backbone's name (`alex` or `vgg`) and the file's SHA-256.

    The distance takes two batches (N, 3, H, W) in [-1, 1] to (N,): 0 (equal) and up, Eq. 1 of the paper with the
    learned weights of its version 0.1, which come with torchmetrics. Raises `UsageError` without torchmetrics,
    `ModelError` if the file holds anything else; no code in it is ever run.
    """
    try:
        from torchmetrics.functional.image.lpips import _LPIPS
    except ImportError:
        raise UsageError("LPIPS needs torchmetrics: pip install 'i2i[metrics]'") from None
    with _refused(path, _BACKBONES):
        weights = read_weights(path)
        kind = _backbone(weights)
        # its own heads, a backbone without weights: it neither fetches nor opens anything of the user's
        network = _LPIPS(pretrained=True, net=kind, pnet_rand=True)
        # `slice2.3.weight` of torchmetrics is `features.3.weight` of torchvision
        own = {f"features.{name.partition('.')[2]}": (name, value) for name, value in network.net.state_dict().items()}
        used = {name: weights[name].float() for name in own if name in weights}
        refuse_other_shapes(_shapes(used), _shapes({name: value for name, (_, value) in own.items()}))
    network.net.load_state_dict({own[name][0]: value for name, value in used.items()})
    network = network.to(device).eval()

    def distance(output: Tensor, target: Tensor) -> Tensor:
        with torch.inference_mode():
            result: Tensor = network(output.float().to(device), target.float().to(device))
        return result.flatten(1).mean(dim=1).cpu()

    return distance, kind, sha256(path)


def _backbone(weights: StateDict) -> Any:
    first = weights.get("features.0.weight")
    if first is not None and first.shape == (64, 3, 11, 11):
        return "alex"
    if first is not None and first.shape == (64, 3, 3, 3) and "features.28.weight" in weights:
        return "vgg"
    raise ModelError("not the weights of a backbone of LPIPS")


@contextmanager
def _refused(path: Path, expected: str) -> Iterator[None]:
    """A `ModelError` about the content of a file names the file, and what was expected."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{path}: {error}; expected {expected}") from None


def read_weights(path: Path) -> StateDict:
    """The state dict that torch saved in a file, on the CPU. Raises `ModelError` for all but dense, finite weights.

    The loaders of torchmetrics and torch-fidelity run whatever code is in the file, so they never get to see it.
    """
    weights = state_dicts.read(path)
    refuse_nonfinite(weights)
    return weights


def fill(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load `weights` into a network built on the meta device. Raises `ModelError` for other names or shapes.

    The counters of batch norm may be missing: they are not used.
    """
    expected = network.state_dict()
    counters = [name for name in expected if name.endswith("num_batches_tracked")]
    found = dict.fromkeys(counters, torch.zeros((), dtype=torch.int64)) | dict(weights)
    refuse_other_shapes(_shapes(found), _shapes(expected))
    network.to_empty(device="cpu").load_state_dict(found)
    network.requires_grad_(False).eval()


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
