"""The description of a network in its model file, read without torch.

The same JSON document stands in a model file (metadata key `i2i`) and in the `config.json` of a folder: a
`ModelInfo` and, under `sha256`, the hash of the weights' bytes, by which a flipped bit is noticed.
"""

import json
import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Interval

from i2i import __version__
from i2i.config import from_mapping, to_mapping
from i2i.errors import ModelError, UsageError, check_word, nearest
from i2i.models.metadata import MAX_INFO_BYTES, naming, read_bounded, read_header, strict_json, without_controls

if TYPE_CHECKING:
    from torch import nn

    from i2i.images.palettes import Palette
    from i2i.networks import GeneratorConfig

FORMAT_VERSION = 1
DIRECTIONS = ("a2b", "b2a")
FROM_NOISE = ("dcgan",)  # networks that translate nothing
OWN = "own"  # a network from Python, whose code no file has
Direction = Literal["a2b", "b2a"]
Statistics = Literal["batch", "running"]  # those of networks.blocks, which needs torch
Encoding = Literal["pixels", "lab"]
CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
MAX_SIDE = 65_535  # the longest side of a picture that JPEG can say, in pixels
NOT_PAINTED = "a model of labels or of colours paints nothing"


@dataclass(frozen=True, kw_only=True)
class Training:
    """Where the weights come from. `dataset` is the name of the data set, never a path.

    `version` and `commit` are those of the i2i that trained: `describe` fills `version` in, and it is empty where
    it is not known; `commit` is empty unless i2i ran from a checkout. `teacher` is the SHA-256 of the weights of the
    generator that a student has learnt from. `columns` are the pictures that the run's sample grids show.
    """

    algorithm: str = ""
    dataset: str = ""
    steps: Annotated[int, Ge(0)] = 0
    images_seen: Annotated[int, Ge(0)] = 0
    version: str = ""
    commit: str = ""
    teacher: str = ""
    columns: tuple[str, ...] = ()
    metrics: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if "/" in self.dataset or "\\" in self.dataset:
            raise UsageError(f"dataset {self.dataset!r}: a name was expected, not a path")


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """The description of a network in its model file.

    `network` and `config` build it. It takes pictures of `input_domain` to `output_domain`, in `value_range`,
    height and width multiples of `size_multiple`. At translation, batch norm uses the `statistics` of the
    picture (`batch`) or of the training (`running`), and `dropout` says whether its noise, if it has any,
    stays on. `card` is what its users should know, line by line: data, recipe, numbers, limits.

    Labels on a side have a channel for each class, 1 where a pixel is of it, else -1: `input_labels` and
    `output_labels` are the classes' colours, `#rrggbb`, or `#` and their number if pictures hold indices. With
    `instance_edges` a further channel of the input says where things meet. With the
    `encoding` lab a picture's L* goes in and its a* and b* come out.

    A picture whose shorter side is longer than `paint_size` is translated at that size, and brought back to its own:
    strokes are so many pixels wide, and are to be seen. 0, for networks that paint nothing, leaves all as they are.

    `input_range` and `output_range` are the values, lowest and highest, that are -1 and 1 in the network, in the units
    of each side. None for pictures, whose values are those of their type.
    """

    network: str
    config: dict[str, Any]
    direction: Direction
    input_domain: str
    output_domain: str
    size_multiple: int
    value_range: tuple[float, float] = (-1.0, 1.0)
    statistics: Statistics = "batch"
    dropout: bool = False
    training: Training = field(default_factory=Training)
    licence: str = ""
    card: tuple[str, ...] = ()
    input_labels: tuple[str, ...] = ()
    output_labels: tuple[str, ...] = ()
    instance_edges: bool = False
    encoding: Encoding = "pixels"
    paint_size: Annotated[int, Interval(ge=0, le=MAX_SIDE)] = 0
    input_range: tuple[float, float] | None = None
    output_range: tuple[float, float] | None = None
    format_version: int = FORMAT_VERSION

    @property
    def plain(self) -> bool:
        """Returns whether the network takes and gives the planes of pictures, neither labels nor L*, a* and b*."""
        return not (self.input_labels or self.output_labels or self.encoding == "lab")

    @property
    def arrow(self) -> str:
        """The direction with its domains: `a2b (horse → zebra)`."""
        return f"{self.direction} ({self.input_domain} → {self.output_domain})"

    @property
    def in_units(self) -> bool:
        """Returns whether it takes or gives values in units."""
        return self.input_range is not None or self.output_range is not None

    def input_palette(self) -> "Palette | None":
        """The classes of its inputs; None if they are no labels."""
        return _palette(self.input_labels)

    def output_palette(self) -> "Palette | None":
        """The classes of its outputs; None if they are no labels."""
        return _palette(self.output_labels)

    def network_config(self) -> "GeneratorConfig":
        """The configuration, held to its limits. Raises `ModelError`. (This imports torch.)"""
        from i2i.networks import GENERATOR_KINDS, OwnConfig

        cls = {**GENERATOR_KINDS, OWN: OwnConfig}.get(self.network)
        if cls is None:
            known = ", ".join(GENERATOR_KINDS)
            hint = nearest(self.network, GENERATOR_KINDS)
            raise ModelError(f"unknown network {self.network!r}.{hint} Known: {known}.")
        try:
            config = from_mapping(cls, self.config, f"network {self.network}")
        except UsageError as error:
            raise ModelError(str(error)) from None
        if self.size_multiple != config.size_multiple:
            raise ModelError(f"size_multiple {self.size_multiple}; this {self.network} has {config.size_multiple}")
        in_channels, out_channels = config.in_channels, config.out_channels
        if self.instance_edges and not self.input_labels:
            raise ModelError("instance_edges: the input is no labels")
        for side, palette, channels in (
            ("input", self.input_palette(), in_channels - self.instance_edges),
            ("output", self.output_palette(), out_channels),
        ):
            if palette and len(palette) != channels:
                raise ModelError(f"{side}_labels: {len(palette)} classes; this network has {channels} channels")
        if self.encoding == "lab" and (
            (in_channels, out_channels) != (1, 2) or self.input_labels or self.output_labels
        ):
            raise ModelError(
                f"encoding lab: takes 1 channel (L*) to 2 (a*, b*), this network {in_channels} to {out_channels}"
            )
        if self.paint_size and not self.plain:
            raise ModelError(f"paint_size {self.paint_size}: {NOT_PAINTED}")
        return config


