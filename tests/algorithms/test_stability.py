"""What steadies a training: each against a formula of its own, and through a training's ways: parts, states, copies."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from i2i.acceleration import prepare
from i2i.algorithms import CUT, CycleGAN, Pix2Pix, augmentation
from i2i.algorithms.algorithm import Algorithm, frozen
from i2i.algorithms.augmentation import ADA, Augmentation, DiffAugment
from i2i.algorithms.cut import CUTOptions
from i2i.algorithms.cyclegan import CycleGANOptions
from i2i.algorithms.options import NetworkOptions
from i2i.algorithms.pix2pix import Pix2PixOptions, Segmentation, SegmentationOptions
from i2i.config import from_mapping
from i2i.data.pair import Datasets, ImagePair
from i2i.data.toy import ToyUnpaired
from i2i.errors import UsageError
from i2i.networks import create_discriminator
from i2i.networks.blocks import SpectralConv2d, init_weights
from i2i.training.options import RunOptions, TrainingOptions
from i2i.training.step import ProcessGroup, TrainingStep, seed_step
from i2i.training.trainer import Trainer

pytestmark = pytest.mark.arithmetic

ALONE = ProcessGroup("cpu")
SMALL: dict[str, Any] = {"ngf": 4, "ndf": 4, "discriminator": "patchgan_16", "generator": "resnet_1blocks"}


def images(count: int = 5, height: int = 24, width: int = 24, channels: int = 3, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, channels, height, width, generator=generator, dtype=torch.float64) * 2 - 1


def pair(size: int = 2, side: int = 32) -> ImagePair:
    return ImagePair(images(size, side, side).float(), images(size, side, side, seed=2).float())


def build(kind: Any, **options: Any) -> Any:
    made: Any = {Pix2Pix: Pix2PixOptions, CycleGAN: CycleGANOptions, CUT: CUTOptions}[kind]
    torch.manual_seed(0)
    return kind(made(**{**SMALL, **options}))


EVERY = pytest.mark.parametrize("kind", [Pix2Pix, CycleGAN, CUT])


# Spectral normalisation


def spectral(seed: int = 0) -> SpectralConv2d:
    torch.manual_seed(seed)
    return SpectralConv2d(3, 8, 4, padding=1).double()


def largest_singular_value(layer: nn.Conv2d) -> float:
    return float(np.linalg.svd(layer.weight.detach().numpy().reshape(layer.out_channels, -1), compute_uv=False)[0])


def update(layer: nn.Conv2d, by: float = 0.1) -> None:
    with torch.no_grad():
        layer.weight.add_(torch.randn_like(layer.weight), alpha=by)


def test_weights_are_divided_by_their_largest_singular_value() -> None:
    layer, x = spectral(), images()
    for _ in range(100):
        layer.restart_power_iteration()
    plain = nn.Conv2d(3, 8, 4, padding=1).double()
    plain.load_state_dict({"weight": layer.weight / largest_singular_value(layer), "bias": layer.bias})
    torch.testing.assert_close(layer(x), plain(x), rtol=1e-9, atol=1e-9)


def test_spectral_gradients_are_torch_s() -> None:
    """Of torch's own normalisation after as many iterations; its second vector follows from the first."""
    layer, x = spectral(), images()
    other = nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 8, 4, padding=1).double())
    norm = other.parametrizations.weight[0]  # type: ignore[index]
    with torch.no_grad():
        other.parametrizations.weight.original.copy_(layer.weight)  # type: ignore[union-attr,operator]
        other.bias.copy_(layer.bias)  # type: ignore[union-attr,operator]
        norm._u.copy_(layer.u)
        norm._v.copy_(nn.functional.normalize(layer.weight.flatten(1).t() @ layer.u, dim=0))
    other.eval()  # it would iterate by itself
    made = torch.autograd.grad(layer(x).square().sum(), [layer.weight, layer.bias])
    expected = torch.autograd.grad(other(x).square().sum(), [other.parametrizations.weight.original, other.bias])  # type: ignore[union-attr,list-item]
    for one, another in zip(made, expected, strict=True):
        torch.testing.assert_close(one, another, rtol=1e-9, atol=1e-9)


