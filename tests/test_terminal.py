"""Nobody need listen: what is said costs nothing, and results that are not written have an exit code."""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich import progress as bars
from rich.console import Console

from i2i import terminal
from i2i.terminal import printable

ROOT = Path(__file__).parents[1]
FULL = "/dev/full"
CLIP = Path("clip\n.mp4")
SAYS = """
import logging, sys, warnings
from pathlib import Path
from rich.console import Console
from i2i.cli import exit_on_error, say
def main():
    for step in range(300):
        say("step", step)
        print("x" * 100, file=sys.stderr)
        Console(stderr=True).print("[red]" + "y" * 100)
        warnings.warn(f"warned {step}")
        logging.error("logged")
    Path(sys.argv[1]).write_text("done")
with exit_on_error():
    main()
"""
PRINTS = """
import sys
from i2i.cli import exit_on_error
def main():
    for line in range(int(sys.argv[1])):
        print("result" * 20)
with exit_on_error():
    main()
"""

pytestmark = pytest.mark.skipif(not Path(FULL).exists(), reason="needs /dev/full")


def shell(command: str, *program: str) -> subprocess.CompletedProcess[str]:
    """A command of the shell, in which `"$@"` is Python with this program."""
    words = ["sh", "-c", command, "sh", sys.executable, *program]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(words, capture_output=True, text=True, env=environment, timeout=120)


@pytest.mark.parametrize("ending", [f"2>{FULL}", "2>&-", "2>&1 | true"], ids=["full", "closed", "unread"])
def test_saying_something_costs_nothing(ending: str, tmp_path: Path) -> None:
    redirected, pipe, reader = ending.partition(" | ")
    command = f'{{ "$@" {redirected}; echo $? > {tmp_path}/code; }}{pipe}{reader}'
    shell(command, "-c", SAYS, str(tmp_path / "mark"))
    assert ((tmp_path / "code").read_text(), (tmp_path / "mark").read_text()) == ("0\n", "done")


@pytest.mark.parametrize("lines", ["1", "2000"])
def test_results_on_a_full_disk_are_an_error(lines: str) -> None:
    done = shell(f'"$@" >{FULL}', "-c", PRINTS, lines)
    assert done.returncode == 6
    assert done.stderr == "i2i: the standard output cannot be written: No space left on device\n"


@pytest.mark.parametrize(
    "words",
    [
        "translate.py --list-styles",
        "translate.py --help",
        "translate.py --print-config",
        "plan.py --help",
        "prepare_dataset.py list",
    ],
)
def test_so_are_those_of_the_scripts(words: str) -> None:
    script, *rest = words.split()
    done = shell(f'"$@" >{FULL}', str(ROOT / "scripts" / script), *rest)
    assert done.returncode == 6 and "Traceback" not in done.stderr
    assert "i2i: the standard output cannot be written: No space left on device" in done.stderr


def test_results_that_nobody_reads_any_more_end_quietly(tmp_path: Path) -> None:
    command = f'{{ "$@"; echo $? > {tmp_path}/code; }} | head -n 1'
    done = shell(command, "-c", PRINTS, "20000")
    assert done.stdout == "result" * 20 + "\n" and done.stderr == ""
    assert (tmp_path / "code").read_text() == "141\n"


def test_a_file_does_not_take_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    program = f"""
import os, sys
from i2i.terminal import guard
guard()
file = open({str(tmp_path / "file")!r}, "w")
print("said", file=sys.stderr)
os.write(2, b"said by a library")
file.close()
"""
    shell('"$@" 2>&-', "-c", program)
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.promise("R52")
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2J", "a\\x1b[2J"),
        ("a\nfinished", "a\\nfinished"),
        ("a\r\tb", "a\\r\\tb"),
        ("a\u202eb\u2066", "a\\u202eb\\u2066"),
        ("\x80\x9bm\x7f", "\\x80\\x9bm\\x7f"),
        ("\udcff\u2028", "\\udcff\\u2028"),
        ("[bold]é🎨 b[/]", "[bold]é🎨 b[/]"),
    ],
)
def test_control_characters_are_shown_and_not_obeyed(text: str, shown: str) -> None:
    assert printable(text) == shown


class _Refusing(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("stream", [None, _Refusing(), closed := io.StringIO()])
def test_a_message_that_no_stream_takes_is_lost(stream: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    closed.close()
    monkeypatch.setattr(sys, "stderr", stream)
    terminal.say("first", "more")
    if stream is not closed:
        assert not terminal.drawable()


class _Console(io.RawIOBase):
    """As Python's for a console of Windows: it takes UTF-8, and a part at a time."""

    def __init__(self) -> None:
        self.taken = b""

    def write(self, data: Any) -> int:
        self.taken += bytes(data[:5])
        return min(len(data), 5)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 1


def test_a_console_of_windows_gets_its_characters_as_its_stream_passes_them_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that are written to its descriptor would be taken for those of another encoding."""
    console = _Console()
    stream = io.TextIOWrapper(io.BufferedWriter(console), encoding="utf-8", newline="\n")
    monkeypatch.setattr(terminal, "WINDOWS", True)
    monkeypatch.setattr(sys, "stdout", stream)
    guarded = terminal._guarded("stdout", terminal._refused)
    guarded.write("photo → painting\n")
    guarded.flush()
    assert console.taken.decode() == "photo → painting\n"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("i2i.terminal.time.monotonic", lambda: now[0])
    return now


def test_plain_lines_say_frames_a_second_and_the_time_left(
    clock: list[float], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with terminal.progress() as show:
        for done in range(64, 264):  # as after a kill
            clock[0] += 0.25
            show.frames(done, 464, CLIP)
        assert capsys.readouterr().err == "clip\\n.mp4: 183/464 frames, 4.0 frames/s, 70 s left\n"
        clock[0] += 40
        show(1, 3, CLIP)
        assert capsys.readouterr().err == "1/3, 0.0 images/s, 180 s left\n"
        show.frames(1, 0, Path("other.mp4"))
        clock[0] += 40
        show.frames(81, 0, Path("other.mp4"))
        assert capsys.readouterr().err == "other.mp4: 81 frames, 2.0 frames/s\n"


def test_a_live_line_for_the_film_at_hand(clock: list[float]) -> None:
    columns: tuple[Any, ...] = (bars.TextColumn("{task.description}"), bars.TextColumn("{task.fields[speed]}"))
    bar = bars.Progress(*columns, console=Console(file=open("/dev/null", "w")))  # noqa: PTH123, SIM115
    show = terminal.Progress(bar)
    show.frames(10, 40, CLIP)
    clock[0] += 2
    show.frames(30, 40, CLIP)
    inputs, film = bar.tasks
    assert (film.description, film.completed, film.total) == ("clip\\n.mp4", 30, 40)
    assert film.fields["speed"] == "10.0 frames/s"
    show(1, 2, CLIP)
    assert bar.tasks == [inputs] and (inputs.completed, inputs.total) == (1, 2)
    show.frames(5, 0, Path("other.mp4"))
    assert bar.tasks[1].total is None
