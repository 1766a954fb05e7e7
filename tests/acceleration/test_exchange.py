"""A network with exchanged layers is the same network: its training, its translation, its parameters and its copies."""

import copy
import pickle
from collections import Counter
from typing import Any

import pytest
import torch
from tiny_networks import tiny_vgg
from torch import Tensor, nn

from i2i.acceleration import accelerate, plain, prepare, recompute, shared_copy
from i2i.acceleration.exchange import Accelerated
from i2i.errors import UsageError
from i2i.networks import (
    DISCRIMINATORS,
    GENERATOR_KINDS,
    GENERATORS,
    OwnConfig,
    OwnNetwork,
    create_discriminator,
    create_generator,
    discriminator_config,
    generator_config,
)
from i2i.networks.blocks import for_translation

pytestmark = pytest.mark.arithmetic

# a generator of each kind, and each way to sample; 64 channels in residual blocks, for which Winograd's way is taken
SMALL_GENERATORS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "resnet_2blocks": (
        {"width": 16},
        {"TrainingInstanceNorm", "TrainingBlock", "WinogradConv2d", "ColumnConv2d", "StridedConv2d"},
    ),
    "resnet_1blocks_antialiased": (
        {"width": 32},
        {"TrainingInstanceNorm", "TrainingBlock", "WinogradConv2d", "ColumnConv2d"},
    ),
    "resnet_1blocks_smooth": (
        {"width": 8, "norm": "batch"},
        {"TrainingBlock", "ColumnConv2d"},
    ),
    "resnet_1blocks_resize": ({"width": 8, "norm": "none"}, {"TrainingBlock", "ColumnConv2d", "StridedConv2d"}),
    "mobile_resnet_1blocks": ({"width": 8, "input_share": 0.25}, {"TrainingInstanceNorm", "TrainingBlock"}),
    "mobile_resnet_1blocks_subpixel": (
        {"width": 8, "input_share": 0.25},
        {"TrainingInstanceNorm", "TrainingBlock", "StridedConv2d"},
    ),
    "unet_32": ({"width": 4, "dropout": False}, {"MatmulConv2d", "MatmulConvTranspose2d"}),
    "unet_64_attention": (
        {"width": 4, "norm": "instance", "dropout": False},
        {"TrainingInstanceNorm", "MatmulConv2d", "MatmulConvTranspose2d"},
    ),
    "pix2pixhd": (
        {"width": 8, "halvings": 2, "blocks": 1, "fine_blocks": 1},
        {"TrainingInstanceNorm", "TrainingBlock", "WinogradConv2d", "ColumnConv2d", "StridedConv2d"},
    ),
    "dcgan_32": ({"width": 4, "in_channels": 8}, {"MatmulConvTranspose2d"}),
}
SMALL_DISCRIMINATORS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "patchgan_34": ({"width": 64}, {"TrainingInstanceNorm", "MatmulConv2d", "WinogradConv2d"}),
    "patchgan_16_antialiased": ({"width": 4}, {"TrainingInstanceNorm"}),
    "patchgan_34_spectral": ({"width": 4}, {"StridedSpectralConv2d"}),
    "patchgan_16_multiscale2": ({"width": 4, "norm": "batch"}, {"MatmulConv2d"}),
    "pixelgan": ({"width": 4}, {"TrainingInstanceNorm"}),
    "projected": ({"width": 4, "features": tiny_vgg()}, {"StridedSpectralConv2d"}),
    "dcgan_32": ({"width": 4}, {"MatmulConv2d"}),
}


def build(name: str, options: dict[str, Any], generator: bool) -> nn.Module:
    torch.manual_seed(0)
    return (create_generator if generator else create_discriminator)(name, **options)


def images(network: nn.Module) -> Tensor:
    """Two inputs of a size that is no square."""
    config: Any = network.config
    random = torch.Generator().manual_seed(1)
    if config.kind == "dcgan":
        return torch.randn(2, config.in_channels, 1, 1, generator=random)
    side = max(config.minimum_size, 64)
    sides = (side, side) if config.kind.startswith("dcgan") else (side, side + getattr(config, "size_multiple", 7))
    return torch.rand(2, config.in_channels, *sides, generator=random) * 2 - 1


