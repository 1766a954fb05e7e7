"""torch's compiler: its backend, whether it works on this machine, and networks compiled in place."""

from functools import cache

import torch
from torch import nn

from i2i.errors import UsageError
from i2i.networks import spectral
from i2i.networks.spectral import SpectralConv2d

BACKEND = "inductor"
# torch compiles a network once for each way to call it: with and without gradients of its weights and of its input, at
# each batch size. It counts the ways of all networks together and gives up after 8.
_MOST_WAYS = 64


@cache
def check_compiler(device: torch.device) -> None:
    """Raises `UsageError` if torch cannot compile for `device` on this machine."""
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
    """Makes torch compile `network` at its first call: for each size anew, or, if `dynamic` is None, for all sizes
    from the second on. It stays the same module, and its dropout draws the same numbers."""
    if any(isinstance(module, SpectralConv2d) for module in network.modules()):
        _keep_out_power_iterations()
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MOST_WAYS)
    options = {"fallback_random": True} if BACKEND == "inductor" else None
    network.compile(backend=BACKEND, dynamic=dynamic, options=options)


@cache
def _keep_out_power_iterations() -> None:
    """Keeps the power iterations of spectral normalisation out of compiled code, where inductor computes other numbers.

    torch takes such a mark on a function alone. `networks` do not make it themselves, as it imports the compiler.
    """
    spectral.update_power_iterations = torch.compiler.disable(spectral.update_power_iterations)


def refused(error: Exception) -> UsageError | None:
    """Returns the error to report if `error`, raised by a compiled network, comes from the compiler."""
    if not isinstance(error, torch._dynamo.exc.TorchDynamoException):
        return None
    return UsageError(f"compile = True: torch cannot compile this network ({_shortly(error)}); leave out --compile")


def _shortly(error: Exception) -> str:
    """Returns the first line of the message, and the second if the first ends with "raised:"."""
    first, *more = str(error).strip().splitlines() or [type(error).__name__]
    return f"{first} {more[0]}" if first.endswith("raised:") and more else first
