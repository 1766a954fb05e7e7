"""The command line: the only file that knows its library.

A script's options are a frozen dataclass; its fields are the flags, its annotations their ranges, the text
under a field its help. Precedence: defaults < what a run goes on with < `--config FILE.yaml` < flags.
"""

import contextlib
import dataclasses
import io
import os
import runpy
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar, get_type_hints

from tyro.conf import Positional, arg

from i2i import signals, terminal
from i2i.config import (
    ALGORITHM,
    RUN_CONFIG,
    bounds,
    check_numbers,
    checked,
    from_mapping,
    nearest,
    of_run,
    option_names,
    read_yaml,
    to_yaml,
)
from i2i.errors import I2IError, UsageError, explained
from i2i.machine import place
from i2i.terminal import printable, say, tell

__all__ = ["Positional", "arg", "ended", "main", "parse", "printable", "run", "say", "tell"]

Options = TypeVar("Options")

_program: str | None = None
"""What the help calls the program: the script's path, unless it runs as the installed command."""
WRITTEN = {"out", "run", "report", "grid", "labels_out", "cache"}
"""The options of all scripts that name what is written; every other path is read."""
TEXTS = {"diffaugment", "domain_a", "domain_b", "input_domain", "licence", "nce_layers", "output_domain", "stop_when"}
"""The options of all scripts that may be emptied on the command line, where a configuration has something in them."""
verbose = False
"""Whether `--verbose` was given: errors show where they come from, and lists everything that is known."""


