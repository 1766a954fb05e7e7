"""What a user names to be evaluated: a run folder with its model files, or a model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from i2i.config import path_of_run, read_yaml
from i2i.data.datasets import TOY
from i2i.download import digest
from i2i.errors import ModelError, UsageError
from i2i.inference.translator import Translator
from i2i.models import pretrained, styles
from i2i.models.info import CONFIG_NAME, DIRECTIONS, WEIGHTS_NAME

KINDS = ("", "-best")


@dataclass(frozen=True)
class Subject:
    """A model to be evaluated, and the model that goes back, if there is one; `direction` is that of a run's model."""

    name: str
    path: Path
    back: Path | None = None
    direction: str = ""


def is_run(path: Path) -> bool:
    """Whether a folder is that of a training."""
    files = ("config.yaml", "log.jsonl", *(f"{name}.safetensors" for name in DIRECTIONS))
    return path.is_dir() and not (path / CONFIG_NAME).exists() and any((path / name).exists() for name in files)


def is_model_folder(path: Path) -> bool:
    return path.is_dir() and (path / CONFIG_NAME).exists() and (path / WEIGHTS_NAME).exists()


def of_run(run: Path, direction: str | None) -> list[Subject]:
    """The model files of a run: of each direction the last one and, where it is kept, the best."""
    found = []
    for name in DIRECTIONS if direction is None else (direction,):
        other = DIRECTIONS[1 - DIRECTIONS.index(name)]
        for kind in KINDS:
            path, back = run / f"{name}{kind}.safetensors", run / f"{other}{kind}.safetensors"
            if path.is_file():
                found.append(Subject(f"{name}{kind or ' (last)'}", path, back if back.is_file() else None, name))
    return found


def data_of_run(run: Path) -> Path:
    """The data set of a run, as its configuration names it. Raises `UsageError` if it cannot be found there."""
    data = path_of_run(run, "data")
    if is_toy(run):
        raise UsageError(f"{run} was trained on toy pictures, which are drawn on the fly; give a data set with --data")
    if data is None:
        raise UsageError(f"{run / 'config.yaml'} names no data; give --data")
    if not data.exists():
        raise UsageError(f"{run}: its data, {data}, are not there; give --data")
    return data


def configuration(model: Path) -> dict[str, Any]:
    """The configuration of the run in whose folder a model file lies; empty where none can be read."""
    path = model.parent / "config.yaml"
    try:
        return read_yaml(path) if path.exists() else {}
    except UsageError:
        return {}


def is_toy(run: Path) -> bool:
    """Whether a run was trained on pictures that no folder has."""
    return path_of_run(run, "data") == TOY and not TOY.exists()


def of_style(style: str, direction: str | None, download: bool) -> Subject:
    """What `--style` of translate.py names. Raises `UsageError` if there is no such thing."""
    return Subject(style, styles.find(style, direction, download=download))


def load(path: Path, options: Any, device: Any, direction: str | None) -> tuple[Translator, dict[str, Any]]:
    """The translator of a model, and what the report says of it. Raises `ModelError`, `UsageError`.

    `direction` is that of a checkpoint of the reference, which does not say it.
    """
    network, info = pretrained.open_model(path, direction=direction if path.suffix == ".pth" else None)
    pictures = bool(info.output_labels) or info.encoding == "lab"  # of labels in their colours
    if not pictures and info.config.get("out_channels", 3) not in (1, 3):
        raise ModelError(f"{path}: makes pictures of {info.config['out_channels']} channels; 1 or 3 are measured")
    translator = Translator(network, info, device, precision=options.precision, seed=options.seeds[0])
    return translator, {
        "model": str(path),
        "sha256": digest(path / WEIGHTS_NAME if path.is_dir() else path),
        "network": info.network,
        "direction": f"{info.direction} ({info.input_domain} → {info.output_domain})",
        "algorithm": info.training.algorithm,
        "steps": info.training.steps,
    }
