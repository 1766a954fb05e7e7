"""The command `i2i`: from a command line to an exit code.

It answers `--help` and mistakes of typing before it imports the command's module, and with it torch. `run` does the
same for your own script, whose options are any frozen dataclass.
"""

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from i2i import __version__, signals, terminal
from i2i.commands import ALGORITHMS, COMMANDS, Command, help_text, junyanz
from i2i.commands.options import Option, describe, options_of
from i2i.commands.parse import build, read_line, take_switch, written_paths
from i2i.config import ALGORITHM, RUN_CONFIG, nearest, read_options, to_yaml
from i2i.errors import I2IError, UsageError, explained
from i2i.terminal import say

__all__ = ["ended", "main", "run"]

Options = TypeVar("Options")

_BY_ALGORITHM = ("train", "plan")
_verbose = False
"""Whether `--verbose` was given: errors show where they come from."""


def main(*door: str) -> NoReturn:
    """Run `i2i`, or the script whose command `door` names, with the words of the command line."""
    words = [*door, *sys.argv[1:]]
    program = f"python {sys.argv[0]}" if door else ""
    outputs: list[Path] = []
    ended(lambda: _dispatch(words, program, outputs), outputs)


def run(
    main: Callable[[Options], int | None],
    options: type[Options],
    description: str,
    argv: Sequence[str] | None = None,
) -> NoReturn:
    """Parse the command line into `options`, call `main`, exit with its code.

    Each script has, beside its own flags, `--config FILE.yaml`, `--print-config`, `--verbose` and `--help`. An
    `I2IError` becomes a message and its exit code, and so does what the system refuses; anything else is a bug
    and says so.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    known = describe(options)
    names = " ".join(option.name for option in known)
    entry = Command(summary=description.rstrip("."), usage="[options]", examples=(), first=names)
    outputs: list[Path] = []
    invocation = _Invocation(Path(sys.argv[0]).name, entry, known, lambda: (options, main))
    ended(lambda: invocation.run(words, outputs), outputs)


@dataclass(frozen=True)
class _Invocation:
    """A call of a command. `load` imports its class of options and its function."""

    program: str
    entry: Command
    known: Sequence[Option]
    load: Callable[[], tuple[type[Any], Callable[[Any], int | None]]]

    def run(self, words: list[str], outputs: list[Path]) -> int | None:
        if take_switch(words, "--help-all"):
            return _print(help_text.of_command(self.program, self.entry, self.known, everything=True))
        if take_switch(words, "--help") or take_switch(words, "-h"):
            return _print(help_text.of_command(self.program, self.entry, self.known))
        global _verbose
        print_config = take_switch(words, "--print-config")
        _verbose = "--verbose" in words
        if all(option.name != "verbose" for option in self.known):
            take_switch(words, "--verbose")
        line = read_line(words, self.known)
        options, body = self.load()
        values = build(options, line)
        outputs[:] = written_paths(values)
        return _print(to_yaml(values).rstrip()) if print_config else body(values)


def _print(text: str) -> int:
    print(text)
    return 0


def _dispatch(words: list[str], program: str, outputs: list[Path]) -> int | None:
    """The command that the first words name, called with the others."""
    first = words[0].replace("_", "-") if words else "--help"
    if first in ("--help", "-h", "--help-all"):
        return _print(help_text.of_all())
    if first == "--version":
        return _print(f"i2i {__version__}")
    name, rest = _named(first, words[1:])
    if name in _BY_ALGORITHM:
        return _by_algorithm(name, rest, program, outputs)
    entry = COMMANDS[name]

    def load() -> tuple[type[Any], Callable[[Any], int | None]]:
        module = import_module(entry.module)
        return module.Options, module.main

    return _Invocation(program or f"i2i {name}", entry, options_of(name), load).run(rest, outputs)


def _named(first: str, rest: list[str]) -> tuple[str, list[str]]:
    """The name of the command; `train-cyclegan` and `distill` are `train cyclegan` and `train distill`."""
    if first in COMMANDS:
        return first, rest
    algorithm = first.removeprefix("train-")
    if algorithm in ALGORITHMS and (first != algorithm or first == "distill"):
        return "train", [algorithm, *rest]
    if algorithm in ALGORITHMS:
        raise UsageError(f"unknown command {first!r}. An algorithm is trained by: i2i train {first} --data FOLDER")
    near = nearest(first, [*COMMANDS, *(f"train-{name}" for name in ALGORITHMS), "distill"])
    raise UsageError(f"unknown command {first!r}.{near} Commands: {', '.join(COMMANDS)}.")


def _by_algorithm(command: str, words: list[str], program: str, outputs: list[Path]) -> int | None:
    """`i2i train` or `i2i plan`, followed by an algorithm, a configuration, or the folder of a run."""
    if words and words[0] in ALGORITHMS:
        algorithm, rest = words[0], words[1:]
    elif {"--help", "-h", "--help-all"} & {*words}:
        return _print(help_text.of_algorithms(command))
    else:
        algorithm, rest = _algorithm_of(command, words)

    def load() -> tuple[type[Any], Callable[[Any], int | None]]:
        module = import_module(COMMANDS[command].module)
        return module.options_class(algorithm), partial(module.main, algorithm)

    trains = command == "train"
    entry = ALGORITHMS[algorithm] if trains else COMMANDS[command]
    program = program or (f"i2i train {algorithm}" if trains else f"i2i {command}")
    return _Invocation(program, entry, options_of(command, algorithm), load).run(rest, outputs)


def _algorithm_of(command: str, words: list[str]) -> tuple[str, list[str]]:
    """The algorithm that a configuration or a run names, and the words that say the same with it known."""
    first = words[0] if words else "-"
    if first.endswith((".yaml", ".yml")):
        words = ["--config", *words]
    elif not first.startswith("-"):
        raise UsageError(
            f"unknown algorithm {first!r}.{nearest(first, ALGORITHMS)} Algorithms: {', '.join(ALGORITHMS)}; "
            "or give a configuration, FILE.yaml"
        )
    for flag, file in (("--config", ""), ("--run", RUN_CONFIG)):
        path = Path(_after(flag, words) or "", file)
        if _after(flag, words) and path.is_file() and (named := read_options(path).get(ALGORITHM)) is not None:
            if named not in ALGORITHMS:
                raise UsageError(f"{path}: algorithm: unknown {str(named)[:100]!r}. Known: {', '.join(ALGORITHMS)}.")
            return str(named), words
    if theirs := junyanz.translated(words, {option.flag for option in options_of(command, "cyclegan")}):
        raise UsageError(*theirs)
    if first.endswith((".yaml", ".yml")):
        read_options(Path(first))
        raise UsageError(f"{first}: expected the file of a configuration with a line such as `algorithm: cyclegan`")
    if run := _after("--run", words):
        raise UsageError(
            f"--run {run}: no run to go on with, as it has no {RUN_CONFIG}. For a new run: "
            f"i2i {command} cyclegan --data FOLDER --run {run}"
        )
    raise UsageError(
        f"expected an algorithm first, as in: i2i {command} cyclegan --data FOLDER. "
        f"Algorithms: {', '.join(ALGORITHMS)}. See i2i {command} --help"
    )


def _after(flag: str, words: Sequence[str]) -> str | None:
    """The value of a flag among `words`."""
    for word, after in pairwise((*words, "")):
        if word == flag:
            return after
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return None


def ended(work: Callable[[], int | None], outputs: Sequence[Path] = ()) -> NoReturn:
    """Do `work`, which is all that a program does, and exit with its code, or with that of what it raises.

    A refusal of the system that names one of the paths `outputs`, or one in them, means that it cannot be written.
    """
    terminal.guard()
    sys.exit(_code(work, outputs))


def _code(work: Callable[[], int | None], outputs: Sequence[Path]) -> int:
    try:
        with signals.at_once():
            code = work() or 0
            sys.stdout.flush()
    except KeyboardInterrupt:
        say("interrupted")
        code = 130
    except Exception as error:
        code = _failed(error, explained(error, _is_in(error, outputs)))
    return code


def _failed(error: Exception, meaning: I2IError | None) -> int:
    if _verbose:
        traceback.print_exception(error)
    if meaning is None:
        say(f"unexpected error (please report it; --verbose shows where): {str(error) or type(error).__name__}")
        return 1
    if str(meaning):  # of several processes only the first has something to say
        say(*meaning.args)
    return meaning.exit_code


def _is_in(error: Exception, outputs: Sequence[Path]) -> bool:
    """Whether `error` is about one of `outputs`, something in it, or a folder on the way to it."""
    name = getattr(error, "filename", None)
    if not isinstance(name, str | bytes) or not name:
        return False
    try:
        path, wholes = Path(os.fsdecode(name)).absolute(), [output.absolute() for output in outputs]
    except OSError:  # the current folder is gone, or may not be looked at
        return False
    return any(path.is_relative_to(whole) or whole.is_relative_to(path) for whole in wholes)
