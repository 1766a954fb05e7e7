"""A translator: any size, any kind of picture, the same answer whatever came before or beside it."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms
from torch import nn

from i2i import machine
from i2i.device import choose_device
from i2i.errors import ImageError, ModelError, UsageError
from i2i.images import Picture, resize_planes, to_pixels, to_tensor
from i2i.inference.scaling import mirrored
from i2i.inference.translator import Translator, load_translator
from i2i.models import model_file
from i2i.models.info import describe
from i2i.networks.blocks import init_weights
from i2i.networks.resnet import ResnetConfig
from i2i.networks.unet import UNetConfig

RESNET = ResnetConfig(width=2, blocks=1)
UNET = UNetConfig(width=2, depth=5)


def _network(config: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return init_weights(config.build(), gain=0.3)


def _translator(config: Any = RESNET, **options: Any) -> Translator:
    network = _network(config)
    return Translator(network, describe(network, direction="a2b", **options), precision="fp32")


def _noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


class _Identity(nn.Module):
    """Gives back its input, at sizes that a real network of `config` takes only."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for side in x.shape[-2:]:
            assert side >= self.config.minimum_size
            assert side % self.config.size_multiple == 0
        return x


RESNET_TRANSLATOR, UNET_TRANSLATOR = _translator(), _translator(UNET)


@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([RESNET_TRANSLATOR, UNET_TRANSLATOR]))
@settings(max_examples=60, deadline=None)
def test_any_size_in_the_same_size_out(height: int, width: int, translator: Translator) -> None:
    y = translator(_noise(3, height, width))
    assert y.shape == (3, height, width)
    assert torch.isfinite(y).all()


@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([RESNET, UNET]))
@settings(max_examples=60, deadline=None)
def test_padding_is_cropped_where_it_was_added(height: int, width: int, config: Any) -> None:
    network = _Identity(config)
    x = _noise(3, height, width)
    assert torch.equal(Translator(network, describe(network, direction="a2b"), precision="fp32")(x), x)


def test_padding_mirrors_as_often_as_need_be() -> None:
    # numpy's reflection is the independent reading of the same rule
    for length in (1, 2, 3, 5, 31, 33):
        index, before = mirrored(length, UNET.size_multiple, UNET.minimum_size)
        after = len(index) - length - before
        assert index.tolist() == np.pad(np.arange(length), (before, after), "reflect").tolist()


@pytest.mark.arithmetic
def test_a_size_that_fits_is_the_network_alone() -> None:
    x = _noise(2, 3, 32, 64)
    with torch.no_grad():
        expected = torch.cat([_network(RESNET).eval()(part) for part in x.split(1)])
    torch.testing.assert_close(_translator()(x), expected, atol=1e-5, rtol=0)


@pytest.mark.arithmetic
@pytest.mark.parametrize("options", [{}, {"dropout": True}, {"statistics": "running"}])
@pytest.mark.parametrize("config", [RESNET, UNET, ResnetConfig(width=2, blocks=1, norm="batch", dropout=True)])
def test_neither_batch_nor_order_matter(config: Any, options: dict[str, Any]) -> None:
    translator = _translator(config, **options)
    x = _noise(3, 3, 40, 33)
    together = translator(x)
    apart = [translator(x[i]) for i in (2, 0, 1)]
    # a whole batch may be rounded otherwise: far below an 8-bit level (8e-3)
    torch.testing.assert_close(together, torch.stack([apart[1], apart[2], apart[0]]), atol=1e-4, rtol=0)


@pytest.mark.arithmetic
def test_batch_statistics_are_those_of_each_picture() -> None:
    x = _noise(2, 3, 32, 32)
    network = _network(UNET).train()
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    with torch.no_grad():
        expected = torch.cat([network(x[:1]), network(x[1:])])
    torch.testing.assert_close(_translator(UNET)(x), expected, atol=1e-5, rtol=0)


@pytest.mark.arithmetic
def test_the_frames_of_a_film_have_one_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = _translator(ResnetConfig(width=2, blocks=1, dropout=True), dropout=True)
    pictures = [np.full((16, 16, 3), level, np.uint8) for level in (20, 230)]
    seeds: list[int] = []
    run = type(noisy.model.runtime).run

    def noted(runtime: Any, batch: Any, seed: int | None = None) -> Any:
        seeds.append(seed)
        return run(runtime, batch, seed)

    monkeypatch.setattr(type(noisy.model.runtime), "run", noted)
    still = noisy.for_film()
    for translator in (noisy, still):
        for picture in pictures:
            translator(picture)
    assert seeds[0] != seeds[1] and seeds[2] == seeds[3] == 0


