"""The memory that a picture takes in a network, estimated first: a machine that runs out of it ends the process."""

from typing import TYPE_CHECKING

from i2i.machine import available_memory

if TYPE_CHECKING:
    from i2i.networks import GeneratorConfig

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
    from i2i.acceleration.inference import peak_bytes

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


def fits(per_pixel: float, height: int, width: int, extra: int = 0) -> bool:
    """Whether a picture of that size, and `extra` more bytes, fit into the memory that is free."""
    need = per_pixel * height * width + extra
    return need < UNWATCHED or need <= available_memory()


def too_much(config: "GeneratorConfig", height: int, width: int, reason: str, there: int | None = None) -> str:
    """Returns the message for a picture that does not fit and, for that `reason`, cannot be streamed.

    `there`: the bytes that are free where the network runs, by default those of the machine.
    """
    need, there = bytes_per_pixel(config) * height * width, available_memory() if there is None else there
    largest = int(min(height, width) * min(1.0, there / need) ** 0.5) // 64 * 64
    hint = f"; --size {largest} would fit" if 0 < largest < min(height, width) else "; try a smaller --size"
    needs = f"{width}x{height} pixels need about {need / 1e9:.1f} GB here, {there / 1e9:.1f} GB are free"
    return f"{needs}, and {reason}{hint}"
