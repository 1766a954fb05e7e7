"""Networks by name.

`GENERATORS` and `DISCRIMINATORS` map a name to the frozen configuration that builds the network. `resnet_<n>blocks`,
`mobile_resnet_<n>blocks`, `unet_<size>`, `patchgan_<patch width>` and `dcgan_<size>` name the other members of these
families. Suffixes choose variants:

* residual generator: `_antialiased` halves and doubles the size as CUT does; `_resize` has resize-convolutions instead
  of transposed ones; `_smooth` halves as CUT does and blurs before it doubles, against weave patterns.
* `mobile_resnet_<n>blocks` is a `_smooth` residual generator of depthwise separable convolutions, with a tenth of the
  multiplications or less. `_subpixel` has no features at the full size, which halves the time.
* U-Net: `_attention` adds self-attention at 32×32 pixels of `<size>`.
* PatchGAN: `_antialiased` as above; `_spectral` normalises weights instead of activations; `_multiscale` judges at
  three sizes (`_multiscale2`, `_multiscale4`: two, four). Several suffixes stand in this order. The name keeps the
  patch width of the plain PatchGAN, though patches of these variants are wider: see `receptive_field`.

`pix2pixhd` is the coarse-to-fine generator of that paper, and `pix2pixhd_global` its coarse part alone. `projected`
judges features of a frozen network, and `projected_patchgan_<patch width>` adds a PatchGAN. `dcgan_<size>` is a
generator of images from noise, and its discriminator.

A network of your own, an `nn.Module` that was given to `i2i.train`, stands beside them. Its weights stay as they are at
the start, and its layers are never exchanged. A model file records the class of a generator by name. Nothing imports
that name: who loads the file gives the module again.
"""

import copy
import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import torch
from annotated_types import Ge, Interval, Len
from torch import Tensor, nn

from i2i.config import Names, checked, option_names
from i2i.errors import ModelError, UsageError, nearest
from i2i.networks.blocks import DiscriminatorNorm, Sampling, Upsampling
from i2i.networks.dcgan import DCGANConfig, DCGANDiscriminatorConfig
from i2i.networks.patchgan import MultiScaleConfig, PatchGANConfig, PixelGANConfig
from i2i.networks.projected import ProjectedConfig
from i2i.networks.resnet import CoarseToFineConfig, ResnetConfig
from i2i.networks.unet import UNetConfig

OwnModule = nn.Module | Callable[[], nn.Module]
"""A module, which is copied, or a function without arguments that makes one."""


@dataclass(frozen=True)
class OwnConfig:
    """The facts about an own network: where its class was defined, its channels, the sizes that it takes."""

    kind: ClassVar[str] = "own"
    dropout: ClassVar[bool] = False

    module: Annotated[str, Len(0, 1000)] = ""
    in_channels: Annotated[int, Ge(1)] = 3
    out_channels: Annotated[int, Ge(1)] = 3
    size_multiple: Annotated[int, Interval(ge=1, le=4096)] = 1
    minimum_size: Annotated[int, Interval(ge=1, le=65_535)] = 1

    def build(self) -> nn.Module:
        raise ModelError(
            f"its generator is an own network, {self.module}, and no file brings code: give the module again, as in "
            "i2i.load_translator(path, generator=module)"
        )


@dataclass(frozen=True)
class Own:
    """Makes the networks of a training from what was given. `name` says where the class was defined."""

    make: Callable[[], nn.Module]
    name: str
    size_multiple: int
    minimum_size: int

    @classmethod
    def of(cls, given: OwnModule) -> "Own":
        """Raises `UsageError` for what is no module and makes none."""
        first = given if isinstance(given, nn.Module) else given()
        if not isinstance(first, nn.Module):
            raise UsageError(f"{given!r} makes a {type(first).__name__}; expected an nn.Module")
        name = f"{type(first).__module__}.{type(first).__qualname__}"
        multiple, minimum = (int(getattr(first, key, 1)) for key in ("size_multiple", "minimum_size"))
        return cls((lambda: copy.deepcopy(first)) if given is first else given, name, multiple, minimum)

    def config(self, in_channels: int, out_channels: int) -> OwnConfig:
        return OwnConfig(self.name, in_channels, out_channels, self.size_multiple, self.minimum_size)


