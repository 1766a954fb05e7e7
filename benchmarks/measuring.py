"""The parts of all benchmarks: ways measured in turn, by wall and processor time, and the options of a command line."""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
WALL, CPU = "seconds", "cpu_seconds"
SETTLE = 0.3
"""Seconds in which the threads of the way before, which spin for a while, fall asleep."""

Figures = dict[str, float]
"""`WALL` and `CPU` seconds of one measurement."""
Taken = dict[str, dict[str, list[float]]]
"""Way → clock → seconds, one for each round."""


def parser(description: str | None, rounds: int) -> argparse.ArgumentParser:
    """The options that all benchmarks have; `rounds` is the default."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=positive, default=rounds, help="how often all ways are measured, in turn")
    made.add_argument(
        "--clock",
        choices=[WALL, CPU],
        default=WALL,
        help="what ratios are of: on a busy machine processor time, with OMP_NUM_THREADS=1",
    )
    made.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    made.add_argument("--json", type=Path, help="write the result there")
    return made


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; as `given` the words that they were read from, as `load` that of the five minutes before."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    return parser.parse_args(words, argparse.Namespace(given=words, load=psutil.getloadavg()[1]))


def positive(text: str) -> int:
    """A number of at least 1."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number}: at least 1 was expected")
    return number


def in_turn(ways: Mapping[str, Callable[[], Figures]], rounds: int) -> Taken:
    """All ways once, then all again, so that what else the machine does meets all of them alike."""
    taken: Taken = {way: {WALL: [], CPU: []} for way in ways}
    for _ in range(rounds):
        for way, measure in ways.items():
            figures = measure()
            for clock, seconds in taken[way].items():
                seconds.append(round(figures[clock], 9))
    return taken


def timed(work: Callable[[], object], count: int = 1) -> Figures:
    """The seconds of each of the `count` things that `work` does; those of child processes that end in it count too."""
    wall, cpu = time.perf_counter(), processor_seconds()
    work()
    return {WALL: (time.perf_counter() - wall) / count, CPU: (processor_seconds() - cpu) / count}


def slope(work: Callable[[int], object], few: int, many: int) -> Figures:
    """The seconds of each further thing: what does not grow with their number (a start, say) is left out."""
    less, more = timed(lambda: work(few)), timed(lambda: work(many))
    return {clock: (more[clock] - less[clock]) / (many - few) for clock in (WALL, CPU)}


def processor_seconds() -> float:
    """The processor time of this process and of its children that have ended."""
    spent = os.times()
    return time.process_time() + spent.children_user + spent.children_system


def together(commands: Sequence[Sequence[str]], environment: Mapping[str, str]) -> list[str]:
    """The output of the commands, which are arguments of Python; all run at once, from the root of the project.

    Raises `RuntimeError` with what one says that fails.
    """
    children = [
        subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=os.environ | dict(environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        for command in commands
    ]
    said = [child.communicate() for child in children]
    for child, (_, errors) in zip(children, said, strict=True):
        if child.returncode:
            raise RuntimeError(f"{child.args!r} ended with {child.returncode}: {errors[-2000:]}")
    return [output for output, _ in said]
