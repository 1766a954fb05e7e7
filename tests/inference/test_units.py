"""Models that know the range of their values: files and arrays in units go in, and come out in units."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from tiff_files import CIELAB, CMYK, GREY, PALETTE, Kind, written
from torch import nn

from i2i import images
from i2i.errors import ImageError, ModelError, UsageError
from i2i.folders.batch import translate_folder
from i2i.images.picture import GEO, NODATA
from i2i.inference.mix import load_mix
from i2i.inference.translator import Translator, load_translator
from i2i.models import model_file
from i2i.models.info import describe, parse, read_info, to_json
from i2i.networks.resnet import ResnetConfig

DRAW = np.random.default_rng(0)
KELVIN, REFLECTANCE = (200.0, 330.0), (0.0, 10_000.0)
PLACE = [
    (33550, "d", 3, (30.0, 30.0, 0.0), True),
    (33922, "d", 6, (0.0, 0.0, 0.0, 500_000.0, 4_600_000.0, 0.0), True),
    (34735, "H", 8, (1, 1, 0, 1, 3072, 0, 1, 32633), True),
]


class Identity(nn.Module):
    """Gives back what it takes, and repeats the first channel where it has more to give."""

    def __init__(self, config: ResnetConfig) -> None:
        super().__init__()
        self.config = config
        self.register_parameter("unused", nn.Parameter(torch.zeros(1)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.config.in_channels == self.config.out_channels else x[:, :1].repeat(1, 3, 1, 1)


def identity(takes: Any = None, gives: Any = None, inputs: int = 1, outputs: int = 1, **more: Any) -> Translator:
    network = Identity(ResnetConfig(width=2, blocks=1, in_channels=inputs, out_channels=outputs))
    info = describe(network, direction="a2b", input_range=takes, output_range=gives, **more)
    return Translator(network, info, precision="fp32")


def geotiff(path: Path, values: np.ndarray[Any, Any], no_data: str | None, **options: Any) -> None:
    tags = [*PLACE, *([] if no_data is None else [(NODATA, "s", len(no_data) + 1, no_data, True)])]
    tifffile.imwrite(path, values, extratags=tags, metadata=None, **options)


def tags_of(path: Path) -> dict[int, Any]:
    with tifffile.TiffFile(path) as file:
        return {tag: file.pages[0].tags[tag].value for tag in GEO if tag in file.pages[0].tags}


def translated(path: Path, used: Translator, **options: Any) -> tuple[np.ndarray[Any, Any], Any]:
    """The result beside a file, and its record."""
    (record,) = translate_folder(path, path.parent / "out", used, **options).records
    assert record.status == "done", record.reason
    load = np.load if record.target.suffix == ".npy" else tifffile.imread
    return load(record.target), record


@pytest.mark.parametrize("no_data", ["-9999", "nan", "-3.4028234663852886e+38"])
@pytest.mark.parametrize("layout", [{}, {"tile": (16, 16)}, {"byteorder": ">"}, {"compression": "zlib"}])
def test_a_geotiff_in_kelvin_comes_back(tmp_path: Path, no_data: str, layout: dict[str, Any]) -> None:
    kelvin = DRAW.uniform(210, 320, (21, 34)).astype(np.float32)
    kelvin[3:9, 5:20] = kelvin[-1, -1] = np.float32(float(no_data))
    geotiff(tmp_path / "a.tif", kelvin, no_data, **layout)
    result, record = translated(tmp_path / "a.tif", identity(KELVIN, KELVIN))
    assert result.dtype == np.float32
    missing = np.isnan(kelvin) if no_data == "nan" else kelvin == np.float32(float(no_data))
    assert np.array_equal(result[missing].view(np.uint32), kelvin[missing].view(np.uint32))
    assert np.abs(result - kelvin)[~missing].max() <= 130 * 2.0**-23
    assert tags_of(record.target) == tags_of(tmp_path / "a.tif")
    assert record.note == "91 pixels without data stay so"


@pytest.mark.parametrize(("dtype", "no_data"), [("uint16", "65535"), ("uint16", "0"), ("int16", "-32768")])
@pytest.mark.parametrize("bands", [1, 4])
def test_whole_numbers_come_back_to_the_bit(tmp_path: Path, dtype: str, no_data: str, bands: int) -> None:
    reflectance = DRAW.integers(1, 10_001, (21, 34, bands)).astype(dtype)
    reflectance[3:9, 5:20] = int(no_data)
    options: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "contig"} if bands > 1 else {}
    geotiff(tmp_path / "a.tif", reflectance if bands > 1 else reflectance[..., 0], no_data, **options)
    result, record = translated(tmp_path / "a.tif", identity(REFLECTANCE, REFLECTANCE, bands, bands))
    assert result.dtype == dtype and np.array_equal(result.reshape(reflectance.shape), reflectance)
    assert tags_of(record.target) == tags_of(tmp_path / "a.tif")


def test_a_segment_that_is_left_out_has_no_data() -> None:
    values = DRAW.integers(0, 100, (16, 16, 1)).astype(np.int16)
    tags: Any = ((NODATA, "s", b"-9999\0"),)
    with tifffile.TiffFile(io.BytesIO(written(values, Kind(GREY, 16, "i", segment=(8, 0), tags=tags)))) as file:
        (first, _), (count, _) = file.pages[0].dataoffsets, file.pages[0].databytecounts
    tags += (273, "I", [first, 0]), (279, "I", [count, 0])
    found = images.decode(written(values, Kind(GREY, 16, "i", segment=(8, 0), tags=tags)), values=(0, 100))
    assert found.missing is not None and found.missing[8:].all() and not found.missing[:8].any()
    assert np.array_equal(np.rint(found.pixels[:8] * 100), values[:8])


def test_other_units_come_out(tmp_path: Path) -> None:
    reflectance = np.linspace(0, 10_000, 21 * 34).reshape(21, 34).astype(np.uint16)
    geotiff(tmp_path / "a.tif", reflectance, None)
    result, _ = translated(tmp_path / "a.tif", identity(REFLECTANCE, KELVIN))
    assert result.dtype == np.float32  # whole degrees would be too few
    assert np.abs(result - (200 + reflectance / 10_000 * 130)).max() < 1e-4


def test_values_become_a_picture_and_a_picture_values(tmp_path: Path) -> None:
    geotiff(tmp_path / "a.tif", np.full((8, 8), 5000, np.int16), None)
    result, _ = translated(tmp_path / "a.tif", identity(REFLECTANCE, None, 1, 3))
    assert result.dtype == np.float32 and result.shape == (8, 8, 3) and np.allclose(result, 0.5)
    images.write(tmp_path / "b.png", images.Picture(np.full((8, 8, 1), 51, np.uint8)))
    result, _ = translated(tmp_path / "b.png", identity(None, KELVIN), format="tif")
    assert result.dtype == np.float32 and np.allclose(result, 226)


def test_values_outside_of_the_range_are_clipped_and_it_is_told(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[100, 250], [400, np.nan]]))
    result, record = translated(tmp_path / "a.npy", identity(KELVIN, KELVIN))
    assert np.allclose(result, [[200, 250], [330, np.nan]], equal_nan=True)
    assert record.note.startswith("2 values outside of 200 to 330, which the network sees clipped; 1 pixels without")


@pytest.mark.parametrize("dtype", ["uint16", ">i2", "float32", "float64"])
@pytest.mark.parametrize("shape", [(21, 34), (21, 34, 3)])
def test_arrays_in_files(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    values = DRAW.integers(0, 10_001, shape).astype(dtype)
    np.save(tmp_path / "a.npy", np.asfortranarray(values))
    channels = 1 if len(shape) == 2 else 3
    result, record = translated(tmp_path / "a.npy", identity(REFLECTANCE, REFLECTANCE, channels, channels))
    assert record.target.name == "a.npy" and result.shape == shape
    assert result.dtype == (np.float32 if values.dtype.kind == "f" else values.dtype.newbyteorder("="))
    assert np.abs(result - values).max() <= (10_000 * 2.0**-23 if values.dtype.kind == "f" else 0)


def test_png_of_16_bits_holds_whole_numbers_and_jpeg_none(tmp_path: Path) -> None:
    depth = DRAW.integers(0, 5001, (9, 9, 1)).astype(np.uint16)
    images.write(tmp_path / "a.png", images.Picture(depth))
    used = identity((0.0, 5000.0), (0.0, 5000.0))
    (record,) = translate_folder(tmp_path / "a.png", tmp_path / "out", used).records
    assert np.array_equal(images.read(record.target).pixels, depth)
    with pytest.raises(UsageError, match=r"JPEG holds colours, and no values in units.*format='tif'"):
        translate_folder(tmp_path / "a.png", tmp_path / "jpg", used, format="jpg")
    assert not (tmp_path / "jpg").exists()
    (record,) = translate_folder(tmp_path / "a.png", tmp_path / "k", identity((0.0, 5000.0), KELVIN)).records
    assert record.status == "failed" and "no values of float32; use TIFF or NPY" in record.reason


def test_at_another_size_what_is_missing_stays_missing(tmp_path: Path) -> None:
    values = np.full((32, 32), 250, np.float32)
    values[:16] = -1
    geotiff(tmp_path / "a.tif", values, "-1")
    result, record = translated(tmp_path / "a.tif", identity(KELVIN, KELVIN), size=16)
    assert result.shape == (16, 16) and (result[:8] == -1).all() and np.allclose(result[8:], 250, atol=1e-4)
    assert tags_of(record.target) == {NODATA: "-1"}


def test_painted_at_another_size(tmp_path: Path) -> None:
    values = np.full((32, 32), 250, np.float32)
    values[:4] = -1
    geotiff(tmp_path / "a.tif", values, "-1")
    result, _ = translated(tmp_path / "a.tif", identity(KELVIN, KELVIN, paint_size=16))
    assert (result[:4] == -1).all() and np.allclose(result[4:], 250, atol=1e-3)


def test_blends_are_of_numbers(tmp_path: Path) -> None:
    class Cooler(Identity):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(x)

    network = Cooler(ResnetConfig(width=2, blocks=1, in_channels=1, out_channels=1))
    used = Translator(network, describe(network, direction="a2b", input_range=KELVIN, output_range=KELVIN))
    values = np.array([[225.0, 250.0], [300.0, np.nan]], np.float32)
    assert np.allclose(used(values, strength=0.5), [[245, 257.5], [282.5, np.nan]], equal_nan=True)
    mask = np.array([[1, 0], [1, 1]], bool)
    assert np.allclose(used(values, mask=mask), [[265, 250], [265, np.nan]], equal_nan=True)
    assert np.allclose(used(values, strength=0), values, equal_nan=True)
    with pytest.raises(UsageError, match="no colours"):
        used(values, keep="luminance")
    with pytest.raises(UsageError, match="other units"):
        identity(REFLECTANCE, KELVIN)(values, strength=0.5)


def test_calls_give_arrays_of_values(tmp_path: Path) -> None:
    used = identity(KELVIN, KELVIN)
    kelvin = DRAW.uniform(210, 320, (8, 12))
    for given in (kelvin, Image.fromarray(kelvin.astype(np.float32))):
        result = used(given)
        assert result.dtype == np.float32 and np.allclose(result, kelvin, atol=1e-4)
    np.save(tmp_path / "a.npy", kelvin)
    tifffile.imwrite(tmp_path / "a.tif", kelvin)
    for name in ("a.npy", "a.tif"):
        assert np.allclose(used(tmp_path / name), kelvin, atol=1e-4)
        assert np.allclose(used((tmp_path / name).read_bytes()), kelvin, atol=1e-4)
    whole = DRAW.integers(0, 10_001, (8, 12, 1)).astype(np.int16)
    assert np.array_equal(identity(REFLECTANCE, REFLECTANCE)(whole), whole)
    with pytest.raises(UsageError, match="of numbers"):
        used(np.zeros((4, 4), bool))


def test_without_a_range_values_are_refused_with_advice(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.full((8, 8), 280, np.float32))
    with pytest.raises(ImageError, match=r"from 280 to 280; expected 0 to 1; only a model that knows .*range_a"):
        identity()(tmp_path / "a.tif")


@pytest.mark.parametrize(("colours", "bits"), [(CMYK, 8), (PALETTE, 16), (PALETTE, 8), (CIELAB, 8)])
def test_inks_and_palettes_hold_no_values(colours: int, bits: int) -> None:
    with pytest.raises(ImageError, match="no values in units"):
        stored = np.zeros((5, 5, Kind(colours).samples), f"u{bits // 8}")
        images.decode(written(stored, Kind(colours, bits)), values=(0, 1))


def test_the_model_file_says_the_ranges(tmp_path: Path) -> None:
    config = ResnetConfig(width=2, blocks=1, in_channels=1, out_channels=1)
    info = describe(config, direction="a2b", input_range=KELVIN, output_range=(-1.0, 1.0))
    model_file.save(tmp_path / "a.safetensors", config.build(), info)
    assert read_info(tmp_path / "a.safetensors").input_range == KELVIN
    used = load_translator(tmp_path / "a.safetensors")
    assert (used.info.input_range, used.info.output_range) == (KELVIN, (-1.0, 1.0))
    assert "A, 200 to 330 → B, -1 to 1 (a2b)" in repr(used)
    with pytest.raises(UsageError, match="values in units"):
        load_mix({str(tmp_path / "a.safetensors"): 1.0})


def test_a_model_file_without_ranges_is_as_before() -> None:
    config = ResnetConfig(width=2, blocks=1)
    assert "_range" not in to_json(describe(config, direction="a2b"), "").replace("value_range", "")


@pytest.mark.parametrize("wrong", [[1, 0], [0, 0], [0], [0, 1, 2], [float("nan"), 1], ["a", 1], "0:1", 3])
def test_wrong_ranges_in_a_model_file(wrong: Any) -> None:
    import json

    values = json.loads(to_json(describe(ResnetConfig(), direction="a2b"), ""))
    with pytest.raises(ModelError):
        parse(json.dumps(values | {"input_range": wrong}))


def test_labels_have_no_range() -> None:
    from i2i.images.palettes import find

    info = describe(ResnetConfig(out_channels=4), direction="a2b", output_palette=find("4"), output_range=(0.0, 1.0))
    with pytest.raises(ModelError, match="labels"):
        parse(to_json(info, ""))


def test_labels_of_values_have_none_where_data_are_missing(tmp_path: Path) -> None:
    from i2i.images.palettes import find

    config = ResnetConfig(width=2, blocks=1, in_channels=1, out_channels=4)
    info = describe(config, direction="a2b", input_range=KELVIN, output_palette=find("4"))
    values = np.full((16, 16), 280, np.float32)
    values[0, 0] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", values)
    made = Translator(config.build(), info).translate(images.read(tmp_path / "a.tif", values=KELVIN))
    assert made.pixels[0, 0, 0] == 255 and made.pixels[1:].max() < 4


def test_too_large_a_picture_of_values_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from i2i.folders import pipeline

    monkeypatch.setattr(pipeline, "_is_large", lambda job: True)
    monkeypatch.setattr(pipeline, "probe", lambda path: (_ for _ in ()).throw(ImageError("too many pixels")))
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), np.uint16))
    (record,) = translate_folder(tmp_path / "a.tif", tmp_path / "out", identity(KELVIN, KELVIN), large=True).records
    assert record.status == "failed" and "up to the limit only" in record.reason
