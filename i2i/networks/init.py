"""Initial weights."""

from typing import Literal

from torch import nn

from i2i.networks.spectral import SpectralConv2d

Init = Literal["normal", "xavier", "kaiming", "orthogonal"]


def init_weights(network: nn.Module, kind: Init = "normal", gain: float = 0.02) -> nn.Module:
    """Draw the weights of `network` from the global random generator, in place; returns it.

    Convolutions: `normal` N(0, gain) (Radford et al. 2016, Sec. 3), `xavier` (Glorot & Bengio 2010, times
    gain), `kaiming` (He et al. 2015, fan in; ignores gain), `orthogonal` (Saxe et al. 2014, times gain).
    Biases are 0; batch norm scales are N(1, gain) and shifts 0. Depthwise convolutions of k×k are N(0, 1/k), which
    keeps the variance: no normalisation stands between them and the pointwise ones, which are drawn as the others are.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            if getattr(module, "groups", 1) > 1:
                nn.init.normal_(module.weight, 0.0, 1 / module.weight.shape[-1])
            elif kind == "normal":
                nn.init.normal_(module.weight, 0.0, gain)
            elif kind == "xavier":
                nn.init.xavier_normal_(module.weight, gain=gain)
            elif kind == "kaiming":
                nn.init.kaiming_normal_(module.weight)
            else:
                nn.init.orthogonal_(module.weight, gain=gain)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            if isinstance(module, SpectralConv2d):
                module.settle()
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, gain)
            nn.init.zeros_(module.bias)
    return network
