"""Options as data: what is found in a dataclass, and the type that comes of it again."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
from annotated_types import Ge, Interval

from i2i import algorithms
from i2i.commands import ALGORITHMS, COMMANDS
from i2i.commands.options import POSITIONAL, describe, options_of
from i2i.config import bounds


@dataclass(frozen=True, kw_only=True)
class Base:
    size: Annotated[int, Interval(ge=1, le=9)] | Literal["auto"] = 3
    """How large."""
    flip: bool = True
    """Mirror it."""


@dataclass(frozen=True, kw_only=True)
class Sample(Base):
    inputs: Annotated[tuple[Path, ...], POSITIONAL] = ()
    """Pictures,
    or folders."""
    rate: Annotated[float, Ge(0)] | None = None
    flip: bool = True
    """An own one."""
    mode: Literal["a", "b"] | None = None


def test_a_field_is_described() -> None:
    found = {option.name: option for option in describe(Sample)}
    assert list(found) == ["size", "flip", "inputs", "rate", "mode"]
    size, inputs, rate, mode = (found[name] for name in ("size", "inputs", "rate", "mode"))
    assert (size.kind, size.default, size.choices, size.limits) == ("int", 3, ("auto",), {"ge": 1, "le": 9})
    assert (inputs.kind, inputs.many, inputs.positional, inputs.text) == ("path", True, True, "Pictures, or folders.")
    assert (rate.kind, rate.optional, rate.limits) == ("float", True, {"ge": 0})
    assert (mode.kind, mode.choices, mode.is_switch) == ("choice", ("a", "b"), False)
    assert found["flip"].text == "An own one." and found["flip"].is_switch


def test_the_type_comes_back() -> None:
    found = {option.name: option.annotation for option in describe(Sample)}
    assert found["inputs"] == tuple[Path, ...]
    assert found["mode"] == Literal["a", "b"] | None
    assert bounds(found["size"]) == "≥ 1, ≤ 9" and bounds(found["rate"]) == "≥ 0"


def test_what_no_flag_can_give_is_refused() -> None:
    @dataclass
    class Wrong:
        both: int | float = 0

    with pytest.raises(TypeError, match="both"):
        describe(Wrong)


def test_every_algorithm_is_described() -> None:
    assert set(ALGORITHMS) == set(algorithms.ALGORITHMS)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("train", "plan")])
def test_every_option_has_a_text(name: str) -> None:
    assert [option.name for option in options_of(name) if not option.text] == []


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_every_option_of_a_training_has_a_text(name: str) -> None:
    known = options_of("train", name)
    assert [option.name for option in known if not option.text] == []
    assert next(option.default for option in known if option.name == "run") == f"runs/{name}"
