"""The check of pictures that a training makes, for a list of files or pairs."""

from collections.abc import Callable, Iterable
from pathlib import Path

from i2i.data.check import Check, judge, look_at
from i2i.data.folders import PairRecord


def check(
    records: Iterable[Path | PairRecord],
    mode: Check = "auto",
    complaint: Callable[[int, int], str] = lambda height, width: "",
) -> list[Path]:
    """The damaged files."""
    wanted = list(records)
    return [Path(line.partition(": ")[0]) for line in judge(wanted, look_at(wanted, mode), complaint)]
