"""Lay folders of pictures side by side: a contact sheet, or a page with a slider for each pair.

i2i compare photos/ painted/ -o sheet.png
i2i compare photos/ monet/ vangogh/ -o page.html
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Interval

from i2i.commands.options import POSITIONAL
from i2i.errors import SomeFailed, UsageError
from i2i.terminal import printable, say_plain


@dataclass(frozen=True, kw_only=True)
class Options:
    inputs: Annotated[tuple[Path, ...], POSITIONAL] = ()
    """Two or more folders, or two or more pictures. Pictures of folders match by their path without suffix."""
    out: Path | None = None
    """The contact sheet (.png, .jpg) or the page (.html) to write."""
    max: Annotated[int, Interval(ge=1, le=500)] = 24
    """Show at most this many pictures of each folder, evenly chosen."""
    overwrite: bool = False
    """Replace an output that exists."""


def main(options: Options) -> None:
    """Raises `SomeFailed` if a picture cannot be read; the others are shown."""
    if options.out is None:
        raise UsageError("expected: i2i compare BEFORE AFTER -o SHEET.png|PAGE.html (see --help)")
    from i2i.tools.compare import write_comparison  # here, so that --help does not wait for it

    found = write_comparison(options.inputs, options.out, options.max, options.overwrite)
    for notice in found.notices:
        say_plain(notice)
    print(f"{printable(options.out)}: {options.out.stat().st_size / 1e6:.1f} MB")
    if found.failed:
        raise SomeFailed(f"{len(found.failed)} pictures cannot be read:", *found.failed[:10])
