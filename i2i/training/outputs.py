"""What a run leaves for use and for looking at: model files and sample grids."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from i2i import images
from i2i.algorithms.algorithm import Algorithm
from i2i.training.options import RunOptions
from i2i.translation import model_file


def save_model_files(
    algorithm: Algorithm,
    networks: dict[str, nn.Module],
    options: RunOptions,
    step: int,
    images_seen: int,
    metrics: dict[str, float],
) -> None:
    """Write `<direction>.safetensors` for each of the generators to be kept. Raises `OutputError`."""
    assert options.run is not None
    training = model_file.Training(
        algorithm=algorithm.name,
        dataset=dataset_name(options.data) if options.data else "",
        steps=step,
        images_seen=images_seen,
        metrics=metrics,
    )
    for name, network in networks.items():
        direction: Any = name if options.direction == "a2b" else {"a2b": "b2a", "b2a": "a2b"}[name]
        info = model_file.describe(
            network,
            direction=direction,
            statistics=algorithm.test_statistics,
            dropout=algorithm.test_dropout,
            training=training,
        )
        model_file.save(options.run / f"{direction}.safetensors", network, info)


def dataset_name(data: Path) -> str:
    """What a model file calls the data set: its folder's or table's name, without what would make it a path."""
    name = data.stem if data.suffix.lower() == ".csv" else data.name
    return name.replace("/", "_").replace("\\", "_")


def save_grid(path: Path, picture: Tensor) -> None:
    """Write a grid, (3, H, W) in [0, 1], as PNG, whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    images.write(path, images.Picture(pixels=images.to_pixels(picture * 2 - 1)))
