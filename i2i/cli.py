"""The command `i2i`: from a command line to an exit code.

It answers `--help` and mistakes of typing before it imports the command's module, and with it torch.
"""

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

from i2i import __version__, signals, terminal
from i2i.commands import ALGORITHMS, COMMANDS, junyanz, loaded
from i2i.commands.line import (
    Line,
    build,
    help_of_algorithms,
    help_of_all,
    help_of_command,
    read_line,
    take_switches,
    written_paths,
)
from i2i.commands.options import Option, class_of, options_of
from i2i.config import ALGORITHM, RUN_CONFIG, read_options, to_yaml
from i2i.errors import I2IError, UsageError, explained, nearest, on_command_line
from i2i.files import staged
from i2i.terminal import say
from i2i.urls import is_url, store_path

__all__ = ["exit_on_error", "main"]

Call = tuple[Callable[[Any], int | None], Any]
"""A function and its argument. It returns the exit code; None is 0."""

_HELP = {"--help", "-h", "--help-all"}
_SWITCHES = {*_HELP, "--print-config", "--verbose"}
"""Every command takes these, unless it has an option of that name."""
_verbose = False
"""Whether `--verbose` was given: errors show where they come from."""


def main(*door: str) -> NoReturn:
    """Run `i2i`, or the script whose command `door` names, with the words of the command line."""
    outputs: list[Path] = []
    with exit_on_error(outputs):
        function, options = _parsed([*door, *sys.argv[1:]], f"python {sys.argv[0]}" if door else "")
        outputs.extend(written_paths(options) if function is not print else [])
        code = function(options)
    sys.exit(code or 0)


def _parsed(words: list[str], program: str) -> Call:
    """The command that the first words name with the options that the others give, or a text to print."""
    first = words[0].replace("_", "-") if words else "--help"
    if first in _HELP:
        return print, help_of_all()
    if first == "--version":
        return print, f"i2i {__version__}"
    name, rest = _named(first, words[1:])
    algorithm = ""
    if name in ("train", "plan"):
        try:
            algorithm, rest = _of_algorithm(name, rest)
        except UsageError:
            if _HELP & {*rest}:
                return print, help_of_algorithms(name)
            raise
    trained, known = algorithm if name == "train" else "", options_of(name, algorithm)
    entry = ALGORITHMS[trained] if trained else COMMANDS[name]
    asked = take_switches(rest, _SWITCHES - {option.flag for option in known})
    if asked & _HELP:
        program = program or f"i2i {name} {trained}".rstrip()
        return print, help_of_command(program, entry, known, everything="--help-all" in asked)
    global _verbose
    _verbose = "--verbose" in {*asked, *rest}
    line, print_config = read_line(rest, known), "--print-config" in asked
    if algorithm:
        _check_without_torch(known, algorithm, line, is_complete=not print_config)
    function, options_class = loaded(name, algorithm)
    options = build(options_class, line)
    if not print_config:
        return function, options
    if algorithm:
        from i2i.training.run_folder import in_store

        options = in_store(options)
    return print, to_yaml(options).rstrip()


def _named(first: str, rest: list[str]) -> tuple[str, list[str]]:
    """The name of the command; `train-cyclegan` and `distill` are `train cyclegan` and `train distill`."""
    if first in COMMANDS:
        return first, rest
    algorithm = first.removeprefix("train-")
    if algorithm in ALGORITHMS and (first != algorithm or first == "distill"):
        return "train", [algorithm, *rest]
    if algorithm in ALGORITHMS:
        raise UsageError(f"unknown command {first!r}. An algorithm is trained by: i2i train {first} --data FOLDER")
    near = junyanz.COMMANDS.get(first) or nearest(
        first, [*COMMANDS, *(f"train-{name}" for name in ALGORITHMS), "distill"]
    )
    raise UsageError(f"unknown command {first!r}.{near} Commands: {', '.join(COMMANDS)}.")


def _of_algorithm(command: str, words: list[str]) -> tuple[str, list[str]]:
    """The algorithm that the first word names, or else a configuration or the folder of a run, and the other words."""
    first = words[0] if words else "-"
    if command == "train" and is_url(run := _after("--run", words)) and not _HELP & {*words}:
        from i2i.training.run_folder import fetch_run

        fetch_run(staged(store_path(run)))  # with the configuration in it
    if first in ALGORITHMS:
        return first, words[1:]
    is_file = first.endswith((".yaml", ".yml"))
    if not first.startswith("-") and not is_file:
        raise UsageError(
            f"unknown algorithm {first!r}.{nearest(first, ALGORITHMS)} Algorithms: {', '.join(ALGORITHMS)}; "
            "or give a configuration, FILE.yaml"
        )
    rest = ["--config", *words] if is_file else words
    if configured := _configured_algorithm(rest):
        return configured, rest
    raise _no_algorithm(command, first, rest)


def _check_without_torch(known: Sequence[Option], algorithm: str, line: Line, is_complete: bool) -> None:
    """Checks each value and, of a command line that is to run, what needs neither data nor networks."""
    options = build(class_of(known, algorithm), line, tell=lambda text: None)
    if is_complete:
        from i2i.training.schedule import check

        check(options, layout=ALGORITHMS[algorithm].layout)


def _configured_algorithm(words: Sequence[str]) -> str:
    """The algorithm that a configuration or a run among `words` names; empty if none does. Raises `UsageError`."""
    for flag, file in (("--config", ""), ("--run", RUN_CONFIG)):
        value = _after(flag, words) or ""
        path = (staged(store_path(value)) if is_url(value) else Path(value)) / file
        if _after(flag, words) and path.is_file() and (named := read_options(path).get(ALGORITHM)) is not None:
            if named not in ALGORITHMS:
                raise UsageError(f"{path}: algorithm: unknown {str(named)[:100]!r}. Known: {', '.join(ALGORITHMS)}.")
            return str(named)
    return ""


def _no_algorithm(command: str, first: str, words: Sequence[str]) -> UsageError:
    """The error for a command line that begins with `first`, a flag or a file, and names no algorithm."""
    model = junyanz.VALUES["model"].get(_after("--model", words) or "", "").rpartition(" ")[2]
    algorithm = model if model in ALGORITHMS else "cyclegan"
    if theirs := junyanz.translated(words, {option.flag for option in options_of(command, algorithm)}):
        return UsageError(*theirs)
    if first.endswith((".yaml", ".yml")):
        read_options(Path(first))
        return UsageError(f"{first}: names no algorithm; add a line such as `algorithm: cyclegan`")
    if run := _after("--run", words):
        return UsageError(
            f"--run {run}: no run to go on with, as it has no {RUN_CONFIG}. For a new run: "
            f"i2i {command} cyclegan --data FOLDER --run {run}"
        )
    return UsageError(
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


@contextmanager
def exit_on_error(outputs: Sequence[Path] = ()) -> Iterator[None]:
    """Inside, the whole program runs. An error that it raises is explained, and ends the process with its code.

    An `OSError` about one of `outputs`, or about a path in them, means that it cannot be written.
    """
    terminal.guard()
    try:
        with on_command_line(), signals.at_once():
            yield
            sys.stdout.flush()
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(130)
    except Exception as error:
        sys.exit(_failed(error, explained(error, _is_in(error, outputs))))


def _failed(error: Exception, meaning: I2IError | None) -> int:
    if _verbose:
        traceback.print_exception(error)
    if meaning is None:
        say(f"unexpected error (please report it; --verbose shows where): {str(error) or type(error).__name__}")
        return 1
    if str(meaning):  # only the first of several processes has a message
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
