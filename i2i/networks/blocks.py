"""Layers and helpers that several networks share: normalisation, of results and of weights, padding, blurs that
resample, first weights, and the mode in which a trained network translates.

Networks are written with torch's own layers. `i2i.acceleration` exchanges some of them for faster ones later.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.errors import check_word

Norm = Literal["batch", "instance", "none"]
DiscriminatorNorm = Literal["batch", "instance", "none", "spectral"]
Padding = Literal["reflect", "replicate", "zero"]
PaddingMode = Literal["zeros", "reflect", "replicate"]
"""torch's names for the same paddings."""
Statistics = Literal["batch", "running"]
Init = Literal["normal", "xavier", "kaiming", "orthogonal"]
Sampling = Literal["strided", "antialiased"]
Upsampling = Literal["strided", "antialiased", "resize", "smooth"]
_FIRST_ITERATIONS = 15  # for weights that were just drawn
_TINY = 1e-12


class InstanceNorm(nn.GroupNorm):
    """Instance normalisation without affine parameters (Ulyanov et al. 2016, arXiv:1607.08022).

    (N, C, H, W) → (N, C, H, W): y = (x - E[x]) / √(Var[x] + 1e-5), where mean and biased variance are those of each
    channel of each sample. This is group normalisation with one channel in each group. `nn.InstanceNorm2d` has the same
    results, but on a CPU (torch 2.15) a wrong gradient for a single image in the memory format channels last.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, affine=False)


def normalization(norm: DiscriminatorNorm, channels: int) -> nn.Module:
    """Returns the normalisation layer `norm` for `channels` channels.

    `none` and `spectral` give the identity; spectral normalisation is a property of the convolutions.
    """
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    return InstanceNorm(channels) if norm == "instance" else nn.Identity()


def conv_bias(norm: DiscriminatorNorm, bias: bool | None) -> bool:
    """Returns whether a convolution before `norm` has a bias. By default it has one unless batch norm adds its own."""
    return norm != "batch" if bias is None else bias


def padding_mode(padding: Padding) -> PaddingMode:
    """Returns torch's name for `padding`."""
    return "zeros" if padding == "zero" else padding


class SpectralConv2d(nn.Conv2d):
    """A convolution by W / σ(W), with the parameters of `nn.Conv2d` (Miyato, Kataoka, Koyama, Yoshida, "Spectral
    Normalization for Generative Adversarial Networks", ICLR 2018, arXiv:1802.05957).

    W is a matrix with a row for each output channel, and σ(W) its largest singular value. One power iteration for each
    update of W estimates σ(W) (Sec. 2.1, Alg. 1). It runs when W is first used in training after the update. Other
    passes (parts of a batch, a penalty, a turn in which the layer is frozen, a validation) leave the estimate as it is.
    The scale of W changes no result; it changes how fast W turns. The buffer `u` estimates the left singular vector of
    σ(W) and belongs to the state.
    """

    u: Tensor
    seen: Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, **options: Any) -> None:
        super().__init__(in_channels, out_channels, kernel_size, **options)
        self.register_buffer("u", F.normalize(torch.randn(self.out_channels), dim=0))
        # The weight of the last iteration: torch's fused optimizers leave no other trace of an update. It starts as
        # not-a-number, which equals no weight.
        self.register_buffer("seen", torch.full_like(self.weight.detach(), torch.nan), persistent=False)
        self.restart_power_iteration()

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight / self.sigma(), self.bias)

    def sigma(self) -> Tensor:
        """Returns σ(W) = ‖Wᵀu‖, a scalar with a gradient, in the precision of the weight under autocast too."""
        with _without_autocast(self.weight):
            # a copy, because a backward pass may come after `u` has changed
            return (self.weight.flatten(1).t() @ self.u.clone()).norm().clamp_min(_TINY)

    def restart_power_iteration(self) -> None:
        """Estimates `u` anew, for a weight that was just drawn."""
        with torch.no_grad():
            for _ in range(_FIRST_ITERATIONS):
                self.u.copy_(self._iterate())

    def update_power_iteration(self) -> None:
        """Runs one power iteration if the weight is in training and has changed since the last one.

        The comparison stays on the device, so nothing waits for it.
        """
        if not (self.training and self.weight.requires_grad and torch.is_grad_enabled()):
            return
        with torch.no_grad():
            changed = (self.weight != self.seen).any()
            self.u.copy_(torch.where(changed, self._iterate(), self.u))
            self.seen.copy_(self.weight)

    def _iterate(self) -> Tensor:
        """v = Wᵀu / ‖Wᵀu‖; returns Wv / ‖Wv‖."""
        matrix = self.weight.flatten(1)
        with _without_autocast(matrix):
            v = F.normalize(matrix.t() @ self.u, dim=0)
            return F.normalize(matrix @ v, dim=0)


