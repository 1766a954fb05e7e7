"""A folder for any web server: a page that translates pictures in the visitor's browser.

It holds the page (its sources are in `web/`), ONNX Runtime Web, which computes there, and each style as ONNX with an
example. It is written whole or not at all.
"""

import contextlib
import hashlib
import html
import io
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from i2i import __version__
from i2i.errors import UsageError
from i2i.files import appeared, atomic_write, make_folders, refused, remove_strays, shared_folder
from i2i.models.info import FROM_NOISE, OWN, ModelInfo
from i2i.models.styles import BUNDLED, STYLE_NAME
from i2i.terminal import printable

if TYPE_CHECKING:
    from torch import nn

SOURCES = Path(__file__).with_name("web")
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
FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
"""The runtime: its WebAssembly on one thread, and nothing of WebGPU and WebGL, whose results differ more."""
INSTALLED = Path("node_modules", "onnxruntime-web", "dist")
_BEGINNINGS = {".wasm": b"\0asm", ".mjs": b""}


@dataclass(frozen=True)
class WebRuntime:
    """The `files` of the runtime by their names, with the text of its licence, and its `version`."""

    version: str
    files: dict[str, bytes]


def read_runtime(folder: Path | None) -> WebRuntime:
    """The runtime in a folder: that of the package, its `dist`, or one in which npm has installed it.

    By default it is sought in the current folder. Raises `UsageError` if it is not there, or not whole.
    """
    places = [(folder or Path()) / place for place in ("", "dist", INSTALLED)]
    dist = next((place for place in places if any((place / name).is_file() for name in FILES)), None)
    if dist is None:
        where = "the current folder" if folder is None else f"--web-runtime {folder}"
        raise UsageError(
            f"{where} has no onnxruntime-web, which computes in the browser: "
            f"expected {FILES[0]} there or in {INSTALLED}. `npm install onnxruntime-web` puts it there; "
            "--web-runtime FOLDER names another place"
        )
    version = _version(dist.parent / "package.json")
    # many web servers do not know the suffix .mjs, and a browser runs no module without its type
    files = {name.replace(".mjs", ".js"): _content(dist / name) for name in FILES}
    licence = (SOURCES / "onnxruntime-licence.txt").read_text(encoding="utf-8").format(version=version)
    return WebRuntime(version, files | {"LICENSE.txt": licence.encode()})


def _content(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = f"cannot be read: {error.strerror}; onnxruntime-web 1.20 or newer has it"
        raise UsageError(f"{path}: {reason}") from None
    if not data or not data.startswith(_BEGINNINGS[path.suffix]):
        raise UsageError(f"{path}: damaged, or no file of onnxruntime-web; install it again")
    return data


def _version(package: Path) -> str:
    """The version that npm has noted; empty if it is not known."""
    try:
        return str(json.loads(package.read_text(encoding="utf-8"))["version"])[:40]
    except (OSError, ValueError, KeyError, TypeError):
        return ""


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
    files = {name: (SOURCES / name).read_bytes() for name in PAGE}
    files |= {f"runtime/{name}": data for name, data in runtime.files.items()}
    if any(_shows_photographs(info) for _, info in models.values()):
        files["example.jpg"] = _PHOTO.read_bytes()
    styles = [_style(name, network, info, files) for name, (network, info) in models.items()]
    return _completed(files, styles, _title([info for _, info in models.values()]), runtime.version)


def _style(name: str, network: "nn.Module", info: ModelInfo, files: dict[str, bytes]) -> dict[str, Any]:
    """A style as the page has it: its network's `file` and what that takes. Adds that file, and its example."""
    from i2i.images import encode, read
    from i2i.inference.torch_runtime import checked_onnx
    from i2i.inference.translator import Translator

    config = info.network_config()
    file, example = f"styles/{name}.onnx", f"styles/{name}.jpg" if _shows_photographs(info) else ""
    files[file] = checked_onnx(network, info, compact=True)
    if example:
        painted = Translator(network, info, "cpu", precision="fp32").translate(read(_PHOTO))
        files[example] = encode(painted, "JPEG", 90)
    return {
        "name": name,
        "file": file,
        "example": example,
        "from": info.input_domain,
        "to": info.output_domain,
        "card": info.card,
        "licence": info.licence,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "size_multiple": info.size_multiple,
        "minimum_size": config.minimum_size,
        "paint_size": info.paint_size,
    }


def _shows_photographs(info: ModelInfo) -> bool:
    return info.input_domain.lower() in ("photo", "photos", "photograph", "photographs")


def _title(infos: list[ModelInfo]) -> str:
    """`Photo → Monet, van Gogh`, if that is short."""
    arrows: dict[str, list[str]] = {}
    for info in infos:
        targets = arrows.setdefault(info.input_domain, [])
        targets += [info.output_domain] if info.output_domain not in targets else []
    title = ", ".join(f"{source[:1].upper()}{source[1:]} → {', '.join(targets)}" for source, targets in arrows.items())
    return printable(title) if len(title) <= _LONGEST_TITLE else "Translate a picture"


def _completed(files: dict[str, bytes], styles: list[dict[str, Any]], title: str, runtime: str) -> dict[str, bytes]:
    """The files with those that follow from them: the page, its manifest, the index, the worker that keeps all."""
    filled = {"policy": POLICY, "title": html.escape(title), "version": html.escape(__version__)}
    page = Template((SOURCES / "index.html").read_text(encoding="utf-8")).substitute(filled).encode()
    manifest = {
        "name": title,
        "short_name": title if len(title) <= 12 else "i2i",
        "start_url": "./",
        "display": "standalone",
        "background_color": "#fcfcfa",
        "theme_color": "#1f6097",
        "icons": [{"src": "icon.png", "sizes": "512x512", "type": "image/png"}],
    }
    files = {"index.html": page, "manifest.webmanifest": _json(manifest), **files}
    files[INDEX] = _json(
        {
            "made_by": _MADE_BY,
            "i2i": __version__,
            "onnxruntime-web": runtime,
            "title": title,
            "example": "example.jpg" if "example.jpg" in files else "",
            "styles": styles,
            "files": {name: {"bytes": len(data), "sha256": _sha256(data)} for name, data in sorted(files.items())},
        }
    )
    shell = ["./", *(name for name in files if name != "index.html" and not name.endswith(".onnx"))]
    names = {"version": _sha256(files[INDEX])[:16], "files": json.dumps(shell)}
    worker = Template((SOURCES / WORKER).read_text(encoding="utf-8")).safe_substitute(names)
    return files | {WORKER: worker.encode()}


def _json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=1) + "\n").encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _place(out: Path, files: Mapping[str, bytes], replace: bool) -> None:
    """The files in a folder beside `out`, which then takes its place.

    An earlier one is set aside first, and comes back if that fails.
    """
    make_folders(out.parent)
    remove_strays(out.parent, time.time(), "site")
    with shared_folder("site", out.parent) as staging:
        new, old = staging / "new", staging / "old"
        for name, data in files.items():
            make_folders((new / name).parent)
            atomic_write(new / name, partial(shutil.copyfileobj, io.BytesIO(data)))
        with contextlib.suppress(OSError):
            out.rmdir()  # one that is empty
        try:
            if is_there := os.path.lexists(out):
                if not replace:
                    raise appeared(out)
                out.rename(old)
            try:
                new.rename(out)
            except OSError:
                if is_there:
                    old.rename(out)
                raise
        except OSError as error:
            raise refused(out, error) from None
