"""The form of a training state (see `Checkpointer`), to which one from a file is held before anything changes.

One with the right hash may still be anybody's. Its plain values have the types below. Its tensors are dense, finite
and, where this training has one of the same name, of its shape.
"""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, get_type_hints

import torch
from annotated_types import Ge, Len
from pydantic import AfterValidator, InstanceOf, ValidationError
from torch import Tensor

from i2i.algorithms.algorithm import AnyAlgorithm
from i2i.config import from_mapping, to_mapping
from i2i.errors import I2IError, ModelError, as_typed
from i2i.networks.blocks import finite
from i2i.training.health import Episodes
from i2i.training.run_folder import Changes
from i2i.training.state_store import Count, Kept, Text, tensors
from i2i.training.step import TrainingStep
from i2i.training.validation import Measured

Weights = dict[Text, InstanceOf[Tensor]]


def _averages(state: dict[str, Any]) -> dict[str, Any]:
    if any(isinstance(value, int) != (name == "updates") for name, value in state.items()):
        raise ValueError("expected the number of updates, and weights")
    return state


def _rows(rows: Tensor) -> Tensor:
    if rows.dim() != 2 or rows.shape[1] != 3 or rows.dtype != torch.int64:
        raise ValueError("expected whole numbers, three for each picture")
    return rows


class _Optimizer(Kept):
    state: dict[int, Weights]
    param_groups: Annotated[list[dict[Text, Any]], Len(1, 1)]


class _LossScale(Kept):
    dynamic: bool
    scale: InstanceOf[Tensor]
    good: InstanceOf[Tensor]


class _Training(Kept):
    optimizers: dict[Text, _Optimizer]
    loss_scale: _LossScale
    bad: InstanceOf[Tensor]


class _Pictures(Kept):
    lists: dict[Text, Annotated[InstanceOf[Tensor], AfterValidator(_rows)]]
    epoch: Annotated[Count, Ge(1)]
    classes: list[list[list[int]] | None]
    files: dict[Text, Text]
    rules: dict[Text, Text]
    augmentation: Text


class _State(Measured):
    algorithm: Text
    direction: Text
    architecture: dict[Text, dict[Text, Any]]
    networks: dict[Text, Weights]
    training: _Training
    ema: Annotated[dict[Text, Weights | Count], AfterValidator(_averages)]
    pools: Annotated[list[dict[Text, list[InstanceOf[Tensor]]]], Len(1)]
    adapted: Weights
    skipped_images: list[Text]
    health: Episodes
    pictures: _Pictures
    step: Count
    images_seen: Count
    best_by: Text
    best_floor: Text
    best_metric: float
    best_written: float


def check(
    step: int, state: dict[str, Any], train_step: TrainingStep, direction: str, changes: Changes | None = None
) -> None:
    """Raises `ModelError` unless `state`, that of `step`, is of this algorithm, direction and architecture.

    `changes` are the options that differ from those of the run so far.
    """
    _check_form(step, state)
    check_same(state, train_step.algorithm, direction, changes)
    _check_tensors(step, state, train_step)


def _check_form(step: int, state: Mapping[str, Any]) -> None:
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


def _check_tensors(step: int, state: dict[str, Any], train_step: TrainingStep) -> None:
    """Raises `ModelError` for tensors of other names, shapes or kinds of number than this training has."""
    algorithm, saved = train_step.algorithm, state["training"]
    translators = algorithm.translators()
    if averages := state["ema"]:
        _check_names(step, "ema", averages, ["updates", *translators])
        for name, network in translators.items():
            _check_alike(step, f"ema.{name}", averages[name], network.state_dict())
    _check_names(step, "optimizers", saved["optimizers"], train_step.players)
    for name, player in train_step.players.items():
        _check_moments(step, name, saved["optimizers"][name], player.parameters)
    scalars = {"bad": saved["bad"], "scale": saved["loss_scale"]["scale"], "good": saved["loss_scale"]["good"]}
    _check_alike(step, "training", scalars, dict.fromkeys(scalars, torch.zeros(())))
    adapted = {name: value for name, value in algorithm.adapted().items() if name in state["adapted"]}
    _check_alike(step, "adapted", {name: state["adapted"][name] for name in adapted}, adapted)
    for pools in state["pools"]:
        _check_names(step, "pools", pools, algorithm.pools())
        if any(image.dim() != 3 or not image.is_floating_point() for images in pools.values() for image in images):
            raise _refused(step, "a pool holds what is no image")


