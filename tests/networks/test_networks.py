import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from i2i.config import to_mapping
from i2i.errors import UsageError
from i2i.losses.adversarial import scales
from i2i.networks import (
    DISCRIMINATORS,
    GENERATORS,
    create_discriminator,
    create_generator,
    discriminator_config,
    generator_config,
)
from i2i.networks.blocks import BlurDownsample, BlurUpsample, InstanceNorm, for_translation, init_weights
from i2i.networks.patchgan import PatchGANConfig
from i2i.networks.resnet import ResnetConfig, upsampling_layer

pytestmark = pytest.mark.arithmetic

ANTIALIASED = "resnet_2blocks_antialiased"
SUBPIXEL = "mobile_resnet_2blocks_subpixel"
SMALL_GENERATORS = [
    *("resnet_6blocks", "resnet_0blocks", "resnet_3blocks", ANTIALIASED, "mobile_resnet_2blocks", SUBPIXEL),
    *("unet_32", "unet_64", "unet_128", "unet_64_attention"),
]


@pytest.mark.parametrize("name", SMALL_GENERATORS)
@pytest.mark.parametrize(("norm", "channels_in", "channels_out"), [("batch", 3, 3), ("instance", 1, 4), ("none", 7, 2)])
def test_a_generator_keeps_the_size_and_changes_the_channels(
    name: str, norm: Any, channels_in: int, channels_out: int
) -> None:
    net = create_generator(name, in_channels=channels_in, out_channels=channels_out, width=2, norm=norm)
    height, width = net.minimum_size, net.minimum_size + net.size_multiple
    y = net.eval()(torch.randn(2, channels_in, height, width))
    assert y.shape == (2, channels_out, height, width)
    assert y.abs().max() <= 1
    assert torch.isfinite(y).all()


@pytest.mark.parametrize("name", ["resnet_1blocks", ANTIALIASED, "mobile_resnet_1blocks", SUBPIXEL, "unet_32"])
def test_the_size_multiple_is_needed_and_the_smallest(name: str) -> None:
    net = create_generator(name, width=1).eval()
    size = net.minimum_size + net.size_multiple // 2
    with torch.no_grad():
        try:
            shape = net(torch.zeros(1, 3, size, size)).shape[-1]
        except RuntimeError:
            return
    assert shape != size


@pytest.mark.parametrize("name", ["resnet_1blocks", "resnet_1blocks_antialiased", SUBPIXEL])
def test_below_the_minimum_size_reflection_has_nothing_to_reflect(name: str) -> None:
    net = create_generator(name, width=1)
    with pytest.raises(RuntimeError, match=r"[Pp]adding"):
        net(torch.zeros(1, 3, net.minimum_size - net.size_multiple, 64))


@pytest.mark.parametrize("down", ["strided", "antialiased"])
@pytest.mark.parametrize("up", ["strided", "antialiased"])
def test_halving_and_doubling_are_chosen_apart(down: Any, up: Any) -> None:
    net = create_generator("resnet_1blocks", width=2, downsampling=down, upsampling=up)
    assert net(torch.zeros(1, 3, 12, 20)).shape == (1, 3, 12, 20)
    filters = [name for name, _ in net.named_buffers() if name.endswith("filt")]
    assert len(filters) == 2 * ((down == "antialiased") + (up == "antialiased"))


def test_a_spot_before_the_last_pixels_leaves_others_alone() -> None:
    """Where a subpixel generator doubles the size, nothing is divided by a deviation that a spot would raise."""
    net: Any = create_generator(SUBPIXEL, width=2)
    features, spot = torch.rand(1, 8, 12, 12), torch.zeros(1, 8, 12, 12)
    spot[..., 0, 0] = 1000
    plain, spotted = (net.head(net.up[0](x)) for x in (features, features + spot))
    assert (spotted[..., :4, :4] - plain[..., :4, :4]).abs().max() > 10
    torch.testing.assert_close(spotted[..., 20:, 20:], plain[..., 20:, 20:], atol=1e-5, rtol=0)


