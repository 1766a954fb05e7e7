"""The one form of all results: what was measured on what, and the figures that follow from the raw seconds.

A result has tables, a table rows, a row the seconds of a way in each round. Its median, quartiles, ratio to the
first row, GFLOP/s and shares of the measured limits are derived from these, and `check` refuses others.
"""

import argparse
import json
import math
import os
import platform
import shlex
import statistics
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import table as tables
import torch
from measuring import CPU, ROOT, WALL, Taken

from i2i.machine import cpu_info, has_bf16

PACKAGES = ("torch", "torchvision", "openvino", "onnxruntime", "numpy", "pillow", "opencv-python-headless", "pyvips")
FIELDS = ("benchmark", "command", "date", "commit", "machine", "versions", "ceilings", "tables")

Result = dict[str, Any]
Row = dict[str, Any]


def table(title: str, clock: str, taken: Taken, facts: Mapping[str, Mapping[str, Any]] | None = None) -> Result:
    """A table of the ways in `taken`; `facts` are further fields of their rows."""
    return {
        "title": title,
        "clock": clock,
        "rows": [{"way": way, **taken[way], **(facts or {}).get(way, {})} for way in taken],
    }


def finish(
    benchmark: str,
    options: argparse.Namespace,
    found: list[Result],
    ceilings: Mapping[str, float] | None = None,
    **facts: Any,
) -> Result:
    """The whole result, derived figures and all; printed as tables, and written where `--json` says."""
    result = {
        "benchmark": benchmark,
        "command": command(benchmark, options.given),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "machine": machine(options.device) | {"load": round(options.load, 1)},
        "versions": versions(),
        "ceilings": dict(ceilings or {}),
        **facts,
        "tables": found,
    }
    for one in found:
        for row in one["rows"]:
            row |= derived(row, one["rows"][0], one["clock"], result["ceilings"])
    check(result)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(tables.markdown(result))
    return result


def derived(row: Row, first: Row, clock: str, ceilings: Mapping[str, float]) -> dict[str, Any]:
    """The numbers that follow from the seconds of a row, those of the first, and the measured limits.

    The ratio is the median of the rounds' ratios: first row to this one, so above 1 is faster.
    """
    times = row[clock]
    median = statistics.median(times)
    quartiles = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else [median] * 3
    found: dict[str, Any] = {"median": median, "quartiles": [quartiles[0], quartiles[2]]}
    found["ratio"] = statistics.median(one / own for one, own in zip(first[clock], times, strict=True))
    if "gflop" in row:
        found["gflop_per_second"] = row["gflop"] / median
        found["percent_of_ceiling"] = 100 * found["gflop_per_second"] / ceilings[row["precision"]]
    if "weights_gb" in row:
        found["percent_of_memory"] = 100 * row["weights_gb"] / median / ceilings["memory"]
    return found


def check(result: Result) -> None:
    """Raises `ValueError` for what is missing, and for figures that do not follow from the seconds."""
    if missing := [name for name in FIELDS if name not in result]:
        raise ValueError(f"without {', '.join(missing)}")
    if not (result["machine"].get("processor") and result["versions"].get("torch") and result["tables"]):
        raise ValueError("no processor, no torch or no table")
    for one in result["tables"]:
        first = one["rows"][0]
        for row in one["rows"]:
            if not all(len(row[clock]) == len(first[clock]) > 0 for clock in (WALL, CPU)):
                raise ValueError(f"{row['way']}: as many seconds as rounds were expected")
            for name, value in derived(row, first, one["clock"], result["ceilings"]).items():
                if not _close(row.get(name), value):
                    raise ValueError(f"{row['way']}: {name} is {row.get(name)}; from its seconds follows {value}")


def _close(stated: Any, value: Any) -> bool:
    if isinstance(value, list):
        return isinstance(stated, list) and all(_close(a, b) for a, b in zip(stated, value, strict=True))
    return isinstance(stated, int | float) and math.isclose(stated, value, rel_tol=1e-6)


def command(benchmark: str, given: list[str]) -> str:
    """The command to run again; of an absolute path only its name is told."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in given]
    return shlex.join(["python", f"benchmarks/{benchmark}.py", *words])


def commit() -> str:
    """The commit of the checkout, with `+` behind it if files other than results differ; empty where there is none."""
    try:
        changed = _git("diff", "HEAD", "--name-only", "--", ".", ":!benchmarks/results")
        return _git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, encoding="utf-8", check=True).stdout.strip()


def machine(device: str) -> dict[str, Any]:
    """The hardware by its names."""
    gpu = torch.cuda.get_device_name(device) if device.startswith("cuda") else None
    return {
        "processor": processor_name(),
        "vectors": vectors(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "bf16": has_bf16(),
        "gpu": gpu,
    }


def processor_name() -> str:
    """As Linux calls it."""
    return cpu_info("model name") or platform.processor() or platform.machine()


def vectors() -> str:
    """The widest vectors of the processor that torch uses, and bf16 if it multiplies that: one name fits several."""
    widest = torch.backends.cpu.get_cpu_capability()
    return f"{widest}, bf16" if has_bf16() else widest


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that compute; those that are not installed are left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
