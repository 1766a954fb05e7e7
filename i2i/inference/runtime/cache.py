"""Converted networks, kept between uses in the cache folder, so that the next start needs no conversion and no torch.

An entry is one file, named by the hash of all that the conversion follows from, and written whole or not at all:
several processes may write it at once. An entry that is damaged or of another version counts as absent.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from i2i.errors import I2IError, ModelError
from i2i.files import atomic_write, home, remove_strays
from i2i.inference.runtime.protocol import ConvertedModel, InputSpec
from i2i.models.info import CONFIG_NAME, WEIGHTS_NAME, parse, to_json
from i2i.models.metadata import read_header, regular_file

VERSION = 2
"""The version of conversion and storage. Every change that makes older entries wrong raises it."""
MAX_BYTES = 4 << 30
"""The limit of all entries together. Entries that were not used for the longest time go first."""
_STRAY_SECONDS = 3600


def folder() -> Path:
    """Returns the folder of the entries, which need not exist."""
    return home() / "converted"


def key(path: Path, runtime: str, version: str, options: Mapping[str, Any]) -> str | None:
    """Returns the name of the entry for the model at `path`, used with these options; None if it cannot be read."""
    files = [path / CONFIG_NAME, path / WEIGHTS_NAME] if path.is_dir() else [path]
    try:
        digests = [_sha256(file) for file in files]
    except (OSError, ModelError):
        return None
    facts = [VERSION, runtime, version, sorted((name, str(value)) for name, value in options.items()), digests]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def get(name: str) -> ConvertedModel | None:
    """Returns the entry of that name, if it is there and whole."""
    path = folder() / f"{name}.safetensors"
    try:
        regular_file(path)  # a pipe would block
        data = path.read_bytes()
        if read_header(path).metadata.get("sha256") != _body_sha256(data):
            return None
        files = {file: array.tobytes() for file, array in load(data).items()}
        facts = json.loads(files.pop("facts"))
        converted = ConvertedModel(parse(files.pop("info"))[0], InputSpec(**facts), files)
    except Exception:  # whatever a reader makes of damaged bytes
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # it is in use
    return converted


def put(name: str, converted: ConvertedModel) -> None:
    """Keeps an entry, if the disk allows; entries that were not used for long make room."""
    parts = {
        **converted.files,
        "facts": json.dumps(asdict(converted.spec)).encode(),
        "info": to_json(converted.info, "").encode(),
    }
    arrays = {part: np.frombuffer(data, np.uint8) for part, data in parts.items()}
    data = save(arrays, {"sha256": _body_sha256(save(arrays))})
    with contextlib.suppress(OSError, I2IError):
        folder().mkdir(parents=True, exist_ok=True)
        remove_strays(folder(), time.time() - _STRAY_SECONDS)
        atomic_write(folder() / f"{name}.safetensors", lambda file: file.write(data))
        _prune()


def _prune() -> None:
    entries = sorted(folder().glob("*.safetensors"), key=lambda path: path.stat().st_mtime, reverse=True)
    total = 0
    for number, path in enumerate(entries):
        total += path.stat().st_size
        if number and total > MAX_BYTES:
            path.unlink()


def _sha256(path: Path) -> str:
    regular_file(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _body_sha256(data: bytes) -> str:
    start = 8 + int.from_bytes(data[:8], "little")
    return hashlib.sha256(memoryview(data)[start:]).hexdigest()
