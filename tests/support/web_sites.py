"""Small styles for the page that `i2i export --web` writes, and a folder that looks like the runtime's."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from i2i.models.info import ModelInfo, describe
from i2i.networks.resnet import ResnetConfig
from i2i.tools.website import FILES

SMALL: dict[str, Any] = {"width": 4, "blocks": 1}


def style(seed: int = 0, *, domain: str = "photo", paint_size: int = 0, **config: Any) -> tuple[nn.Module, ModelInfo]:
    """A generator with weights that 16 bits hold, which changes colours a little, and its description."""
    torch.manual_seed(seed)
    network = ResnetConfig(**SMALL | config).build().eval()
    with torch.no_grad():
        for tensor in network.parameters():
            tensor.copy_(tensor.half())
    card = ("Made for tests.", "<script>alert(1)</script>")
    info = describe(
        network, direction="a2b", input_domain=domain, output_domain="test", card=card, paint_size=paint_size
    )
    return network, info


def runtime_folder(folder: Path) -> Path:
    """A folder as npm fills it, with files that only begin as the runtime's do."""
    dist = folder / "node_modules" / "onnxruntime-web" / "dist"
    dist.mkdir(parents=True)
    for name in FILES:
        (dist / name).write_bytes(b"\0asm 1" if name.endswith(".wasm") else b"// 1")
    (dist.parent / "package.json").write_text('{"version": "1.2.3"}')
    return dist
