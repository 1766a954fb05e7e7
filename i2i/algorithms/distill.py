"""A small generator that learns from a large one: Li, Lin, Ding, Liu, Zhu, Han, "GAN Compression: Efficient
Architectures for Interactive Conditional GANs", CVPR 2020 (arXiv:2003.08936); Ren, Wu, Xiao, Yang, "Online
Multi-Granularity Distillation for GAN Compression", ICCV 2021 (arXiv:2108.06908).

| here | papers |
|---|---|
| `teacher`, `G` | teacher G', student G of GAN Compression; T, S of OMGD |
| `F` | f_t, 1×1 convolutions from the student's channels to the teacher's (GAN Compression, Eq. 2) |
| `lambda_L1` | L_recon (GAN Compression, Eq. 1) between the two results, as it has it without pairs |
| `lambda_structure` | L_SSIM (OMGD, Eq. 2) |
| `lambda_content` | L_feature (OMGD, Eq. 3), as `losses/content.py` has it |
| `lambda_features` | L_distill (GAN Compression, Eq. 2) |
| `lambda_gan` | L_cGAN (GAN Compression, Eq. 3), here without a condition |

Deviations. The teacher is a model file and stays as it is; OMGD trains two teachers along. Its answers are computed at
each crop, so that each is new. The errors of features are relative to the teacher's features, so that layers weigh
alike whatever their scale. L_SSIM leaves out the comparison of brightness, which is that of the L1 loss; there is
neither L_style nor L_TV. The discriminator starts anew, and judges pictures of the other domain, where the data have
some. There is no search for widths.
"""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn
from torch.nn import functional

from i2i.acceleration import accelerate
from i2i.acceleration.inference import multiplications
from i2i.algorithms.algorithm import GENERATOR, ConditionalGAN, Losses, Player, Translators, Turn
from i2i.algorithms.options import NetworkOptions, UnpairedOptions, check_one_size
from i2i.config import PathUnless
from i2i.data.options import channels, classes, ranges
from i2i.data.pair import ImagePair
from i2i.errors import UsageError, as_typed
from i2i.losses.content import feature_distance
from i2i.models.info import DIRECTIONS, FROM_NOISE, ModelInfo
from i2i.models.model_file import open_model, weights_sha256
from i2i.models.styles import BUNDLED, exists, find, model_files
from i2i.networks import GeneratorConfig, GeneratorName, OwnConfig, generator_config
from i2i.networks.blocks import for_translation
from i2i.networks.resnet import ResnetConfig, ResnetGenerator
from i2i.terminal import fetching

STYLE_OR_PATH = PathUnless(frozenset(model_files(BUNDLED)))


