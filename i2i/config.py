"""Configurations: frozen dataclasses, checked by pydantic, read from and written to YAML.

A range stands in the annotation (`Annotated[int, Ge(1)]`), so that the command line, a YAML file and a model
file are held to the same limits. An unknown key is an error that names its nearest neighbour.
"""

import dataclasses
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core.core_schema import no_info_after_validator_function

from i2i.errors import UsageError, nearest
from i2i.plain_yaml import KEYS, Values, grouped, read_yaml
from i2i.urls import StorePath, check_secrets, is_url, path_of, real, store_path

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema, ErrorDetails

C = TypeVar("C", bound="DataclassInstance")

ALGORITHM = "algorithm"
"""The key by which a training's configuration names its algorithm; a class of options does by a variable."""
RUN_CONFIG = "config.yaml"
"""The configuration in the folder of a run."""

RUN_LOG = "log.jsonl"
RUN_FILES = (RUN_LOG, RUN_CONFIG, "status.json")
"""A folder with one of these is the folder of a run."""

_BASE = "# relative paths begin at "
"""How the configuration of a run begins: before the folder in which the run was started, as JSON."""
_MAX_LINE, _LISTED = 1 << 16, 20  # bytes, names


@dataclasses.dataclass(frozen=True)
class PathUnless:
    """Marks an option whose text is the path of a file unless it is one of `names`."""

    names: frozenset[str]


@dataclasses.dataclass(frozen=True)
class Names:
    """Marks an option whose text is one of `known`, fits one of `patterns`, or has a dot as a network of one's own."""

    known: tuple[str, ...]
    patterns: tuple[str, ...]

    def check(self, name: str) -> str:
        if name in self.known or "." in name or any(re.fullmatch(pattern, name) for pattern in self.patterns):
            return name
        near = nearest(name, self.known)
        raise ValueError(f"expected {', '.join(self.known[:-1])} or {self.known[-1]}{'.' if near else ''}{near}")

    def __get_pydantic_core_schema__(self, source: object, handler: "GetCoreSchemaHandler") -> "CoreSchema":
        return no_info_after_validator_function(self.check, handler(source))


DeviceName = Annotated[str, Names(("auto", "cpu", "cuda", "cuda:N", "mps"), (r"cuda:\d{1,3}", "mps:0"))]
# 8, 10 or a mistake? YAML 1.1 says 8 to the first, Python 10 to both
_AMBIGUOUS = re.compile(r"[-+]?(?:0[0-9]|[0-9]*_)[0-9_]*(?:\.[0-9_]*)?(?:e[-+]?[0-9_]+)?", re.I)
_SHOWN = 200
_KINDS = {
    "a number in range": "greater_than greater_than_equal less_than less_than_equal int_parsing_size",
    "a whole number": "int_parsing int_type int_from_float",
    "a number": "float_parsing float_type",
    "a finite number": "finite_number",
    "true or false": "bool_parsing bool_type",
    "a text": "string_type string_unicode",
    "a path": "path_type is_instance_of",
    "a list": "tuple_type",
    "a list of another length": "too_long too_short missing",
}
_EXPECTED = {kind: f"expected {words}" for words, kinds in _KINDS.items() for kind in kinds.split()}
"""Plain words in place of pydantic's message, by its kind of error."""


def read_options(path: Path) -> Values:
    """The options of a YAML file by name, whatever group they stand under. Raises `UsageError`."""
    return read_yaml(path, KEYS)


def option_names(config: "DataclassInstance | type[DataclassInstance]") -> list[str]:
    """The fields of a configuration, or of its class, in order."""
    return [field.name for field in dataclasses.fields(config)]


def narrowed(options: "DataclassInstance", kind: type[C]) -> C:
    """The options of `kind`, a base class of that of `options`, alone.

    Data workers get them: a class of the library can be pickled, and one made by `options_class` cannot.
    """
    return kind(**{name: getattr(options, name) for name in option_names(kind)})


def _known(cls: "type[DataclassInstance]") -> str:
    """The options of `cls` if they are few, else what lists them."""
    known, algorithm = option_names(cls), getattr(cls, ALGORITHM, "")
    where = f"{f'i2i train {algorithm} ' if algorithm else ''}--help-all lists all {len(known)} options."
    return where if len(known) > _LISTED else f"Known: {', '.join(known)}."


