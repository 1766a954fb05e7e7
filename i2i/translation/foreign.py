"""Checkpoints of junyanz/pytorch-CycleGAN-and-pix2pix, both ways: its state dicts and its `.pth` files.

A network is recognised by the names and shapes of its tensors alone. What they do not tell is stated where it
is decided: padding is taken to be by reflection, and see `convert` for the dropout of a U-Net. Names of files
are the caller's business; mind that the reference's `D_A` judges images of B and is our `D_B`.
"""

import dataclasses
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from i2i.config import checked
from i2i.errors import ModelError, UsageError
from i2i.networks import NetworkConfig
from i2i.networks.blocks import conv_bias
from i2i.translation.reference import KNOWN, Shapes, listing, recognised
from i2i.translation.weights import (
    MAX_FILE_BYTES,
    MAX_TENSORS,
    refuse_hostile,
    refuse_nonfinite,
    regular_file,
)

StateDict = dict[str, Tensor]
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def load(path: Path | str, *, dropout: bool | None = None) -> tuple[NetworkConfig, StateDict]:
    """Read a `.pth` file of the reference: the network's configuration and its state dict in our names.

    Tensors keep their dtype and lie on the CPU. `dropout` as for `convert`. No code in the file is ever run.
    Raises `ModelError` naming the file for anything but such weights, all of them dense, floating and finite,
    at most 10 000 tensors and 4 GiB.
    """
    path = Path(path)
    try:
        state_dict = _read(path)
        refuse_hostile(state_dict)
        config, weights = convert(state_dict, dropout=dropout)
        refuse_nonfinite(weights)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    return config, weights


def _read(path: Path) -> Mapping[str, Tensor]:
    size = regular_file(path)
    _refuse_zip_bomb(path, size)
    try:
        # not mapped into memory: a mapped file that shrinks under us would kill the process
        with warnings.catch_warnings(action="ignore"):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=False)
    except Exception as error:  # whatever bytes can do to the restricted unpickler
        raise ModelError(f"cannot be read as a checkpoint: {_reason(error)}") from None
    if not isinstance(content, Mapping):
        raise ModelError(f"holds a {type(content).__name__}, not a state dict; expected {KNOWN}")
    return content


def _refuse_zip_bomb(path: Path, size: int) -> None:
    """torch stores the members of its zip files uncompressed; compressed ones could inflate without limit."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as file:
            members = file.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ModelError(f"a damaged zip file ({error})") from None
    if sum(member.file_size for member in members) > min(size, MAX_FILE_BYTES):
        raise ModelError("its members are larger than the file: not written by torch.save")
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ModelError("its members are compressed: not written by torch.save")


def _reason(error: Exception) -> str:
    """torch's message without its advice to load the file unsafely."""
    message = str(error)
    if found := re.search(r"Unsupported global: GLOBAL (\S+)", message):
        return f"it holds code or objects ({found[1]}), not weights alone; such files are never run"
    if "weights_only" in message:
        return "it holds code or objects, not weights alone; such files are never run"
    first = message.strip().partition("\n")[0][:200]
    return f"damaged or not written by torch.save ({type(error).__name__}: {first})"


def convert(state_dict: Mapping[str, Any], *, dropout: bool | None = None) -> tuple[NetworkConfig, StateDict]:
    """A state dict of the reference as our configuration and state dict (the same tensors, not copied).

    Prefixes `module.` and `_orig_mod.` are dropped, and so are the running statistics that instance norm kept
    in torch < 0.4. Without norm tensors, biases mean instance norm and their absence `norm="none"` (which in
    the reference has no biases: `bias=False`). A residual generator's keys tell whether it has dropout, a
    U-Net's do not: `dropout` says so, and by default it is `True` with batch norm, for the published pix2pix
    models were trained with it, and `False` otherwise. It changes no tensor.
    Raises `ModelError` saying what the keys look like and what was expected.
    """
    tensors = _without_instance_statistics(_without_prefixes(state_dict))
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    config = _limited(recognised(shapes, dropout))
    expected = listing(config)
    for name, (_, shape) in expected.items():
        if name.endswith("num_batches_tracked") and name not in tensors:  # written since torch 0.4.1
            tensors[name] = torch.zeros(shape, dtype=torch.int64)
            shapes[name] = shape
    _compare(config, shapes, {name: shape for name, (_, shape) in expected.items()})
    return config, {ours: tensors[name] for name, (ours, _) in expected.items()}


def to_reference(config: NetworkConfig, state_dict: Mapping[str, Tensor]) -> StateDict:
    """Our state dict under the reference's names and in its order; `convert` gives it back exactly.

    Raises `ModelError` if other tensors are there than `config` has, and for a network that the reference
    cannot build, such as norm `none` with biases, so that its keys would be taken for another one.
    """
    expected = listing(config)
    missing = [ours for ours, _ in expected.values() if ours not in state_dict]
    if missing or len(state_dict) != len(expected):
        extra = sorted(set(state_dict) - {ours for ours, _ in expected.values()})
        raise ModelError(f"not the tensors of this {config.kind}: missing {missing[:3]}, unexpected {extra[:3]}")
    shapes = {name: shape for name, (_, shape) in expected.items()}
    again = recognised(shapes, getattr(config, "dropout", None))
    if _explicit(again) != _explicit(config):
        raise ModelError(f"the reference's layout cannot express {config}: it would be read as {again}")
    return {name: state_dict[ours] for name, (ours, _) in expected.items()}


def _explicit(config: NetworkConfig) -> NetworkConfig:
    return dataclasses.replace(config, bias=conv_bias(config.norm, config.bias))


def _without_prefixes(state_dict: Mapping[str, Any]) -> StateDict:
    if len(state_dict) > MAX_TENSORS:
        raise ModelError(f"{len(state_dict)} entries; at most {MAX_TENSORS} are accepted")
    tensors: StateDict = {}
    for key, value in state_dict.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise ModelError(f"entry {str(key)[:80]!r} is a {type(value).__name__}, not a tensor; expected {KNOWN}")
        name = re.sub(r"^(module\.|_orig_mod\.)+", "", key)
        if name in tensors:
            raise ModelError(f"{name} occurs twice, with and without the prefix of a wrapper")
        tensors[name] = value
    return tensors


def _without_instance_statistics(tensors: StateDict) -> StateDict:
    def belongs(name: str) -> bool:
        module, _, leaf = name.rpartition(".")
        return leaf not in _STATISTICS or f"{module}.weight" in tensors

    return {name: tensor for name, tensor in tensors.items() if belongs(name)}


def _limited(config: NetworkConfig) -> NetworkConfig:
    try:
        return checked(config)
    except UsageError as error:
        raise ModelError(f"looks like a {config.kind} out of our limits: {error}") from None


def _compare(config: NetworkConfig, found: Shapes, expected: Shapes) -> None:
    faults = [f"{name} is missing" for name in expected if name not in found]
    faults += [f"{name} has no place in it" for name in found if name not in expected]
    faults += [
        f"{name} has the shape {found[name]} instead of {shape}"
        for name, shape in expected.items()
        if found.get(name, shape) != shape
    ]
    if faults:
        more = f", and {len(faults) - 3} more such faults" if len(faults) > 3 else ""
        raise ModelError(f"looks like {config}, but {'; '.join(faults[:3])}{more}")