def test_a_blur_halves_and_doubles() -> None:
    x = torch.arange(24.0).reshape(1, 1, 4, 6)
    assert torch.equal(BlurDownsample(1)(torch.ones(1, 1, 5, 4)), torch.ones(1, 1, 3, 2))
    assert torch.equal(BlurUpsample(2)(torch.ones(1, 2, 3, 1)), torch.ones(1, 2, 6, 2))
    half, double = BlurDownsample(1)(x)[0, 0], BlurUpsample(1)(x)[0, 0]
    assert half.shape == (2, 3) and double.shape == (8, 12)
    assert half[1, 1] == x[0, 0, 2, 2], "a ramp stays a ramp"
    torch.testing.assert_close(double[3, 2:8], x[0, 0, 1, 1:4].repeat_interleave(2) + torch.tensor([1.25, 1.75] * 3))


def test_blurs_learn_nothing() -> None:
    net = create_generator(ANTIALIASED, width=2)
    before = [b.clone() for b in net.buffers()]
    net.train()(torch.randn(1, 3, 8, 8)).sum().backward()
    assert not any("filt" in name for name, _ in net.named_parameters())
    assert before and all(map(torch.equal, before, net.buffers()))


@pytest.mark.parametrize("padding", ["reflect", "replicate", "zero"])
def test_paddings_differ_only_near_the_border(padding: Any) -> None:
    torch.manual_seed(0)
    reference = create_generator("resnet_1blocks", width=2, norm="none", padding="reflect")
    other = create_generator("resnet_1blocks", width=2, norm="none", padding=padding)
    other.load_state_dict(reference.state_dict())
    x = torch.randn(1, 3, 64, 64)
    difference = (reference(x) - other(x)).abs()
    assert difference[..., 24:40, 24:40].max() < 1e-6
    assert (difference.max() > 1e-3) == (padding != "reflect")


def test_instance_norm_is_torch_s() -> None:
    x = torch.randn(2, 5, 7, 9, dtype=torch.float64)
    torch.testing.assert_close(InstanceNorm(5)(x), nn.InstanceNorm2d(5)(x))


def test_norm_none_keeps_biases_by_default() -> None:
    for name in ("resnet_1blocks", "unet_32"):
        with_bias = create_generator(name, width=1, norm="none").state_dict()
        without = create_generator(name, width=1, norm="none", bias=False).state_dict()
        assert sum(key.endswith("bias") for key in with_bias) > 5
        assert sum(key.endswith("bias") for key in without) == 1


@pytest.mark.parametrize(
    "name",
    [
        *(name for name in DISCRIMINATORS if not name.startswith(("dcgan", "projected"))),
        "patchgan_574",
        "patchgan_16_antialiased",
        "patchgan_142_antialiased",
        "patchgan_16_antialiased_multiscale2",
    ],
)
def test_a_discriminator_s_logit_sees_its_receptive_field(name: str) -> None:
    config = discriminator_config(name, width=1, norm="none")
    net = config.build()
    for parameter in net.parameters():
        nn.init.constant_(parameter, 0.1)  # positive everywhere, so no path is cut by an activation
    side = max(config.minimum_size, 2 * config.receptive_field + 64)
    x = torch.ones(1, 3, side, side, dtype=torch.float64, requires_grad=True)
    logits = scales(net.double()(x))[-1]
    middle = logits.shape[-1] // 2
    logits[0, 0, middle, middle].backward()
    assert x.grad is not None
    assert int((x.grad[0, 0].abs().sum(dim=0) > 0).sum()) == config.receptive_field
    assert scales(config.build()(torch.zeros(1, 3, config.minimum_size, config.minimum_size)))[-1].numel() >= 1


@pytest.mark.parametrize("downsampling", ["strided", "antialiased"])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_spectral_discriminators_judge_the_same_patches(layers: int, downsampling: Any) -> None:
    shared: Any = {"width": 1, "layers": layers, "downsampling": downsampling}
    spectral, usual = (PatchGANConfig(norm=norm, **shared) for norm in ("spectral", "none"))
    for side in (spectral.minimum_size, 64, 71):
        x = torch.zeros(1, 3, side, side)
        assert spectral.build()(x).shape == usual.build()(x).shape


