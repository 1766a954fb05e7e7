"""The commands of `i2i`; `scripts/` has a door to each, for a checkout.

This table says what `i2i --help` and the short help of a command show. Nothing here imports anything heavy: a command's
module is imported once its command line is known to be without mistakes (`i2i.cli`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, get_type_hints

if TYPE_CHECKING:
    from i2i.data.options import Layout


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command, or a training by one algorithm."""

    summary: str
    """A line for `i2i --help`."""
    usage: str
    """Its arguments, in the line of usage."""
    examples: tuple[str, ...]
    """Its arguments, in the example lines to paste."""
    first: str
    """The options that the short help shows, in that order, with blanks between."""
    layout: "Layout | None" = None
    """The folders of a training's data; None where options decide."""
    module: str = "train"
    """Its module here, in which a function has its name, and takes its options."""


TRAINING = (
    "data run direction crop_size load_size batch_size n_epochs n_epochs_decay max_steps lr generator init_from device "
    "precision"
)
"""The options of a training that most people need first."""


def _training(summary: str, layout: "Layout", example: str, more: str = "", without: str = "") -> Command:
    first = " ".join(name for name in TRAINING.split() if name != without)
    return Command(
        summary=summary, layout=layout, usage="--data FOLDER [options]", examples=(example,), first=f"{first} {more}"
    )


ALGORITHMS: dict[str, Command] = {
    "cyclegan": _training(
        "two folders of pictures without pairs, in both directions (CycleGAN)",
        "unpaired",
        "--data datasets/monet2photo --run runs/monet",
        "lambda_identity",
    ),
    "pix2pix": _training(
        "pairs of pictures, such as sketches and photos (pix2pix)",
        "paired",
        "--data datasets/facades --direction b2a --run runs/facades",
        "lambda_L1",
    ),
    "pix2pixhd": _training(
        "pairs at higher resolution, or label maps and photos (pix2pixHD)",
        "paired",
        "--data datasets/facades --direction b2a --classes-b facades",
        "classes_a classes_b",
    ),
    "cut": _training(
        "two folders without pairs, in one direction; lighter than CycleGAN (CUT)",
        "unpaired",
        "--data datasets/monet2photo --direction b2a --run runs/cut_monet",
    ),
    "segmentation": _training(
        "photos to labels, from pairs",
        "paired",
        "--data datasets/facades --classes-b facades --run runs/labels",
        "classes_a classes_b",
    ),
    "colorization": _training(
        "grey pictures to colour, from pictures in colour", "one domain", "--data photos --run runs/colours"
    ),
    "gan": _training(
        "new pictures like those of one folder, from noise (GAN)",
        "one domain",
        "--data datasets/monets --run runs/gan_monet",
        without="direction",
    ),
    "distill": Command(
        summary="a small, fast generator that does what a large one does",
        usage="TEACHER --data FOLDER [options]",
        examples=("monet --data photos --run runs/monet-lite",),
        first=f"teacher {TRAINING}",
    ),
}

COMMANDS: dict[str, Command] = {
    "train": Command(
        module="train",
        summary="train a network on your pictures",
        usage="ALGORITHM --data FOLDER [options]",
        examples=("cyclegan --data datasets/monet2photo --run runs/monet", "configs/cyclegan_monet2photo.yaml"),
        first="",
    ),
    "translate": Command(
        module="translate",
        summary="translate pictures and folders with a trained network",
        usage="--style STYLE INPUT... -o OUT [options]",
        examples=("--style monet photos/ -o out/", "--list-styles"),
        first=(
            "inputs style out mix direction strength mask keep size paint_size format overwrite skip_existing show "
            "device runtime list_styles"
        ),
    ),
    "serve": Command(
        module="translate",
        summary="open a page on this machine that translates pictures in the browser",
        usage="[STYLE...] [options]",
        examples=("", "monet runs/mine --port 8000"),
        first="styles port host token open max_megapixels device",
    ),
    "plan": Command(
        module="train",
        summary="measure what a training will cost on this machine: time, memory, disk",
        usage="ALGORITHM --data FOLDER [options of the training]",
        examples=("cyclegan --data datasets/monet2photo", "pix2pix --config configs/pix2pix_facades.yaml"),
        first="data memory_limit measure_steps measure_seconds json",
    ),
    "evaluate": Command(
        module="results",
        summary="measure a run, a model or pictures by FID, KID, SSIM and others",
        usage="RUN | MODEL PICTURES | RESULTS EXPECTED [options]",
        examples=("runs/facades", "monet datasets/monet2photo --direction b2a"),
        first="inputs metrics data split direction report json device",
    ),
    "report": Command(
        module="results",
        summary="write a run as one HTML page: curves, samples, numbers",
        usage="RUN [-o FILE.html] [options]",
        examples=("runs/facades",),
        first="folder out pictures direction device",
    ),
    "sample": Command(
        module="results",
        summary="make new pictures from noise with a trained GAN",
        usage="--style STYLE -o OUT [options]",
        examples=("--style runs/gan_monet --count 64 -o out/ --grid grid.png",),
        first="style out count grid walk seed device",
    ),
    "export": Command(
        module="results",
        summary="write a trained network in another form: .pth, model file, ONNX, web page",
        usage="MODEL -o OUT | MODEL... --web FOLDER [options]",
        examples=("runs/monet --direction a2b -o latest_net_G_A.pth", "monet vangogh --web site/"),
        first="model out web web_runtime format direction half card licence overwrite",
    ),
    "augment": Command(
        module="results",
        summary="add translated copies of labelled pictures, with their labels",
        usage="--style STYLE[,STYLE...] DATA -o OUT [options]",
        examples=("--style runs/monet data/ -o augmented/",),
        first="data style out dry_run overwrite skip_existing device",
    ),
    "prepare-dataset": Command(
        module="datasets",
        summary="list, download, check, combine, split and divide data sets",
        usage="list | download NAME | check FOLDER | ... [options]",
        examples=("list", "download horse2zebra", "check datasets/horse2zebra --full"),
        first="words out full val test seed overwrite skip_existing",
    ),
    "compare": Command(
        module="results",
        summary="lay folders of pictures side by side: a contact sheet, or a page with sliders",
        usage="BEFORE AFTER [MORE...] -o SHEET.png|PAGE.html [options]",
        examples=("photos/ painted/ -o sheet.png", "photos/ monet/ vangogh/ -o page.html"),
        first="inputs out max overwrite",
    ),
    "doctor": Command(
        module="installation",
        summary="check this installation: versions, devices, missing extras, wrong results",
        usage="[--json]",
        examples=("",),
        first="json",
    ),
    "demo": Command(
        module="installation",
        summary="train and translate on toy pictures in a few minutes, without a download",
        usage="[--out FOLDER]",
        examples=("",),
        first="out",
    ),
}


def loaded(command: str, algorithm: str = "") -> tuple[Callable[[Any], int | None], type[Any]]:
    """The function that a command runs, of `train` and `plan` for an algorithm, and the class of its options."""
    module = import_module(f"i2i.commands.{COMMANDS[command].module}")
    function = getattr(module, command.replace("-", "_"))
    if algorithm:
        return partial(function, algorithm), module.options_class(command, algorithm)
    return function, get_type_hints(function)["options"]