def test_dropout_noise_is_of_the_picture_and_leaves_the_random_state_alone() -> None:
    config = ResnetConfig(width=2, blocks=1, dropout=True)
    noisy, calm, x = _translator(config, dropout=True), _translator(config), _noise(3, 16, 16)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = noisy(x)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(noisy(x), first)
    assert not torch.allclose(calm(x), first, atol=1e-3)
    other = x.clone()
    other[0, 0, 0] += 1e-6  # another picture draws other noise
    assert (noisy(other) - first).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_arrays(dtype: Any) -> None:
    pixels = to_pixels(_noise(3, 21, 19), dtype)
    result = RESNET_TRANSLATOR(pixels)
    assert (result.shape, result.dtype) == ((21, 19, 3), dtype)
    assert np.array_equal(result, to_pixels(RESNET_TRANSLATOR(to_tensor(pixels)), dtype))
    alpha = np.arange(21 * 19, dtype=dtype).reshape(21, 19)
    with_alpha = RESNET_TRANSLATOR(np.dstack([pixels, alpha]))
    assert np.array_equal(with_alpha[..., :3], result)
    assert np.array_equal(with_alpha[..., 3], alpha)


def test_gray_arrays() -> None:
    translator = _translator(ResnetConfig(in_channels=1, out_channels=1, width=2, blocks=0))
    pixels = to_pixels(_noise(1, 9, 12))
    assert translator(pixels).shape == (9, 12, 1)
    assert np.array_equal(translator(pixels[..., 0]), translator(pixels)[..., 0])
    assert RESNET_TRANSLATOR(pixels[..., 0]).shape == (9, 12, 3)


def test_more_channels_than_colours() -> None:
    translator = _translator(ResnetConfig(in_channels=6, out_channels=2, width=2, blocks=0))
    assert translator(np.zeros((9, 12, 6), np.uint8)).shape == (9, 12, 2)
    assert translator(torch.zeros(6, 9, 12)).shape == (2, 9, 12)


@pytest.mark.parametrize(
    ("mode", "result"), [("RGB", "RGB"), ("L", "RGB"), ("RGBA", "RGBA"), ("LA", "RGBA"), ("P", "RGB"), ("CMYK", "RGB")]
)
def test_pil_images(mode: str, result: str) -> None:
    image = Image.fromarray(to_pixels(_noise(3, 13, 18))).convert(mode)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image.info["icc_profile"] = profile
    found = RESNET_TRANSLATOR(image)
    assert (found.mode, found.size) == (result, (18, 13))
    assert found.info.get("icc_profile") == (None if mode == "CMYK" else profile)
    if mode == "RGB":
        assert np.array_equal(np.asarray(found), RESNET_TRANSLATOR(np.asarray(image)))


def test_sixteen_bit_pil_images_are_not_clipped() -> None:
    translator = _translator(ResnetConfig(in_channels=1, out_channels=1, width=2, blocks=0))
    pixels = to_pixels(_noise(1, 16, 16), np.uint16)
    found = translator(Image.fromarray(pixels[..., 0]))
    assert found.mode == "I;16"
    assert np.array_equal(np.asarray(found), translator(pixels)[..., 0])


def test_paths(tmp_path: Path) -> None:
    image = Image.fromarray(to_pixels(_noise(3, 13, 18)))
    image.save(tmp_path / "a.png")
    for path in (tmp_path / "a.png", str(tmp_path / "a.png")):
        assert np.array_equal(np.asarray(RESNET_TRANSLATOR(path)), np.asarray(RESNET_TRANSLATOR(image)))
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"b\.png: text is not read"):
        RESNET_TRANSLATOR(tmp_path / "b.png")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_tensors_keep_dtype_and_can_enter_a_graph(dtype: torch.dtype) -> None:
    y = RESNET_TRANSLATOR(_noise(1, 3, 16, 16).to(dtype))
    assert y.dtype == dtype
    (y * torch.ones(1, dtype=dtype, requires_grad=True)).sum().backward()
    assert RESNET_TRANSLATOR(torch.zeros(0, 3, 8, 8)).shape == (0, 3, 8, 8)


@pytest.mark.parametrize(
    "image",
    [
        torch.zeros(1, 16, 16), torch.zeros(16, 16), torch.zeros(3, 0, 4), torch.zeros(3, 16, 16, dtype=torch.uint8),
        np.zeros((8, 8, 3), np.float32), np.zeros((0, 8, 3), np.uint8), np.zeros((8, 8, 5), np.uint8),
        Image.new("F", (8, 8)), [[0]], None,
    ],
    ids=lambda image: type(image).__name__,
)  # fmt: skip
def test_invalid_pictures_are_refused(image: Any) -> None:
    with pytest.raises(UsageError):
        RESNET_TRANSLATOR(image)


