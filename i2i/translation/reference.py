"""How pytorch-CycleGAN-and-pix2pix, and CUT after it, name their tensors: recognising a network, and their names
for ours."""

import re
from collections.abc import Collection, Mapping
from typing import Any

import torch

from i2i.errors import ModelError
from i2i.networks import NetworkConfig
from i2i.networks.patchgan import PatchGANConfig, PixelGANConfig
from i2i.networks.resnet import ResnetConfig
from i2i.networks.unet import UNetConfig

Shapes = Mapping[str, tuple[int, ...]]
KNOWN = "a residual generator, a U-Net, a PatchGAN or a PixelGAN of pytorch-CycleGAN-and-pix2pix or CUT"

_MARKS = ("mlp_0.0.weight", "model.model.0.weight", "model.1.weight", "model.0.weight", "net.0.weight")


def looks_known(names: Collection[str]) -> bool:
    """Whether these may be the names of a network that `recognised` knows, if only to refuse it."""
    return any(mark in names for mark in _MARKS)


def recognised(shapes: Shapes, dropout: bool | None) -> NetworkConfig:
    """The network that the names and shapes of the reference's tensors tell; `dropout` as in `foreign.convert`.

    A first guess by a few tensors: the caller compares the rest. Raises `ModelError` if there is none.
    """
    if "mlp_0.0.weight" in shapes:
        raise ModelError("CUT's patch embedding (netF), not a network that translates; expected its generator (netG)")
    if "model.model.0.weight" in shapes:
        return _unet(shapes, dropout)
    if "model.1.weight" in shapes:
        return _resnet(shapes)
    if "model.0.weight" in shapes:
        return _patchgan(shapes)
    if "net.0.weight" in shapes:
        return _pixelgan(shapes)
    first = ", ".join(name[:60] for name in list(shapes)[:3]) or "none"
    raise ModelError(f"no network that is known: its first keys are {first}; expected {KNOWN}")


def _resnet(shapes: Shapes) -> ResnetConfig:
    blocks = sum(bool(re.fullmatch(r"model\.\d+\.conv_block\.1\.weight", name)) for name in shapes)
    width, channels = _convolution(shapes, "model.1")
    first = 12 if "model.7.filt" in shapes else 10  # the first block; a blur is a layer of its own
    blurred_up = f"model.{first + blocks}.filt" in shapes
    head = first + blocks + (9 if blurred_up else 7)
    return ResnetConfig(
        in_channels=channels,
        out_channels=_convolution(shapes, f"model.{head}")[0],
        width=width,
        blocks=blocks,
        dropout=blocks > 0 and f"model.{first}.conv_block.5.weight" not in shapes,
        downsampling="antialiased" if first == 12 else "strided",
        upsampling="antialiased" if blurred_up else "strided",
        **_normalised(shapes, "model.1", "model.2"),
    )


def _unet(shapes: Shapes, dropout: bool | None) -> UNetConfig:
    width, channels = _convolution(shapes, "model.model.0")
    norm = _normalised(shapes, "model.model.0", "model.model.1.model.2")
    downs = (re.fullmatch(r"model\.model\.1((?:\.model\.3)*)\.model\.1\.weight", name) for name in shapes)
    return UNetConfig(
        in_channels=channels,
        out_channels=_convolution(shapes, "model.model.3")[1],  # transposed: (in, out, 4, 4)
        width=width,
        depth=2 + max((match[1].count("3") for match in downs if match), default=-1),
        dropout=norm["norm"] == "batch" if dropout is None else dropout,
        **norm,
    )


def _patchgan(shapes: Shapes) -> PatchGANConfig:
    width, channels = _convolution(shapes, "model.0")
    convolutions = sum(len(shape) == 4 and name.endswith(".weight") for name, shape in shapes.items())
    blurred = "model.2.filt" in shapes
    second = 3 if blurred else 2
    return PatchGANConfig(
        in_channels=channels,
        width=width,
        layers=convolutions - 2,
        downsampling="antialiased" if blurred else "strided",
        **_normalised(shapes, f"model.{second}", f"model.{second + 1}"),
    )