def from_mapping(cls: type[C], values: Mapping[str, Any], source: str = "") -> C:
    """The dataclass `cls` with `values`, each converted and checked against its annotation.

    If `cls` has a method `following`, it says which options follow from `values`; one that is given follows nothing.
    `source` is named in the message of the `UsageError` that an unknown key, a wrong type or a value out of
    range raises, beside the key, the value and what was allowed.
    """
    where = f"{source}: " if source else ""
    known = option_names(cls)
    lines: Mapping[str, int] = getattr(values, "lines", {})
    if ALGORITHM in values and ALGORITHM not in known:
        values = _of_algorithm(cls, values, where)
    for key in values:
        if key not in known:
            names = [*known, *KEYS] if isinstance(values[key], dict) else known
            what = f"{where}unknown option {str(key)[:_SHOWN]!r}{_line(lines, key)}.{nearest(str(key), names, 3)}"
            raise UsageError(f"{what} {_known(cls)}")
    check_numbers(cls, values, where)
    _check_paths(cls, values, where)
    if follow := getattr(cls, "following", None):
        values = {**follow(values), **values}
    try:
        valid = _adapter(cls).validate_python(dict(values))
    except ValidationError as error:
        raise UsageError(where + "; ".join(_explained(error.errors(), cls, lines))) from None
    return cls(**{name: getattr(valid, name) for name in known})


@cache
def _adapter(cls: type) -> TypeAdapter[Any]:
    """The validator of `cls`. It takes milliseconds to build, and every file of a model or a run is checked by one."""
    config = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
    return TypeAdapter(type(cls.__name__, (cls,), {"__pydantic_config__": config}))


def run_yaml(config: "DataclassInstance") -> str:
    """The configuration of a run that is started here: it goes on from any folder with the files that it has now."""
    try:
        base = f"{_BASE}{json.dumps(os.getcwd())}\n"  # noqa: PTH109 - pathlib's fails on names that are no UTF-8
    except OSError:  # the current folder is gone
        base = ""
    return base + to_yaml(config)


def of_run(cls: type[C], run: Path) -> C:
    """The configuration in the folder of a run. Read in another folder, its relative paths are absolute.

    Raises `UsageError`.
    """
    path = run / RUN_CONFIG
    config = from_mapping(cls, read_options(path), str(path))
    base = _base(path)
    if base is None:
        return config
    values = {name: getattr(config, name) for name in option_names(cls) if name != "run"}
    hints = get_type_hints(cls, include_extras=True)
    return cls(**vars(config) | {name: _from(base, value, hints[name]) for name, value in values.items()})


def layered(options: type[C], given: Mapping[str, Any], file: Path | None = None) -> tuple[C, list[str]]:
    """Options from their defaults, the configuration of the run that goes on, `file` and `given`: the later counts.

    Returns also what to say of a run that goes on. Raises `UsageError`.
    """
    values = read_options(file) if file else {}
    chosen: Any = from_mapping(options, values, str(file)) if file else options()
    named = {name: getattr(chosen, name) for name in option_names(options) if name in values} | dict(given)
    chosen = from_mapping(options, named)
    so_far = _so_far(options, chosen)
    if so_far is None:
        return chosen, []
    notes = []
    resumed: Any = from_mapping(options, {name: getattr(so_far, name) for name in option_names(options)} | named)
    if "run" not in named:
        resumed = dataclasses.replace(resumed, run=chosen.run)
        notes.append(f"{chosen.run} exists and goes on; give --run FOLDER for a new run")
    kept = [
        f"{name} = {getattr(resumed, name)}"
        for name in option_names(resumed)
        if getattr(resumed, name) != getattr(chosen, name)
    ]
    if kept:
        notes.append(f"{resumed.run} keeps the options that you do not give: {', '.join(kept)}")
    return resumed, notes


