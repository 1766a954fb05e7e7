"""What a translation says: a live line on a terminal, a plain one now and then elsewhere, the outcome at the end."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from i2i.streams import drawable, tell
from i2i.translation.report import Progress, Report

PLAIN_SECONDS = 30.0


@contextlib.contextmanager
def progress() -> Iterator[Progress]:
    """A function to call with the number of pictures finished, their total and the last one. Writes to stderr."""
    if not drawable():
        yield _Plain()
        return
    from rich import progress as bars
    from rich.console import Console

    columns = (
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("{task.fields[speed]}"),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task, started = bar.add_task("", total=None, speed=""), time.monotonic()

        def show(number: int, total: int, _: Path) -> None:
            speed = number / max(time.monotonic() - started, 1e-9)
            bar.update(task, completed=number, total=total, speed=f"{speed:.1f} images/s")

        yield show


class _Plain:
    def __init__(self) -> None:
        self._started = self._last = time.monotonic()

    def __call__(self, number: int, total: int, _: Path) -> None:
        now = time.monotonic()
        if now - self._last < PLAIN_SECONDS:
            return
        self._last = now
        speed = number / (now - self._started)
        left = (total - number) / speed
        tell(f"{number}/{total}, {speed:.1f} images/s, {left:.0f} s left")


def fetching() -> Callable[[int, int | None], None]:
    """A function to call with the bytes of a download that are there, and their total if it is known."""
    state = {"last": time.monotonic()}
    live = drawable()

    def show(there: int, total: int | None) -> None:
        now, whole = time.monotonic(), there == total
        if whole or now - state["last"] >= (0.2 if live else PLAIN_SECONDS):
            state["last"] = now
            of = f" of {total / 1e6:.0f}" if total else ""
            print(
                f"fetched {there / 1e6:.0f}{of} MB",
                end="\r" if live and not whole else "\n",
                file=sys.stderr,
                flush=True,
            )

    return show


def summarise(report: Report, seconds: float) -> None:
    """Counts, failures and notices, on stderr."""
    counts = {"translated": report.done, "skipped": report.skipped, "failed": report.failed, "left": report.left}
    tell(", ".join(f"{len(records)} {what}" for what, records in counts.items()) + f" in {seconds:.1f} s")
    for line in (*(f"{record.source}: {record.reason}" for record in report.failed), *report.notices):
        tell(line)
