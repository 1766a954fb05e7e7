"""Translate pictures and folders of them with a trained generator.

python scripts/translate.py --style runs/monet photos/ -o out/
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Interval

from i2i.cli import Positional, arg, printable, run
from i2i.errors import SomeFailed, UsageError


@dataclass(frozen=True, kw_only=True)
class Options:
    inputs: Positional[tuple[Path, ...]] = ()
    """Pictures, and folders that are searched recursively."""
    style: str = ""
    """What translates: a run folder or a model file (.safetensors)."""
    out: Annotated[Path | None, arg(aliases=["-o"])] = None
    """The folder to write to, names and tree kept; for one input file it may be a file name."""
    direction: Literal["a2b", "b2a"] | None = None
    """Needed for a run folder that has both."""
    overwrite: bool = False
    """Replace outputs that exist (an input never is)."""
    skip_existing: bool = False
    """Do only what is missing."""
    size: Annotated[int, Interval(ge=1, le=65_535)] | None = None
    """Scale the shorter side to so many pixels first; without it the size stays."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    strict: bool = False
    """Stop at the first picture that fails."""


def main(options: Options) -> None:
    if not options.inputs or not options.style or options.out is None:
        raise UsageError("expected: translate.py --style RUN_FOLDER|MODEL_FILE INPUT... -o OUT (see --help)")
    from i2i.translation.batch import translate_folder  # here, so that --help does not wait for torch

    started = time.monotonic()
    with _progress() as progress:
        report = translate_folder(
            options.inputs,
            options.out,
            options.style,
            direction=options.direction,
            device=options.device,
            overwrite=options.overwrite,
            skip_existing=options.skip_existing,
            size=options.size,
            strict=options.strict,
            progress=progress,
        )
    seconds, done = time.monotonic() - started, len(report.done)
    _say(f"{done} translated, {len(report.skipped)} skipped, {len(report.failed)} failed in {seconds:.1f} s")
    for record in report.failed:
        _say(f"{record.source}: {record.reason}")
    if report.failed:
        raise SomeFailed(f"{len(report.failed)} of {len(report.records)} pictures failed; the others are done")


def _say(text: str) -> None:
    print(printable(text).replace("\n", "\\n"), file=sys.stderr, flush=True)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int, int, Path], None] | None]:
    if not sys.stderr.isatty():
        yield None
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


if __name__ == "__main__":
    run(main, Options, "Translate pictures, and folders of them, with a trained generator.")
