"""Whoever asks twice is not kept waiting, whatever the main thread is at; nothing half-written stays."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from i2i.signals import GRACE

ROOT = Path(__file__).parents[1]
# a call into C that no signal interrupts, as those of decoders and networks are
PROGRAM = """
import hashlib, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in what it starts in the background
from contextlib import nullcontext
from pathlib import Path
from i2i.files import atomic_write
from i2i.cli import exit_on_error
from i2i.signals import Signals
out = Path(sys.argv[1])
def main():
    def write(file):
        (out / "begun").touch()
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)
    both = (signal.SIGINT, signal.SIGTERM)
    with Signals(both, impatient=both) if "--orderly" in sys.argv else nullcontext():
        atomic_write(out / "file", write)
with exit_on_error():
    main()
"""


def begun(folder: Path, *words: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", PROGRAM, str(folder), *words]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE)
    while not (folder / "begun").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    return process


def ended(process: "subprocess.Popen[bytes]") -> int:
    try:
        return process.wait(GRACE + 20)  # the machine may be busy; the call alone takes many minutes
    finally:
        process.kill()


@pytest.mark.promise("R6", "R40")
@pytest.mark.parametrize("words", [(), ("--orderly",)], ids=["any script", "one that ends in good order"])
def test_a_second_interrupt_does_not_wait_for_what_is_computed(words: tuple[str, ...], tmp_path: Path) -> None:
    process = begun(tmp_path, *words)
    process.send_signal(signal.SIGINT)
    time.sleep(GRACE + 0.3)
    assert process.poll() is None, "the first one ends in good order"
    process.send_signal(signal.SIGINT)
    assert ended(process) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["begun"]


@pytest.mark.promise("R40")
def test_outside_of_such_work_one_sigterm_is_enough(tmp_path: Path) -> None:
    process = begun(tmp_path)
    process.send_signal(signal.SIGTERM)
    assert ended(process) == 143
    assert [path.name for path in tmp_path.iterdir()] == ["begun"]


@pytest.mark.promise("R40")
def test_a_second_sigterm_is_enough_in_it(tmp_path: Path) -> None:
    process = begun(tmp_path, "--orderly")
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert ended(process) == 143


@pytest.mark.skipif(sys.platform != "linux", reason="a system call of Linux")
@pytest.mark.parametrize(("function", "told"), [("end_with_parent", ""), ("end_with_torchrun", "7")])
def test_a_process_that_ends_with_its_parent(function: str, told: str) -> None:
    child = f"import time; from i2i import machine as p; p.{function}(); print('ready', flush=True); time.sleep(99)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TORCHELASTIC_RUN_ID": told}
    process = subprocess.Popen([sys.executable, "-c", parent], env=environment, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    process.kill()
    began = time.monotonic()
    process.communicate()  # the pipe is open as long as the child lives
    assert time.monotonic() - began < 20
