"""Several styles as one: each translates the picture, and their results are mixed in linear light."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

from i2i.config import to_mapping
from i2i.errors import ModelError, UsageError, as_typed
from i2i.images import Pixels, with_depth
from i2i.images.colours import from_linear, to_linear
from i2i.images.picture import Depth
from i2i.inference.loaded_model import LoadedModel
from i2i.inference.options import mix_as_text, parse_mix
from i2i.inference.runtimes import Device, Planes
from i2i.inference.translator import Translator, load_translator
from i2i.models.info import ModelInfo, Training

if TYPE_CHECKING:
    from torch import Tensor

    from i2i.images.large import Bands
    from i2i.inference.streaming import RowSink


def load_mix(mix: Mapping[str, float] | str, **options: Any) -> Translator:
    """Loads several styles as one translator: `i2i.load_mix({"monet": 0.6, "vangogh": 0.4})("photo.jpg")`.

    * `mix`: a dict of style → weight, or the same as text, `monet:0.6,vangogh:0.4`. Styles are named as for
      `load_translator`. Weights are above 0; they are divided by their sum.
    * `options`: those of `load_translator`, for all styles.

    Each style translates the picture, and the results are mixed in linear light. Raises `UsageError` for weights that
    are not above 0, for models of labels or colorizations, for styles with different channels, and for styles with
    different paint sizes unless you give `paint_size`; otherwise as `load_translator`.
    """
    weights = parse_mix(mix)
    return mixed({style: load_translator(style, **options) for style in weights}, weights)


def mixed(translators: Mapping[str, Translator], weights: Mapping[str, float]) -> Translator:
    """Returns the translators of several styles as one, as `load_mix` does; a single one as it is.

    Raises `UsageError` for styles that do not go together.
    """
    _check_alike(translators)
    if len(translators) == 1:
        return next(iter(translators.values()))
    total = math.fsum(weights.values())
    parts = [Part(style, weights[style] / total, used.model) for style, used in translators.items()]
    paint_size = next(iter(translators.values())).paint_size
    size = sum(used.weights_bytes for used in translators.values())
    return Translator.of_model(MixedModel(parts), paint_size, mix_as_text(weights), size)


def facts(translator: Translator) -> dict[str, dict[str, Any]]:
    """Returns the share and the description of each style of a mix; nothing for a single style."""
    parts = translator.model.parts if isinstance(translator.model, MixedModel) else ()
    return {part.style: {"share": part.share, "model": to_mapping(part.model.info)} for part in parts}


def mix_name(weights: Mapping[str, float]) -> str:
    """Returns a mix for people and for folders: `monet 60 % + vangogh 40 %`."""
    total = math.fsum(weights.values())
    return " + ".join(f"{style} {round(100 * weight / total)} %" for style, weight in weights.items())


def _check_alike(translators: Mapping[str, Translator]) -> None:
    facts: dict[str, tuple[int, int, int]] = {}
    for style, used in translators.items():
        if used.info.in_units:
            raise UsageError(f"mix: {style} is a model of values in units; only models of pictures are mixed")
        if not used.info.plain:
            kind = "labels" if used.info.input_labels or used.info.output_labels else "colours alone"
            raise UsageError(f"mix: {style} is a model of {kind}; only models from pictures to pictures are mixed")
        facts[style] = used.model.spec.in_channels, used.model.spec.out_channels, used.paint_size
    (first, one), *others = facts.items()
    for style, other in others:
        if other[:2] != one[:2]:
            raise UsageError(
                f"mix: {first} takes {one[0]} channels and gives {one[1]}, {style} takes {other[0]} and gives "
                f"{other[1]}; expected the same"
            )
        if other[2] != one[2]:
            side = max(one[2], other[2])
            raise UsageError(
                f"mix: {first} paints at {one[2]} pixels and {style} at {other[2]}; choose one for both: "
                f"{as_typed('paint_size', side)}"
            )


class Part(NamedTuple):
    """One style of a mix and its share, 0 to 1."""

    style: str
    share: float
    model: LoadedModel


class MixedModel(LoadedModel):
    """The models of several styles as one. `parts` say which."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = tuple(parts)
        models = [part.model for part in parts]
        first, specs = models[0], [model.spec for model in models]
        spec = replace(
            first.spec,
            size_multiple=math.lcm(*(spec.size_multiple for spec in specs)),
            minimum_size=max(spec.minimum_size for spec in specs),
            bytes_per_pixel=None,
        )
        notices = tuple(dict.fromkeys(notice for model in models for notice in model.notices))
        noisy = any(model.noisy for model in models)
        super().__init__(_MixedRuntime(parts), _info(parts), spec, seed=first.seed, noisy=noisy, notices=notices)

    @cached_property
    def config(self) -> NoReturn:
        raise _no_network()

    @cached_property
    def network(self) -> NoReturn:
        raise _no_network()

    def digest(self) -> str:
        return repr([(part.share, part.model.digest()) for part in self.parts])

    def by_bands(self, planes: Pixels) -> Pixels:
        shares, results = [part.share for part in self.parts], (part.model.by_bands(planes) for part in self.parts)
        return self._finite(_mixed(shares, results))

    def bands(self, bands: "Bands", sink: "RowSink", depth: Depth) -> None:
        """One style after another; the sum so far lies in a file without a name, as large as the picture in float32."""
        from i2i.images.large import Canvas

        with Canvas(bands.height, bands.width, self.spec.out_channels, np.float32) as sums:
            for number, (_, share, model) in enumerate(self.parts):

                def take(top: int, rows: Pixels, number: int = number, share: float = share) -> None:
                    linear, encoded = _curves(rows.shape[2])
                    light = np.float32(share) * linear(with_depth(rows, np.float32))
                    if number > 0:
                        light += sums.rows(top, top + len(rows))
                    if number + 1 < len(self.parts):
                        sums.fill(top, light)
                    else:
                        sink(top, with_depth(encoded(light), depth))

                model.bands(bands, take, depth)

    def _fits(self, height: int, width: int) -> bool:
        return all(part.model._fits(height, width) for part in self.parts)


