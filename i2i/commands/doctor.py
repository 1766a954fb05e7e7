"""Say what this installation has, what it lacks, and whether each device computes as it should.

i2i doctor
i2i doctor --json
"""

import json
import sys
from dataclasses import asdict, dataclass

from i2i import __version__
from i2i.errors import SomeFailed
from i2i.terminal import printable, say_plain
from i2i.tools.doctor.findings import Finding, examine

COLOURS = {"ok": "green", "missing": "dim", "low": "yellow", "wrong": "red"}
_WIDTH, _NAMES = 110, 18


@dataclass(frozen=True, kw_only=True)
class Options:
    json: bool = False
    """Print JSON instead of tables."""


def main(options: Options) -> None:
    """Raises `SomeFailed` if something that is here does not work."""
    found: list[Finding] = []
    say_plain("looking, and trying a small network on each device …")
    for section in examine():
        found += section
        if not options.json:
            show(section)
    wrong = [finding for finding in found if finding.status == "wrong"]
    if options.json:
        print(json.dumps({"i2i": __version__, "wrong": len(wrong), "findings": list(map(asdict, found))}, indent=1))
    if wrong:
        raise SomeFailed(f"{len(wrong)} of {len(found)} findings are wrong; first: {wrong[0].name}: {wrong[0].text}")


def show(section: list[Finding]) -> None:
    """Prints a section as a table: status, name, text, and what to do."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False)
    console.width = min(console.width, _WIDTH) if console.is_terminal else _WIDTH
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(width=max(map(len, COLOURS)))
    table.add_column(width=_NAMES)
    table.add_column(overflow="fold")
    for finding in section:
        text = Text.assemble(printable(finding.text), *([f": {printable(finding.advice)}"] if finding.advice else []))
        table.add_row(Text(finding.status, COLOURS[finding.status]), printable(finding.name), text)
    with console.capture() as drawn:
        console.print(Text(section[0].section, "bold"), table, sep="\n")
    print("\n".join(line.rstrip() for line in drawn.get().splitlines()), end="\n\n", flush=True)
