"""Several styles as one translator."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batch_tools import translator

import i2i
from i2i import images
from i2i.errors import ModelError, UsageError
from i2i.folders.alone import translate_large
from i2i.folders.jobs import Job
from i2i.images import Picture, Pixels
from i2i.images.palettes import find
from i2i.inference import scaling
from i2i.inference.options import FolderOptions, mix_as_text, parse_mix
from i2i.models import model_file
from i2i.networks.resnet import ResnetConfig

ARRAY = np.random.default_rng(0).integers(0, 256, (37, 45, 3), np.uint8)
OPTIONS: dict[str, Any] = {"precision": "fp32", "runtime": "torch"}


def _saved(path: Path, gain: float, inputs: int = 3, outputs: int = 3, **described: Any) -> str:
    config = ResnetConfig(in_channels=inputs, out_channels=outputs, width=2, blocks=1)
    used = translator(config, gain=gain, precision="fp32", **described)
    model_file.save(path, used.network, used.info)
    return str(path)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return _saved(folder / "one.safetensors", 0.3), _saved(folder / "two.safetensors", 1.0)


def _light(pixels: Pixels) -> Pixels:
    values = pixels / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def test_results_are_mixed_in_linear_light(pair: tuple[str, str]) -> None:
    one, two = (i2i.load_translator(style, **OPTIONS)(ARRAY) for style in pair)
    assert np.abs(one.astype(int) - two).max() > 20
    light = 0.75 * _light(one) + 0.25 * _light(two)
    expected = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    found = i2i.load_mix({pair[0]: 3, pair[1]: 1}, **OPTIONS)(ARRAY)
    assert np.abs(found - expected).max() <= 1.01
    assert np.array_equal(found, i2i.load_mix({pair[0]: 0.75, pair[1]: 0.25}, **OPTIONS)(ARRAY))
    assert np.array_equal(found, i2i.load_mix(f"{pair[0]}:3,{pair[1]}:1", **OPTIONS)(ARRAY))


def test_a_mix_is_used_as_any_translator(pair: tuple[str, str]) -> None:
    mix = i2i.load_mix(dict(zip(pair, (0.6, 0.4), strict=True)), **OPTIONS)
    whole = mix(ARRAY)
    copied = pickle.loads(pickle.dumps(mix))  # noqa: S301 - our own
    assert np.array_equal(mix([ARRAY, ARRAY])[1], whole) and np.array_equal(copied(ARRAY), whole)
    tensor = torch.from_numpy(images.to_planes(ARRAY))
    assert np.abs(images.from_planes(mix(tensor).numpy()).astype(int) - whole).max() == 0
    assert mix(ARRAY, size=20).shape == (20, 24, 3) and np.array_equal(mix(ARRAY, strength=0), ARRAY)
    assert (mix.runtime, mix.precision, mix.weights_bytes > 0) == ("torch", "fp32", True)
    assert "0.6 B + 0.4 B" in repr(mix)
    with pytest.raises(ModelError, match="a mix of styles has no network of its own"):
        mix.save_pretrained("nowhere")


def test_mix_of_one_style_equals_the_style(pair: tuple[str, str]) -> None:
    alone = i2i.load_mix({pair[0]: 0.2}, **OPTIONS)
    assert np.array_equal(alone(ARRAY), i2i.load_translator(pair[0], **OPTIONS)(ARRAY)) and alone.style == pair[0]


def test_mix_by_bands_equals_the_whole(pair: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyvips")
    mix = i2i.load_mix(dict(zip(pair, (0.6, 0.4), strict=True)), **OPTIONS)
    whole = mix(ARRAY).astype(int)
    assert np.abs(mix.stream(Picture(ARRAY)).pixels - whole).max() <= 1
    images.write(tmp_path / "a.png", Picture(ARRAY))
    for paint_size in (0, 24):
        monkeypatch.setattr(scaling, "_BAND_PIXELS", 200)
        mix.paint_size = paint_size
        translate_large(mix, Job(str(tmp_path / "a.png"), str(tmp_path / f"{paint_size}.png"), ""), FolderOptions())
        assert np.abs(images.read(tmp_path / f"{paint_size}.png").pixels - mix(ARRAY).astype(int)).max() <= 1


def test_styles_that_do_not_go_together_are_refused(pair: tuple[str, str], tmp_path: Path) -> None:
    grey = _saved(tmp_path / "grey.safetensors", 0.3, 1, 1)
    labels = _saved(tmp_path / "labels.safetensors", 0.3, 3, 4, output_palette=find("4"))
    colours = _saved(tmp_path / "colours.safetensors", 0.3, 1, 2, encoding="lab")
    painter = _saved(tmp_path / "painter.safetensors", 0.3, paint_size=64)
    for other, reason in (
        (grey, "takes 3 channels and gives 3, .*grey.safetensors takes 1 and gives 1"),
        (labels, "labels.safetensors is a model of labels"),
        (colours, "colours.safetensors is a model of colours alone"),
        (painter, "paints at 0 pixels and .* at 64; choose one for both: paint_size=64"),
    ):
        with pytest.raises(UsageError, match=f"mix: .*{reason}"):
            i2i.load_mix({pair[0]: 1, other: 1}, **OPTIONS)
    assert i2i.load_mix({pair[0]: 1, painter: 1}, paint_size=32, **OPTIONS).paint_size == 32


@pytest.mark.parametrize(
    ("mix", "reason"),
    [
        ({}, "no styles"),
        ({"monet": 0.0}, "monet has the weight 0.0; expected a number above 0"),
        ({"monet": -1}, "the weight -1"),
        ({"monet": float("nan")}, "the weight nan"),
        ({"monet": float("inf")}, "the weight inf"),
        ({"monet": "much"}, "the weight 'much'"),
        ({"monet": None}, "the weight None"),
        (["monet"], "expected a weight for each style, such as"),
        ("monet", "expected a weight for each style, such as"),
    ],
)
def test_invalid_mix_weights_are_refused(mix: Any, reason: str) -> None:
    with pytest.raises(UsageError, match=f"mix.*: .*{reason}"):
        i2i.load_mix(mix)


def test_a_mix_in_words() -> None:
    assert parse_mix("monet:0.6, hub:owner/name:2") == {"monet": 0.6, "hub:owner/name": 2.0}
    weights = {"a": 1 / 3, "hub:owner/name": 2.0, "b": 1e-9}
    assert parse_mix(mix_as_text(weights)) == weights and mix_as_text({"a": 2.0, "b": 0.5}) == "a:2,b:0.5"
    for text in ("monet", ":1", "monet:1,", "monet:1,monet:2"):
        with pytest.raises(UsageError, match=r"expected a weight for each style, such as monet:0\.6,vangogh:0\.4"):
            parse_mix(text)
    for text, weight in (("monet:-1", "-1"), ("monet:", ""), ("monet:x", "x"), ("hub:owner/name", "owner/name")):
        with pytest.raises(UsageError, match=f"has the weight '{weight}'; expected a number above 0"):
            parse_mix(text)
