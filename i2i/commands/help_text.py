"""The texts of `i2i --help`, of `--help` of a command (short), and of `--help-all` (all options by group)."""

import re
import shutil
import textwrap
from collections.abc import Iterator, Sequence

from i2i.commands import ALGORITHMS, COMMANDS, Command
from i2i.commands.options import Option
from i2i.config import bounds
from i2i.plain_yaml import FIRST, FIRST_OPTIONS, GROUPS

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


def of_all() -> str:
    """`i2i --help`: a line for each command."""
    lines = ["usage: i2i COMMAND [options]", ""]
    lines += [f"  {name:<17}{command.summary}" for name, command in COMMANDS.items()]
    example = f"i2i train {COMMANDS['train'].examples[0]}"
    return "\n".join([*lines, "", f"  {example}", "  i2i translate --style monet photos/ -o out/", "", _MORE])


_MORE = "i2i COMMAND --help shows the options of a command, i2i --version the version."


def of_algorithms(command: str) -> str:
    """The help of a command that an algorithm's name has to follow, and has not."""
    entry = COMMANDS[command]
    lines = [f"usage: i2i {command} {entry.usage}"]
    lines += [f"       i2i {command} FILE.yaml [options]               a configuration, which names its algorithm"]
    if command == "train":
        lines += ["       i2i train --run FOLDER [options]              goes on with that run"]
    lines += ["", f"{_sentence(entry.summary)}", ""]
    lines += [f"  {name:<15}{algorithm.summary}" for name, algorithm in ALGORITHMS.items()]
    lines += ["", *(f"  i2i {command} {example}" for example in entry.examples)]
    return "\n".join([*lines, "", f"i2i {command} ALGORITHM --help shows its options."])


def of_command(program: str, entry: Command, known: Sequence[Option], everything: bool = False) -> str:
    """The help of a command: its first options and an example, or all options by group."""
    head = [f"usage: {program} {entry.usage}", "", _sentence(entry.summary), ""]
    head += [f"  {program} {example}".rstrip() for example in entry.examples]
    named = {option.name: option for option in known}
    shared = _shared(named.pop("verbose", None))
    if everything:
        return "\n".join([*head, *_grouped(named), *shared])
    lines = [line for name in entry.first.split() for line in _lines(named[name], short=True)]
    return "\n".join([*head, "", *lines, *shared])


def _grouped(named: dict[str, Option]) -> Iterator[str]:
    for title, names in {FIRST: FIRST_OPTIONS, **GROUPS}.items():
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
        facts.append(f"default: {_value(option.default)}")
    if option.choices and _typed(option).endswith("NAME"):
        facts.append("one of " + ", ".join(option.choices))
    if option.limits and not short:
        facts.append(bounds(option.annotation))
    return f"({'; '.join(facts)})" if facts else ""


def _value(default: object) -> str:
    if isinstance(default, list):
        return " ".join(map(str, default))
    return f"{default:g}" if isinstance(default, float) else f"{default}"


def _first_sentence(text: str) -> str:
    return re.split(r"(?<!e\.g)\. ", text, maxsplit=1)[0].rstrip(".") + "."


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
