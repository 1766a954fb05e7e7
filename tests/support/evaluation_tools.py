"""Folders of small pictures, tiny models, and the real script in this process."""

import io
import json
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from i2i import cli, images
from i2i.evaluation.metrics import Estimate
from i2i.models import model_file
from i2i.models.info import Training, describe
from i2i.networks.blocks import init_weights
from i2i.networks.resnet import ResnetConfig

SCRIPT = Path(__file__).parents[2] / "scripts" / "evaluate.py"


def picture(path: Path, size: tuple[int, int] = (32, 32), channels: int = 3, seed: int = 0) -> Path:
    """Smooth noise as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rough = torch.rand(1, channels, 6, 6, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    smooth = torch.nn.functional.interpolate(rough, size, mode="bilinear")[0]
    images.write(path, images.Picture(images.to_pixels(smooth)))
    return path


def folder(path: Path, count: int = 3, seed: int = 0, **options: Any) -> Path:
    """`0.png`, `1.png`, …, all different."""
    for i in range(count):
        picture(path / f"{i}.png", seed=100 * seed + i, **options)
    return path


def flat(path: Path, pixels: np.ndarray[Any, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    images.write(path, images.Picture(pixels))
    return path


def model(path: Path, direction: Any = "a2b", algorithm: str = "cyclegan", seed: int = 3, **told: Any) -> Path:
    """An untrained network, the same for the same seed, with the facts `told` in its file."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = init_weights(ResnetConfig(width=2, blocks=0).build(), gain=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    training = Training(algorithm=algorithm, steps=7)
    model_file.save(path, network, describe(network, direction=direction, training=training, **told))
    return path


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


def script(*arguments: object) -> Result:
    """`evaluate.py` with these arguments."""
    out, err, handler = io.StringIO(), io.StringIO(), signal.getsignal(signal.SIGTERM)
    words: Sequence[str] = [str(argument) for argument in arguments]
    before = sys.argv
    sys.argv = [str(SCRIPT), *words]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            cli.main("evaluate")
    except SystemExit as end:
        return Result(int(end.code or 0), out.getvalue(), err.getvalue())
    finally:
        sys.argv = before
        signal.signal(signal.SIGTERM, handler)
    raise AssertionError("the script has not exited")


FAST = ("--seeds", 0)


def evaluated(*arguments: object) -> dict[str, Any]:
    """The output of a successful `--json`."""
    result = script(*arguments, "--json")
    assert result.code == 0, result.err
    found: dict[str, Any] = json.loads(result.out)
    return found


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape))


def half_width(estimate: Estimate) -> float:
    interval = estimate.interval()
    assert interval is not None
    return (interval[1] - interval[0]) / 2


def changes(function: Callable[[Tensor], Tensor], count: int, size: float = 1e-5) -> Tensor:
    """dF / dw of each weight at 1, by central differences."""
    found = []
    for i in range(count):
        step = torch.zeros(count, dtype=torch.float64)
        step[i] = size
        found.append(float(function(1 + step) - function(1 - step)) / (2 * size))
    return torch.tensor(found, dtype=torch.float64)
