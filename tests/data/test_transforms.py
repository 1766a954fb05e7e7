"""Resize, crop, flip: sizes, agreement of a pair, no aliasing, every depth and number of channels."""

import itertools

import albumentations as A
import cv2
import numpy as np
import pytest

from i2i.data.transforms import Transform
from i2i.errors import InputError

pytestmark = pytest.mark.arithmetic


def picture(height, width, channels=3, dtype=np.uint8):
    values = np.random.default_rng(height * width).random((height, width, channels))
    return (values * np.iinfo(dtype).max).astype(dtype)


def transformed(transform, seed, a, b=None):
    """Resized, cropped and flipped."""
    if b is not None:
        transform.check_pair(a.shape, b.shape)
    crops = transform.crop(seed, *(transform.resize(one) for one in (a, b) if one is not None))
    return crops[0], crops[1] if b is not None else None


SIZES = {
    "resize_and_crop": (32, 32),
    "crop": (32, 32),
    "scale_width": (28, 40),
    "scale_width_and_crop": (32, 32),
    "scale_shortside": (32, 32),
    "none": (48, 68),
}


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("preprocess", SIZES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_size_depth_and_channels(preprocess, train, dtype, channels):
    transform = Transform(preprocess, load_size=40, crop_size=32, multiple=4, train=train)
    a, b = transformed(transform, 0, picture(49, 67, channels, dtype), picture(49, 67, 1))
    assert a.shape == (*SIZES[preprocess], channels) and a.dtype == dtype
    assert b.shape == (*SIZES[preprocess], 1)


def test_never_smaller_than_one_multiple():
    a, _ = transformed(Transform("none", multiple=16), 0, picture(3, 100))
    assert a.shape[:2] == (16, 96)


@pytest.mark.parametrize("preprocess", SIZES)
def test_crop_and_flip_of_a_pair_agree(preprocess):
    transform = Transform(preprocess, load_size=40, crop_size=32)
    source = picture(64, 64)
    looks = set()
    for seed in range(20):
        a, b = transformed(transform, seed, source, source)
        assert np.array_equal(a, b)
        looks.add(a.tobytes())
    assert len(looks) > (2 if preprocess in ("scale_width", "none") else 10) - 1


def test_the_seed_alone_decides():
    transform = Transform(load_size=40, crop_size=32)
    source = picture(64, 64)
    first = [transformed(transform, seed, source)[0] for seed in range(6)]
    np.random.seed(0)
    for seed in reversed(range(6)):
        assert np.array_equal(transformed(transform, seed, source)[0], first[seed])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(256, 256), (256, 20), (20, 256)])
def test_shrinking_does_not_alias(dtype, size):
    full = np.iinfo(dtype).max
    board = (np.indices(size).sum(0) % 2 * full).astype(dtype)[..., None]
    for side in (32, 48):
        small = transformed(Transform("resize_and_crop", side, side, flip=False), 0, board)[0] / full
        # along an axis that is enlarged the pattern of 20 pixels may stay visible; the shrunk one averages it
        assert abs(small.mean() - 0.5) < 0.01
        assert np.abs(small - 0.5).max() < 0.2


def test_evaluation_is_the_middle_without_flip():
    transform = Transform("crop", crop_size=32, train=False)
    source = picture(64, 64)
    assert np.array_equal(transformed(transform, 5, source)[0], source[16:48, 16:48])


def test_same_size_is_untouched():
    source = picture(64, 64)
    assert np.array_equal(transformed(Transform("none", flip=False, multiple=4), 0, source)[0], source)


def test_flat_picture_is_stretched_until_the_crop_fits():
    a, _ = transformed(Transform("scale_width_and_crop", 40, 32), 0, picture(10, 100))
    assert a.shape == (32, 32, 3)


def test_shapes_that_do_not_fit_are_an_error():
    with pytest.raises(InputError, match="20x40 pixels: too small, a side is below the crop of 32"):
        transformed(Transform("crop", crop_size=32), 0, picture(40, 20))
    with pytest.raises(InputError, match="sizes differ: 20x40 and 40x20"):
        transformed(Transform(), 0, picture(40, 20), picture(20, 40))