def test_one_power_iteration_for_each_update() -> None:
    layer = spectral()
    layer.update_power_iteration()
    update(layer)
    u = layer.u.clone()
    matrix = layer.weight.detach().flatten(1).numpy()
    v = matrix.T @ u.numpy()
    expected = matrix @ (v / np.linalg.norm(v))
    for quiet in (torch.no_grad(), frozen(layer)):
        with quiet:
            layer.update_power_iteration()
    layer.eval().update_power_iteration()
    assert torch.equal(layer.u, u), "nobody is training it"
    for _ in range(3):
        layer.train().update_power_iteration()
    np.testing.assert_allclose(layer.u.numpy(), expected / np.linalg.norm(expected), rtol=1e-12)


def test_the_estimate_keeps_up_with_training() -> None:
    D = init_weights(create_discriminator("patchgan_16_spectral", width=8))
    optimizer = torch.optim.Adam(D.parameters(), lr=2e-3, fused=True)
    for i in range(40):
        loss = D(images(seed=i).float()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for layer in D.modules():
        if isinstance(layer, SpectralConv2d):
            assert float(layer.sigma().detach()) == pytest.approx(largest_singular_value(layer), rel=0.02)


def test_a_graph_outlives_the_next_iteration() -> None:
    layer, x = spectral(), images()
    loss = layer(x).square().sum()
    (expected,) = torch.autograd.grad(loss, layer.weight, retain_graph=True)
    layer.u.copy_(torch.roll(layer.u, 1))
    assert torch.equal(torch.autograd.grad(loss, layer.weight)[0], expected)


def test_it_can_be_built_without_memory() -> None:
    with torch.device("meta"):
        D = create_discriminator("patchgan_16_spectral", width=4)
        assert D(torch.empty(1, 3, 32, 32)).shape == (1, 1, 14, 14)


def test_a_copy_and_a_state_go_on_alike() -> None:
    D = create_discriminator("patchgan_16_spectral", width=4)
    again = create_discriminator("patchgan_16_spectral", width=4)
    twin = copy.deepcopy(D)
    again.load_state_dict(D.state_dict())
    x = images().float()
    assert torch.equal(D(x), again(x)) and torch.equal(D(x), twin(x))
    assert sum(name.endswith(".u") for name in D.state_dict()) == 3


def test_every_convolution_is_normalised_and_nothing_else() -> None:
    D = create_discriminator("patchgan_70_spectral", width=4)
    kinds = {type(module) for module in D.layers}  # type: ignore[union-attr]
    assert kinds == {SpectralConv2d, nn.LeakyReLU, nn.Identity}
    assert all(module.bias is not None for module in D.modules() if isinstance(module, SpectralConv2d))


@pytest.mark.parametrize("kind", [Pix2Pix, CycleGAN, CUT])
def test_the_name_says_the_norm_of_the_discriminator(kind: Any) -> None:
    algorithm = build(kind, discriminator="patchgan_16_spectral", norm="instance")
    for network in algorithm.players()["discriminator"]:
        assert network.config.norm == "spectral"
    assert algorithm.players()["generator"][0].config.norm == "instance"


# Games


def softplus(x: np.ndarray) -> np.ndarray:
    return np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0)


def test_the_relativistic_loss_compares_row_by_row() -> None:
    gan = NetworkOptions(gan_mode="relativistic").gan_loss()
    real, fake = images(4, 3, 3, 1), images(4, 3, 3, 1, seed=2)
    difference = (fake - real).numpy()
    assert float(gan.generator(fake, real)) == pytest.approx(softplus(-difference).mean(), rel=1e-12)
    assert float(gan.discriminator(real, fake)) == pytest.approx(softplus(difference).mean() / 2, rel=1e-12)
    assert {k: float(v) for k, v in gan.named_losses("D", real, fake).items()} == {
        "D_pair": pytest.approx(softplus(difference).mean() / 2, rel=1e-12)
    }