class OwnNetwork(nn.Module):
    """`network` with a configuration, as the networks with names have one.

    Its code may use `view`, so that its weights and pictures stay in torch's usual memory format.
    """

    def __init__(self, network: nn.Module, config: OwnConfig) -> None:
        super().__init__()
        self.network, self.config = network, config

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.network(x.contiguous())
        return y

    def check(self, role: Literal["generator", "discriminator"], side: int) -> None:
        """Tries it on zeros of about `side` pixels. Raises `UsageError` unless a generator turns them into a picture of
        the same size, and a discriminator into logits, or a tuple of them."""
        config, was_training = self.config, self.training
        side = -(-max(side, config.minimum_size) // config.size_multiple) * config.size_multiple
        given, named = (1, config.in_channels, side, side), f"{role} {config.module}"
        try:
            with torch.no_grad():
                made: object = self.eval()(torch.zeros(given))
        except Exception as error:  # the code is the user's
            raise UsageError(f"{named}: does not take {given}: {type(error).__name__}: {error}") from error
        finally:
            self.train(was_training)
        kind, expected = type(made).__name__, (1, config.out_channels, side, side)
        if role == "discriminator":
            logits = made if isinstance(made, tuple | list) else [made]
            if not logits or not all(isinstance(one, Tensor) for one in logits):
                raise UsageError(
                    f"{named}: gives a {kind} for an image {given}; expected a tensor, or a tuple of tensors"
                )
        elif not isinstance(made, Tensor) or tuple(made.shape) != expected:
            found = tuple(made.shape) if isinstance(made, Tensor) else kind
            raise UsageError(
                f"{named}: gives {found} for a picture {given}; expected {expected}. If it takes only multiples of a "
                "number, set that as its attribute size_multiple"
            )


_NamedGeneratorConfig = ResnetConfig | UNetConfig | CoarseToFineConfig | DCGANConfig
GeneratorConfig = _NamedGeneratorConfig | OwnConfig
DiscriminatorConfig = PatchGANConfig | MultiScaleConfig | PixelGANConfig | ProjectedConfig | DCGANDiscriminatorConfig
NetworkConfig = _NamedGeneratorConfig | DiscriminatorConfig
Config = TypeVar("Config", bound=NetworkConfig | OwnConfig)


def _resnet(blocks: int, downsampling: Sampling = "strided", upsampling: Upsampling = "strided") -> ResnetConfig:
    return ResnetConfig(blocks=blocks, downsampling=downsampling, upsampling=upsampling)


def _mobile_resnet(blocks: int, subpixel: str | None) -> ResnetConfig:
    return replace(_resnet(blocks, "antialiased", "smooth"), separable=True, subpixel=subpixel is not None)


def _unet(size: int, attention: str | None = None) -> UNetConfig:
    depth = size.bit_length() - 1
    if size != 1 << depth:
        raise UsageError(f"unet_{size}: the size must be a power of two from 32 to 4096")
    if attention is None:
        return UNetConfig(depth=depth)
    if depth < 6:
        raise UsageError(
            f"unet_{size}_attention: the size must be at least 64, as attention is where 32 pixels are left"
        )
    return UNetConfig(depth=depth, attention=depth - 5)


def _patchgan_layers(width: int) -> int:
    found = [layers for layers in range(1, 9) if PatchGANConfig(layers=layers).receptive_field == width]
    if not found:
        raise UsageError(f"patchgan_{width}: the patch must be 16, 34, 70, 142, 286, 574, 1150 or 2302 pixels wide")
    return found[0]


def _patchgan(
    width: int, antialiased: str | None, spectral: str | None, scales: str | None
) -> PatchGANConfig | MultiScaleConfig:
    layers = _patchgan_layers(width)
    sampling: Sampling = "antialiased" if antialiased else "strided"
    norm: DiscriminatorNorm = "spectral" if spectral else "instance"
    if scales is None:
        return PatchGANConfig(layers=layers, downsampling=sampling, norm=norm)
    count = int(scales.removeprefix("_multiscale") or 3)
    return MultiScaleConfig(layers=layers, downsampling=sampling, norm=norm, scales=count)


_GENERATOR_FAMILIES: dict[str, Callable[..., GeneratorConfig]] = {
    r"resnet_(\d{1,4})blocks": _resnet,
    r"resnet_(\d{1,4})blocks_antialiased": lambda n: _resnet(n, "antialiased", "antialiased"),
    r"resnet_(\d{1,4})blocks_smooth": lambda n: _resnet(n, "antialiased", "smooth"),
    r"resnet_(\d{1,4})blocks_resize": lambda n: _resnet(n, upsampling="resize"),
    r"mobile_resnet_(\d{1,4})blocks(_subpixel)?": _mobile_resnet,
    r"unet_(\d{1,4})(_attention)?": _unet,
    r"pix2pixhd": CoarseToFineConfig,
    r"pix2pixhd_global": lambda: CoarseToFineConfig(enhancers=0, width=64),
    r"dcgan_(\d{1,4})": lambda size: DCGANConfig(size=size),
}
_DISCRIMINATOR_FAMILIES: dict[str, Callable[..., DiscriminatorConfig]] = {
    r"patchgan_(\d{1,4})(_antialiased)?(_spectral)?(_multiscale[24]?)?": _patchgan,
    r"pixelgan": PixelGANConfig,
    r"projected": ProjectedConfig,
    r"projected_patchgan_(\d{1,4})": lambda width: ProjectedConfig(patchgan_layers=_patchgan_layers(width)),
    r"dcgan_(\d{1,4})": lambda size: DCGANDiscriminatorConfig(size=size),
}


def _named(name: str, families: Mapping[str, Callable[..., Any]]) -> Any:
    """Returns the configuration of that name, or None; the first of its numbers is an integer."""
    for pattern, make in families.items():
        if match := re.fullmatch(pattern, name):
            return make(*(int(text) if text and text.isdecimal() else text for text in match.groups()))
    return None


GENERATORS: dict[str, GeneratorConfig] = {
    name: _named(name, _GENERATOR_FAMILIES)
    for name in (
        *("resnet_6blocks", "resnet_9blocks", "resnet_6blocks_antialiased", "resnet_9blocks_antialiased"),
        *("resnet_6blocks_resize", "resnet_9blocks_resize", "mobile_resnet_6blocks", "mobile_resnet_9blocks"),
        "mobile_resnet_9blocks_subpixel",
        *("unet_128", "unet_256", "unet_512", "unet_256_attention", "pix2pixhd", "pix2pixhd_global", "dcgan_64"),
    )
}
DISCRIMINATORS: dict[str, DiscriminatorConfig] = {
    name: _named(name, _DISCRIMINATOR_FAMILIES)
    for name in (
        *("patchgan_16", "patchgan_34", "patchgan_70", "patchgan_142", "patchgan_286", "patchgan_70_antialiased"),
        *("patchgan_70_spectral", "patchgan_70_multiscale", "pixelgan", "projected", "projected_patchgan_70"),
        "dcgan_64",
    )
}
GeneratorName = Annotated[str, Names(tuple(GENERATORS), tuple(_GENERATOR_FAMILIES))]
DiscriminatorName = Annotated[str, Names(tuple(DISCRIMINATORS), tuple(_DISCRIMINATOR_FAMILIES))]
GENERATOR_KINDS: dict[str, type[GeneratorConfig]] = {config.kind: type(config) for config in GENERATORS.values()}


def _find(what: str, name: str, known: Mapping[str, Any], families: Mapping[str, Callable[..., Any]]) -> Any:
    if found := known.get(name) or _named(name, families):
        return found
    own = f" An own {what} is given again in Python, as in i2i.train(…, {what}=module)." if "." in name else ""
    raise UsageError(f"unknown {what} {name!r}.{nearest(name, known)} Known: {', '.join(known)}.{own}")


def _configure(config: Config, options: Mapping[str, Any]) -> Config:
    known = option_names(config)
    for key in options:
        if key not in known:
            raise UsageError(f"{config.kind} has no option {key!r}.{nearest(key, known)} Known: {', '.join(known)}.")
    return checked(dataclasses.replace(config, **options))


def generator_config(name: str, **options: Any) -> GeneratorConfig:
    """Returns the configuration of the generator `name` with `options` instead of its defaults. Raises `UsageError`."""
    return _configure(_find("generator", name, GENERATORS, _GENERATOR_FAMILIES), options)


def discriminator_config(name: str, **options: Any) -> DiscriminatorConfig:
    """Returns the configuration of the discriminator `name` with `options` instead of its defaults.

    Raises `UsageError`.
    """
    return _configure(_find("discriminator", name, DISCRIMINATORS, _DISCRIMINATOR_FAMILIES), options)


def config_of(network: nn.Module) -> NetworkConfig | OwnConfig:
    """Returns the configuration with which `network` was built."""
    config: Any = network.config
    known: NetworkConfig | OwnConfig = config
    return known


def create_generator(name: str, **options: Any) -> nn.Module:
    """Returns a generator by name, e.g. `create_generator("unet_256", in_channels=1, out_channels=3)`.

    (N, in_channels, H, W) in [-1, 1] → (N, out_channels, H, W) in [-1, 1]. H and W must be multiples of
    `.size_multiple` and at least `.minimum_size`. `options` are the fields of its configuration, such as `width`,
    `norm`, `dropout`. It has torch's default weights; `init_weights` initialises it as a training does.
    """
    return generator_config(name, **options).build()


def create_discriminator(name: str, **options: Any) -> nn.Module:
    """Returns a discriminator by name: (N, in_channels, H, W) in [-1, 1] → logits (N, 1, H', W').

    A discriminator of several scales returns a tuple of logits, from the finest scale to the coarsest.
    """
    return discriminator_config(name, **options).build()


def list_generators() -> list[str]:
    """Returns the usual names of generators. `create_generator` also takes other numbers in them: `resnet_<n>blocks`,
    `unet_<power of two>`.
    """
    return list(GENERATORS)
