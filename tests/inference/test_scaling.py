"""A painting is brought back to the size of its picture: with the picture's edges, the painting's strokes, no halo.

And models whose inputs or outputs are labels, and models that colour lightness."""

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from batch_tools import run
from torch import nn

import i2i
from i2i import images
from i2i.errors import ImageError, ModelError, UsageError
from i2i.folders.alone import translate_large
from i2i.folders.batch import translate_folder
from i2i.folders.jobs import Job
from i2i.images import Picture, Pixels, from_planes, resize_planes, to_planes, with_depth
from i2i.images.colours import join_lab, split_lab
from i2i.images.palettes import FACADES, Palette, find, to_classes, to_colours
from i2i.inference import scaling
from i2i.inference.options import FolderOptions, ModelOptions
from i2i.inference.prepare import network_pixels
from i2i.inference.scaling import EPSILON, Enlargement, lightness, painted_size, row_bands
from i2i.inference.transform import Translate
from i2i.inference.translator import Translator, load_translator
from i2i.models import model_file, published, styles
from i2i.models.info import describe, parse, read_info, to_json
from i2i.models.styles import model_files
from i2i.networks import GeneratorConfig
from i2i.networks.blocks import init_weights
from i2i.networks.resnet import ResnetConfig

CONFIG = ResnetConfig(width=2, blocks=1)