class Teacher:
    """(N, C, H, W) in [-1, 1] → what any model of i2i's, frozen, makes of each picture by itself, without a gradient.

    It is computed where the pictures are and in their type, in the form that is fastest there.
    """

    def __init__(self, network: nn.Module, info: ModelInfo, sha256: str) -> None:
        self.network, self.info, self.sha256 = for_translation(network, info.statistics), info, sha256
        self.config: GeneratorConfig = info.network_config()
        names = info.input_domain, info.output_domain
        self.domains = ("", "") if set(names) == {"A", "B"} else names
        self._place: tuple[torch.device, torch.dtype, torch.dtype] | None = None
        self._form: nn.Module = self.network

    @classmethod
    def opened(cls, name: str, download: bool = False) -> "Teacher":
        """The model that `name` names, as `--style` does; a published one is fetched only with `download`.

        Raises `UsageError` for one that draws noise, or takes or makes something other than pictures; `ModelError`
        for a file that is no model.
        """
        if all(exists(Path(name) / f"{direction}.safetensors") for direction in DIRECTIONS):
            file = Path(name) / "a2b.safetensors"
            raise UsageError(f"teacher = {name}: translates in two directions; name one file, such as {file}")
        path = _fetched(name) if name.startswith("hub:") else find(name, download=download, progress=fetching())
        teacher = _read(path, _stamp(path))
        info = teacher.info
        reasons = {
            "makes pictures from noise": info.network in FROM_NOISE,
            "draws noise, its dropout, at each pass": info.dropout and info.config.get("dropout"),
            "takes or makes labels": info.input_labels or info.output_labels,
            "takes or makes values in units": info.in_units,
            "takes a picture's lightness to its colours": info.encoding == "lab",
        }
        for reason, holds in reasons.items():
            if holds:
                raise UsageError(f"teacher = {name}: {reason}; expected a generator that takes pictures to pictures")
        return teacher

    def __call__(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            made: Tensor = self._placed(x)(x.contiguous(memory_format=_format(x.device)))
        return made

    def with_features(self, x: Tensor, layers: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        """Also what the layers of a residual generator answer, as `ResnetGenerator.layers` numbers them."""
        form = self._placed(x)
        assert isinstance(form, ResnetGenerator)
        with torch.no_grad():
            return form.translate(x.contiguous(memory_format=_format(x.device)), layers)

    def _placed(self, x: Tensor) -> nn.Module:
        autocast = x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
        computed = torch.get_autocast_dtype("cpu") if autocast else x.dtype
        if (place := (x.device, x.dtype, computed)) != self._place:
            with torch.inference_mode(False):  # samples are looked at in that mode, and training goes on
                moved = copy.deepcopy(self.network).to(x.device, x.dtype)
                fast = accelerate(moved, "inference", dtype=computed)
                self._form = fast.to(memory_format=_format(x.device))
            self._place = place
        return self._form


def _format(device: torch.device) -> torch.memory_format:
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def _stamp(path: Path) -> tuple[int, ...]:
    """Times and sizes of the files at `path`: they differ if a file has changed."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return tuple(number for file in files for number in (file.stat().st_mtime_ns, file.stat().st_size))


@cache
def _fetched(name: str) -> Path:
    """A model of the Hub, asked for once in a process, so that a start has one commit of it."""
    return find(name)


@lru_cache(maxsize=1)
def _read(path: Path, stamp: tuple[int, ...]) -> Teacher:
    """Read once, though options and algorithm each ask for it."""
    return Teacher(*open_model(path), weights_sha256(path))


@dataclass(frozen=True, kw_only=True)
class DistillOptions(UnpairedOptions):
    """The teacher, and the losses that compare the student with it."""

    algorithm = "distill"

    teacher: Annotated[str, STYLE_OR_PATH] = ""
    """The generator to learn from: a model file, a run folder, the name of a style, or hub:owner/name."""
    generator: GeneratorName = "mobile_resnet_9blocks"
    """The student: `mobile_resnet_<n>blocks`, the same with `_subpixel`, or any other that takes no more
    multiplications than its teacher."""
    ngf: Annotated[int, Interval(ge=1, le=512)] = 16
    """A quarter of the channels of the student's residual blocks."""
    input_share: Annotated[float, Interval(ge=0, le=0.9)] | None = None  # type: ignore[assignment]
    """The share of the picture itself in the result of a residual student; by default its teacher's."""
    lambda_L1: Annotated[float, Ge(0)] = 10.0
    """Weight of the L1 distance of the student's result from its teacher's."""
    lambda_structure: Annotated[float, Ge(0)] = 1.0
    """Weight of a loss of contrast and structure between the luminances of the two."""
    lambda_features: Annotated[float, Ge(0)] = 1.0
    """Weight of the distance of their features on the way, where both are residual generators."""
    lambda_content: Annotated[float, Ge(0)] = 0.0
    """Weight of the distance of what a network sees in the two (`--features`), and of their light and dark."""
    lambda_gan: Annotated[float, Ge(0)] = 0.0
    """Weight of the student's own adversarial loss: its results against the pictures of the other domain. Without it
    the data are pictures of one domain."""

    def opened(self) -> Teacher:
        """The teacher. Raises `UsageError` for one that nobody can learn from, `ModelError` for a file that is none."""
        if not self.teacher:
            raise UsageError("teacher: missing; give a model file, a run folder, or the name of a style such as monet")
        return Teacher.opened(self.teacher, self.download)

    def generator_config(self, in_channels: int, out_channels: int) -> GeneratorConfig:
        share = self.input_share
        named = None if "generator" in self.own else generator_config(self.generator)
        if share is None and isinstance(named, ResnetConfig):
            share = getattr(self.opened().config, "input_share", None)
        return NetworkOptions.generator_config(replace(self, input_share=share or 0.0), in_channels, out_channels)

    def size_limits(self, in_channels: int, out_channels: int) -> tuple[int, int]:
        multiple, minimum = super().size_limits(in_channels, out_channels)
        teacher = self.opened().config
        return math.lcm(multiple, teacher.size_multiple), max(minimum, teacher.minimum_size)


@dataclass(frozen=True)
class ChannelProjectionConfig:
    """The channels of the compared layers, of the student and of the teacher."""

    kind: ClassVar[str] = "channel_projection"

    in_channels: tuple[int, ...]
    out_channels: tuple[int, ...]


class ChannelProjection(nn.Module):
    """For each layer (N, in_channels, H, W) → (N, out_channels, H, W), the channels of the other generator."""

    def __init__(self, config: ChannelProjectionConfig) -> None:
        super().__init__()
        self.config = config
        pairs = zip(config.in_channels, config.out_channels, strict=True)
        self.layers = nn.ModuleList(nn.Conv2d(one, other, 1) for one, other in pairs)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        return [layer(x) for layer, x in zip(self.layers, features, strict=True)]


class Distill(ConditionalGAN[DistillOptions]):
    """`batch.a` → what the teacher makes of it; `batch.b` are pictures of the other domain, or `batch.a` again."""

    name = DistillOptions.algorithm
    paired = False
    compiles = False  # its generator is played layer by layer, to compare their features
    validation_note = "outputs against those of the teacher"
    measured = "teacher"

    def __init__(self, options: DistillOptions, in_channels: int = 3, out_channels: int = 3) -> None:
        self.teacher_model = checked_teacher(options, in_channels, out_channels)
        self.teacher, self.domains = self.teacher_model.sha256, self.teacher_model.domains
        self.paint_size = self.teacher_model.info.paint_size
        super().__init__(options, in_channels, out_channels, conditional=False)
        if options.lambda_features:
            self._compare(self.G, self.teacher_model.network)
        self.content = options.create_content(out_channels, out_channels)
        options.needs("lambda_spots", in_channels == 3, "pictures in colour on both sides")

    def _compare(self, student: nn.Module, teacher: nn.Module) -> None:
        assert isinstance(student, ResnetGenerator) and isinstance(teacher, ResnetGenerator)  # `checked_teacher` asks
        self.layers = comparable_layers(student.config, teacher.config)
        mine, its = student.channels(), teacher.channels()
        of_both = tuple(mine[number] for number in self.layers[0]), tuple(its[number] for number in self.layers[1])
        self.F = ChannelProjection(ChannelProjectionConfig(*of_both))

    @classmethod
    def uses_single_domain(cls, options: DistillOptions) -> bool:
        return not options.lambda_gan

    @classmethod
    def shows_targets(cls, options: DistillOptions) -> bool:
        return not cls.uses_single_domain(options)

    @classmethod
    def channels(cls, options: DistillOptions) -> tuple[int, int]:
        check_one_size(options)
        if any(classes(options)):
            raise UsageError("classes: a teacher takes pictures to pictures, and one of the domains holds labels")
        if any(ranges(options)):
            raise UsageError("range: a teacher takes pictures to pictures, and no values in units; leave it out")
        config = options.opened().config
        expected = config.in_channels, config.out_channels
        if cls.uses_single_domain(options):
            if options.channels_b != config.in_channels:
                raise UsageError(
                    f"channels_b = {options.channels_b}: the teacher takes pictures of {config.in_channels} channels; "
                    f"give {as_typed('channels_b', config.in_channels)}"
                )
        elif (given := channels(options)) != expected:
            raise UsageError(
                f"channels: the teacher takes {expected[0]} to {expected[1]} channels, the data have {given[0]} and "
                f"{given[1]}; give {as_typed('channels_a')} and {as_typed('channels_b')}"
            )
        checked_teacher(options, *expected)
        return expected

    @classmethod
    def make_pair(cls, options: DistillOptions, picture: Tensor, seed: int) -> ImagePair:
        return ImagePair(picture, picture)

    def players(self) -> dict[Player, list[nn.Module]]:
        learners = [self.G, self.F] if self.options.lambda_features else [self.G]
        return super().players() | {GENERATOR: learners}

    def architecture(self) -> dict[str, Any]:
        found = super().architecture()
        return found | {"G": found["G"] | {"teacher": self.teacher}}

    def refusal(self, architecture: Mapping[str, Mapping[str, Any]]) -> str:
        began_with = architecture.get("G", {}).get("teacher", self.teacher)
        if began_with == self.teacher:
            return ""
        return (
            f"teacher = {self.options.teacher}: the run began with a teacher whose weights have the SHA-256 "
            f"{str(began_with)[:64]}, these have {self.teacher}; name the file that it began with, or use "
            f"another {as_typed('run')}"
        )

    def losses(self, batch: ImagePair, step: int) -> Iterator[Turn]:
        o, real_A, real_B = self.options, batch.a, batch.b
        content, adversarial, G = {}, {}, self.G
        if isinstance(G, ResnetGenerator) and o.lambda_features:
            fake_B, features = G.translate(real_A, self.layers[0])
            expected, of_teacher = self.teacher_model.with_features(real_A, self.layers[1])
            content["G_features"] = o.lambda_features * feature_distance(self.F(features), of_teacher)
        else:
            fake_B, expected = G(real_A), self.teacher_model(real_A)

        if o.lambda_gan:
            real = self.discriminator_input(real_A, real_B, step)
            yield self.discriminator_turn(real, self.discriminator_input(real_A, fake_B.detach(), step))
            fake = self.discriminator_input(real_A, fake_B, step)
            adversarial["G_gan"] = o.lambda_gan * self.generator_loss(self.D, fake, real)
        if o.lambda_L1:
            content["G_L1"] = o.lambda_L1 * functional.l1_loss(fake_B, expected)
        content |= self.likeness("", fake_B, expected, real_A)
        penalties = self.regularisers("G_{}", G, real_A, fake_B)
        yield GENERATOR, Losses(adversarial=adversarial, content=content, penalties=penalties)

    def validation_pairs(self, batch: ImagePair, translators: Translators) -> dict[str, tuple[Tensor, Tensor]]:
        return {"teacher_B": (translators["a2b"](batch.a), self.teacher_model(batch.a))}

    def pictures(self, batch: ImagePair, translators: Translators) -> dict[str, Tensor]:
        found = {"real_A": batch.a, "fake_B": translators["a2b"](batch.a), "teacher_B": self.teacher_model(batch.a)}
        return found | ({"real_B": batch.b} if self.shows_targets(self.options) else {})


def comparable_layers(one: ResnetConfig, other: ResnetConfig) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Layers of each of two generators that correspond, at most four as in GAN Compression: at a quarter of the size,
    the layer before the first block, the last block, and evenly spread blocks between them."""
    parts = min(3, one.blocks, other.blocks)

    def spread(config: ResnetConfig) -> tuple[int, ...]:
        return tuple(config.first_block - 1 + round(config.blocks * i / max(parts, 1)) for i in range(parts + 1))

    return spread(one), spread(other)


def checked_teacher(options: DistillOptions, in_channels: int, out_channels: int) -> Teacher:
    """The teacher, if the student may learn from it as the options say. Raises `UsageError`."""
    teacher = options.opened()
    weights = ("lambda_L1", "lambda_structure", "lambda_features", "lambda_content")
    if not any(getattr(options, name) for name in weights):
        raise UsageError(f"{', '.join(weights)}: all 0, so nothing of the teacher would be learnt")
    options.needs_discriminator()
    options.needs("discriminator", options.has_discriminator, "lambda_gan")
    options.needs("features", options.compares_features or options.has_discriminator, "lambda_content or lambda_gan")
    student = options.generator_config(in_channels, out_channels)
    for name, config in ((options.generator, student), (f"the teacher, a {teacher.config.kind}", teacher.config)):
        if options.lambda_features and not isinstance(config, ResnetConfig):
            raise UsageError(
                f"lambda_features = {options.lambda_features}: layers of residual generators are compared, and "
                f"{name} is none; give {as_typed('lambda_features', 0)}"
            )
    if isinstance(student, OwnConfig):
        return teacher
    mine, its = multiplications(student), multiplications(teacher.config)
    if mine > its:
        raise UsageError(
            f"generator = {options.generator}, ngf = {options.ngf}: takes {mine:,.0f} multiplications a pixel, more "
            f"than its teacher {options.teacher} with {its:,.0f}; a smaller {as_typed('ngf')}, or "
            "mobile_resnet_<fewer>blocks"
        )
    return teacher