def _save(folder: Path, direction: Any, a: str = "paintings", b: str = "photos") -> Path:
    folder.mkdir(exist_ok=True)
    network = _network(RESNET)
    ends = (a, b) if direction == "a2b" else (b, a)
    info = describe(network, direction=direction, input_domain=ends[0], output_domain=ends[1])
    model_file.save(folder / f"{direction}.safetensors", network, info)
    return folder / f"{direction}.safetensors"


def test_a_run_folder_or_a_model_file(tmp_path: Path) -> None:
    file, x = _save(tmp_path / "run", "b2a"), _noise(3, 8, 8)
    expected = RESNET_TRANSLATOR(x)
    for style in (file, str(file), tmp_path / "run"):
        translator = load_translator(style, device="cpu", runtime="torch", precision="fp32")
        assert translator.info.direction == "b2a"
        assert torch.equal(translator(x), expected)
    with pytest.raises(UsageError, match=r"b2a \(photos → paintings\), not a2b"):
        load_translator(file, "a2b")
    with pytest.raises(UsageError, match="has no a2b; it has b2a"):
        load_translator(tmp_path / "run", "a2b")


@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_model_file_changed_after_loading_is_not_used(tmp_path: Path, runtime: Any) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    plain: Any = {"device": "cpu", "runtime": runtime, "precision": "fp32"}
    file, picture = _save(tmp_path / "run", "a2b"), Picture(to_pixels(_noise(3, 16, 16)))
    same, changed = load_translator(file, **plain), load_translator(file, **plain)
    assert np.abs(same.stream(picture).pixels.astype(int) - same.translate(picture).pixels).max() <= 1
    network = _network(ResnetConfig(width=2, blocks=0))
    model_file.save(file, network, describe(network, direction="a2b"))
    for use in (lambda: changed.stream(picture), lambda: changed.save_pretrained(tmp_path / "saved")):
        with pytest.raises(ModelError, match=r"a2b\.safetensors has changed since it was loaded"):
            use()


@pytest.mark.arithmetic
def test_too_large_a_picture_is_streamed_without_a_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = to_pixels(_noise(3, 16, 16))
    expected = RESNET_TRANSLATOR(pixels)
    for name in ("fits", "surely_fits"):
        monkeypatch.setattr(f"i2i.inference.loaded_model.{name}", lambda *_: False)
    assert np.abs(RESNET_TRANSLATOR(pixels).astype(int) - expected).max() <= 1
    with pytest.raises(MemoryError):
        RESNET_TRANSLATOR.translate_batch([Picture(pixels)])


def _identity() -> Translator:
    """Gives back any picture that it takes."""
    config = ResnetConfig(width=2, blocks=1, in_channels=1, out_channels=1)
    network = _Identity(config)
    return Translator(network, describe(network, direction="a2b"), precision="fp32")


@pytest.mark.parametrize("dtype", [">u2", "<u2"])
def test_sixteen_bits_in_any_byte_order(dtype: str) -> None:
    pixels = np.linspace(0, 65_535, 48).reshape(6, 8).astype(dtype)
    result = _identity()(pixels)
    assert result.dtype == np.uint16 and np.array_equal(result, pixels)
    image = _identity()(Image.fromarray(pixels))
    assert image.mode == "I;16" and np.array_equal(np.asarray(image), pixels)


def test_a_pil_image_comes_upright_with_its_exif(tmp_path: Path) -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(6, 8)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Artist] = 6, "somebody"
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    for image in (tmp_path / "a.png", Image.open(tmp_path / "a.png")):
        result = _identity()(image)
        assert np.array_equal(np.asarray(result), np.rot90(pixels, -1))
        found = result.getexif()
        assert ExifTags.Base.Orientation not in found and found[ExifTags.Base.Artist] == "somebody"


def test_damaged_exif_is_ignored() -> None:
    image = Image.fromarray(np.zeros((6, 8), np.uint8))
    image.info["exif"] = b"Exif\0\0garbage"
    assert _identity()(image).size == (8, 6)


def test_apple_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UsageError, match="this machine has none"):
        choose_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "mps"


def test_several_threads_do_not_share_their_noise() -> None:
    used = _translator(ResnetConfig(width=2, blocks=2, dropout=True), dropout=True)
    pictures = [_noise(3, 16, 16, seed=seed) for seed in range(16)]
    expected = [used(picture) for picture in pictures]
    state = torch.get_rng_state()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(used, pictures))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("mode", ["La", "RGBa", "PA", "1"])
