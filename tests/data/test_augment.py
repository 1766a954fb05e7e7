"""`--augment`: exact for every worker, alike for a pair, labels as classes, mistakes named, nothing unsafe."""

import contextlib
import dataclasses
import json
import pickle
from collections.abc import Sequence
from pathlib import Path

import albumentations as A
import numpy as np
import pytest
import torch

import i2i
from i2i import images
from i2i.config import from_mapping, read_options, to_yaml
from i2i.data.augment import Augmentation
from i2i.data.datasets import open_datasets
from i2i.data.options import DataOptions
from i2i.data.pair import batches
from i2i.errors import InputError, UsageError
from i2i.images import Picture, Pixels
from i2i.images.palettes import VOID

ROOT = Path(__file__).parents[2]
PHOTOS = str(ROOT / "configs" / "augment" / "photos.yaml")
RGB, GREY, LABELS = (3, False), (1, False), (1, True)
NOISE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)


def pipeline(*steps: object) -> Augmentation:
    return Augmentation(json.dumps(steps))


def file(folder: Path, text: str) -> str:
    (folder / "own.yaml").write_text(text)
    return str(folder / "own.yaml")


def data(folder: Path, count: int = 4, dtype: type[np.uint8] | type[np.uint16] = np.uint8) -> Path:
    for side in "AB":
        (folder / f"train{side}").mkdir(parents=True)
        for i in range(count):
            noise = np.random.default_rng(i).integers(0, np.iinfo(dtype).max, (24, 24, 3))  # type: ignore[type-var]
            images.write(folder / f"train{side}" / f"{i}.png", Picture(noise.astype(dtype)))
    return folder


def options(folder: Path, **given: object) -> DataOptions:
    return from_mapping(DataOptions, {"data": folder, "load_size": 20, "crop_size": 16, "augment": PHOTOS} | given)


def same(one: Sequence[Pixels], other: Sequence[Pixels]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(one, other, strict=True))


def test_the_seed_alone_decides() -> None:
    augmentation = Augmentation(PHOTOS)
    drawn = [augmentation(seed, [NOISE], [False])[0] for seed in range(12)]
    assert len({one.tobytes() for one in drawn}) > 8
    fresh = pickle.loads(pickle.dumps(augmentation))  # noqa: S301 - as a worker that is spawned gets it
    for seed in reversed(range(12)):
        assert np.array_equal(fresh(seed, [NOISE], [False])[0], drawn[seed])


def test_transforms_do_not_draw_the_same_numbers() -> None:
    """With `Compose(seed=)` each would begin with the same one: large shifts would come with large angles."""
    steps = [{"Rotate": {"p": 1}}, {"RandomBrightnessContrast": {"p": 1}}]
    drawn = []
    for seed in range(300):
        augmentation = pipeline(*steps)
        augmentation(seed, [NOISE], [False])
        rotate, light = augmentation._pipeline.transforms
        drawn.append((rotate.params["matrix"][0, 1], light.params["alpha"]))
    assert abs(np.corrcoef(np.array(drawn).T)[0, 1]) < 0.2  # 1 / √300 is 0.06


