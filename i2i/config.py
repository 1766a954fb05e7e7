"""Configurations: frozen dataclasses, checked by pydantic, read from and written to YAML.

A range stands in the annotation (`Annotated[int, Ge(1)]`), so that the command line, a YAML file and a model
file are held to the same limits. An unknown key is an error that names its nearest neighbour.
"""

import dataclasses
import difflib
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from i2i.errors import UsageError

C = TypeVar("C")

MAX_YAML_BYTES = 1 << 20
MAX_YAML_DEPTH = 16


class _Loader(yaml.SafeLoader):
    """Words stay words: YAML 1.1 takes `off` for false and `2026-01-01` for a date; pydantic converts what is meant."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as the class that it extends declares it
        first: [(tag, pattern) for tag, pattern in found if tag.rpartition(":")[2] not in ("bool", "timestamp")]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def option_names(config: Any) -> list[str]:
    """The fields of a configuration, or of its class, in order."""
    return [field.name for field in dataclasses.fields(config)]


def nearest(name: str, known: Collection[str]) -> str:
    """` Did you mean 'x'?` for a name that is close to a known one, else the empty string."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def path_of(value: str | os.PathLike[str]) -> Path:
    """`value` as a path. Raises `UsageError` for an empty text, which would mean the current folder, and for a NUL."""
    if value == "":
        raise UsageError("an empty path: is a variable unset? The current folder is '.'")
    if "\0" in os.fspath(value):
        raise UsageError(f"{os.fspath(value)!a}: no path has a NUL character")
    return Path(value)


def real(path: Path) -> Path:
    """Where `path` leads through all links. Unlike pathlib's, it takes a link to itself."""
    return Path(os.path.realpath(path))


def from_mapping(cls: type[C], values: Mapping[str, Any], source: str = "") -> C:
    """The dataclass `cls` with `values`, each converted and checked against its annotation.

    `source` is named in the message of the `UsageError` that an unknown key, a wrong type or a value out of
    range raises, beside the key, the value and what was allowed.
    """
    where = f"{source}: " if source else ""
    known = option_names(cls)
    for key in values:
        if key not in known:
            raise UsageError(f"{where}unknown option {key!r}.{nearest(str(key), known)} Known: {', '.join(known)}.")
    _check_paths(cls, values, where)
    config = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
    adapter: TypeAdapter[Any] = TypeAdapter(type(cls.__name__, (cls,), {"__pydantic_config__": config}))
    try:
        valid = adapter.validate_python(dict(values))
    except ValidationError as error:
        raise UsageError(where + "; ".join(_explained(error.errors(), cls))) from None
    return cls(**{name: getattr(valid, name) for name in known})


def _check_paths(cls: type, values: Mapping[str, Any], where: str) -> None:
    hints = get_type_hints(cls)
    for name, value in values.items():
        if Path not in _types_in(hints[name]):
            continue
        for path in value if isinstance(value, list | tuple) else (value,):
            try:
                path_of(path if isinstance(path, str | Path) else "?")
            except UsageError as error:
                raise UsageError(f"{where}{name} = {value!r}: {error}") from None


def _types_in(hint: Any) -> set[Any]:
    """The types that a union or a container is made of."""
    return set().union({hint}, *map(_types_in, get_args(hint)))


def _explained(errors: Sequence[Any], cls: type) -> list[str]:
    """A sentence for each value that is wrong; one that fits no member of a union is wrong once."""
    found = []
    reasons: dict[tuple[str, str], list[str]] = {}
    for error in errors:
        text = str(error["msg"]).removeprefix("Value error, ")
        if not error["loc"]:
            found.append(text)
            continue
        # pydantic appends its name for the member of a union that it tried
        name = ".".join(str(part) for i, part in enumerate(error["loc"]) if i == 0 or isinstance(part, int))
        reasons.setdefault((name, repr(error["input"])), []).append(text[:1].lower() + text[1:])
    for (name, value), texts in reasons.items():
        allowed = bounds(get_type_hints(cls, include_extras=True).get(name.partition(".")[0]))
        found.append(f"{name} = {value}: {' or '.join(texts)}" + (f" (allowed: {allowed})" if allowed else ""))
    return found


def _number(value: Any) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def bounds(hint: Any) -> str:
    """`> 0, ≤ 1e10` for an annotation with bounds, also inside a union."""
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    limits = [
        f"{sign} {_number(getattr(mark, bound))}"
        for mark in getattr(hint, "__metadata__", ())
        for bound, sign in signs.items()
        if getattr(mark, bound, None) is not None
    ]
    return ", ".join(limits) or next(filter(None, map(bounds, get_args(hint))), "")


def checked(config: C) -> C:
    """`config` again, every field held to its annotation. Raises `UsageError` naming option, value and range."""
    values = {name: getattr(config, name) for name in option_names(config)}
    return from_mapping(type(config), values)


def to_mapping(config: Any) -> dict[str, Any]:
    """The fields of a configuration as plain values (paths as text), in the order of their definition."""
    values = dataclasses.asdict(config)
    return {key: _plain(value) for key, value in values.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file's mapping: at most 1 MiB, 16 levels deep, no aliases, no tags. Raises `UsageError`."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_YAML_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot read this configuration: {error.strerror}") from None
    if len(data) > MAX_YAML_BYTES:
        raise UsageError(f"{path}: a configuration has at most {MAX_YAML_BYTES} bytes")
    try:
        depth = 0
        for event in yaml.parse(data, Loader=_Loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_YAML_DEPTH:
                raise UsageError(f"{path}: deeper than {MAX_YAML_DEPTH} levels")
            if isinstance(event, yaml.AliasEvent):
                raise UsageError(f"{path}: aliases (*{event.anchor}) are not accepted")
        values = _Loader(data).get_single_data()
    except UsageError:
        raise
    except Exception as error:  # whatever a parser of YAML makes of odd bytes and odd numbers
        raise UsageError(f"{path}: not valid YAML: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UsageError(f"{path}: expected `option: value` lines")
    return {key.replace("-", "_"): value for key, value in values.items()}


def to_yaml(config: Any) -> str:
    """The complete configuration as YAML text that `read_yaml` and `from_mapping` take back."""
    return yaml.safe_dump(to_mapping(config), sort_keys=False, allow_unicode=True)
