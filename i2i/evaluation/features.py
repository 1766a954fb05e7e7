"""Networks in whose features pictures are compared, and the distances: Inception for FID, KID, IS and precision, any
for KID, and LPIPS of pairs.

Weights come from a file of the user. It is read without running any code in it, and checked against the network. Sets
are features (N, D) in float64; numbers come with their bootstrap draws, see `metrics`, which `seed` fixes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import inception as blocks

from i2i.download import download
from i2i.errors import DownloadError, ModelError, UsageError
from i2i.evaluation.metrics import (
    Estimate,
    Pictures,
    enough,
    linear,
    mean,
    mean_of_pairs,
    of_pairs,
    resized,
    weights_of,
)
from i2i.files import home, sha256
from i2i.models import state_dicts
from i2i.models.state_dicts import StateDict, refuse_nonfinite, refuse_other_shapes, shapes_of
from i2i.networks.projected import FeatureNetwork
from i2i.terminal import fetching

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


class _Pooling:
    """A block of torchvision's with another pooling in its last branch."""

    branch_pool: nn.Module
    takes_maximum = False

    def _forward(self, x: Tensor) -> list[Tensor]:
        if self.takes_maximum:
            pooled = F.max_pool2d(x, kernel_size=3, stride=1, padding=1)
        else:
            pooled = F.avg_pool2d(x, kernel_size=3, stride=1, padding=1, count_include_pad=False)
        return [*super()._forward(x)[:-1], self.branch_pool(pooled)]  # type: ignore[misc]


class _BlockA(_Pooling, blocks.InceptionA): ...


class _BlockC(_Pooling, blocks.InceptionC): ...


class _BlockE(_Pooling, blocks.InceptionE): ...


def load_inception(path: Path) -> tuple[Inception, str]:
    """The network with the weights in a file, on the CPU, and the file's SHA-256.

    The counters of batch norm may be missing: they are not used. Raises `ModelError` if the file holds anything else;
    no code in it is ever run.
    """
    with torch.device("meta"):
        network = Inception()
    expected = network.net.state_dict()
    counters = [name for name in expected if name.endswith("num_batches_tracked")]
    with _weights_of(path, _INCEPTION) as weights:
        found = dict.fromkeys(counters, torch.zeros((), dtype=torch.int64)) | weights
        refuse_other_shapes(shapes_of(found), shapes_of(expected))
        for name in found:
            if name.endswith("running_var") and bool((found[name] < 0).any()):
                raise ModelError(f"{name} holds a variance below 0")
    network.to_empty(device="cpu").net.load_state_dict(found)
    return network.requires_grad_(False).eval(), sha256(path)


def find_inception(file: Path | None, *, fetch: bool = False) -> Path | None:
    """The user's file, or the one in the cache, where `fetch` puts it first; None if there is none.

    Raises `ModelError` if fetching fails.
    """
    cached = home() / "metrics" / INCEPTION_NAME
    if file is not None or cached.is_file() or not fetch:
        return file or (cached if cached.is_file() else None)
    cached.parent.mkdir(parents=True, exist_ok=True)
    try:
        download(INCEPTION_URL, cached, sha256=INCEPTION_SHA256, size=INCEPTION_BYTES, progress=fetching())
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
    with _weights_of(path, _BACKBONES) as weights:
        kind = _backbone(weights)
        # its own heads, a backbone without weights: it neither fetches nor opens anything of the user's
        network = _LPIPS(pretrained=True, net=kind, pnet_rand=True)
        # `slice2.3.weight` of torchmetrics is `features.3.weight` of torchvision
        own = {f"features.{name.partition('.')[2]}": (name, value) for name, value in network.net.state_dict().items()}
        used = {name: weights[name].float() for name in own if name in weights}
        refuse_other_shapes(shapes_of(used), shapes_of({name: value for name, (_, value) in own.items()}))
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
def _weights_of(path: Path, expected: str) -> Iterator[StateDict]:
    """The state dict that torch saved in a file, on the CPU, all finite.

    A `ModelError` about it, raised inside too, names the file and what was expected. The loaders of torchmetrics and
    torch-fidelity run whatever code is in a file, so they never get to see it.
    """
    try:
        weights = state_dicts.read(path)
        refuse_nonfinite(weights)
        yield weights
    except ModelError as error:
        raise ModelError(f"{path}: {error}; expected {expected}") from None


NEIGHBOURS = 3  # k of precision and recall


def _checked(a: Tensor, b: Tensor, least: int, what: str) -> tuple[Tensor, Tensor]:
    enough(min(len(a), len(b)), least, what)
    return a.double(), b.double()


