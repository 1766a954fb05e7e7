"""The options of a command as data, so that the command line knows them before it imports anything heavy.

A command's options are a frozen dataclass: its fields are the flags, its annotations their ranges, the text under a
field its help. The classes of a training import torch, which takes seconds; so `options.json`, beside this file, holds
what `describe` finds in them. `--help` and all mistakes of typing are answered from there. The file is also the frozen
surface of the command line: a test compares it with the classes, and a change of an option shows in its diff.

    python -m i2i.commands.options      writes the file anew
"""

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, make_dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

from i2i.commands import ALGORITHMS, COMMANDS, loaded
from i2i.config import ALGORITHM, Names, leaves
from i2i.urls import PathOrURL, StorePath

POSITIONAL: Final = "positional"
"""Marks the field that takes the words without a flag: `inputs: Annotated[tuple[Path, ...], POSITIONAL] = ()`."""

Kind = Literal["bool", "int", "float", "str", "path", "choice"]
TYPES: dict[Kind, Any] = {"bool": bool, "int": int, "float": float, "str": str, "path": Path}
_LIMITS: dict[str, type] = {"gt": Gt, "ge": Ge, "lt": Lt, "le": Le}
_FILE = Path(__file__).with_name("options.json")


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option of a command."""

    name: str
    kind: Kind
    default: Any
    text: str = ""
    choices: tuple[str, ...] = ()
    limits: dict[str, float] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)
    """The fields of `Names`, if its text is a name."""
    optional: bool = False
    many: bool = False
    positional: bool = False
    stores: bool = False
    """Whether it is a path or the URL of a store."""

    @property
    def flag(self) -> str:
        return "--" + self.name.rstrip("_").replace("_", "-")

    @property
    def is_switch(self) -> bool:
        """Whether it is given as `--flip` or `--no-flip`, without a value."""
        return self.kind == "bool" and not self.optional

    @property
    def annotation(self) -> Any:
        """The type by which a value is checked."""
        marks: list[Any] = [_LIMITS[sign](bound) for sign, bound in self.limits.items()]
        marks += [Names(**{key: tuple(names) for key, names in self.names.items()})] if self.names else []
        parts: list[Any] = []
        if self.kind in TYPES:
            kind = PathOrURL if self.stores else TYPES[self.kind]
            parts.append(Annotated[kind, *marks] if marks else kind)
        if self.choices:
            parts.append(Literal.__getitem__(self.choices))
        if self.many:
            return tuple.__class_getitem__((parts[0], ...))
        return Union.__getitem__((*parts, None) if self.optional else tuple(parts))


def class_of(known: Sequence[Option], algorithm: str = "") -> type[Any]:
    """A class with these options, of a training by `algorithm`, by which they are checked before the class of the
    command, which needs torch, is imported. It takes any text but for names."""
    declared: list[Any] = [
        (option.name, Any if option.kind == "str" and not option.names else option.annotation, _as_declared(option))
        for option in known
    ]
    named = {ALGORITHM: algorithm} if algorithm else {}
    return make_dataclass("Options", declared, frozen=True, kw_only=True, namespace=named)


def _as_declared(option: Option) -> Any:
    """The default of an option, as its class has it."""
    if option.many:
        return tuple(option.default)
    return Path(option.default) if option.kind == "path" and option.default is not None else option.default


def describe(options: type[Any]) -> list[Option]:
    """The options that the fields of a dataclass declare."""
    plain, marked, texts = get_type_hints(options), get_type_hints(options, include_extras=True), _texts(options)
    return [
        _described(f.name, plain[f.name], marked[f.name], _plain(f.default), texts.get(f.name, ""))
        for f in fields(options)
    ]


def _described(name: str, plain: object, marked: object, default: object, text: str) -> Option:
    members: list[Any] = list(leaves(plain))
    kinds = [kind for kind, leaf in TYPES.items() if leaf in members]
    choices = tuple(choice for leaf in members if get_origin(leaf) is Literal for choice in get_args(leaf))
    if len(kinds) > 1 or not (kinds or choices):
        raise TypeError(f"{name}: {plain} is no type of an option")
    marks = list(_marks(marked))
    limits = {sign: bound for mark in marks for sign in _LIMITS if (bound := getattr(mark, sign, None)) is not None}
    return Option(
        name=name,
        kind=kinds[0] if kinds else "choice",
        default=default,
        text=text,
        choices=choices,
        limits=limits,
        names=next(
            ({"known": [*mark.known], "patterns": [*mark.patterns]} for mark in marks if isinstance(mark, Names)), {}
        ),
        optional=NoneType in members,
        many=Ellipsis in members,
        positional=POSITIONAL in marks,
        stores=StorePath in members,
    )


def _marks(hint: object) -> Iterator[Any]:
    yield from getattr(hint, "__metadata__", ())
    for part in get_args(hint):
        yield from _marks(part)


def _plain(value: object) -> Any:
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def _texts(options: type[Any]) -> dict[str, str]:
    """The text under each field, from the sources of the class and of those that it extends."""
    found: dict[str, str] = {}
    for kind in reversed(options.__mro__[:-1]):
        found |= _own_texts(kind)
    return found


@cache
def _own_texts(kind: type[Any]) -> dict[str, str]:
    try:
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    except (OSError, TypeError, SyntaxError):  # a class that was made by a call, or typed in
        return {}
    body = node.body if isinstance(node, ast.ClassDef) else []
    return {
        before.target.id: " ".join(after.value.value.split())
        for before, after in pairwise(body)
        if isinstance(before, ast.AnnAssign)
        and isinstance(before.target, ast.Name)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
        and isinstance(after.value.value, str)
    }


def options_of(command: str, algorithm: str = "") -> list[Option]:
    """The options of a command, from the file. A training has those that all share and those of its algorithm."""
    read = _read()
    own = read[command] if command != "train" else []
    return own + (read["train"] + read[f"train {algorithm}"] if algorithm else [])


@cache
def _read() -> dict[str, list[Option]]:
    return {
        command: [Option(**entry | {"choices": tuple(entry.get("choices", ()))}) for entry in entries]
        for command, entries in json.loads(_FILE.read_text(encoding="utf-8")).items()
    }


def surface() -> str:
    """Returns the text of `options.json`: the options of all commands, a line for each."""
    from i2i.commands.train import PlanCommand

    own = {name: PlanCommand if name == "plan" else loaded(name)[1] for name in COMMANDS if name != "train"}
    found = {name: describe(options) for name, options in own.items()}
    trainings = {name: describe(loaded("train", name)[1]) for name in ALGORITHMS}
    first, *others = trainings.values()
    shared = [option for option in first if all(option in other for other in others)]
    found["train"] = shared
    found |= {
        f"train {name}": [option for option in options if option not in shared] for name, options in trainings.items()
    }
    sections = (f"{json.dumps(name)}: [\n" + ",\n".join(map(_line, options)) + "\n]" for name, options in found.items())
    return "{\n" + ",\n".join(sections) + "\n}\n"


def _line(option: Option) -> str:
    said = {f.name: f.default for f in fields(Option)} | {"limits": {}, "names": {}}
    values = {
        name: value for name, value in asdict(option).items() if name in ("name", "default") or value != said[name]
    }
    return json.dumps(values, ensure_ascii=False)


if __name__ == "__main__":
    _FILE.write_text(surface(), encoding="utf-8", newline="\n")