def _no_network() -> ModelError:
    return ModelError("a mix of styles has no network of its own, so neither configuration nor file; use its styles")


def _info(parts: Sequence[Part]) -> ModelInfo:
    """The description of the first model, without what is true of that one alone."""
    mixed = " + ".join(f"{part.share:.3g} {part.model.info.output_domain}" for part in parts)
    licences = "; ".join(dict.fromkeys(part.model.info.licence for part in parts if part.model.info.licence))
    card = tuple(f"{part.share:.3g} {part.style}: {line}" for part in parts for line in part.model.info.card)
    info = parts[0].model.info
    return replace(info, output_domain=mixed, licence=licences, card=card, training=Training())


class _MixedRuntime:
    def __init__(self, parts: Sequence[Part]) -> None:
        self._shares, self._runtimes = [part.share for part in parts], [part.model.runtime for part in parts]
        self.name = ", ".join(dict.fromkeys(runtime.name for runtime in self._runtimes))
        self.precision = ", ".join(dict.fromkeys(runtime.precision for runtime in self._runtimes))
        self.device: Device = self._runtimes[0].device

    def run(self, batch: Planes, seed: int | None = None) -> Planes:
        return _mixed(self._shares, (runtime.run(batch, seed) for runtime in self._runtimes))

    def tensor(self, batch: "Tensor", seed: int | None = None) -> "Tensor":
        import torch

        return torch.from_numpy(self.run(batch.cpu().numpy(), seed)).to(batch.device)


def _mixed(shares: Iterable[float], results: Iterable[Pixels]) -> Pixels:
    """Planes (…, C, H, W) in [-1, 1] mixed by their shares."""
    light: Pixels = np.zeros(1, np.float32)
    for share, planes in zip(shares, results, strict=True):
        linear, encoded = _curves(planes.shape[-3])
        light = light + share * linear((planes + 1) / 2)
    return encoded(light) * 2 - 1


def _curves(channels: int) -> "tuple[Callable[[Pixels], Pixels], Callable[[Pixels], Pixels]]":
    """To the values that are mixed, and back: colours in linear light, channels of data as they are."""
    return (to_linear, from_linear) if channels in (1, 3) else (lambda values: values, lambda values: values)