@pytest.mark.parametrize("paired", [True, False])
def test_samples_do_not_depend_on_workers_start_or_cache(tmp_path: Path, paired: bool) -> None:
    given = options(data(tmp_path / "data"))
    train = open_datasets(given, paired).train
    plain = list(batches(train, 0, 12, 2, 0))
    unchanged = open_datasets(dataclasses.replace(given, augment=""), paired).train
    assert any(not torch.equal(train[t].a, unchanged[t].a) for t in range(12))
    cached = dataclasses.replace(given, cache=tmp_path / "cache")
    for chosen, start, workers in ((given, 0, 2), (given, 4, 1), (cached, 0, 0), (cached, 8, 2)):
        later = list(batches(open_datasets(chosen, paired).train, start, 12, 2, workers))
        for one, other in zip(later, plain[start // 2 :], strict=True):
            assert torch.equal(one.a, other.a) and torch.equal(one.b, other.b)


def test_both_of_a_pair_are_changed_alike_and_domains_apart(tmp_path: Path) -> None:
    noisy = json.dumps([{"GaussNoise": {"p": 1}}, {"Rotate": {"p": 1}}, {"ColorJitter": {"p": 1}}])
    folder = data(tmp_path, count=1)  # A and B show the same picture
    pairs, alone = (open_datasets(options(folder, augment=noisy), paired).train for paired in (True, False))
    assert all(torch.equal(pairs[t].a, pairs[t].b) for t in range(4))
    assert not any(torch.equal(alone[t].a, alone[t].b) for t in range(4))
    assert not torch.equal(pairs[0].a, pairs[1].a)


def test_held_out_pictures_are_left_as_they_are(tmp_path: Path) -> None:
    folder = data(tmp_path)
    for side in "AB":
        (folder / f"test{side}").symlink_to(folder / f"train{side}")
    given = options(folder)
    plain = open_datasets(dataclasses.replace(given, augment=""), False).validation
    held_out = open_datasets(given, False).validation
    assert plain is not None and held_out is not None and torch.equal(held_out[0].a, plain[0].a)


def test_labels_keep_their_classes_and_have_none_outside_the_picture() -> None:
    labels = np.random.default_rng(1).choice([0, 3, 7], (32, 32, 1)).astype(np.uint8)
    edges = np.ones((32, 32, 1), np.uint8)
    steps = {"ColorJitter": {"p": 1}}, {"GaussianBlur": {"p": 1}}, {"Rotate": {"limit": [45, 45], "p": 1}}
    augmentation = pipeline(*steps)
    together, picture = augmentation(0, [np.dstack([labels, edges]), NOISE], [True, False])
    assert set(np.unique(together[..., 0])) == {0, 3, 7, VOID}
    assert np.array_equal(together[..., 1] == 1, together[..., 0] != VOID), "edges end with the picture"
    assert together[0, 0, 0] == VOID and (picture[0, 0] == 0).all(), "the same corner is empty"
    alone, other = augmentation(0, [labels, labels], [True, True])
    assert np.array_equal(alone, other) and set(np.unique(alone)) == {0, 3, 7, VOID}


def test_a_class_outside_the_picture_may_be_given(tmp_path: Path) -> None:
    labels = np.full((32, 32, 1), 7, np.uint8)
    (given,) = pipeline({"Rotate": {"limit": [45, 45], "p": 1, "fill_mask": 0}})(0, [labels], [True])
    assert set(np.unique(given)) == {0, 7}
    A.save(A.Compose([A.Rotate((45, 45), p=1)]), tmp_path / "saved.json")  # it writes `fill_mask` all the same
    (saved,) = Augmentation(str(tmp_path / "saved.json"))(0, [labels], [True])
    assert set(np.unique(saved)) == {VOID, 7}


class Uneven(A.ImageOnlyTransform):
    """Draws for each picture by itself."""

    def apply(self, img: Pixels, **_: object) -> Pixels:
        return img + self.random_generator.integers(0, 9, img.shape, np.uint8)


@pytest.mark.parametrize("sides", [[RGB, RGB], [GREY, RGB], [RGB, (4, False)]])
def test_draws_for_each_picture_of_a_pair_are_found(
    monkeypatch: pytest.MonkeyPatch, sides: list[tuple[int, bool]]
) -> None:
    monkeypatch.setattr(A, "Uneven", Uneven, raising=False)
    with pytest.raises(UsageError, match=r"Uneven: with crops of 48x32, .*draws for each picture of a pair by itself"):
        pipeline("Uneven").check(32, 48, sides)


def test_sixteen_bits_stay() -> None:
    deep = (NOISE.astype(np.uint16) << 8) + 5
    (kept,) = pipeline({"HorizontalFlip": {"p": 1}})(0, [deep], [False])
    assert kept.dtype == np.uint16 and np.array_equal(kept, deep[:, ::-1])
    light, dark = Augmentation(PHOTOS)(3, [deep, NOISE], [False, False])
    assert light.dtype == np.uint16 and dark.dtype == np.uint8
    assert np.abs(light / 257.0 - dark).max() < 2, "as of 8 bits, up to their rounding"


def test_a_crop_of_the_cache_is_not_written_into() -> None:
    fixed = NOISE.copy()
    fixed.flags.writeable = False
    Augmentation(PHOTOS)(3, [fixed], [False])
    pipeline({"Rotate": {"p": 1}})(0, [NOISE, fixed[..., :2]], [False, True])


def test_a_file_of_albumentations_and_a_compose_are_the_same_as_a_list(tmp_path: Path) -> None:
    compose = A.Compose(
        [A.Rotate((-10, 10), p=0.4), A.OneOf([A.Blur(p=1), A.SomeOf([A.ToGray(), A.ToSepia()], n=1)], p=0.7)],
        additional_targets={"image2": "image"},
    )
    short = """
- Rotate: {limit: 10, p: 0.4}
- OneOf:
    p: 0.7
    transforms:
    - Blur: {p: 1}
    - SomeOf: {transforms: [ToGray, ToSepia], n: 1}
"""
    A.save(compose, tmp_path / "saved.yaml", data_format="yaml")
    A.save(compose, tmp_path / "saved.json")
    passed = from_mapping(DataOptions, {"augment": compose})
    inline = from_mapping(DataOptions, {"augment": [{"Rotate": {"limit": 10, "p": 0.4}}]})
    expected = Augmentation(file(tmp_path, short))
    for value in (str(tmp_path / "saved.yaml"), str(tmp_path / "saved.json"), passed.augment):
        other = Augmentation(value)
        assert all(same(other(s, [NOISE], [False]), expected(s, [NOISE], [False])) for s in range(20))
    (tmp_path / "run.yaml").write_text(to_yaml(passed))
    assert from_mapping(DataOptions, read_options(tmp_path / "run.yaml")) == passed
    assert [name for name, _ in Augmentation(inline.augment).steps] == ["Rotate"]


def test_arguments_that_a_class_only_inherits_are_left_out(tmp_path: Path) -> None:
    A.save(A.Compose([A.SafeRotate(limit=(5, 5), p=1)]), tmp_path / "saved.json")  # it writes `shear` and others
    assert Augmentation(str(tmp_path / "saved.json"))(0, [NOISE], [False])[0].shape == NOISE.shape


def test_a_whole_pipeline_may_have_a_probability(tmp_path: Path) -> None:
    A.save(A.Compose([A.InvertImg(p=1)], p=0.5), tmp_path / "saved.json")
    augmentation = Augmentation(str(tmp_path / "saved.json"))
    inverted = [not np.array_equal(augmentation(seed, [NOISE], [False])[0], NOISE) for seed in range(100)]
    assert 30 < sum(inverted) < 70


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- Rotat: {limit: 3}", r"Rotat: no transform of albumentations. Did you mean 'Rotate'\?"),
        ("- BasicTransform", r"BasicTransform: no transform"),
        ("- Rotate: {limits: 3}", r"Rotate: unknown argument 'limits'. Did you mean 'limit'\? Known: border_mode, "),
        ("- OneOf: {transforms: [Blur], n: 1}", r"OneOf: unknown argument 'n'"),
        ("- Rotate: {limit: a}", r"Rotate: limit = 'a': Input should be"),
        ("- ColorJitter: {brightness: [-1, 2]}", r"ColorJitter: brightness = \(?\[?-1, 2.*must be within"),
        ("- Rotate: {border_mode: BORDER_REFLEC}", r"Rotate: border_mode = 'BORDER_REFLEC'"),
        ("- OneOf: [Blur, Rotat]", r"Rotat: no transform"),
        ("- OneOf", r"OneOf: expected a list of transforms in it"),
        ("- OneOf: {transforms: Blur}", r"OneOf: expected a list of transforms in it"),
        ("- 3: {}", r"3: no transform of albumentations"),
        ("- Blur: 3", r"Blur: 3: expected its arguments"),
        ("- {Blur: {}, Rotate: {}}", r".*: expected one transform"),
        ("- 3", r"3: expected one transform"),
        ("", r"expected a list of transforms"),
        ("Rotate: {limit: 10}", r"expected a list of transforms"),
        ("[]", r"expected a list of transforms"),
    ],
)
def test_mistakes_name_the_file_the_transform_and_the_argument(tmp_path: Path, text: str, message: str) -> None:
    path = file(tmp_path, text)
    with pytest.raises(UsageError, match=rf"^augment = {path}: {message}"):
        Augmentation(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- Lambda", "Lambda: reads files or runs code"),
        ("- TextImage: {font_path: /etc/passwd}", "TextImage: reads files or runs code"),
        ("- HistogramMatching: {reference_images: [a.png]}", "HistogramMatching: reads files or runs code"),
        ("- os.system: {command: ls}", "os.system: no transform"),
        ("transform: {__class_fullname__: i2i.Translate, style: monet}", "only transforms of albumentations"),
        ("transform: {__class_fullname__: os.system, command: ls}", "only transforms of albumentations"),
        ("transform: {__class_fullname__: Compose, transforms: [], bbox_params: {format: coco}}", "bbox_params: "),
        ("- !!python/object/apply:os.system [ls]", "not valid YAML"),
        ("- &a Blur\n- *a", "aliases"),
    ],
)
def test_a_file_can_do_nothing_but_augment(tmp_path: Path, text: str, message: str) -> None:
    assert callable(i2i.Translate)  # albumentations knows it now
    with pytest.raises(UsageError, match=message):
        Augmentation(file(tmp_path, text))


