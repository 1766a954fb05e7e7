"""Data of visitors: a request becomes an order of the studio, every value checked; texts become HTML, escaped."""

import base64
import binascii
import contextlib
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from i2i.errors import I2IError
from i2i.inference.options import Keep
from i2i.models.info import MAX_SIDE
from i2i.models.styles import Style
from i2i.tools.page.studio import Bounds, Order, Row, Upload

KEPT: dict[str, Keep | None] = {"nothing": None, "luminance": "luminance", "colours": "colour"}
"""Values of `keep`, by their names on the page."""
_DRAWN = "data:image/png;base64"


File = Mapping[str, Any]
"""A file as Gradio names it: its path, which the guard has checked, and its name at the visitor's."""
Files = Sequence[File] | None


class OrderError(I2IError):
    """An order that cannot be filled, with a text for the visitor."""


def sent(files: Files, tree: Files, camera: File | None) -> list[File]:
    """The files of all three sources."""
    return [*(files or []), *(tree or []), *([camera] if camera else [])]


def upload_of(file: File) -> Upload:
    """A file as Gradio names it. The guard has seen to it that its path is one of ours."""
    return Upload(Path(file["path"]), str(file.get("orig_name") or "picture.png"))


def order_of(
    files: Sequence[File], styles: object, options: Mapping[str, Any], names: Sequence[str], bounds: Bounds
) -> Order:
    """The order for `files`, some of the styles `names`, and the options on the page. Raises `OrderError`."""
    chosen = [name for name in names if name in (styles if isinstance(styles, list | tuple) else ())]
    size, strength, keep, mask = (options[name] for name in ("size", "strength", "keep", "mask"))
    most = bounds.pictures
    _expect(bool(files), "Drop a picture first, or take the example.")
    _expect(bool(chosen), "Choose a style.")
    _expect(len(files) <= most, f"{len(files)} pictures: at most {most} go at once.")
    _expect(_is_number(size, 0, MAX_SIDE), f"Size: expected 0 to {MAX_SIDE} pixels.")
    _expect(_is_number(strength, 0, 1), "Strength: expected 0 to 1.")
    _expect(keep in list(KEPT), "Keep: expected one of the choices.")
    uploads = [upload_of(file) for file in (*files, *([mask] if mask else []))]
    for upload in uploads:
        _expect(upload.path.is_file(), f"{upload.name} is not here any more: drop it again.")
    return Order(
        uploads=uploads[: len(files)],
        styles=chosen,
        mix=_mix_of(options["mix"], chosen),
        size=int(size) or None,
        strength=float(strength),
        keep=KEPT[keep],
        mask=uploads[-1] if mask else None,
        drawn=_bytes_of(options["drawn"]),
    )


def _expect(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise OrderError(otherwise)


def _is_number(value: object, least: float, most: float) -> bool:
    return isinstance(value, int | float) and least <= value <= most


def _mix_of(text: object, chosen: Sequence[str]) -> dict[str, float]:
    """The weights above 0 of the chosen styles, in a JSON object; none for an empty text, and for a single style."""
    try:
        given = json.loads(text) if isinstance(text, str) and text else None if text else {}
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise OrderError("Mix: expected a share for each style.")
    _expect(all(_is_number(weight, 0, 100) for weight in given.values()), "Mix: expected shares from 0 to 100.")
    mix = {name: float(given[name]) for name in chosen if given.get(name)}
    return mix if len(mix) > 1 else {}


def _bytes_of(address: object) -> bytes:
    """The bytes in a `data:` address as a canvas gives it; none for an empty one."""
    head, _, data = str(address or "").partition(",")
    with contextlib.suppress(binascii.Error):
        if head in ("", _DRAWN):
            return base64.b64decode(data)
    raise OrderError("The mask cannot be read: draw it again.")


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
    lines = ""
    for row in rows:
        cells = "".join(f"<td>{escape(text)}</td>" for text in (row.picture, row.style, row.status, row.note))
        lines += f'<tr class="{escape(row.status.replace(" ", "-"))}">{cells}</tr>'
    head = "<tr><th>picture</th><th>style</th><th>status</th><th>note</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{lines}</tbody></table>"


def head(bounds: Bounds) -> str:
    """The title of the page, and what it takes."""
    most = f"{bounds.file_bytes / 1e6:g} MB, {bounds.pixels / 1e6:g} megapixels, {bounds.pictures} at once"
    return (
        "<h1>i2i</h1><p>Pictures in, pictures out. They stay on the machine that serves this page, "
        f"and go when you close it. At most {most}.</p>"
    )
