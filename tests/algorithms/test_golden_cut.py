"""CUT's recorded updates: same weights, batches, places and flips, same losses and weights after, in float64.

The published code was recorded on a CPU, one picture at a time, and there torch 2.15 gives `nn.InstanceNorm2d` a
wrong gradient: one that comes in with channels last is read as if channels came first. The published code hands its
residual blocks such gradients, from the patches. Ours are right, which a test below holds against differences; to
follow the recorded numbers, the mistake is made here too.
"""

from typing import Any

import pytest
import torch
from golden_rule import draw, drawn_as_recorded, rule
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.algorithms import cut
from i2i.algorithms.cut import CUT, CUTOptions
from i2i.data.pair import ImagePair
from i2i.models import junyanz
from i2i.networks.blocks import InstanceNorm
from i2i.training.schedule import TrainingOptions
from i2i.training.step import ProcessGroup, TrainingStep

pytestmark = pytest.mark.arithmetic

Row = dict[str, Any]


def options_of(row: Row) -> CUTOptions:
    """Ours for the reference's: its one weight stands before the mean of the two contrastive losses."""
    o = row["options"]
    weight = o["lambda_NCE"] / 2 if o["nce_idt"] else o["lambda_NCE"]
    return CUTOptions(
        ngf=o["ngf"],
        ndf=o["ndf"],
        gan_mode=o["gan_mode"],
        lambda_GAN=o["lambda_GAN"],
        lambda_NCE_A=weight,
        lambda_NCE_B=weight if o["nce_idt"] else 0.0,
        nce_layers=o["nce_layers"],
        num_patches=o["num_patches"],
        temperature=o["nce_T"],
        embedding_width=o["netF_nc"],
        negatives="batch" if o["nce_includes_all_negatives_from_minibatch"] else "picture",
        flip_equivariance=o["flip_equivariance"],
        lambda_gp=0.0,
        r1_gamma=0.0,
    )


def algorithm_of(row: Row) -> CUT:
    channels = row["options"]["input_nc"], row["options"]["output_nc"]
    algorithm = CUT(options_of(row), *channels)
    for n, name in enumerate(row["networks"]):
        weights = draw(row["state_dict"][name], row["seed"] + 10000 * (n + 1), torch.float64)
        if name == "F":  # its names are ours
            algorithm.F.double().load_state_dict(weights)
            continue
        config, weights = junyanz.convert(weights)
        network = config.build().double()
        network.load_state_dict(weights)
        assert type(network) is type(getattr(algorithm, name))
        setattr(algorithm, name, with_recorded_norms(network.train()) if name == "G" else network.train())
    return algorithm


def batch_of(row: Row, step: int) -> ImagePair:
    o, size = row["options"], row["size"]

    def images(channels: int, seed: int) -> Tensor:
        return rule((o["batch_size"], channels, size, size), seed).double().clamp(-1, 1)

    seed = row["seed"] + 2 * step
    pair = ImagePair(images(o["input_nc"], seed), images(o["output_nc"], seed + 1))
    return pair if o["direction"] == "AtoB" else ImagePair(pair.b, pair.a)


def losses_of(row: Row, losses: dict[str, Tensor]) -> dict[str, float]:
    """Ours under the names of the reference, which weights the contrastive losses before it halves their sum."""
    o = row["options"]
    terms = 2 if o["nce_idt"] else 1
    made = {
        "G_GAN": losses["G_gan"] if "G_gan" in losses else torch.zeros(()),
        "D_real": losses["D_real"] * 2,
        "D_fake": losses["D_fake"] * 2,
        "G": sum(losses[name] for name in ("G_gan", "NCE_A", "NCE_B") if name in losses),
        "NCE": losses["NCE_A"] * terms if "NCE_A" in losses else torch.zeros(()),
    }
    if o["nce_idt"]:
        made["NCE_Y"] = losses["NCE_B"] * terms
    return {name: float(value) for name, value in made.items()}


class Misread(torch.autograd.Function):
    """The identity, which misreads a gradient of a single picture: channels last for channels first."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        wrong = len(gradient) == 1 and not gradient.is_contiguous()
        return gradient.permute(0, 2, 3, 1).reshape(gradient.shape) if wrong else gradient


class RecordedNorm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        misread: Tensor = Misread.apply(F.group_norm(x, x.shape[1]))  # type: ignore[no-untyped-call]
        return misread


def channels_last_patches(features: Tensor, places: Tensor) -> Tensor:
    """As `patches_at`, all pictures at the places of the first; its gradient has channels last."""
    return features.permute(0, 2, 3, 1).flatten(1, 2)[:, places[0]]


def with_recorded_norms(network: nn.Module) -> nn.Module:
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, InstanceNorm):
                setattr(module, name, RecordedNorm())
    return network


@pytest.fixture
def drawn(cut_row: Row, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The recorded places and flips instead of random ones; `drawn["step"]` is to be set."""
    state = {"call": 0, "step": 0}

    def places(generators: Any, count: int, size: int) -> Tensor:
        generator = torch.Generator().manual_seed(cut_row["seed"] + 50000 + state["call"])
        state["call"] += 1
        return torch.randperm(size, generator=generator)[:count].expand(len(generators), -1)

    monkeypatch.setattr(cut, "draw_places", places)
    monkeypatch.setattr(cut, "patches_at", channels_last_patches)
    monkeypatch.setattr(cut, "draw_flips", lambda generators: torch.full((len(generators),), state["step"] % 2 == 1))
    return state


@drawn_as_recorded
def test_cut_follows_its_published_code(cut_row: Row, drawn: dict[str, int]) -> None:
    algorithm, o = algorithm_of(cut_row), cut_row["options"]
    options = TrainingOptions(lr=o["lr"], beta1=o["beta1"], beta2=o["beta2"])
    train_step = TrainingStep(algorithm, options, ProcessGroup("cpu"))
    for step, expected in enumerate(cut_row["losses"]):
        drawn["step"] = step
        losses = losses_of(cut_row, train_step(batch_of(cut_row, step), step))
        for name, value in expected.items():
            assert losses[name] == pytest.approx(value, rel=1e-6), f"step {step}: {name}"
    assert drawn["call"] == cut_row["permutations"]

    networks = algorithm.networks()
    for name, tensors in cut_row["after"].items():
        network = networks[name]
        after = network.state_dict()
        after = after if name == "F" else junyanz.to_reference(network.config, after)
        for key, (mean, mean_abs) in tensors.items():
            assert after[key].mean().item() == pytest.approx(mean, abs=1e-8), f"{name}.{key}"
            assert after[key].abs().mean().item() == pytest.approx(mean_abs, abs=1e-8), f"{name}.{key}"


def test_the_paper_s_layers_are_those_of_the_published_code(cut_row: Row) -> None:
    algorithm, o = algorithm_of(cut_row), cut_row["options"]
    if (o["netG"], o["no_antialias"], o["nce_layers"]) == ("resnet_9blocks", False, "0,4,8,12,16"):
        assert CUT(CUTOptions(ngf=1, ndf=1)).layers == algorithm.layers
    assert list(algorithm.F.state_dict()) == [name for name, _ in cut_row["state_dict"]["F"]]
