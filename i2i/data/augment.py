"""`--augment`: the user's own pipeline of albumentations, applied to training crops after crop and flip.

A pipeline is a list of transforms in a YAML file or a configuration, a file that `A.save` wrote, or an `A.Compose`:

    - Rotate: {limit: 10, border_mode: BORDER_REFLECT_101}
    - OneOf: [GaussianBlur, {MotionBlur: {blur_limit: 7}}]

Both pictures of a pair get the same draws, of colours and noise too. Labels go along as masks: each pixel takes the
class of its nearest, and a pixel from outside the picture has no label. Pictures of 16 bits are float32 meanwhile.

This file differs from albumentations in four points. `Compose(seed=)` depends on the worker, and all its transforms
begin with the same number; here each sample sets one generator, from which all draw. An unknown argument is a warning
there, and an error here. `A.load` builds any class that the process knows; here only transforms of albumentations that
read no file and run no other code. `fill_mask` is 0 there, which is a class.
"""

import inspect
import json
import random
import re
import warnings
from collections.abc import Sequence
from typing import Any

import albumentations as A
import cv2
import numpy as np

from i2i import images
from i2i.errors import InputError, UsageError, nearest
from i2i.images import Pixels
from i2i.images.palettes import VOID
from i2i.plain_yaml import read_yaml_or_list
from i2i.urls import path_of

Step = tuple[str, dict[str, Any]]
"""A transform: its name and arguments. `transforms` of a composition are steps themselves."""

_COMPOSITIONS = {kind.__name__: kind for kind in (A.Compose, A.Sequential, A.OneOf, A.SomeOf, A.RandomOrder)}
_BASES = {"BasicTransform", "DualTransform", "ImageOnlyTransform"}
_NAME = "__class_fullname__"
_LEFT_TO_US = {"additional_targets", "is_check_shapes"}  # arguments of a written `Compose`
_FOREIGN = {"read_fn", "font_path", "metadata_key", "reference_images"}  # these read files or need more pictures
_CONSTANT = re.compile(r"(BORDER|INTER)_[A-Z0-9_]+")
_WORDS = {"true": True, "false": False}
_FAILURES = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError, cv2.error)
_TARGETS = {"other": "image", "labels": "mask", "other_labels": "mask"}
"""The names under which a pipeline gets pictures, beside `image`."""


class Augmentation:
    """A pipeline of albumentations whose draws follow from a seed.

    `value` is an option's: the path of a file, or a pipeline as JSON. Raises `UsageError` naming the file, the
    transform and the argument.
    """

    def __init__(self, value: str) -> None:
        inline = value[:1] in ("[", "{")
        self.source = "augment" if inline else f"augment = {value}"
        written = _from_json(value) if inline else read_yaml_or_list(path_of(value))
        try:
            self.steps = _steps(written)
            self._pipeline = _compose([_built(step) for step in self.steps])
        except UsageError as error:
            raise UsageError(f"{self.source}: {error}") from None

    @property
    def text(self) -> str:
        """The pipeline as JSON, the same wherever it came from."""
        return json.dumps(self.steps)

    def __call__(self, seed: int, pictures: Sequence[Pixels], labels: Sequence[bool]) -> list[Pixels]:
        """Crops of one size, (H, W, C) uint8 or uint16, all changed alike; `labels` says which hold classes.

        Raises `InputError` where a transform fails or changes a size.
        """
        try:
            return _applied(self._pipeline, seed, pictures, labels)
        except _FAILURES as error:
            raise InputError(f"{self.source}: {_first_line(error)}") from None

    def check(self, height: int, width: int, sides: Sequence[tuple[int, bool]]) -> None:
        """Tries each transform, and then all, on crops of that size that are changed together. `sides` has their
        channels, and whether they hold labels. Raises `UsageError` naming the transform."""
        self._try(height, width, sides)
        if len(set(sides)) == 2 and not any(labels for _, labels in sides):  # equal pictures show unequal draws
            self._try(height, width, [(3, False)] * 2)

    def _try(self, height: int, width: int, sides: Sequence[tuple[int, bool]]) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (height, width, max(count for count, _ in sides)), np.uint8)
        pictures = [noise[..., :count] & 1 if labels else noise[..., :count] for count, labels in sides]
        tried = [(name, _built((name, given | {"p": 1.0}))) for name, given in _leaves(self.steps)]
        for name, transform in [*tried, ("all transforms together", self._pipeline)]:
            try:
                found = _applied(_compose([transform]), 0, pictures, [labels for _, labels in sides])
                _check_use(found, sides)
            except _FAILURES as error:
                crops = " and ".join(
                    "labels" if labels else f"{count} channel{'s'[: count - 1]}" for count, labels in sides
                )
                raise UsageError(
                    f"{self.source}: {name}: with crops of {width}x{height}, {crops}: {_first_line(error)}"
                ) from None


