"""Self-attention: its formula, and a U-Net with it on its way from training to use."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from i2i.images import Picture
from i2i.inference.streaming import streamable
from i2i.inference.translator import load_translator
from i2i.models import model_file
from i2i.models.info import describe
from i2i.networks import create_generator, generator_config
from i2i.networks.blocks import for_translation, init_weights
from i2i.networks.unet import SelfAttention, UNetConfig

pytestmark = pytest.mark.arithmetic

SMALL = UNetConfig(width=8, depth=5, norm="instance", dropout=False, attention=2)


def attention(channels: int = 16, gamma: float = 0.7) -> SelfAttention:
    torch.manual_seed(0)
    made = SelfAttention(channels).double()
    nn.init.constant_(made.gamma, gamma)
    return made


def generator(config: UNetConfig = SMALL) -> Any:
    torch.manual_seed(0)
    made: Any = init_weights(config.build(), gain=0.2)
    if config.attention:
        nn.init.constant_(made.attention.gamma, 1.5)
    return made


def test_attention_is_its_formula() -> None:
    """β over all pixels, Eq. 1 to 3, pixel by pixel."""
    layer, x = attention(), torch.randn(2, 16, 3, 5, dtype=torch.float64)
    W_f, W_g, W_h, W_v = (conv.weight.detach()[:, :, 0, 0].numpy() for conv in (layer.f, layer.g, layer.h, layer.v))
    assert W_f.shape == W_g.shape == W_h.shape == W_v.T.shape == (2, 16)
    for picture, made in zip(x.flatten(2).numpy(), layer(x).detach().flatten(2).numpy(), strict=True):
        for j in range(15):
            scores = np.array([W_f @ picture[:, i] @ (W_g @ picture[:, j]) for i in range(15)])
            beta = np.exp(scores) / np.exp(scores).sum()
            o = W_v @ sum(beta[i] * (W_h @ picture[:, i]) for i in range(15))
            np.testing.assert_allclose(made[:, j], 0.7 * o + picture[:, j], rtol=1e-9, atol=1e-12)


def test_gradients_are_those_of_the_formula() -> None:
    assert torch.autograd.gradcheck(attention(), torch.randn(1, 16, 2, 3, dtype=torch.float64, requires_grad=True))


def test_it_begins_as_if_it_were_not_there_and_learns() -> None:
    plain, attending = (create_generator("unet_64", width=4, dropout=False, attention=level) for level in (0, 1))
    assert set(plain.state_dict()) < set(attending.state_dict())
    attending.load_state_dict(plain.state_dict(), strict=False)
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    y = attending(x)
    assert torch.equal(y, plain(x))
    y.square().mean().backward()
    assert attending.attention.gamma.grad is not None and bool(attending.attention.gamma.grad)  # type: ignore[union-attr]


@pytest.mark.parametrize(("name", "level", "channels"), [("unet_256_attention", 3, 256), ("unet_64_attention", 1, 64)])
def test_it_stands_where_32_pixels_are_left(name: str, level: int, channels: int) -> None:
    config = generator_config(name)
    assert isinstance(config, UNetConfig) and config.attention == level
    with torch.device("meta"):
        assert config.build().attention.gamma.ndim == 0
        assert config.build().attention.v.out_channels == channels


def test_the_model_file_brings_it_back(tmp_path: Path) -> None:
    network, x = generator(), torch.rand(1, 3, 64, 96) * 2 - 1
    model_file.save(tmp_path / "a2b.safetensors", network, describe(network, direction="a2b"))
    again, info = model_file.load(tmp_path / "a2b.safetensors")
    assert info.network_config() == SMALL
    with torch.no_grad():
        assert torch.equal(for_translation(again)(x), for_translation(network)(x))


@pytest.mark.parametrize("runtime", ["torch", "openvino", pytest.param("onnx", marks=pytest.mark.slow)])
def test_runtimes_agree(runtime: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At sizes that are not those of the conversion."""
    needed = {"openvino": ["openvino"], "onnx": ["onnx", "onnxscript", "onnxruntime"]}.get(runtime, [])
    if missing := [name for name in needed if find_spec(name) is None]:
        pytest.skip(f"{missing[0]} is not installed")
    monkeypatch.setenv("I2I_HOME", str(tmp_path / "home"))
    network = generator()
    path = tmp_path / "a2b.safetensors"
    model_file.save(path, network, describe(network, direction="a2b"))
    translator = load_translator(path, runtime=runtime, device="cpu", precision="fp32")
    for_translation(network)
    for height, width in ((64, 64), (96, 160)):
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1
        with torch.no_grad():
            expected = (network(x)[0].permute(1, 2, 0).numpy() + 1) * 127.5
        made = translator.translate(Picture(pixels=pixels)).pixels.astype(float)
        assert np.abs(made - expected).max() < 1, "half a level by rounding, and a little"


def test_a_picture_is_taken_only_as_a_whole() -> None:
    assert streamable(SMALL) == "a U-Net takes a picture only as a whole"
