"""The plain way to train: what our training step is compared with.

One step as the published code orders it, on the networks of one of our algorithms: instance norm from
`nn.InstanceNorm2d`, the last convolution as torch has it, every discriminator pass by itself, gradients switched off
in the discriminators, `torch.optim.Adam` as it comes, eager float32 in the plain memory format.
"""

import torch
from plain_networks import plain
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.algorithms import CycleGAN, Pix2Pix
from i2i.algorithms.algorithm import Algorithm
from i2i.data.pair import ImagePair


def needs_gradients(networks: list[nn.Module], on: bool) -> None:
    """Whether gradients are computed for the weights of `networks`."""
    for network in networks:
        network.requires_grad_(on)


class PlainCycleGAN:
    """CycleGAN with least squares, identity loss and no image pool; starts from the weights of `algorithm`."""

    def __init__(self, algorithm: CycleGAN) -> None:
        self.G_AB, self.G_BA = plain(algorithm.G_AB), plain(algorithm.G_BA)
        self.D_A, self.D_B = plain(algorithm.D_A), plain(algorithm.D_B)
        self.options = algorithm.options
        generators, judges = [self.G_AB, self.G_BA], [self.D_A, self.D_B]
        self.optimizer_G, self.optimizer_D = (
            torch.optim.Adam([p for network in nets for p in network.parameters()], lr=2e-4, betas=(0.5, 0.999))
            for nets in (generators, judges)
        )

    def __call__(self, batch: ImagePair) -> dict[str, float]:
        """One step on (N, C, H, W) in [-1, 1]; the losses, fetched at once."""
        o, real_A, real_B = self.options, batch.a, batch.b
        fake_B, fake_A = self.G_AB(real_A), self.G_BA(real_B)
        cycled_A, cycled_B = self.G_BA(fake_B), self.G_AB(fake_A)
        needs_gradients([self.D_A, self.D_B], False)
        self.optimizer_G.zero_grad()
        losses = {
            "identity_A": o.lambda_cycle_A * o.lambda_identity * F.l1_loss(self.G_BA(real_A), real_A),
            "identity_B": o.lambda_cycle_B * o.lambda_identity * F.l1_loss(self.G_AB(real_B), real_B),
            "gan_AB": least_squares(self.D_B(fake_B), 1),
            "gan_BA": least_squares(self.D_A(fake_A), 1),
            "cycle_A": o.lambda_cycle_A * F.l1_loss(cycled_A, real_A),
            "cycle_B": o.lambda_cycle_B * F.l1_loss(cycled_B, real_B),
        }
        sum_of(losses).backward()
        self.optimizer_G.step()
        needs_gradients([self.D_A, self.D_B], True)
        self.optimizer_D.zero_grad()
        for name, judge, real, fake in (("D_A", self.D_A, real_A, fake_A), ("D_B", self.D_B, real_B, fake_B)):
            losses[name] = 0.5 * (least_squares(judge(real), 1) + least_squares(judge(fake.detach()), 0))
            losses[name].backward()
        self.optimizer_D.step()
        return {name: float(loss.detach()) for name, loss in losses.items()}


class PlainPix2Pix:
    """pix2pix with cross-entropy and a conditional discriminator; starts from the weights of `algorithm`."""

    def __init__(self, algorithm: Pix2Pix) -> None:
        self.G, self.D, self.options = plain(algorithm.G), plain(algorithm.D), algorithm.options
        self.optimizer_G, self.optimizer_D = (
            torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999)) for network in (self.G, self.D)
        )

    def __call__(self, batch: ImagePair) -> dict[str, float]:
        """One step on (N, C, H, W) in [-1, 1]; the losses, fetched at once."""
        real_A, real_B = batch.a, batch.b
        fake_B = self.G(real_A)
        self.optimizer_D.zero_grad()
        losses = {
            "D_fake": 0.5 * cross_entropy(self.D(torch.cat([real_A, fake_B.detach()], 1)), 0),
            "D_real": 0.5 * cross_entropy(self.D(torch.cat([real_A, real_B], 1)), 1),
        }
        sum_of(losses).backward()
        self.optimizer_D.step()
        needs_gradients([self.D], False)
        self.optimizer_G.zero_grad()
        made = {
            "G_gan": cross_entropy(self.D(torch.cat([real_A, fake_B], 1)), 1),
            "G_L1": self.options.lambda_L1 * F.l1_loss(fake_B, real_B),
        }
        sum_of(made).backward()
        self.optimizer_G.step()
        needs_gradients([self.D], True)
        return {name: float(loss.detach()) for name, loss in (losses | made).items()}


def plain_step(algorithm: Algorithm) -> PlainCycleGAN | PlainPix2Pix:
    """The plain step of `algorithm`, on copies of its networks."""
    if isinstance(algorithm, CycleGAN):
        return PlainCycleGAN(algorithm)
    assert isinstance(algorithm, Pix2Pix), f"{algorithm.name} has no plain step"
    return PlainPix2Pix(algorithm)


def least_squares(logits: Tensor, target: float) -> Tensor:
    """The distance of the logits from `target`, squared."""
    return F.mse_loss(logits, torch.full_like(logits, target))


def cross_entropy(logits: Tensor, target: float) -> Tensor:
    """The cross-entropy of the logits with `target`."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def sum_of(losses: dict[str, Tensor]) -> Tensor:
    """The number to differentiate."""
    return torch.stack(list(losses.values())).sum()
