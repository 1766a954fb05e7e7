"""The exchange of a network's layers for faster ones, in place.

A faster layer is a subclass of the plain one, and a layer is exchanged by its class. It stays the same object:
parameters, state-dict keys, hooks and optimizers keep their references, and copies and pickles of the network work.
Anything else that a faster layer needs, it computes in `prepare` and gives back in `release`.
"""

import copy
from collections.abc import Sequence
from typing import TypeVar

from torch import nn

from i2i.networks.own import OwnNetwork

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
