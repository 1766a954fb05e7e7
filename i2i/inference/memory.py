"""The memory that a picture takes in a network, estimated first: a machine that runs out of it ends the process."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from i2i.networks import GeneratorConfig

_CGROUP = Path("/sys/fs/cgroup")
_SIDE = 256
UNWATCHED = 1 << 28
# convolutions hold copies of what they take and give, in another layout: measured 1.31 to 1.56 (docs/lab-book.md)
_LAID_OUT_ANEW = {"torch": 1.5, "openvino": 1.5, "onnx": 2.2}
# the picture itself: 8 bits and 32, before and after, padded
_BESIDE = 60.0
# and for each channel of the first layer, beside the columns of the last one's kernels, of which there are 21
_MOST_OF_A_CHANNEL = 50.0
_COLUMNS = 21 * 4 * 2.0


def bytes_per_pixel(config: "GeneratorConfig", runtime: str = "torch") -> float:
    """Estimates the bytes that a picture takes in that network for each of its pixels, without computing it."""
    from i2i.acceleration.cost import peak_bytes

    side = max(_SIDE, -(-config.minimum_size // config.size_multiple) * config.size_multiple)
    return _BESIDE + _LAID_OUT_ANEW[runtime] * peak_bytes(config, side, runtime == "torch") / side**2


def surely_fits(channels: int, height: int, width: int) -> bool:
    """Returns whether a picture is so small that it fits in any network whose first layer has so many channels."""
    return (_BESIDE + _COLUMNS + _MOST_OF_A_CHANNEL * channels) * height * width < UNWATCHED


def of_pairs(attention: int, height: int, width: int) -> int:
    """Returns the bytes of all pairs of places, scores and weights, in a runtime that holds them all at once.

    Self-attention stands after `attention` halvings; 0 is none.
    """
    return 8 * ((height >> attention) * (width >> attention)) ** 2 if attention else 0


def fits(per_pixel: float, height: int, width: int, beside: int = 0) -> bool:
    """Returns whether a picture of that size and `beside` more bytes fit into the free memory, if that is known."""
    need = per_pixel * height * width + beside
    return need < UNWATCHED or (there := available()) is None or need <= there


def too_much(config: "GeneratorConfig", height: int, width: int, reason: str, there: int | None = None) -> str:
    """Returns the message for a picture that does not fit and, for that `reason`, cannot be streamed.

    `there`: the bytes that are free where the network runs, by default those of the machine.
    """
    need, there = bytes_per_pixel(config) * height * width, there if there is not None else available() or 0
    fitting = int(min(height, width) * min(1.0, there / need) ** 0.5) // 64 * 64
    hint = f"; --size {fitting} would fit" if 0 < fitting < min(height, width) else "; try a smaller --size"
    needs = f"{width}x{height} pixels need about {need / 1e9:.1f} GB here, {there / 1e9:.1f} GB are free"
    return f"{needs}, and {reason}{hint}"


def available() -> int | None:
    """Returns the bytes of memory that this process can still have; None where Linux does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None
    try:  # the limit of a container
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
        facts = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        # cached files count as used, and are given up when there is need
        cached = sum(int(facts.get(name, 0)) for name in ("inactive_file", "active_file"))
    except (OSError, ValueError):
        return free
    return min(free, limit - max(0, used - cached))
