"""Processes that begin with torch imported, and in which it has computed nothing.

All tests share one fork server. A fork of a process in which torch has computed can hang, and a fresh Python takes
seconds to import torch.
"""

import gc
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import PIL

PRELOADED = (
    "i2i.cli i2i.commands.train i2i.commands.translate kornia.metrics albumentations i2i.training.launch "
    "i2i.data.transforms i2i.data.toy i2i.algorithms i2i.folders.batch i2i.folders.report i2i.models.styles openvino "
    "torch._dynamo"
)
assert all(find_spec(name) for name in PRELOADED.split() if name.startswith("i2i")), "what is gone is not preloaded"
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([*PRELOADED.split(), *(f"PIL.{name}" for name in PIL._plugins)])


def python(
    *words: object,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    check: bool = False,
    timeout: float = 120,
) -> "subprocess.CompletedProcess[str]":
    """`python WORDS`, where `WORDS` are a script or `-c` and a program, with their arguments; run to its end."""
    given = [os.fspath(word) if isinstance(word, Path) else str(word) for word in words]
    with TemporaryDirectory(prefix="i2i-tests-") as folder:
        output, errors = Path(folder, "output"), Path(folder, "errors")
        around = dict(os.environ if environment is None else environment), cwd or Path.cwd()
        process = CONTEXT.Process(target=_run, args=(given, output, errors, *around))
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            raise AssertionError(f"still running after {timeout} s:\n{errors.read_text()}")
        assert process.exitcode is not None and not (check and process.exitcode), errors.read_text()
        return subprocess.CompletedProcess(given, process.exitcode, output.read_text(), errors.read_text())


def _run(words: list[str], output: Path, errors: Path, environment: dict[str, str], cwd: Path) -> None:
    capture(output, errors)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    if words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


def capture(output: Path, errors: Path) -> None:
    """From now on what this process and its children write goes to these files. The modules are no garbage."""
    gc.freeze()
    for number, path in ((1, output), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), number)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace")


def meeting_place(rank: int, world_size: int, port: int) -> dict[str, str]:
    """The variables that torchrun sets for one of several processes on this machine."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "MASTER_PORT": port}
    return {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in names.items()}}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
