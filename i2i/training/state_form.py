"""The form of a training state: whatever is read from one was checked here, once and before anything is changed.

A state with the right hash may still be anybody's. Its plain values are held to the types below; its tensors are dense,
finite and, where this training has one of the same name, of the same shape.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Self

import torch
from annotated_types import Ge, Interval, Len
from pydantic import AfterValidator, BaseModel, ConfigDict, InstanceOf, TypeAdapter, ValidationError, model_validator
from torch import Tensor

from i2i.errors import ModelError
from i2i.networks.blocks import finite
from i2i.training.state import tensors

_MOST = 1 << 53
Text = InstanceOf[str]  # pydantic's own takes no names that are no UTF-8
Count = Annotated[int, Interval(ge=0, le=_MOST)]
Weights = dict[Text, InstanceOf[Tensor]]
_MEASURED = TypeAdapter(tuple[Count, dict[Text, float] | float])
_LEFT_OUT: Any = None  # by an older i2i: the default is never looked at


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
    dynamic: bool = _LEFT_OUT
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
    lr: float = _LEFT_OUT


class _NotLearning(_Form):
    begun: dict[Text, list[float]]
    recent: dict[Text, list[float]]
    steps: Count
    learnt: bool
    fallen: Count = _LEFT_OUT

    @model_validator(mode="after")
    def _same_losses(self) -> Self:
        if self.begun.keys() != self.recent.keys():
            raise ValueError("begun and recent are of different losses")
        return self


class _Flat(_Form):
    crops: list[bool]
    found: list[Annotated[list[Any], AfterValidator(_row(int, int))]]


class _Watch(_Form):
    saturated: dict[Text, list[float]]
    not_learning: _NotLearning
    flat: _Flat
    spells: dict[Text, Annotated[list[Any], AfterValidator(_row(int, int))]]
    past: list[Annotated[list[Any], AfterValidator(_row(str, int, int))]]
    skipped: Count
    blamed: list[Text]
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
    rules: dict[Text, Text] = _LEFT_OUT


class _State(_Form):
    algorithm: Text
    direction: Text = _LEFT_OUT
    architecture: dict[Text, dict[Text, Any]]
    networks: dict[Text, Weights]
    training: _Training
    ema: Annotated[dict[Text, Weights | Count], AfterValidator(_averages)]
    pools: Annotated[list[dict[Text, list[InstanceOf[Tensor]]]], Len(1)]
    adapted: Weights = _LEFT_OUT
    damaged: list[Text] = _LEFT_OUT
    watch: _Watch | None = _LEFT_OUT
    pictures: _Pictures = _LEFT_OUT
    step: Count
    images_seen: Count
    plateau: _Plateau
    validation_due: bool
    validation_extra: bool = _LEFT_OUT
    measured: Annotated[list[Any], AfterValidator(_measured)] | None = _LEFT_OUT
    measured_extra: bool = _LEFT_OUT
    best_by: Text = _LEFT_OUT
    best_floor: Text = _LEFT_OUT
    above_floor: bool = _LEFT_OUT
    best_metric: float = _LEFT_OUT
    best_written: float = _LEFT_OUT
    record: float = _LEFT_OUT
    stalled: Count = _LEFT_OUT


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
