"""Writes the folder: the page, the runtime, and each style as ONNX with an example, whole or not at all."""

import contextlib
import hashlib
import html
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, BinaryIO

from i2i import __version__
from i2i.errors import UsageError
from i2i.files import appeared, atomic_write, make_folders, refused
from i2i.models.info import FROM_NOISE, OWN, ModelInfo
from i2i.models.styles import BUNDLED, STYLE_NAME
from i2i.terminal import printable
from i2i.tools.web.runtime import WebRuntime

if TYPE_CHECKING:
    from torch import nn

PAGE = (
    "page.css", "page.js", "pictures.js", "mask.js", "styles.js", "worker.js", "colour.js", "scaling.js", "icon.png",
)  # fmt: skip
"""The files of the page that are the same in each folder."""
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; "
    "img-src 'self' blob:; style-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'"
)
INDEX, WORKER = "site.json", "sw.js"
_MADE_BY = "i2i export --web"
_PHOTO = BUNDLED / "photos" / "bay.jpg"
_LONGEST_TITLE = 80
_LARGEST_INDEX = 1 << 20


@dataclass(frozen=True)
class WebStyle:
    """A style as the page has it: its network's `file` and what that takes, and its picture of the example."""

    name: str
    file: str
    example: str
    from_: str
    to: str
    card: tuple[str, ...]
    licence: str
    in_channels: int
    out_channels: int
    size_multiple: int
    minimum_size: int
    paint_size: int


def check_style(name: str, info: ModelInfo) -> None:
    """Raises `UsageError` for a style that no page can have."""
    if not STYLE_NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot be the name of a style: expected letters, digits, '-', '_', '.'")
    if info.network in FROM_NOISE:
        raise UsageError(f"{name} makes pictures from noise; --web is for styles that translate pictures")
    if info.network == OWN:
        raise UsageError(f"{name} is a network of your own, which only your code builds; --web takes networks of i2i")
    if info.in_units:
        raise UsageError(f"{name} is a model of values in units; --web takes styles from pictures to pictures")
    if not info.plain:
        kind = "CIE Lab" if info.encoding == "lab" else "labels"
        raise UsageError(f"{name} translates from or to {kind}; --web takes styles from pictures to pictures")
    if info.dropout:
        raise UsageError(f"{name} draws the noise of dropout, which a page cannot repeat; add --dropout False")
    config = info.network_config()
    for side, channels in (("takes", config.in_channels), ("gives", config.out_channels)):
        if channels not in (1, 3):
            raise UsageError(f"{name} {side} {channels} channels; a browser has pictures of 1 (grey) or 3 (RGB)")


def check_folder(out: Path, replace: bool) -> None:
    """Raises `UsageError` if `out` holds anything, unless that is a site of ours and to `replace`."""
    if not os.path.lexists(out):
        return
    if not out.is_dir():
        raise UsageError(f"--web {out}: a file is there; expected the name of a folder")
    if not any(out.iterdir()):
        return
    ours = _files_of(out)
    if not ours:
        raise UsageError(f"--web {out}: the folder is not empty, and holds no page of i2i; choose another name")
    found = {str(path.relative_to(out)) for path in out.rglob("*") if not path.is_dir()}
    if others := sorted(found - ours):
        raise UsageError(f"--web {out}: holds {others[0]}, which i2i did not write; choose another name")
    if not replace:
        raise UsageError(f"--web {out} exists; --overwrite replaces it")


def _files_of(out: Path) -> set[str]:
    """The files that i2i wrote there, by the index; empty if there is none."""
    index = out / INDEX
    try:
        if index.stat().st_size > _LARGEST_INDEX:
            return set()
        site = json.loads(index.read_text(encoding="utf-8"))
        return {INDEX, WORKER, *site["files"]} if site["made_by"] == _MADE_BY else set()
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def write_site(
    out: Path, models: Mapping[str, tuple["nn.Module", ModelInfo]], runtime: WebRuntime, *, replace: bool = False
) -> int:
    """Write the folder `out` with these styles by name, and return its size in bytes.

    The networks are put into their mode of translation for good. With `replace` an earlier page of i2i gives way.
    Raises `UsageError` for a style that no page can have, for a folder that holds anything else, for packages that are
    not installed; `OutputError`. Whatever fails, nothing is at `out` that was not there before.
    """
    for name, (_, info) in models.items():
        check_style(name, info)
    check_folder(out, replace)
    files = site_files(models, runtime)
    _place(Path(os.path.realpath(out)), files, replace)
    return sum(map(len, files.values()))


def site_files(models: Mapping[str, tuple["nn.Module", ModelInfo]], runtime: WebRuntime) -> dict[str, bytes]:
    """The files of the folder by their paths in it."""
    files = {name: _page(name) for name in PAGE}
    files |= {f"runtime/{name}": data for name, data in runtime.files.items()}
    has_example = any(_shows_photographs(info) for _, info in models.values())
    if has_example:
        files["example.jpg"] = _PHOTO.read_bytes()
    styles = [_style(name, network, info, files) for name, (network, info) in models.items()]
    title = _title([info for _, info in models.values()])
    return _completed(files, styles, title, runtime.version)


