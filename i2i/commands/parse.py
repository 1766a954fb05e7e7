"""From the words of a command line to options.

The words are separated into options and texts. `i2i.config` then checks the texts as it checks a YAML file, so a line
and a file have the same limits and the same error messages. Precedence: defaults < the configuration of a run that goes
on < `--config FILE.yaml` < flags.
"""

import contextlib
import difflib
import re
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from i2i.commands import junyanz
from i2i.commands.options import Option, class_of
from i2i.config import C, check_numbers, from_mapping, layered, option_names
from i2i.errors import UsageError
from i2i.machine import place
from i2i.terminal import printable, say

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

WRITTEN = {"out", "run", "report", "grid", "labels_out", "cache", "web"}
"""The options of all commands that name what is written; every other path is read."""
TEXTS = {
    "augment",
    "diffaugment",
    "domain_a",
    "domain_b",
    "input_domain",
    "licence",
    "nce_layers",
    "output_domain",
    "stop_when",
}
"""The options of all commands that may be emptied on the command line, where a configuration has something in them."""
_FLAG = re.compile(r"--|-(?!inf|nan)[^\W\d]")
"""How a flag begins; `-`, `-5`, `-.5:1` and `-inf` are values."""
_NEAR = 0.7
"""The likeness from which a flag is suggested."""


@dataclass(frozen=True)
class Line:
    """A command line: the values that it gives, and the configuration that it names."""

    given: Mapping[str, Any]
    config: Path | None = None


def tell_once(text: str) -> None:
    """Say it in the first of several processes."""
    if place().rank == 0:
        say(text)


def read_line(words: Sequence[str], known: Sequence[Option]) -> Line:
    """The options that `words` give, of those that are `known`. Raises `UsageError` for every mistake of typing."""
    _refuse_empty(words)
    before, after = _before_and_after(list(words))
    _check_flags(before, known)
    texts, loose = _separate(before, known)
    files = texts.pop("config")
    if len(files) > 1:
        raise UsageError(f"--config: given more than once ({', '.join(files)}); put all options into one file")
    texts |= _positional(loose + after, known)
    return Line(_checked(known, texts), Path(files[0]) if files else None)


def build(options: type[C], line: Line, *, tell: Callable[[str], object] = tell_once) -> C:
    """An instance of `options`, from a command line and the configuration that it names.

    If the run folder of a training has a configuration, the training goes on with it, and `line` comes on top; `tell`
    gets a sentence about that, by default for the terminal.
    """
    chosen, notes = layered(options, line.given, line.config)
    for note in notes:
        tell(note)
    return chosen


def written_paths(options: "DataclassInstance") -> list[Path]:
    """The paths among `options` at which something is to be written."""
    values = (getattr(options, name) for name in option_names(options) if name in WRITTEN)
    return [value for value in values if isinstance(value, Path)]


def take_switch(words: list[str], name: str) -> bool:
    """Whether the switch `name` is among `words`; removes it there."""
    spellings = {name, name.replace("-", "_").replace("__", "--", 1)}
    before, after = _before_and_after(words)
    words[:] = [word for word in before if word not in spellings] + (["--", *after] if after else [])
    return any(word in spellings for word in before)


def _check_flags(words: Sequence[str], known: Sequence[Option]) -> None:
    """Raises `UsageError` for flags that are not known, and for a switch with a value; tells of those given twice."""
    named = {flag: option for option in known for flag in _flags(option)}
    flags = [word for word in words if word.startswith("--") or word[:2] in ("-o", "-h")]
    flags = [word for word in flags if _flag(word) != "--config"]
    if unknown := [word for word in flags if _flag(word) not in named]:
        if theirs := junyanz.translated(words, named):
            raise UsageError(*theirs)
        near = _near(_flag(unknown[0]), named)
        raise UsageError(f"unknown option {unknown[0]}.{near} All options: --help-all")
    given = [named[_flag(word)] for word in flags]
    for word, option in zip(flags, given, strict=True):
        if option.is_switch and "=" in word:
            yes, no, *_ = _flags(option)
            raise UsageError(f"{word}: {yes} and {no} take no value")
    for option in {option.name: option for option in given if given.count(option) > 1}.values():
        tell_once(f"{option.flag} is given more than once; the last one counts")


