"""The rule that draws weights and inputs of the golden numbers; `tests/golden/README.md` states it."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

Listing = Sequence[tuple[str, Sequence[int]]]

GOLDEN = {"network_row": "networks", "training_row": "training", "schedule_row": "schedules", "cut_row": "cut"}


drawn_as_recorded = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "DEFAULT",
    reason="without AVX2 torch draws normal numbers with other last digits, and updates carry them on to 1e-4",
)


def rule(shape: Sequence[int], seed: int) -> Tensor:
    """A standard normal tensor of that shape, float32, on the CPU."""
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))


def draw(listing: Listing, seed: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """A state dict with the names and shapes of `listing`, in that order, floating tensors in `dtype`."""
    return {name: _tensor(name, shape, seed + i, dtype) for i, (name, shape) in enumerate(listing)}


def _tensor(name: str, shape: Sequence[int], seed: int, dtype: torch.dtype) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.zeros(tuple(shape), dtype=torch.int64)
    if name.endswith("filt"):
        return blur(shape).to(dtype)
    r = rule(shape, seed).to(dtype)
    if name.endswith("running_var"):
        return 1 + 0.1 * r.abs()
    if name.endswith("running_mean"):
        return 0.1 * r
    if r.dim() == 1:
        return 1 + 0.02 * r if name.endswith("weight") else 0.02 * r
    return r / math.sqrt(r[0].numel())


def blur(shape: Sequence[int]) -> Tensor:
    """The filters that no rule draws: binomial, of sum 1 for 3×3 (halving), of sum 4 for 4×4 (doubling)."""
    row = torch.tensor({3: [1.0, 2.0, 1.0], 4: [1.0, 3.0, 3.0, 1.0]}[shape[-1]])
    return torch.outer(row, row).div(16).repeat(shape[0], 1, 1, 1)


def summary(y: Tensor) -> dict[str, Any]:
    """The numbers that `networks.json` records of an output (N, C, H, W)."""
    h, w = y.shape[-2:]
    return {
        "shape": list(y.shape),
        "mean": y.double().mean().item(),
        "std": y.double().std().item(),
        "min": y.min().item(),
        "max": y.max().item(),
        "grid": y[..., :: max(1, h // 8), :: max(1, w // 8)],
    }


def rows(folder: Path, name: str) -> list[Any]:
    """The rows of `folder/name.json`, for a mapping its items; none if the file is not there."""
    path = folder / f"{name}.json"
    if not path.exists():
        return []
    content = json.loads(path.read_text())
    return list(content.items()) if isinstance(content, dict) else content


def check_rows(folder: Path) -> None:
    """Raise `pytest.UsageError` unless this is a folder with rows of golden numbers."""
    if not folder.is_dir():
        raise pytest.UsageError(f"--golden {folder}: not a folder")
    if not any(rows(folder, name) for name in GOLDEN.values()):
        names = ", ".join(f"{name}.json" for name in GOLDEN.values())
        raise pytest.UsageError(f"--golden {folder}: no rows ({names})")


def assert_recorded(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """The summary of an output is the recorded one, to 1e-5."""
    assert found["shape"] == expected["shape"]
    torch.testing.assert_close(found["grid"], torch.tensor(expected["grid"]), atol=1e-5, rtol=0)
    for number in ("mean", "std", "min", "max"):
        assert found[number] == pytest.approx(expected[number], abs=1e-5), number
