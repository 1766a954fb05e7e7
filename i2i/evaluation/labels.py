"""Labels made from pictures, compared with the right ones; also the FCN score (Isola et al. 2017, Sec. 4.1)."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from i2i import images
from i2i.errors import ImageError, InputError, OutputError, UsageError
from i2i.evaluation import segmentation
from i2i.evaluation.bootstrap import Estimate, draws
from i2i.evaluation.measures import Measure, measured
from i2i.evaluation.pictures import PictureFiles
from i2i.images import Picture, Pixels
from i2i.images.palettes import Palette, labels_of, to_classes


def of_labels(
    made: Sequence[Pixels], expected: PictureFiles, palette: Palette, wanted: Sequence[str], seed: int = 0
) -> dict[str, Measure]:
    """Pixel accuracy, class accuracy and mean IoU over all pictures together, as far as `wanted`; `seed` is that of
    bootstrap draws.

    `made` are pictures of labels (H, W, C), `expected` files of them: colours, which are snapped to the palette,
    or class indices; pixels without a label do not count. Raises `InputError` naming a file that is no labels, or of
    another size.
    """
    counts = np.zeros((len(palette), len(palette) + 1), np.int64)
    each: list[list[Pixels]] = []
    for i, pixels in enumerate(made):
        try:
            found, right = to_classes(pixels, palette), labels_of(expected.picture(i), palette)
        except ImageError as error:
            raise InputError(f"{expected.name(i)}: {error}") from None
        except InputError as error:
            raise InputError(f"{expected.name(i)}: {error}") if expected.name(i) not in str(error) else error from None
        if found.shape != right.shape:
            raise InputError(
                f"{expected.name(i)}: {right.shape[1]}x{right.shape[0]} pixels; the labels made have "
                f"{found.shape[1]}x{found.shape[0]}"
            )
        confused = segmentation.confusion(found, right, len(palette))
        counts += confused
        each.append([np.diag(confused), confused.sum(axis=1), confused.sum(axis=0)[:-1]])
    try:
        scores = segmentation.scores(counts)
    except ValueError as error:
        raise InputError(f"labels cannot be scored: {error}") from None
    beside = {"palette": palette.name, "classes": len(palette)}
    per_class = {str(index): value for index, value in scores.per_class.items()}
    found_scores = {
        "pixel_accuracy": (scores.pixel_accuracy, {}),
        "class_accuracy": (scores.class_accuracy, {}),
        "mean_iou": (scores.mean_iou, {"per_class": per_class}),
    }
    varied = _resampled(each, seed)
    return {
        name: measured(name, Estimate(value, varied[name], len(made)), len(made), beside | more)
        for name, (value, more) in found_scores.items()
        if name in wanted
    }


def _resampled(each: Sequence[Sequence[Pixels]], seed: int) -> dict[str, Tensor]:
    """The scores of bootstrap draws, from the counts of each picture that `segmentation.rates` takes."""
    weights = draws(len(each), seed).numpy()
    pixel_accuracy, class_accuracy, iou = segmentation.rates(
        *(weights @ np.stack(part) for part in zip(*each, strict=True))
    )
    with warnings.catch_warnings(action="ignore"):  # of draws without labels
        mean_iou = np.nanmean(iou, axis=-1)
    found = {"pixel_accuracy": pixel_accuracy, "class_accuracy": class_accuracy, "mean_iou": mean_iou}
    return {name: torch.from_numpy(values) for name, values in found.items()}


def check_folder(folder: Path) -> None:
    """Raises `OutputError` if the folder for labels is not there."""
    if not folder.is_dir():
        raise OutputError(f"labels_out = {folder}: no such folder")


def targets(folder: Path, names: Sequence[str]) -> list[Path]:
    """The files of the labels made from the inputs `names`.

    Raises `UsageError` for those that exist, and for two of one name.
    """
    found = [folder / f"{Path(name).stem}.png" for name in names]
    if len(set(found)) < len(found):
        raise UsageError(f"labels_out = {folder}: two inputs have the same name")
    if existing := [target for target in found if target.exists()]:
        raise UsageError(f"{existing[0]} exists; give an empty folder for --labels-out")
    return found


def subfolder(folder: Path, name: str) -> Path:
    """The folder of this name in `folder`, made if it is not there. Raises `OutputError` if it cannot be."""
    try:
        (folder / name).mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"labels_out = {folder}: {name} cannot be made there: {error.strerror}") from None
    return folder / name


def write_labels(made: Sequence[Pixels], names: Sequence[str], palette: Palette, folder: Path) -> None:
    """Write labels as class-index PNG, one grey picture each, under the stems of `names`.

    Raises `UsageError` for files that exist and for two of one name, `OutputError` if they cannot be written.
    """
    check_folder(folder)
    for pixels, target in zip(made, targets(folder, names), strict=True):
        images.write(target, Picture(to_classes(pixels, palette)[..., None]), replace=False)
