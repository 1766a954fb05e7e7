"""From words to options: where a value begins with a dash, and where the values of an option end; and the help."""

from collections import Counter
from typing import Any

import pytest

from i2i import plain_yaml
from i2i.commands import ALGORITHMS, COMMANDS, Command
from i2i.commands.line import _typed, help_of_all, help_of_command, read_line
from i2i.commands.options import Option, options_of
from i2i.errors import UsageError

ALL = {
    **{name: (command, options_of(name)) for name, command in COMMANDS.items() if name not in ("train", "plan")},
    "plan": (COMMANDS["plan"], options_of("plan", "cyclegan")),
    **{f"train {name}": (entry, options_of("train", name)) for name, entry in ALGORITHMS.items()},
}
EVERY = pytest.mark.parametrize(("entry", "known"), ALL.values(), ids=list(ALL))


@EVERY
def test_the_short_help_fits_on_a_page_and_begins_with_an_example(
    entry: Command, known: list[Option], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = help_of_command("i2i x", entry, known)
    lines = shown.splitlines()
    assert len(lines) <= 60 and max(map(len, lines)) <= 80
    assert any(line.startswith("  i2i x") for line in lines[:8])
    assert "--help-all" in shown


@EVERY
def test_all_options_are_shown_in_groups_once(entry: Command, known: list[Option]) -> None:
    shown = help_of_command("i2i x", entry, known, everything=True)
    for option in known:
        if option.name == "verbose":
            continue
        lines = [line for line in shown.splitlines() if line.startswith(f"  {_typed(option)}")]
        assert len(lines) == 1, option.name
    assert "\nother:" not in shown


def test_an_option_has_one_group_at_most() -> None:
    placed = Counter(name for names in plain_yaml.GROUPS.values() for name in names)
    assert max(placed.values()) == 1
    assert set(placed) <= {option.name for _, known in ALL.values() for option in known}


def test_the_first_options_are_those_that_a_user_needs_first() -> None:
    for name in ALGORITHMS:
        first = ALGORITHMS[name].first.split()
        assert {"data", "run"} < set(first)
    assert COMMANDS["translate"].first.split()[:3] == ["inputs", "style", "out"]


def test_the_list_of_commands_has_a_line_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = help_of_all().splitlines()
    for name, command in COMMANDS.items():
        assert [line for line in lines if line.split()[:1] == [name] and command.summary in line]
    assert max(map(len, lines)) <= 100


def test_ranges_and_choices_are_shown() -> None:
    shown = " ".join(help_of_command("x", ALGORITHMS["pix2pix"], options_of("train", "pix2pix"), True).split())
    assert "--crop-size N The side of the random square crop, in pixels. (default: 256; ≥ 1, ≤ 65535)" in shown
    assert "--direction a2b|b2a" in shown
    assert "--[no-]flip" in shown and "(on by default)" in shown
    assert "one of normal, xavier, kaiming, orthogonal" in shown


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
