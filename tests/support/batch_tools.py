"""Folders of pictures, tiny networks, and the real script in child processes, with faults planted in them."""

import contextlib
import io
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from fork_server import CONTEXT, capture

from i2i import images
from i2i.inference.translator import Translator
from i2i.models import model_file
from i2i.models.info import describe
from i2i.networks.blocks import init_weights
from i2i.networks.resnet import ResnetConfig

SCRIPT = Path(__file__).parents[2] / "scripts" / "translate.py"
FORMATS: dict[str, images.Format] = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".bmp": "BMP", ".ppm": "PPM",
}  # fmt: skip
NAMES = ("a.png", "b.jpg", "deep/c.webp", "deep/d.tif", "deep/er/e.bmp", "f.png")

Tree = dict[str, bytes]
Prepare = Callable[[], None]


def picture(path: Path, height: int = 12, width: int = 9, channels: int = 3, seed: int | None = None) -> Path:
    """Noise that follows from the name, so that no two pictures are alike; a PNG if the name says nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = np.random.default_rng(list(os.fsencode(path.name)) if seed is None else seed)
    pixels = source.integers(0, 256, (height, width, channels), np.uint8)
    path.write_bytes(images.encode(images.Picture(pixels), FORMATS.get(path.suffix.lower(), "PNG")))
    return path


def folder(path: Path, names: Sequence[str] = NAMES, **options: Any) -> Path:
    """A folder with a picture of each name."""
    for name in names:
        picture(path / name, **options)
    return path


def translator(
    config: Any = None,
    cls: type[Translator] = Translator,
    gain: float = 0.3,
    precision: Literal["auto", "fp32"] = "auto",
    **described: Any,
) -> Translator:
    """An untrained network, always the same, on the CPU."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = init_weights((config or ResnetConfig(width=2, blocks=0)).build(), gain=gain)
    return cls(network, describe(network, direction="a2b", **described), precision=precision)


def model(path: Path) -> Path:
    """The network of `translator()` as a model file."""
    used = translator()
    model_file.save(path, used.network, used.info)
    return path


def tree(path: Path) -> Tree:
    """All files below a folder, hidden ones too, but for those that vanish under way."""
    found: Tree = {}
    for file in sorted(path.rglob("*")):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if file.is_file():
                found[str(file.relative_to(path))] = file.read_bytes()
    return found


@dataclass
class Child:
    """`scripts/translate.py` in a process of its own."""

    process: Any
    output: Path
    errors: Path

    @property
    def pid(self) -> int:
        return int(self.process.pid)

    def wait(self, timeout: float = 60.0) -> int:
        """Its exit code; a negative one is the signal that killed it."""
        self.process.join(timeout)
        if self.process.is_alive():
            self.process.kill()
            raise AssertionError(f"still running after {timeout} s:\n{self.stderr}")
        return int(self.process.exitcode)

    def until(self, condition: Callable[[], Any], timeout: float = 60.0) -> None:
        """Wait until `condition()` holds or the child has ended."""
        end = time.monotonic() + timeout
        while not condition() and self.process.is_alive():
            assert time.monotonic() < end, f"nothing happened in {timeout} s:\n{self.stderr}"
            time.sleep(0.002)

    @property
    def stdout(self) -> str:
        return self.output.read_text()

    @property
    def stderr(self) -> str:
        return self.errors.read_text()


def start(scratch: Path, *arguments: Any, prepare: Sequence[Prepare] = (), stdin: bytes = b"") -> Child:
    """Start the script; `prepare` is called in the child before, and its output goes to files in `scratch`.

    A model is run by torch, which is there already, unless the arguments name another runtime.
    """
    number = len(list(scratch.glob("*.stdout")))
    output, errors = scratch / f"{number}.stdout", scratch / f"{number}.stderr"
    output.touch()
    errors.touch()
    words = [os.fspath(word) if isinstance(word, Path) else str(word) for word in arguments]
    words += ["--runtime", "torch"] if "--style" in words and "--runtime" not in words else []
    process = CONTEXT.Process(target=_main, args=(words, output, errors, list(prepare), stdin), daemon=True)
    process.start()
    return Child(process, output, errors)


def run(scratch: Path, *arguments: Any, **options: Any) -> tuple[int, Child]:
    """The script run to its end, and its exit code."""
    child = start(scratch, *arguments, **options)
    return child.wait(), child


def _main(arguments: list[str], output: Path, errors: Path, prepare: list[Prepare], stdin: bytes) -> None:
    os.setpgid(0, 0)
    capture(output, errors)
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    for function in prepare:
        function()
    sys.argv = [str(SCRIPT), *arguments]
    runpy.run_path(str(SCRIPT), run_name="__main__")


# Faults: what is passed as `prepare`.


@dataclass(frozen=True)
class Slow:
    """The network and the disk take their time."""

    network: float
    disk: float = 0.0

    def __call__(self) -> None:
        translate, sync = Translator.translate_batch, os.fsync

        def slow_translate(this: Translator, pictures: Any, size: int | None = None) -> Any:
            time.sleep(self.network)
            return translate(this, pictures, size)

        def slow_sync(descriptor: int) -> None:
            time.sleep(self.disk)
            sync(descriptor)

        Translator.translate_batch, os.fsync = slow_translate, slow_sync  # type: ignore[method-assign]


@dataclass(frozen=True)
class DieAtCall:
    """Killed before the `number`-th call of what atomic writing is made of, counted from 1."""

    number: int
    functions: tuple[str, ...] = ("open", "fsync", "replace")

    def __call__(self) -> None:
        calls = [0]
        for name in self.functions:
            setattr(os, name, self._counted(getattr(os, name), calls))

    def _counted(self, original: Callable[..., Any], calls: list[int]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            calls[0] += 1
            if calls[0] == self.number:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **options)

        return counted


class Closed:
    """Without one of the standard streams, as under some daemons."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self) -> None:
        setattr(sys, self.name, None)


class Full:
    """One of the standard streams goes to a disk that is full."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self) -> None:
        os.dup2(os.open("/dev/full", os.O_WRONLY), self.number)


@dataclass(frozen=True)
class Environment:
    """With these variables."""

    values: dict[str, str]

    def __call__(self) -> None:
        os.environ.update(self.values)


class Threads:
    """So many compute, whatever runs the network."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self) -> None:
        os.environ["OMP_NUM_THREADS"] = str(self.number)
        torch.set_num_threads(self.number)


class Nobody:
    """Without root's right to read and write everything."""

    def __call__(self) -> None:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
