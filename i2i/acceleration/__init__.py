"""The same networks, faster.

`i2i.networks` writes a network once, plainly, with torch's layers. `accelerate` exchanges layers of a built network for
faster ones, in place: the parameters, the state-dict keys and (up to rounding) the results stay. `plain` takes that
back.
"""

from typing import Literal

import torch

from i2i.acceleration.exchange import Network, plain, shared_copy
from i2i.acceleration.inference import Engine, accelerate_inference
from i2i.acceleration.training import accelerate_training, recompute

__all__ = ["accelerate", "plain", "recompute", "shared_copy"]


def accelerate(
    network: Network,
    purpose: Literal["training", "inference"],
    *,
    engine: Engine = "eager",
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Network:
    """Exchanges the layers of `network` for faster ones, in place, and returns it.

    For inference, `network` is in its mode of translation (`for_translation`), and the layers follow from how it will
    run: the `engine`, the `device` and the `dtype`, by default those of its parameters. Layers for training need to
    know nothing: each chooses its way when it is called.
    """
    match purpose:
        case "training":
            return accelerate_training(network)
        case "inference":
            return accelerate_inference(network, engine, device, dtype)
    raise ValueError(f"purpose = {purpose!r}: expected training or inference")
