"""Options that the algorithms share: which networks, how they start, which adversarial game."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Interval
from pydantic import AfterValidator
from torch import nn

from i2i.algorithms.augment import DiffAugment, checked_names
from i2i.errors import UsageError
from i2i.losses.adversarial import Adversarial, GanMode
from i2i.networks import DiscriminatorConfig, GeneratorConfig, discriminator_config, generator_config
from i2i.networks.blocks import Norm, Padding, recompute
from i2i.networks.init import Init, init_weights
from i2i.networks.resnet import ResnetConfig


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """Networks and adversarial loss. Subclasses set their paper's defaults."""

    generator: str = "resnet_9blocks"
    """`resnet_<n>blocks`, the same with `_antialiased` or `_resize`, or `unet_<size>`."""
    discriminator: str = "patchgan_70"
    """`patchgan_<patch width>` (16, 34, 70, 142, 286), the same with `_antialiased`, or `pixelgan`."""
    ngf: Annotated[int, Interval(ge=1, le=512)] = 64
    """Channels of the generator's first layer."""
    ndf: Annotated[int, Interval(ge=1, le=512)] = 64
    """Channels of the discriminator's first layer."""
    norm: Norm = "instance"
    """Normalisation in all networks."""
    dropout: bool = False
    """Dropout in the generator."""
    padding: Padding = "reflect"
    """Padding of the residual generator."""
    input_share: Annotated[float, Interval(ge=0, le=0.9)] = 0.0
    """The share of the picture itself in the residual generator's result, in training as in use; not in the papers."""
    bias: bool | None = None
    """Biases before a normalisation; by default where there is no batch norm."""
    init_type: Init = "normal"
    """How weights are drawn."""
    init_gain: Annotated[float, Gt(0)] = 0.02
    """Their standard deviation (normal) or gain (xavier, orthogonal)."""
    gan_mode: GanMode = "lsgan"
    """The adversarial loss."""
    lambda_gp: Annotated[float, Ge(0)] = 10.0
    """Weight of the gradient penalty of `wgangp`."""
    r1_gamma: Annotated[float, Ge(0)] = 10.0
    """Weight of the R1 penalty of `nonsaturating`."""
    diffaugment: Annotated[str, AfterValidator(checked_names)] = ""
    """Augment all that discriminators see, for small data sets: some of color,translation,cutout; empty is off."""
    low_memory: bool = False
    """Train in less memory with the same gradients: residual blocks are computed again instead of kept, losses
    back-propagated one by one. (With micro-batches, dropout and DiffAugment draw in another order.)"""

    def adversarial(self) -> Adversarial:
        return Adversarial(self.gan_mode, self.lambda_gp, self.r1_gamma)

    def augmentation(self) -> DiffAugment:
        """What every image goes through before a discriminator sees it, in any turn."""
        return DiffAugment(self.diffaugment)

    def generator_config(self, in_channels: int, out_channels: int) -> GeneratorConfig:
        config = generator_config(
            self.generator,
            in_channels=in_channels,
            out_channels=out_channels,
            width=self.ngf,
            norm=self.norm,
            dropout=self.dropout,
            bias=self.bias,
        )
        if isinstance(config, ResnetConfig):
            own = {"padding": self.padding, "input_share": self.input_share}
            return generator_config(self.generator, **{**vars(config), **own})
        if self.input_share:
            raise UsageError(f"input_share = {self.input_share}: is for residual generators, not for {self.generator}")
        return config

    def discriminator_config(self, in_channels: int) -> DiscriminatorConfig:
        return discriminator_config(
            self.discriminator, in_channels=in_channels, width=self.ndf, norm=self.norm, bias=self.bias
        )

    def size_limits(self, in_channels: int, out_channels: int) -> tuple[int, int]:
        """(multiple, minimum): what the networks ask of a crop's height and width."""
        generator = self.generator_config(in_channels, out_channels)
        discriminator = self.discriminator_config(out_channels)
        return generator.size_multiple, max(generator.minimum_size, discriminator.minimum_size)

    def create_generator(self, in_channels: int, out_channels: int) -> nn.Module:
        config = self.generator_config(in_channels, out_channels)
        generator = init_weights(config.build(), self.init_type, self.init_gain)
        if self.low_memory and not recompute(generator):
            raise UsageError(
                f"low_memory = True: {self.generator} has no residual blocks, so it would save nothing; use "
                "--micro-batches, a smaller --crop-size or --precision bf16"
            )
        return generator

    def create_discriminator(self, in_channels: int) -> nn.Module:
        return init_weights(self.discriminator_config(in_channels).build(), self.init_type, self.init_gain)
