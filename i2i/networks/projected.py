"""The projected discriminator: Sauer, Chitta, Müller, Geiger, "Projected GANs Converge Faster", NeurIPS 2021
(arXiv:2111.01007).

A frozen pretrained network gives features at strides 4, 8, 16 and 32. Fixed random projections mix them: 1×1
convolutions across channels, then, from the coarsest scale to the finest, upsampling, addition and 3×3 convolutions
across scales (Sec. 3.2). A small discriminator with spectral normalisation judges each scale. None of them sees the
finest texture, so a PatchGAN can judge the images too.

Deviations from the paper: all scales are projected to one number of channels; the small discriminators are fully
convolutional with a logit for each patch, so that they take any image size; a condition (pix2pix) passes through the
feature network separately, and the projections mix its features with those of the image.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.errors import UsageError
from i2i.networks import blocks
from i2i.networks.blocks import SpectralConv2d
from i2i.networks.patchgan import PatchGANConfig
from i2i.networks.pretrained import EFFICIENTNET, feature_network

_HALVINGS = (2, 2, 1, 0)  # of the discriminator at stride 4, 8, 16, 32: logits at stride 16 and 32


@dataclass(frozen=True, kw_only=True)
class ProjectedConfig:
    """Four small discriminators on projected features; `width` channels in each projection."""

    kind: ClassVar[str] = "projected"

    in_channels: Annotated[int, Interval(ge=1, le=512)] = 3
    width: Annotated[int, Interval(ge=1, le=512)] = 64
    norm: Literal["spectral"] = "spectral"
    bias: bool | None = None
    features: str = EFFICIENTNET
    """`efficientnet`, or a file with the weights of a VGG: see `pretrained.feature_network`."""
    projection_seed: Annotated[int, Interval(ge=0, lt=2**63)] = 0
    """Seed of the random projections."""
    patchgan_layers: Annotated[int, Interval(ge=0, le=8)] = 0
    """Layers of an additional PatchGAN; 0 is none."""

    @property
    def receptive_field(self) -> int:
        """The stride of the coarsest logits in pixels; the receptive field of a feature has no sharp border."""
        return 32

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