def _pixelgan(shapes: Shapes) -> PixelGANConfig:
    width, channels = _convolution(shapes, "net.0")
    return PixelGANConfig(in_channels=channels, width=width, **_normalised(shapes, "net.2", "net.3"))


def _convolution(shapes: Shapes, module: str) -> tuple[int, int]:
    shape = shapes.get(f"{module}.weight")
    if shape is None or len(shape) != 4:
        found = "is missing" if shape is None else f"has the shape {shape}"
        raise ModelError(f"{module}.weight {found}, where a convolution was expected in {KNOWN}")
    return shape[0], shape[1]


def _normalised(shapes: Shapes, convolution: str, norm: str) -> dict[str, Any]:
    if f"{norm}.weight" in shapes:
        return {"norm": "batch", "bias": True if f"{convolution}.bias" in shapes else None}
    if f"{convolution}.bias" in shapes:
        return {"norm": "instance"}
    return {"norm": "none", "bias": False}


def listing(config: NetworkConfig) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The reference's name → our name and shape, in the reference's order, which is also ours."""
    with torch.device("meta"):
        ours = config.build().state_dict()
    numbers = modules(config)
    found = {}
    for name, tensor in ours.items():
        module, _, leaf = name.rpartition(".")
        if module not in numbers:
            raise ModelError(f"the reference has no place for {module}")
        found[f"{numbers[module]}.{leaf}"] = (name, tuple(tensor.shape))
    return found


def modules(config: NetworkConfig) -> dict[str, str]:
    """The name of our module → the reference's, for all that hold tensors and the layers of a residual generator.

    Raises `ModelError` for a network that the reference has not.
    """
    if isinstance(config, ResnetConfig) and config.separable:
        raise ModelError("the reference has no separable convolutions")
    if isinstance(config, ResnetConfig):
        return _resnet_modules(config)
    if isinstance(config, UNetConfig):
        return _unet_modules(config)
    if isinstance(config, PatchGANConfig):
        return {f"layers.{i}": f"model.{i}" for i in range(4 * config.layers + 3)}
    if isinstance(config, PixelGANConfig):
        return {f"layers.{i}": f"net.{i}" for i in range(6)}
    raise ModelError(f"the reference has no {config.kind}")


def _resnet_modules(config: ResnetConfig) -> dict[str, str]:
    names = ["pad", "stem.conv", "stem.norm", "stem.relu"]
    for i in range(2):
        names += [f"down.{i}.conv", f"down.{i}.norm", f"down.{i}.relu"]
        names += [f"down.{i}.downsample"] * (config.downsampling == "antialiased")
    names += [f"blocks.{i}" for i in range(config.blocks)]
    for i in range(2):
        names += [f"up.{i}.upsample"] * (config.upsampling == "antialiased")
        names += [f"up.{i}.conv", f"up.{i}.norm", f"up.{i}.relu"]
    names += ["pad", "head"]
    modules = {name: f"model.{number}" for number, name in enumerate(names)}
    second = 6 if config.dropout else 5
    layers = {"conv1": 1, "norm1": 2, "conv2": second, "norm2": second + 1}
    for i in range(config.blocks):
        modules |= {f"blocks.{i}.{name}": f"{modules[f'blocks.{i}']}.conv_block.{n}" for name, n in layers.items()}
    return modules


def _unet_modules(config: UNetConfig) -> dict[str, str]:
    last = config.depth - 1
    modules = {"down.0.conv": "model.model.0", f"up.{last}.conv": "model.model.3"}
    for i in range(1, last + 1):
        level = "model.model.1" + ".model.3" * (i - 1) + ".model"
        up = 3 if i == last else 5  # the innermost level holds no norm and no further level before it
        modules |= {f"down.{i}.conv": f"{level}.1", f"down.{i}.norm": f"{level}.2"}
        modules |= {f"up.{last - i}.conv": f"{level}.{up}", f"up.{last - i}.norm": f"{level}.{up + 1}"}
    return modules
