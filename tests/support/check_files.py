"""The check of pictures that a training makes, for a list of files or pairs."""

from collections.abc import Callable, Iterable
from pathlib import Path

from i2i.data.check import judge
from i2i.data.folders import PairRecord
from i2i.data.look import Check, look_at


def check(
    records: Iterable[Path | PairRecord],
    mode: Check = "auto",
    complaint: Callable[[int, int], str] = lambda height, width: "",
) -> list[tuple[Path, str]]:
    """The damaged files, each with the reason."""
    wanted = list(records)
    return judge(wanted, look_at(wanted, mode), complaint)
