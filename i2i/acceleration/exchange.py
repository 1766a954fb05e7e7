"""Networks that become faster in place: their layers are exchanged, or torch compiles them.

A faster layer is a subclass of the plain one, and a layer is exchanged by its class. It stays the same object:
parameters, state-dict keys, hooks and optimizers keep their references, and copies and pickles of the network work.
Anything else that a faster layer needs, it computes in `prepare` and gives back in `release`.
"""

import copy
from collections.abc import Sequence
from functools import cache
from typing import TypeVar

import torch
from torch import nn

from i2i.errors import UsageError
from i2i.networks import OwnNetwork, blocks
from i2i.networks.blocks import SpectralConv2d

BACKEND = "inductor"
# torch compiles a network once for each way to call it: with and without gradients of its weights and of its input, at
# each batch size. It counts the ways of all networks together and gives up after 8.
_MOST_WAYS = 64
Network = TypeVar("Network", bound=nn.Module)
Kind = TypeVar("Kind")


class Accelerated:
    """A faster layer. The plain layer is its last base class."""

    @classmethod
    def plain_class(cls) -> type[nn.Module]:
        """Returns the class of the layers that this class replaces."""
        base = cls.__bases__[-1]
        assert issubclass(base, nn.Module)
        return base

    @classmethod
    def accepts(cls, module: nn.Module) -> bool:
        """Returns whether to exchange `module`, which is of the plain class."""
        return True

    def prepare(self) -> None:
        """Computes from the parameters what the faster layer needs."""

    def release(self) -> None:
        """Deletes what `prepare` has made."""


def exchange(network: Network, layers: Sequence[type[Accelerated]]) -> Network:
    """Exchanges each plain layer of `network` for the first class of `layers` that accepts it, in place.

    An own network stays as it is.
    """
    if isinstance(network, OwnNetwork):
        return network
    for module in plain(network).modules():
        for layer in layers:
            if type(module) is layer.plain_class() and layer.accepts(module):
                become(module, layer).prepare()
                break
    return network


def plain(network: Network) -> Network:
    """Makes the layers of `network` plain again, in place."""
    for module in network.modules():
        if isinstance(module, Accelerated):
            module.release()
            become(module, module.plain_class())
    return network


def become(module: nn.Module, kind: type[Kind]) -> Kind:
    """Makes `module` a `kind`, with its attributes as they are, and returns it."""
    module.__class__ = kind  # type: ignore[assignment]
    assert isinstance(module, kind)
    return module


def shared_copy(network: Network) -> Network:
    """Returns a copy of `network` that holds the same parameters and buffers, not copies of them."""
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    return copy.deepcopy(network, dict(shared))


@cache
def check_compiler(device: torch.device) -> None:
    """Raises `UsageError` if torch cannot compile for `device` on this machine."""
    try:
        torch.compile(lambda x: x.sin() + 1, backend=BACKEND)(torch.ones(2, device=device))
    except Exception as error:  # torch's compilers raise whatever their tools do
        raise UsageError(
            f"compile = True: torch cannot compile for {device.type} here ({_shortly(error)}); install what it asks "
            "for (on a CPU a C++ compiler such as g++), or leave it out"
        ) from None


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
    blocks.update_power_iterations = torch.compiler.disable(blocks.update_power_iterations)


def refused(error: Exception) -> UsageError | None:
    """Returns the error to report if `error`, raised by a compiled network, comes from the compiler."""
    if not isinstance(error, torch._dynamo.exc.TorchDynamoException):
        return None
    return UsageError(f"compile = True: torch cannot compile this network ({_shortly(error)}); leave it out")


def _shortly(error: Exception) -> str:
    """Returns the first line of the message, and the second if the first ends with "raised:"."""
    first, *more = str(error).strip().splitlines() or [type(error).__name__]
    return f"{first} {more[0]}" if first.endswith("raised:") and more else first