@pytest.mark.parametrize("name", ["resnet_1blocks", "unet_32"])
def test_translating_takes_the_picture_s_statistics_and_learns_nothing(name: str) -> None:
    torch.manual_seed(0)
    net = create_generator(name, width=2, norm="batch", dropout=False)
    x = torch.randn(1, 3, 64, 64)
    trained = net.train()(x).detach()
    for_translation(net, "batch")
    torch.testing.assert_close(net(x), trained)
    torch.testing.assert_close(net(x), trained)
    assert not any(p.requires_grad for p in net.parameters())


def test_translating_with_running_statistics_is_eval_mode() -> None:
    net = create_generator("resnet_1blocks", width=2, norm="batch")
    net(torch.randn(4, 3, 16, 16) * 3 + 1)
    x = torch.randn(1, 3, 16, 16)
    expected = net.eval()(x).detach()
    torch.testing.assert_close(for_translation(net, "running")(x), expected)


def test_translating_with_dropout_keeps_its_noise() -> None:
    net = for_translation(create_generator("unet_64", width=4, dropout=True), dropout=True)
    x = torch.randn(1, 3, 64, 64)
    assert not torch.equal(net(x), net(x))
    quiet = for_translation(net, dropout=False)
    assert torch.equal(quiet(x), quiet(x))


@pytest.mark.parametrize(
    ("kind", "std"),
    [("normal", 0.02), ("xavier", 0.02 * (2 / (64 * 9 + 64 * 9)) ** 0.5), ("kaiming", (2 / 576) ** 0.5)],
)
def test_initial_weights_have_the_spread_of_their_kind(kind: Any, std: float) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(64, 64, 3)
    init_weights(conv, kind, 0.02)
    assert conv.weight.std().item() == pytest.approx(std, rel=0.02)
    assert conv.bias is not None
    assert not conv.bias.any()


def test_orthogonal_initial_weights_are_orthogonal() -> None:
    conv = nn.Conv2d(64, 16, 3)
    init_weights(conv, "orthogonal", 0.5)
    rows = conv.weight.detach().flatten(1)
    torch.testing.assert_close(rows @ rows.T, 0.25 * torch.eye(16), atol=1e-5, rtol=0)


def test_batch_norm_starts_near_one() -> None:
    net = init_weights(nn.BatchNorm2d(1000), gain=0.02)
    assert net.weight.mean().item() == pytest.approx(1, abs=0.005)
    assert net.weight.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("name", [*GENERATORS])
def test_a_configuration_comes_back_from_its_mapping(name: str) -> None:
    config = generator_config(name)
    assert type(config)(**to_mapping(config)) == config


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("resnet9", {}, "resnet_9blocks"),
        ("unet_100", {}, "power of two"),
        ("unet_16", {}, "depth"),
        ("unet_32_attention", {}, "at least 64"),
        ("unet_64", {"attention": 6}, "before the last of 6 halvings"),
        ("resnet_65blocks", {}, "64"),
        ("resnet_9blocks", {"width": 10**9}, "512"),
        ("resnet_9blocks", {"wdith": 8}, "width"),
        ("resnet_9blocks", {"norm": "layer"}, "instance"),
        ("unet_256", {"in_channels": 0}, "in_channels"),
    ],
)
def test_a_wrong_generator_is_named(name: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        create_generator(name, **options)


def test_a_wrong_discriminator_is_named() -> None:
    with pytest.raises(UsageError, match="16, 34, 70"):
        create_discriminator("patchgan_71")
    with pytest.raises(UsageError, match="16, 34, 70"):
        create_discriminator("patchgan_84_antialiased")
    with pytest.raises(UsageError, match="patchgan_70"):
        create_discriminator("patchgan70")
    with pytest.raises(UsageError, match="unknown discriminator 'patchgan_70_multiscale_spectral'"):
        create_discriminator("patchgan_70_multiscale_spectral")


def test_configurations_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        GENERATORS["unet_256"].width = 3  # type: ignore[misc]


def test_a_resize_convolution_doubles_as_the_blur_does() -> None:
    """Bilinear interpolation is the blur of (1, 3, 3, 1) over replicated edges, so the two networks are one."""
    blurred = create_generator("resnet_1blocks", width=4, upsampling="antialiased")
    resized = create_generator("resnet_1blocks_resize", width=4)
    own = {key: value for key, value in blurred.state_dict().items() if not key.endswith("filt")}
    resized.load_state_dict(own)
    x = torch.rand(1, 3, 20, 28) * 2 - 1
    assert (resized(x) - blurred(x)).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["antialiased", "smooth"])
