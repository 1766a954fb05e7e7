"""The metrics that do not apply to some pictures, and why: a mapping from metric to reason, `not_applicable`."""

from collections.abc import Mapping, Sequence

import numpy as np

from i2i.errors import UsageError
from i2i.evaluation.data import EvaluationData, Items, PictureFiles
from i2i.evaluation.options import CONTENT, LABELS, PAIRED, SETS, EvaluationOptions
from i2i.images import palettes
from i2i.images.palettes import Palette, distance, label_pixels

NotApplicable = Mapping[str, str]
INDICES = "class indices, which are no intensities, are compared by the metrics of labels alone"
NO_PALETTE = "needs --palette, the colours of the classes"
AT_SIZE = "is for labels at their own size: leave out --size"
_SAMPLE = 4  # pictures of a set that are looked at; one in colour is enough


def of_folders(outputs: PictureFiles, targets: PictureFiles, options: EvaluationOptions) -> dict[str, str]:
    """For two folders: pairs, or sets where `unpaired`."""
    found = dict.fromkeys(CONTENT, "compares outputs with what a model was given, and two folders have no model")
    if options.unpaired:
        return found | dict.fromkeys([*PAIRED, *LABELS], "compares pairs, and --unpaired compares sets")
    if not options.palette:
        return found | dict.fromkeys(LABELS, no_palette(options, known=False))
    if hold_indices(palettes.find(options.palette), outputs, targets):
        found |= dict.fromkeys([*PAIRED, *SETS], INDICES)
    return found


def of_model(data: EvaluationData, goes_back: bool, no_labels: str, palette: Palette | None) -> dict[str, str]:
    """For a model on its data; `no_labels` says why its outputs are not scored as labels, and is empty if they are.

    `palette` are the classes, if they are known, also where labels are not scored.
    """
    found: dict[str, str] = {}
    if data.targets is None:
        found |= dict.fromkeys(PAIRED, f"needs pairs, and {data.where} has none")
    if data.reference is None:
        others = [name for name in SETS if name != "diversity"]
        found |= dict.fromkeys(others, "needs the set that outputs should be like: --reference FOLDER")
    if not goes_back:
        found["cycle_error"] = "needs the model that goes back: --back MODEL"
    if no_labels:
        found |= dict.fromkeys(LABELS, no_labels)
    if palette and data.targets is not None and hold_indices(palette, PictureFiles(data.targets)):
        found |= dict.fromkeys([*PAIRED, *SETS], INDICES)
    if palette and hold_indices(palette, PictureFiles(data.inputs)):
        found |= dict.fromkeys(CONTENT, INDICES)
    return found


def no_palette(options: EvaluationOptions, *, known: bool) -> str:
    """Why labels cannot be scored; `known` says whether a model knows the classes."""
    if options.size is None:
        return NO_PALETTE
    return AT_SIZE if known else f"{NO_PALETTE}, and {AT_SIZE}"


def no_labels(data: EvaluationData, direction: str, reader: str | None, palette: Palette) -> str:
    """Why the outputs of a model of `direction` are not scored as labels; empty if they are.

    `reader` is the direction of the label model, which reads labels back from pictures. Raises `InputError` for
    pictures that cannot be read.
    """
    if reader is not None and reader != direction:
        return ""
    if data.targets is None and reader is None:
        return f"needs labels to compare with, and {data.where} has no pairs"
    if data.targets is None:
        return f"is read back from pictures made of labels, and the label model makes labels too ({reader})"
    if reader is None and _distance(data.inputs, palette) < _distance(data.targets, palette):
        return (
            f"compares labels, and what this model ({direction}) is given looks more like those of the palette than "
            "what it should make: --label-model reads labels back from pictures"
        )
    return ""


def _distance(items: Items, palette: Palette) -> float:
    """How far, on average, the pixels of the first pictures are from the palette; 0 for class indices."""
    files = PictureFiles(items[:_SAMPLE])
    return float(np.mean([distance(label_pixels(files.picture(i), palette), palette) for i in range(len(files))]))


def hold_indices(palette: Palette, *sets: PictureFiles) -> bool:
    """Whether one of the sets of labels holds class indices, as its first picture shows."""
    return any(palettes.holds_indices(files.picture(0), palette) for files in sets)


def check_features(options: EvaluationOptions, name: str, kind: str) -> None:
    """Raises `UsageError` if `--features` is given: the pictures of `name`, of some `kind`, have no colours."""
    if options.features:
        raise UsageError(
            f"features = {options.features!r}: a network that knows pictures in colour; {name} {kind}: leave out "
            "--features"
        )


def check_colours(options: EvaluationOptions, *sets: PictureFiles) -> None:
    """Raises `UsageError` if `--features` is given and the first pictures of a set are all grey, or have bands of data.

    Raises `InputError` for pictures that cannot be read.
    """
    for files in sets if options.features else ():
        channels = {files.picture(i).pixels.shape[2] for i in range(min(len(files), _SAMPLE))}
        if channels and 3 not in channels:
            kind = "holds grey pictures" if channels == {1} else f"holds pictures of {max(channels)} channels"
            check_features(options, str(files.items[0].path.parent), kind)


def check(options: EvaluationOptions, rows: Sequence[NotApplicable]) -> None:
    """Raises `UsageError` for each metric asked for by name that applies to none of the rows, and for a palette with
    which nothing can be scored."""
    lost = [name for name in options.metrics if all(name in row for row in rows)]
    if lost:
        raise UsageError("metrics: " + "; ".join(f"{name} {rows[0][name]}" for name in lost))
    if options.features and all("kid" in row for row in rows):
        raise UsageError(f"features = {options.features!r}: KID is measured in them, and kid {rows[0]['kid']}")
    if options.palette and all(row.get(name) for row in rows for name in LABELS):
        raise UsageError(f"palette: nothing can be scored with it: pixel_accuracy {rows[0][LABELS[0]]}")


def notes(name: str, not_applicable: NotApplicable, options: EvaluationOptions) -> list[str]:
    """Why one row has none of the metrics that the user has reason to expect."""
    if options.metrics:
        missed = {metric: reason for metric, reason in not_applicable.items() if metric in options.metrics}
    else:
        labels = LABELS if options.palette else ()
        missed = {m: reason for m, reason in not_applicable.items() if reason in (INDICES, AT_SIZE) or m in labels}
    reasons = dict.fromkeys(missed.values())
    return [f"{name}: {', '.join(m for m, r in missed.items() if r == reason)}: {reason}" for reason in reasons]