def _so_far(options: type[C], chosen: C) -> C | None:
    """The configuration of the run that a training is to go on with; None for a new one, and of other commands."""
    run = getattr(chosen, "run", None)
    if run is None or not hasattr(options, ALGORITHM) or not has_config(run):
        return None
    try:
        return of_run(options, run)
    except UsageError as error:
        first, *more = error.args
        raise UsageError(
            f"{str(first).rstrip('.')}; the run would go on with this: give another --run, or restore that file, or "
            "remove it and give every option again",
            *more,
        ) from None


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a training: it has one of `RUN_FILES`."""
    return any(os.path.exists(folder / name) for name in RUN_FILES)  # noqa: PTH110 - pathlib's raises for odd names


def has_config(run: Path) -> bool:
    """Whether a run can be gone on with by its configuration."""
    return os.path.isfile(run / RUN_CONFIG)  # noqa: PTH113 - which is no pipe, and may have any name


def path_of_run(run: Path, name: str) -> Path | None:
    """The path of option `name` in the configuration of a run folder, as seen from the current folder; None without."""
    path = run / RUN_CONFIG
    value = read_options(path).get(name) if path.exists() else None
    if not isinstance(value, str):
        return None
    if is_url(value):
        return store_path(value)
    base = _base(path)
    return Path(value) if base is None else Path(_from(base, Path(value), Path))


def _base(path: Path) -> Path | None:
    """The folder at which the relative paths of a run's configuration begin, if it is another one than this."""
    with path.open("rb") as file:
        line = file.readline(_MAX_LINE)
    try:
        found = json.loads(line.removeprefix(_BASE.encode())) if line.startswith(_BASE.encode()) else None
    except ValueError:
        return None
    path = Path(found) if isinstance(found, str) and "\0" not in found else Path()
    return path if path.is_absolute() and real(path) != real(Path()) else None


def _from(base: Path, value: object, hint: object) -> Any:
    """`value`, and where it is the path of something in `base`, that one."""
    if isinstance(value, tuple):
        return tuple(_from(base, one, hint) for one in value)
    marks = [mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, PathUnless)]
    names_none = isinstance(value, str) and not (value and any(value not in mark.names for mark in marks))
    if names_none or not isinstance(value, str | Path):
        return value
    return type(value)(base / value) if os.path.exists(base / value) else value  # noqa: PTH110 - no error


def _check_paths(cls: type, values: Mapping[str, Any], where: str) -> None:
    hints = get_type_hints(cls)
    for name, value in values.items():
        if Path not in leaves(hints[name]):
            continue
        for path in value if isinstance(value, list | tuple) else (value,):
            check_secrets(path, f"{where}{name}: ")
            if is_url(path) and StorePath not in leaves(hints[name]):
                raise UsageError(
                    f"{where}{name} = {path!r}: expected a path on this machine; a store is not read or written here"
                )
            try:
                path_of(path if isinstance(path, str | Path) else "?")
            except UsageError as error:
                raise UsageError(f"{where}{name} = {value!r}: {error}") from None