def composed(transform, seed, a, b):
    """The same by one call of albumentations, with the crop's place and the flip that belong to the seed."""
    target = transform.target(*a.shape[:2])
    smaller = tuple(map(min, a.shape[:2], target))
    top, left, _, _, flipped = transform._crop_window(seed, *target)
    steps = [A.Resize(*smaller, interpolation=cv2.INTER_AREA), A.Resize(*target, interpolation=cv2.INTER_CUBIC)]
    if transform.preprocess not in ("scale_width", "none"):
        side = transform.crop_size
        steps.append(A.Crop(left, top, left + side, top + side) if transform.train else A.CenterCrop(side, side))
    if flipped:
        steps.append(A.HorizontalFlip(p=1))
    compose = A.Compose(steps, additional_targets={"b": "image"})
    done = compose(image=a, b=b)
    return done["image"], done["b"]


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("preprocess", SIZES)
@pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, 3), (np.uint16, 1), (np.uint8, 5)])
def test_crop_and_flip_are_those_of_albumentations(preprocess, train, dtype, channels):
    for flip in (True, False):
        transform = Transform(preprocess, load_size=41, crop_size=32, flip=flip, train=train)
        a, b = picture(49, 67, channels, dtype), picture(49, 67, 1)
        for seed in (0, 1, 2, 2**32 - 1):
            for ours, theirs in zip(transformed(transform, seed, a, b), composed(transform, seed, a, b), strict=True):
                assert np.array_equal(ours, theirs)


LOOKS = [(27, 25, True), (4, 27, False), (31, 31, True), (7, 17, True), (15, 24, True), (13, 5, False)]


def test_place_and_flip_have_nothing_to_do_with_each_other():
    looks = np.array([Transform(crop_size=32)._crop_window(seed, 64, 64) for seed in range(4000)], float)[:, [0, 1, 4]]
    assert np.abs(np.corrcoef(looks.T) - np.eye(3)).max() < 0.06  # 1 / √4000 is 0.016
    assert np.allclose(looks.mean(axis=0), (16, 16, 0.5), atol=(0.6, 0.6, 0.03))
    assert looks[:, :2].min() == 0 and looks[:, :2].max() == 32


def test_each_seed_has_its_crop_and_flip_for_good():
    """Numbers noted once: a run that goes on after an update sees the pictures that it would have seen."""
    source = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64, 1)
    looks = []
    for seed in (0, 1, 2, 3, 2024, 4_000_000_000):
        crop = transformed(Transform("crop", crop_size=32), seed, source)[0][..., 0]
        looks.append((*divmod(int(crop.min()), 64), bool(crop[0, 0] > crop[0, 1])))
    assert looks == LOOKS


def test_a_picture_is_resized_alike_where_it_is_said_to_be():
    """The name of a resize has all that matters to it, and nothing else, such as the flip."""
    source = picture(40, 140)
    seen: dict[str, bytes] = {}
    for preprocess in SIZES:
        for load, crop, multiple, train in itertools.product((40, 44), (32, 36), (4, 16), (True, False)):
            transform = Transform(preprocess, load, crop, multiple=multiple, train=train)
            resized = transform.resize(source)
            assert seen.setdefault(transform.resizing, resized.tobytes()) == resized.tobytes()
            assert resized.shape[:2] == transform.target(40, 140)


def test_zoomed_crops_are_of_every_scale_and_still_have_their_size() -> None:
    transform = Transform("crop", crop_size=16, zoom=0.25)
    seen = np.array([transform._crop_window(seed, 64, 48)[:4] for seed in range(2000)])
    assert np.array_equal(seen[:, 2], seen[:, 3]) and (seen[:, 2].min(), seen[:, 2].max()) == (16, 48)
    assert (seen[:, 0] + seen[:, 2]).max() == 64 and (seen[:, 1] + seen[:, 3]).max() == 48
    scales = 16 / seen[seen[:, 2] < 48, 2]
    assert abs(scales.mean() - (1 / 3 + 1) / 2) < 0.02, "uniform, as far as the picture goes"
    ramp = np.repeat(np.arange(64, dtype=np.uint8)[:, None], 48, axis=1)[..., None]
    for seed in range(20):
        (crop,) = transform.crop(seed, ramp)
        top, _, height, _, _ = transform._crop_window(seed, 64, 48)
        assert crop.shape == (16, 16, 1)
        assert abs(float(crop.mean()) - (top + (height - 1) / 2)) < 1, "all of what was seen, smaller"


def test_zoomed_pairs_agree_and_labels_stay_labels() -> None:
    transform = Transform("crop", crop_size=16, zoom=0.25)
    labels = np.random.default_rng(0).choice([0, 7, 200], (64, 64, 1)).astype(np.uint8)
    for seed in range(10):
        a, b, c = transform.crop(seed, labels, labels, labels, labels=[True, False])
        assert set(np.unique(a)) <= {0, 7, 200}
        zoomed = transform._crop_window(seed, 64, 64)[2] > 16
        assert np.array_equal(b, c) and np.array_equal(a, b) == (not zoomed)


def test_without_a_zoom_and_for_validation_nothing_is_scaled() -> None:
    source = picture(40, 50)
    for transform in (Transform("crop", crop_size=16), Transform("crop", crop_size=16, zoom=0.25, train=False)):
        for seed in range(5):
            top, left, height, width, _ = transform._crop_window(seed, 40, 50)
            assert (height, width) == (16, 16)
            crop = transform.crop(seed, source)[0]
            assert np.array_equal(np.sort(crop, axis=1), np.sort(source[top : top + 16, left : left + 16], axis=1))
