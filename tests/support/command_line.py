"""Commands of `i2i` in this process: their exit codes, what they print, and the options of a training."""

import signal
import sys
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

from i2i import cli
from i2i.algorithms import ALGORITHMS
from i2i.commands import train
from i2i.commands.line import build, read_line
from i2i.commands.options import options_of
from i2i.commands.train import options_class

OPTIONS: dict[str, Any] = {name: options_class("train", name) for name in ALGORITHMS}


def parse(name: str, arguments: str) -> Any:
    """The options of a training by the algorithm of that name."""
    return build(OPTIONS[name], read_line(arguments.split(), options_of("train", name)))


def exit_code(*words: object) -> int:
    """The exit code of `i2i WORDS`; SIGTERM does afterwards what it did before."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with mock.patch.object(sys, "argv", ["i2i", *map(str, words)]), pytest.raises(SystemExit) as ended:
            cli.main()
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def train_code(name: str, arguments: str | list[str], main: Callable[[Any], int | None] | None = None) -> int:
    """The exit code of `i2i train NAME ARGUMENTS`, where `main` gets the options; by default none may be accepted."""

    def answer(algorithm: str, options: Any) -> int | None:
        assert main, "the options were accepted"
        return main(options)

    words = arguments.split() if isinstance(arguments, str) else arguments
    with mock.patch.object(train, "train", answer):
        return exit_code("train", name, *words)
