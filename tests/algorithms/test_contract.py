"""The rules that every algorithm keeps: a new one is covered by its line in `ALGORITHMS`."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pretended_gpu import pretended_gpu
from tiny_networks import tiny_teacher, tiny_vgg, unfilled, unfilled_teacher
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.acceleration import prepare
from i2i.algorithms import ALGORITHMS
from i2i.algorithms.algorithm import Algorithm, has_batch_norm
from i2i.algorithms.augmentation import ADA, Augmentation
from i2i.algorithms.distill import Teacher
from i2i.data.pair import Datasets, ImagePair, ImagePairs
from i2i.data.toy import ToyDomain, ToyPairs, ToyUnpaired
from i2i.losses.adversarial import GANLoss, GanMode, scales
from i2i.models import model_file
from i2i.models.info import describe
from i2i.networks import projected
from i2i.networks.blocks import for_translation
from i2i.training.options import RunOptions
from i2i.training.step import ProcessGroup, TrainingStep
from i2i.training.trainer import Trainer

ALONE = ProcessGroup("cpu")
SIZE = 32
STEADIED = {
    "gan_mode": "relativistic",
    "r1_gamma": 1.0,
    "r2_gamma": 1.0,
    "discriminator": "patchgan_16_spectral_multiscale2",
    "diffaugment": "color,translation,cutout",
    "instance_noise": 0.1,
}
ADAPTING = {"ada_target": 0.6}
PROJECTED = {"gan_mode": "hinge", "discriminator": "projected_patchgan_16", "features": tiny_vgg()}
TEACHER = tiny_teacher()
# of `projected`, whose features want pictures
REFUSES = {"segmentation": "judges labels"}

pytestmark = pytest.mark.parametrize("name", list(ALGORITHMS))


CHANNELS = {"segmentation": (3, 11)}  # in and out; of the others as they are by default


def options_of(name: str, **options: Any) -> Any:
    """The algorithm's own defaults, but small networks."""
    cls = ALGORITHMS[name]
    module = __import__(cls.__module__, fromlist=["_"])
    kind = next(value for key, value in vars(module).items() if key == f"{cls.__name__}Options")
    small: dict[str, Any] = {"ngf": 4, "ndf": 4, "discriminator": "patchgan_16", "generator": "resnet_1blocks"}
    if name == "gan":
        small["generator"] = f"dcgan_{SIZE}"
    if name == "distill":
        small |= {"teacher": TEACHER, "lambda_gan": 1.0}
    return kind(**{**small, **options})


def build(name: str, **options: Any) -> Algorithm:
    if name in REFUSES and "features" in options:
        pytest.skip(REFUSES[name])
    torch.manual_seed(0)
    return ALGORITHMS[name](options_of(name, **options), *CHANNELS.get(name, ()))


def batch(name: str, size: int = 2, dtype: torch.dtype = torch.float32, seed: int = 1) -> ImagePair:
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.rand(size, 3, SIZE, SIZE, generator=generator, dtype=dtype) * 2 - 1 for _ in range(2))
    if ALGORITHMS[name].single_domain:
        samples = [ALGORITHMS[name].make_pair(options_of(name), picture, seed) for seed, picture in enumerate(b)]
        a, b = (torch.stack([getattr(sample, side).to(dtype) for sample in samples]) for side in "ab")
    if name == "segmentation":
        b = F.one_hot((b[:, 0] > 0).long(), CHANNELS[name][1]).movedim(-1, 1).to(dtype) * 2 - 1
    return ImagePair(a, b)


def toys(algorithm: Algorithm, **options: Any) -> ImagePairs:
    if algorithm.single_domain:
        return ToyDomain(make_pair=partial(algorithm.make_pair, options_of(algorithm.name)), size=SIZE, **options)
    if algorithm.name == "segmentation":
        return ToyPairs(size=SIZE, one_hot_labels=True, direction="b2a", **options)
    return (ToyPairs if algorithm.paired else ToyUnpaired)(size=SIZE, **options)


def trainer(algorithm: Algorithm, run: Path, **options: Any) -> Trainer:
    data = toys(algorithm, length=4)
    metric = "swd" if algorithm.from_noise else "l1"
    settings = RunOptions(run=run, workers=0, validate_every=0, samples=1, best_metric=metric, device="cpu", **options)
    return Trainer(algorithm, Datasets(data), settings, ALONE)


