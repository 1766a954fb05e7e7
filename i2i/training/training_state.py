"""The form of a training state (see `Checkpointer`), to which one from a file is held before anything changes.

One with the right hash may still be anybody's. Its plain values have the types below. Its tensors are dense, finite
and, where this training has one of the same name, of its shape.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Self

import torch
from annotated_types import Ge, Interval, Len
from pydantic import AfterValidator, BaseModel, ConfigDict, InstanceOf, TypeAdapter, ValidationError, model_validator
from torch import Tensor

from i2i.algorithms.algorithm import AnyAlgorithm
from i2i.errors import ModelError
from i2i.networks.blocks import finite
from i2i.training.distributed import ProcessGroup
from i2i.training.state_store import tensors
from i2i.training.step import TrainingStep

_MOST = 1 << 53
Text = InstanceOf[str]  # pydantic's own takes no names that are no UTF-8
Count = Annotated[int, Interval(ge=0, le=_MOST)]
Weights = dict[Text, InstanceOf[Tensor]]
_MEASURED = TypeAdapter(tuple[Count, dict[Text, float]])


def _row(*kinds: type) -> Callable[[list[Any]], list[Any]]:
    def check(row: list[Any]) -> list[Any]:
        if len(row) != len(kinds) or any(type(value) is not kind for value, kind in zip(row, kinds, strict=True)):
            raise ValueError(f"expected {', '.join(kind.__name__ for kind in kinds)}")
        return row

    return check


def _measured(row: list[Any]) -> list[Any]:
    _MEASURED.validate_python(tuple(row), strict=True)
    return row


def _averages(state: dict[str, Any]) -> dict[str, Any]:
    if any(isinstance(value, int) != (name == "updates") for name, value in state.items()):
        raise ValueError("expected the number of updates, and weights")
    return state


class _Form(BaseModel):
    model_config = ConfigDict(strict=True)


class _Optimizer(_Form):
    state: dict[int, Weights]
    param_groups: Annotated[list[dict[Text, Any]], Len(1, 1)]


class _LossScale(_Form):
    dynamic: bool
    scale: InstanceOf[Tensor]
    good: InstanceOf[Tensor]


class _Training(_Form):
    optimizers: dict[Text, _Optimizer]
    loss_scale: _LossScale
    bad: InstanceOf[Tensor]


class _Plateau(_Form):
    factor: Annotated[float, Interval(ge=0, le=1)]
    best: float
    waited: Count
    lr: float


class _NotLearning(_Form):
    begun: dict[Text, list[float]]
    recent: dict[Text, list[float]]
    steps: Count
    learnt: bool

    @model_validator(mode="after")
    def _same_losses(self) -> Self:
        if self.begun.keys() != self.recent.keys():
            raise ValueError("begun and recent are of different losses")
        return self


class _Health(_Form):
    saturated: dict[Text, list[float]]
    not_learning: _NotLearning
    episodes: dict[Text, Annotated[list[Any], AfterValidator(_row(int, int))]]
    past: list[Annotated[list[Any], AfterValidator(_row(str, int, int))]]
    skipped: Count
    bad_since: Annotated[list[Any], AfterValidator(_row(int, list))] | None


def _rows(rows: Tensor) -> Tensor:
    if rows.dim() != 2 or rows.shape[1] != 3 or rows.dtype != torch.int64:
        raise ValueError("expected whole numbers, three for each picture")
    return rows


class _Pictures(_Form):
    lists: dict[Text, Annotated[InstanceOf[Tensor], AfterValidator(_rows)]]
    epoch: Annotated[Count, Ge(1)]
    classes: list[list[list[int]] | None]
    files: dict[Text, Text]
    rules: dict[Text, Text]
    augmentation: Text


class _State(_Form):
    algorithm: Text
    direction: Text
    architecture: dict[Text, dict[Text, Any]]
    networks: dict[Text, Weights]
    training: _Training
    ema: Annotated[dict[Text, Weights | Count], AfterValidator(_averages)]
    pools: Annotated[list[dict[Text, list[InstanceOf[Tensor]]]], Len(1)]
    adapted: Weights
    skipped_images: list[Text]
    health: _Health
    pictures: _Pictures
    step: Count
    images_seen: Count
    plateau: _Plateau
    validation_due: bool
    validation_extra: bool
    measured: Annotated[list[Any], AfterValidator(_measured)] | None
    measured_extra: bool
    best_by: Text
    best_floor: Text
    above_floor: bool
    best_metric: float
    best_written: float
    record: float
    stalled: Count


def check_form(state: Mapping[str, Any], step: int) -> None:
    """Raises `ModelError` unless `state`, the one of `step`, has the form of a training state."""
    try:
        _State.model_validate(dict(state))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise _refused(step, f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}") from None
    except RecursionError:
        raise _refused(step, "it is nested too deeply") from None
    if state["step"] != step:
        raise _refused(step, f"step is {state['step']}")
    if state["images_seen"] < step:
        raise _refused(step, f"{state['images_seen']} images in {step} steps")
    if not all(map(_dense, tensors(state))):  # before a number of it is looked at
        raise _refused(step, "a tensor that is not there as a whole")
    if not finite(list(tensors(state))):
        raise _refused(step, "numbers that are not finite")


def _dense(tensor: Tensor) -> bool:
    whole = tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_complex()
    return whole and tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.element_size()


def require_names(step: int, what: str, saved: Iterable[str], own: Iterable[str]) -> None:
    """Raises `ModelError` unless `saved` has the names of `own`."""
    if different := sorted(map(str, set(saved) ^ set(own))):
        raise _refused(step, f"{what}: {different[0]} is missing on one side")


def check_shapes(step: int, what: str, saved: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Raises `ModelError` unless `saved` has tensors of the names, the shapes and the kinds of number of `own`."""
    require_names(step, what, saved, own)
    for name, tensor in own.items():
        check_kind(step, f"{what}.{name}", saved[name], tensor)
        if saved[name].shape != tensor.shape:
            raise _refused(step, f"{what}.{name}: {tuple(saved[name].shape)}, not {tuple(tensor.shape)}")


