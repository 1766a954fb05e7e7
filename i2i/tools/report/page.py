"""A page that is one file: no server, no network, readable without scripts.

Style and script stand in the file; a content security policy allows these two by their hashes, pictures from
`data:` addresses, and nothing else.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import resources
from string import Template

from i2i import __version__
from i2i.tools.report.markup import escape


def build(mark: bytes, kind: str, name: str, summary: str, notices: Sequence[str], sections: Sequence[str]) -> bytes:
    """The bytes of a page that begins with `mark`.

    `kind` and `name` are its title, `notices` say what was left out. `summary` and `sections` are HTML.
    """
    titles = _titles(sections)
    style, script = (_resource(file) for file in ("page.css", "page.js"))
    page = Template(_resource("page.html")).substitute(
        policy=f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'",
        kind=escape(kind),
        name=escape(name, 200),
        style=style,
        script=script,
        summary=summary,
        links=" ".join(f'<a href="#{anchor}">{title}</a>' for anchor, title in titles) if len(titles) > 1 else "",
        notices=_notices(notices),
        sections="".join(sections),
        version=escape(__version__),
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return mark + page.encode()


def _resource(name: str) -> str:
    return (resources.files("i2i.tools.report") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _titles(sections: Sequence[str]) -> list[tuple[str, str]]:
    """The name and the heading of each section that has content."""
    found = [re.match(r'<section id="([\w-]+)".*?<h2[^>]*>([^<]*)</h2>', part) for part in sections]
    return [(match[1], match[2]) for match in found if match]


def _notices(lines: Sequence[str]) -> str:
    """The parts that were left out or could not be read."""
    shown = "".join(f"<li>{escape(line)}</li>\n" for line in lines)
    return f'<ul class="notices">{shown}</ul>\n' if lines else ""
