"""A path and the PIL image of its file are one picture."""

import io

import numpy as np
import pytest
import torch
from picture_samples import pillow_bytes, png, png_chunk
from PIL import Image, PngImagePlugin, features

from i2i import translate_folder
from i2i.errors import ImageError, InputError, UsageError
from i2i.evaluation.data import Item, PictureFiles
from i2i.evaluation.translators import translate
from i2i.images import Picture, decode, read, write
from i2i.images.decoding import from_pil
from i2i.images.encoding import as_pil
from i2i.images.palettes import indexed, labels_of
from i2i.inference.translator import Translator
from i2i.models.info import describe
from i2i.networks.resnet import ResnetConfig

RNG = np.random.default_rng(5)
L8, RGB8 = RNG.integers(0, 256, (12, 17), np.uint8), RNG.integers(0, 256, (12, 17, 3), np.uint8)
ALPHA8 = RNG.integers(0, 256, (12, 17), np.uint8)
L8[:4], RGB8[:4] = 7, (7, 8, 9)
EXIF = Image.Exif()
EXIF[271], EXIF[33432], EXIF[274] = "a maker", "me", 6
IMAGES = {
    "1": Image.fromarray(L8 > 99),
    "L": Image.fromarray(L8),
    "LA": Image.fromarray(np.dstack([L8, ALPHA8]), "LA"),
    "P": Image.fromarray(RGB8).quantize(7),
    "RGB": Image.fromarray(RGB8),
    "RGBA": Image.fromarray(np.dstack([RGB8, ALPHA8])),
    "I;16": Image.fromarray(L8.astype(np.uint16) * 257),
}


def _grey(depth, transparent):
    """A PNG of 2 or 4 bits with a transparent grey, which Pillow does not write."""
    rows = np.arange(12 * 17).reshape(12, 17) % 2**depth
    bits = ((rows[..., None] >> np.arange(depth)[::-1]) & 1).reshape(12, -1)
    packed = np.packbits(bits.astype(np.uint8), axis=1)
    return png(17, 12, depth, 0, [row.tobytes() for row in packed], png_chunk(b"tRNS", transparent.to_bytes(2, "big")))


def _saved(mode, format, **options):
    return pillow_bytes(IMAGES[mode], format, **options)


def _raw_profile():
    info, block = PngImagePlugin.PngInfo(), EXIF.tobytes()
    info.add_text("Raw profile type exif", f"\nexif\n{len(block):8}\n{block.hex()}\n", zip=True)
    return info


FILES = {
    **{f"png {mode}": _saved(mode, "PNG") for mode in IMAGES},
    **{f"png {mode} turned": _saved(mode, "PNG", exif=EXIF) for mode in IMAGES},
    "png 1 transparent": _saved("1", "PNG", transparency=0),
    "png L transparent": _saved("L", "PNG", transparency=7),
    "png RGB transparent": _saved("RGB", "PNG", transparency=(7, 8, 9)),
    "png P transparent": _saved("P", "PNG", transparency=2),
    "png P of alphas": _saved("P", "PNG", transparency=bytes([0, 90, 180, 255, 255, 255, 255])),
    "png I;16 transparent": _saved("I;16", "PNG", transparency=7 * 257),
    "png of 2 bits": _grey(2, 2),
    "png of 4 bits": _grey(4, 9),
    "png with a raw profile": _saved("RGB", "PNG", pnginfo=_raw_profile()),
    "png with everything": _saved("RGB", "PNG", exif=EXIF, dpi=(300, 300)),
    **{f"jpeg {mode}": _saved(mode, "JPEG", exif=EXIF, dpi=(300, 300)) for mode in ("L", "RGB")},
    **{f"tiff {mode}": _saved(mode, "TIFF", exif=EXIF) for mode in ("L", "RGB", "RGBA", "I;16")},
    **{f"webp {mode}": _saved(mode, "WEBP", exif=EXIF, lossless=True) for mode in ("RGB", "RGBA")},
    **{f"gif {mode}": _saved(mode, "GIF") for mode in ("L", "P")},
    "gif transparent": _saved("P", "GIF", transparency=2),
    **{f"bmp {mode}": _saved(mode, "BMP", dpi=(300, 300)) for mode in ("1", "L", "P", "RGB")},
    **({"avif": _saved("RGBA", "AVIF", exif=EXIF, speed=10)} if features.check("avif") else {}),
}