def _from_json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"augment = {text[:80]!r}: neither the path of a file nor JSON: {error}") from None


def _steps(written: object) -> list[Step]:
    """The transforms of a file: a list, or the mapping that `A.save` writes."""
    if isinstance(written, dict):
        name, arguments = whole = _step(_shortened(written.get("transform")))
        return list(arguments["transforms"]) if name == "Compose" and arguments.get("p", 1) == 1 else [whole]
    if not isinstance(written, list) or not written:
        raise UsageError("expected a list of transforms, such as `- Rotate: {limit: 10}`")
    return [_step(one) for one in written]


def _shortened(written: object) -> dict[str, Any]:
    """A transform as `A.to_dict` writes it, in the form of a list."""
    if not isinstance(written, dict) or not isinstance(written.get(_NAME), str):
        raise UsageError("expected a list of transforms, or a file that `A.save` wrote")
    package, _, name = written[_NAME].rpartition(".")
    if package and not package.startswith("albumentations"):
        raise UsageError(f"{written[_NAME]}: only transforms of albumentations are accepted")
    given = {key: value for key, value in written.items() if key != _NAME}
    if name not in _COMPOSITIONS:
        kind = _kind(name)
        # it also writes arguments that only classes above take, and the 0 that masks get by default
        above = {argument for parent in kind.__mro__[1:-1] for argument in inspect.signature(parent).parameters}
        dropped = above - set(inspect.signature(kind).parameters)
        dropped |= {"fill_mask"} if _fills_masks(kind) and given.get("fill_mask") == 0 else set()
        return {name: {key: value for key, value in given.items() if key not in dropped}}
    for of_boxes in ("bbox_params", "keypoint_params"):
        if given.pop(of_boxes, None):
            raise UsageError(f"{of_boxes}: there are no boxes and no points in a training; leave it out")
    if isinstance(inner := given.get("transforms"), list):
        given["transforms"] = [_shortened(one) for one in inner]
    return {name: {key: value for key, value in given.items() if key not in _LEFT_TO_US}}


def _fills_masks(kind: type) -> bool:
    """Whether masks get 0 where no `fill_mask` is given."""
    fill_mask = inspect.signature(kind).parameters.get("fill_mask")
    return fill_mask is not None and fill_mask.default == 0


def _step(written: object) -> Step:
    """A transform of a list: `Name`, `Name: {argument: value}`, or for a composition `Name: [transforms]`."""
    if isinstance(written, str):
        written = {written: {}}
    if not isinstance(written, dict) or len(written) != 1:
        raise UsageError(f"{written!r}: expected one transform, such as `Rotate: {{limit: 10}}`")
    ((name, given),) = written.items()
    arguments = {"transforms": given} if isinstance(given, list) else given or {}
    if not isinstance(arguments, dict):
        raise UsageError(f"{name}: {arguments!r}: expected its arguments, such as `{{p: 0.5}}`")
    if name in _COMPOSITIONS:
        inner = arguments.get("transforms")
        if not isinstance(inner, list) or not inner:
            raise UsageError(f"{name}: expected a list of transforms in it")
        arguments = arguments | {"transforms": [_step(one) for one in inner]}
        known = {"transforms", "p", *(("n", "replace") if name in ("SomeOf", "RandomOrder") else ())}
    else:
        known = set(inspect.signature(_kind(name)).parameters)
    for argument in arguments:
        if argument not in known:
            raise UsageError(
                f"{name}: unknown argument {argument!r}.{nearest(str(argument), known)} "
                f"Known: {', '.join(sorted(known))}"
            )
    return name, {key: _value(value) for key, value in arguments.items()}


def _kind(name: str) -> type[A.BasicTransform]:
    """The class of a transform by its name."""
    kind = vars(A).get(name)
    if not (isinstance(kind, type) and issubclass(kind, A.BasicTransform)) or name in _BASES:
        known = [*_COMPOSITIONS, *(one for one, found in vars(A).items() if isinstance(found, type))]
        raise UsageError(f"{name}: no transform of albumentations.{nearest(str(name), known)}")
    if kind is A.Lambda or _FOREIGN & set(inspect.signature(kind).parameters):
        raise UsageError(f"{name}: reads files or runs code, which a pipeline may not")
    return kind