class Fixed(nn.Module):
    """A generator that is the function given to it, under the description of a real one."""

    def __init__(self, function: Any, channels: int = 3) -> None:
        super().__init__()
        self.function, self.config = (
            function,
            ResnetConfig(width=2, blocks=1, in_channels=channels, out_channels=channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.function(x)
        return made


class Watched:
    """Gives back its input, and remembers its height and width."""

    shape: tuple[int, ...] = ()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        Watched.shape = tuple(x.shape[-2:])
        return x


def painter(function: Any, paint_size: int | None = 32, channels: int = 3) -> Translator:
    network = Fixed(function, channels)
    info = describe(network, direction="a2b")
    return Translator(network, info, precision="fp32", paint_size=paint_size)


def same(x: torch.Tensor) -> torch.Tensor:
    return x


def swapped(x: torch.Tensor) -> torch.Tensor:
    """Blue, red and green, the last of them inverted."""
    return x[:, [2, 0, 1]] * torch.tensor([1.0, 1.0, -1.0])[:, None, None]


def shapes(height: int = 96, width: int = 144, seed: int = 0) -> Pixels:
    """Discs of all colours with sharp edges, between black and white."""
    random, y, x = np.random.default_rng(seed), *np.mgrid[:height, :width]
    pixels = np.full((height, width, 3), 128, np.uint8)
    for _ in range(12):
        top, left, radius = random.uniform(0, height), random.uniform(0, width), random.uniform(8, 30)
        pixels[(y - top) ** 2 + (x - left) ** 2 < radius**2] = random.integers(0, 256, 3)
    return pixels


def levels(found: Pixels, wanted: Pixels) -> Any:
    return np.abs(found.astype(float) - wanted)


def test_the_size_at_which_a_picture_is_painted() -> None:
    assert painted_size(3000, 4000, 512) == (512, 683)
    assert painted_size(4000, 3000, 512) == (683, 512)
    assert painted_size(513, 9, 8) == (456, 8)
    # no larger than it is, and as it is where nothing is painted
    assert painted_size(512, 4000, 512) == painted_size(512, 4000, 0) == (512, 4000)


def test_row_bands_cover_every_row_once() -> None:
    for height, width in ((1, 1), (3000, 4000), (7, 1 << 20)):
        bands = list(row_bands(height, width))
        assert [row for rows in bands for row in range(rows.start, rows.stop)] == list(range(height))


@pytest.mark.promise("R36")
@pytest.mark.parametrize(("height", "width"), [(96, 144), (144, 33), (33, 33), (39, 301)])
def test_the_size_stays_and_the_network_sees_the_paint_size(height: int, width: int) -> None:
    result = painter(Watched())(shapes(height, width))
    assert result.shape == (height, width, 3)
    seen = painted_size(height, width, 32)
    assert Watched.shape == tuple(-(-side // 4) * 4 for side in seen)  # a multiple of 4, mirrored at its edges


@pytest.mark.parametrize("shape", [(32, 50), (20, 200), (1, 1)])
def test_a_picture_no_larger_is_translated_as_ever(shape: tuple[int, int]) -> None:
    network = CONFIG.build()
    info = describe(network, direction="a2b")
    plain, used = (Translator(network, info, precision="fp32", paint_size=side) for side in (0, 32))
    pixels = shapes(*shape)
    assert np.array_equal(plain(pixels), used(pixels))


@pytest.mark.parametrize("value", [0, 1, 77, 255])
def test_single_colour_stays_uniform(value: int) -> None:
    assert (painter(same)(np.full((90, 70, 3), value, np.uint8)) == value).all()


@pytest.mark.parametrize(("network", "truth"), [(same, lambda x: x), (swapped, lambda x: x[..., [2, 0, 1]])])
def test_a_linear_network_keeps_the_picture_sharp(network: Any, truth: Any) -> None:
    """Where a painting is a linear map of its picture, that map of the large picture is the truth. A variance v
    comes back but for ε / (v + ε) of it, and edges have much: here a mean error of 4 levels, 10 by bicubic
    enlargement alone."""
    pixels = shapes()
    wanted = truth(pixels).astype(float)
    if network is swapped:
        wanted[..., 2] = 255 - wanted[..., 2]
    small = resize_planes(to_planes(wanted.astype(np.uint8)), 32, 48)
    blurred = levels(from_planes(resize_planes(small, 96, 144)), wanted).mean()
    assert levels(painter(network)(pixels), wanted).mean() < 0.4 * blurred


def test_enlarged_step_edge_follows_the_formula() -> None:
    """Black beside white, 8 times as large: the formula itself, computed here pixel by pixel in float64."""
    source = np.full((1, 64, 64), -1.0, np.float32)
    source[:, :, 30:] = 1
    small = resize_planes(source, 8, 8)
    found = Enlargement(small, small, (64, 64)).whole(source)
    row = np.pad(small[0, 4].astype(float), 2, mode="symmetric")
    windows = np.stack([row[i : i + 5] for i in range(8)])
    gain = windows.var(axis=1) / (windows.var(axis=1) + EPSILON)
    gain = np.pad(gain, 2, mode="symmetric")
    gain = np.array([gain[i : i + 5].mean() for i in range(8)])
    places = (np.arange(64) + 0.5) / 8 - 0.5
    gains = np.interp(places, np.arange(8), gain)
    blurred = resize_planes(small, 64, 64)[0, 32]
    wanted = blurred + gains * (source[0, 32] - blurred)
    assert np.abs(found[0, 32] - wanted).max() < 1e-5
    assert np.abs(found[0, 32] - source[0, 32]).max() < 0.2 < np.abs(blurred - source[0, 32]).max()


def test_strokes_stay_and_faint_texture_stays_away() -> None:
    """The strokes of a painting that its picture has nothing of are there; grain of 3 levels that it ignores is not."""
    grain = np.random.default_rng(0).integers(125, 132, (120, 120, 3), np.uint8)
    strokes = torch.zeros(1, 3, 40, 40)
    strokes[..., 10:14, 5:30] = 0.6
    found = painter(lambda x: strokes.clone(), 40)(grain)
    wanted = from_planes(resize_planes(strokes[0].numpy(), 120, 120))
    assert levels(found, wanted).max() <= 2
    assert found[35, 60].min() > 190 > 130 > found[80, 60].max()


def test_the_strokes_of_the_whole_are_those_of_the_painting() -> None:
    """Scaled down again, the result is the painting."""
    pixels = shapes(160, 160)
    painted = np.random.default_rng(1).uniform(-0.8, 0.8, (3, 40, 40)).astype(np.float32)
    painted = resize_planes(resize_planes(painted, 20, 20), 40, 40)
    source = to_planes(pixels)
    small = resize_planes(source, 40, 40)
    found = Enlargement(painted, small, (160, 160)).whole(source)
    assert np.abs(resize_planes(found, 40, 40) - painted).mean() < 0.02


@pytest.mark.parametrize("hidden", [(0, 255, 0), (0, 0, 0), (255, 255, 255)])
def test_hidden_colours_leave_no_halo(hidden: tuple[int, int, int]) -> None:
    """Brightened by a network, red stays the same red up to the edge, whatever is hidden beside it."""
    pixels = np.full((96, 96, 3), hidden, np.uint8)
    alpha = np.zeros((96, 96), np.uint8)
    disc = (np.mgrid[:96, :96] - 47.3) ** 2
    shown = disc[0] + disc[1] < 30**2
    pixels[shown], alpha[shown] = (200, 40, 40), 255
    result = painter(lambda x: x * 0.5).translate(Picture(pixels, alpha))
    assert result.alpha is not None and np.array_equal(result.alpha, alpha)
    assert levels(result.pixels[shown], np.array([164, 84, 84])).max() <= 2


def test_transparent_pixels_do_not_affect_visible_ones() -> None:
    random = np.random.default_rng(0)
    alpha = np.repeat(np.float32([1, -1]), 12)[None].repeat(24, axis=0)
    planes, painted, source = (random.uniform(-1, 1, (3, n, n)).astype(np.float32) for n in (24, 24, 96))
    found = []
    for hidden in (-1, 1):
        planes[..., 12:], painted[..., 12:], source[..., 48:] = hidden, -hidden, hidden
        found.append(Enlargement(painted, planes, (96, 96), alpha).whole(source)[..., :48])
    assert np.abs(found[0] - found[1]).max() < 0.02


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_painting_keeps_depth_alpha_profile_and_resolution(dtype: Any) -> None:
    full = 1 if dtype == np.float32 else np.iinfo(dtype).max
    pixels = (shapes() / 255 * full).astype(dtype)
    picture = Picture(pixels, pixels[..., 0].copy(), icc=b"icc", exif=b"exif", format="TIFF", resolution=(300.0, 300.0))
    result = painter(same).translate(picture)
    assert result.pixels.dtype == result.alpha.dtype == dtype  # type: ignore[union-attr]
    assert result.pixels.shape == pixels.shape
    assert np.array_equal(result.alpha, picture.alpha)  # type: ignore[arg-type]
    kept = ("icc", "exif", "format", "resolution")
    assert [getattr(result, name) for name in kept] == [getattr(picture, name) for name in kept]


def test_16_bits_are_more_than_256_levels() -> None:
    ramp = np.linspace(0, 65_535, 96 * 96 * 3).reshape(96, 96, 3).astype(np.uint16)
    assert len(np.unique(painter(same)(ramp))) > 1000


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_any_number_of_channels(channels: int) -> None:
    planes = np.random.default_rng(0).uniform(-1, 1, (channels, 12, 15)).astype(np.float32)
    source = resize_planes(planes, 90, 112)
    used = painter(same, channels=channels)
    found = used(torch.from_numpy(source)).numpy()
    assert found.shape == source.shape
    assert np.abs(found - source).mean() < 0.03


def test_arrays_tensors_and_pictures_alike() -> None:
    used, pixels = painter(swapped), shapes()
    whole = used(pixels)
    tensor = used(images.to_tensor(pixels)[None])
    assert levels(images.to_pixels(tensor[0]), whole).max() <= 1
    assert np.array_equal(used.translate(Picture(pixels)).pixels, whole)


@pytest.mark.promise("R38")
def test_batch_equals_single_pictures() -> None:
    """Also of pictures that only the network sees at one size, among them one that is no larger."""
    used = painter(swapped)
    pictures = [Picture(shapes(*size, seed=i)) for i, size in enumerate([(96, 144), (64, 96), (32, 48)])]
    alone = [used.translate(picture).pixels for picture in pictures]
    together = [picture.pixels for picture in used.translate_batch(pictures)]
    assert all(np.array_equal(one, two) for one, two in zip(alone, together, strict=True))


@pytest.mark.parametrize("size", [60, 200])
def test_size_comes_before_the_paint_size(size: int) -> None:
    """The result has the size asked for; it is painted at the paint size from the picture itself."""
    pixels = shapes()
    result = painter(Watched()).translate(Picture(pixels, np.full(pixels.shape[:2], 200, np.uint8)), size)
    assert result.pixels.shape[:2] == result.alpha.shape == (size, size * 3 // 2)  # type: ignore[union-attr]
    assert (result.alpha == 200).all()
    assert Watched.shape == (32, 48)
    wanted = from_planes(resize_planes(to_planes(pixels), size, size * 3 // 2))
    assert levels(result.pixels, wanted).mean() < 6


def test_by_bands_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    network = CONFIG.build()
    used = Translator(network, describe(network, direction="a2b"), precision="fp32", paint_size=32)
    picture = Picture(shapes())
    whole = used.translate(picture)
    monkeypatch.setattr(used.model, "_fits", lambda height, width: False)
    assert levels(used.translate(picture).pixels, whole.pixels).max() <= 1


def save(path: Path, config: Any = CONFIG, **said: Any) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = config.build()
    model_file.save(path, network, replace(describe(network, direction="a2b"), **said))
    return path


def loaded(path: Path, paint_size: int | None = None) -> Translator:
    return load_translator(path, device="cpu", runtime="torch", precision="fp32", paint_size=paint_size)


def test_the_model_says_its_paint_size_and_one_may_say_another(tmp_path: Path) -> None:
    none, some = save(tmp_path / "none.safetensors"), save(tmp_path / "some.safetensors", paint_size=48)
    assert [loaded(path).paint_size for path in (none, some)] == [0, 48]
    assert [loaded(some, side).paint_size for side in (0, 32, None)] == [0, 32, 48]
    loaded(some, 32).save_pretrained(tmp_path / "folder")
    assert (
        Translator.from_pretrained(tmp_path / "folder", runtime="torch").paint_size == 48
    )  # what the model says stays
    assert Translator.from_pretrained(tmp_path / "folder", runtime="torch", paint_size=0).paint_size == 0


def test_the_transform_paints_too(tmp_path: Path) -> None:
    some, pixels = save(tmp_path / "some.safetensors", paint_size=32), shapes()
    for paint_size in (None, 0, 40):
        wanted = loaded(some, paint_size)(pixels)
        found = Translate(some, precision="fp32", p=1, paint_size=paint_size)(image=pixels)["image"]
        assert levels(found, wanted).max() <= 1


@pytest.mark.parametrize("value", [-1, 70_000, 1.5, "large", float("nan")])
def test_invalid_paint_sizes_are_refused(value: Any, tmp_path: Path) -> None:
    path = save(tmp_path / "model.safetensors")
    with pytest.raises(UsageError, match="paint_size"):
        loaded(path, value)
    with pytest.raises(UsageError, match="paint_size"):
        Translate(path, paint_size=value)


@pytest.mark.parametrize("said", [{"input_labels": ("#3",)}, {"output_labels": ("#3",)}])
def test_labels_are_not_painted(said: dict[str, Any], tmp_path: Path) -> None:
    path = save(tmp_path / "labels.safetensors", **said)
    assert loaded(path, 0).paint_size == 0
    with pytest.raises(UsageError, match=r"paint_size = 512.*labels"):
        loaded(path, 512)
    with pytest.raises(ModelError, match=r"paint_size 512.*labels"):
        loaded(save(tmp_path / "odd.safetensors", paint_size=512, **said))


def test_the_runtime_follows_from_the_pixels_that_are_painted() -> None:
    info = replace(describe(CONFIG, direction="a2b"), paint_size=512)
    assert network_pixels([(3000, 4000), (100, 200)], ModelOptions(), info) == 512 * 683 + 20_000
    assert network_pixels([(3000, 4000)], ModelOptions(paint_size=0), info) == 12_000_000
    assert network_pixels(None, ModelOptions(), info) is None


def test_the_report_says_what_was_painted_at_another_size(tmp_path: Path) -> None:
    some = save(tmp_path / "some.safetensors", paint_size=32)
    (tmp_path / "in").mkdir()
    images.write(tmp_path / "in" / "large.png", Picture(shapes()))
    images.write(tmp_path / "in" / "small.png", Picture(shapes(32, 40)))
    report = i2i.translate_folder(tmp_path / "in", tmp_path / "out", some, runtime="torch")
    assert {record.source.name: record.note for record in report.records} == {
        "large.png": "painted at 48x32 pixels",
        "small.png": "",
    }
    assert report.facts["paint_size"] == 32
    plain = i2i.translate_folder(tmp_path / "in", tmp_path / "plain", some, runtime="torch", paint_size=0)
    assert [record.note for record in plain.records] == ["", ""]
    assert images.read(tmp_path / "out" / "large.png").pixels.shape == (96, 144, 3)


def test_as_an_option_of_the_script(tmp_path: Path) -> None:
    model, source = save(tmp_path / "model.safetensors", paint_size=32), tmp_path / "in.png"
    images.write(source, Picture(shapes()))
    words = ("--style", model, source, "-o", tmp_path / "out.png", "--runtime", "torch")
    code, child = run(tmp_path, *words, "--paint-size", "-1")
    assert code == 2 and "paint-size" in child.stderr.replace("_", "-")
    assert not (tmp_path / "out.png").exists()
    code, child = run(tmp_path, *words, "--paint-size", 48, "--json")
    assert code == 0, child.stderr
    report = json.loads(child.stdout)
    assert report["paint_size"] == 48 and report["records"][0]["note"] == "painted at 72x48 pixels"


@pytest.mark.parametrize("alpha", [False, True])
def test_a_large_picture_by_bands_is_painted_alike(
    alpha: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyvips")
    used = painter(swapped)
    pixels = shapes(300, 200)
    (tmp_path / "in").mkdir()
    images.write(tmp_path / "in" / "a.png", Picture(pixels, pixels[..., 0].copy() if alpha else None))
    whole = i2i.translate_folder(tmp_path / "in", tmp_path / "whole", used)
    monkeypatch.setattr(scaling, "_BAND_PIXELS", 2_000)
    options = FolderOptions()
    note = translate_large(used, Job(str(tmp_path / "in" / "a.png"), str(tmp_path / "large.png"), ""), options)
    assert note == whole.records[0].note == "painted at 32x48 pixels"
    one, two = (images.read(path) for path in (tmp_path / "whole" / "a.png", tmp_path / "large.png"))
    assert levels(one.pixels, two.pixels).max() <= 1
    assert alpha is (two.alpha is not None) and np.array_equal(one.alpha, two.alpha)


def test_memory_of_a_phones_picture_is_bounded() -> None:
    """The memory that 12 megapixels take beside themselves and their result: some bands of rows."""
    source = np.zeros((3, 3000, 4000), np.float32)
    small = np.zeros((3, 128, 171), np.float32)
    tracemalloc.start()
    try:
        enlarged = Enlargement(small, small, (3000, 4000))
        for rows in list(row_bands(3000, 4000))[:3]:
            enlarged.rows(source[:, rows], rows.start)
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


def test_styles_that_paint_say_at_which_size() -> None:
    bundled = model_files(styles.BUNDLED)
    assert {read_info(path).paint_size for path in bundled.values()} == {384}
    painters = {entry.name for entry in published.ENTRIES if entry.paint_size}
    assert painters == {"style_monet", "style_cezanne", "style_ukiyoe", "style_vangogh"}


@pytest.mark.arithmetic
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(150, 200), (201, 133)])
def test_by_bands_a_picture_is_scaled_and_enlarged_to_the_bit(
    shape: tuple[int, int], dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaling, "_BAND_PIXELS", 17 * shape[1])
    values = np.random.default_rng(0).random((*shape, 3), np.float32)
    picture = Picture(with_depth(values, dtype))
    planes, small = to_planes(picture.pixels), scaling.painted_size(*shape, 64)
    shrunk = scaling.shrunk(picture, 3, small)
    np.testing.assert_array_equal(shrunk, scaling.scaled(planes, picture, small)[0])
    enlargement = Enlargement(-shrunk, shrunk, shape)
    np.testing.assert_array_equal(enlargement.pixels(picture, 3, dtype), from_planes(enlargement.whole(planes), dtype))


def test_a_large_picture_takes_a_few_times_its_own_memory() -> None:
    """As planes in float32 alone it would take four times as much, several times over."""
    tracemalloc.start()
    try:
        picture = Picture(np.zeros((3000, 4000, 3), np.uint8))
        shrunk = scaling.shrunk(picture, 3, (384, 512))
        Enlargement(shrunk, shrunk, (3000, 4000)).pixels(picture, 3, np.uint8)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * picture.pixels.nbytes


DRAW = np.random.default_rng(0)
FOUR = Palette("four", ((255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 200, 200)))


def translator(config: GeneratorConfig, precision: str = "fp32", **described: object) -> Translator:
    torch.manual_seed(0)
    network = init_weights(config.build(), "normal", 0.2)
    info = describe(network, direction="a2b", **described)  # type: ignore[arg-type]
    return Translator(network, info, precision=precision)  # type: ignore[arg-type]


def resnet(inputs: int, outputs: int) -> ResnetConfig:
    return ResnetConfig(in_channels=inputs, out_channels=outputs, width=4, blocks=1)


PHOTO = DRAW.integers(0, 256, (30, 41, 3), np.uint8)


def classes_of(labeller: Translator, photo: np.ndarray) -> np.ndarray:
    """Straight through the network, the size being one that it takes."""
    assert photo.shape[0] % 4 == photo.shape[1] % 4 == 0
    with torch.no_grad():
        output: torch.Tensor = labeller.network(images.to_tensor(photo)[None])
    return output[0].argmax(dim=0).numpy()


@pytest.mark.parametrize("palette", [FOUR, find("4")])
def test_labels_come_out_exact(palette: Palette) -> None:
    labeller = translator(resnet(3, 4), output_palette=palette)
    photo = PHOTO[:28, :40]
    expected = classes_of(labeller, photo)
    assert len(np.unique(expected)) > 1
    made = labeller.translate(Picture(photo, icc=b"profile", exif=b"Exif"))
    assert made.icc is None and made.exif is None and made.pixels.dtype == np.uint8
    if palette.indexed:
        assert np.array_equal(made.pixels[..., 0], expected)
    else:
        assert np.array_equal(made.pixels, to_colours(expected.astype(np.uint8), palette))
    deep = labeller.translate(Picture(photo.astype(np.uint16) * 257, alpha=np.zeros(photo.shape[:2], np.uint16)))
    assert deep.alpha is None and np.array_equal(deep.pixels, made.pixels)
    tensor = labeller(images.to_tensor(photo))
    assert np.array_equal(images.to_pixels(tensor), made.pixels)


def test_any_size_and_no_pixel_of_another_colour() -> None:
    labeller = translator(resnet(3, 4), output_palette=FOUR, precision="auto")
    for size in (None, 20, 57):
        made = labeller.translate(Picture(PHOTO), size)
        found = {tuple(colour) for colour in made.pixels.reshape(-1, 3).tolist()}
        assert found <= set(FOUR.colours) and min(made.pixels.shape[:2]) == (size or 30)


@pytest.mark.parametrize("palette", [FOUR, find("4")])
def test_labels_go_in_by_class(palette: Palette) -> None:
    painter = translator(resnet(4, 3), input_palette=palette)
    classes = DRAW.integers(0, 4, (16, 24), np.uint8)
    planes = torch.from_numpy((classes[None] == np.arange(4)[:, None, None]) * 2.0 - 1).float()
    with torch.no_grad():
        expected = images.to_pixels(painter.network(planes[None])[0])
    files = [classes[..., None]] if palette.indexed else [classes[..., None], to_colours(classes, palette)]
    for pixels in files:
        assert np.abs(painter.translate(Picture(pixels)).pixels.astype(int) - expected).max() <= 1
    if not palette.indexed:
        assert np.abs(images.to_pixels(painter(images.to_tensor(files[1]))).astype(int) - expected).max() <= 1
        noisy = np.clip(files[1].astype(int) + DRAW.integers(-9, 10, files[1].shape), 0, 255).astype(np.uint8)
        assert np.array_equal(painter.translate(Picture(noisy)).pixels, painter.translate(Picture(files[1])).pixels)


def test_labels_are_scaled_to_the_nearest() -> None:
    painter = translator(resnet(4, 3), input_palette=FOUR)
    classes = DRAW.integers(0, 4, (16, 16), np.uint8)
    larger = cv2.resize(classes, (32, 32), interpolation=cv2.INTER_NEAREST_EXACT)
    one, other = painter.translate(Picture(classes[..., None]), 32), painter.translate(Picture(larger[..., None]))
    assert np.array_equal(one.pixels, other.pixels)


def test_class_index_out_of_range_is_refused() -> None:
    painter = translator(resnet(4, 3), input_palette=FOUR)
    with pytest.raises(ImageError, match="0 to 3 or 255; found 7"):
        painter.translate(Picture(np.full((16, 16, 1), 7, np.uint8)))


def test_lab_is_that_of_the_standard() -> None:
    """CIE 15:2004, by hand, of sRGB (IEC 61966-2-1)."""
    planes = images.to_planes(PHOTO)
    rgb = (planes.astype(np.float64) + 1) / 2
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = np.einsum("ij,jhw->ihw", matrix, linear) / np.array([0.9505, 1, 1.089])[:, None, None]
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    light, ab = split_lab(torch.from_numpy(planes))
    assert np.abs((light.numpy() + 1) * 50 - (116 * f[1:2] - 16)).max() < 0.02
    assert np.abs(ab.numpy() * 110 - np.stack([500 * (f[0] - f[1]), 200 * (f[1] - f[2])])).max() < 0.1
    assert np.abs(join_lab(torch.from_numpy(lightness(planes)), ab).numpy() - planes).max() < 1e-3


class NoColour(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.config, self.size_multiple, self.minimum_size = network.config, 1, 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(x), 2, *x.shape[2:])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colouring_keeps_the_lightness(dtype: type[np.uint8 | np.uint16]) -> None:
    colourist = translator(resnet(1, 2), encoding="lab")
    grey = DRAW.integers(0, np.iinfo(dtype).max + 1, (20, 24, 1), dtype)
    alpha = DRAW.integers(0, 256, (20, 24)).astype(dtype)
    made = colourist.translate(Picture(grey, alpha, icc=b"a grey profile"))
    assert made.pixels.shape == (20, 24, 3) and made.pixels.dtype == dtype and made.icc is None
    assert made.alpha is not None and np.array_equal(made.alpha, alpha)
    plain = Translator(NoColour(colourist.network), colourist.info, precision="fp32")
    close = np.abs(plain.translate(Picture(grey)).pixels.astype(int) - grey).max()
    assert close <= (1 if dtype == np.uint8 else 30)
    colour = plain.translate(Picture(np.dstack([grey, grey // 2, grey])))
    assert np.ptp(colour.pixels.astype(int), axis=2).max() <= (1 if dtype == np.uint8 else 30)


def test_model_file_records_the_coding(tmp_path: Path) -> None:
    for palette in (FACADES, find("12")):
        network = resnet(3, 12).build()
        info = describe(network, direction="a2b", output_palette=palette)
        model_file.save(tmp_path / "labels.safetensors", network, info)
        read = model_file.load(tmp_path / "labels.safetensors")[1].output_palette()
        assert read is not None and (read.colours, read.indexed) == (palette.colours, palette.indexed)
    for wrong in (["#12"], ["#000000", "#ffffff"], ["#00000g", "#ffffff"], ["red", "blue"]):
        document = json.loads(to_json(info, "")) | {"output_labels": wrong}
        if wrong == ["#12"]:
            parse(json.dumps(document))[0].network_config()
            continue
        with pytest.raises(ModelError, match="labels"):
            parse(json.dumps(document))[0].network_config()
    with pytest.raises(
        ModelError, match=r"encoding lab: takes 1 channel \(L\*\) to 2 \(a\*, b\*\), this network 3 to 12"
    ):
        describe(network, direction="a2b", encoding="lab").network_config()


def test_a_folder_of_labels(tmp_path: Path) -> None:
    labeller = translator(resnet(3, 4), output_palette=FOUR)
    for name in ("one.png", "two.jpg"):
        images.write(tmp_path / "in" / name, Picture(PHOTO)) if (tmp_path / "in").mkdir(exist_ok=True) is None else None
    with pytest.raises(
        UsageError, match=r"two\.jpg: this model makes labels, whose colours \.jpg would change; .*format='png'"
    ):
        translate_folder(tmp_path / "in", tmp_path / "out", labeller)
    assert not (tmp_path / "out").exists()
    report = translate_folder(tmp_path / "in", tmp_path / "out", labeller, format="png")
    assert not report.failed
    made = images.read(tmp_path / "out" / "two.png").pixels
    assert np.array_equal(to_colours(to_classes(made, FOUR), FOUR), made)


def test_extra_bands_stay_data_and_dropped_ones_are_reported(tmp_path: Path) -> None:
    photo = DRAW.integers(0, 256, (28, 40, 4), np.uint8)
    data = Picture(photo[..., :3].copy(), extra=photo[..., 3:].copy(), geo={33550: (10.0, 10.0, 0.0)}, format="TIFF")
    made = translator(resnet(4, 4)).translate(data)
    assert made.alpha is None and made.extra is not None and made.extra.shape == (28, 40, 1) and made.geo == data.geo
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    images.write(source / "a.tif", data)
    (all_bands,) = translate_folder(source, target / "all", translator(resnet(4, 4))).records
    (colours,) = translate_folder(source, target / "colours", translator(resnet(3, 3))).records
    assert (all_bands.status, all_bands.note) == ("done", "")
    assert colours.status == "done" and colours.note == "bands beyond red, green and blue left out: 1"
    assert images.read(target / "all" / "a.tif").extra is not None
    assert images.read(target / "colours" / "a.tif").geo == data.geo


def test_labels_of_another_size_have_no_place_on_earth_and_it_is_told(tmp_path: Path) -> None:
    data = Picture(PHOTO[:28, :40].copy(), geo={33550: (10.0, 10.0, 0.0)}, unread=("IPTC",), format="TIFF")
    labeller = translator(resnet(3, 4), output_palette=FOUR)
    same, smaller = labeller.translate(data), labeller.translate(data, size=20)
    assert (same.geo, same.unread) == (data.geo, ())
    assert smaller.width != 40 and smaller.geo == {}
    assert smaller.unread == ("place on Earth (GeoTIFF), at another size",)


@pytest.mark.parametrize("bands", [4, 5])
def test_bands_of_data_are_scaled_as_they_are(bands: int) -> None:
    """Near-infrared, that is dark where the colours are bright, does not weigh them as alpha does."""
    photo = np.full((64, 64, bands), 200, np.uint8)
    photo[:32, :, :3], photo[32:, :, 3:] = 20, 0
    opaque = np.full((64, 64), 255, np.uint8)
    with_alpha, without = (
        Picture(photo[..., :3].copy(), alpha, extra=photo[..., 3:].copy()) for alpha in (opaque, None)
    )
    used = translator(resnet(bands, bands))
    found, plain = (used.translate(picture, 32) for picture in (with_alpha, without))
    assert found.extra is not None and plain.extra is not None and found.alpha is not None
    assert np.abs(found.pixels.astype(int) - plain.pixels).max() <= 1
    assert np.abs(found.extra.astype(int) - plain.extra).max() <= 1


@pytest.mark.parametrize("count", range(1, 7))
@pytest.mark.parametrize("bands", [1, 3, 4, 5])
@pytest.mark.parametrize("has_alpha", [True, False])
def test_declared_alpha_is_used_as_alpha(count: int, bands: int, has_alpha: bool) -> None:
    planes = np.arange(6, dtype=np.uint8) * np.ones((2, 2, 1), np.uint8)
    alpha = np.full((2, 2), 77, np.uint8) if has_alpha else None
    picture = Picture(planes[..., : min(bands, 3)], alpha, extra=planes[..., 3:bands] if bands > 3 else None)
    try:
        last = int(picture.channels(count)[0, 0, -1])
    except ImageError:
        return
    assert picture.takes_alpha(count) == (last in (77, 255))


def test_the_report_says_how_much_of_labels_is_none(tmp_path: Path) -> None:
    colours = to_colours((np.arange(400).reshape(20, 20) % 4).astype(np.uint8), FOUR)
    source = tmp_path / "in"
    source.mkdir()
    images.write(source / "a.png", Picture(colours.copy()))
    colours[:, :5] = 100, 100, 0
    images.write(source / "b.png", Picture(colours.copy()))
    images.write(source / "c.png", Picture(np.full((20, 20, 1), 255, np.uint8)))  # which says itself that it is none
    report = translate_folder(source, tmp_path / "out", translator(resnet(4, 3), input_palette=FOUR))
    assert not report.failed
    said = "25.0% of its pixels are more than 25 levels from every colour of the classes: they are no label"
    assert [said in record.note for record in report.records] == [False, True, False]