def _same(one, other):
    assert one.pixels.dtype == other.pixels.dtype and np.array_equal(one.pixels, other.pixels)
    assert (one.alpha is None) == (other.alpha is None)
    assert one.alpha is None or np.array_equal(one.alpha, other.alpha)
    assert (one.numbers is None) == (other.numbers is None)
    assert one.numbers is None or np.array_equal(one.numbers, other.numbers)
    assert one.format == other.format


@pytest.mark.promise("R34")
@pytest.mark.parametrize("name", FILES)
def test_an_opened_image_is_read_as_its_file_is(tmp_path, name):
    path = tmp_path / "a"
    path.write_bytes(FILES[name])
    by_path = read(path)
    with Image.open(path) as image:
        found = from_pil(image)
        _same(found, by_path)
        assert (found.exif, found.icc, found.resolution) == (by_path.exif, by_path.icc, by_path.resolution)
        # the image of the caller is as it was
        assert image.getexif().get(274) == Image.open(path).getexif().get(274)


@pytest.mark.parametrize("name", [n for n in FILES if "bits" not in n])
def test_a_loaded_image_is_the_same_picture(name):
    expected = decode(FILES[name])
    image = Image.open(io.BytesIO(FILES[name]))
    image.getexif()  # of a TIFF it is read from the file
    image.load()
    found = from_pil(image)
    _same(found, expected)
    assert (found.exif is None) == (expected.exif is None)
    assert (found.resolution is None) == (expected.resolution is None)
    assert np.allclose(found.resolution or 0, expected.resolution or 0, atol=0.01)


def test_an_image_with_a_palette_holds_class_indices():
    image = Image.fromarray(L8 % 3).convert("P")
    image.putdata((L8 % 3).reshape(-1).tolist())
    image.putpalette([255, 0, 0, 0, 255, 0, 9, 9, 9])
    assert np.array_equal(labels_of(from_pil(image), indexed(3)), L8 % 3)
    image = Image.open(io.BytesIO(_saved("L", "JPEG")))
    image.load()
    with pytest.raises(InputError, match="JPEG may have changed the indices"):
        labels_of(from_pil(image), indexed(255))


@pytest.mark.parametrize("key", ["exif", "xmp", "transparency", "dpi", "icc_profile", "gamma"])
def test_text_of_a_loaded_image_is_not_taken_for_metadata(key):
    info = PngImagePlugin.PngInfo()
    info.add_text(key, "1")
    image = Image.open(io.BytesIO(_saved("RGB", "PNG", pnginfo=info)))
    image.load()
    assert image.info[key] in ("1", b"1")
    found = from_pil(image)
    assert np.array_equal(found.pixels, RGB8)
    assert (found.alpha, found.exif, found.xmp, found.icc, found.resolution) == (None,) * 5


def test_changes_after_opening_count():
    image = Image.open(io.BytesIO(FILES["png L transparent"]))
    del image.info["transparency"]
    assert from_pil(image).alpha is None
    image = Image.open(io.BytesIO(FILES["png RGB turned"]))
    image.paste((1, 2, 3), (0, 0, 17, 12))
    assert (from_pil(image).pixels == (1, 2, 3)).all()
    frames = io.BytesIO()
    IMAGES["RGB"].save(frames, "GIF", save_all=True, append_images=[Image.new("RGB", (17, 12), (9, 9, 9))])
    image = Image.open(frames)
    image.seek(1)
    assert (from_pil(image).pixels == 9).all()