def _check_moments(step: int, player: str, saved: Mapping[str, Any], parameters: Sequence[Tensor]) -> None:
    numbers = list(range(len(parameters)))
    if saved["param_groups"][0].get("params") != numbers or not saved["state"].keys() <= set(numbers):
        raise _refused(step, f"the moments of {player} are of other weights")
    for number, moments in saved["state"].items():
        like = torch.empty(parameters[number].shape)
        own = {"step": torch.zeros(()), "exp_avg": like, "exp_avg_sq": like}
        _check_alike(step, f"moments of {player}", moments, own)


def _check_names(step: int, what: str, saved: Iterable[str], own: Iterable[str]) -> None:
    if different := sorted(set(saved) ^ set(own)):
        raise _refused(step, f"{what}: {different[0]} is missing on one side")


def _check_alike(step: int, what: str, saved: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    if found := _differences(what, saved, own):
        raise _refused(step, found[0])


def _differences(what: str, saved: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """The names, the shapes and the kinds of number in which `saved` differs from `own`."""
    found = [f"{what}: {name} is missing on one side" for name in sorted(saved.keys() ^ own.keys())]
    for name, was, now in ((name, saved[name], own[name]) for name in own if name in saved):
        if was.shape != now.shape:
            found.append(f"{what}.{name}: {tuple(was.shape)}, now {tuple(now.shape)}")
        elif was.is_floating_point() != now.is_floating_point() or (was.dtype == torch.bool) != (
            now.dtype == torch.bool
        ):
            found.append(f"{what}.{name}: {was.dtype}, now {now.dtype}")
    return found


def _refused(step: int, what: str) -> ModelError:
    return ModelError(
        f"the run's state of step {step} is none that i2i wrote: {what}. Remove its two files, state-{step:08d}.*, to "
        f"go on from the one before, or use another {as_typed('run')}"
    )


def check_same(state: dict[str, Any], algorithm: AnyAlgorithm, direction: str, changes: Changes | None = None) -> None:
    """Raises `ModelError` listing what differs between a state and the networks that are to go on from it.

    `direction` is the one in which `algorithm` sees the data. Those of `changes` that are the reason come first.
    """
    if state.get("algorithm") != algorithm.name:
        raise ModelError(
            f"this run was trained by {state.get('algorithm')!r}, not by {algorithm.name!r}: use another "
            f"{as_typed('run')}"
        )
    if (was := state["direction"]) != direction:
        raise ModelError(
            f"direction was {was!r}, is now {direction!r}: every network would go on with the other domain's "
            f"pictures. Give {as_typed('direction', was)}, or another {as_typed('run')}; {as_typed('init_from')} takes "
            "weights alone."
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
    if not differences:  # those of tensors only follow from them
        for name, network in own_networks.items():
            differences += _differences(name, state["networks"].get(name, {}), network.state_dict())
    if differences:
        raise _another_architecture(differences, changes or {}, algorithm)


def _another_architecture(differences: Sequence[str], changes: Changes, algorithm: AnyAlgorithm) -> ModelError:
    reasons, hints = _shaping(changes, algorithm), get_type_hints(type(algorithm.options))
    shown = "; ".join(differences[:3]) + (f" and {len(differences) - 3} more" if len(differences) > 3 else "")
    way = f"or another {as_typed('run')}. To start a new run from its weights, use {as_typed('init_from')}."
    if not reasons:
        return ModelError(f"this run has another architecture: {shown}. Give the options of its config.yaml, {way}")
    what = "; ".join(f"{name} was {changes[name][0]!r}, is now {changes[name][1]!r}" for name in reasons)
    typed = " ".join(as_typed(name, changes[name][0], is_switch=hints.get(name) is bool) for name in reasons)
    return ModelError(f"{what}: this run has another architecture. Give {typed}, {way}", f"Its networks: {shown}")


def _shaping(changes: Changes, algorithm: AnyAlgorithm) -> list[str]:
    """The options among `changes` without which the networks would be those of before: networks are built anew to see.

    An option is exchanged among the options of before, or else among those of now. One that goes with neither depends
    on others that shape the networks, and so counts too.
    """
    options = to_mapping(algorithm.options)

    def built(values: Mapping[str, Any]) -> dict[str, Any] | None:
        with contextlib.suppress(I2IError):  # options that contradict each other, a file that is gone
            chosen = from_mapping(type(algorithm.options), {**options, **values})
            return type(algorithm)(chosen, *algorithm.channels(chosen)).architecture()
        return None

    before, now = ({name: values[side] for name, values in changes.items()} for side in (0, 1))
    sides = (before, now, built(before)), (now, before, algorithm.architecture())

    def shapes(name: str) -> bool:
        for one, other, whole in sides:
            if whole is not None and (exchanged := built(one | {name: other[name]})) is not None:
                return exchanged != whole
        return True

    return list(filter(shapes, changes))
