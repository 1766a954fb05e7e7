"""`i2i.Translate` among the transforms of albumentations."""

import json
import pickle
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

import i2i
from i2i.errors import ModelError, UsageError
from i2i.images import Picture, with_channels
from i2i.inference import transform
from i2i.inference.transform import A, Translate  # type: ignore[attr-defined]
from i2i.models import model_file
from i2i.models.info import describe
from i2i.networks.blocks import init_weights
from i2i.networks.resnet import ResnetConfig

SIZE = (14, 18)


def model(path: Path, channels: int = 3, seed: int = 0, direction: str = "a2b") -> Path:
    config = ResnetConfig(width=2, blocks=0, in_channels=channels, out_channels=channels)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = init_weights(config.build(), gain=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    model_file.save(path, network, describe(network, direction=direction))
    return path


@pytest.fixture(scope="module")
def style(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model(tmp_path_factory.mktemp("styles") / "first.safetensors")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model(tmp_path_factory.mktemp("styles") / "other.safetensors", seed=1)


def image(channels: int = 3, seed: int = 0, dtype: Any = np.uint8) -> Any:
    source = np.random.default_rng(seed)
    if dtype == np.float32:
        return source.random((*SIZE, channels), np.float32)
    return source.integers(0, np.iinfo(dtype).max, (*SIZE, channels), dtype, endpoint=True)


def quiet(*steps: Any, **options: Any) -> Any:
    """A `Compose` that does not mind that nothing in it moves boxes."""
    return A.Compose([A.HorizontalFlip(p=0), *steps], **options)


def test_it_translates_the_image_and_nothing_else(style: Path) -> None:
    boxes, points = [[1.0, 2.0, 9.0, 11.0], [0.0, 0.0, 18.0, 14.0]], [[3.5, 4.0], [17.0, 13.0]]
    masks = [image(1, seed)[..., 0] for seed in (3, 4)]
    compose = quiet(
        Translate(style, p=1),
        bbox_params=A.BboxParams(format="pascal_voc", label_fields=["classes"]),
        keypoint_params=A.KeypointParams(format="xy"),
    )
    source = image()
    before = source.copy()
    done = compose(image=source, mask=masks[0], masks=masks, bboxes=boxes, classes=[7, 8], keypoints=points)
    assert (source == before).all()
    assert np.array_equal(done["image"], i2i.load_translator(style, device="cpu", runtime="torch")(source))
    assert (done["mask"] == masks[0]).all() and all((a == b).all() for a, b in zip(done["masks"], masks, strict=True))
    assert np.allclose(done["bboxes"], boxes, atol=1e-4) and list(done["classes"]) == [7, 8]
    assert np.array_equal(done["keypoints"], points)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_size_dtype_and_channels_stay(style: Path, channels: int, dtype: Any) -> None:
    source = image(channels, dtype=dtype)
    done = Translate(style, p=1)(image=source)["image"]
    assert done.shape == source.shape and done.dtype == source.dtype
    assert done.flags["C_CONTIGUOUS"] and not np.array_equal(done, source)
    if channels in (2, 4):
        assert np.array_equal(done[..., -1], source[..., -1])
    colours = source[..., : 3 if channels > 2 else 1]
    expected = (
        i2i.load_translator(style, device="cpu", runtime="torch").translate(Picture(with_channels(colours, 3))).pixels
    )
    assert np.array_equal(done[..., : colours.shape[2]], with_channels(expected, colours.shape[2]))


def test_a_grey_image_without_channels_and_a_grey_style(style: Path, tmp_path: Path) -> None:
    grey = image(1)
    flat = Translate(style, p=1)(image=grey[..., 0])["image"]
    assert flat.shape == SIZE and np.array_equal(flat, Translate(style, p=1)(image=grey)["image"][..., 0])
    colours = Translate(model(tmp_path / "grey.safetensors", channels=1), p=1)(image=image())["image"]
    assert colours.shape == (*SIZE, 3) and (colours == colours[..., :1]).all()
    deep = Translate(model(tmp_path / "deep.safetensors", channels=6), p=1)
    assert deep(image=image(6))["image"].shape == (*SIZE, 6)
    with pytest.raises(UsageError, match="has 3 channels where 6 are expected"):
        deep(image=image(3))
    with pytest.raises(UsageError, match="has 6 channels where 3 are expected"):
        Translate(style, p=1)(image=image(6))


@pytest.mark.parametrize("add", [-1.0, 1.0, float("nan")])
def test_an_image_out_of_range_is_refused(style: Path, add: float) -> None:
    with pytest.raises(UsageError, match=r"expected \[0, 1\]: put it before A.Normalize"):
        Translate(style, p=1)(image=image(dtype=np.float32) + np.float32(add))
    slightly = image(dtype=np.float32) * 1.2 - np.float32(0.1)
    inside = Translate(style, p=1)(image=slightly.clip(0, 1))["image"]
    assert np.array_equal(Translate(style, p=1)(image=slightly)["image"], inside)


@pytest.mark.parametrize("dtype", [np.float64, np.int32, bool])
def test_other_dtypes_are_refused(style: Path, dtype: Any) -> None:
    with pytest.raises(UsageError, match=r"expected .* uint8, uint16 or float32"):
        Translate(style, p=1)(image=np.zeros((*SIZE, 3), dtype))


def test_additional_targets_batches_and_volumes(style: Path, other: Path) -> None:
    compose = quiet(Translate([style, other], p=1), additional_targets={"right": "image", "depth": "mask"}, seed=1)
    stack = np.stack([image(seed=seed) for seed in range(3)])
    done = compose(image=image(), right=image(), depth=image(1), images=stack, volume=stack)
    assert np.array_equal(done["image"], done["right"]) and np.array_equal(done["depth"], image(1))
    alone = [Translate(Path(compose[1].params["style"]), p=1)(image=one)["image"] for one in stack]
    assert np.array_equal(done["images"], alone) and np.array_equal(done["volume"], alone)


def test_the_seed_of_the_compose_decides(style: Path, other: Path) -> None:
    def outcomes(seed: int) -> list[bytes]:
        compose = A.Compose([Translate([style, other], blend_ratio=(0.2, 1.0), p=0.7)], seed=seed)
        return [compose(image=image())["image"].tobytes() for _ in range(12)]

    random.seed(1)
    numpy_state, torch_state = np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes()
    python_state = random.getstate()
    first = outcomes(3)
    assert random.getstate() == python_state
    assert np.random.get_state()[1].tobytes() == numpy_state
    assert torch.get_rng_state().numpy().tobytes() == torch_state
    assert outcomes(3) == first != outcomes(4)
    untouched = first.count(image().tobytes())
    assert 0 < untouched < 12 and len(set(first)) > 12 - untouched


def test_each_style_of_a_list_is_drawn(style: Path, other: Path) -> None:
    compose = A.Compose([Translate([style, other], p=1)], seed=0)
    found = {compose(image=image())["image"].tobytes() for _ in range(20)}
    assert found == {Translate(one, p=1)(image=image())["image"].tobytes() for one in (style, other)}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_blending(style: Path, dtype: Any) -> None:
    source, whole = image(dtype=dtype), Translate(style, p=1)(image=image(dtype=dtype))["image"]
    assert np.array_equal(Translate(style, blend_ratio=(0, 0), p=1)(image=source)["image"], source)
    half = Translate(style, blend_ratio=(0.5, 0.5), p=1)(image=source)["image"]
    assert half.dtype == dtype
    distance = np.abs(half.astype(float) - (source.astype(float) + whole) / 2)
    assert distance.max() <= (1e-6 if dtype == np.float32 else 0.51)


def test_dictionaries_and_replay(style: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(style.parent)
    made = A.Compose([Translate([Path("first.safetensors"), other], blend_ratio=(0.5, 1), p=0.9)], seed=5)
    stored = json.loads(json.dumps(A.to_dict(made)))
    assert stored["transform"]["transforms"][0]["__class_fullname__"] == "i2i.Translate"
    assert stored["transform"]["transforms"][0]["style"] == ["./first.safetensors", str(other)]
    again = A.from_dict(stored)
    again.set_random_seed(5)
    for data_format in ("json", "yaml"):
        A.save(made, tmp_path / "made", data_format=data_format)
        assert A.to_dict(A.load(tmp_path / "made", data_format=data_format)) == A.to_dict(again)
    assert all((made(image=image())["image"] == again(image=image())["image"]).all() for _ in range(5))
    replay = A.ReplayCompose([Translate([style, other], blend_ratio=(0.1, 1), p=0.5)])
    replay.set_random_seed(2)
    for _ in range(6):
        done = replay(image=image())
        record = json.loads(json.dumps(done["replay"]))
        assert np.array_equal(A.ReplayCompose.replay(record, image=image())["image"], done["image"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p": 1.5}, "less than or equal to 1"),
        ({"direction": "a2c"}, "direction"),
        ({"precision": "fp8"}, "precision"),
        ({"device": 3}, "device"),
        ({"blend_ratio": (0.5, 0.1)}, "blend_ratio"),
        ({"blend_ratio": 0.5}, "blend_ratio"),
        ({"style": []}, "at least one"),
        ({"style": "no_such_style_here"}, "no such style"),
        ({"style": Path("no/such/run")}, "no such run folder"),
    ],
)
def test_mistakes_are_named_when_it_is_made(style: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Translate(**{"style": style, **options})


def test_a_run_with_two_directions(tmp_path: Path) -> None:
    for seed, direction in enumerate(("a2b", "b2a")):
        model(tmp_path / "run" / f"{direction}.safetensors", seed=seed, direction=direction)
    with pytest.raises(UsageError, match="two directions"):
        Translate(tmp_path / "run")
    done = [Translate(tmp_path / "run", direction=one, p=1)(image=image())["image"] for one in ("a2b", "b2a")]
    assert not np.array_equal(*done)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"damaged")
    with pytest.raises(ModelError, match=r"damaged\.safetensors"):
        Translate(damaged, p=1)(image=image())


def test_transform_loads_its_model_once_at_first_use(style: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Any] = []
    load = transform.load_translator  # type: ignore[attr-defined]
    transform._loaded.cache_clear()
    monkeypatch.setattr(transform, "load_translator", lambda *a, **k: (loaded.append(a), load(*a, **k))[1])
    made = [Translate(style, p=1), pickle.loads(pickle.dumps(Translate(style, p=1)))]  # noqa: S301
    assert loaded == []
    for one in made * 2:
        one(image=image())
    assert len(loaded) == 1


class _Images(Dataset[Any]):
    def __init__(self, compose: Any) -> None:
        self.compose = compose

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        self.compose.set_random_seed(index)
        return self.compose(image=image(seed=index))["image"], torch.get_num_threads()


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_give_the_same(style: Path, other: Path, context: str) -> None:
    compose = A.Compose([Translate([style, other], p=0.8)])
    images = _Images(compose)
    alone = [images[index][0] for index in range(4)]  # which also loads both models here, before any fork
    loader = DataLoader(images, batch_size=2, num_workers=2, multiprocessing_context=context)
    batches: Iterator[Any] = iter(loader)
    found = list(batches)
    assert np.array_equal(torch.cat([batch for batch, _ in found]).numpy(), np.stack(alone))
    assert all((threads == 1).all() for _, threads in found)


def planes(pixels: Any) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)


def sample(pixels: Any) -> dict[str, Any]:
    """A sample of torchvision, with all that a detection or a segmentation has."""
    height, width = SIZE
    boxes = tv_tensors.BoundingBoxes([[1, 2, 9, 11]], format="XYXY", canvas_size=SIZE)  # type: ignore[call-overload]
    mask = tv_tensors.Mask(torch.arange(height * width, dtype=torch.uint8).reshape(SIZE))
    return {
        "image": tv_tensors.Image(planes(pixels)),
        "target": {"boxes": boxes, "mask": mask, "labels": torch.tensor([7])},
    }


def test_in_torchvision_it_translates_the_image_and_nothing_else(style: Path) -> None:
    compose = v2.Compose([Translate(style, p=1), v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, True)])
    given = sample(image())
    done = compose(given)
    expected = Translate(style, p=1)(image=image())["image"]
    assert type(done["image"]) is tv_tensors.Image and done["image"].dtype == torch.float32
    assert torch.equal(done["image"].mul(255).round(), planes(expected).float())
    for name, before in given["target"].items():
        assert type(done["target"][name]) is type(before) and torch.equal(done["target"][name], before)
    picture, target = compose(given["image"], given["target"])
    assert torch.equal(picture, done["image"]) and torch.equal(target["mask"], given["target"]["mask"])


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "I;16"])
def test_a_pil_image_stays_one(style: Path, mode: str) -> None:
    channels = len(mode) if mode != "I;16" else 1
    pixels = image(channels, dtype=np.uint16 if mode == "I;16" else np.uint8)
    pixels = pixels[..., 0] if channels == 1 else pixels
    done = v2.Compose([Translate(style, p=1)])(Image.fromarray(pixels))
    assert isinstance(done, Image.Image) and done.mode == mode
    assert np.array_equal(np.asarray(done), Translate(style, p=1)(image=pixels)["image"])
    with pytest.raises(UsageError, match="PIL image of mode P; expected L, LA, RGB"):
        Translate(style, p=1)(Image.new("P", (8, 8)))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.bfloat16])