def test_each_turn_leaves_gradients_in_its_player_alone(name: str) -> None:
    algorithm = build(name)
    players = algorithm.players()
    everything = [network for networks in players.values() for network in networks]
    assert len(everything) == len({id(network) for network in everything}), "no network has two players"
    assert set(map(id, everything)) == set(map(id, algorithm.networks().values()))
    turns = []
    for player, losses in algorithm.losses(batch(name), 0):
        assert all(loss.ndim == 0 and loss.requires_grad for loss in losses.values())
        sum(losses.values()).backward()  # type: ignore[union-attr]
        for other, networks in players.items():
            gradients = [p.grad for network in networks for p in network.parameters() if p.grad is not None]
            touched = any(bool(gradient.any()) for gradient in gradients)
            assert touched == (other == player), f"the turn of {player} reaches {other}"
        if not losses.more:
            for network in players[player]:
                network.zero_grad(set_to_none=True)
        turns.append(player)
    assert set(turns) == set(players)
    assert all(p.requires_grad for network in everything for p in network.parameters()), "left frozen"


def test_every_weight_learns(name: str) -> None:
    algorithm = build(name)
    before = copy.deepcopy(algorithm.networks())
    TrainingStep(algorithm, RunOptions(), ALONE)(batch(name), 0)
    for network, module in algorithm.networks().items():
        for key, parameter in module.named_parameters():
            assert not torch.equal(parameter, dict(before[network].named_parameters())[key]), f"{network}.{key}"


