"""A command line: from its words to options, and the help that it asks for.

The words are separated into options and texts. `i2i.config` then checks the texts as it checks a YAML file, so a line
and a file have the same limits and the same error messages. Precedence: defaults < the configuration of a run that goes
on < `--config FILE.yaml` < flags.
"""

import contextlib
import difflib
import re
import shutil
import textwrap
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from i2i.commands import ALGORITHMS, COMMANDS, Command, junyanz
from i2i.commands.options import Option, class_of
from i2i.config import C, bounds, check_numbers, from_mapping, layered, option_names
from i2i.errors import UsageError
from i2i.machine import place
from i2i.plain_yaml import FIRST, GROUPS
from i2i.terminal import printable, say

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

WRITTEN = {"out", "run", "report", "grid", "labels_out", "cache", "web"}
"""The options of all commands that name what is written; every other path is read."""
TEXTS = {
    *("augment", "diffaugment", "domain_a", "domain_b", "input_domain", "licence", "nce_layers", "output_domain"),
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


def take_switches(words: list[str], names: Set[str]) -> Set[str]:
    """Those of the switches `names` that are among `words`; removes them there."""
    before, after = _before_and_after(words)
    words[:] = [word for word in before if word.replace("_", "-") not in names] + (["--", *after] if after else [])
    return names & {word.replace("_", "-") for word in before}


def _check_known(words: Sequence[str], named: Mapping[str, Option]) -> None:
    """Raises `UsageError` for flags that are not known."""
    flags = (word for word in words if word.startswith("--") or word[:2] in ("-o", "-h"))
    if unknown := next((word for word in flags if _flag(word) not in (*named, "--config")), ""):
        if theirs := junyanz.translated(words, named):
            raise UsageError(*theirs)
        raise UsageError(f"unknown option {unknown}.{_near(_flag(unknown), named)} --help-all lists all options")


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
    """The text of each option (of a switch, its value; of `config`, all), and the words that belong to no option.

    An option of many values takes the words up to the next flag. Raises `UsageError` for flags that are not known, that
    lack a value, or take none; tells of those given twice.
    """
    named = {flag: option for option in known for flag in _flags(option)}
    _check_known(words, named)
    texts: dict[str, Any] = {"config": []}
    loose: list[str] = []
    taker = loose
    twice: dict[str, str] = {}
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
        if option and option.name in texts:
            twice[option.flag] = f"{option.flag} is given more than once; the last one counts"
        if option and option.is_switch:
            if given:
                raise UsageError(f"{word}: {' and '.join(_flags(option))} take no value")
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
    for sentence in twice.values():
        tell_once(sentence)
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


SHARED = (
    ("--config FILE.yaml", "Read options from this file. Options on the command line win."),
    ("--print-config", "Print all options with their values as YAML, and do nothing else."),
    ("--verbose", "Show the traceback of an error."),
    ("--help-all", "Show all options, by group."),
)
"""Every command takes these beside its own options."""

_METAVARS = {"int": "N", "float": "X", "str": "TEXT", "path": "PATH"}
_NAMED = {
    "inputs": "INPUT",
    "words": "ACTION",
    "styles": "STYLE",
    "style": "STYLE",
    "metrics": "NAME",
    "host": "ADDRESS",
    "cluster": "ADDRESS",
    "run": "FOLDER",
    "data": "FOLDER",
    "augment": "FILE.yaml",
    "generator": "NAME",
    "discriminator": "NAME",
    "device": "NAME",
}
"""Names for the values of options whose types say too little."""
_COLUMN = 24


def help_of_all() -> str:
    """`i2i --help`: a line for each command."""
    lines = ["usage: i2i COMMAND [options]", ""]
    lines += [f"  {name:<17}{command.summary}" for name, command in COMMANDS.items()]
    more = "i2i COMMAND --help shows the options of a command, i2i --version the version."
    example = f"i2i train {COMMANDS['train'].examples[0]}"
    return "\n".join([*lines, "", f"  {example}", "  i2i translate --style monet photos/ -o out/", "", more])


def help_of_algorithms(command: str) -> str:
    """The help of a command that an algorithm's name has to follow, and has not."""
    entry = COMMANDS[command]
    lines = [f"usage: i2i {command} {entry.usage}"]
    others = {"FILE.yaml": "follows a configuration, which names the algorithm"}
    others |= {"--run FOLDER": "resumes a run"} if command == "train" else {}
    lines += [f"       i2i {command} {first + ' [options]':<25}{text}" for first, text in others.items()]
    lines += ["", f"{_sentence(entry.summary)}", ""]
    lines += [f"  {name:<15}{algorithm.summary}" for name, algorithm in ALGORITHMS.items()]
    lines += ["", *(f"  i2i {command} {example}" for example in entry.examples)]
    return "\n".join([*lines, "", f"i2i {command} ALGORITHM --help shows its options."])


def help_of_command(program: str, entry: Command, known: Sequence[Option], everything: bool = False) -> str:
    """The help of a command: its first options and an example, or all options by group."""
    head = [f"usage: {program} {entry.usage}", "", _sentence(entry.summary), ""]
    head += [f"  {program} {example}".rstrip() for example in entry.examples]
    named = {option.name: option for option in known}
    shared = _shared(named.pop("verbose", None))
    if everything:
        return "\n".join([*head, *_grouped(named, entry.first.split()), *shared])
    lines = [line for name in entry.first.split() for line in _lines(named[name], short=True)]
    return "\n".join([*head, "", *lines, *shared])


def _grouped(named: dict[str, Option], first: Sequence[str]) -> Iterator[str]:
    """The options by group; before those of a group all others, in their order the `first` ones."""
    placed = {name for names in GROUPS.values() for name in names}
    others = [name for name in dict.fromkeys([*first, *named]) if name not in placed]
    for title, names in {FIRST: others, **GROUPS}.items():
        if present := [named[name] for name in names if name in named]:
            yield from ("", f"{title}:")
            yield from (line for option in present for line in _lines(option))


def _shared(verbose: Option | None) -> Iterator[str]:
    yield ""
    for flag, text in SHARED:
        more = f" {verbose.text}" if verbose and flag == verbose.flag else ""
        yield from _entry(flag, text + more)


def _lines(option: Option, short: bool = False) -> Iterator[str]:
    """The lines of an option: flag, text (of a short one its first sentence), default and range."""
    text = _first_sentence(option.text) if short and not option.positional else option.text
    yield from _entry(_typed(option), f"{text} {_facts(option, short)}".rstrip())


def _entry(flag: str, text: str) -> Iterator[str]:
    width = min(shutil.get_terminal_size().columns, 120) - 1
    wrapped = textwrap.wrap(text, max(width - _COLUMN, 30)) or [""]
    if len(flag) > _COLUMN - 4:
        yield f"  {flag}"
    else:
        yield f"  {flag:<{_COLUMN - 2}}{wrapped.pop(0)}"
    yield from (" " * _COLUMN + line for line in wrapped)


def _typed(option: Option) -> str:
    """How an option is given: `--crop-size N`, `--[no-]flip`, `-o, --out PATH`."""
    if option.is_switch:
        return option.flag.replace("--", "--[no-]", 1) if option.default else option.flag
    metavar = _NAMED.get(option.name) or _METAVARS.get(option.kind, "")
    if option.choices:
        listed = "|".join((*([metavar] if metavar else []), *option.choices))
        metavar = listed if len(listed) < 28 else "NAME"
    if option.kind == "bool":
        metavar = "True|False"
    metavar += " ..." if option.many else ""
    if option.positional:
        return _NAMED.get(option.name, option.name.upper()) + (" ..." if option.many else "")
    return ("-o, " if option.name == "out" else "") + f"{option.flag} {metavar}"


def _facts(option: Option, short: bool) -> str:
    """`(default: 256; ≥ 1, ≤ 65535)`, as far as there is something to say; the range only if not `short`."""
    facts = []
    if option.is_switch:
        facts += ["on by default"] if option.default else []
    elif option.default not in (None, "", []):
        facts.append(f"default: {_shown(option.default)}")
    if option.choices and _typed(option).endswith("NAME"):
        facts.append("one of " + ", ".join(option.choices))
    if option.limits and not short:
        facts.append(bounds(option.annotation))
    return f"({'; '.join(facts)})" if facts else ""


def _shown(default: object) -> str:
    if isinstance(default, list):
        return " ".join(map(str, default))
    return f"{default:g}" if isinstance(default, float) else f"{default}"


def _first_sentence(text: str) -> str:
    return re.split(r"(?<!e\.g)\. ", text, maxsplit=1)[0].rstrip(".") + "."


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