@pytest.mark.parametrize("mode", ["RGBa", "La", "PA", "CMYK", "YCbCr", "HSV"])
def test_images_of_other_modes_are_taken(mode):
    source = IMAGES["RGBA"] if mode in ("RGBa",) else IMAGES["LA"] if mode in ("La", "PA") else IMAGES["RGB"]
    image = source.convert("RGBA").convert("PA") if mode == "PA" else source.convert(mode)
    picture = from_pil(image)
    assert picture.pixels.shape[:2] == (12, 17) and (picture.alpha is not None) == (mode in ("RGBa", "La", "PA"))


def test_pil_info_holds_resolution_and_exif():
    picture = from_pil(Image.open(io.BytesIO(FILES["png with everything"])))
    image = as_pil(picture)
    assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1) and b"a maker" in image.info["exif"]


@pytest.fixture(scope="module")
def translator():
    config = ResnetConfig(width=2, blocks=1)
    network = config.build()
    return Translator(network, describe(network, direction="a2b"), precision="fp32")


@pytest.mark.parametrize(
    "values", [torch.full((3, 8, 8), torch.nan), torch.rand(3, 8, 8) * 255, torch.full((3, 8, 8), -3.0)]
)
def test_tensors_that_are_no_pictures_are_refused(translator, values):
    with pytest.raises(UsageError, match=r"expected a picture in \[-1, 1\]"):
        translator(values)


def test_a_tensor_of_0_to_1_is_taken_with_one_warning(translator):
    from i2i.inference import call as module

    module._warn_of_range.cache_clear()
    with pytest.warns(UserWarning, match=r"in \[0, 1\].*x \* 2 - 1"):
        translator(torch.rand(3, 8, 8))
    with np.testing.assert_no_warnings():
        translator(torch.rand(3, 8, 8))
        translator(torch.rand(3, 8, 8) * 2 - 1)


def test_bright_pictures_and_plain_ones_are_taken_without_a_warning(tmp_path, translator):
    from i2i.inference import call as module

    module._warn_of_range.cache_clear()
    write(tmp_path / "a.png", Picture(128 + L8[..., None].repeat(3, 2) // 2))
    with np.testing.assert_no_warnings():
        translator(torch.full((3, 8, 8), 0.5))
        made = translate(translator, PictureFiles([Item(tmp_path / "a.png")]))
    assert len(made) == 1


@pytest.mark.promise("R42")
def test_the_output_of_a_broken_model_is_a_failure_and_not_black(tmp_path, translator, monkeypatch):
    monkeypatch.setattr(translator.model.runtime, "run", lambda batch, seed=None: np.full_like(batch, np.nan))
    with pytest.raises(ImageError, match="values that are not finite of it in fp32"):
        translator.translate(Picture(RGB8))
    (tmp_path / "in").mkdir()
    write(tmp_path / "in/a.png", Picture(RGB8))
    report = translate_folder(tmp_path / "in", tmp_path / "out", translator)
    assert [record.status for record in report.records] == ["failed"]
    assert "not finite" in report.records[0].reason and not (tmp_path / "out/a.png").exists()


def test_a_picture_with_alpha_is_scaled_as_seen(translator, monkeypatch):
    monkeypatch.setattr(translator.model.runtime, "run", lambda batch, seed=None: batch)
    pixels, alpha = np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32), np.uint8)
    pixels[:, :16], pixels[:, 16:], alpha[:, :16] = (255, 0, 0), (0, 255, 0), 255
    result = translator.translate(Picture(pixels, alpha), 11)
    seen = result.alpha > 2
    assert result.pixels.shape == (11, 11, 3) and np.abs(result.pixels[seen].astype(int) - (255, 0, 0)).max() <= 2


def test_an_orientation_that_was_removed_does_not_come_back_from_xmp() -> None:
    packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    file = io.BytesIO()
    Image.new("RGB", (24, 16)).save(file, "JPEG", xmp=packet)
    image = Image.open(file)
    image.load()
    turned = image.copy()
    image.getexif().pop(274)
    removed = image.copy()
    removed._exif = image.getexif()  # type: ignore[attr-defined]
    assert from_pil(turned).pixels.shape == (24, 16, 3) and from_pil(removed).pixels.shape == (16, 24, 3)