def counted(network: nn.Module) -> Counter[str]:
    return Counter(type(module).__name__ for module in network.modules() if isinstance(module, Accelerated))


def results(network: nn.Module, x: Tensor) -> list[Tensor]:
    made = network(x)
    return list(made) if isinstance(made, tuple) else [made]


CASES = [
    *(pytest.param(name, *case, True, id=f"G-{name}") for name, case in SMALL_GENERATORS.items()),
    *(pytest.param(name, *case, False, id=f"D-{name}") for name, case in SMALL_DISCRIMINATORS.items()),
]
each_network = pytest.mark.parametrize(("name", "options", "classes", "generator"), CASES)


def test_each_kind_of_network_is_among_the_cases() -> None:
    generators = {generator_config(name).kind for name in SMALL_GENERATORS}
    discriminators = {discriminator_config(name).kind for name in SMALL_DISCRIMINATORS}
    assert generators == set(GENERATOR_KINDS) == {config.kind for config in GENERATORS.values()}
    assert discriminators == {config.kind for config in DISCRIMINATORS.values()}


@each_network
def test_a_network_trains_as_it_would(name: str, options: Any, classes: set[str], generator: bool) -> None:
    """Two steps of an optimizer that was made before the exchange: losses and weights of torch's layers, within the
    rounding of float32 (an Adam step magnifies it where a gradient is about 0, so that the steps are SGD's)."""
    network = build(name, options, generator).train()
    x, other = images(network), copy.deepcopy(network)
    optimizers = [torch.optim.SGD(net.parameters(), lr=1e-3) for net in (network, other)]
    accelerate(network, "training")
    assert set(counted(network)) == classes and not counted(other)
    for _ in range(2):
        losses = []
        for net, optimizer in zip((network, other), optimizers, strict=True):
            optimizer.zero_grad()
            loss = torch.stack([(y - 0.3).square().mean() for y in results(net, x)]).sum()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    before = build(name, options, generator).state_dict()
    for key, value in other.state_dict().items():
        moved = (value.double() - before[key].double()).norm()
        off = (network.state_dict()[key].double() - value.double()).norm()
        assert off <= 2e-2 * moved + 1e-6 * value.double().norm() + 1e-7, key


@each_network
def test_weights_load_both_ways_and_keep_their_names(
    name: str, options: Any, classes: set[str], generator: bool
) -> None:
    network = build(name, options, generator)
    keys, parameters = list(network.state_dict()), [id(p) for p in network.parameters()]
    accelerate(network, "training")
    assert list(network.state_dict()) == keys and [id(p) for p in network.parameters()] == parameters
    other = build(name, options, generator)
    for parameter in other.parameters():
        nn.init.normal_(parameter, 0, 0.1)
    network.load_state_dict(other.state_dict())
    build(name, options, generator).load_state_dict(network.state_dict())
    for key, value in other.state_dict().items():
        assert torch.equal(network.state_dict()[key], value)


@each_network
def test_copies_and_pickles_are_accelerated_too(name: str, options: Any, classes: set[str], generator: bool) -> None:
    network = accelerate(build(name, options, generator).eval(), "training")
    x = images(network)
    expected = results(network, x)
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):  # noqa: S301
        assert counted(other) == counted(network)
        assert all(map(torch.equal, results(other, x), expected))
    assert counted(accelerate(network, "training")) == counted(other), "a second exchange changes nothing"


@each_network
def test_plain_takes_the_exchange_back(name: str, options: Any, classes: set[str], generator: bool) -> None:
    network = build(name, options, generator).eval()
    kinds, expected = [type(module) for module in network.modules()], results(network, images(network))
    buffers = [name for name, _ in network.named_buffers()]
    for purpose in ("training", "inference") if generator else ("training",):
        plain(accelerate(network, purpose))  # type: ignore[arg-type]
        assert [type(module) for module in network.modules()] == kinds
        assert [name for name, _ in network.named_buffers()] == buffers
        assert all(map(torch.equal, results(network, images(network)), expected))


