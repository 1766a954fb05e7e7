"""The reference's recorded updates: same weights, same batches, same losses and weights after, in float64."""

from typing import Any

import pytest
import torch
from golden_rule import draw, drawn_as_recorded, rule
from torch import Tensor

from i2i.algorithms import CycleGAN, Pix2Pix
from i2i.algorithms.algorithm import Algorithm
from i2i.algorithms.cyclegan import CycleGANOptions
from i2i.algorithms.pix2pix import Pix2PixOptions
from i2i.data.pair import ImagePair
from i2i.models import junyanz
from i2i.training.schedule import TrainingOptions
from i2i.training.step import ProcessGroup, TrainingStep, lr_factor

pytestmark = pytest.mark.arithmetic

NETWORKS = {
    "CycleGANModel": {"G_A": "G_AB", "G_B": "G_BA", "D_A": "D_B", "D_B": "D_A"},
    "Pix2PixModel": {"G": "G", "D": "D"},
}
# The reference's logged losses in ours: name → (name here, factor).
LOSSES = {
    "CycleGANModel": {
        "D_A": ("D_B", 1), "D_B": ("D_A", 1), "G_A": ("gan_AB", 1), "G_B": ("gan_BA", 1),
        "cycle_A": ("cycle_A", 1), "cycle_B": ("cycle_B", 1), "idt_A": ("identity_B", 1), "idt_B": ("identity_A", 1),
    },
    "Pix2PixModel": {"G_GAN": ("G_gan", 1), "G_L1": ("G_L1", 1), "D_real": ("D_real", 2), "D_fake": ("D_fake", 2)},
}  # fmt: skip


def algorithm_of(row: dict[str, Any]) -> Algorithm:
    """Our algorithm for the reference's options, on networks recognised by our converter."""
    o = row["options"]
    shared = {"ngf": 4, "ndf": 4, "gan_mode": o["gan_mode"], "lambda_gp": 0.0}
    if row["model"] == "CycleGANModel":
        algorithm: Algorithm = CycleGAN(
            CycleGANOptions(
                generator="resnet_1blocks",
                lambda_cycle_A=o["lambda_A"],
                lambda_cycle_B=o["lambda_B"],
                lambda_identity=o["lambda_identity"],
                pool_size=0,
                **shared,
            )
        )
    else:
        algorithm = Pix2Pix(Pix2PixOptions(generator="unet_32", lambda_L1=o["lambda_L1"], **shared))
    for n, name in enumerate(row["networks"]):
        weights = draw(row["state_dict"][name], row["seed"] + 10000 * (n + 1), torch.float64)
        config, weights = junyanz.convert(weights, dropout=not o["no_dropout"])
        network = config.build().double()
        network.load_state_dict(weights)
        setattr(algorithm, NETWORKS[row["model"]][name], network.train())
    return algorithm


def batch_of(row: dict[str, Any], step: int) -> ImagePair:
    o = row["options"]

    def images(channels: int, seed: int) -> Tensor:
        return rule((row["batch"], channels, row["size"], row["size"]), seed).double().clamp(-1, 1)

    pair = ImagePair(images(o["input_nc"], row["seed"] + 2 * step), images(o["output_nc"], row["seed"] + 2 * step + 1))
    return pair if o["direction"] == "AtoB" else ImagePair(pair.b, pair.a)


@drawn_as_recorded
def test_training_follows_the_reference(training_row: dict[str, Any]) -> None:
    row, o = training_row, training_row["options"]
    algorithm = algorithm_of(row)
    options = TrainingOptions(lr=o["lr"], beta1=o["beta1"])
    train_step = TrainingStep(algorithm, options, ProcessGroup("cpu"))

    for step, expected in enumerate(row["losses"]):
        losses = train_step(batch_of(row, step), step)
        for name, value in expected.items():
            own, factor = LOSSES[row["model"]][name]
            made = float(losses[own]) * factor if own in losses else 0.0
            assert made == pytest.approx(value, rel=1e-6), f"step {step}: {name}"

    networks = algorithm.networks()
    for name, tensors in row["after"].items():
        network = networks[NETWORKS[row["model"]][name]]
        after = junyanz.to_reference(network.config, network.state_dict())
        for key, (mean, mean_abs) in tensors.items():
            weight = after[key]
            assert weight.mean().item() == pytest.approx(mean, abs=1e-8), f"{name}.{key}"
            assert weight.abs().mean().item() == pytest.approx(mean_abs, abs=1e-8), f"{name}.{key}"


def test_schedules_are_the_reference_s(schedule_row: tuple[str, list[float]]) -> None:
    label, expected = schedule_row
    policy, *arguments = label.split()
    epochs = {key: int(value) for key, value in (a.split("=") for a in arguments)}
    lengths = epochs["n_epochs"], epochs["n_epochs_decay"], epochs.get("lr_decay_iters", 50)
    made = [2e-4 * lr_factor(policy, epoch, *lengths) for epoch in range(len(expected))]
    assert made == pytest.approx(expected, rel=0, abs=1e-12)
