"""Trials in a process of their own: what ends one, hangs, prints or cannot be imported costs one answer alone."""

from pathlib import Path

import pytest
import torch

from i2i.inference.torch_runtime import TorchRuntime
from i2i.tools import probes
from i2i.tools.probes import Answer, Difference, differences, probe

LIBRARIES = {
    "sound_lib": "",
    "chatty_lib": "print('{\"result\": 1}'); import os; os.write(1, b'noise\\n')",
    "deadly_lib": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "leaving_lib": "import os; os._exit(7)",
    "exiting_lib": "raise SystemExit('goodbye')",
    "broken_lib": "raise ImportError('libfoo.so.3: cannot open shared object file')",
    "hanging_lib": "import time; time.sleep(60)",
}


@pytest.fixture(autouse=True)
def libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, code in LIBRARIES.items():
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_each_library_answers_for_itself() -> None:
    names = ["deadly_lib", "chatty_lib", "broken_lib", "leaving_lib", "exiting_lib", "sound_lib"]
    assert dict(probe([f"import {name}" for name in names])) == {
        "import deadly_lib": Answer(problem="ends the process (SIGSEGV)"),
        "import chatty_lib": Answer(),
        "import broken_lib": Answer(problem="ImportError: libfoo.so.3: cannot open shared object file"),
        "import leaving_lib": Answer(problem="ends the process (exit code 7)"),
        "import exiting_lib": Answer(problem="SystemExit: goodbye"),
        "import sound_lib": Answer(),
    }


def test_one_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "SECONDS", 3.0)
    found = dict(probe(["import sound_lib", "import hanging_lib", "import chatty_lib"]))
    assert [answer.problem for answer in found.values()] == ["", "no answer within 3 s", ""]


def test_an_answer_comes_before_the_next_trial_is_done() -> None:
    coming = probe(["import sound_lib", "import hanging_lib"])
    assert next(coming) == ("import sound_lib", Answer())
    coming.close()  # type: ignore[attr-defined]


def test_the_reference_is_float64_up_to_rounding() -> None:
    (found,) = differences("plain")
    assert not found.problem and 0 < found.largest < 0.01


def test_this_processor_computes_as_the_plain_layers() -> None:
    exact = next(iter(differences("torch")))
    assert (exact.name, exact.precision, exact.problem) == ("torch", "fp32", "")
    assert exact.largest < 0.05


def test_a_device_that_is_off_is_measured_in_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = TorchRuntime.run
    monkeypatch.setattr(TorchRuntime, "run", lambda *given: sound(*given) + 2 / 255)
    exact = next(iter(differences("torch")))
    assert exact.largest == pytest.approx(1, abs=0.01) and exact.mean == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("macos", [13, 14])
def test_apples_gpu_is_tried_in_each_precision_that_it_has(macos: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU plays it."""
    monkeypatch.setattr("i2i.device.choose_device", lambda name: torch.device("cpu"))
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: major <= macos)
    found = {tried.precision: tried for tried in differences("mps")}
    assert list(found) == ["fp32", "bf16", "fp16"][:: 2 if macos == 13 else 1]
    assert all(tried.name == "mps" and not tried.problem for tried in found.values())
    assert 0 < found["fp32"].largest < 0.05 < found["fp16"].largest < 2


def test_an_operation_that_apples_gpu_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    lacks = "The operator 'aten::reflection_pad2d' is not currently implemented for the MPS device."

    def refuse(*_: object) -> None:
        raise NotImplementedError(f"{lacks} As a temporary fix, set the variable `PYTORCH_ENABLE_MPS_FALLBACK=1`.")

    monkeypatch.setattr("i2i.device.choose_device", lambda name: torch.device("cpu"))
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: False)
    monkeypatch.setattr(TorchRuntime, "run", refuse)
    assert all(lacks in tried.problem for tried in differences("mps"))


def test_numbers_that_are_not_finite_and_errors_are_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TorchRuntime, "run", lambda self, batch, seed=None: batch * float("nan"))
    assert next(iter(differences("torch"))).problem == "gives values that are not finite"

    def refuse(*_: object) -> None:
        raise RuntimeError("CUDA error:\nno kernel image is available")

    monkeypatch.setattr(TorchRuntime, "run", refuse)
    expected = Difference("torch", "fp32", problem="RuntimeError: no kernel image is available")
    assert next(iter(differences("torch"))) == expected
