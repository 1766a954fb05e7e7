"""Networks as the published code has them: of torch's own layers, with `nn.InstanceNorm2d`."""

import copy

from torch import nn

from i2i import acceleration
from i2i.networks.blocks import InstanceNorm


def plain(network: nn.Module) -> nn.Module:
    """A copy of `network` with the same weights, of torch's own layers."""
    made = acceleration.plain(copy.deepcopy(network))
    for module in list(made.modules()):
        for name, child in module.named_children():
            if isinstance(child, InstanceNorm):
                setattr(module, name, nn.InstanceNorm2d(child.num_channels))
    return made
