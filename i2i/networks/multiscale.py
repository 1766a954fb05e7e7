"""The multi-scale discriminator of pix2pixHD: Wang, Liu, Zhu, Tao, Kautz, Catanzaro, "High-Resolution Image Synthesis
and Semantic Manipulation with Conditional GANs", CVPR 2018 (arXiv:1711.11585), Sec. 3.2.

PatchGANs D_1, D_2, … of one architecture, each with weights of its own: D_1 judges the picture, each further one the
picture at half the size of the one before. Halved by averaging 3×3 pixels at every second one, which at the border
leaves out what lies beyond.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.networks.antialias import Sampling
from i2i.networks.blocks import DiscriminatorNorm
from i2i.networks.patchgan import PatchGANConfig


@dataclass(frozen=True, kw_only=True)
class MultiScaleConfig:
    """`scales` PatchGANs; everything else is said of each of them."""

    kind: ClassVar[str] = "multiscale_patchgan"

    in_channels: Annotated[int, Interval(ge=1, le=512)] = 3
    width: Annotated[int, Interval(ge=1, le=512)] = 64
    layers: Annotated[int, Interval(ge=1, le=8)] = 3
    norm: DiscriminatorNorm = "instance"
    bias: bool | None = None
    """Biases before a normalisation; by default where there is no batch norm."""
    downsampling: Sampling = "strided"
    """How the size is halved within a PatchGAN."""
    scales: Annotated[int, Interval(ge=1, le=4)] = 3
    """How many; the paper has three."""

    @property
    def each(self) -> PatchGANConfig:
        """The configuration of each PatchGAN."""
        return PatchGANConfig(
            in_channels=self.in_channels,
            width=self.width,
            layers=self.layers,
            norm=self.norm,
            bias=self.bias,
            downsampling=self.downsampling,
        )

    @property
    def receptive_field(self) -> int:
        """The width in pixels of the patch that a logit of the coarsest scale judges."""
        return ((self.each.receptive_field + 1) << (self.scales - 1)) - 1

    @property
    def minimum_size(self) -> int:
        """The smallest height and width that leave one logit at the coarsest scale."""
        return ((self.each.minimum_size - 1) << (self.scales - 1)) + 1

    def build(self) -> "MultiScalePatchGAN":
        return MultiScalePatchGAN(self)


class MultiScalePatchGAN(nn.Module):
    """(N, in_channels, H, W) → logits (N, 1, H', W') of each scale, from the finest to the coarsest."""

    def __init__(self, config: MultiScaleConfig) -> None:
        super().__init__()
        self.config = config
        self.scales = nn.ModuleList(config.each.build() for _ in range(config.scales))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(judge(part) for judge, part in zip(self.scales, self.pyramid(x), strict=True))

    def features(self, x: Tensor) -> list[list[Tensor]]:
        """For each scale what its layers answer, after the activation, from the first to the logits."""
        parts = zip(self.scales, self.pyramid(x), strict=True)
        return [answers for judge, part in parts for answers in judge.features(part)]  # type: ignore[operator]

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """The picture at each scale."""
        found = [x]
        while len(found) < self.config.scales:
            found.append(F.avg_pool2d(found[-1], 3, stride=2, padding=1, count_include_pad=False))
        return found