def run(
    main: Callable[[Options], int | None],
    options: type[Options],
    description: str,
    argv: Sequence[str] | None = None,
) -> NoReturn:
    """Parse the command line into `options`, call `main`, exit with its code.

    Every script has, beside its own flags, `--config FILE.yaml`, `--print-config` and `--verbose`. An
    `I2IError` becomes a message and its exit code, and so does what the system refuses; anything else is a bug
    and says so.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    global verbose
    verbose = _take_switch(arguments, "--verbose")

    def work() -> int | None:
        print_config = _take_switch(arguments, "--print-config")
        values = parse(options, arguments, description)
        outputs[:] = written_paths(values)
        if print_config:
            print(to_yaml(values), end="")
            return 0
        return main(values)

    outputs: list[Path] = []
    ended(work, outputs)


def ended(work: Callable[[], int | None], outputs: Sequence[Path] = ()) -> NoReturn:
    """Do `work`, which is all that a script does, and exit with its code, or with that of what it raises.

    A refusal of the system that names one of the paths `outputs`, or one in them, means that it cannot be written.
    """
    terminal.guard()
    sys.exit(_code(work, outputs))


def _code(work: Callable[[], int | None], outputs: Sequence[Path]) -> int:
    try:
        with signals.at_once():
            code = _finished(work)
            sys.stdout.flush()
    except KeyboardInterrupt:
        say("interrupted")
        code = 130
    except Exception as error:
        code = _failed(error, explained(error, _is_in(error, outputs)))
    return code


def _finished(work: Callable[[], int | None]) -> int:
    try:
        return work() or 0
    except SystemExit as ended:  # of the parser, which has said why
        return ended.code if isinstance(ended.code, int) else 2 if ended.code else 0


def _failed(error: Exception, meaning: I2IError | None) -> int:
    if verbose:
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


def written_paths(options: Any) -> list[Path]:
    """The paths among `options` at which something is to be written."""
    values = (getattr(options, name) for name in option_names(options) if name in WRITTEN)
    return [value for value in values if isinstance(value, Path)]


def parse(options: type[Options], arguments: Sequence[str], description: str = "") -> Options:
    """The options that a command line gives. Raises `UsageError`; exits by itself after `--help`.

    A training whose run folder has a configuration goes on with that one: what is given comes on top of it.
    """
    _refuse_empty(arguments)
    arguments, config = _take_config(list(arguments))
    _tell_repeated(options, arguments)
    check_numbers(options, _words(options, arguments))
    given = read_yaml(config) if config else {}
    default = from_mapping(options, given, str(config)) if config else options()
    chosen = _parsed(options, arguments, default, description)
    so_far = _of_run(options, chosen)
    if so_far is None:
        return chosen
    named = {name: getattr(default, name) for name in option_names(options) if name in given}
    resumed = _parsed(options, arguments, dataclasses.replace(so_far, **named), description)
    _tell_kept(chosen, resumed)
    return resumed


def _parsed(options: type[Options], arguments: list[str], default: Options, description: str) -> Options:
    import tyro

    epilogue = "also: --config FILE.yaml (flags come on top), --print-config, --verbose"
    shown = with_ranges(options)
    parser = partial(
        tyro.cli,
        shown,
        default=shown(**vars(default)),
        description=f"{description}\n\n{epilogue}",
        prog=_program,
    )
    return checked(options(**vars(_understood(parser, list(arguments)))))


def _understood(parser: Callable[..., Any], arguments: list[str]) -> Any:
    """Parse the arguments; a refusal shows them with their control characters escaped."""
    harmless = [printable(word) for word in arguments]
    if harmless == arguments:
        return parser(args=arguments)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return parser(args=arguments)
    except SystemExit:
        parser(args=harmless)
        raise


def _refuse_empty(arguments: Sequence[str]) -> None:
    """An empty path would mean the current folder, and nearly always comes of a variable of the shell that is unset."""
    for before, word in pairwise(("", *arguments)):
        name, given, value = (before, True, word) if word == "" else word.partition("=")
        if given and not value and (word == "" or name.startswith("-")) and _option(name) not in TEXTS:
            place = f" after {before}" if word == "" and before else f", {word}" if word else ""
            raise UsageError(f"an empty argument{place}: is a variable unset? The current folder is '.'")


def _option(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


def _of_run(options: type[Options], chosen: Options) -> Any:
    """The configuration of the run that a training is to go on with; None for a new one, and in other scripts."""
    run = getattr(chosen, "run", None)
    if run is None or not hasattr(options, ALGORITHM) or not os.path.isfile(run / RUN_CONFIG):  # noqa: PTH113 - no error
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


def _tell_kept(asked: Any, resumed: Any) -> None:
    kept = [
        f"{name} = {getattr(resumed, name)}"
        for name in option_names(resumed)
        if getattr(resumed, name) != getattr(asked, name)
    ]
    if kept:
        _tell(f"{resumed.run} goes on as it was where no option is given: {', '.join(kept)}")


def _words(options: Any, arguments: Sequence[str]) -> dict[str, list[str]]:
    """The words that follow each flag of an option."""
    known, name = set(option_names(options)), ""
    found: dict[str, list[str]] = {}
    for word in _before_separator(arguments):
        flag, equals, value = word.partition("=")
        if word.startswith("--"):
            name = _option(flag)
        if name in known and (equals or not word.startswith("--")):
            found.setdefault(name, []).append(value if word.startswith("--") else word)
    return found


def _tell_repeated(options: Any, arguments: Sequence[str]) -> None:
    """Say which flags are given twice: the last one counts, as everywhere."""
    known = {f"--{name}" for option in option_names(options) for name in (option, f"no_{option}")}
    flags = [word.partition("=")[0].replace("-", "_").replace("__", "--", 1) for word in _before_separator(arguments)]
    options_given = [flag.replace("--no_", "--", 1) if f"--{flag[5:]}" in known else flag for flag in flags]
    twice = {flag for flag in options_given if flag in known and options_given.count(flag) > 1}
    for flag in sorted(twice):
        _tell(f"{flag.replace('_', '-')} is given more than once; the last one counts")


def _before_separator(arguments: Sequence[str]) -> Sequence[str]:
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


def _tell(text: str) -> None:
    """To those who look on; of several processes the first one speaks."""
    if place().rank == 0:
        say(text)


def with_ranges(options: type[Options]) -> type[Options]:
    """`options` with the range of each bounded field beside its default in the help."""
    shown: dict[str, Any] = {}
    for name, hint in get_type_hints(options, include_extras=True).items():
        if allowed := bounds(hint):
            shown[name] = Annotated[hint, arg(help_behavior_hint=_with_range(allowed))]
    plain: Any = options
    defaults = {field.name: field.default for field in dataclasses.fields(plain) if field.name in shown}
    derived = type(options.__name__, (options,), {"__annotations__": shown, "__doc__": options.__doc__, **defaults})
    return dataclass(frozen=True, kw_only=True)(derived)


def _with_range(allowed: str) -> Callable[[str], str]:
    return lambda default: f"(default: {default}; {allowed})"


def _take_switch(arguments: list[str], name: str) -> bool:
    spellings = {name, name.replace("-", "_").replace("__", "--", 1)}
    found = [a for a in arguments if a in spellings]
    arguments[:] = [a for a in arguments if a not in spellings]
    return bool(found)


def _take_config(arguments: list[str]) -> tuple[list[str], Path | None]:
    rest: list[str] = []
    found: list[Path] = []
    words = iter(arguments)
    for word in words:
        if word == "--config":
            value = next(words, None)
            if value is None:
                raise UsageError("--config: expected a YAML file")
            found.append(Path(value))
        elif word.startswith("--config="):
            found.append(Path(word.removeprefix("--config=")))
        else:
            rest.append(word)
    if len(found) > 1:
        raise UsageError(
            f"--config: given more than once ({', '.join(map(str, found))}); put all options into one file"
        )
    return rest, found[0] if found else None


def main() -> None:
    """The installed command: `i2i translate …` runs `scripts/translate.py …`."""
    here = Path(__file__).parent
    folder = next(f for f in (here / "scripts", here.parent / "scripts") if (f / "translate.py").exists())
    commands = {path.stem.replace("_", "-"): path for path in sorted(folder.glob("*.py"))}
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name not in commands:
        ended(lambda: _usage(name, list(commands)))
    global _program
    _program = f"i2i {name}"
    sys.argv = [_program, *sys.argv[2:]]
    runpy.run_path(str(commands[name]), run_name="__main__")


def _usage(name: str, commands: list[str]) -> None:
    if name not in ("-h", "--help"):
        raise UsageError(f"unknown command {name!r}.{nearest(name, commands)} Commands: {', '.join(commands)}.")
    print("usage: i2i COMMAND [options]\n\ncommands: " + ", ".join(commands))
