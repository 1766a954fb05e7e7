"""The Inception v3 network of FID, KID and IS: torchvision's blocks, with the pooling of the TensorFlow graph.

The weights are those of 2015-12-05, converted to PyTorch by the authors of pytorch-fid and torch-fidelity: 1008
classes, pooling that does not count the padding, and a maximum instead of a mean in the last block. They come from
a file of the user: nothing is fetched unless `obtain` is asked to.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import inception as parts

from i2i.download import Progress, download
from i2i.errors import DownloadError, ModelError, UsageError
from i2i.evaluation.weights_file import fill, read_weights
from i2i.files import home

NAME = "weights-inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{NAME}"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
SIZE = 95_628_359
INPUT = 299
_WHAT = f"the Inception weights of FID ({NAME}, or pytorch-fid's pt_inception-2015-12-05-6726825d.pth)"


class Inception(nn.Module):
    """Images (N, 3, 299, 299) in [-1, 1] → features (N, 2048) and logits without bias (N, 1008)."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [parts.BasicConv2d, _BlockA, parts.InceptionB, _BlockC, parts.InceptionD, _BlockE, parts.InceptionAux]
        self.net: Any = parts.Inception3(1008, aux_logits=False, inception_blocks=blocks, init_weights=False)
        self.net.Mixed_7c.largest = True

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        net = self.net
        x = ((images.float() + 1) * 127.5 - 128) / 128  # the graph's own scaling of 0 … 255
        for name, layer in net.named_children():
            if name in ("avgpool", "dropout", "fc"):
                continue
            x = layer(x)  # in the order of their definition, which is that of the graph
        features = x.mean(dim=(2, 3))
        return features, features @ net.fc.weight.T


def _mean_inside(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, kernel_size=3, stride=1, padding=1, count_include_pad=False)


class _BlockA(parts.InceptionA):
    def _forward(self, x: Tensor) -> list[Tensor]:
        return [*super()._forward(x)[:-1], self.branch_pool(_mean_inside(x))]


class _BlockC(parts.InceptionC):
    def _forward(self, x: Tensor) -> list[Tensor]:
        return [*super()._forward(x)[:-1], self.branch_pool(_mean_inside(x))]


class _BlockE(parts.InceptionE):
    largest = False

    def _forward(self, x: Tensor) -> list[Tensor]:
        pooled = F.max_pool2d(x, kernel_size=3, stride=1, padding=1) if self.largest else _mean_inside(x)
        return [*super()._forward(x)[:-1], self.branch_pool(pooled)]


def load(path: Path) -> tuple[Inception, str]:
    """The network with the weights in a file, on the CPU, and the file's SHA-256.

    Raises `ModelError` if the file holds anything else; no code in it is ever run.
    """
    weights, sha256 = read_weights(path, _WHAT)
    with torch.device("meta"):
        network = Inception()
    try:
        fill(network.net, weights)
        for name, variance in network.net.named_buffers():
            if name.endswith("running_var") and bool((variance < 0).any()):
                raise ModelError(f"{name} holds a variance below 0")
    except ModelError as error:
        raise ModelError(f"{path}: {error}; expected {_WHAT}") from None
    network.eval()
    return network, sha256


def kept() -> Path:
    """Where the file is kept once it was fetched, or was put by hand."""
    return home() / "metrics" / NAME


def obtain(file: Path | None, *, fetch: bool = False, progress: Progress | None = None) -> Path | None:
    """The file that the user names, or the one that is kept, fetched before only with `fetch`; None if there is none.

    Raises `UsageError` for a file that is missing, `ModelError` if fetching fails.
    """
    if file is not None:
        if not file.is_file():
            raise UsageError(f"inception = {file}: no such file; expected {_WHAT}")
        return file
    if kept().is_file():
        return kept()
    if not fetch:
        return None
    kept().parent.mkdir(parents=True, exist_ok=True)
    try:
        download(URL, kept(), sha256=SHA256, size=SIZE, progress=progress)
    except DownloadError as error:
        raise ModelError(f"{error}; by hand, put the file at {kept()}") from None
    return kept()
