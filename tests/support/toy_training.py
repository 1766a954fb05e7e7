"""Small trainings on toy domains whose truth is known, and what their models translate."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import i2i

TOY: dict[str, Any] = {
    "data": Path("toy"), "load_size": 32, "crop_size": 32, "batch_size": 4, "workers": 0, "device": "cpu",
    "ngf": 16, "ndf": 16, "discriminator": "patchgan_16", "validate_every": 0, "sample_every": 50,
}  # fmt: skip


def health_issues(run: Path) -> list[str]:
    """The texts of the health lines in the log of a run."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line["text"] for line in lines if line["kind"] == "health"]


def translated(run: Path, inputs: Tensor, direction: str) -> Tensor:
    """The translations of (N, C, H, W) by the model file of a run."""
    translator = i2i.load_translator(run, direction=direction, device="cpu", precision="fp32", runtime="torch")
    return torch.stack([translator(image) for image in inputs])