def describe(
    network: "nn.Module | GeneratorConfig",
    *,
    direction: Direction,
    input_domain: str = "",
    output_domain: str = "",
    dropout: bool = False,
    training: Training | None = None,
    input_palette: "Palette | None" = None,
    output_palette: "Palette | None" = None,
    **fields: Any,
) -> ModelInfo:
    """Returns the description of a generator, or of its configuration; `fields` are the others of `ModelInfo`.

    Domains are called A and B (the input of a GAN: noise) unless they have names. `dropout` has no effect on a network
    without any. A side with a palette has labels.
    """
    check_word("direction", direction, Direction)
    config: Any = getattr(network, "config", network)
    training = training or Training()
    dataset = without_controls(training.dataset)  # a folder's name, which can be anything
    return ModelInfo(
        network=config.kind,
        config=to_mapping(config),
        direction=direction,
        input_domain=input_domain or ("noise" if config.kind in FROM_NOISE else direction[0].upper()),
        output_domain=output_domain or direction[2].upper(),
        size_multiple=config.size_multiple,
        dropout=dropout and config.dropout,
        training=replace(training, dataset=dataset, version=training.version or __version__),
        input_labels=_labels(input_palette),
        output_labels=_labels(output_palette),
        **fields,
    )


def _labels(palette: "Palette | None") -> tuple[str, ...]:
    if palette is None:
        return ()
    return (f"#{len(palette)}",) if palette.indexed else tuple(f"#{r:02x}{g:02x}{b:02x}" for r, g, b in palette.colours)


