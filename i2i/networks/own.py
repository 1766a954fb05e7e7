"""A network of your own, an `nn.Module` that was given to `i2i.train`, beside the networks with names.

Its weights stay as they are at the start, and its layers are never exchanged. A model file records the class of a
generator by name. Nothing imports that name: who loads the file gives the module again.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Interval, Len
from torch import Tensor, nn

from i2i.errors import ModelError, UsageError

OwnModule = nn.Module | Callable[[], nn.Module]
"""A module, which is copied, or a function without arguments that makes one."""


@dataclass(frozen=True)
class OwnConfig:
    """The facts about an own network: where its class was defined, its channels, the sizes that it takes."""

    kind: ClassVar[str] = "own"
    dropout: ClassVar[bool] = False

    module: Annotated[str, Len(0, 1000)] = ""
    in_channels: Annotated[int, Ge(1)] = 3
    out_channels: Annotated[int, Ge(1)] = 3
    size_multiple: Annotated[int, Interval(ge=1, le=4096)] = 1
    minimum_size: Annotated[int, Interval(ge=1, le=65_535)] = 1

    def build(self) -> nn.Module:
        raise ModelError(
            f"its generator is an own network, {self.module}, and no file brings code: give the module again, as in "
            "i2i.load_translator(path, generator=module)"
        )


@dataclass(frozen=True)
class Own:
    """Makes the networks of a training from what was given. `name` says where the class was defined."""

    make: Callable[[], nn.Module]
    name: str
    size_multiple: int
    minimum_size: int

    @classmethod
    def of(cls, given: OwnModule) -> "Own":
        """Raises `UsageError` for what is no module and makes none."""
        first = given if isinstance(given, nn.Module) else given()
        if not isinstance(first, nn.Module):
            raise UsageError(f"{given!r} makes a {type(first).__name__}; expected an nn.Module")
        name = f"{type(first).__module__}.{type(first).__qualname__}"
        multiple, minimum = (int(getattr(first, key, 1)) for key in ("size_multiple", "minimum_size"))
        return cls((lambda: copy.deepcopy(first)) if given is first else given, name, multiple, minimum)

    def config(self, in_channels: int, out_channels: int) -> OwnConfig:
        return OwnConfig(self.name, in_channels, out_channels, self.size_multiple, self.minimum_size)


class OwnNetwork(nn.Module):
    """`network` with a configuration, as the networks with names have one.

    Its code may use `view`, so that its weights and pictures stay in torch's usual memory format.
    """

    def __init__(self, network: nn.Module, config: OwnConfig) -> None:
        super().__init__()
        self.network, self.config = network, config

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.network(x.contiguous())
        return y

    def check(self, role: Literal["generator", "discriminator"], side: int) -> None:
        """Tries it on zeros of about `side` pixels. Raises `UsageError` unless a generator turns them into a picture of
        the same size, and a discriminator into logits, or a tuple of them."""
        config, was_training = self.config, self.training
        side = -(-max(side, config.minimum_size) // config.size_multiple) * config.size_multiple
        given, named = (1, config.in_channels, side, side), f"{role} {config.module}"
        try:
            with torch.no_grad():
                made: object = self.eval()(torch.zeros(given))
        except Exception as error:  # the code is the user's
            raise UsageError(f"{named}: does not take {given}: {type(error).__name__}: {error}") from error
        finally:
            self.train(was_training)
        kind, expected = type(made).__name__, (1, config.out_channels, side, side)
        if role == "discriminator":
            logits = made if isinstance(made, tuple | list) else [made]
            if not logits or not all(isinstance(one, Tensor) for one in logits):
                raise UsageError(
                    f"{named}: gives a {kind} for an image {given}; expected a tensor, or a tuple of tensors"
                )
        elif not isinstance(made, Tensor) or tuple(made.shape) != expected:
            found = tuple(made.shape) if isinstance(made, Tensor) else kind
            raise UsageError(
                f"{named}: gives {found} for a picture {given}; expected {expected}. If it takes only multiples of a "
                "number, set that as its attribute size_multiple"
            )
