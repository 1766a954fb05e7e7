"""A newcomer's algorithm takes one file and one line in the registry, and all tests of the others hold for it."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import test_contract as contract
from dualgan import DualGAN

import i2i
from i2i.algorithms import ALGORITHMS
from i2i.training.launch import train
from i2i.training.options import options_class


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ALGORITHMS, "dualgan", DualGAN)


def _case(test: Callable[..., Any]) -> dict[str, Any]:
    """The arguments of a test of the contract, beside the algorithm and fixtures: the first of each of its marks."""
    found: dict[str, Any] = {}
    for mark in getattr(test, "pytestmark", []):
        if mark.name == "parametrize":
            names, values = mark.args[0], mark.args[1][0]
            names = [name.strip() for name in names.split(",")] if isinstance(names, str) else names
            found |= dict(zip(names, values if len(names) > 1 else [values], strict=True))
    return found


@pytest.mark.parametrize("name", sorted(name for name in vars(contract) if name.startswith("test_")))
def test_the_contract_holds(name: str, request: pytest.FixtureRequest) -> None:
    test = getattr(contract, name)
    case = _case(test)
    wanted = inspect.signature(test).parameters.keys() - {"name", *case}
    test(name="dualgan", **case, **{fixture: request.getfixturevalue(fixture) for fixture in wanted})


def test_it_trains_and_translates(tmp_path: Path) -> None:
    options = options_class(DualGAN)(
        data=Path("toy"), run=tmp_path, generator="unet_32", discriminator="patchgan_16", ngf=4, ndf=4, crop_size=32,
        load_size=32, workers=0, max_steps=3, device="cpu",
    )  # fmt: skip
    train(DualGAN, options)
    for direction in ("a2b", "b2a"):
        assert i2i.load_translator(tmp_path, direction).info.training.algorithm == "dualgan"