def fid(a: Tensor, b: Tensor, seed: int = 0) -> Estimate:
    """Fréchet distance of the Gaussians with the sets' means and covariances (Heusel et al. 2017, Eq. 6).

    |μ_a - μ_b|² + tr(Σ_a + Σ_b - 2 (Σ_a Σ_b)^½), 0 and up. With Σ = XᵀX, X the centred features of a set over
    √(n - 1), the last trace is the sum of the singular values of X_a X_bᵀ, which needs no root of a matrix that may be
    singular. Symmetric. Biased: for small sets it is too large, and numbers from sets of other sizes cannot be
    compared; the interval, by influences, is of the number for sets of these sizes. Raises `InputError` for one
    picture.
    """
    a, b = _checked(a, b, 2, "FID")
    centred = [(x - x.mean(dim=0)) / (len(x) - 1) ** 0.5 for x in (a, b)]
    bases, roots = zip(*(torch.linalg.qr(x) for x in centred), strict=True)
    left, mixed, right = torch.linalg.svd(roots[0] @ roots[1].T, full_matrices=False)
    shift = a.mean(dim=0) - b.mean(dim=0)
    traces = sum(x.square().sum() for x in centred)
    value = float(shift.square().sum() + traces - 2 * mixed.sum())
    sides = ((centred[0], bases[0] @ left, shift), (centred[1], bases[1] @ right.T, -shift))
    return linear(value, [_influences(x, vectors, mixed, away) for x, vectors, away in sides], seed)


def _influences(centred: Tensor, vectors: Tensor, mixed: Tensor, away: Tensor) -> Tensor:
    """dFID / dw of each picture's weight, (n,): through the mean, the trace, and the root of the product.

    `vectors` (n, r) are the singular vectors on the side of the set, `mixed` (r,) the singular values.
    """
    n = len(centred)
    through_mean = 2 * (n - 1) ** 0.5 / n * (centred @ away)
    found = through_mean + centred.square().sum(dim=1) - vectors.square() @ mixed
    return found - found.mean()


def kid(a: Tensor, b: Tensor, seed: int = 0) -> Estimate:
    """Squared maximum mean discrepancy, unbiased, with the kernel (x·y / D + 1)³ (Bińkowski et al. 2018, Sec. 4).

    It is the estimate from all pictures. The published code takes the mean over random subsets, which has the same
    expectation and more noise. May be below 0. The draws of the interval leave a picture's pairs with itself out, so
    that they too are unbiased. Raises `InputError` for one picture.
    """
    a, b = _checked(a, b, 2, "KID")
    of_a, of_b = weights_of(len(a), seed), weights_of(len(b), seed)
    within = mean_of_pairs(a, _kernel, of_a) + mean_of_pairs(b, _kernel, of_b)
    return of_pairs(within - 2 * mean_of_pairs(a, _kernel, of_a, b, of_b), min(len(a), len(b)))


def _kernel(u: Tensor, v: Tensor) -> Tensor:
    return (u @ v.T / u.shape[1] + 1) ** 3


def inception_score(logits: Tensor, splits: int = 10, seed: int = 0) -> tuple[Estimate, float]:
    """exp E KL(p(y|x) ‖ p(y)), the mean over `splits` parts of a shuffled set (Salimans et al. 2016, Sec. 4), and the
    standard deviation of the parts.

    `logits` (N, classes). 1 (all alike) to the number of classes. The order is torch-fidelity's for the same seed. The
    interval is by influences: more pictures would give more. Raises `InputError` for fewer pictures than parts.
    """
    enough(len(logits), splits, f"the Inception Score in {splits} parts")
    order = torch.from_numpy(np.random.RandomState(seed).permutation(len(logits)))
    log_p = logits.double()[order].log_softmax(dim=1)
    ends = [i * len(log_p) // splits for i in range(splits + 1)]
    scores, influences = [], torch.zeros(len(log_p), dtype=torch.float64)
    for begin, end in pairwise(ends):
        part = log_p[begin:end]
        p = part.exp()
        entropy = torch.xlogy(p, p.mean(dim=0, keepdim=True))  # 0 for a class that no picture is of
        divergence = (p * part - entropy).sum(dim=1)
        scores.append(divergence.mean().exp())
        influences[order[begin:end]] = scores[-1] * (divergence - divergence.mean()) / (end - begin) / splits
    found = torch.stack(scores)
    return linear(float(found.mean()), [influences], seed), float(found.std(unbiased=False))


def precision(made: Tensor, real: Tensor, neighbours: int = NEIGHBOURS, seed: int = 0) -> Estimate:
    """Improved precision, 0 to 1 (Kynkäänniemi et al. 2019, Eqs. 1 and 2).

    The share of `made` inside the manifold of `real`, which is the union of balls around its points, each reaching to
    the point's k-th neighbour. The interval is over `made`; the manifold stays. Raises `InputError` for fewer than
    `neighbours` + 1 pictures.
    """
    made, real = _checked(made, real, neighbours + 1, f"precision and recall with {neighbours} neighbours")
    return mean(_covered(made, real, neighbours), seed)


def recall(made: Tensor, real: Tensor, neighbours: int = NEIGHBOURS, seed: int = 0) -> Estimate:
    """Improved recall: the share of `real` inside the manifold of `made`, see `precision`."""
    return precision(real, made, neighbours, seed)


def _covered(points: Tensor, manifold: Tensor, neighbours: int, at_once: int = 1024) -> Tensor:
    """Which of `points` are inside a ball of `manifold`."""
    radius = torch.cat([_distances(part, manifold).kthvalue(neighbours + 1).values for part in manifold.split(at_once)])
    return torch.cat([(_distances(part, manifold) <= radius).any(dim=1) for part in points.split(at_once)])


def _distances(x: Tensor, y: Tensor) -> Tensor:
    # not by the matrix product, in whose rounding a point is not at 0 from itself
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