def test_real_logits_are_computed_for_the_relativistic_loss_alone() -> None:
    D = create_discriminator("patchgan_16", width=4)
    assert NetworkOptions().gan_loss().real_logits(D, images()) is None
    rivals = NetworkOptions(gan_mode="relativistic").gan_loss().real_logits(D.double(), images())
    assert isinstance(rivals, Tensor) and torch.equal(rivals, D(images())) and not rivals.requires_grad


def test_pictures_of_two_sizes_cannot_be_compared() -> None:
    gan = NetworkOptions(gan_mode="relativistic").gan_loss()
    with pytest.raises(UsageError, match="these have 3x4 and 3x3 patches; crop all to one size"):
        gan.generator(images(1, 3, 4, 1), images(1, 3, 3, 1))


@EVERY
def test_generators_are_compared_with_real_images(kind: Any) -> None:
    """The loss that is played, from the networks as they are."""
    algorithm = (
        build(kind, gan_mode="relativistic", pool_size=0)
        if kind is CycleGAN
        else build(kind, gan_mode="relativistic", dropout=False)
    )
    batch, made = pair(), {}
    for _, losses in algorithm.losses(batch, 0):
        made |= {name: float(loss.detach()) for name, loss in losses.items()}
    translators = algorithm.translators()
    cases = [("a2b", "gan_AB" if kind is CycleGAN else "G_gan", batch.a, batch.b)]
    if kind is CycleGAN:
        cases.append(("b2a", "gan_BA", batch.b, batch.a))
    for way, name, source, real in cases:
        D = getattr(algorithm, f"D_{way[2].upper()}" if kind is CycleGAN else "D")
        shown, fake = real, translators[way](source)
        if kind is Pix2Pix:
            shown, fake = torch.cat([source, real], 1), torch.cat([source, fake], 1)
        with torch.no_grad():
            difference = (D(fake) - D(shown)).numpy()
        assert made[name] == pytest.approx(float(softplus(-difference).mean()), rel=1e-4)