def _near(name: str, flags: Collection[str]) -> str:
    """` Did you mean --batch-size?`: flags that begin as `name`, or are near it; `--output` begins as `--out`."""
    near = {
        flag: max(_likeness(name, flag), _likeness(name, flag[: len(name)]), _NEAR * name.startswith(flag))
        for flag in flags
    }
    best = [flag for flag, likeness in near.items() if likeness >= max(_NEAR, *near.values())]
    return f" Did you mean {' or '.join(best[:3])}?" if best else ""


def _likeness(name: str, flag: str) -> float:
    return difflib.SequenceMatcher(None, name.lstrip("-"), flag.lstrip("-")).ratio()


def _separate(words: Sequence[str], known: Sequence[Option]) -> tuple[dict[str, Any], list[str]]:
    """The text of each option (of a switch, its value), and the words that belong to no option.

    An option of many values takes the words up to the next flag.
    """
    named = {flag: option for option in known for flag in _flags(option)}
    texts: dict[str, Any] = {"config": []}
    loose: list[str] = []
    taker = loose
    left = deque(words)
    while left:
        word = left.popleft()
        flag, given, text = _flag(word), "=" in word, word.partition("=")[2]
        option = named.get(flag)
        if option is None and flag != "--config":
            taker = loose if _FLAG.match(word) else taker
            taker.append(word)
            continue
        taker = loose
        if option and option.is_switch:
            texts[option.name] = flag == option.flag
        elif option and option.many:
            taker = texts[option.name] = [text] if given else []
        else:
            if not given and (not left or _FLAG.match(left[0])):
                raise UsageError(f"{flag}: expected {'a value' if option else 'a YAML file'}")
            text = text if given else left.popleft()
            if option:
                texts[option.name] = text
            else:
                texts["config"].append(text)
    return {name: tuple(text) if isinstance(text, list) else text for name, text in texts.items()}, loose


def _flags(option: Option) -> tuple[str, ...]:
    """The flags of an option, its own first: `--flip` and `--no-flip`, `--out` and `-o`."""
    no = (option.flag.replace("--", "--no-", 1),) if option.is_switch else ()
    return (option.flag, *no, *(("-o",) if option.name == "out" else ()))


def _flag(word: str) -> str:
    """A flag as the help has it: `--batch_size=3` is `--batch-size`."""
    return word.partition("=")[0].replace("_", "-")


def _positional(loose: Sequence[str], known: Sequence[Option]) -> dict[str, Any]:
    if not loose:
        return {}
    takes = next((option for option in known if option.positional), None)
    if takes is None and loose[0].endswith((".yaml", ".yml")):
        raise UsageError(f"unexpected {printable(loose[0])!r}: give a configuration as --config {printable(loose[0])}")
    if takes is None or (len(loose) > 1 and not takes.many):
        raise UsageError(f"unexpected {printable(loose[-1])!r}: it belongs to no option. See --help")
    return {takes.name: tuple(loose) if takes.many else loose[0]}


def _checked(known: Sequence[Option], texts: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the texts. Raises `UsageError` for one of another type or out of range."""
    given = [option for option in known if option.name in texts]
    kind = class_of(given)
    check_numbers(kind, texts)
    values = {option.name: _value(option, texts[option.name]) for option in given}
    try:
        from_mapping(kind, values)
    except UsageError as error:
        raise UsageError(f"{error}{junyanz.value_here(values)}") from None
    return values


def _value(option: Option, text: object) -> Any:
    """The text as a number or None if it is one, else the text itself."""
    if isinstance(text, tuple):
        return tuple(_value(option, part) for part in text)
    if option.optional and text == "None":
        return None
    number = {"int": int, "float": float}.get(option.kind)
    with contextlib.suppress(ValueError):
        return number(text) if number else text
    return text


def _refuse_empty(words: Sequence[str]) -> None:
    """An empty path would mean the current folder, and nearly always comes of a variable of the shell that is unset."""
    for before, word in pairwise(("", *words)):
        name, given, value = (before, True, word) if word == "" else word.partition("=")
        option = name.removeprefix("--").replace("-", "_")
        if given and not value and (word == "" or name.startswith("-")) and option not in TEXTS:
            where = f" after {before}" if word == "" and before else f", {word}" if word else ""
            raise UsageError(f"an empty argument{where}: is a variable unset? The current folder is '.'")


def _before_and_after(words: list[str]) -> tuple[list[str], list[str]]:
    """The words before `--`, and those after it, which are never flags."""
    at = words.index("--") if "--" in words else len(words)
    return words[:at], words[at + 1 :]
