"""Messages name options as they are typed in a command or given in Python, and the words that an option takes."""

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from tiny_networks import tiny_teacher

from i2i.acceleration import accelerate
from i2i.data.toy import ToyPairs
from i2i.errors import UsageError, as_typed, check_word, on_command_line
from i2i.folders.batch import translate_folder
from i2i.images import Picture, encode
from i2i.losses.adversarial import GANLoss
from i2i.losses.content import patch_nce
from i2i.models.info import describe
from i2i.models.model_file import open_model
from i2i.networks.blocks import for_translation, init_weights
from i2i.tools.datasets.shape import split_dataset

ROOT = Path(__file__).parents[1] / "i2i"
ROOMS = (
    *("acceleration", "algorithms", "data", "films", "folders", "images", "inference", "losses", "models", "networks"),
    "training",
)


@pytest.mark.parametrize(
    ("option", "in_command", "in_python"),
    [
        (("paint_size",), "--paint-size", "paint_size"),
        (("ngf", 4), "--ngf 4", "ngf=4"),
        (("data", Path("my data")), "--data 'my data'", "data='my data'"),
        (("mix", "a:1,b:2"), "--mix a:1,b:2", "mix='a:1,b:2'"),
        (("metrics", ["fid", "kid"]), "--metrics fid kid", "metrics=['fid', 'kid']"),
        (("in_place", True), "--in-place", "in_place=True"),
        (("flip", False), "--no-flip", "flip=False"),
        (("lambda_identity", 0), "--lambda-identity 0", "lambda_identity=0"),
        (("lr_discriminator", None), "no --lr-discriminator", "lr_discriminator=None"),
        (("best_floor", ""), "no --best-floor", "best_floor=''"),
    ],
)
def test_an_option_is_named_as_it_is_given(option: tuple[Any, ...], in_command: str, in_python: str) -> None:
    assert as_typed(*option) == in_python
    with on_command_line():
        assert as_typed(*option) == in_command
        with on_command_line():
            pass
        assert as_typed(*option) == in_command
    assert as_typed(*option) == in_python


def test_an_option_that_is_no_switch_takes_its_value() -> None:
    with on_command_line():
        assert as_typed("bias", False, is_switch=False) == "--bias False"


def test_a_command_and_python_hear_of_the_same_mistake(tmp_path: Path) -> None:
    said = []
    for typed in (False, True):
        with pytest.raises(UsageError) as caught:
            if typed:
                with on_command_line():
                    translate_folder(tmp_path, tmp_path / "out")
            else:
                translate_folder(tmp_path, tmp_path / "out")
        said.append(str(caught.value))
    assert said == [
        "expected one of style and mix, such as style='monet' or mix='monet:0.6,vangogh:0.4'",
        "expected one of --style and --mix, such as --style monet or --mix monet:0.6,vangogh:0.4",
    ]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_for_python_names_no_flag(room: str) -> None:
    """Its messages name options by `as_typed`."""
    flag, found = re.compile(r"(?<![\w-])--[a-z]"), []
    for file in sorted((ROOT / room).rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        said = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
        for node in set(ast.walk(tree)) - said:
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and flag.search(node.value):
                found += [] if OF_OTHERS.search(node.value) else [f"{file.name}:{node.lineno}: {node.value}"]
    assert not found


OF_OTHERS = re.compile(
    "pip install|in Docker: --shm-size|^--verify$|the command prints the report with --json|^--style $"
    "|^ --direction a2b$|--download fetches what is|^--style also takes"
)
"""These belong to other programs or to commands alone: commands to type, the table of --list-styles."""

Colour = Literal["red", "green", "blue"]


def test_a_wrong_word_is_refused_with_the_words_that_are_taken() -> None:
    check_word("colour", "red", Colour)
    check_word("colour", None, Colour | None)
    for words, value in ((Colour, "pink"), (Colour, None), (Colour | None, "pink"), (Colour, ["red"])):
        said = f"colour = {value!r}: expected 'red', 'green' or 'blue'"
        with pytest.raises(UsageError, match=f"^{re.escape(said)}$"):
            check_word("colour", value, words)


LAYER = torch.nn.Conv2d(3, 3, 1)
PICTURE = Picture(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8))
WRONG: dict[str, Callable[[], object]] = {
    "purpose": lambda: accelerate(LAYER, "translation"),  # type: ignore[arg-type]
    "engine": lambda: accelerate(LAYER, "inference", engine="fast"),  # type: ignore[arg-type]
    "kind": lambda: init_weights(LAYER, "gauss"),  # type: ignore[arg-type]
    "statistics": lambda: for_translation(LAYER, "runing"),  # type: ignore[arg-type]
    "side": lambda: PICTURE.half("middle"),  # type: ignore[arg-type]
    "background": lambda: PICTURE.composited_on("grey"),  # type: ignore[arg-type]
    "format": lambda: encode(PICTURE, "png"),  # type: ignore[arg-type]
    "direction": lambda: describe(LAYER, direction="b2b"),  # type: ignore[arg-type]
    "negatives": lambda: patch_nce(torch.ones(1, 2, 2), torch.ones(1, 2, 2), negatives="all"),  # type: ignore[arg-type]
    "mode": lambda: GANLoss("lsgann"),  # type: ignore[arg-type]
    "direction of a toy": lambda: ToyPairs(direction="A2B"),  # type: ignore[arg-type]
    "domain": lambda: split_dataset(Path(), Path("new"), domain="C"),  # type: ignore[arg-type]
    "statistics of a model": lambda: open_model(tiny_teacher(), statistics="b"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", WRONG)
def test_no_function_takes_another_word_for_one_of_its_own(name: str) -> None:
    with pytest.raises(UsageError, match=rf"^{name.split()[0]} = '\w+': expected '\w+'.* or '\w+'$"):
        WRONG[name]()
