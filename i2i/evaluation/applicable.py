"""Which metrics apply to what is measured, and why the others do not."""

from collections.abc import Mapping, Sequence

from i2i.errors import UsageError
from i2i.evaluation.options import CONTENT, LABELS, PAIRED, SETS, EvaluationOptions
from i2i.evaluation.pictures import PictureFiles
from i2i.evaluation.tasks import Task
from i2i.images import palettes
from i2i.images.palettes import Palette

Unfit = Mapping[str, str]  # metric → why it does not apply
INDICES = "class indices, which are no intensities, are compared by the metrics of labels alone"
NO_PALETTE = "needs --palette, the colours of the classes"  # of which no model knows
_LOOKED_AT = 4  # pictures of a set, of which one in colour is enough
AT_SIZE = "is for labels at their own size: leave out --size"


def of_folders(made: PictureFiles, expected: PictureFiles, options: EvaluationOptions) -> dict[str, str]:
    """Of two folders: pairs, or sets where `unpaired`."""
    unfit = dict.fromkeys(CONTENT, "compares outputs with what a model was given, and two folders have no model")
    if options.unpaired:
        return unfit | dict.fromkeys([*PAIRED, *LABELS], "compares pairs, and --unpaired compares sets")
    if not options.palette:
        return unfit | dict.fromkeys(LABELS, no_palette(options, known=False))
    if hold_indices(palettes.find(options.palette), made, expected):
        unfit |= dict.fromkeys([*PAIRED, *SETS], INDICES)
    return unfit


def no_palette(options: EvaluationOptions, *, known: bool) -> str:
    """Why labels cannot be scored; `known` says whether a model knows the classes."""
    if options.size is None:
        return NO_PALETTE
    return AT_SIZE if known else f"{NO_PALETTE}, and {AT_SIZE}"


def of_model(task: Task, goes_back: bool, no_labels: str, palette: Palette | None) -> dict[str, str]:
    """Of a model on the pictures of a task; `no_labels` says why its outputs are not scored as labels, or is empty.

    `palette` are the classes, if they are known, also where labels are not scored.
    """
    unfit: dict[str, str] = {}
    if task.expected is None:
        unfit |= dict.fromkeys(PAIRED, f"needs pairs, and {task.where} has none")
    if task.reference is None:
        others = [name for name in SETS if name != "diversity"]
        unfit |= dict.fromkeys(others, "needs the set that outputs should be like: --reference FOLDER")
    if not goes_back:
        unfit["cycle_error"] = "needs the model that goes back: --back MODEL"
    if no_labels:
        unfit |= dict.fromkeys(LABELS, no_labels)
    if palette and task.expected is not None and hold_indices(palette, PictureFiles(task.expected)):
        unfit |= dict.fromkeys([*PAIRED, *SETS], INDICES)
    if palette and hold_indices(palette, PictureFiles(task.inputs)):
        unfit |= dict.fromkeys(CONTENT, INDICES)
    return unfit


def hold_indices(palette: Palette, *sets: PictureFiles) -> bool:
    """Whether one of the sets of labels holds class indices, as its first picture shows."""
    return any(palettes.holds_indices(files.picture(0), palette) for files in sets)


def check_features(options: EvaluationOptions, made: Mapping[str, str]) -> None:
    """Raises `UsageError` if `--features` is given and something (name → what it is) has no colours to see."""
    for name, kind in made.items():
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
        channels = {files.picture(i).pixels.shape[2] for i in range(min(len(files), _LOOKED_AT))}
        if channels and 3 not in channels:
            kind = "holds grey pictures" if channels == {1} else f"holds pictures of {max(channels)} channels"
            check_features(options, {str(files.items[0].path.parent): kind})


def check(options: EvaluationOptions, rows: Sequence[Unfit]) -> None:
    """Raises `UsageError` for each metric asked for by name that applies to none of the rows.

    So it does for a palette with which nothing can be scored, and if nothing at all is left.
    """
    lost = [name for name in options.metrics if all(name in unfit for unfit in rows)]
    if lost:
        raise UsageError("metrics: " + "; ".join(f"{name} {rows[0][name]}" for name in lost))
    if options.features and all("kid" in unfit for unfit in rows):
        raise UsageError(f"features = {options.features!r}: KID is measured in them, and kid {rows[0]['kid']}")
    if options.palette and all(unfit.get(name) for unfit in rows for name in LABELS):
        raise UsageError(f"palette: nothing can be scored with it: pixel_accuracy {rows[0][LABELS[0]]}")


def notes(row: str, unfit: Unfit, options: EvaluationOptions) -> list[str]:
    """What is to be said of metrics that do not apply to one row: of those that the user has reason to expect."""
    if options.metrics:
        expected = {name: reason for name, reason in unfit.items() if name in options.metrics}
    else:
        labels = LABELS if options.palette else ()
        expected = {name: reason for name, reason in unfit.items() if reason in (INDICES, AT_SIZE) or name in labels}
    reasons = list(dict.fromkeys(expected.values()))
    return [f"{row}: {', '.join(n for n, r in expected.items() if r == reason)}: {reason}" for reason in reasons]
