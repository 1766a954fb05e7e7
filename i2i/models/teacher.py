"""A trained generator that others learn from: any model of i2i's, frozen, as it translates."""

import copy
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from i2i.acceleration import accelerate
from i2i.errors import UsageError
from i2i.models.info import DIRECTIONS, FROM_NOISE, ModelInfo
from i2i.models.pretrained import open_model, weights_sha256
from i2i.models.styles import exists, find
from i2i.networks import GeneratorConfig
from i2i.networks.blocks import for_translation
from i2i.networks.resnet import ResnetGenerator


class Teacher:
    """(N, C, H, W) in [-1, 1] → what the model makes of each picture by itself, without a gradient.

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
    def opened(cls, name: str) -> "Teacher":
        """The model that `name` names, as `--style` does.

        Raises `UsageError` for one that draws noise, or takes or makes something other than pictures; `ModelError`
        for a file that is no model.
        """
        if all(exists(Path(name) / f"{direction}.safetensors") for direction in DIRECTIONS):
            file = Path(name) / "a2b.safetensors"
            raise UsageError(f"teacher = {name}: translates in two directions; name one file, such as {file}")
        teacher = _read(path := _fetched(name) if name.startswith("hub:") else find(name), _stamp(path))
        if reason := _refusal(teacher.info):
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
    """By which a file is known to be the same as before."""
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


def _refusal(info: ModelInfo) -> str:
    """Why nobody can learn from such a model; empty if they can."""
    if info.network in FROM_NOISE:
        return "makes pictures from noise"
    if info.dropout and info.config.get("dropout"):
        return "draws noise, its dropout, at each pass"
    if info.input_labels or info.output_labels:
        return "takes or makes labels"
    if info.in_units:
        return "takes or makes values in units"
    return "takes a picture's lightness to its colours" if info.encoding == "lab" else ""
