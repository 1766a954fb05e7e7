"""The parts of the page that are plain HTML. Texts of others, such as names of files, are escaped."""

from collections.abc import Sequence
from html import escape

from i2i.models.styles import Style
from i2i.tools.page.studio import Bounds, Row

CANVAS = """<p class="hint">Drop a picture, then paint over what is to be translated.</p>
<div class="paper"><canvas role="img" aria-label="Paper of the mask, over the first picture"></canvas></div>
<div class="tools"><label>Brush <input type="range" min="4" max="120" value="40" aria-label="Brush"></label>
<button type="button">Clear</button></div>"""
"""Where a mask is painted; `mask.js` brings it to life."""
MIX = """<label><input type="checkbox"> Mix them: one more picture, of all of these</label>
<div class="shares"></div>"""
"""Where the shares of a mix are set; `mix.js` brings it to life."""


def card(style: Style) -> str:
    """The card of a style: its data, recipe, numbers and limits."""
    facts = [f"{style.input_domain} → {style.output_domain}" if style.output_domain else "", style.licence]
    said = " · ".join(escape(fact) for fact in facts if fact)
    lines = "".join(f"<p>{escape(line)}</p>" for line in style.card)
    return f"<details><summary><b>{escape(style.name)}</b> {said}</summary>{lines}</details>"


def table(rows: Sequence[Row]) -> str:
    """The report as a table."""
    lines = "".join(
        f'<tr class="{escape(row.status.replace(" ", "-"))}">'
        + "".join(f"<td>{escape(text)}</td>" for text in (row.picture, row.style, row.status, row.note))
        + "</tr>"
        for row in rows
    )
    head = "<tr><th>picture</th><th>style</th><th>status</th><th>note</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{lines}</tbody></table>"


def head(bounds: Bounds) -> str:
    """The title of the page, and what it takes."""
    most = f"{bounds.file_bytes / 1e6:g} MB, {bounds.pixels / 1e6:g} megapixels, {bounds.pictures} at once"
    return (
        "<h1>i2i</h1><p>Pictures in, pictures out. They stay on the machine that serves this page, "
        f"and go when you close it. At most {most}.</p>"
    )
