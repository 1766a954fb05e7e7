"""The command line: the only file that knows its library.

A script's options are a frozen dataclass; its fields are the flags, its annotations their ranges, the text
under a field its help. Precedence: defaults < `--config FILE.yaml` < flags.
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

from i2i.config import bounds, checked, from_mapping, nearest, read_yaml, to_yaml
from i2i.errors import I2IError, UsageError

__all__ = ["Positional", "arg", "drawable", "main", "parse", "printable", "run"]

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
    """The options that a command line gives. Raises `UsageError`; exits by itself after `--help`."""
    import tyro

    arguments, config = _take_config(list(arguments))
    default = from_mapping(options, read_yaml(config), str(config)) if config else options()
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
    config: Path | None = None
    words = iter(arguments)
    for word in words:
        if word == "--config":
            value = next(words, None)
            if value is None:
                raise UsageError("--config: expected a YAML file")
            config = Path(value)
        elif word.startswith("--config="):
            config = Path(word.removeprefix("--config="))
        else:
            rest.append(word)
    return rest, config


def _say(error: BaseException, prefix: str = "") -> None:
    if verbose:
        traceback.print_exception(error)
    text = printable(str(error) or type(error).__name__)
    print(f"i2i: {prefix}{text}", file=sys.stderr, flush=True)


def drawable() -> bool:
    """Whether stderr is a terminal on which a line can be drawn anew: no file, and not one of TERM=dumb."""
    return sys.stderr.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


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
