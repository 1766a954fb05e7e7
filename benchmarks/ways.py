"""The ways to translate that are compared, and how each is run as a process."""

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from i2i import machine

WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "auto": {"precision": "auto"},
    "fp32": {"precision": "fp32"},
    "torch fp32": {"runtime": "torch", "precision": "fp32"},
    "torch bf16": {"runtime": "torch", "precision": "bf16"},
    "torch fp16": {"runtime": "torch", "precision": "fp16"},
    "torch fp32 compiled": {"runtime": "torch", "precision": "fp32", "compile": True},
    "torch bf16 compiled": {"runtime": "torch", "precision": "bf16", "compile": True},
    "openvino fp32": {"runtime": "openvino", "precision": "fp32"},
    "openvino bf16": {"runtime": "openvino", "precision": "bf16"},
    "onnx fp32": {"runtime": "onnx", "precision": "fp32"},
}
"""Way → options of `scripts/translate.py`, True for one without a value; the plain way is
`benchmarks/plain_translating.py`."""
PACKAGES = {"openvino": "openvino", "onnx": "onnxruntime"}


def chosen(asked: Iterable[str] | None, device: str) -> list[str]:
    """The ways that are asked for, by default all that are possible here; the plain one first."""
    return list(dict.fromkeys(["plain", *(asked or (way for way in WAYS if possible(way, device)))]))


def possible(way: str, device: str) -> bool:
    """Whether what that way needs is there; compiling, which takes minutes in every process, is done on request."""
    runtime, precision = (WAYS[way].get(key, "") for key in ("runtime", "precision"))
    if "compile" in WAYS[way]:
        return False
    if device != "cpu":
        return runtime in ("", "torch")
    there = runtime not in PACKAGES or find_spec(PACKAGES[runtime]) is not None
    return there and precision != "fp16" and (precision != "bf16" or machine.has_bf16())


def given(name: str, value: Any) -> list[str]:
    """An option on the command line."""
    return [f"--{name}"] if value is True else [f"--{name}", value]


def command(way: str, model: Path, pictures: Path, out: Path, device: str, *more: str) -> list[str]:
    """The arguments of python that translate the folder `pictures` to PNGs in `out`."""
    if way == "plain":
        return ["benchmarks/plain_translating.py", str(model), str(pictures), str(out), "--device", device]
    options = [word for name, value in WAYS[way].items() for word in given(name, value)]
    always = ["--format", "png", "--overwrite", "--device", device]
    return ["scripts/translate.py", "--style", str(model), str(pictures), "-o", str(out), *always, *options, *more]