def test_rare_modes_of_pil_keep_what_they_have(mode: str) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 9, 4), np.uint8), "RGBA")
    if mode == "PA":
        image = Image.merge("LA", image.split()[2:]).convert("PA")
    else:
        image = image.convert("LA" if mode == "La" else "RGBA").convert(mode)
    result = _identity()(image)
    assert result.mode == ("L" if mode == "1" else "LA") and result.size == (9, 8)
    if mode != "1":
        assert np.array_equal(
            np.asarray(result)[..., 1], np.asarray(image.convert("RGBA" if mode == "PA" else mode))[..., -1]
        )


@pytest.mark.parametrize(
    "wrong",
    [
        {"precision": "bf17"},
        {"runtime": "tensorrt"},
        {"norm_stats": "foo"},
        {"seed": -1},
        *({"device": name} for name in ("cpu:3", "gpu", "cuda:99", "xla")),
        {"direction": "b2c"},
    ],
)
def test_wrong_options_of_the_library(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        load_translator(_save(tmp_path, "a2b"), **wrong)


def test_a_translator_is_saved_and_comes_back(tmp_path: Path) -> None:
    config = ResnetConfig(width=2, blocks=1, norm="batch")
    used = _translator(config, statistics="batch")
    used.save_pretrained(tmp_path / "mine")
    x = _noise(3, 16, 16)
    plain: Any = {"device": "cpu", "runtime": "torch", "precision": "fp32"}
    again = Translator.from_pretrained(tmp_path / "mine", **plain)
    assert torch.equal(again(x), used(x))
    running = load_translator(tmp_path / "mine", norm_stats="running", **plain)
    assert not torch.equal(running(x), used(x)), "the statistics of the training are in the folder too"


def test_bf16_is_near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "has_bf16", lambda: True)
    x = _noise(3, 32, 32)
    full, reduced = (
        Translator(_network(RESNET), describe(RESNET, direction="a2b"), precision=precision)(x)
        for precision in ("fp32", "bf16")
    )
    assert reduced.dtype == torch.float32 and 0 < (full - reduced).abs().max() < 0.1
    with pytest.raises(UsageError, match="needs a GPU"):
        Translator(_network(RESNET), describe(RESNET, direction="a2b"), precision="fp16")