def _of_algorithm(cls: type, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`values` without the algorithm that they name, which is that of `cls`. Raises `UsageError` if it is not."""
    named, own = values[ALGORITHM], getattr(cls, ALGORITHM, None)
    if own is None:
        what = f"{where}algorithm: this configuration is for a training by {str(named)[:_SHOWN]!r}"
        raise UsageError(f"{what}, and this command trains nothing")
    if named != own:
        use = f": use i2i train {named}" if re.fullmatch(r"[a-z0-9_]{1,40}", str(named)) else ""
        raise UsageError(f"{where}algorithm: this configuration is for {str(named)[:_SHOWN]!r}, not for {own!r}{use}")
    return {key: value for key, value in values.items() if key != ALGORITHM}


def check_numbers(cls: type, values: Mapping[str, Any], where: str = "") -> None:
    """Raises `UsageError` for a number among the words of `values` that may be read in two ways."""
    hints, lines = get_type_hints(cls), getattr(values, "lines", {})
    wrong = [
        f"{name} = {word!r}: may be read in two ways; write it without leading zeros and underscores"
        + _line(lines, name)
        for name, value in values.items()
        if _is_number(hints[name])
        for word in (value if isinstance(value, list | tuple) else [value])
        if isinstance(word, str) and len(word) < _SHOWN and _AMBIGUOUS.fullmatch(word)
    ]
    if wrong:
        raise UsageError(where + "; ".join(wrong))


def _is_number(hint: object) -> bool:
    """Whether text could only be meant as a number."""
    found = set(leaves(hint))
    return bool(found & {int, float}) and not found & {str, Path, Any}


def leaves(hint: object) -> Iterator[object]:
    """The members of an annotation: `int` and `None` of `tuple[int, ...] | None`, and `...`."""
    parts = [] if get_origin(hint) is Literal else get_args(hint)
    yield from (leaf for part in parts for leaf in leaves(part)) if parts else [hint]


def _line(lines: Mapping[str, int], name: str) -> str:
    return f" (line {lines[name]})" if name in lines else ""


def _explained(errors: "Sequence[ErrorDetails]", cls: type, lines: Mapping[str, int]) -> list[str]:
    """A sentence for each value that is wrong; one that fits no member of a union is wrong once."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for error in errors:
        # pydantic appends its name for the member of a union that it tried, and the place of a value that is missing
        path = [str(part) for i, part in enumerate(error["loc"]) if i == 0 or isinstance(part, int)]
        name = ".".join(path[: 1 if error["type"] == "missing" else None])
        reasons.setdefault((name, _shown(error["input"])), []).append(_plain_reason(error))
    within = {name.partition(".")[0] for name, _ in reasons if "." in name}  # the wrong values of lists say more
    return [_sentence(*of, texts, cls, lines) for of, texts in reasons.items() if of[0] not in within]


def _sentence(name: str, value: str, texts: Sequence[str], cls: type, lines: Mapping[str, int]) -> str:
    option = name.partition(".")[0]
    allowed = bounds(get_type_hints(cls, include_extras=True).get(option))
    texts = [text for text in texts if text != _EXPECTED["tuple_type"]] or texts  # one number of a list of them
    said = f"{name} = {value}: {_joined(texts)}" if name else _joined(texts)
    return said + (f" (allowed: {allowed})" if allowed else "") + _line(lines, option)


def _plain_reason(error: "ErrorDetails") -> str:
    """pydantic's error, as a value that was expected."""
    if error["type"] == "literal_error":
        return f"expected {error['ctx']['expected']}"
    text = str(error["msg"]).removeprefix("Value error, ")
    return _EXPECTED.get(error["type"], text[:1].lower() + text[1:])


def _joined(texts: Sequence[str]) -> str:
    """One sentence of the reasons of each member of a union: `expected a number in range or 'auto'`."""
    if any(not text.startswith("expected ") for text in texts):
        return " or ".join(texts)
    return "expected " + " or ".join(dict.fromkeys(text.removeprefix("expected ") for text in texts))


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except (NotImplementedError, ValueError):  # Python writes no number of more than 4,300 digits
        return "a number of thousands of digits" if isinstance(value, int) else type(value).__name__
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def bounds(hint: object) -> str:
    """`> 0, ≤ 1e10` for an annotation with bounds, also inside a union."""
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    limits = [
        f"{sign} {limit if isinstance(limit, int) else f'{limit:g}'}"
        for mark in getattr(hint, "__metadata__", ())
        for bound, sign in signs.items()
        if (limit := getattr(mark, bound, None)) is not None
    ]
    return ", ".join(limits) or next(filter(None, map(bounds, get_args(hint))), "")


def checked(config: C) -> C:
    """`config` again, every field held to its annotation. Raises `UsageError` naming option, value and range."""
    return from_mapping(type(config), {name: getattr(config, name) for name in option_names(config)})


def to_mapping(config: "DataclassInstance") -> dict[str, Any]:
    """The fields of a configuration as plain values (paths as text), in the order of their definition."""
    return {key: _plain(value) for key, value in dataclasses.asdict(config).items()}


def _plain(value: object) -> Any:
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value


def to_yaml(config: "DataclassInstance") -> str:
    """The complete configuration, and its algorithm, as YAML text by groups, which `read_options` reads."""
    own = getattr(config, ALGORITHM, None)
    named = {} if own is None or ALGORITHM in option_names(config) else {ALGORITHM: own}
    return yaml.safe_dump(grouped(named | to_mapping(config)), sort_keys=False, allow_unicode=True)
