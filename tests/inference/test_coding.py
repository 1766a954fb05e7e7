"""Models whose inputs or outputs are labels, and models that colour lightness."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from i2i import images
from i2i.errors import ImageError, ModelError, UsageError
from i2i.folders.batch import translate_folder
from i2i.images import Picture
from i2i.images.colours import split_lab
from i2i.images.palettes import FACADES, Palette, find, to_classes, to_colours
from i2i.inference.coding import coloured, lightness
from i2i.inference.translator import Translator
from i2i.models import model_file
from i2i.models.info import describe, parse, to_json
from i2i.networks import GeneratorConfig
from i2i.networks.blocks import init_weights
from i2i.networks.resnet import ResnetConfig

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
    assert np.abs(coloured(lightness(planes), ab.numpy()) - planes).max() < 1e-3


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
        UsageError, match=r"two\.jpg: this model makes labels, whose colours \.jpg would change; .*--format png"
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
