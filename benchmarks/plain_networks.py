"""Networks as the published code has them: instance norm and convolutions are torch's modules."""

import copy

from torch import nn

from i2i.networks.blocks import InstanceNorm
from i2i.networks.convolutions import DeepConvTranspose2d, StridedConv2d, ThinConv2d, WideConv2d
from i2i.networks.spectral import SpectralConv2d

OURS = (ThinConv2d, WideConv2d, StridedConv2d, DeepConvTranspose2d)


def plain(network: nn.Module) -> nn.Module:
    """A copy of `network` with the same weights, whose instance norm and convolutions are torch's modules."""
    made = copy.deepcopy(network)
    for module in list(made.modules()):
        for name, child in module.named_children():
            if isinstance(child, InstanceNorm):
                setattr(module, name, nn.InstanceNorm2d(child.channels))
            elif isinstance(child, OURS) and not isinstance(child, SpectralConv2d):
                setattr(module, name, plain_convolution(child))
    return made


def plain_convolution(ours: ThinConv2d | WideConv2d | StridedConv2d | DeepConvTranspose2d) -> nn.Module:
    """torch's convolution with the parameters of ours."""
    made = copy.copy(ours)
    made.__class__ = nn.ConvTranspose2d if isinstance(ours, nn.ConvTranspose2d) else nn.Conv2d  # type: ignore[assignment]
    return made
