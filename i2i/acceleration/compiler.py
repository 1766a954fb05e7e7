"""torch's compiler: what makes the code, whether it can here, and networks compiled in place."""

from functools import cache

import torch
from torch import nn

from i2i.errors import UsageError

BACKEND = "inductor"
# A network is compiled once for every way in which it is called: with and without gradients of its weights and of its
# input, at one batch size or another. Torch counts them together for all networks, and gives up after 8.
_WAYS = 64


@cache
def check_compiler(device: torch.device) -> None:
    """Raises `UsageError` if torch cannot compile for `device` here."""
    try:
        torch.compile(_trial, backend=BACKEND)(torch.ones(2, device=device))
    except Exception as error:  # torch's compilers raise whatever their tools do
        raise UsageError(
            f"compile = True: torch cannot compile for {device.type} here ({_shortly(error)}); install what it asks "
            "for (on a CPU a C++ compiler such as g++), or leave out --compile"
        ) from None


def _trial(x: torch.Tensor) -> torch.Tensor:
    return x.sin() + 1


def compile_in_place(network: nn.Module, dynamic: bool | None = None) -> None:
    """Let torch compile `network` at its first call; for each size anew, or if `dynamic` is None from the second size
    on for any. It stays the module that it is, and its dropout draws the numbers that it drew."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _WAYS)
    options = {"fallback_random": True} if BACKEND == "inductor" else None
    network.compile(backend=BACKEND, dynamic=dynamic, options=options)


def refused(error: Exception) -> UsageError | None:
    """What to say of an error in a compiled network, if it comes from the compiler."""
    if not isinstance(error, torch._dynamo.exc.TorchDynamoException):
        return None
    return UsageError(f"compile = True: torch cannot compile this network ({_shortly(error)}); leave out --compile")


def _shortly(error: Exception) -> str:
    """The first line, and the next if that says no more than that it was raised."""
    first, *more = str(error).strip().splitlines() or [type(error).__name__]
    return f"{first} {more[0]}" if first.endswith("raised:") and more else first
