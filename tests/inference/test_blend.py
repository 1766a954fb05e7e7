"""A translation blended with its picture: what must not change, to the bit, and what must."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batch_tools import translator
from PIL import Image

from i2i.errors import ImageError, UsageError
from i2i.images import Picture, Pixels, from_planes, resize_planes, to_planes
from i2i.images.colours import to_linear
from i2i.images.palettes import FACADES
from i2i.inference import scaling
from i2i.inference.blend import Blend
from i2i.inference.translator import Translator
from i2i.networks.resnet import ResnetConfig

DRAW = np.random.default_rng(0)
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
USED = translator(precision="fp32")
HALF = np.zeros((20, 24), bool)
HALF[:, :12] = True


def _network(inputs: int, outputs: int, **described: Any) -> Translator:
    config = ResnetConfig(in_channels=inputs, out_channels=outputs, width=2, blocks=0)
    return translator(config, precision="fp32", **described)


def _pixels(channels: int = 3, dtype: Any = np.uint8) -> Pixels:
    if dtype == np.float32:
        return DRAW.random((20, 24, channels), np.float32)
    return DRAW.integers(0, np.iinfo(dtype).max + 1, (20, 24, channels), dtype)


def _picture(channels: int = 3, dtype: Any = np.uint8, alpha: bool = False, **facts: Any) -> Picture:
    return Picture(_pixels(channels, dtype), _pixels(1, dtype)[..., 0] if alpha else None, **facts)


def _same(one: Picture, two: Picture) -> bool:
    return np.array_equal(one.pixels, two.pixels) and np.array_equal(one.alpha, two.alpha)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_strength_0_is_the_picture_and_1_the_translation(channels: int, alpha: bool, dtype: Any) -> None:
    picture = _picture(channels, dtype, alpha, icc=b"profile", exif=b"Exif", texts={"Author": "me"})
    whole, none = USED.translate(picture), USED.translate(picture, blend=Blend(0))
    assert _same(none, picture) and none == USED.translate(picture, blend=Blend(0, HALF.astype(np.float32)))
    assert (none.icc, none.exif, none.texts) == (b"profile", b"Exif", {"Author": "me"})
    assert _same(USED.translate(picture, blend=Blend(1)), whole)
    assert _same(USED.translate(picture, blend=Blend(1, np.full((20, 24), 255, np.uint8))), whole)


def test_images_of_pillow_come_back_to_the_bit() -> None:
    for mode in ("L", "LA", "RGB", "RGBA", "I;16"):
        shown = _pixels({"LA": 2, "RGB": 3, "RGBA": 4}.get(mode, 1), np.uint16 if mode == "I;16" else np.uint8)
        image = Image.fromarray(shown[..., 0] if shown.shape[2] == 1 else shown)
        assert image.mode == mode
        found = USED(image, strength=0)
        assert found.mode == mode and np.array_equal(np.asarray(found), np.asarray(image)), mode


def test_half_of_black_and_white_is_half_the_light() -> None:
    black, white = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    assert (Blend(0.5).of(Picture(black), Picture(white)).pixels == 188).all()  # sRGB of 0.5
    mask = np.array([[0, 64], [128, 255]], np.uint8)
    found = Blend(1, mask).of(Picture(black), Picture(white)).pixels
    assert found[..., 0].tolist() == [[0, 137], [188, 255]]  # sRGB of 64/255 and 128/255
    assert (Blend(0.5, mask).of(Picture(white), Picture(white)).pixels == 255).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("keep", [None, "luminance", "colour"])
def test_outside_of_a_mask_nothing_changes(keep: Any, dtype: Any) -> None:
    picture = _picture(3, dtype, alpha=True)
    whole = USED.translate(picture, blend=Blend(keep=keep))
    found = USED.translate(picture, blend=Blend(1, HALF.astype(np.float32), keep))
    assert np.array_equal(found.pixels[:, 12:], picture.pixels[:, 12:])
    assert np.array_equal(found.pixels[:, :12], whole.pixels[:, :12])
    assert not np.array_equal(whole.pixels[:, 12:], picture.pixels[:, 12:])
    assert np.array_equal(found.alpha, picture.alpha)


def test_every_kind_of_mask_says_the_same(tmp_path: Path) -> None:
    array, image = _pixels(), Image.fromarray(HALF.astype(np.uint8) * 255)
    image.save(tmp_path / "mask.png")
    file = io.BytesIO((tmp_path / "mask.png").read_bytes())
    transparent = np.dstack([np.full_like(array, 255), HALF.astype(np.uint8) * 255])
    masks = [
        HALF, HALF.astype(np.float16), HALF.astype(np.float64), HALF.astype(np.uint16) * 65_535,
        HALF.astype(np.uint8) * 255, torch.from_numpy(HALF), tmp_path / "mask.png", str(tmp_path / "mask.png"), file,
        file.getvalue(), image, image.convert("1"), image.convert("RGB"), Image.fromarray(transparent),
    ]  # fmt: skip
    expected = np.where(HALF[..., None], USED(array), array)
    for mask in masks:
        assert np.array_equal(USED(array, mask=mask), expected), type(mask)
    assert np.array_equal(USED([array, array], mask=HALF)[1], expected)
    one, two = USED([array, array], mask=[HALF, ~HALF])
    assert np.array_equal(one, expected) and np.array_equal(two, np.where(HALF[..., None], array, USED(array)))


def test_the_alpha_of_a_picture_may_be_its_mask() -> None:
    array = np.dstack([_pixels(), HALF.astype(np.uint8) * 255])
    found = USED(array, mask="alpha")
    assert np.array_equal(found, np.where(HALF[..., None], USED(array), array))
    with pytest.raises(UsageError, match="the picture has no alpha that could be the mask"):
        USED(array[..., :3], mask="alpha")


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (np.full((20, 24), np.nan), r"expected \(H, W\) in \[0, 1\]"),
        (np.full((20, 24), 1.5), "from 1.5 to 1.5; expected"),
        (np.zeros((20, 24, 3), np.float32), r"a mask \(20, 24, 3\)"),
        (np.zeros((20, 24, 3), np.uint8), r"a mask \(20, 24, 3\)"),
        (np.zeros((0, 24)), "empty"),
        (HALF.astype(np.uint8), "the mask holds only the values 0 and 1; expected 0 to 255"),
        (HALF.astype(np.int64), "expected"),
        (np.ones((10, 24)), "is 24x20 pixels, but its mask 24x10; expected a mask of the same size"),
        (7, "int: no picture"),
        ([HALF], "mask: several for one picture or tensor"),
    ],
)
def test_invalid_masks_are_refused_before_any_work(mask: Any, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(USED.model), "unchecked", None)  # the network must not run
    for value in (_pixels(), torch.zeros(3, 20, 24)):
        with pytest.raises(UsageError, match=reason):
            USED(value, mask=mask)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_list_of_masks_has_one_for_each_picture(count: int) -> None:
    with pytest.raises(UsageError, match="mask: a list of another length"):
        USED([_pixels(), _pixels()], mask=[HALF] * count)


def test_a_file_with_a_mask_of_another_size_is_named(tmp_path: Path) -> None:
    Image.fromarray(_pixels()).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"a\.png: is 24x20 pixels, but its mask 10x20"):
        USED(tmp_path / "a.png", mask=np.ones((20, 10)))
    with pytest.raises(ImageError, match=r"no\.png: "):
        USED(tmp_path / "a.png", mask=tmp_path / "no.png")


@pytest.mark.parametrize("values", [{"strength": 1.5}, {"strength": -0.1}, {"strength": np.nan}, {"keep": "hue"}])
def test_options_out_of_their_range_are_refused(values: Any) -> None:
    with pytest.raises(UsageError, match=next(iter(values))):
        USED(_pixels(), **values)


def test_a_size_scales_picture_and_mask_alike() -> None:
    array = _pixels()
    small = from_planes(resize_planes(to_planes(array), 10, 12))
    assert np.array_equal(USED(array, size=(10, 12), strength=0), small)
    found = USED(array, size=(10, 12), mask=HALF)
    assert np.array_equal(found[:, 8:], small[:, 8:]) and np.array_equal(
        found[:, :4], USED(array, size=(10, 12))[:, :4]
    )


def test_luminance_is_kept_to_rounding() -> None:
    picture = _picture(3, np.uint16)
    whole = USED.translate(picture)

    def luminance(made: Picture) -> Pixels:
        return to_linear((made.pixels / 65_535).astype(np.float32)) @ LUMINANCE

    kept = USED.translate(picture, blend=Blend(keep="luminance"))
    np.testing.assert_allclose(luminance(kept), luminance(picture), atol=1e-4)
    recoloured = USED.translate(picture, blend=Blend(keep="colour"))
    np.testing.assert_allclose(luminance(recoloured), luminance(whole), atol=1e-4)
    assert not np.array_equal(kept.pixels, picture.pixels) and not np.array_equal(recoloured.pixels, whole.pixels)


def test_a_grey_picture_lends_its_luminance_and_has_no_colours() -> None:
    picture = _picture(1)
    grey = np.repeat(picture.pixels, 3, axis=2)
    recoloured = USED.translate(picture, blend=Blend(keep="colour")).pixels
    assert np.ptp(recoloured.astype(int), axis=2).max() <= 1
    found = USED.translate(picture, blend=Blend(1, HALF.astype(np.float32), "luminance")).pixels
    assert np.array_equal(found[:, 12:], grey[:, 12:])


def test_colour_survives_a_model_that_gives_grey() -> None:
    picture, drawing = _picture(), _network(3, 1)
    found = drawing.translate(picture, blend=Blend(1, HALF.astype(np.float32)))
    assert np.array_equal(found.pixels[:, 12:], picture.pixels[:, 12:])
    assert np.array_equal(found.pixels[:, :12], np.repeat(drawing.translate(picture).pixels, 3, axis=2)[:, :12])
    grey, both = _picture(1), _network(1, 1)
    assert np.array_equal(both.translate(grey, blend=Blend(keep="luminance")).pixels, grey.pixels)
    assert np.array_equal(both.translate(grey, blend=Blend(keep="colour")).pixels, both.translate(grey).pixels)


def test_alpha_that_the_network_makes_is_blended_too() -> None:
    picture, used = _picture(alpha=True), _network(4, 4)
    assert _same(used.translate(picture, blend=Blend(0)), picture)
    found = used.translate(picture, blend=Blend(1, HALF.astype(np.float32)))
    whole = used.translate(picture)
    assert found.alpha is not None and whole.alpha is not None and picture.alpha is not None
    assert np.array_equal(found.alpha, np.where(HALF, whole.alpha, picture.alpha))


def test_data_are_blended_as_numbers() -> None:
    picture, used = _picture(5, np.float32), _network(5, 5)
    whole = used.translate(picture).pixels
    found = used.translate(picture, blend=Blend(0.25)).pixels
    np.testing.assert_allclose(found, 0.75 * picture.pixels + 0.25 * whole, atol=1e-6)
    with pytest.raises(ImageError, match="5 channels of data, not colours"):
        used.translate(picture, blend=Blend(keep="colour"))
    with pytest.raises(ImageError, match="has 5 channels"):
        _network(5, 4).translate(picture, blend=Blend(0.25))


def test_tensors_are_blended_as_pictures_are() -> None:
    array = _pixels()
    tensor = torch.from_numpy(to_planes(array))
    whole = USED(tensor)
    assert torch.equal(USED(tensor, strength=0), tensor) and torch.equal(USED(tensor, mask=np.ones((20, 24))), whole)
    assert torch.equal(USED(tensor, mask=HALF), torch.where(torch.from_numpy(HALF), whole, tensor))
    # pictures were rounded to 8 bits before; another luminance may enlarge that
    for values, levels in (
        ({"strength": 0.5}, 1),
        ({"keep": "luminance"}, 4),
        ({"keep": "colour", "strength": 0.3}, 4),
    ):
        by_array = USED(array, **values)
        assert np.abs(from_planes(USED(tensor[None], **values)[0].numpy()).astype(int) - by_array).max() <= levels
    half = tensor.half()
    assert torch.equal(USED(half, mask=HALF)[:, :, 12:], half[:, :, 12:])
    wide = tensor * 1.2  # beyond [-1, 1], as resampling leaves it
    assert torch.equal(USED(wide, mask=HALF)[:, :, 12:], wide[:, :, 12:])


def test_rows_are_blended_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    picture, mask = _picture(3, np.uint16), _pixels(1)[..., 0]
    blend = Blend(0.6, mask, "luminance")
    whole = USED.translate(picture, blend=blend)
    monkeypatch.setattr(scaling, "_BAND_PIXELS", 50)
    assert _same(USED.translate(picture, blend=blend), whole)


def test_models_of_labels_say_why_not() -> None:
    for described, kind in (
        ({"output_palette": FACADES}, "makes labels"),
        ({"input_palette": FACADES}, "takes labels"),
    ):
        channels = len(FACADES)
        used = _network(*((3, channels) if "output_palette" in described else (channels, 3)), **described)
        for values in ({"strength": 0.5}, {"mask": HALF}, {"keep": "colour"}):
            with pytest.raises(UsageError, match=f"{next(iter(values))}: this model {kind}"):
                used(_pixels(), **values)


def test_a_model_that_colours_takes_strength_and_mask_alone() -> None:
    used, picture = _network(1, 2, encoding="lab"), _picture()
    found = used.translate(picture, blend=Blend(1, HALF.astype(np.float32)))
    assert np.array_equal(found.pixels[:, 12:], picture.pixels[:, 12:])
    for keep in ("luminance", "colour"):
        with pytest.raises(UsageError, match=f"keep = '{keep}': this model only colours a picture"):
            used(_pixels(), keep=keep)
