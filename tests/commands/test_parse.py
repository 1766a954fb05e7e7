"""From words to options: where a value begins with a dash, and where the values of an option end."""

from typing import Any

import pytest

from i2i.commands.options import options_of
from i2i.commands.parse import read_line
from i2i.errors import UsageError


@pytest.mark.parametrize(
    ("command", "words", "given"),
    [
        ("train", "--range-a -1000:3000", {"range_a": "-1000:3000"}),
        ("train", "--range_a -.5:1 --range-b=-1e-3:.5", {"range_a": "-.5:1", "range_b": "-1e-3:.5"}),
        ("translate", "-o -5 a.png", {"out": "-5", "inputs": ("a.png",)}),
        ("translate", "- -o=out", {"out": "out", "inputs": ("-",)}),
        ("translate", "-a.png -o out -- --out", {"out": "out", "inputs": ("-a.png", "--out")}),
        ("evaluate", "run --seeds 1 -2 --json", {"inputs": ("run",), "seeds": (1, -2), "json": True}),
        ("evaluate", "--against=a b --no-json run", {"against": ("a", "b"), "inputs": ("run",), "json": False}),
    ],
)
def test_words_become_options(command: str, words: str, given: dict[str, Any]) -> None:
    assert read_line(words.split(), options_of(command, "pix2pix")).given == given


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("--lr -1e-5", "lr = -1e-05: .*> 0"),
        ("--lr -inf", "lr = -inf: .*> 0"),
        ("--norm=--", "norm = '--': expected 'batch'"),
        ("--batch-size -p", "--batch-size: expected a value"),
        ("--run", "--run: expected a value"),
        ("--config", "--config: expected a YAML file"),
        ("--config --lr 1", "--config: expected a YAML file"),
    ],
)
def test_what_is_no_value(words: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        read_line(words.split(), options_of("train", "pix2pix"))


def test_the_flag_without_a_value_is_named_as_it_was_typed() -> None:
    for flag in ("--out", "-o"):
        with pytest.raises(UsageError, match=f"^{flag}: expected a value"):
            read_line(["a.png", flag], options_of("translate"))