@pytest.mark.parametrize(
    ("step", "sides", "message"),
    [
        ({"RandomCrop": {"height": 16, "width": 16}}, [RGB], "changes their size, here to 16x16"),
        ({"OneOf": ["Blur", {"RandomScale": {}}]}, [RGB], "RandomScale: .*changes their size"),
        ("Normalize", [RGB], "Normalize: with crops of 48x32, 3 channels: changes their channels or type"),
        ("ToTensorV2", [RGB], "ToTensorV2: "),
        ({"RandomRotate90": {}}, [RGB], "changes their size, here to 32x48"),
        ("HEStain", [GREY], "HEStain: with crops of 48x32, 1 channel: .*3-channel"),
        ("GaussNoise", [RGB, GREY], "GaussNoise: with crops of 48x32, 3 channels and 1 channel"),
        ("MaskDropout", [RGB, LABELS], "MaskDropout"),
        ({"Rotate": {"limit": [45, 45], "fill_mask": 3}}, [RGB, LABELS], "changes the classes of labels"),
        ({"Pad3D": {"padding": 3}}, [RGB], "volumes"),
        ("ToTensor3D", [RGB], "ToTensor3D: is for volumes"),
    ],
)
def test_transforms_that_do_not_fit_are_refused(step: object, sides: list[tuple[int, bool]], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        pipeline(step).check(32, 48, sides)


@pytest.mark.filterwarnings("ignore")
def test_every_transform_fits_or_is_refused() -> None:
    names = [name for name, kind in vars(A).items() if isinstance(kind, type) and issubclass(kind, A.BasicTransform)]
    fit = set()
    for name in names:
        with contextlib.suppress(UsageError):
            pipeline(name).check(24, 24, [RGB])
            fit.add(name)
    assert {"HorizontalFlip", "GaussNoise", "ElasticTransform"} <= fit < set(names)


@pytest.mark.parametrize("sides", [[RGB], [GREY], [RGB, RGB], [LABELS, RGB], [LABELS], [(2, True), GREY]])
def test_transforms_that_fit(sides: list[tuple[int, bool]]) -> None:
    Augmentation(PHOTOS).check(32, 48, sides)
    steps = {"Affine": {"rotate": 20, "scale": [0.9, 1.1]}}, "ElasticTransform", "CoarseDropout", "RandomGamma"
    pipeline(*steps, {"RandomOrder": ["Blur", "HorizontalFlip", "Perspective"]}).check(32, 32, sides)


def test_a_mistake_is_found_before_any_picture_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = data(tmp_path)
    monkeypatch.setattr(images, "read", lambda path: pytest.fail("read"))
    for steps in ([{"Resize": {"height": 8, "width": 8}}], ["Rotat"]):
        with pytest.raises(UsageError, match=r"augment: (Resize|Rotat)"):
            open_datasets(options(folder, augment=steps), paired=False)


def test_a_failure_in_a_training_names_the_pipeline_and_the_picture(tmp_path: Path) -> None:
    folder = data(tmp_path)
    train = open_datasets(options(folder, augment=["Blur"]), paired=False).train
    train.augmentation = pipeline({"RandomCrop": {"height": 8, "width": 8}})  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="augment: changes their size"):
        train[0]


