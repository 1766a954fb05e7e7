"""Writes `model_format_1.safetensors`: a model file as the first version wrote it, made without i2i.

python tests/data/make_model_format_1.py

It must be readable for good, so neither it nor this script changes; a later format has files of its own.
"""

import json
import sys
from pathlib import Path

from safetensors.torch import save_file

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "support"))

from golden_rule import draw  # noqa: E402

SEED = 424242
LISTING = [
    ("stem.conv.weight", (2, 3, 7, 7)),
    ("stem.conv.bias", (2,)),
    ("down.0.conv.weight", (4, 2, 3, 3)),
    ("down.0.conv.bias", (4,)),
    ("down.1.conv.weight", (8, 4, 3, 3)),
    ("down.1.conv.bias", (8,)),
    ("blocks.0.conv1.weight", (8, 8, 3, 3)),
    ("blocks.0.conv1.bias", (8,)),
    ("blocks.0.conv2.weight", (8, 8, 3, 3)),
    ("blocks.0.conv2.bias", (8,)),
    ("up.0.conv.weight", (8, 4, 3, 3)),
    ("up.0.conv.bias", (4,)),
    ("up.1.conv.weight", (4, 2, 3, 3)),
    ("up.1.conv.bias", (2,)),
    ("head.weight", (3, 2, 7, 7)),
    ("head.bias", (3,)),
]
DESCRIPTION = {
    "network": "resnet",
    "config": {
        "in_channels": 3,
        "out_channels": 3,
        "width": 2,
        "blocks": 1,
        "norm": "instance",
        "dropout": False,
        "padding": "reflect",
        "bias": None,
    },
    "direction": "b2a",
    "input_domain": "photo",
    "output_domain": "monet",
    "size_multiple": 4,
    "value_range": [-1.0, 1.0],
    "statistics": "batch",
    "dropout": False,
    "training": {
        "algorithm": "cyclegan",
        "dataset": "monet2photo",
        "steps": 7,
        "images_seen": 9,
        "version": "0.1.0",
        "metrics": {"cycle_A/l1": 0.5},
    },
    "licence": "CC0-1.0",
    "format_version": 1,
}

if __name__ == "__main__":
    save_file(draw(LISTING, SEED), HERE / "model_format_1.safetensors", {"i2i": json.dumps(DESCRIPTION)})