def _style(name: str, network: "nn.Module", info: ModelInfo, files: dict[str, bytes]) -> WebStyle:
    """Adds the files of a style."""
    from i2i.inference.export import checked_onnx

    config = info.network_config()
    stem = f"styles/{name}"
    files[f"{stem}.onnx"] = checked_onnx(network, info, compact=True)
    if _shows_photographs(info):
        files[f"{stem}.jpg"] = _translated_example(network, info)
    return WebStyle(
        name=name,
        file=f"{stem}.onnx",
        example=f"{stem}.jpg" if _shows_photographs(info) else "",
        from_=info.input_domain,
        to=info.output_domain,
        card=info.card,
        licence=info.licence,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        size_multiple=info.size_multiple,
        minimum_size=config.minimum_size,
        paint_size=info.paint_size,
    )


def _shows_photographs(info: ModelInfo) -> bool:
    return info.input_domain.lower() in ("photo", "photos", "photograph", "photographs")


def _translated_example(network: "nn.Module", info: ModelInfo) -> bytes:
    from i2i.images import encode, read
    from i2i.inference.translator import Translator

    return encode(Translator(network, info, "cpu", precision="fp32").translate(read(_PHOTO)), "JPEG", 90)


def _title(infos: list[ModelInfo]) -> str:
    """`Photo → Monet, van Gogh`, if that is short."""
    arrows: dict[str, list[str]] = {}
    for info in infos:
        targets = arrows.setdefault(info.input_domain, [])
        targets += [info.output_domain] if info.output_domain not in targets else []
    title = ", ".join(f"{source[:1].upper()}{source[1:]} → {', '.join(targets)}" for source, targets in arrows.items())
    return printable(title) if len(title) <= _LONGEST_TITLE else "Translate a picture"


def _page(name: str) -> bytes:
    return (resources.files("i2i.tools.web") / "page" / name).read_bytes()


def _completed(files: dict[str, bytes], styles: list[WebStyle], title: str, runtime: str) -> dict[str, bytes]:
    """The files with those that follow from them: the page, its manifest, the index, the worker that keeps all."""
    filled = {"policy": POLICY, "title": html.escape(title), "version": html.escape(__version__)}
    page = Template(_page("index.html").decode()).substitute(filled).encode()
    files = {"index.html": page, "manifest.webmanifest": _json(_manifest(title)), **files}
    index = {
        "made_by": _MADE_BY,
        "i2i": __version__,
        "onnxruntime-web": runtime,
        "title": title,
        "example": "example.jpg" if "example.jpg" in files else "",
        "styles": [{key.rstrip("_"): value for key, value in asdict(style).items()} for style in styles],
        "files": {name: {"bytes": len(data), "sha256": _sha256(data)} for name, data in sorted(files.items())},
    }
    files[INDEX] = _json(index)
    shell = ["./", *(name for name in files if name != "index.html" and not name.endswith(".onnx"))]
    names = {"version": _sha256(files[INDEX])[:16], "files": json.dumps(shell)}
    return files | {WORKER: Template(_page(WORKER).decode()).safe_substitute(names).encode()}


def _manifest(title: str) -> dict[str, Any]:
    return {
        "name": title,
        "short_name": title if len(title) <= 12 else "i2i",
        "start_url": "./",
        "display": "standalone",
        "background_color": "#fcfcfa",
        "theme_color": "#1f6097",
        "icons": [{"src": "icon.png", "sizes": "512x512", "type": "image/png"}],
    }


def _json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=1) + "\n").encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _place(out: Path, files: Mapping[str, bytes], replace: bool) -> None:
    """The files in a folder beside `out`, which then takes its place."""
    temporary = out.with_name(f".i2i-{secrets.token_hex(8)}.part")
    try:
        make_folders(out.parent)
        for name, data in files.items():
            make_folders((temporary / name).parent)
            atomic_write(temporary / name, partial(_write, data))
        _exchange(temporary, out, replace)
    except OSError as error:
        raise refused(out, error) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(data: bytes, file: BinaryIO) -> None:
    file.write(data)


def _exchange(temporary: Path, out: Path, replace: bool) -> None:
    """Gives the finished folder its name. An earlier one is set aside first, and comes back if that fails."""
    with contextlib.suppress(OSError):
        out.rmdir()  # one that is empty
    if not os.path.lexists(out):
        temporary.rename(out)
        return
    if not replace:
        raise appeared(out)
    aside = out.with_name(f"{temporary.name}.old")
    out.rename(aside)
    try:
        temporary.rename(out)
    except OSError:
        aside.rename(out)
        raise
    shutil.rmtree(aside, ignore_errors=True)
