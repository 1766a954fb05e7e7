"""The command line: the only file that knows its library.

A script's options are a frozen dataclass; its fields are the flags, its annotations their ranges, the text
under a field its help. Precedence: defaults < what a run goes on with < `--config FILE.yaml` < flags.
"""

import dataclasses
import io
import os
import runpy
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar, get_type_hints

from tyro.conf import Positional, arg

from i2i.config import ALGORITHM, RUN_CONFIG, bounds, checked, from_mapping, nearest, option_names, read_yaml, to_yaml
from i2i.errors import I2IError, UsageError

__all__ = ["Positional", "arg", "main", "parse", "printable", "run"]

Options = TypeVar("Options")

_program: str | None = None
"""What the help calls the program: the script's path, unless it runs as the installed command."""
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
    `I2IError` becomes a message and its exit code; anything else is a bug and says so.
    """
    _streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    global verbose
    verbose = _take_switch(arguments, "--verbose")
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
    try:
        print_config = _take_switch(arguments, "--print-config")
        values = parse(options, arguments, description)
        if print_config:
            print(to_yaml(values), end="")
            sys.exit(0)
        sys.exit(main(values) or 0)
    except I2IError as error:
        if str(error):  # of several processes only the first has something to say
            _say(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        _say(error, "unexpected error (please report it; --verbose shows where): ")
        sys.exit(1)


def _streams() -> None:
    """Nobody may listen (a daemon without streams), and no name is too odd to be printed."""
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: PTH123, SIM115
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def parse(options: type[Options], arguments: Sequence[str], description: str = "") -> Options:
    """The options that a command line gives. Raises `UsageError`; exits by itself after `--help`.

    A training whose run folder has a configuration goes on with that one: what is given comes on top of it.
    """
    arguments, config = _take_config(list(arguments))
    _tell_repeated(options, arguments)
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
    parsed = tyro.cli(
        shown,
        args=arguments,
        default=shown(**vars(default)),
        description=f"{description}\n\n{epilogue}",
        prog=_program,
    )
    return checked(options(**vars(parsed)))


def _of_run(options: type[Options], chosen: Options) -> Any:
    """The configuration of the run that a training is to go on with; None for a new one, and in other scripts."""
    run = getattr(chosen, "run", None)
    if run is None or not hasattr(options, ALGORITHM) or not os.path.isfile(run / RUN_CONFIG):  # noqa: PTH113 - no error
        return None
    try:
        return from_mapping(options, read_yaml(run / RUN_CONFIG), str(run / RUN_CONFIG))
    except UsageError as error:
        raise UsageError(
            f"{str(error).rstrip('.')}; the run would go on with this: give another --run, or restore that file, or "
            "remove it and give every option again"
        ) from None


def _tell_kept(asked: Any, resumed: Any) -> None:
    kept = [
        f"{name} = {getattr(resumed, name)}"
        for name in option_names(resumed)
        if getattr(resumed, name) != getattr(asked, name)
    ]
    if kept:
        _tell(f"{resumed.run} goes on as it was where no option is given: {', '.join(kept)}")


def _tell_repeated(options: Any, arguments: Sequence[str]) -> None:
    """Of a flag that is given twice the last one counts, as everywhere; but it is said."""
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
    if os.environ.get("RANK", "0") == "0":
        print(f"i2i: {printable(text)}", file=sys.stderr, flush=True)


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


def _say(error: BaseException, prefix: str = "") -> None:
    if verbose:
        traceback.print_exception(error)
    text = printable(str(error) or type(error).__name__)
    print(f"i2i: {prefix}{text}", file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """`text` with control characters escaped: file names must not steer a terminal."""
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def main() -> None:
    """The installed command: `i2i translate …` runs `scripts/translate.py …`."""
    here = Path(__file__).parent
    folder = next(f for f in (here / "scripts", here.parent / "scripts") if (f / "translate.py").exists())
    commands = {path.stem.replace("_", "-"): path for path in sorted(folder.glob("*.py"))}
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print("usage: i2i COMMAND [options]\n\ncommands: " + ", ".join(commands))
        return
    if name not in commands:
        print(
            f"i2i: unknown command {name!r}.{nearest(name, commands)} Commands: {', '.join(commands)}.",
            file=sys.stderr,
        )
        sys.exit(2)
    global _program
    _program = f"i2i {name}"
    sys.argv = [_program, *sys.argv[2:]]
    runpy.run_path(str(commands[name]), run_name="__main__")