def test_a_list_of_transforms_is_no_pipeline() -> None:
    with pytest.raises(UsageError, match=r"expected one pipeline, A\.Compose\(\[\.\.\.\]\), in place of a list"):
        from_mapping(DataOptions, {"augment": [A.Blur()]})


def test_a_pipeline_of_python_that_cannot_be_written_down() -> None:
    for transform in (A.Lambda(image=_identity), A.FDA()):
        with pytest.raises(UsageError, match="augment = Compose: this pipeline cannot be written down: "):
            from_mapping(DataOptions, {"augment": A.Compose([transform])})


def test_a_training_in_python_takes_a_compose_and_resumes_with_it(tmp_path: Path) -> None:
    pairs = [(NOISE, NOISE[::-1].copy()), (NOISE[:, ::-1].copy(), NOISE)]
    compose = A.Compose([A.Rotate(limit=20, p=0.5), A.GaussNoise(p=0.5)])
    given = {"generator": "unet_32", "discriminator": "patchgan_16", "ngf": 4, "ndf": 4, "workers": 0, "samples": 1}
    given |= {"load_size": 32, "crop_size": 32}
    whole = i2i.train("pix2pix", pairs, run=tmp_path / "whole", steps=3, augment=compose, **given)
    i2i.train("pix2pix", pairs, run=tmp_path / "parts", steps=1, augment=compose, **given)
    parts = i2i.train("pix2pix", pairs, run=tmp_path / "parts", steps=3)
    assert parts.model_file.read_bytes() == whole.model_file.read_bytes()
    assert [name for name, _ in Augmentation(parts.options.augment).steps] == ["Rotate", "GaussNoise"]
    plain = i2i.train("pix2pix", pairs, run=tmp_path / "plain", steps=3, **given)
    assert plain.model_file.read_bytes() != whole.model_file.read_bytes()
    ready = torch.zeros(3, 32, 32)
    with pytest.raises(UsageError, match="augment: float tensors are taken as they are"):
        i2i.train("pix2pix", [(ready, ready)], run=tmp_path / "no", augment=compose, generator="unet_32")


def _identity(image: Pixels, **_: object) -> Pixels:
    return image


def test_a_text_that_is_no_pipeline() -> None:
    for text in ("[Blur]", "{", "[" * 100_000):
        with pytest.raises(UsageError, match=r"^augment = .*neither the path of a file nor JSON"):
            Augmentation(text)


def test_toys_are_not_augmented() -> None:
    with pytest.raises(UsageError, match=r"augment: .*toy"):
        open_datasets(DataOptions(data=Path("toy"), crop_size=32, augment=PHOTOS), paired=True)
