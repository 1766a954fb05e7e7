"""The log of a run: `log.jsonl`, TensorBoard if installed, a live line on a terminal.

`log.jsonl` has one JSON object per line, each whole, of a `kind`: `step`, `validation`, `health` or `event`.
"""

import json
import math
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text
from torch import Tensor

from i2i.errors import OutputError
from i2i.files import atomic_write, check_regular
from i2i.terminal import drawable, printable, say_plain


class LogFile:
    """A log that goes on after `step`: later lines of an earlier attempt, a torn one, and what is no log are dropped.

    With `validate_again` so are the validations of `step` itself, for the run begins with that one. Lines wait
    in memory until `write` or `sync`, and while the disk is full.
    """

    def __init__(self, path: Path, step: int, validate_again: bool = False) -> None:
        self.path = path
        self._waiting: list[bytes] = []
        check_regular(path)
        if path.exists():
            kept = (line for line in _lines(path) if _belongs(line, step, validate_again))
            atomic_write(path, lambda file: file.writelines(kept))
        try:
            self._file = path.open("ab", buffering=0)
            self._size = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from None

    def add(self, line: dict[str, Any]) -> None:
        """Append one line, later. Floats that JSON does not know (NaN, infinity) become null."""
        self._waiting.append(json.dumps(_plain(line), allow_nan=False).encode() + b"\n")

    def write(self) -> OSError | None:
        """Write the lines that wait; if that fails they go on waiting, none of them is torn."""
        data = b"".join(self._waiting)
        try:
            if self._file.write(data) != len(data):  # a full disk takes a part without an error
                raise OSError(None, "the disk is full")
        except OSError as error:
            os.ftruncate(self._file.fileno(), self._size)
            return error
        self._size += len(data)
        self._waiting.clear()
        return None

    def sync(self) -> None:
        """Bring every line to the disk: a state that follows must not know of steps that the log lost.

        Raises `OutputError`.
        """
        failure = self.write()
        if failure:
            raise OutputError(f"{self.path}: cannot be written: {failure.strerror}")
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self.write()
        self._file.close()


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, which is closed behind the last one."""
    try:
        with path.open("rb") as file:
            yield from file
    except OSError as error:
        raise OutputError(f"{path}: cannot be read: {error.strerror}") from None


def _belongs(line: bytes, step: int, validate_again: bool) -> bool:
    try:
        entry = json.loads(line) if line.endswith(b"\n") else None  # a torn one
    except (ValueError, RecursionError):
        return False
    if not isinstance(entry, dict) or type(at := entry.get("step")) is not int:
        return False
    again = validate_again and at == step and entry.get("kind") == "validation"
    return at <= step and not again


def _plain(value: object) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value


PLAIN_SECONDS = 30.0
WIDTH = 80


class RunLog:
    """The log of one run folder. With `quiet` (all processes but the first) it says and writes nothing.

    `epochs`: how many there will be, 0 if that is not known. `issues`: what is wrong at present, in a few words each.
    The live line shows both.
    """

    def __init__(self, folder: Path, total_images: int, quiet: bool = False) -> None:
        self.folder, self.total, self.epochs, self.quiet = folder, total_images, 0, quiet
        self._file: LogFile | None = None
        self._board: Any = None
        self._drawn = 0  # the step that TensorBoard was told of last
        self._live: Live | None = None
        self._rate = Rate()
        self._said = time.monotonic()
        self.issues: Collection[str] = ()

    def open(self, step: int, validate_again: bool = False) -> None:
        """Continue after `step`: see `LogFile`."""
        if self.quiet:
            return
        self._file = LogFile(self.folder / "log.jsonl", step, validate_again)
        if drawable():
            self._live = Live(Text(""), console=Console(stderr=True), auto_refresh=False, transient=True)
            self._live.start()
        with self._drawing(step):
            self._board = _writer(self.folder / "tensorboard", step)

    def steps(self, lines: Sequence[dict[str, Any]]) -> None:
        """Optimizer steps, in order: plain values (step, images, epoch, lr) and the `losses` by name."""
        for line in lines:
            self._write({"kind": "step", **line})
            self._draw(line["step"], "loss", line["losses"])
        self._rate.tick(lines[-1]["images"])
        if self._file:
            self._file.write()

    def event(self, step: int, text: str, **facts: Any) -> None:
        """Something that happened between steps; also said on stderr."""
        self._write({"kind": "event", "step": step, "text": text, **facts})
        if self._file:
            self._file.write()
        self.say(text)

    def health(self, step: int, name: str, text: str, aloud: bool = True, **facts: Any) -> None:
        """An issue of the training, or the end of one; with `aloud` also said on stderr."""
        self._write({"kind": "health", "step": step, "name": name, "text": text, **facts})
        if aloud:
            self.say(f"health, step {step}: {name}: {text}")

    def validation(self, step: int, epoch: int, numbers: dict[str, float], note: str = "") -> None:
        """The numbers of a validation pass; `note` is only said."""
        self._write({"kind": "validation", "step": step, "epoch": epoch, "metrics": numbers})
        self._draw(step, "validation", numbers)
        of = f" of {self.epochs}" if self.epochs else ""
        self.say(f"step {step}, epoch {epoch}{of}: " + ", ".join(f"{k} {v:.4g}" for k, v in numbers.items()) + note)

    def grid(self, step: int, image: Tensor) -> None:
        """A sample grid, (3, H, W) in [0, 1], for TensorBoard."""
        with self._drawing(step):
            if self._board:
                self._board.add_image("samples", image, step)

    def say(self, text: str) -> None:
        if self.quiet:
            return
        if self._live:
            self._live.console.print(printable(text), markup=False, highlight=False)
        else:
            say_plain(text)

    def sync(self) -> None:
        """Bring every line to the disk, see `LogFile`. Raises `OutputError`."""
        if self._file:
            self._file.sync()

    def close(self) -> None:
        if self._live:
            self._live.stop()
            self._live = None
        with self._drawing(self._drawn):
            if self._board:
                self._board.close()
        self._board = None
        if self._file:
            self._file.close()
            self._file = None

    def _write(self, line: dict[str, Any]) -> None:
        if self._file:
            self._file.add(line)

    def _draw(self, step: int, group: str, numbers: Mapping[str, float]) -> None:
        with self._drawing(step):
            for name, value in numbers.items() if self._board else ():
                self._board.add_scalar(f"{group}/{name}", value, step)

    @contextmanager
    def _drawing(self, step: int) -> Iterator[None]:
        """An error of TensorBoard is reported once, and ends its writing alone."""
        self._drawn = step
        try:
            yield
        except Exception as error:
            self._board = None
            reason = str(error).partition("\n")[0]
            self.event(step, f"TensorBoard is off: {type(error).__name__}: {reason}")

    def show(self, line: dict[str, Any]) -> None:
        """The line of a step on the terminal."""
        if self.quiet:
            return
        now = time.monotonic()
        if not self._live and now - self._said < PLAIN_SECONDS and line["images"] < self.total:
            return
        self._said = now
        text = live_line(line, self.total, self._rate.value, self.issues, self.epochs)
        if self._live:
            self._live.update(Text(printable(text), no_wrap=True, overflow="ellipsis"), refresh=True)
        else:
            self.say(text)


def live_line(line: dict[str, Any], total: int, rate: float, issues: Collection[str] = (), epochs: int = 0) -> str:
    """Progress, speed, what is wrong, the number of epochs and as many losses as fit: at most `WIDTH` columns."""
    parts = [f"step {line['step']}", f"epoch {line['epoch']}", f"{min(1, line['images'] / total):.0%}"]
    if rate:
        parts += [f"{rate:.2f} images/s", f"{duration(max(0, total - line['images']) / rate)} left"]
    if issues:
        parts.append(f"! {', '.join(issues)} !")
    of = f" of {epochs}" if epochs else ""
    if len("  ".join(parts) + of) <= WIDTH:
        parts[1] += of
    parts += [f"{name} {value:.3f}" for name, value in line["losses"].items()]
    text = parts[0]
    for part in parts[1:]:
        if len(text) + 2 + len(part) > WIDTH:
            break
        text += f"  {part}"
    return text


class Rate:
    """Images a second over the last minute or so."""

    def __init__(self) -> None:
        self._marks: list[tuple[float, int]] = []

    def tick(self, images: int) -> None:
        self._marks.append((time.monotonic(), images))
        while len(self._marks) > 2 and self._marks[-1][0] - self._marks[0][0] > 60:
            self._marks.pop(0)

    @property
    def value(self) -> float:
        if len(self._marks) < 2:
            return 0.0
        (t0, n0), (t1, n1) = self._marks[0], self._marks[-1]
        return (n1 - n0) / (t1 - t0) if t1 > t0 else 0.0


def duration(seconds: float) -> str:
    """`1 h 02 min`, `3 min 20 s`, `12 s`."""
    s = int(seconds)
    if s >= 3600:
        return f"{s // 3600} h {s % 3600 // 60:02d} min"
    return f"{s // 60} min {s % 60:02d} s" if s >= 60 else f"{s} s"


def _writer(folder: Path, step: int) -> Any:
    """TensorBoard's writer; None where it is not installed. Raises whatever it raises where it is."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        if error.name == "tensorboard":
            return None
        raise
    return SummaryWriter(str(folder), purge_step=step + 1)
