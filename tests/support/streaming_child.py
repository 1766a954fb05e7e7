"""A picture of some size by bands of rows in a process of its own: python streaming_child.py FOLDER SIDE WIDTH …

Prints JSON: the peak of anonymous memory, the seconds, the bytes of the spool, and the processor's seconds for each
million pixels (those of the clock are `wall`). With `whole` behind the width a picture of 1024² as a whole is timed in
the same process, before and after; with `bf16` all is computed in that.
"""

import json
import re
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from i2i.images.large import Canvas, write_large
from i2i.images.picture import Picture, Pixels
from i2i.inference.streaming import spool_bytes, stream_bands
from i2i.inference.torch_runtime import TorchRuntime
from i2i.networks import create_generator
from i2i.networks.blocks import for_translation

PERIOD = 251


class Made:
    """A picture that is computed where it is read."""

    def __init__(self, side: int) -> None:
        self.height = self.width = side

    def read(self, top: int, bottom: int) -> Picture:
        y, x = np.ogrid[top:bottom, : self.width]
        return Picture(np.stack([(y * x) % PERIOD, (y + x) % PERIOD, (y // 9) % PERIOD + 0 * x], -1).astype(np.uint8))


class Peak(threading.Thread):
    """The most anonymous memory that this process has had."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes = 0

    def run(self) -> None:
        while True:
            found = re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())
            self.bytes = max(self.bytes, int(found[1]) * 1024 if found else 0)
            time.sleep(0.05)


def whole(network: torch.nn.Module, precision: str) -> float:
    """Processor seconds for each million pixels of a picture of 1024² as a whole, the better of two."""
    runtime = TorchRuntime(network, torch.device("cpu"), precision)
    picture = (torch.rand(1, 3, 1024, 1024) * 2 - 1).numpy()
    seconds = []
    for _ in range(2):
        began = time.process_time()
        runtime.run(picture)
        seconds.append(time.process_time() - began)
    return min(seconds) / 1024**2 * 1e6


def main(folder: Path, side: int, width: int, more: set[str]) -> None:
    torch.manual_seed(0)
    network = for_translation(create_generator("resnet_9blocks", width=width))
    result: dict[str, Any] = {"spool_bytes": spool_bytes(network, side, side, torch.float16)}  # type: ignore[arg-type]
    precision, autocast = ("bf16", torch.bfloat16) if "bf16" in more else ("fp32", None)
    before = whole(network, precision) if "whole" in more else 0
    peak = Peak()
    peak.start()
    began, used = time.perf_counter(), time.process_time()
    with Canvas(side, side, 3, np.uint8, folder) as canvas:

        def put(top: int, rows: Pixels) -> None:
            canvas.fill(top, rows)

        stream_bands(network, Made(side), put, folder=folder, autocast=autocast)
        result["streamed"] = (time.process_time() - used) / side**2 * 1e6
        result["wall"] = (time.perf_counter() - began) / side**2 * 1e6
        write_large(folder / "out.tif", canvas, Picture(np.empty((0, 0, 3), np.uint8)), "TIFF")
    result |= {"seconds": time.perf_counter() - began, "peak_bytes": peak.bytes}
    if before:
        result["whole"] = [before, whole(network, precision)]
    print(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), set(sys.argv[4:]))
