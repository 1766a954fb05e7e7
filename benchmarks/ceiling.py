"""The limits of the device, measured in the run that it is the limit of: convolutions, and reading memory."""

import time
from collections.abc import Callable, Iterable
from functools import partial

import torch
from measuring import CPU, WALL

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SHAPES = ((256, 64, 1), (256, 64, 4), (128, 128, 2))
"""Channels, side of the pictures, their number; 3×3 to as many channels, as in the body of a residual generator."""
ON_GPU = ((256, 64, 32), (512, 64, 32))
"""More of them, so that a GPU has enough to do."""
FORMATS = (torch.contiguous_format, torch.channels_last)
READ_BYTES = 1 << 28
SECONDS = 0.3
"""How long each shape is tried."""


def ceilings(precisions: Iterable[str], device: str, clock: str, backward: bool = False) -> dict[str, float]:
    """Precision → GFLOP/s, the best over shapes and memory formats; with `backward`, of forward and backward."""
    shapes = SHAPES + ON_GPU if device.startswith("cuda") else SHAPES
    return {
        name: max(
            convolution(DTYPES[name], shape, layout, device, clock, backward) for shape in shapes for layout in FORMATS
        )
        for name in precisions
    }


def convolution(
    dtype: torch.dtype,
    shape: tuple[int, int, int],
    layout: torch.memory_format,
    device: str,
    clock: str,
    backward: bool,
) -> float:
    """GFLOP/s of one convolution; backward takes the gradients of its input and of its weights."""
    channels, side, count = shape
    x = torch.randn(count, channels, side, side, device=device, dtype=dtype).contiguous(memory_format=layout)
    conv = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False).to(device, dtype).to(memory_format=layout)
    gradient = torch.randn_like(x)

    def forward() -> None:
        with torch.inference_mode():
            conv(x)

    def both() -> None:
        conv.zero_grad()
        torch.autograd.grad(conv(x.requires_grad_()), [x, conv.weight], gradient)

    flop = 2 * 9 * channels**2 * side**2 * count * (3 if backward else 1)
    return flop / 1e9 / fastest(both if backward else forward, device, clock)


def bandwidth(device: str, clock: str) -> float:
    """GB/s at which memory is read."""
    data = torch.ones(READ_BYTES // 4, device=device)
    return READ_BYTES / 1e9 / fastest(lambda: data.sum(), device, clock)


def fastest(work: Callable[[], object], device: str, clock: str) -> float:
    """The least seconds of `work` in several goes; after one that does not count."""
    now = {WALL: time.perf_counter, CPU: time.process_time}[clock]
    wait: Callable[[], object] = partial(torch.cuda.synchronize, device) if device.startswith("cuda") else lambda: None
    times: list[float] = []
    end = 0.0
    while len(times) < 4 or time.perf_counter() < end:
        begun = now()
        work()
        wait()
        times.append(now() - begun)
        end = end or time.perf_counter() + SECONDS
    return min(times[1:])


def best(*found: dict[str, float]) -> dict[str, float]:
    """The highest of several measurements, such as those before and after what they are the limit of."""
    return {name: max(one[name] for one in found) for name in found[0]}
