"""The real training scripts in child processes, which tests may signal, kill and starve."""

import contextlib
import hashlib
import json
import multiprocessing
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

import torch
from fork_server import CONTEXT, capture

SCRIPTS = Path(__file__).parents[2] / "scripts"
Prepare = Callable[[], None]
TIMEOUT = 90.0

# options of the smallest training of each script
TINY = {
    "cyclegan": "--data toy --generator resnet_1blocks --discriminator patchgan_16 --ngf 4 --ndf 4 "
    "--crop-size 16 --load-size 16 --pool-size 3 --n-epochs 100 --validate-every 0 --samples 1",
    "pix2pix": "--data toy --generator unet_32 --discriminator patchgan_16 --ngf 4 --ndf 4 "
    "--crop-size 32 --load-size 32 --n-epochs 100 --validate-every 0 --samples 1",
}


def tiny(algorithm: str, options: str) -> list[str]:
    """The arguments of a tiny training, `options` on top: one that is given there counts."""
    words = [*TINY[algorithm].split(), *options.split()]
    flags = {name: value for name, value in zip(words, [*words[1:], ""], strict=True) if name.startswith("--")}
    return [
        word for name, value in flags.items() for word in ([name] if not value or value[0] == "-" else [name, value])
    ]


@dataclass
class Child:
    """A script that runs."""

    process: Any
    folder: Path
    output: Path
    since: float = field(default_factory=time.monotonic)

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return int(self.process.pid)

    def wait(self, timeout: float = TIMEOUT) -> int:
        """Its exit code; a negative one is the signal that killed it."""
        self.process.join(timeout)
        if self.process.is_alive():
            os.killpg(self.pid, signal.SIGKILL)
            raise AssertionError(f"still running after {timeout} s:\n{self.said()}")
        code = self.process.exitcode
        assert code is not None
        return int(code)

    def signal(self, number: int, group: bool = False) -> None:
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.pid, number)

    def said(self) -> str:
        return self.output.read_text()

    def until(self, condition: Callable[[], Any], timeout: float = TIMEOUT) -> None:
        """Wait until `condition()` holds or the child has ended."""
        end = time.monotonic() + timeout
        while not condition() and self.process.is_alive():
            assert time.monotonic() < end, f"nothing happened in {timeout} s:\n{self.said()}"
            time.sleep(0.01)


_started: list[Child] = []


@cache
def _scratch() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="i2i-tests-")


def new_folder() -> Path:
    """An empty folder that lives as long as the tests."""
    return Path(mkdtemp(dir=_scratch().name))


def start(
    algorithm: str,
    folder: Path,
    options: str = "",
    prepare: Sequence[Prepare] = (),
    environment: dict[str, str] | None = None,
    threads: int = 1,
) -> Child:
    """Start `scripts/train_<algorithm>.py` as a tiny training in `folder`; `prepare` is called in the child first."""
    output = new_folder() / "output.txt"
    output.touch()
    arguments = [*tiny(algorithm, options), "--run", str(folder)]
    process = CONTEXT.Process(
        target=_main, args=(algorithm, arguments, output, list(prepare), environment or {}, threads)
    )
    process.start()
    _started.append(Child(process, folder, output))
    return _started[-1]


def end_all() -> None:
    """Kill what a test that failed has left running; it would hold up the end of all tests."""
    for child in _started:
        if child.process.is_alive():
            child.signal(signal.SIGKILL, group=True)
            child.process.join()
    _started.clear()


def run(algorithm: str, folder: Path, options: str = "", *prepare: Prepare, threads: int = 1) -> Child:
    """A training that has run to its end."""
    child = start(algorithm, folder, options, prepare, threads=threads)
    code = child.wait()
    assert code == 0, f"exit code {code}:\n{child.said()}"
    return child


def _main(
    algorithm: str,
    arguments: list[str],
    output: Path,
    prepare: list[Prepare],
    environment: dict[str, str],
    threads: int,
) -> None:
    os.setpgid(0, 0)
    multiprocessing.set_start_method("fork", force=True)  # for data workers, as in a run from the shell
    capture(output, output)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(environment)
    torch.set_num_threads(threads)
    for function in prepare:
        function()
    script = SCRIPTS / f"train_{algorithm}.py"
    sys.argv = [str(script), *arguments]
    runpy.run_path(str(script), run_name="__main__")


def save_in_child(folder: Path, step: int, state: dict[str, Any], prepare: Sequence[Prepare]) -> int:
    """Save one state in a child process; its exit code."""
    process = CONTEXT.Process(target=_save, args=(folder, step, state, list(prepare)))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _save(folder: Path, step: int, state: dict[str, Any], prepare: list[Prepare]) -> None:
    from i2i.training.state_store import StateStore

    for function in prepare:
        function()
    StateStore(folder, keep_last=1).save(step, state)


# What a run left.


def digest(folder: Path) -> str:
    """SHA-256 over the contents of the newest state: networks, optimizers, EMA, pools, progress."""
    newest = max(folder.glob("state-*.pt"))
    state = torch.load(newest, weights_only=True)
    sha = hashlib.sha256()
    for name, value in sorted(_leaves(state), key=lambda item: item[0]):
        sha.update(f"{name} = {value}\n".encode())
    return sha.hexdigest()


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, torch.Tensor):
        data = value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""
        yield name, f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(data).hexdigest()}"
    elif isinstance(value, dict | list | tuple):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(part, f"{name}/{key}")
    else:
        yield name, repr(value)


def lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The lines of that kind in log.jsonl."""
    path = folder / "log.jsonl"
    entries = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [entry for entry in entries if entry["kind"] == kind]


def status(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "status.json").read_text()))


def strays(folder: Path) -> list[Path]:
    """Temporary files that were left behind."""
    return list(folder.rglob(".i2i-*"))
