"""Trials that may end a process: imports, and a small network on each device. So a child runs them (`probe`).

A library of another processor or driver ends the process by a signal, and no `except` catches that. The child answers
a line at a time. The trial without an answer is the one that ended it, and another child goes on behind it.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import import_module
from threading import Timer
from typing import TYPE_CHECKING, Any, cast

from i2i.machine import has_bf16

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from i2i.inference.options import Precision
    from i2i.inference.runtimes import Chosen
    from i2i.models.info import ModelInfo

    Array = np.ndarray[Any, np.dtype[Any]]

SECONDS = 300.0
"""A child may take so long; then its trial counts as hanging."""
SIDE, WIDTH, BLOCKS, SEED = 64, 32, 2, 0
"""The picture and the network of the trial, which is wide enough for all that `acceleration` exchanges."""
RUNTIMES = {"torch": "torch", "openvino": "OpenVINO", "onnx": "ONNX Runtime"}
"""Those of a CPU, with their names."""
DEVICES = ("plain", *RUNTIMES, "cuda", "mps")
_CHILD = "import sys; sys.path[:] = {path!r}; from i2i.tools.probes import main; main()"


@dataclass(frozen=True)
class Answer:
    """The result of one trial; `problem` says why there is none."""

    result: Any = None
    problem: str = ""


@dataclass(frozen=True)
class Difference:
    """How far a device's result is from the reference, in 8-bit levels; or the `problem` that it has with it."""

    name: str
    precision: str
    largest: float = 0.0
    mean: float = 0.0
    problem: str = ""


def probe(trials: Sequence[str]) -> Iterator[tuple[str, Answer]]:
    """Each of the `trials` with its answer, as they come: `import NAME`, `devices`, `arithmetic DEVICE` (plain, torch,
    openvino, onnx, cuda, mps).

    Never raises for what a trial does, be it the end of its process.
    """
    left = list(trials)
    while left:
        end = yield from _child(left)
        if left:
            yield left.pop(0), Answer(problem=end)


def _child(left: list[str]) -> Generator[tuple[str, Answer], None, str]:
    """The answers of one child, whose trials leave the list; and how it ended."""
    command = [sys.executable, "-c", _CHILD.format(path=sys.path), *left]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        timer, end = Timer(SECONDS, child.kill), time.monotonic() + SECONDS
        timer.start()
        try:
            for line in child.stdout or ():
                if left and line.endswith(b"\n"):
                    yield left.pop(0), Answer(**json.loads(line))
        except GeneratorExit:
            child.kill()
            raise
        finally:
            timer.cancel()
    if time.monotonic() >= end:
        return f"no answer within {SECONDS:g} s"
    if child.returncode < 0:
        return f"ends the process ({signal.Signals(-child.returncode).name})"
    code = str(child.returncode) if child.returncode < 256 else f"{child.returncode:#x}"  # as Windows names its faults
    return f"ends the process (exit code {code})"


def main() -> None:
    """The child: an answer to each trial that the command line names, a line of JSON each."""
    # libraries print too
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for name in sys.argv[1:]:
        kind, _, about = name.partition(" ")
        try:
            answer = Answer(TRIALS[kind](about))
        except BaseException as error:  # a library may also raise `SystemExit`
            answer = Answer(problem=_reason(error))
        print(json.dumps(asdict(answer)), file=answers, flush=True)


def _import(name: str) -> None:
    import_module(name)


def _devices(_: str) -> list[dict[str, Any]]:
    """The accelerators that torch has here: name, description, bytes of memory and free ones."""
    import torch

    found: list[dict[str, Any]] = []
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        text = f"{torch.cuda.get_device_name(number)}, CUDA {torch.version.cuda}"
        found.append({"name": f"cuda:{number}", "text": text, "total": total, "free": free})
    if torch.backends.mps.is_available():
        found.append({"name": "mps", "text": "Apple's GPU", "total": 0, "free": 0})
    return found


def _arithmetic(device: str) -> list[dict[str, Any]]:
    """The differences of a device; none where it is not there."""
    import torch

    if device == "mps" and not torch.backends.mps.is_available():
        return []
    return [asdict(found) for found in differences(device)]


def differences(device: str) -> Iterator[Difference]:
    """How far one of `DEVICES` is from the reference in each of its precisions; the reference itself, from float64."""
    import copy

    import torch

    if device == "plain":
        network, _, batch, reference = _sample()
        with torch.no_grad():
            expected = copy.deepcopy(network).double()(torch.from_numpy(batch).double()).numpy()
        yield _difference("plain layers", "fp32", reference, expected)
    elif device == "cuda":
        for number in range(torch.cuda.device_count()):
            yield from _tried(f"cuda:{number}", f"cuda:{number}", "torch", torch.cuda.is_bf16_supported(), fp16=True)
    elif device == "mps":
        yield from _tried("mps", "mps", "torch", torch.backends.mps.is_macos_or_newer(14, 0), fp16=True)
    else:
        yield from _tried(RUNTIMES[device], "cpu", cast("Chosen", device), has_bf16() and device != "onnx")


def _tried(name: str, device: str, runtime: "Chosen", bf16: bool, fp16: bool = False) -> Iterator[Difference]:
    """The network as a translation on that device computes it, in each precision."""
    from i2i.device import choose_device
    from i2i.inference.options import ModelOptions
    from i2i.inference.prepare import load_network

    network, info, batch, reference = _sample()
    has: dict[Precision, bool] = {"fp32": True, "bf16": bf16, "fp16": fp16}
    for precision in (precision for precision, is_there in has.items() if is_there):
        options = ModelOptions(device=device, runtime=runtime, precision=precision)
        try:
            loaded = load_network(network, info, choose_device(device), options, runtime, precision)
            yield _difference(name, precision, loaded.runtime.run(batch), reference)
        except Exception as error:
            yield Difference(name, precision, problem=_reason(error))


@cache
def _sample() -> "tuple[nn.Module, ModelInfo, Array, Array]":
    """The network, its description, a picture, and what the network's plain layers make of it in float32."""
    import torch

    from i2i.models.info import describe
    from i2i.networks.blocks import for_translation
    from i2i.networks.resnet import ResnetConfig

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(SEED)
        network = ResnetConfig(width=WIDTH, blocks=BLOCKS).build()
        batch = torch.rand(1, 3, SIDE, SIDE) * 2 - 1
    info = describe(network, direction="a2b")
    for_translation(network, info.statistics, info.dropout)
    with torch.no_grad():
        return network, info, batch.numpy(), network(batch).numpy()


def _difference(name: str, precision: str, result: "Array", expected: "Array") -> Difference:
    import numpy as np

    apart = np.abs(result.astype(np.float64) - expected) * 127.5
    if not np.isfinite(apart).all():
        return Difference(name, precision, problem="gives values that are not finite")
    return Difference(name, precision, float(apart.max()), float(apart.mean()))


def _reason(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[-1].strip()}" if text else type(error).__name__


TRIALS: dict[str, Callable[[str], Any]] = {"import": _import, "devices": _devices, "arithmetic": _arithmetic}