def _palette(labels: tuple[str, ...]) -> "Palette | None":
    """Raises `ModelError` for what is neither colours nor a number of classes."""
    if not labels:
        return None
    from i2i.images.palettes import Palette, indexed  # here, as listing styles would wait for OpenCV

    if len(labels) == 1 and re.fullmatch(r"#\d{1,3}", labels[0]) and 2 <= int(labels[0][1:]) <= 255:
        return indexed(int(labels[0][1:]))
    if not 2 <= len(labels) <= 255 or not all(re.fullmatch("#[0-9a-f]{6}", label) for label in labels):
        raise ModelError(f"labels {labels[:3]}: expected 2 to 255 colours #rrggbb, or # and a number of classes")
    red_green_blue = [bytes.fromhex(label[1:]) for label in labels]
    return Palette("", tuple((r, g, b) for r, g, b in red_green_blue))


def read_info(path: Path | str) -> ModelInfo:
    """Returns the description in a model file, or in a folder with `config.json`, without its weights.

    Raises `ModelError` naming the file.
    """
    path = Path(path)
    if path.is_dir():
        path /= CONFIG_NAME
    with naming(path):
        return parse(read_text(path))[0]


def read_text(path: Path) -> str | bytes:
    """Returns the JSON text of a `config.json`, or in the metadata of a model file. Raises `ModelError`."""
    if path.name == CONFIG_NAME:
        return read_bounded(path, MAX_INFO_BYTES)
    metadata, _ = read_header(path)
    if "i2i" not in metadata:
        hint = f"; if it belongs to a {CONFIG_NAME}, give their folder"
        raise ModelError(f"has no metadata key 'i2i': safetensors, but not a model file of i2i{hint}")
    return metadata["i2i"]


def parse(text: str | bytes) -> tuple[ModelInfo, str]:
    """Returns the description in a JSON document, and the SHA-256 of the weights ("" if it has none).

    Raises `ModelError` for what is too long, too deep, of a newer version, or out of its limits.
    """
    values = strict_json(text)
    version = values.get("format_version")
    if type(version) is not int or version < 1:
        raise ModelError(f"format_version {version!r}; expected {FORMAT_VERSION}")
    if version > FORMAT_VERSION:
        raise ModelError(f"format_version {version}, this i2i {__version__} reads {FORMAT_VERSION}: upgrade i2i")
    digest = values.pop("sha256", "")
    if not isinstance(digest, str) or not re.fullmatch(r"(?:[0-9a-f]{64})?", digest):
        raise ModelError("sha256: expected 64 hexadecimal digits")
    try:
        training = values.get("training", {})
        if not isinstance(training, dict):
            raise ModelError("training: not a JSON object")
        origin = from_mapping(Training, training, "training")
        info = from_mapping(ModelInfo, values | {"training": origin})
    except (UsageError, TypeError) as error:
        raise ModelError(f"its description cannot be used: {error}") from None
    if tuple(info.value_range) != (-1.0, 1.0):
        raise ModelError(f"value_range {info.value_range}; format {FORMAT_VERSION} has (-1.0, 1.0)")
    for side, limits, labels in (
        ("input", info.input_range, info.input_labels),
        ("output", info.output_range, info.output_labels),
    ):
        if limits is None:
            continue
        if not (math.isfinite(limits[1] - limits[0]) and limits[0] < limits[1]):
            raise ModelError(f"{side}_range {limits}: expected two numbers, the lower one first")
        if labels or info.encoding == "lab":
            raise ModelError(f"{side}_range {limits}: this side holds labels or colours, and no values in units")
    return info, digest


def to_json(info: ModelInfo, sha256: str, indent: int | None = None) -> str:
    """Returns the JSON document that `parse` takes back."""
    values = to_mapping(info)
    for name in ("input_range", "output_range"):
        if values[name] is None:  # so that an earlier i2i reads files that have none
            del values[name]
    return json.dumps(values | {"sha256": sha256}, indent=indent)
