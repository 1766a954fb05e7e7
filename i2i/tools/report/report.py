"""One run as one HTML file: no server, no network, readable without scripts.

Style and script stand in the file; a content security policy allows these two by their hashes, pictures from
`data:` addresses, and nothing else.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

from i2i import __version__
from i2i.errors import ImageError, UsageError
from i2i.files import atomic_write
from i2i.tools.report import sections
from i2i.tools.report.markup import escape
from i2i.tools.report.numbers import numbers
from i2i.tools.report.pictures import MAX_SHORTER_SIDE, Pair, grids, layout_of, sample_pairs, translated_pairs
from i2i.tools.report.run_record import RunRecord, read_run

MARK = b"<!doctype html>\n<!-- i2i report -->\n"
NAME = "report.html"
MAX_PAGE_BYTES = 40 << 20
_DRAG = '<span class="hint" hidden>Drag the line, or use the arrow keys.</span>'


@dataclass(frozen=True)
class Written:
    """A report that was written: where, its size, what was left out, which pictures could not be translated."""

    path: Path
    size: int
    notices: tuple[str, ...]
    failed: tuple[str, ...]


def write_report(
    run: Path,
    out: Path | None = None,
    *,
    pictures: Path | None = None,
    direction: str | None = None,
    device: str = "auto",
) -> Written:
    """Write the report of the run in a folder to `out` (by default `report.html` in that folder).

    `pictures`, a folder, is translated by the run's model of `direction` and shown too. An earlier report is
    replaced. The page has at most `MAX_PAGE_BYTES`. Raises `InputError` if `run` is not the folder of a run,
    `UsageError` if `out` is something else than a report, `OutputError` if it cannot be written.
    """
    record = read_run(run)
    out = run / NAME if out is None else out
    replace = check_replaceable(out)
    page, failed = build_page(record, pictures, direction, device)
    atomic_write(out, lambda file: file.write(page), replace=replace)
    return Written(out, len(page), tuple(record.notices), tuple(failed))


def check_replaceable(out: Path) -> bool:
    """Whether an earlier report is at `out`. Raises `UsageError` if something else is."""
    if not out.exists():
        return False
    try:
        beginning = out.open("rb").read(len(MARK)) if out.is_file() else b""
    except OSError as error:
        raise UsageError(f"{out}: exists and cannot be read: {error.strerror}") from None
    if beginning != MARK:
        raise UsageError(f"{out}: exists and is not a report of i2i; choose another name with -o")
    return True


def build_page(
    run: RunRecord, pictures: Path | None = None, direction: str | None = None, device: str = "cpu"
) -> tuple[bytes, list[str]]:
    """The bytes of the page, and which of `pictures` could not be translated. Notices are added to those of `run`."""
    own: list[Pair] = []
    failed: list[str] = []
    if pictures is not None:
        own, failed = translated_pairs(run.path, pictures, direction, device, run.notices)
    layout = layout_of(run.config)
    shown = grids(run.samples, run.notices)
    if run.log.damaged:
        run.notices.append(f"log.jsonl: damaged lines left out: {run.log.damaged}")
    note = f"{_DRAG} A picture whose shorter side is above {MAX_SHORTER_SIDE} pixels was scaled to that before."
    content = [
        sections.health(run.log),
        sections.comparisons(own, "pictures", "Your pictures", note),
        sections.comparisons(_pairs(run), "compare", "Input and output", f"{_DRAG} From the last sample grid."),
        sections.samples(shown, layout),
        sections.curves(run.log),
        numbers(run),
        sections.configuration(run),
    ]
    return _document(run, content, [*run.notices, *failed]), failed


def _pairs(run: RunRecord) -> list[Pair]:
    if not run.samples:
        return []
    count = run.config.get("samples")
    try:
        return sample_pairs(list(run.samples.values())[-1], layout_of(run.config), count if type(count) is int else 4)
    except ImageError:
        return []  # named where the grids are read


def _document(run: RunRecord, content: Sequence[str], notices: Sequence[str]) -> bytes:
    folder = resources.files("i2i.tools.report")
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    name, now = escape(run.name, 200), datetime.now(UTC).isoformat(timespec="seconds")
    page = (
        f'<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>{name} – i2i report</title>\n<style>{style}</style>\n</head>\n<body>\n"
        f"<header><h1>{name}</h1>\n{sections.summary(run)}{_links(content)}</header>\n<main>\n"
        f"{sections.notices(notices)}{''.join(content)}</main>\n"
        f"<footer><p>Written by i2i {escape(__version__)}, {now}.</p></footer>\n"
        f"<script>{script}</script>\n</body>\n</html>\n"
    )
    return MARK + page.encode()


def _links(content: Sequence[str]) -> str:
    names = {
        "health": "Health",
        "pictures": "Your pictures",
        "compare": "Compare",
        "samples": "Samples",
        "curves": "Curves",
        "numbers": "Numbers",
        "configuration": "Configuration",
    }
    there = [name for name in names if any(part.startswith(f'<section id="{name}"') for part in content)]
    links = " ".join(f'<a href="#{name}">{names[name]}</a>' for name in there)
    return f'<nav aria-label="Sections">{links}</nav>\n'


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
