"""Folders as a training run leaves them, made by hand."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from i2i.images import Picture, write

COLUMNS, ROWS, CELL = 3, 2, 24


def cell(step: int, row: int, column: int) -> np.ndarray[Any, Any]:
    """A smooth cell with a colour of its own, as JPEG-like coders keep it."""
    colour = [(40 + 70 * column) % 256, (30 + 90 * row) % 256, (step * 37) % 200]
    return np.full((CELL, CELL, 3), colour, np.uint8)


def grid(step: int, rows: int = ROWS, columns: int = COLUMNS) -> np.ndarray[Any, Any]:
    """Cells with white lines of two pixels around them."""
    pixels = np.full((rows * (CELL + 2) + 2, columns * (CELL + 2) + 2, 3), 255, np.uint8)
    for row in range(rows):
        for column in range(columns):
            top, left = 2 + row * (CELL + 2), 2 + column * (CELL + 2)
            pixels[top : top + CELL, left : left + CELL] = cell(step, row, column)
    return pixels


def step_line(step: int, **losses: float | None) -> dict[str, Any]:
    losses = losses or {"G_gan": 1 / step, "G_L1": 30 + step % 7}
    return {"kind": "step", "step": step, "images": step, "epoch": 1, "lr": 0.0002, "losses": losses}


def validation_line(step: int, **metrics: float) -> dict[str, Any]:
    return {"kind": "validation", "step": step, "epoch": 1, "metrics": metrics or {"fake_B/ssim": 0.1 + step / 1e4}}


def write_run(
    folder: Path, lines: Sequence[Any] = (), samples: Sequence[int] = (), config: dict[str, Any] | None = None
) -> Path:
    """A run with these log lines (objects, or bytes as they are) and sample grids of these steps."""
    folder.mkdir(parents=True, exist_ok=True)
    log = b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)
    (folder / "log.jsonl").write_bytes(log)
    options = {"lambda_L1": 100.0, "direction": "a2b", "samples": ROWS} if config is None else config
    (folder / "config.yaml").write_text("".join(f"{name}: {json.dumps(value)}\n" for name, value in options.items()))
    (folder / "status.json").write_text(json.dumps({"status": "running", "step": 10, "time": "2026-01-01T00:00:00"}))
    (folder / "environment.json").write_text(json.dumps({"i2i": "0.1.0", "device": "cpu"}))
    (folder / "command.txt").write_text("scripts/train_pix2pix.py --data data\n")
    if samples:
        (folder / "samples").mkdir()
        names = {"columns": ["real_A", "fake_B", "real_B"], "inputs": ROWS}
        (folder / "samples" / "columns.json").write_text(json.dumps(names))
    for step in samples:
        write(folder / "samples" / f"step-{step:08d}.png", Picture(grid(step)))
    return folder


def usual_run(folder: Path) -> Path:
    """A run of a hundred steps, with validations, samples, and an evaluation beside it."""
    lines = [step_line(step) for step in range(1, 101)]
    lines += [validation_line(step) for step in (50, 100)]
    lines += [{"kind": "health", "step": 60, "name": "saturated", "text": "the discriminator wins"}]
    write_run(folder, lines, samples=(1, 50, 100))
    values = {"a2b (last)": 41.5, "a2b-best": 39.25}
    results = [{"name": name, "measures": {"fid": {"value": fid, "pictures": 3}}} for name, fid in values.items()]
    evaluation = {"results": results, "protocol": {"resizer": "area", "seed": 0}}
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    return folder
