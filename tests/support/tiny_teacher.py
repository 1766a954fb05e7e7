"""A small generator to learn from, as a model file."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from i2i.algorithms.distill import Teacher
from i2i.models import model_file
from i2i.models.info import describe
from i2i.networks import create_generator
from i2i.networks.blocks import init_weights


def write_teacher(
    path: Path, name: str = "resnet_2blocks", width: int = 12, gain: float = 0.2, described: Any = None, **options: Any
) -> Path:
    """A model file of a network with drawn weights; `described` is for `describe`, `options` are the network's."""
    with torch.random.fork_rng([]):
        torch.manual_seed(5)
        network = init_weights(create_generator(name, width=width, **options), gain=gain)
    model_file.save(path, network, describe(network, **{"direction": "a2b", **(described or {})}))
    return path


def unfilled_teacher(name: str = "") -> Teacher:
    """One with weights as torch draws them, of no file."""
    network = create_generator("resnet_2blocks", width=12)
    return Teacher(network, describe(network, direction="a2b"), "")


@functools.cache
def tiny_teacher() -> str:
    """A file with one, which lasts as long as the process."""
    folder = tempfile.mkdtemp(prefix="i2i-tests-teacher-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return str(write_teacher(Path(folder) / "teacher.safetensors"))
