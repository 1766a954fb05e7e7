"""The `data.yaml` of Ultralytics: how many classes there are, and where the pictures lie."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from i2i.config import read_yaml, real
from i2i.errors import UsageError

_PLACES = ("path", "train", "val", "test", "minival")
_MAX_CLASSES = 1 << 31


def count_classes(path: Path) -> float | None:
    """How many classes the file speaks of; None if it cannot be read or does not say so in a usual way."""
    try:
        values = read_yaml(path)
    except UsageError:
        return None
    names, count = values.get("names"), values.get("nc")
    if names and isinstance(names, list | dict):
        count = len(names) if isinstance(names, list) else 1 + _last(names)
    return float(count) if type(count) is int and 0 < count < _MAX_CLASSES else None  # `nc: true` is no number


def _last(names: dict[Any, Any]) -> int:
    """The highest index. `{person: 0, car: 1}` is the wrong way round, and has as many classes as keys."""
    with suppress(ValueError, TypeError, OverflowError):
        return max(map(int, names))
    return len(names) - 1


def moved(path: Path, folder: Path, out: Path) -> bytes | None:
    """The file with the absolute places within `folder` exchanged for those in `out`, None if there are none.

    A training that reads the file in the output would otherwise read the input. All other bytes stay.
    """
    try:
        read_yaml(path)  # its limits hold for what follows
        text = path.read_bytes().decode()
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (UsageError, OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    pieces, position = [], 0
    for node in _places(root):
        if place := _inside(node.value, folder):
            pieces += [
                text[position : node.start_mark.index],
                json.dumps(str(out.absolute() / place), ensure_ascii=False),
            ]
            position = node.end_mark.index
    pieces.append(text[position:])
    # a byte that is no UTF-8 becomes \udcff, which YAML reads as Python does
    return "".join(pieces).encode(errors="backslashreplace") if position else None


def _places(root: yaml.Node | None) -> list[yaml.ScalarNode]:
    """The values of `path` and of the splits, which may be lists; in the order of the text."""
    if not isinstance(root, yaml.MappingNode):
        return []
    values = [value for key, value in root.value if key.value in _PLACES]
    nodes = [node for value in values for node in (value.value if isinstance(value, yaml.SequenceNode) else [value])]
    return [node for node in nodes if isinstance(node, yaml.ScalarNode) and node.style not in ("|", ">")]


def _inside(value: str, folder: Path) -> Path | None:
    """An absolute path within `folder`, relative to it."""
    if not value.startswith("/") or "\0" in value:
        return None
    place = Path(os.path.realpath(value))
    return place.relative_to(real(folder)) if place.is_relative_to(real(folder)) else None