def test_a_tensor_keeps_its_shape_and_type(style: Path, dtype: torch.dtype) -> None:
    stack = torch.rand(2, 3, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    given = (stack * 255).to(dtype) if dtype == torch.uint8 else stack.to(dtype)
    done = Translate(style, p=1)(given)
    assert type(done) is torch.Tensor and done.shape == given.shape and done.dtype == dtype
    held = given[1, 2].permute(1, 2, 0)
    alone = Translate(style, p=1)(image=(held if dtype == torch.uint8 else held.float()).numpy())["image"]
    assert torch.equal(done[1, 2], planes(alone).to(dtype))
    with pytest.raises(UsageError, match=r"expected .* uint8, uint16 or float32"):
        Translate(style, p=1)(given.to(torch.int32))
    with pytest.raises(UsageError, match=r"expected \(\.\.\., C, H, W\)"):
        Translate(style, p=1)(torch.zeros(4, 4))


def test_in_torchvision_the_draws_follow_torch(style: Path, other: Path) -> None:
    compose = v2.Compose([Translate([style, other], blend_ratio=(0.2, 1.0), p=0.5)])
    given = planes(image())

    def drawn(seed: int) -> list[bytes]:
        torch.manual_seed(seed)
        return [compose(given).numpy().tobytes() for _ in range(12)]

    with torch.random.fork_rng():
        first = drawn(0)
        assert first == drawn(0) != drawn(1)
    unchanged = first.count(given.numpy().tobytes())
    assert 0 < unchanged < 12 and len(set(first)) == 13 - unchanged
    assert "Translate(p=0.5, blend_ratio=(0.2, 1.0)" in repr(compose)


class _Samples(Dataset[Any]):
    def __init__(self, style: Path) -> None:
        self.compose = v2.Compose([Translate(style, p=1), v2.RandomHorizontalFlip(p=0)])

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        done = self.compose(sample(image(seed=index)))
        return done["image"], done["target"]["mask"]


def test_in_torchvision_workers_give_the_same(style: Path) -> None:
    samples = _Samples(style)
    alone = [samples[index] for index in range(4)]
    found = list(DataLoader(samples, batch_size=2, num_workers=2, multiprocessing_context="fork"))
    for i, kind in enumerate(("image", "mask")):
        assert torch.equal(torch.cat([batch[i] for batch in found]), torch.stack([one[i] for one in alone])), kind


def test_the_import_stays_light() -> None:
    heavy = "{'torch', 'albumentations', 'numpy'}"
    code = f"import i2i, sys; assert not {heavy} & set(sys.modules); assert 'Translate' in dir(i2i)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert i2i.Translate is Translate


def test_the_examples_of_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs" / "augmentation.md").read_text()
    example, of_torchvision = (dedent(one) for one in re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("night", "rain")):
        model(tmp_path / "runs" / name / "a2b.safetensors", seed=seed)
    names = {"image": image(), "mask": image(1)[..., 0], "boxes": [[1, 2, 9, 11]], "classes": [1]}
    exec(example, names)
    done: Any = names["done"]
    assert done["image"].shape == (*SIZE, 3) and done["mask"].shape == SIZE and len(done["bboxes"]) == 1
    names = {"i2i": i2i, **sample(image())}
    exec(of_torchvision, names)
    assert names["image"].shape == (3, *SIZE) and names["target"]["mask"].shape == SIZE


def test_threads_compute_beside_each_other() -> None:
    """Each in one thread of torch."""
    together = Barrier(2, timeout=10)

    def work(_: int) -> int:
        with transform._one_thread():
            together.wait()
            return torch.get_num_threads()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(work, range(2))) == [1, 1]


def test_torch_has_as_many_threads_as_before_whoever_comes_and_goes() -> None:
    before, interval = torch.get_num_threads(), sys.getswitchinterval()
    torch.set_num_threads(2)
    sys.setswitchinterval(1e-6)

    def work() -> None:
        for _ in range(50):
            with transform._one_thread():
                assert torch.get_num_threads() == 1

    try:
        for _ in range(20):
            with ThreadPoolExecutor(3) as pool:
                [done.result() for done in [pool.submit(work) for _ in range(3)]]
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(torch.get_num_threads).result() == 2, "of a thread that is new to torch"
    finally:
        sys.setswitchinterval(interval)
        torch.set_num_threads(before)
