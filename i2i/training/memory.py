"""What a resumed run needs: collected into a training state, and put back if it belongs to the networks at hand."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from i2i.algorithms.algorithm import Algorithm
from i2i.errors import ModelError
from i2i.training.damaged import Damaged
from i2i.training.distributed import Processes
from i2i.training.ema import Averages
from i2i.training.pictures_seen import PicturesSeen
from i2i.training.state_form import check_form, check_images, check_optimizer, check_shapes, require_names
from i2i.training.step import TrainingStep
from i2i.training.validation import Validation
from i2i.training.watch import Watch


class Memory:
    """Everything that changes while an algorithm trains, but for the step."""

    def __init__(
        self,
        algorithm: Algorithm,
        direction: str,
        train_step: TrainingStep,
        averages: Averages | None,
        validation: Validation,
        damaged: Damaged,
        watch: Watch,
        pictures: PicturesSeen,
        one_size: bool,
        processes: Processes,
    ) -> None:
        """`one_size`: whether all samples are of one size."""
        self.algorithm, self.direction, self.train_step = algorithm, direction, train_step
        self.averages, self.validation, self.damaged = averages, validation, damaged
        self.watch, self.pictures, self.one_size, self.processes = watch, pictures, one_size, processes

    def collect(self, step: int, images_seen: int) -> dict[str, Any]:
        """The state; in the first process, with every process's pools."""
        pools = self.processes.gather({name: pool.state() for name, pool in self.algorithm.pools().items()})
        return {
            "algorithm": self.algorithm.name,
            "direction": self.direction,
            "architecture": self.algorithm.architecture(),
            "networks": {name: net.state_dict() for name, net in self.algorithm.networks().items()},
            "training": self.train_step.state(),
            "ema": self.averages.state() if self.averages else {},
            "pools": pools,
            "adapted": dict(self.algorithm.adapted()),
            "damaged": self.damaged.state(),
            "watch": self.watch.state(),
            "pictures": self.pictures.state(),
            "step": step,
            "images_seen": images_seen,
            **self.validation.state(),
        }

    def restore(
        self, step: int, state: dict[str, Any], data_before: Path | None = None, pairs_before: Path | None = None
    ) -> list[str]:
        """Go on from `state`, that of `step`; returns what is different now in the pictures, a sentence each.

        `data_before` is where the data set was, `pairs_before` where the pairs were, if elsewhere. Raises `ModelError`
        if it is of another algorithm, direction, architecture or data set, or no such state; nothing has changed then.
        """
        check_form(state, step)
        check_same(state, self.algorithm, self.direction)
        self._check_shapes(step, state)
        told = self.pictures.compare(state.get("pictures"), state["images_seen"], data_before, pairs_before)
        for name, network in self.algorithm.networks().items():
            network.load_state_dict(state["networks"][name])
        self.train_step.load_state(state["training"])
        if self.averages:
            self.averages.load_state(state["ema"])
        deal_pools(self.algorithm, state["pools"], self.processes, self.one_size)
        for name, value in self.algorithm.adapted().items():
            if name in state.get("adapted", {}):
                value.copy_(state["adapted"][name])
        self.validation.load_state(state)
        self.damaged.load_state(state.get("damaged", []))
        self.watch.load_state(state.get("watch"))
        return told

    def _check_shapes(self, step: int, state: dict[str, Any]) -> None:
        """What `check_same` leaves: everything but the shapes of networks."""
        for name, network in self.algorithm.networks().items():
            check_shapes(step, f"networks.{name}", state["networks"][name], network.state_dict())
        translators = self.algorithm.translators()
        averages = {name: weights for name, weights in state["ema"].items() if name != "updates"}
        if state["ema"]:
            require_names(step, "ema", averages, translators)
        for name, weights in averages.items():
            check_shapes(step, f"ema.{name}", weights, translators[name].state_dict())
        optimizers, players = state["training"]["optimizers"], self.train_step.players
        require_names(step, "optimizers", optimizers, players)
        for name, player in players.items():
            check_optimizer(step, name, optimizers[name], player.optimizer)
        scalars = {"bad": state["training"]["bad"], **state["training"]["loss_scale"]}
        scalars = {name: value for name, value in scalars.items() if name != "dynamic"}
        check_shapes(step, "training", scalars, dict.fromkeys(("bad", "scale", "good"), torch.zeros(())))
        for name, value in self.algorithm.adapted().items():
            if name in (saved := state.get("adapted", {})):
                check_shapes(step, "adapted", {name: saved[name]}, {name: value})
        for pools in state["pools"]:
            require_names(step, "pools", pools, self.algorithm.pools())
            check_images(step, [image for images in pools.values() for image in images])


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
    if reason := algorithm.refusal(before):
        raise ModelError(reason)
    own_networks = algorithm.networks()
    differences = [
        f"{network}.{key} was {was!r}, is now {value!r}"
        for network, config in now.items()
        if network in before or network in own_networks  # features that are compared from now on are no other ones
        for key, value in config.items()
        # an option that is younger than the state was what is its default now
        if (was := before.get(network, {}).get(key, _default(own_networks.get(network), key))) != value
    ]
    differences += [f"{name} was trained too" for name in state["networks"] if name not in own_networks]
    for name, net in own_networks.items():
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


def _default(network: nn.Module | None, key: str) -> Any:
    """None also for what is compared, but no network of the algorithm."""
    return None if network is None else getattr(type(network.config)(), key, None)


def deal_pools(
    algorithm: Algorithm,
    saved: list[dict[str, list[torch.Tensor]]],
    processes: Processes,
    one_size: bool = False,
) -> None:
    """Give this process its image pools; if there were more or fewer processes, its share of all of them.

    `one_size`: see `ImagePool.load_state`.
    """
    for name, pool in algorithm.pools().items():
        if len(saved) == processes.world_size:
            images = saved[processes.rank][name]
        else:
            images = [image for pools in saved for image in pools[name]][processes.rank :: processes.world_size]
        pool.load_state(images, processes.device, one_size)
