"""The largest batch that fits is found before a training starts."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from i2i import machine
from i2i.algorithms import Pix2Pix
from i2i.errors import I2IError, UsageError
from i2i.training import estimate
from i2i.training.estimate import OutOfMemory, find_batch_size, resolve_batch_size
from i2i.training.options import RunOptions
from i2i.training.state_store import StateStore

GB = 10**9


Options = partial(RunOptions, batch_size="auto", micro_batches=7, device="cpu")


def found(
    peak: Callable[[int], float], room: int = 10 * GB, **more: Any
) -> tuple[int, dict[int, int | None], list[int]]:
    """The batch size found where a batch of n takes `peak(n)` GB and a machine of 12 GB runs out; and the trials."""
    tried = []

    def measure(algorithm: Any, options: Any) -> Any:
        assert algorithm is Pix2Pix and options.micro_batches == 1
        tried.append(options.batch_size)
        if peak(options.batch_size) > 12:
            raise OutOfMemory("memory ran out")
        return SimpleNamespace(peak_bytes=int(peak(options.batch_size) * GB))

    return *find_batch_size(Pix2Pix, Options(), room, measure=measure, **more), tried


@pytest.mark.promise("R9")
@pytest.mark.parametrize(
    ("peak", "size", "tried"),
    [
        (lambda n: 1 + 0.5 * n, 16, [1, 2, 16]),  # as predicted: exactly 9 of the 9 GB that may be used
        (lambda n: 1 + 0.51 * n, 8, [1, 2, 8]),
        (lambda n: 1 + 0.001 * n, 64, [1, 2, 64]),
        (lambda n: 1.0, 64, [1, 2, 64]),
        (lambda n: 1 + 0.1 * n + 0.03 * n * n, 8, [1, 2, 32, 16, 8]),  # more than predicted: halved
        (lambda n: 8 if n == 1 else 8.5 if n == 2 else 20, 2, [1, 2]),
        (lambda n: 8 if n == 1 else 20, 1, [1, 2]),
        (lambda n: 4 if n == 1 else 9.5, 1, [1, 2]),
    ],
)
def test_the_largest_that_fits(peak: Callable[[int], float], size: int, tried: list[int]) -> None:
    made, peaks, order = found(peak)
    assert (made, order) == (size, tried)
    assert list(peaks) == tried


def test_no_larger_than_wanted() -> None:
    assert found(lambda n: 1.0, largest=5)[0] == 4
    assert found(lambda n: 1.0, largest=1)[2] == [1]


@pytest.mark.promise("R9")
@pytest.mark.parametrize(("peak", "text"), [(9.5, "takes 9.50 GB of the 9.00 GB"), (13, "takes more than there is")])
def test_not_even_one(peak: float, text: str) -> None:
    with pytest.raises(I2IError, match=rf"batch_size = auto: one image of 256x256 {text}.*low_memory=True"):
        found(lambda n: peak)


def test_it_says_what_was_tried(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert found(lambda n: 4 if n == 1 else 20) == (1, {1: 4 * GB, 2: None}, [1, 2])

    def measure(algorithm: Any, options: Any) -> Any:
        if options.batch_size > 1:
            raise OutOfMemory("memory ran out")
        return SimpleNamespace(peak_bytes=4 * GB)

    monkeypatch.setattr(machine, "available_memory", lambda: 10 * GB)
    resolve_batch_size(Pix2Pix, Options(micro_batches=1), measure)
    assert "batch_size = auto: 1 of 1: 4.00 GB, 2: does not fit" in capsys.readouterr().err


def nothing_measured(algorithm: Any, options: Any) -> Any:
    raise AssertionError("nothing need be measured")


@pytest.mark.promise("R9")
def test_a_run_keeps_what_was_found_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "available_memory", lambda: 10 * GB)
    options = Options(run=tmp_path / "run", micro_batches=1)
    measure: Any = lambda algorithm, options: SimpleNamespace(peak_bytes=2 * GB * options.batch_size)  # noqa: E731
    made = resolve_batch_size(Pix2Pix, options, measure)
    assert made == replace(options, batch_size=4)
    assert "batch_size = auto: 4 of 1: 2.00 GB, 2: 4.00 GB, 4: 8.00 GB" in capsys.readouterr().err
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("batch_size: 3\n")
    with pytest.raises(AssertionError):  # it died before its first state
        resolve_batch_size(Pix2Pix, options, nothing_measured)
    monkeypatch.setattr(StateStore, "steps", lambda self: [100])
    assert resolve_batch_size(Pix2Pix, options, nothing_measured).batch_size == 3


def test_where_there_is_nothing_to_find(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_batch_size(Pix2Pix, Options(batch_size=5), nothing_measured).batch_size == 5
    assert resolve_batch_size(Pix2Pix, Options(preprocess="none", micro_batches=1), nothing_measured).batch_size == 1
    with monkeypatch.context() as patch, pytest.raises(UsageError, match="name a number"):
        patch.setattr(estimate, "choose_device", lambda name: torch.device("mps"))
        resolve_batch_size(Pix2Pix, Options(micro_batches=1), nothing_measured)
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "x", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="several processes"):
        resolve_batch_size(Pix2Pix, Options(micro_batches=1), nothing_measured)
    with pytest.raises(UsageError, match="micro_batches = 2"):
        resolve_batch_size(Pix2Pix, Options(micro_batches=2), nothing_measured)


def test_other_errors_are_those_of_the_training() -> None:
    def refuses(algorithm: Any, options: Any) -> Any:
        raise UsageError("crop_size = 7")

    with pytest.raises(UsageError):
        find_batch_size(Pix2Pix, Options(), GB, measure=refuses)