@pytest.mark.parametrize("engine", ["eager", "compiled", "exported"])
@pytest.mark.parametrize(
    ("name", "options"), [pytest.param(name, options, id=name) for name, (options, _) in SMALL_GENERATORS.items()]
)
def test_a_generator_translates_as_it_would(name: str, options: Any, engine: Any) -> None:
    """Also one whose layers were exchanged for training; the network that shares its weights stays as it is."""
    network = for_translation(accelerate(build(name, options, True), "training"))
    other, x = accelerate(shared_copy(network), "inference", engine=engine), images(network)[:1]
    kept = {id(p) for p in network.parameters()}
    assert {id(p) for p in other.parameters()} == kept and list(other.state_dict()) == list(network.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(other(x), network(x), atol=1e-4, rtol=0)
        again = pickle.loads(pickle.dumps(other))  # noqa: S301
        assert torch.equal(again(x), other(x))
    assert all("Training" not in name for name in counted(other)) and counted(network)


def test_prepared_kernels_follow_weights_that_are_loaded() -> None:
    first, second = (build("resnet_1blocks", {"width": 16}, True) for _ in range(2))
    for parameter in second.parameters():
        nn.init.normal_(parameter, 0, 0.1)
    accelerate(for_translation(first), "inference")
    assert {"PreparedWinogradConv2d", "PreparedColumnConv2d"} < set(counted(first))
    first.load_state_dict(second.state_dict())
    x = images(first)
    with torch.no_grad():
        torch.testing.assert_close(first(x), for_translation(second)(x), atol=1e-4, rtol=0)


def test_recomputation_outlives_the_exchange() -> None:
    network = build("resnet_2blocks", {"width": 4}, True)
    assert recompute(network) == 2
    for made in (accelerate(network, "training"), copy.deepcopy(network)):
        assert [block.recomputed for block in made.blocks] == [True, True]  # type: ignore[union-attr]
    assert recompute(build("unet_32", {"width": 1}, True)) == 0


def test_an_own_network_stays_as_it_is() -> None:
    layers = [nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()]
    own = accelerate(OwnNetwork(nn.Sequential(*copy.deepcopy(layers)), OwnConfig()), "training")
    assert [type(layer) for layer in own.network.children()] == [nn.Conv2d, nn.ReLU]
    assert type(accelerate(nn.Sequential(*layers), "training")[0]) is not nn.Conv2d, "else nothing would be shown"


def test_another_purpose_is_refused() -> None:
    with pytest.raises(UsageError, match="purpose = 'translation': expected 'training' or 'inference'"):
        accelerate(nn.Sequential(), "translation")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "width", "precision", "classes"),
    [
        ("resnet_2blocks", 4, "fp32", set()),
        ("resnet_2blocks", 16, "fp32", {"TrainingInstanceNorm", "TrainingBlock", "WinogradConv2d", "ColumnConv2d"}),
        ("resnet_2blocks", 16, "bf16", {"TrainingInstanceNorm", "ColumnConv2d", "StridedConv2d"}),
        ("unet_32", 4, "fp32", {"MatmulConv2d", "MatmulConvTranspose2d"}),
        ("unet_32", 4, "bf16", {"MatmulConv2d", "MatmulConvTranspose2d"}),
        ("patchgan_34", 4, "fp32", set()),
        ("patchgan_34", 64, "fp32", {"TrainingInstanceNorm", "WinogradConv2d"}),
        ("patchgan_70", 64, "fp32", {"TrainingInstanceNorm", "WinogradConv2d", "MatmulConv2d"}),
    ],
)
def test_layers_that_gain_nothing_stay_plain(name: str, width: int, precision: str, classes: set[str]) -> None:
    """On a CPU: by the width, the depth and the precision of a network."""
    network = build(name, {"width": width}, "patchgan" not in name)
    prepare([network], torch.device("cpu"), precision)
    assert set(counted(network)) == classes