def check_kind(step: int, what: str, saved: Tensor, own: Tensor) -> None:
    """Raises `ModelError` if one holds whole numbers or truth values and the other does not."""
    if saved.is_floating_point() != own.is_floating_point() or (saved.dtype == torch.bool) != (own.dtype == torch.bool):
        raise _refused(step, f"{what}: {saved.dtype}, not {own.dtype}")


def check_optimizer(step: int, player: str, saved: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> None:
    """Raises `ModelError` unless these are the moments of the parameters of `optimizer`."""
    parameters: list[Tensor] = optimizer.param_groups[0]["params"]
    numbers = list(range(len(parameters)))
    if saved["param_groups"][0].get("params") != numbers or not saved["state"].keys() <= set(numbers):
        raise _refused(step, f"the moments of {player} are of other weights")
    for number, moments in saved["state"].items():
        shape = parameters[number].shape
        own = {"step": torch.zeros(()), "exp_avg": torch.empty(shape), "exp_avg_sq": torch.empty(shape)}
        check_shapes(step, f"moments of {player}", moments, own)


def check_images(step: int, images: Iterable[Tensor]) -> None:
    """Raises `ModelError` unless each is an image (C, H, W)."""
    if any(image.dim() != 3 or not image.is_floating_point() for image in images):
        raise _refused(step, "a pool holds what is no image")


def _refused(step: int, what: str) -> ModelError:
    return ModelError(
        f"the run's state of step {step} is none that i2i wrote: {what}. Remove its two files, state-{step:08d}.*, to "
        "go on from the one before, or use another --run"
    )


def check(step: int, state: dict[str, Any], train_step: TrainingStep, direction: str) -> None:
    """Raises `ModelError` unless `state`, that of `step`, is of this algorithm, direction and architecture."""
    check_form(state, step)
    check_same(state, train_step.algorithm, direction)
    _check_shapes(step, state, train_step)


def _check_shapes(step: int, state: dict[str, Any], train_step: TrainingStep) -> None:
    """Raises `ModelError` for a tensor of another shape than this training has."""
    algorithm = train_step.algorithm
    for name, network in algorithm.networks().items():
        check_shapes(step, f"networks.{name}", state["networks"][name], network.state_dict())
    translators = algorithm.translators()
    averages = {name: weights for name, weights in state["ema"].items() if name != "updates"}
    if state["ema"]:
        require_names(step, "ema", averages, translators)
    for name, weights in averages.items():
        check_shapes(step, f"ema.{name}", weights, translators[name].state_dict())
    optimizers, players = state["training"]["optimizers"], train_step.players
    require_names(step, "optimizers", optimizers, players)
    for name, player in players.items():
        check_optimizer(step, name, optimizers[name], player.optimizer)
    scalars = {"bad": state["training"]["bad"], **state["training"]["loss_scale"]}
    scalars = {name: value for name, value in scalars.items() if name != "dynamic"}
    check_shapes(step, "training", scalars, dict.fromkeys(("bad", "scale", "good"), torch.zeros(())))
    for name, value in algorithm.adapted().items():
        if name in (saved := state["adapted"]):
            check_shapes(step, "adapted", {name: saved[name]}, {name: value})
    for pools in state["pools"]:
        require_names(step, "pools", pools, algorithm.pools())
        check_images(step, [image for images in pools.values() for image in images])


def check_same(state: dict[str, Any], algorithm: AnyAlgorithm, direction: str) -> None:
    """Raises `ModelError` listing what differs between a state and the networks that are to go on from it.

    `direction` is the one in which `algorithm` sees the data.
    """
    if state.get("algorithm") != algorithm.name:
        raise ModelError(
            f"the run's state is of {state.get('algorithm')!r}, this is {algorithm.name!r}: use another --run"
        )
    if (was := state["direction"]) != direction:
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
        if (was := before.get(network, {}).get(key)) != value
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


def deal_pools(
    algorithm: AnyAlgorithm,
    saved: list[dict[str, list[torch.Tensor]]],
    group: ProcessGroup,
    one_size: bool = False,
) -> None:
    """Give this process its image pools; if there were more or fewer processes, its share of all of them.

    `one_size`: see `ImagePool.load_state`.
    """
    for name, pool in algorithm.pools().items():
        if len(saved) == group.world_size:
            images = saved[group.rank][name]
        else:
            images = [image for pools in saved for image in pools[name]][group.rank :: group.world_size]
        pool.load_state(images, group.device, one_size)
