"""ONNX Runtime Web, which computes in the browser: its files in a folder that npm has filled."""

import json
from dataclasses import dataclass
from pathlib import Path

from i2i.errors import UsageError

FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
"""Its WebAssembly on one thread, and nothing of WebGPU and WebGL, whose results differ more."""
INSTALLED = Path("node_modules", "onnxruntime-web", "dist")
_MOST_BYTES = 64 << 20
_BEGINNINGS = {".wasm": b"\0asm", ".mjs": b""}
_LICENCE = """ONNX Runtime Web {version}

MIT License

Copyright (c) Microsoft Corporation. All rights reserved.

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


@dataclass(frozen=True)
class WebRuntime:
    """The `files` of the runtime by their names, with the text of its licence, and its `version`."""

    version: str
    files: dict[str, bytes]


def read_runtime(folder: Path | None) -> WebRuntime:
    """The runtime in a folder: that of the package, its `dist`, or one in which npm has installed it.

    By default it is sought in the current folder. Raises `UsageError` if it is not there, or not whole.
    """
    dist = _dist(folder or Path())
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
    return WebRuntime(version, files | {"LICENSE.txt": _LICENCE.format(version=version).encode()})


def _dist(folder: Path) -> Path | None:
    """The first of the places that has any of the files."""
    places = (folder, folder / "dist", folder / INSTALLED)
    return next((place for place in places if any((place / name).is_file() for name in FILES)), None)


def _content(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UsageError(f"{path}: more than {_MOST_BYTES >> 20} MB; expected a file of onnxruntime-web")
        data = path.read_bytes()
    except OSError as error:
        hint = "onnxruntime-web 1.20 or newer has it"
        raise UsageError(f"{path}: cannot be read: {error.strerror}; {hint}") from None
    if not data or not data.startswith(_BEGINNINGS[path.suffix]):
        raise UsageError(f"{path}: damaged, or no file of onnxruntime-web; install it again")
    return data


def _version(package: Path) -> str:
    """The version that npm has noted; empty if it is not known."""
    try:
        return str(json.loads(package.read_text(encoding="utf-8"))["version"])[:40]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
