"""Results as Markdown tables.

python benchmarks/table.py FILE.json...     prints them
python benchmarks/table.py --write          puts those of benchmarks/results into benchmarks/README.md
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

FOLDER = Path(__file__).resolve().parent
README, RESULTS = FOLDER / "README.md", FOLDER / "results"
BEGIN, END = "<!-- results: written by table.py -->\n", "<!-- end of results -->\n"

COLUMNS = {
    "ratio": ("times as fast", "{:.2f}"),
    "gflop_per_second": ("GFLOP/s", "{:,.0f}"),
    "percent_of_ceiling": ("% of the convolution limit", "{:.0f}"),
    "percent_of_memory": ("% of the memory's limit", "{:.1f}"),
    "largest": ("levels apart, at most", "{:d}"),
    "mean": ("on average", "{:.3f}"),
    "over_one": ("% of pixels over 1 level", "{:.3f}"),
    "error": ("apart in [-1, 1], at most", "{:.1e}"),
    "first_seconds": ("first step, s", "{:.1f}"),
    "loss_difference": ("its losses apart, relative", "{:.0e}"),
    "resident_mb": ("most memory, MB", "{:,.0f}"),
    "peak_mb": ("anonymous memory, MB", "{:,.0f}"),
    "spool_mb": ("spool, MB", "{:,.0f}"),
    "same": ("same pictures", "{}"),
}
"""Fields of rows: what a table calls them, and how it shows them; a table has those that its rows have."""
TIMES = {"seconds": "wall seconds", "cpu_seconds": "processor seconds"}
"""The quantity that a clock measures."""

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    for file in options.files:
        print(markdown(json.loads(file.read_text(encoding="utf-8"))))
    if options.write:
        README.write_text(with_results(README.read_text(encoding="utf-8"), RESULTS), encoding="utf-8", newline="\n")


def with_results(readme: str, folder: Path) -> str:
    """`readme` with the tables of all results in `folder` between its marks."""
    before, _, rest = readme.partition(BEGIN)
    after = rest.partition(END)[2]
    found = [markdown(json.loads(file.read_text(encoding="utf-8"))) for file in sorted(folder.glob("*.json"))]
    return before + BEGIN + "\n".join(["", *found]) + ("\n" if found else "") + END + after


def markdown(result: dict[str, Any]) -> str:
    """Command and machine, and the tables."""
    lines = [f"`{result['command']}`", "", described(result)]
    for table in result["tables"]:
        lines += ["", f"{table['title']}:", "", *lines_of(table)]
    return "\n".join([*lines, ""])


def lines_of(table: dict[str, Any]) -> list[str]:
    """A table: seconds by its clock, processor seconds beside those of the wall, and what else its rows have."""
    columns: list[tuple[str, Callable[[Row], str]]] = [
        ("", lambda row: str(row["way"])),
        (f"{TIMES[table['clock']]}, median (quartiles)", seconds),
    ]
    if table["clock"] == "seconds":
        columns.append((TIMES["cpu_seconds"], lambda row: figure(median(row["cpu_seconds"]))))
    for name, (head, _) in COLUMNS.items():
        if any(name in row for row in table["rows"]):
            columns.append((head, partial(cell, name)))
    shown = [[show(row) for _, show in columns] for row in table["rows"]]
    return [line([head for head, _ in columns]), line(["---"] * len(columns)), *map(line, shown)]


def described(result: dict[str, Any]) -> str:
    """The machine and the limits that were measured on it."""
    machine, limits = result["machine"], result["ceilings"]
    parts = [
        machine["processor"] + (f" ({machine['vectors']})" if "vectors" in machine else ""),
        f"{machine['cores']} cores, {machine['memory_gb']:.0f} GB",
        f"{machine['threads']} threads",
        *([machine["gpu"]] if machine["gpu"] else []),
        f"torch {result['versions']['torch']}",
        *([f"OpenVINO {result['versions']['openvino']}"] if "openvino" in result["versions"] else []),
        f"i2i {result['commit']}" if result["commit"] else "",
        result["date"],
        f"load before {machine['load']}",
    ]
    text = ", ".join(part for part in parts if part) + "."
    speeds = [f"{limits[name]:,.0f} GFLOP/s in {name}" for name in ("fp32", "bf16", "fp16") if name in limits]
    if "memory" in limits:
        speeds.append(f"{limits['memory']:.0f} GB/s of memory")
    more = [result[name] for name in ("notes",) if name in result]
    return " ".join([text, *([f"Limits: {', '.join(speeds)}."] if speeds else []), *more])


def seconds(row: Row) -> str:
    """The median and, of several rounds, the quartiles."""
    low, high = row["quartiles"]
    return figure(row["median"]) + (f" ({figure(low)} to {figure(high)})" if low != high else "")


def figure(seconds: float) -> str:
    """Three digits that count."""
    if seconds >= 100:
        return f"{seconds:.0f}"
    text = f"{seconds:#.3g}"
    return f"{seconds * 1e3:#.3g} ms".replace(". ", " ") if seconds < 0.1 else text


def cell(name: str, row: Row) -> str:
    """One field of a row, if it has it."""
    return COLUMNS[name][1].format(row[name]) if name in row else ""


def line(cells: list[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