@pytest.mark.parametrize(
    ("options", "precision"),
    [
        ({}, "fp16"),  # which does all that fp32 does
        *(pytest.param(options, "bf16", marks=pytest.mark.slow) for options in (STEADIED, PROJECTED)),
    ],
)
def test_a_step_on_a_gpu(name: str, options: dict[str, Any], precision: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses and updates: no tensor is left on the CPU, and nothing waits for the device.

    The slow ones are made for one algorithm in tests/test_gpu.py.
    """
    monkeypatch.setattr(projected, "feature_network", lambda features: unfilled())  # no file is read there
    monkeypatch.setattr(Teacher, "opened", unfilled_teacher)
    with pretended_gpu():
        algorithm, chosen, processes = build(name, **options), RunOptions(precision=precision), ProcessGroup("cuda")
        memory_format = prepare(algorithm.networks().values(), processes.device, chosen.precision, chosen.compile)
        step = TrainingStep(algorithm, chosen, processes)
        given = batch(name).to(processes.device).contiguous(memory_format)
        made = [step(given, number) for number in range(2)]
        assert {loss.device.type for losses in made for loss in losses.values()} == {"cuda"}


@pytest.mark.promise("R1")
@pytest.mark.parametrize("options", [ADAPTING, STEADIED, pytest.param(PROJECTED, marks=pytest.mark.slow)])
def test_resume_is_exact(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    straight, first, second = (build(name, **options) for _ in range(3))
    trainer(straight, tmp_path / "straight", max_steps=2, ema=0.9).fit()
    trainer(first, tmp_path / "run", max_steps=1, ema=0.9).fit()
    resumed = trainer(second, tmp_path / "run", max_steps=2, ema=0.9)
    resumed.fit()
    for network, module in straight.networks().items():
        for key, value in module.state_dict().items():
            assert torch.equal(value, second.networks()[network].state_dict()[key]), f"{network}.{key}"
    for number, adapted in straight.adapted().items():
        assert torch.equal(adapted, second.adapted()[number])
        assert adapted[2] >= 2, "what is on the way to the next move of its probability"
    for pool, images in straight.pools().items():
        assert all(map(torch.equal, images.images, second.pools()[pool].images))
    one, other = ((tmp_path / run / f"{next(iter(straight.translators()))}.safetensors") for run in ("straight", "run"))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    ("parts", "special"), [(4, {}), (2, STEADIED), pytest.param(2, PROJECTED, marks=pytest.mark.slow)]
)
def test_micro_batches_add_up(name: str, parts: int, special: dict[str, Any]) -> None:
    """With normalisation per sample; batch norm sees other statistics, and is exempt, as is what is drawn."""
    made = []
    plain = {"norm": "instance", "dropout": False, "diffaugment": "", "instance_noise": 0.0}
    options: dict[str, Any] = {**special, **plain}
    for micro_batches in (1, parts):
        algorithm = build(name, **options)
        assert not any(map(has_batch_norm, algorithm.networks().values()))
        for network in algorithm.networks().values():
            network.double()
        for pool in algorithm.pools().values():
            pool.size = 0
        step = TrainingStep(algorithm, RunOptions(micro_batches=micro_batches), ALONE)
        losses = step(batch(name, 4, torch.float64), 0)
        made.append(({k: float(v) for k, v in losses.items()}, algorithm.networks()))
    assert made[0][0] == pytest.approx(made[1][0], rel=1e-9)
    for network, module in made[0][1].items():
        for key, value in module.state_dict().items():
            torch.testing.assert_close(value, made[1][1][network].state_dict()[key], rtol=0, atol=1e-8)


@pytest.mark.parametrize("mode", ["vanilla", "wgangp", "relativistic"])  # the other modes differ in formulas alone
def test_every_gan_mode_trains(name: str, mode: GanMode) -> None:
    """With penalties in the losses, which move the discriminators elsewhere than they would go without."""
    made = []
    for weight in (10.0, 0.0):
        weights = {"lambda_gp": weight, "r1_gamma": weight, "r2_gamma": weight}
        algorithm = build(name, gan_mode=mode, norm="instance", dropout=False, **weights)
        step = TrainingStep(algorithm, RunOptions(micro_batches=2), ALONE)
        torch.manual_seed(0)  # of the points between real and fake
        losses = step(batch(name, 2), 0)
        assert float(losses["skipped"]) == 0
        penalties = {key: float(value) for key, value in losses.items() if "penalty" in key}
        assert bool(penalties) == (weight > 0)
        assert all(value > 0 for value in penalties.values())
        moments = step.players["discriminator"].optimizer.state_dict()["state"]  # Adam's first step is a sign
        made.append([moment["exp_avg"] for moment in moments.values()])
    assert not all(map(torch.allclose, *made))


def test_options_of_one_algorithm(name: str) -> None:
    """Each switch that builds another game plays a step, in parts; those below are of every algorithm."""
    common: list[dict[str, Any]] = [
        STEADIED,
        {"discriminator": "patchgan_16_spectral", "gan_mode": "hinge", "ada_target": 0.6},
        {"discriminator": "patchgan_16_antialiased_multiscale", "r1_gamma": 1.0, "ada_target": 0.6},
        {"gan_mode": "lsgan", "label_smoothing": 0.1, "instance_noise": 0.1, "instance_noise_steps": 1},
        {"gan_mode": "vanilla", "label_smoothing": 0.1, "r2_gamma": 1.0},
        *([] if name in REFUSES else [PROJECTED, {**PROJECTED, "discriminator": "projected", "r1_gamma": 1.0}]),
        *([] if name == "gan" else [{"lambda_stability": 1.0}]),
    ]
    switches: dict[str, list[dict[str, Any]]] = {
        "pix2pix": [{"conditional": False}],
        "cyclegan": [
            {"lambda_identity": 0.0},
            {"pool_size": 0},
            {"lambda_structure": 1.0, "lambda_spots": 1.0, "generator": "resnet_1blocks_resize", "input_share": 0.2},
            {"lambda_content": 1.0, "features": tiny_vgg()},
        ],
        "cut": [
            {"lambda_NCE_A": 10.0, "lambda_NCE_B": 0.0, "flip_equivariance": True},  # FastCUT
            {"lambda_NCE_A": 0.0, "lambda_identity": 1.0},
            {"generator": "resnet_1blocks_antialiased", "nce_layers": "0,4,8", "negatives": "batch"},
            {"lambda_NCE_B": 0.0, "lambda_structure": 1.0, "lambda_content": 1.0} | PROJECTED,
        ],
        "distill": [{"lambda_content": 1.0, "features": tiny_vgg()}, {"lambda_features": 0.0}],
        "gan": [{"discriminator": f"dcgan_{SIZE}"}, {"discriminator": "pixelgan", "bias": True}],
    }
    for options in common + switches.get(name, []):
        algorithm = build(name, norm="instance", **options)
        before = copy.deepcopy(algorithm.networks())
        losses = TrainingStep(algorithm, RunOptions(micro_batches=2), ALONE)(batch(name, 2), 0)
        assert float(losses["skipped"]) == 0
        assert all(bool(torch.isfinite(loss)) for loss in losses.values())
        for network, module in algorithm.networks().items():
            assert not all(map(torch.equal, module.parameters(), before[network].parameters())), network


def test_discriminators_see_nothing_but_augmented_images(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real or generated, in any turn, as they are at that step: what leaves nothing shows what goes round it."""
    steps: set[int] = set()

    def nothing(_: Augmentation, images: Tensor, step: int, condition: Tensor | None = None) -> Tensor:
        steps.add(step)
        return 0 * (images if condition is None else torch.cat([condition, images], 1))

    monkeypatch.setattr(Augmentation, "__call__", nothing)
    algorithm = build(name, instance_noise=0.1, gan_mode="relativistic", r1_gamma=1.0, r2_gamma=1.0)
    seen: list[bool] = []
    for network in algorithm.players()["discriminator"]:
        network.register_forward_pre_hook(lambda _, inputs: seen.append(bool(inputs[0].any())))
    for _ in algorithm.losses(batch(name), 7):
        pass
    assert seen and not any(seen) and steps == {7}


@pytest.mark.parametrize(
    ("options", "owner", "judge"),
    [({"gan_mode": "relativistic"}, GANLoss, "generator"), (ADAPTING, ADA, "observe")],
)
def test_real_images_are_those_of_the_discriminators_turn(
    name: str, options: dict[str, Any], owner: type, judge: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that a relativistic loss compares fakes with, and those that ADA goes by: all of them, once each."""
    algorithm = build(name, norm="instance", dropout=False, **options)
    judged, others = [], []
    named_losses, other = GANLoss.named_losses, getattr(owner, judge)
    monkeypatch.setattr(GANLoss, "named_losses", lambda *a: (judged.append(a[2]), named_losses(*a))[1])
    monkeypatch.setattr(owner, judge, lambda *a: (others.append(a[-1]), other(*a))[1])
    for _ in algorithm.losses(batch(name), 0):
        pass
    assert len(judged) == len(others) == len(algorithm.players()["discriminator"])
    for real in map(scales, judged):
        assert any(all(map(torch.allclose, real, scales(one))) for one in others)


def test_only_adversarial_losses_see_augmented_images(name: str) -> None:
    """Each of them is another one than without; everything else is the same."""
    made: list[dict[str, float]] = []
    for diffaugment in ("", "translation"):
        algorithm = build(name, diffaugment=diffaugment, dropout=False, norm="instance")
        made.append(
            {
                key: float(loss.detach())
                for _, losses in algorithm.losses(batch(name), 0)
                for key, loss in losses.items()
            }
        )
    off, on = made
    adversarial = {key for key in off if key.startswith("D_") or "gan" in key}
    assert len(adversarial) >= 2
    assert {key for key in off if off[key] != on[key]} == adversarial


@pytest.mark.parametrize(("precision", "options"), [("bf16", ADAPTING), ("fp16", STEADIED)])
def test_16_bits_are_finite(name: str, precision: Any, options: dict[str, Any]) -> None:
    algorithm = build(name, **options)
    for adapted in algorithm.adapted().values():
        adapted[0] = 0.7
    step = TrainingStep(algorithm, RunOptions(precision=precision), ALONE)
    step.loss_scale.scale.clamp_(max=2.0**8)
    for i in range(2):
        losses = step(batch(name), i)
        assert float(losses["skipped"]) == 0
        assert all(bool(torch.isfinite(loss)) for loss in losses.values())


def test_one_batch_can_be_learnt_by_heart(name: str) -> None:
    # by default CUT asks for no picture in particular
    asked = {"cut": {"lambda_identity": 10.0, "num_patches": 16}, "pix2pixhd": {"norm": "batch", "ndf": 16}}
    algorithm = build(name, ngf=8, dropout=False, **asked.get(name, {}))
    if algorithm.from_noise:
        pytest.skip("no picture belongs to a noise")
    step = TrainingStep(algorithm, RunOptions(lr=5e-3), ALONE)
    data = toys(algorithm)
    pair = ImagePair(*(torch.stack([getattr(data[t], side) for t in range(2)]) for side in ("a", "b")))

    def distance() -> float:
        translators = {k: for_translation(copy.deepcopy(v)) for k, v in algorithm.translators().items()}
        with torch.no_grad():
            made = algorithm.validation_pairs(pair, translators)
        return sum(float((x - y).abs().mean()) for x, y in made.values()) / len(made)

    before = distance()
    for i in range(35):
        step(pair, i)
    assert distance() < 0.5 * before


def test_translators_survive_the_model_file(name: str, tmp_path: Path) -> None:
    algorithm = build(name)
    for direction, network in algorithm.translators().items():
        assert direction in ("a2b", "b2a")
        path = tmp_path / f"{direction}.safetensors"
        statistics = algorithm.test_statistics
        info = describe(network, direction=direction, statistics=statistics)  # type: ignore[arg-type]
        model_file.save(path, network, info)
        loaded, read = model_file.load(path)
        assert read.direction == direction
        one, other = (for_translation(copy.deepcopy(n), statistics) for n in (network, loaded))
        with torch.no_grad():
            assert torch.equal(one(batch(name).a), other(batch(name).a))


def test_pictures_and_reconstructions(name: str) -> None:
    algorithm = build(name)
    translators: dict[str, nn.Module] = {k: for_translation(v) for k, v in algorithm.translators().items()}
    pair = batch(name, 1)
    with torch.no_grad():
        for made, expected in algorithm.validation_pairs(pair, translators).values():
            assert made.shape == expected.shape
        pictures = algorithm.pictures(pair, translators)
    assert all(picture.ndim == 4 and len(picture) == 1 for picture in pictures.values())
    assert ({"fake_B", "real_B"} if algorithm.from_noise else {"real_A", "real_B"}) <= set(pictures)
