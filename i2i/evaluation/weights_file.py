"""Weights of networks that measure, from a file of the user: read without running any of it, and checked."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from i2i.download import digest
from i2i.errors import ModelError
from i2i.models.model_file import refuse_hostile, refuse_nonfinite
from i2i.models.pickles import check_file

StateDict = dict[str, Tensor]


def read_weights(path: Path, what: str) -> tuple[StateDict, str]:
    """The state dict that torch saved in a file, on the CPU, and the file's SHA-256.

    The loaders of torchmetrics and torch-fidelity run whatever code is in the file, so they never get to see it.
    Raises `ModelError` naming the file and what was expected for anything but dense, finite weights.
    """
    try:
        size = check_file(path)
        return _read(path, size), digest(path)
    except ModelError as error:
        raise ModelError(f"{path}: {error}; expected {what}") from None


def _read(path: Path, size: int) -> StateDict:
    try:
        with warnings.catch_warnings(action="ignore"):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=False)
    except Exception as error:  # whatever bytes can do to the restricted unpickler
        raise ModelError(f"damaged or not written by torch.save ({type(error).__name__})") from None
    if not isinstance(content, Mapping) or not content:
        raise ModelError(f"holds a {type(content).__name__}, not a state dict")
    if set(getattr(content, "__dict__", {})) - {"_metadata"}:  # they could replace its methods
        raise ModelError("holds a dict with attributes, not a plain state dict")
    weights = dict(content)
    refuse_hostile(weights, size)
    for name, value in weights.items():
        if not isinstance(value, Tensor):
            raise ModelError(f"entry {name[:80]!r} is a {type(value).__name__}, not a tensor")
    refuse_nonfinite(weights)
    return weights


def fill(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load `weights` into a network made on the meta device. Raises `ModelError` for other names or shapes.

    The counters of batch norm may be missing: they are not used.
    """
    expected: dict[str, Any] = network.state_dict()
    counters = {name for name in expected if name.endswith("num_batches_tracked")}
    wrong = [f"{name} is missing" for name in expected if name not in weights and name not in counters]
    wrong += [f"{name} is unknown" for name in weights if name not in expected]
    wrong += [
        f"{name} has the shape {tuple(weights[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if wrong:
        more = f", and {len(wrong) - 2} more such faults" if len(wrong) > 2 else ""
        raise ModelError("other weights than these: " + "; ".join(wrong[:2]) + more)
    zeros = {name: torch.zeros((), dtype=torch.int64) for name in counters}
    network.to_empty(device="cpu").load_state_dict(zeros | dict(weights))
    network.requires_grad_(False).eval()
