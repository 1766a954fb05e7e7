"""Checkpoints of junyanz/pytorch-CycleGAN-and-pix2pix and taesungp/contrastive-unpaired-translation (CUT), both
ways: their state dicts and their `.pth` files.

A network is recognised by the names and shapes of its tensors alone. The rest is assumed, and stated where it is
decided: padding by reflection; see `convert` for the dropout of a U-Net. Names of files are the caller's business. The
reference's `D_A` judges images of B and is our `D_B`.
"""

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from i2i.config import checked
from i2i.errors import ModelError, UsageError
from i2i.files import atomic_write
from i2i.models.metadata import naming
from i2i.models.state_dicts import (
    Shapes,
    StateDict,
    count,
    is_reference,
    normalised,
    read,
    refuse_changed_filters,
    refuse_nonfinite,
    refuse_other_shapes,
    shapes_of,
    without_prefixes,
)
from i2i.networks import GeneratorConfig, NetworkConfig
from i2i.networks.blocks import conv_bias
from i2i.networks.patchgan import PatchGANConfig, PixelGANConfig
from i2i.networks.resnet import ResnetConfig
from i2i.networks.unet import UNetConfig

KNOWN = "a residual generator, a U-Net, a PatchGAN or a PixelGAN of pytorch-CycleGAN-and-pix2pix or CUT"


def recognised(shapes: Shapes, dropout: bool | None) -> NetworkConfig:
    """Returns the network that the names and shapes of the reference's tensors tell; `dropout` as in `convert`.

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
    raise ModelError(f"unknown network: its first keys are {first}; expected {KNOWN}")


def _resnet(shapes: Shapes) -> ResnetConfig:
    blocks = count(shapes, r"model\.\d+\.conv_block\.1\.weight")
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
        **normalised(shapes, "model.1", "model.2"),
    )


def _unet(shapes: Shapes, dropout: bool | None) -> UNetConfig:
    width, channels = _convolution(shapes, "model.model.0")
    norm = normalised(shapes, "model.model.0", "model.model.1.model.2")
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
        **normalised(shapes, f"model.{second}", f"model.{second + 1}"),
    )


def _pixelgan(shapes: Shapes) -> PixelGANConfig:
    width, channels = _convolution(shapes, "net.0")
    return PixelGANConfig(in_channels=channels, width=width, **normalised(shapes, "net.2", "net.3"))


def _convolution(shapes: Shapes, module: str) -> tuple[int, int]:
    shape = shapes.get(f"{module}.weight")
    if shape is None or len(shape) != 4:
        found = "is missing" if shape is None else f"has the shape {shape}"
        raise ModelError(f"{module}.weight {found}, where a convolution was expected in {KNOWN}")
    return shape[0], shape[1]


def listing(config: NetworkConfig) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Returns the reference's name → our name and shape, in the reference's order, which is also ours."""
    with torch.device("meta"):
        shapes = shapes_of(config.build().state_dict())
    numbers = modules(config)
    found = {}
    for name, shape in shapes.items():
        module, _, leaf = name.rpartition(".")
        if module not in numbers:
            raise ModelError(f"the reference has no place for {module}")
        found[f"{numbers[module]}.{leaf}"] = name, shape
    return found


def modules(config: NetworkConfig) -> dict[str, str]:
    """Returns the name of our module → the reference's, for all with tensors and the layers of a residual generator.

    Raises `ModelError` for a network that the reference lacks.
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


_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def load(path: Path | str, *, dropout: bool | None = None) -> tuple[NetworkConfig, StateDict]:
    """Reads a `.pth` file of the reference, or `.safetensors` of the same keys: the network's configuration and its
    state dict in our names, as `state_dicts.read` does; `dropout` as for `convert`.

    Raises `ModelError` naming the file for anything but such weights, all of them finite.
    """
    with naming(path):
        config, weights = convert(read(Path(path)), dropout=dropout)
        refuse_nonfinite(weights)
        return config, weights


def load_embedding(path: Path) -> StateDict:
    """Reads a `.pth` file of CUT's patch embedding (`mlp_0.0.weight`, …), whose names are ours. Raises as `load`."""
    with naming(path):
        weights = read(path)
        if "mlp_0.0.weight" not in weights:
            raise ModelError("not a patch embedding of CUT")
        refuse_nonfinite(weights)
        return weights


