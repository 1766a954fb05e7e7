"""The standard streams. Messages cost nothing where nobody listens; a result that cannot be written is an error.

How far work is, a terminal shows on a live line, and any other stream on a plain line now and then.

`i2i.cli` guards the streams of every command, and so do the processes that a command starts.
"""

import contextlib
import errno
import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from i2i.errors import I2IError, OutputError
from i2i.files import WINDOWS, write_all

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer
    from rich import progress as bars

_replaced: list[Any] = []
"""The streams that were there before: a stream that Python collects closes its descriptor."""


class Unread(I2IError):
    """Nobody reads the results any more (`| head`). That is no fault, so there is no message."""

    exit_code = 141


def guard() -> None:
    """Make the standard streams safe to use, be they missing, closed, full or of any encoding. May be called twice.

    A message to the standard error is lost if it cannot be written. The standard output raises `Unread` or
    `OutputError` once, and swallows the rest.
    """
    for number in range(3):
        _fill(number)
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115
    sys.stdout = _guarded("stdout", _refused)
    sys.stderr = _guarded("stderr", lambda error: None)


def _fill(number: int) -> None:
    """Open a closed descriptor on the null device; else the next file that is opened gets its number and its output."""
    try:
        os.fstat(number)
    except OSError:
        descriptor = os.open(os.devnull, os.O_RDWR)
        if descriptor != number:
            os.dup2(descriptor, number)
            os.close(descriptor)


def _refused(error: OSError) -> NoReturn:
    if error.errno in (errno.EPIPE, errno.ECONNRESET):
        raise Unread from None
    raise OutputError(f"the standard output cannot be written: {error.strerror}") from error


def _guarded(name: str, refused: Callable[[OSError], object]) -> Any:
    stream = getattr(sys, name)
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123
    if not _is_plain(stream):  # guarded already, or somebody's own, such as a notebook's
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        return stream
    _replaced.append(stream)
    with contextlib.suppress(OSError, ValueError):
        stream.flush()
    console = stream.buffer.raw if WINDOWS and stream.isatty() else None  # which takes UTF-8, as its file does not
    return io.TextIOWrapper(
        io.BufferedWriter(_Descriptor(stream.fileno(), refused, console)),
        encoding=stream.encoding,
        errors="backslashreplace",  # no name is too odd to be printed
        line_buffering=name == "stderr" or stream.line_buffering,
        write_through=stream.write_through,
    )


def _is_plain(stream: object) -> bool:
    """Whether it is a stream of Python's own on a standard descriptor."""
    try:
        return isinstance(stream, io.TextIOWrapper) and stream.fileno() in (1, 2) and not _is_guarded(stream)
    except (OSError, ValueError):
        return False


def _is_guarded(stream: io.TextIOWrapper) -> bool:
    return isinstance(getattr(stream.buffer, "raw", None), _Descriptor)


class _Descriptor(io.RawIOBase):
    """Writes everything to a descriptor, or to a `console`; after it has refused results once, nothing more."""

    def __init__(self, descriptor: int, refused: Callable[[OSError], object], console: BinaryIO | None = None) -> None:
        self._descriptor, self._refused, self._console, self._deaf = descriptor, refused, console, False

    def write(self, data: "ReadableBuffer") -> int:
        view = memoryview(data).cast("B")
        left = view[:0] if self._deaf else view
        try:
            if self._console is None:
                write_all(self._descriptor, left)
            while self._console is not None and len(left):
                left = left[self._console.write(left) :]
        except OSError as error:
            self._deaf = self._refused is _refused
            self._refused(error)
        return len(view)

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True


def drawable() -> bool:
    """Whether stderr is a terminal that can redraw a line: no file, and not TERM=dumb."""
    return (
        sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")
    )


def counted(number: int, one: str, many: str) -> str:
    """`1 picture has` or `1,200 pictures have`."""
    return f"1 {one}" if number == 1 else f"{number:,} {many}"


def printable(text: object) -> str:
    """A text or a path on one line, with control characters, line breaks and undecodable bytes escaped: the name of a
    file must not steer a terminal."""
    line = str(text)
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in line)


def say_plain(text: str) -> None:
    """Print a line to the standard error, without control characters; lost if it cannot be written."""
    with contextlib.suppress(OSError, ValueError):
        print(printable(text), file=sys.stderr, flush=True)


def say(first: object, *more: object) -> None:
    """Print a line with the name of the program to the standard error, and further lines below it."""
    for line in (f"i2i: {first}", *more):
        say_plain(str(line))


PLAIN_SECONDS = 30.0


@contextlib.contextmanager
def progress() -> Iterator["Progress"]:
    """Shows on stderr how far the work is."""
    if not drawable():
        yield Progress()
        return
    from rich import progress as bars
    from rich.console import Console

    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("{task.fields[speed]}"),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield Progress(bar)


class Progress:
    """Shows how far the work is: call it with the number of inputs finished, their total and the last one.

    With a `bar` of rich on a live line, and below it one for the film at hand; else on a plain line now and then.
    """

    def __init__(self, bar: "bars.Progress | None" = None) -> None:
        self._bar, self._said = bar, time.monotonic()
        self._lines: dict[Path | None, tuple[Any, int, float]] = {}
        """The line of all inputs (None) and that of the film at hand: task, and number and time at the start."""
        self._line(None, 0)

    def __call__(self, number: int, total: int, last: Path) -> None:
        if (line := self._lines.pop(last, None)) and self._bar is not None:
            self._bar.remove_task(line[0])
        self._show(None, number, total, "images")

    def frames(self, done: int, total: int, film: Path) -> None:
        """As a call, for the frames of a film; `total` is 0 if it is not known."""
        self._show(film, done, total, "frames")

    def _line(self, film: Path | None, done: int) -> tuple[Any, int, float]:
        if film not in self._lines:  # a film may go on in its middle
            name = "" if film is None else printable(film.name)
            task = self._bar and self._bar.add_task(name, total=None, speed="")
            self._lines[film] = task, done, time.monotonic()
        return self._lines[film]

    def _show(self, film: Path | None, done: int, total: int, what: str) -> None:
        task, first, began = self._line(film, done)
        now = time.monotonic()
        speed = (done - first) / max(now - began, 1e-9)
        if self._bar is not None:
            most = max(total, done) if total else None
            self._bar.update(task, completed=done, total=most, speed=f"{speed:.1f} {what}/s")
        elif now - self._said >= PLAIN_SECONDS:
            self._said = now
            name, unit = ("", "") if film is None else (f"{film.name}: ", " frames")
            left = f", {max(0, total - done) / speed:.0f} s left" if total and speed else ""
            say_plain(f"{name}{done}{f'/{total}' if total else ''}{unit}, {speed:.1f} {what}/s{left}")


def fetching() -> Callable[[int, int | None], None]:
    """A function to call with the bytes of a download that are there, and their total if it is known."""
    state = {"last": time.monotonic()}
    live = drawable()

    def show(there: int, total: int | None) -> None:
        now, whole = time.monotonic(), there == total
        if whole or now - state["last"] >= (0.2 if live else PLAIN_SECONDS):
            state["last"] = now
            of = f" of {total / 1e6:.0f}" if total else ""
            end = "\r" if live and not whole else "\n"
            with contextlib.suppress(OSError, ValueError):
                print(f"fetched {there / 1e6:.0f}{of} MB", end=end, file=sys.stderr, flush=True)

    return show
