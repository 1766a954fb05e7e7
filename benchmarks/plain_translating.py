"""The plain way to translate a folder, a process of its own: what `scripts/translate.py` is compared with.

python benchmarks/plain_translating.py MODEL.safetensors IN OUT

As the published test script does it: one picture after the other, Pillow in and out, batch 1, eager float32 in the
plain memory format, `nn.InstanceNorm2d`. (That script cuts decimals off where this rounds, and writes its inputs too.)
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from plain_networks import plain
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import transforms

from i2i.models.info import read_info
from i2i.networks.blocks import for_translation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    network = plain_network(options.model).to(options.device)
    options.out.mkdir(parents=True, exist_ok=True)
    for path in sorted(options.pictures.iterdir()):
        with torch.no_grad():
            result = network(tensor_of(path).to(options.device))
        picture_of(result).save(options.out / f"{path.stem}.png")


def plain_network(model: Path) -> nn.Module:
    """The generator in the model file, as it translates, of torch's own modules."""
    info = read_info(model)
    network = info.network_config().build()
    network.load_state_dict(load_file(model))
    return for_translation(plain(network), info.statistics, info.dropout)


def tensor_of(path: Path) -> Tensor:
    """(1, 3, H, W) in [-1, 1]."""
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))])
    picture = Image.open(path)  # noqa: TID251 - this is the plain way
    tensor: Tensor = transform(picture.convert("RGB"))
    return tensor[None]


def picture_of(result: Tensor) -> Image.Image:
    """The first of (N, 3, H, W) in [-1, 1]."""
    pixels = (result[0].float().cpu().numpy().transpose(1, 2, 0) + 1) / 2 * 255
    return Image.fromarray(np.rint(pixels).astype(np.uint8))


if __name__ == "__main__":
    main()
