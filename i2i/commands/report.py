"""Write one HTML file that shows a run: curves, samples, numbers, configuration.

i2i report runs/facades
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from i2i.commands.options import POSITIONAL
from i2i.errors import SomeFailed, UsageError
from i2i.terminal import printable, say_plain


@dataclass(frozen=True, kw_only=True)
class Options:
    folder: Annotated[Path | None, POSITIONAL] = None
    """The folder of the run; it may still be training."""
    out: Path | None = None
    """The HTML file to write; an earlier report is replaced. Default: report.html in the run folder."""
    pictures: Path | None = None
    """Translate the pictures of this folder, and show them beside their translations."""
    direction: Literal["a2b", "b2a"] | None = None
    """The direction that translates the pictures. Needed for a run with two."""
    device: str = "auto"
    """The device that translates them: auto, cpu, cuda, cuda:N or mps."""


def main(options: Options) -> None:
    if options.folder is None:
        raise UsageError("expected: i2i report RUN [-o FILE.html] (see --help)")
    if options.out is not None and options.out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"-o {options.out}: expected the name of an HTML file")
    if options.direction is not None and options.pictures is None:
        raise UsageError("--direction chooses the model for --pictures, and there is none")
    from i2i.tools.report.report import write_report  # here, so that --help does not wait for it

    written = write_report(
        options.folder,
        options.out,
        pictures=options.pictures,
        direction=options.direction,
        device=options.device,
    )
    for notice in written.notices:
        say_plain(notice)
    print(f"{printable(written.path)}: {written.size / 1e6:.1f} MB")
    if written.failed:
        raise SomeFailed(f"{len(written.failed)} pictures could not be translated; first: {written.failed[0]}")