def _files(folder: Path, *pictures: np.ndarray[Any, Any]) -> list[Path]:
    paths = [folder / f"{number}.png" for number in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        Image.fromarray(picture).save(path)
    return paths


def test_bytes_and_files_are_read_as_their_path_is(tmp_path: Path) -> None:
    (path,) = _files(tmp_path, to_pixels(_noise(3, 13, 18)))
    expected = np.asarray(RESNET_TRANSLATOR(path))
    with path.open("rb") as file:
        given = [path.read_bytes(), bytearray(path.read_bytes()), io.BytesIO(path.read_bytes()), file]
        for found in RESNET_TRANSLATOR(given):
            assert isinstance(found, Image.Image) and np.array_equal(np.asarray(found), expected)
    with pytest.raises(ImageError, match="bytes: empty file"):
        RESNET_TRANSLATOR(b"")
    (tmp_path / "text.png").write_text("no picture")
    with (tmp_path / "text.png").open("rb") as file, pytest.raises(ImageError, match=r"text\.png: text is not read"):
        RESNET_TRANSLATOR(file)
    with (tmp_path / "text.png").open() as text, pytest.raises(UsageError, match="opened in binary mode"):
        RESNET_TRANSLATOR(text)


def test_a_list_gives_a_list_of_the_same_kinds_in_its_order(tmp_path: Path) -> None:
    small, wide = to_pixels(_noise(3, 13, 18)), to_pixels(_noise(3, 8, 40, seed=1))
    path, other = _files(tmp_path, small, wide)
    given = [path, wide, _noise(3, 9, 9), Image.fromarray(small), str(other)]
    expected = [RESNET_TRANSLATOR(one) for one in given]
    for batch_size in (1, 2, 3):
        found = RESNET_TRANSLATOR(iter(given), batch_size=batch_size)
        assert isinstance(found, list) and [type(one) for one in found] == [type(one) for one in expected]
        assert all(np.array_equal(np.asarray(one), np.asarray(two)) for one, two in zip(found, expected, strict=True))
    assert RESNET_TRANSLATOR([]) == []


@pytest.mark.parametrize(("batch_size", "batches"), [("auto", [3, 1]), (2, [2, 1, 1]), (1, [1, 1, 1, 1])])
def test_pictures_of_one_size_go_through_the_network_together(
    batch_size: Any, batches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    translator, seen = _translator(), []
    translator.model.one_by_one = False  # as on a GPU
    run = translator.model.runtime.run
    monkeypatch.setattr(translator.model.runtime, "run", lambda x, seed: (seen.append(len(x)), run(x, seed))[1])
    one, other = to_pixels(_noise(3, 16, 16)), to_pixels(_noise(3, 12, 16))
    found = translator([one, other, one, one], batch_size=batch_size)
    assert sorted(seen, reverse=True) == batches
    assert [picture.shape[0] for picture in found] == [16, 12, 16, 16]


def test_a_bad_picture_of_a_list_is_named(tmp_path: Path) -> None:
    good, bad = _files(tmp_path, to_pixels(_noise(3, 16, 16)), to_pixels(_noise(3, 16, 16)))
    translator = _translator(ResnetConfig(in_channels=6, out_channels=3, width=2, blocks=0))
    translator.model.one_by_one = False
    with pytest.raises(ImageError, match=rf"{good}: "):
        translator([good, bad], batch_size=2)
    bad.write_text("no picture")
    with pytest.raises(ImageError, match=rf"{bad}: text"):
        RESNET_TRANSLATOR([good, bad])


@pytest.mark.parametrize(("size", "shape"), [(10, (10, 15)), ((7, 30), (7, 30)), ([7, 30], (7, 30)), (None, (20, 30))])
def test_size_scales_first(tmp_path: Path, size: Any, shape: tuple[int, int]) -> None:
    pixels = to_pixels(_noise(3, 20, 30))
    (path,) = _files(tmp_path, pixels)
    assert RESNET_TRANSLATOR(path, size=size).size == shape[::-1]
    assert RESNET_TRANSLATOR(pixels, size=size).shape == (*shape, 3)
    tensor = RESNET_TRANSLATOR(_noise(2, 3, 20, 30), size=size)
    assert tensor.shape == (2, 3, *shape)
    assert RESNET_TRANSLATOR(torch.zeros(0, 3, 20, 30), size=size).shape == (0, 3, *shape)
    small = resize_planes(_noise(3, 20, 30).numpy(), *shape) if size else _noise(3, 20, 30).numpy()
    torch.testing.assert_close(tensor[0], RESNET_TRANSLATOR(torch.from_numpy(small)), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"size": 0}, r"^size = 0: expected a number in range \(allowed: ≥ 1, ≤ 65535\)$"),
        ({"size": 70_000}, r"^size = 70000: expected a number in range \("),
        ({"batch_size": 0.5}, r"^batch_size = 0\.5: expected a whole number or 'auto' \("),
        ({"size": "x"}, r"^size = 'x': expected a whole number \("),
        ({"size": (0, 5)}, r"^size\.0 = 0: expected a number in range \("),
        ({"size": (1, 2, 3)}, r"^size = \(1, 2, 3\): expected a whole number or a list of another length \("),
        ({"size": (1,)}, r"^size = \(1,\): expected a whole number or a list of another length \("),
        ({"batch_size": 0}, r"^batch_size = 0: expected a number in range or 'auto' \("),
        ({"strength": 2}, r"^strength = 2: expected a number in range \(allowed: ≥ 0, ≤ 1\)$"),
        ({"keep": 3}, r"^keep = 3: expected 'luminance' or 'colour'$"),
    ],
)
def test_wrong_options_of_a_call(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        RESNET_TRANSLATOR(np.zeros((8, 8, 3), np.uint8), **wrong)


def test_translator_repr_names_domains_network_and_runtime(tmp_path: Path) -> None:
    file = _save(tmp_path / "run", "b2a", b="photos <script>")
    translator = load_translator(file, device="cpu", runtime="torch", precision="fp32")
    size = f"{file.stat().st_size / 1e6:.1f} MB"
    arrow = "photos <script> → paintings (b2a)"
    assert repr(translator) == f"<Translator {file}: {arrow}; resnet, {size}; torch fp32 on cpu>"
    assert repr(_translator()).startswith("<Translator: A → B (a2b); resnet, 0.0 MB; ")
    page = translator._repr_html_()
    assert "<script>" not in page and "photos &lt;script&gt; → paintings" in page and "torch fp32 on cpu" in page
    assert "<li>" in load_translator("monet", device="cpu")._repr_html_(), "the card of the style"


@pytest.mark.parametrize("style", [5, None, b"monet"])
def test_a_style_that_is_no_name(style: Any) -> None:
    with pytest.raises(UsageError, match=rf"^style = {style!r}: expected a name, a path, or hub:owner/name$"):
        load_translator(style)
