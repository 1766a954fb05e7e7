"""Labels made from pictures, compared with the right ones; also the FCN score (Isola et al. 2017, Sec. 4.1)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from i2i import images
from i2i.errors import ImageError, InputError, OutputError, UsageError
from i2i.evaluation import segmentation
from i2i.evaluation.measures import Measure
from i2i.evaluation.pictures import PictureFiles
from i2i.images import Picture, Pixels
from i2i.images.palettes import Palette, labels_of, to_classes


def of_labels(
    made: Sequence[Pixels], expected: PictureFiles, palette: Palette, wanted: Sequence[str]
) -> dict[str, Measure]:
    """Pixel accuracy, class accuracy and mean IoU over all pictures together, as far as `wanted`.

    `made` are pictures of labels (H, W, C), `expected` files of them: colours, which are snapped to the palette,
    or class indices; pixels without a label do not count. Raises `InputError` naming a file that is no labels, or of
    another size.
    """
    counts = np.zeros((len(palette), len(palette) + 1), np.int64)
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
        counts += segmentation.confusion(found, right, len(palette))
    try:
        scores = segmentation.scores(counts)
    except ValueError as error:
        raise InputError(f"labels cannot be scored: {error}") from None
    beside = {"palette": palette.name, "classes": len(palette)}
    per_class = {str(index): value for index, value in scores.per_class.items()}
    found_scores = {
        "pixel_accuracy": Measure(scores.pixel_accuracy, len(made), beside),
        "class_accuracy": Measure(scores.class_accuracy, len(made), beside),
        "mean_iou": Measure(scores.mean_iou, len(made), {**beside, "per_class": per_class}),
    }
    return {name: measure for name, measure in found_scores.items() if name in wanted}


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