def _value(value: object) -> Any:
    """The meaning of a word of YAML: true, false, or a constant of OpenCV."""
    if isinstance(value, list):
        return [_value(one) for one in value]
    if isinstance(value, dict):
        return {key: _value(one) for key, one in value.items()}
    if isinstance(value, str) and _CONSTANT.fullmatch(value):
        return getattr(cv2, value, value)
    return _WORDS.get(value, value) if isinstance(value, str) else value


def _built(step: Step) -> A.BasicTransform | A.BaseCompose:
    """The transform. Raises `UsageError` naming the arguments whose values are wrong."""
    name, arguments = step
    if name in _COMPOSITIONS:
        arguments = arguments | {"transforms": [_built(inner) for inner in arguments["transforms"]]}
        kind: Any = _COMPOSITIONS[name]
    else:
        kind = _kind(name)
        if _fills_masks(kind):
            arguments = {"fill_mask": VOID} | arguments
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            built: A.BasicTransform | A.BaseCompose = kind(**arguments)
    except _FAILURES as error:
        raise UsageError(f"{name}: {_explained(error)}") from None
    if isinstance(built, A.BasicTransform) and "image" not in built.targets:
        raise UsageError(f"{name}: is for volumes, and changes no pictures")
    return built


def _explained(error: Exception) -> str:
    """The arguments that are wrong, each with its value and the reason, of an error of pydantic's or another."""
    details = getattr(error.__cause__, "errors", None)
    if details is None:
        return _first_line(error)
    reasons: dict[str, list[str]] = {}
    for one in details():
        named = f"{one['loc'][0]} = {one['input']!r}" if one["loc"] else "its arguments"
        reasons.setdefault(named, []).append(str(one["msg"]).removeprefix("Value error, "))
    return "; ".join(f"{named}: {' or '.join(texts)}" for named, texts in reasons.items())


def _compose(transforms: Sequence[A.BasicTransform | A.BaseCompose]) -> A.Compose:
    return A.Compose(list(transforms), additional_targets=_TARGETS, mask_interpolation=cv2.INTER_NEAREST)


def _leaves(steps: Sequence[Step]) -> list[Step]:
    """All transforms that are no compositions."""
    found = []
    for name, arguments in steps:
        found += _leaves(arguments["transforms"]) if name in _COMPOSITIONS else [(name, arguments)]
    return found


def _applied(pipeline: A.Compose, seed: int, pictures: Sequence[Pixels], labels: Sequence[bool]) -> list[Pixels]:
    """All crops after the pipeline, in their own type. Raises `ValueError` for a result that does not fit its crop."""
    deep = any(one.dtype != np.uint8 for one in pictures)
    free = {False: ["other", "image"], True: ["other_labels", "labels"]}
    names = [free[kind].pop() for kind in labels]
    given = {
        name: np.array(images.with_depth(one, np.float32) if deep and not kind else one, order="C")
        for name, one, kind in zip(names, pictures, labels, strict=True)
    }
    canvas = {} if "image" in given else {"image": np.zeros((*pictures[0].shape[:2], 3), np.uint8)}
    pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
    made = pipeline(**given, **canvas)  # which takes no masks without an image
    for name, before in given.items():
        _check_result(before, made[name])
    for name, kind in zip(names, labels, strict=True):
        if kind:
            edges = made[name][..., 1:]
            edges[edges > 1] = 0  # there are no instances outside the picture
    return [images.with_depth(made[name], one.dtype.type) for name, one in zip(names, pictures, strict=True)]


def _check_result(before: Pixels, after: Pixels) -> None:
    """Raises `ValueError` if a transform changed the size, the channels or the type of a crop."""
    if after.shape[:2] != before.shape[:2]:
        raise ValueError(f"changes their size, here to {'x'.join(map(str, after.shape[1::-1]))}; leave it out")
    if after.shape != before.shape or after.dtype != before.dtype:
        raise ValueError(f"changes their channels or type, here to {tuple(after.shape)} {after.dtype}; leave it out")


def _check_use(found: Sequence[Pixels], sides: Sequence[tuple[int, bool]]) -> None:
    """Raises `ValueError` for new classes among labels of 0 and 1, and for equal pictures that are equal no more."""
    for crop, (_, labels) in zip(found, sides, strict=True):
        if labels and not np.isin(crop, (0, 1, VOID)).all():
            raise ValueError("changes the classes of labels")
    if len(set(sides)) < len(sides) and not np.array_equal(found[0], found[1]):
        raise ValueError("draws for each picture of a pair by itself")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