def build(config: NetworkConfig | GeneratorConfig, weights: StateDict) -> nn.Module:
    """Returns the network of `config` with `weights`, on the CPU, float32, in eval mode; draws no random number."""
    with torch.device("meta"):
        network = config.build()
    network.to_empty(device="cpu").load_state_dict(weights)
    return network.eval()


def convert(state_dict: Mapping[str, Any], *, dropout: bool | None = None) -> tuple[NetworkConfig, StateDict]:
    """Returns a state dict of the reference as our configuration and state dict (the same tensors, not copied).

    Prefixes `module.` and `_orig_mod.` are dropped, and one that all keys have (`netG.`), and so are the running
    statistics that instance norm kept in torch < 0.4. Without norm tensors, biases mean instance norm and their
    absence `norm="none"` (which in the reference has no biases: `bias=False`). A residual generator's keys tell
    whether it has dropout, a U-Net's do not: `dropout` says so, and by default it is `True` with batch norm, for
    the published pix2pix models were trained with it, and `False` otherwise. It changes no tensor.
    Raises `ModelError` saying what the keys look like and what was expected.
    """
    tensors = without_prefixes(state_dict, is_reference)
    for name in list(tensors):  # instance norms of torch before 0.4 kept statistics, without a weight beside them
        module, _, leaf = name.rpartition(".")
        if leaf in _STATISTICS and f"{module}.weight" not in tensors:
            del tensors[name]
    shapes = shapes_of(tensors)
    config = recognised(shapes, dropout)
    try:
        config = checked(config)
    except UsageError as error:
        raise ModelError(f"looks like a {config.kind} out of our limits: {error}") from None
    expected = listing(config)
    for name, (_, shape) in expected.items():
        if name.endswith("num_batches_tracked") and name not in tensors:  # written since torch 0.4.1
            tensors[name] = torch.zeros(shape, dtype=torch.int64)
            shapes[name] = shape
    with naming(f"looks like {config}"):
        refuse_other_shapes(shapes, {name: shape for name, (_, shape) in expected.items()})
    refuse_changed_filters(tensors)
    return config, {ours: tensors[name] for name, (ours, _) in expected.items()}


def to_reference(config: NetworkConfig, state_dict: Mapping[str, Tensor]) -> StateDict:
    """Returns our state dict under the reference's names and in its order; `convert` gives it back exactly.

    Raises `ModelError` if other tensors are there than `config` has, and for a network that the reference
    cannot build, such as norm `none` with biases, so that its keys would be taken for another one.
    """
    expected = listing(config)
    with naming(f"not the tensors of this {config.kind}"):
        refuse_other_shapes(shapes_of(state_dict), dict(expected.values()))
    shapes = {name: shape for name, (_, shape) in expected.items()}
    again: Any = recognised(shapes, getattr(config, "dropout", None))
    ours: Any = config
    one, other = (replace(c, bias=conv_bias(c.norm, c.bias)) for c in (again, ours))  # a default is spelled out
    if one != other:
        raise ModelError(f"the reference's layout cannot express {config}: it would be read as {again}")
    return {name: state_dict[ours] for name, (ours, _) in expected.items()}


def save(path: Path | str, network: nn.Module, *, replace: bool = True) -> None:
    """Writes the weights of `network` as a `.pth` file that the reference loads: its layout, a state dict alone.

    The layout has no place for domains, statistics, licence, and for whether a U-Net has dropout.
    `replace` as in `atomic_write`. Raises `ModelError` as `to_reference` does, `OutputError` if the file cannot be
    written.
    """
    config: Any = network.config
    with naming(f"{path}: not written"):
        refuse_nonfinite(network.state_dict())
        weights = to_reference(config, network.state_dict())
    # cloned, so that a part of a larger storage does not take the rest along
    plain = OrderedDict((name, tensor.detach().cpu().clone()) for name, tensor in weights.items())
    atomic_write(Path(path), lambda file: torch.save(plain, file), replace=replace)
