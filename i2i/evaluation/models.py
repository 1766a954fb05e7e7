"""Models under test: the run folder, model file or style that a user names, and its translator."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from i2i import config
from i2i.config import path_of, path_of_run
from i2i.data.datasets import TOY
from i2i.download import digest
from i2i.errors import ImageError, InputError, ModelError, UsageError
from i2i.evaluation.data import GeneratedImages, PictureFiles, Pictures
from i2i.evaluation.options import EvaluationOptions
from i2i.images import SUFFIXES, to_pixels, with_depth
from i2i.inference.failures import not_finite
from i2i.inference.translator import Translator
from i2i.models import pretrained, styles
from i2i.models.info import CONFIG_NAME, DIRECTIONS, FROM_NOISE, WEIGHTS_NAME, Direction, ModelInfo, read_info


@dataclass(frozen=True)
class ModelUnderTest:
    """A model, and the model that translates back, if there is one; `direction` is that of a run's model."""

    name: str
    path: Path
    back: Path | None = None
    direction: str = ""

    @property
    def info(self) -> ModelInfo | None:
        """The description in its file; None for a checkpoint of junyanz, and for a file that loading will refuse."""
        try:
            return read_info(self.path)
        except ModelError:
            return None

    @property
    def is_gan(self) -> bool:
        """Whether it generates pictures from noise."""
        return self.info is not None and self.info.network in FROM_NOISE


def find_model(style: str, options: EvaluationOptions) -> ModelUnderTest:
    """The model that an input names. Raises `InputError` for a path where nothing is, `UsageError` for no style."""
    path = Path(style)
    if not path.exists() and not style.startswith("hub:") and len(path.parts) > 1:
        raise InputError(f"{style}: no such folder or model file")
    return ModelUnderTest(style, styles.find(style, options.direction, download=options.download))


def find_other_models(models: list[ModelUnderTest], options: EvaluationOptions) -> list[ModelUnderTest]:
    """The models that `--against` names. Raises `UsageError` for one of `models`, and for pictures."""
    others: list[ModelUnderTest] = []
    for name in options.against:
        path = path_of(name)
        if is_pictures(path):
            raise UsageError(
                f"against = {name!r}: a folder of pictures; expected a model or a run, as the first is one"
            )
        run = models_of_run(path, options.direction) if is_run(path) else []
        others += [replace(model, name=f"{name} {model.name}") for model in run] or [find_model(name, options)]
    paths = [model.path for model in (*models, *others)]
    if twice := [model.name for model in others if paths.count(model.path) > 1]:
        raise UsageError(f"against = {twice[0]!r}: is measured already")
    return others


def models_of_run(run: Path, direction: str | None) -> list[ModelUnderTest]:
    """The model files of a run: for each direction the last one and, where it is kept, the best."""
    found = []
    for name in DIRECTIONS if direction is None else (direction,):
        for kind, shown in (("", " (last)"), ("-best", "-best")):
            path, back = run / f"{name}{kind}.safetensors", run / f"{opposite(name)}{kind}.safetensors"
            if path.is_file():
                found.append(ModelUnderTest(f"{name}{shown}", path, back if back.is_file() else None, name))
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


def is_toy(run: Path) -> bool:
    """Whether a run was trained on toy pictures, which no folder has."""
    return path_of_run(run, "data") == TOY and not TOY.exists()


def is_run(path: Path) -> bool:
    """Whether a folder is that of a training, or has its model files, and is no model itself."""
    models = any((path / f"{name}.safetensors").exists() for name in DIRECTIONS)
    return path.is_dir() and not (path / CONFIG_NAME).exists() and (models or config.is_run(path))


def is_pictures(path: Path) -> bool:
    """Whether a path is a folder of pictures, neither a run nor a model. Raises `UsageError` for a picture."""
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        raise UsageError(f"{path}: a picture; expected a folder of pictures, a run folder or a model")
    is_model = (path / CONFIG_NAME).exists() and (path / WEIGHTS_NAME).exists()
    return path.is_dir() and not is_run(path) and not is_model


def opposite(direction: str) -> Direction:
    """The direction that goes back."""
    return "b2a" if direction == "a2b" else "a2b"


def load(
    path: Path, options: EvaluationOptions, device: torch.device, direction: str | None
) -> tuple[Translator, dict[str, Any]]:
    """The translator of a model, and its facts for the report. Raises `ModelError`, `UsageError`.

    `direction` is for a checkpoint of junyanz, whose file does not record it.
    """
    network, info = pretrained.open_model(path, direction=direction if path.suffix == ".pth" else None)
    in_colour = bool(info.output_labels) or info.encoding == "lab"
    if not in_colour and info.config.get("out_channels", 3) not in (1, 3):
        raise ModelError(f"{path}: makes pictures of {info.config['out_channels']} channels; 1 or 3 are measured")
    translator = Translator(network, info, device, precision=options.precision, seed=options.seeds[0])
    direction = f"{info.direction} ({info.input_domain} → {info.output_domain})"
    return translator, facts(path, info, direction=direction)


def facts(path: Path, info: ModelInfo, **more: str) -> dict[str, Any]:
    """The facts of a model that stand beside its numbers."""
    return {
        "model": str(path),
        "sha256": digest(path / WEIGHTS_NAME if path.is_dir() else path),
        "network": info.network,
        **more,
        "algorithm": info.training.algorithm,
        "steps": info.training.steps,
    }


def translate(translator: Translator, pictures: Pictures) -> GeneratedImages:
    """Pictures through a network, in 8 bits.

    Raises `InputError` for inputs with other channels or values that are not finite, and `ModelError` for outputs that
    are not finite: in 8 bits they would be black, and measured as such.
    """
    if translator.coding.inputs and isinstance(pictures, PictureFiles):
        return _translate_labels(translator, pictures)
    channels = translator.picture_channels
    outputs = []
    for i in range(len(pictures)):
        picture = pictures[i]
        if len(picture) != channels:
            raise InputError(f"pictures of {len(picture)} channels; {translator.info.network} takes {channels}")
        if not bool(torch.isfinite(picture).all()):
            raise InputError(f"{pictures.name(i)}: holds values that are not finite")
        output = translator.translate_tensor(picture)
        if not bool(torch.isfinite(output).all()):
            raise ModelError(f"{pictures.name(i)}: {not_finite(translator.info.network, translator.precision)}")
        outputs.append(to_pixels(output))
    return GeneratedImages(outputs)


def _translate_labels(translator: Translator, files: PictureFiles) -> GeneratedImages:
    """Pictures of labels, as they are in their files. Raises `InputError` for other pictures."""
    if files.size is not None:
        raise InputError("pictures of labels are measured at their own size: without --size, and with their partners")
    outputs = []
    for i in range(len(files)):
        try:
            outputs.append(translator.translate(files.picture(i)).pixels)
        except ImageError as error:
            raise InputError(f"{files.name(i)}: {error}") from None
    return GeneratedImages([with_depth(pixels, np.uint8) for pixels in outputs])