def test_low_memory_compares_as_well() -> None:
    made = []
    for low_memory in (False, True):
        options = {"gan_mode": "relativistic", "r2_gamma": 1.0, "norm": "instance", "dropout": False}
        algorithm = build(Pix2Pix, low_memory=low_memory, **options)
        for _, losses in algorithm.losses(pair(), 0):
            sum(losses.values()).backward()  # type: ignore[union-attr]
        made.append([p.grad for network in algorithm.networks().values() for p in network.parameters()])
    for one, other in zip(*made, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("mode", ["vanilla", "minimax", "nonsaturating", "lsgan"])
def test_the_label_of_real_images_is_smoothed_and_no_other(mode: Any) -> None:
    plain = NetworkOptions(gan_mode=mode).gan_loss()
    gan = NetworkOptions(gan_mode=mode, label_smoothing=0.1).gan_loss()
    logits = images() * 5
    if mode == "lsgan":
        expected = float((logits - 0.9).square().mean())
    else:
        target = torch.full_like(logits, 0.9)
        expected = float(nn.functional.binary_cross_entropy_with_logits(logits, target))
    assert float(gan.real(logits)) == pytest.approx(expected, rel=1e-12)
    assert float(gan.fake(logits)) == float(plain.fake(logits))
    assert float(gan.generator(logits)) == float(plain.generator(logits))


# Penalties


@pytest.mark.parametrize("mode", ["vanilla", "lsgan", "hinge", "wgangp", "relativistic", "nonsaturating"])
def test_penalties_on_real_images_and_on_fakes(mode: Any) -> None:
    """D(x) = ½ Σ w x², so that ∇D = w x, in any game; R1 is of real images, R2 of fakes."""

    class Quadratic(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 0.5 * (3 * x * x).sum(dim=(1, 2, 3))[:, None]

    real, fake = images(), images(seed=2)
    gan = NetworkOptions(gan_mode=mode, r1_gamma=5.0, r2_gamma=7.0, lambda_gp=0.0).gan_loss()
    r1, r2 = (0.5 * ((3 * x) ** 2).sum(axis=(1, 2, 3)).mean() for x in (real.numpy(), fake.numpy()))
    made = gan.penalty("P", Quadratic(), real, fake)
    assert {name: float(value.detach()) for name, value in made.items()} == {
        "P": pytest.approx((5 * r1 + 7 * r2) / 2, rel=1e-12)
    }


def test_the_gradient_penalty_and_r1_add_up() -> None:
    D = create_discriminator("patchgan_16", width=4, norm="none").double()
    made = []
    for options in ({"r1_gamma": 5.0}, {}, {"r1_gamma": 5.0, "lambda_gp": 0.0}):
        torch.manual_seed(0)
        gan = NetworkOptions(gan_mode="wgangp", **options).gan_loss()  # type: ignore[arg-type]
        made.append(float(gan.penalty("P", D, images(), images(seed=2))["P"].detach()))
    assert made[0] == pytest.approx(made[1] + made[2], rel=1e-9)


@pytest.mark.parametrize(
    ("mode", "asked", "weight"), [("nonsaturating", None, 10), ("nonsaturating", 0, 0), ("lsgan", None, 0)]
)
def test_r1_is_on_by_default_in_one_gan_mode(mode: Any, asked: Any, weight: float) -> None:
    gan = NetworkOptions(gan_mode=mode, r1_gamma=asked).gan_loss()
    D = create_discriminator("patchgan_16", width=4).double()
    made = gan.penalty("P", D, images(), images())
    assert bool(made) == bool(weight)
    if weight:
        other = NetworkOptions(gan_mode="lsgan", r1_gamma=weight).gan_loss()
        assert torch.equal(made["P"], other.penalty("P", D, images(), images())["P"])


# Instance noise


def test_noise_falls_to_nothing() -> None:
    augment = NetworkOptions(instance_noise=0.2, instance_noise_steps=1000).augmentation()
    assert augment
    x = torch.zeros(16, 3, 64, 64)
    for step, deviation in ((0, 0.2), (250, 0.15), (999, 0.0002)):
        shown = augment(x, step)
        assert shown.std().item() == pytest.approx(deviation, rel=0.02)
        assert abs(shown.mean().item()) < 0.01 * deviation
    assert augment(x, 1000) is x and augment(x, 5000) is x


def test_noise_leaves_a_condition_alone() -> None:
    augment = NetworkOptions(instance_noise=0.2).augmentation()
    assert augment
    shown = augment(images(), 0, condition=images(channels=2, seed=2))
    assert torch.equal(shown[:, :2], images(channels=2, seed=2))
    assert bool((shown[:, 2:] != images()).any(dim=(2, 3)).all())
    assert not torch.equal(shown[0, 2:] - images()[0], shown[1, 2:] - images()[1])


@EVERY
def test_the_step_reaches_what_discriminators_see(kind: Any) -> None:
    """All that they are shown is noisy at the start, and nothing of it later."""
    algorithm = build(kind, instance_noise=0.3, instance_noise_steps=10, gan_mode="relativistic", r2_gamma=1.0)
    found: list[bool] = []
    batch = pair(1)

    def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.append(bool(inputs[0].detach().abs().max() > 1))

    for network in algorithm.players()["discriminator"]:
        network.register_forward_pre_hook(look)
    for step, noisy in ((0, True), (10, False)):
        found.clear()
        for _ in algorithm.losses(batch, step):
            pass
        assert found and all(was == noisy for was in found)


# ADA


def certain(p: float, **options: Any) -> ADA:
    made = ADA(0.6, 1000, **options)
    made.adapted[0] = p
    return made


def test_no_picture_is_changed_at_first() -> None:
    assert torch.equal(certain(0.0)(images(), 0), images())


@pytest.mark.parametrize(("height", "width", "turns"), [(6, 6, (0, 1, 2, 3)), (6, 8, (0, 2))])
def test_pictures_are_mirrored_and_turned_by_quarters(
    height: int, width: int, turns: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With certainty each, of which mirroring and no turn leave the picture as it is in their turn."""
    monkeypatch.setattr(augmentation, "recolour", lambda images, *_: images)
    monkeypatch.setattr(augmentation, "translate", lambda images, *_: images)
    torch.manual_seed(0)
    picture = images(1, height, width)[0].numpy()
    shown = certain(1.0)(torch.from_numpy(picture).expand(200, -1, -1, -1), 0)
    ways = [np.rot90(p, k, (1, 2)) for p in (picture, picture[:, :, ::-1]) for k in turns]
    counts = [sum(np.array_equal(way, made) for made in shown.numpy()) for way in ways]
    assert sum(counts) == 200
    assert min(counts) > 0.5 * 200 / len(ways)


def test_sixteen_bits_are_augmented_in_float32() -> None:
    coarse = images().bfloat16()
    torch.manual_seed(3)
    made = certain(0.5)(coarse, 0)
    torch.manual_seed(3)
    assert torch.equal(made, certain(0.5)(coarse.float(), 0))


def test_each_operation_comes_with_the_probability() -> None:
    torch.manual_seed(0)
    changed = [0, 0]
    for target, probability in ((0, 0.25), (1, 1.0)):
        shown = certain(probability)(images(1).expand(2000, -1, -1, -1), 0)
        changed[target] = int((shown != images(1)).any(dim=3).any(dim=2).any(dim=1).sum())
    unchanged = 0.75 * 0.875 * (1 - 0.25 * 0.75) * (1 - 0.25 * 48 / 49)  # colour, mirror, turn, shift of 24 pixels by 3
    assert changed[0] / 2000 == pytest.approx(1 - unchanged, abs=0.04)
    assert changed[1] == 2000


def test_a_condition_moves_with_its_picture_in_its_own_colours() -> None:
    shown = certain(1.0)(images(), 0, condition=images())
    moved = shown[:, :3]
    assert not torch.equal(moved, images()) and not torch.equal(moved, shown[:, 3:])
    assert bool(torch.isin(moved[moved != 0], images()).all()), "moved only"


@pytest.mark.parametrize(("decision_boundary", "signs"), [(0.0, 0.5), (0.5, 0.0)])
def test_the_probability_follows_the_signs(
    decision_boundary: float, signs: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In steps of n / `pictures` after n pictures, up above the target and down below, between 0 and 1."""
    monkeypatch.setattr(augmentation, "PICTURES", 8)
    logits = torch.tensor([0.7, 0.9, 0.2, -0.3]).expand(4, 4)[:, :, None]
    augmented, x = ADA(0.25, 32, decision_boundary), images(1)
    expected = 0.0
    for step in range(8):
        augmented(x, step)
        assert float(augmented.adapted[0]) == pytest.approx(min(1.0, max(0.0, expected)), abs=1e-6)
        augmented.observe(logits)
        augmented(x, step)  # another turn of the same step
        augmented.observe(logits)
        assert float(augmented.adapted[1]) == pytest.approx(8 * signs, abs=1e-6)
        expected += 8 / 32 if signs > 0.25 else -8 / 32


def test_the_probability_does_not_move_within_a_step_nor_before_its_time() -> None:
    augmented, x = ADA(0.6, 1000), images(1)
    for step in range(3):
        for _ in range(5):
            augmented(x, step)
            augmented.observe(torch.ones(16, 1, 2, 2))
    augmented(x, 3)
    assert augmented.adapted.tolist() == [0, 240, 240], "16 pictures five times, in three steps"
    augmented.observe(torch.ones(16, 1)), augmented(x, 3)
    assert augmented.adapted.tolist() == [0, 256, 256]
    augmented(x, 4)
    assert augmented.adapted.tolist() == pytest.approx([0.256, 0, 0])


def test_values_that_are_not_finite_do_not_stay() -> None:
    augmented = ADA(0.6, 1000)
    augmented.observe(torch.full((4, 1), torch.nan))
    assert augmented.adapted.tolist() == [0, 0, 4]


@EVERY
def test_ada_goes_by_real_images_in_the_discriminators_turn(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By all of them, once each."""
    algorithm, seen, batch = build(kind, dropout=False, norm="instance", ada_target=0.6), [], pair()
    monkeypatch.setattr(algorithm.augmentation.ada, "observe", seen.append)
    for player, _ in algorithm.losses(batch, 0):
        if player == "discriminator":
            real = torch.cat([batch.a, batch.b], 1) if kind is Pix2Pix else batch.b
            expected = [algorithm.D_A(batch.a), algorithm.D_B(batch.b)] if kind is CycleGAN else [algorithm.D(real)]
    assert len(seen) == len(expected)
    for made, logits in zip(seen, expected, strict=True):
        torch.testing.assert_close(made, logits)


def test_a_resumed_run_adapts_as_one_that_never_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """p, and what is on the way to its next move."""
    monkeypatch.setattr(augmentation, "PICTURES", 4)
    options = {"ada_target": 0.6, "ada_images": 40, "gan_mode": "hinge"}

    def run(algorithm: Algorithm, folder: str, max_steps: int) -> Algorithm:
        for network in algorithm.players()["discriminator"]:
            nn.init.ones_([module for module in network.modules() if isinstance(module, nn.Conv2d)][-1].bias)
        data = ToyUnpaired(size=32, length=4)
        settings = RunOptions(
            run=tmp_path / folder, workers=0, validate_every=0, device="cpu", max_steps=max_steps, lr=1e-3
        )
        Trainer(algorithm, Datasets(data), settings, ALONE).fit()
        return algorithm

    straight = run(build(CycleGAN, **options), "straight", 9)
    run(build(CycleGAN, **options), "run", 6)
    resumed = run(build(CycleGAN, **options), "run", 9)
    assert torch.equal(straight.augmentation.ada.adapted, resumed.augmentation.ada.adapted)  # type: ignore[union-attr]
    assert bool((straight.augmentation.ada.adapted > 0).all())  # type: ignore[union-attr]
    for name, network in straight.networks().items():
        for key, value in network.state_dict().items():
            assert torch.equal(value, resumed.networks()[name].state_dict()[key]), f"{name}.{key}"


def test_processes_agree_on_the_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm, processes, averaged = build(CycleGAN, ada_target=0.6), ProcessGroup("cpu"), []
    monkeypatch.setattr(processes, "average_", averaged.extend)
    TrainingStep(algorithm, RunOptions(), processes)(pair(), 0)
    assert any(tensor is algorithm.augmentation.ada.adapted for tensor in averaged)


# Together, and what is refused

ALL_AT_ONCE: dict[str, Any] = {
    "discriminator": "patchgan_16_spectral_multiscale2",
    "gan_mode": "relativistic",
    "r1_gamma": 1.0,
    "r2_gamma": 1.0,
    "instance_noise": 0.1,
    "diffaugment": "color,translation,cutout",
}


@pytest.mark.usefixtures("quick_compiler")
def test_compiled_discriminators_are_the_same() -> None:
    made: list[Any] = []
    for compiled in (False, True):
        options = {"discriminator": "patchgan_16_spectral_multiscale2", "gan_mode": "relativistic", "r2_gamma": 1.0}
        algorithm = build(Pix2Pix, **options)
        training = TrainingOptions(compile=compiled)
        prepare(algorithm.networks().values(), torch.device("cpu"), training.precision, training.compile)
        train_step, losses = TrainingStep(algorithm, training, ALONE), []
        for step in range(2):
            seed_step(0, step)
            losses.append({name: float(loss) for name, loss in train_step(pair(), step).items()})
        made.append(losses)
        buffers = [b for D in algorithm.players()["discriminator"] for b in D.buffers()]
        made.append([b.clone() for b in buffers])
    assert made[2] == [pytest.approx(losses, rel=1e-5) for losses in made[0]]
    for one, other in zip(made[1], made[3], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "precision"), [(Pix2Pix, "fp16"), (CycleGAN, "bf16"), (CUT, "fp16")])
@pytest.mark.parametrize("adaptive", [False, True])
def test_all_at_once_in_16_bits(kind: Any, precision: Any, adaptive: bool) -> None:
    options = {"diffaugment": "", "gan_mode": "hinge", "ada_target": 0.6} if adaptive else {}
    algorithm = build(kind, **ALL_AT_ONCE | options)
    if adaptive:
        algorithm.augmentation.ada.adapted[0] = 0.7
    step = TrainingStep(algorithm, RunOptions(precision=precision), ALONE)
    step.loss_scale.scale.clamp_(max=2.0**8)
    for i in range(2):
        losses = step(pair(), i)
        assert float(losses["skipped"]) == 0
        assert all(bool(torch.isfinite(loss)) for loss in losses.values())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"gan_mode": "hinge", "label_smoothing": 0.1}, r"label_smoothing = 0\.1: gan_mode = 'hinge' has no labels"),
        ({"gan_mode": "relativistic", "label_smoothing": 0.1}, "has no labels"),
        ({"gan_mode": "wgangp", "ada_target": 0.6}, "only differences of logits count"),
        ({"gan_mode": "relativistic", "ada_target": 0.6}, "only differences of logits count"),
        ({"diffaugment": "color", "ada_target": 0.6}, "leave out diffaugment = 'color'"),
        ({"lambda_gp": 1.0}, r"lambda_gp = 1\.0: changes nothing without gan_mode wgangp"),
        ({"instance_noise_steps": 9}, "instance_noise_steps = 9: changes nothing without instance_noise"),
        ({"ada_images": 9}, "ada_images = 9: changes nothing without ada_target"),
    ],
)
@EVERY
def test_options_that_contradict_each_other(kind: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        build(kind, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"label_smoothing": 0.5},
        {"instance_noise": -0.1},
        {"instance_noise_steps": 0},
        {"ada_target": 1.0},
        {"ada_images": 0},
        {"r1_gamma": -1},
        {"r2_gamma": -1},
    ],
)
def test_values_out_of_range_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=rf"{next(iter(options))} = .*allowed"):
        from_mapping(CycleGANOptions, options)


def test_off_nothing_is_done_or_drawn() -> None:
    before, x, a = torch.get_rng_state(), images(), images(seed=2)
    algorithm = build(CycleGAN, diffaugment="", ada_target=0.0, instance_noise=0.0)
    torch.set_rng_state(before)
    assert algorithm.augment(x, 0) is x
    assert torch.equal(algorithm.augment(x, 0, condition=a), torch.cat([a, x], dim=1))
    assert algorithm.adapted() == {} and torch.equal(torch.get_rng_state(), before)
    assert Augmentation(DiffAugment(), None).deviation(0) == 0


def test_segmentation_without_a_discriminator_takes_no_options_of_one() -> None:
    for option in ({"diffaugment": "color"}, {"r1_gamma": 1.0}, {"instance_noise": 0.1}, {"gan_mode": "hinge"}):
        (name,) = option
        with pytest.raises(UsageError, match=f"{name} = .* changes nothing without lambda_gan"):
            Segmentation(SegmentationOptions(lambda_gan=0.0, **option))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="nothing would be learnt"):
        Segmentation(SegmentationOptions(lambda_gan=0.0, lambda_CE=0.0))
