"""One picture through a model in a process of its own: python stream_child.py JSON

`Task` says what. Prints JSON: the seconds, and the peak of anonymous memory from before the picture is taken in hand.
"""

import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import timed
from plain_translating import plain_network
from torch import Tensor, nn

from i2i.images import Picture, Pixels, from_planes, to_planes
from i2i.inference.streaming import stream_bands
from i2i.inference.torch_runtime import TorchRuntime
from i2i.models import model_file
from i2i.networks.blocks import for_translation

KEEPS = {"fp32": torch.float32, "fp16": torch.float16}
AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Task:
    """The picture in the file `picture` (.npy), repeated to `side` px; the result goes to `out` as plain bytes.

    `way` is `plain` or `whole` (all of it through the plain network or through torch's runtime), `bands` (whose spool
    keeps values as `keep`, in memory up to `in_memory` bytes) or `tiles` (of `tile` px, one by one, through torch's
    runtime). Results are float32 in [0, 1], or with `rounded` 8 bits.
    """

    model: str
    picture: str
    out: str
    side: int
    way: str
    keep: str = "fp32"
    precision: str = "fp32"
    device: str = "cpu"
    tile: int = 256
    in_memory: int = 1 << 28
    rounded: bool = False


class Repeated:
    """A picture as often as it takes to fill a square of `side`; only the rows that are asked for are in memory."""

    def __init__(self, picture: Pixels, side: int) -> None:
        self.picture = picture
        self.height = self.width = side

    def read(self, top: int, bottom: int) -> Picture:
        rows = self.picture[np.arange(top, bottom) % len(self.picture)]
        return Picture(rows[:, np.arange(self.width) % self.picture.shape[1]])


class Peak(threading.Thread):
    """The most anonymous memory that this process has had, looked at 20 times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes = 0

    def run(self) -> None:
        while True:
            self.look()
            time.sleep(0.05)

    def look(self) -> None:
        found = re.search(r"RssAnon:\s+(\d+)", STATUS.read_text(encoding="utf-8"))
        self.bytes = max(self.bytes, int(found[1]) * 1024 if found else 0)


def main() -> None:
    task = Task(**json.loads(sys.argv[1]))
    work = prepared(task)
    peak = Peak()
    peak.start()
    seconds = timed(work)
    peak.look()
    print(json.dumps(seconds | {"peak_mb": peak.bytes / 1e6}))


def prepared(task: Task) -> Callable[[], None]:
    """The function that is timed: from the picture's pixels to the result in its file."""
    network, info = model_file.load(task.model)
    for_translation(network, info.statistics, info.dropout)
    pixels = np.load(task.picture)
    picture = Repeated(pixels, task.side)
    if task.way == "bands":
        network = network.to(task.device)
        bands(network, Repeated(pixels, 64), replace(task, side=64, out=os.devnull))  # once before it counts
        return lambda: bands(network, picture, task)
    run: Callable[[Any], Any]
    if task.way == "plain":
        run = plain_run(plain_network(Path(task.model)).to(task.device), task.device)
    else:
        run = TorchRuntime(network, torch.device(task.device), task.precision).run
    run(np.zeros((1, 3, 64, 64), np.float32))  # once before it counts
    return lambda: whole(run, picture, task)


def plain_run(network: nn.Module, device: str) -> Callable[[Any], Any]:
    """(1, 3, H, W) to the same, arrays."""

    def run(planes: Any) -> Any:
        with torch.no_grad():
            result: Tensor = network(torch.from_numpy(planes).to(device))
        return result.cpu().numpy()

    return run


def bands(network: nn.Module, picture: Repeated, task: Task) -> None:
    """By bands of rows, as `translate.py` does with what is too large."""
    with Path(task.out).open("wb") as file:

        def take(top: int, rows: Pixels) -> None:
            file.write(rows.tobytes())

        stream_bands(
            network,
            picture,
            take,
            depth(task),
            keep=KEEPS[task.keep],
            autocast=AUTOCAST[task.precision],
            device=task.device,
            in_memory=task.in_memory,
        )


def whole(run: Callable[[Any], Any], picture: Repeated, task: Task) -> None:
    """All of it at once, or tile by tile."""
    step = task.tile if task.way == "tiles" else task.side
    pixels = picture.read(0, task.side).pixels
    result = np.empty(pixels.shape, depth(task))
    for top in range(0, task.side, step):
        for left in range(0, task.side, step):
            part = np.s_[top : top + step, left : left + step]
            result[part] = from_planes(run(to_planes(pixels[part])[None])[0], depth(task))
    Path(task.out).write_bytes(result.tobytes())


def depth(task: Task) -> Any:
    """The type of the result's numbers."""
    return np.uint8 if task.rounded else np.float32


if __name__ == "__main__":
    main()