def test_a_smooth_doubling_leaves_nothing_that_a_relu_makes_a_weave_of(name: str) -> None:
    """Features that alternate from pixel to pixel: a third of them passes the usual blur, and rectified it is another
    value at every second pixel; of a smooth doubling nothing is left."""
    plane = torch.ones(12, 16)
    plane[::2, 1::2] = plane[1::2, ::2] = -1
    doubling = upsampling_layer(2, ResnetConfig(upsampling=name)).upsample  # type: ignore[arg-type]
    inside = torch.relu(doubling(plane.expand(1, 2, 12, 16)))[..., 4:-4, 4:-4]
    weave = inside.amax() - inside.amin()
    assert float(weave) == pytest.approx(0 if name == "smooth" else 0.25, abs=1e-6)


def test_a_smooth_doubling_keeps_what_is_flat_or_steady() -> None:
    doubling = upsampling_layer(2, ResnetConfig(upsampling="smooth")).upsample
    assert torch.equal(doubling(torch.full((1, 2, 5, 6), 0.5)), torch.full((1, 2, 10, 12), 0.5))
    ramp = torch.arange(8.0).expand(1, 2, 8, 8)
    expected = (torch.arange(16.0) - 0.5) / 2  # the middles of pixels half as wide
    assert torch.allclose(doubling(ramp)[..., 4:-4, 4:-4], expected[4:-4].expand(8, 8), atol=1e-6)


def test_a_share_of_the_picture_is_in_the_result() -> None:
    plain, mixing = (create_generator("resnet_1blocks", width=4, input_share=share) for share in (0.0, 0.25))
    mixing.load_state_dict(plain.state_dict())
    x = torch.rand(1, 3, 20, 28) * 2 - 1
    assert (mixing(x) - (0.75 * plain(x) + 0.25 * x)).abs().max() < 1e-6
    with torch.autocast("cpu", torch.bfloat16):
        assert (mixing(x) - (0.75 * plain(x).float() + 0.25 * x)).abs().max() < 0.02


@pytest.mark.parametrize(
    "name", ["resnet_1blocks", "mobile_resnet_1blocks", SUBPIXEL, "unet_32", "pix2pixhd", "dcgan_32"]
)
def test_pictures_are_made_in_float32_by_a_network_of_16_bits(name: str) -> None:
    """In which tanh is 1 for all beyond 3.5: labels would tie, and sure mistakes have no gradient."""
    net = create_generator(name, width=2)
    size = 1 if name.startswith("dcgan") else net.minimum_size
    x = torch.randn(2, net.config.in_channels, size, size)
    with torch.no_grad():  # where the last convolution of all of them is torch's own
        with torch.autocast("cpu", torch.bfloat16):
            assert net(x).dtype == torch.float32
        assert net.to(torch.bfloat16)(x.to(torch.bfloat16)).dtype == torch.float32
        assert net.double()(x.double()).dtype == torch.float64


def test_no_share_of_a_picture_of_other_channels() -> None:
    with pytest.raises(UsageError, match="3 channels cannot be a part of a result of 1"):
        create_generator("resnet_1blocks", out_channels=1, input_share=0.2)


def test_only_residual_generators_take_a_share_of_the_picture() -> None:
    from i2i.algorithms.pix2pix import Pix2PixOptions

    with pytest.raises(UsageError, match=r"input_share = 0\.2"):
        Pix2PixOptions(generator="unet_64", input_share=0.2).generator_config(3, 3)
