"""Whether a training state belongs to the networks at hand, and how its image pools are dealt out."""

from typing import Any

import torch

from i2i.algorithms.algorithm import Algorithm
from i2i.errors import ModelError
from i2i.training.distributed import Processes


def check_same(state: dict[str, Any], algorithm: Algorithm, direction: str) -> None:
    """Raises `ModelError` listing what differs between a state and the networks that are to go on from it.

    `direction` is the one in which `algorithm` sees the data.
    """
    if state.get("algorithm") != algorithm.name:
        raise ModelError(
            f"the run's state is of {state.get('algorithm')!r}, this is {algorithm.name!r}: use another --run"
        )
    if (was := state.get("direction", direction)) != direction:
        raise ModelError(
            f"direction was {was!r}, is now {direction!r}: every network would go on with the other domain's "
            f"pictures. Give --direction {was}, or another --run; --init-from takes weights alone."
        )
    before, now = state["architecture"], algorithm.architecture()
    differences = [
        f"{network}.{key} was {before.get(network, {}).get(key)!r}, is now {value!r}"
        for network, config in now.items()
        for key, value in config.items()
        if before.get(network, {}).get(key) != value
    ]
    for name, net in algorithm.networks().items():
        saved = state["networks"].get(name, {})
        own = net.state_dict()
        differences += [f"{name}: {key} is missing on one side" for key in own.keys() ^ saved.keys()]
        differences += [
            f"{name}.{key}: {tuple(saved[key].shape)}, now {tuple(own[key].shape)}"
            for key in own.keys() & saved.keys()
            if saved[key].shape != own[key].shape
        ]
    if differences:
        more = f" and {len(differences) - 10} more" if len(differences) > 10 else ""
        raise ModelError(
            f"the run's state is of another architecture: {'; '.join(differences[:10])}{more}. Give the options that "
            "the run was started with (its config.yaml), or another --run; --init-from takes weights alone."
        )


def deal_pools(algorithm: Algorithm, saved: list[dict[str, list[torch.Tensor]]], processes: Processes) -> None:
    """Give this process its image pools; if there were more or fewer processes, its share of all of them."""
    for name, pool in algorithm.pools().items():
        if len(saved) == processes.world_size:
            images = saved[processes.rank][name]
        else:
            images = [image for pools in saved for image in pools[name]][processes.rank :: processes.world_size]
        pool.load_state(images, processes.device)