def _without_autocast(weight: Tensor) -> AbstractContextManager[Any]:
    """Switches autocast off for the device of `weight`; autocast does not know the device `meta`."""
    return nullcontext() if weight.is_meta else torch.autocast(weight.device.type, enabled=False)


def update_power_iterations(layers: Iterable[nn.Module]) -> None:
    """Updates the spectral layers among `layers`. A network calls it before it uses them."""
    for layer in layers:
        if isinstance(layer, SpectralConv2d):
            layer.update_power_iteration()


# Blurs against aliasing (Zhang 2019, arXiv:1904.11486), as CUT uses them (Park et al. 2020, arXiv:2007.15651): binomial
# filters, 3×3 over reflected edges to halve, 4×4 over replicated edges to double. The filters are buffers.


def blur_filter(size: int, channels: int = 1) -> Tensor:
    """Returns the binomial filter (channels, 1, size, size): size 3 with the sum 1, or size 4 with the sum 4."""
    row = (1, 2, 1) if size == 3 else (1, 3, 3, 1)
    # computed in Python: tensor arithmetic on the device `meta` would import torch's compiler, which takes a second
    return torch.tensor([[[[a * b / 16 for b in row] for a in row]]] * channels)


class Blur(nn.Module):
    """(N, C, H, W) → (N, C, H, W): the 3×3 filter over replicated edges."""

    stride: ClassVar[int] = 1
    edge: ClassVar[Literal["reflect", "replicate"]] = "replicate"
    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("filt", blur_filter(3, channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode=self.edge), self.filt, stride=self.stride, groups=x.shape[1])


class BlurDownsample(Blur):
    """(N, C, H, W) → (N, C, ⌈H/2⌉, ⌈W/2⌉); H and W are at least 2."""

    stride, edge = 2, "reflect"


class BilinearUpsample(nn.Module):
    """(N, C, H, W) → (N, C, 2H, 2W) by bilinear interpolation.

    Before a convolution it makes the resize-convolution of Odena et al. 2016 (distill.pub/2016/deconv-checkerboard).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    def extra_repr(self) -> str:
        return str(self.channels)


class BlurUpsample(nn.Module):
    """(N, C, H, W) → (N, C, 2H, 2W): zeros between the pixels, then the 4×4 filter over replicated edges.

    Bilinear interpolation gives the same numbers. `filt` is kept because checkpoints of CUT hold it.
    """

    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("filt", blur_filter(4, channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class SmoothUpsample(nn.Sequential):
    """(N, C, H, W) → (N, C, 2H, 2W): the 3×3 blur, then bilinear interpolation.

    The blur removes what alternates from pixel to pixel. The other two ways keep a third of it, and the ReLU after them
    folds it into a weave of every second pixel (Karras et al. 2021, arXiv:2106.12423, Sec. 2; docs/lab-book.md).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.blur, self.resize = Blur(channels), BilinearUpsample(channels)


def init_weights(network: nn.Module, kind: Init = "normal", gain: float = 0.02) -> nn.Module:
    """Draws the weights of `network` from the global random generator, in place, and returns it.

    Convolutions: `normal` N(0, gain) (Radford et al. 2016, Sec. 3), `xavier` (Glorot & Bengio 2010, times
    gain), `kaiming` (He et al. 2015, fan in; ignores gain), `orthogonal` (Saxe et al. 2014, times gain).
    Biases are 0; batch norm scales are N(1, gain) and shifts 0. Depthwise convolutions of k×k are N(0, 1/k), which
    keeps the variance: no normalisation stands between them and the pointwise ones.
    """
    check_word("kind", kind, Init)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            _draw_weight(module, kind, gain)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            if isinstance(module, SpectralConv2d):
                module.restart_power_iteration()
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, gain)
            nn.init.zeros_(module.bias)
    return network


def _draw_weight(module: nn.Conv2d | nn.ConvTranspose2d | nn.Linear, kind: Init, gain: float) -> None:
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


def for_translation(network: nn.Module, statistics: Statistics = "batch", dropout: bool = False) -> nn.Module:
    """Puts `network` into the mode in which it translates, in place and for good, and returns it.

    `statistics="batch"`: batch norm takes its statistics from the given images, as pix2pix does at test time
    (Isola et al. 2017, Sec. 3.4), and never updates anything. `"running"`: it takes the averages of training.
    `dropout`: the noise of pix2pix stays on. The network cannot be trained afterwards.
    """
    check_word("statistics", statistics, Statistics)
    network.eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.train(dropout)
        elif isinstance(module, nn.BatchNorm2d) and statistics == "batch":
            # without running buffers, batch norm uses the statistics of its input in eval mode too
            module.running_mean = module.running_var = module.num_batches_tracked = None
    return network


def finite(tensors: list[Tensor]) -> bool:
    """Returns whether every number of every tensor is finite; waits for the device."""
    return all(bool(torch.isfinite(t).all()) for t in tensors if t.is_floating_point())
