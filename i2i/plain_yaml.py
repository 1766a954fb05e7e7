"""YAML as people write options: mappings, lists and words; each mistake named with its line.

A file is read event by event, so that limits hold before anything is built. Only words that cannot mean anything else
are numbers: `010` (8 in YAML 1.1), `4:46` (286) and `1_0` stay words, like `off` and `2026-01-01`.
"""

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import yaml

from i2i.errors import UsageError

MAX_BYTES = 1 << 20
MAX_SLOW_BYTES = 1 << 17
"""Where libyaml cannot be used: Python takes up to 5 µs a byte."""
MAX_DEPTH = 16
MAX_EVENTS = 100_000

_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,99})|0x[0-9a-fA-F]{1,16}")
_FLOAT = re.compile(
    r"[-+]?(?:(?:0|[1-9][0-9]{0,99})\.[0-9]{0,100}|\.[0-9]{1,100})(?:e[-+]?[0-9]{1,10})?|[-+]?\.inf|\.nan", re.I
)
_TOO_LONG = re.compile(r"[-+]?[0-9_]{101,}|0x[0-9a-fA-F]{17,}")
_NULL = ("", "~", "null", "Null", "NULL")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class Values(dict[str, Any]):
    """The mapping of a file; `lines` says in which line each key stands, from 1."""

    def __init__(self, values: dict[str, Any], lines: dict[str, int]) -> None:
        super().__init__(values)
        self.lines = lines


def read_yaml(path: Path, headings: Collection[str] = ()) -> Values:
    """A YAML file's mapping, `-` in its keys taken for `_`. Keys below one of `headings` are read as if at the top,
    and a heading with nothing below adds nothing.

    At most 1 MiB, 16 levels deep, no aliases, no tags, no key twice. Raises `UsageError` naming the line.
    """
    found = _read(path, headings, lists=False)
    assert isinstance(found, Values)
    return found


def read_yaml_or_list(path: Path) -> Values | list[Any]:
    """As `read_yaml`, also of a file that holds a list."""
    return _read(path, (), lists=True)


def _read(path: Path, headings: Collection[str], lists: bool) -> Values | list[Any]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot read this configuration: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise UsageError(f"{path}: a configuration has at most {MAX_BYTES} bytes")
    try:
        return _Reader(path, _events(path, data), headings).values(lists)
    except (yaml.YAMLError, UnicodeError) as error:
        first = str(error).partition("\n")[0]
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UsageError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', None) or first}") from None


def _events(path: Path, data: bytes) -> Iterator[yaml.Event]:
    # libyaml refuses the escapes by which names that are no UTF-8 are written
    if yaml.__with_libyaml__ and not _SURROGATE.search(data):
        return yaml.parse(data, Loader=yaml.CSafeLoader)
    if len(data) > MAX_SLOW_BYTES:
        raise UsageError(f"{path}: a configuration read without libyaml has at most {MAX_SLOW_BYTES} bytes")
    return yaml.parse(data, Loader=yaml.SafeLoader)


class _Reader:
    """Builds values from events."""

    def __init__(self, path: Path, events: Iterator[yaml.Event], headings: Collection[str] = ()) -> None:
        self.path, self.events, self.left = path, events, MAX_EVENTS
        self.headings = headings

    def values(self, lists: bool) -> Values | list[Any]:
        """The options of the one document; none if there is no document."""
        self._next()  # the stream begins
        if isinstance(self._next(), yaml.StreamEndEvent):
            return Values({}, {})
        first = self._next()
        found: Values | list[Any]
        if isinstance(first, yaml.MappingStartEvent):
            options = found = Values({}, {})
            self._options(first, options, 1)
        elif lists and isinstance(first, yaml.SequenceStartEvent):
            found = self._list(first, 1)
        elif isinstance(first, yaml.ScalarEvent) and self._value(first, 1) is None:
            found = Values({}, {})
        else:
            raise UsageError(f"{self.path}: expected `option: value` lines")
        self._next()  # the document ends
        if not isinstance(end := self._next(), yaml.StreamEndEvent):
            raise self._refused(end, "a second document")
        return found

    def _next(self) -> yaml.Event:
        self.left -= 1
        event = next(self.events)
        if self.left < 0:
            raise self._refused(event, f"more than {MAX_EVENTS} keys, values and brackets")
        return event

    def _refused(self, event: yaml.Event, what: str) -> UsageError:
        return UsageError(f"{self.path}, line {_line(event)}: {what}")

    def _options(self, start: yaml.Event, found: Values, depth: int) -> None:
        """Adds the options of a mapping, and those under its headings."""
        for event, key in self._keys(start, depth):
            name = key.replace("-", "_") if isinstance(key, str) else ""
            if not name:
                raise self._refused(event, "expected `option: value` lines")
            first = self._next()
            if depth == 1 and name in self.headings:
                if isinstance(first, yaml.MappingStartEvent):
                    self._options(first, found, depth + 1)
                    continue
                if isinstance(first, yaml.ScalarEvent) and self._value(first, depth) is None:
                    continue
            if name in found:
                raise self._refused(event, f"{key} is given twice, first in line {found.lines[name]}; keep one of them")
            found[name], found.lines[name] = self._value(first, depth), _line(event)

    def _keys(self, start: yaml.Event, depth: int) -> Iterator[tuple[yaml.Event, Any]]:
        """The keys of a mapping; after each, its value comes next."""
        self._check(start, depth)
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                self._check(event, depth + 1)
                raise self._refused(event, "a key that is no word")
            yield event, self._value(event, depth)

    def _value(self, event: yaml.Event, depth: int) -> Any:
        if isinstance(event, yaml.ScalarEvent):
            self._check(event, depth)
            if event.implicit[0] and _TOO_LONG.fullmatch(event.value):
                raise self._refused(event, f"not valid YAML for options: a number of {len(event.value)} digits")
            return _resolved(event.value) if event.implicit[0] else event.value
        if isinstance(event, yaml.SequenceStartEvent):
            return self._list(event, depth + 1)
        self._check(event, depth)
        return self._mapping(event, depth + 1)

    def _list(self, start: yaml.Event, depth: int) -> list[Any]:
        self._check(start, depth)
        found: list[Any] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            found.append(self._value(event, depth))
        return found

    def _mapping(self, start: yaml.Event, depth: int) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for event, key in self._keys(start, depth):
            if key in found:
                raise self._refused(event, f"{key!r} is given twice; keep one of them")
            found[key] = self._value(self._next(), depth)
        return found

    def _check(self, event: yaml.Event, depth: int) -> None:
        if isinstance(event, yaml.AliasEvent):
            raise self._refused(event, f"aliases (*{event.anchor}) are not accepted")
        if (tag := getattr(event, "tag", None)) is not None:
            raise self._refused(event, f"not valid YAML for options: a tag ({tag[:100]})")
        if depth > MAX_DEPTH:
            raise self._refused(event, f"deeper than {MAX_DEPTH} levels")


def _line(event: yaml.Event) -> int:
    return 0 if event.start_mark is None else event.start_mark.line + 1


def _resolved(word: str) -> Any:
    """The value of a word without quotes: none, a number, or the word. Whether `off` is false, its option decides."""
    if word in _NULL:
        return None
    if _INTEGER.fullmatch(word):
        return int(word, 0)
    return float(re.sub(r"\.(?=[in])", "", word.lower())) if _FLOAT.fullmatch(word) else word
