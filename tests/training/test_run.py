"""`i2i.train`: own data and own networks go the way of files and named networks."""

import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

import i2i
from i2i.algorithms.pix2pix import Pix2Pix
from i2i.cli import main
from i2i.config import checked
from i2i.data.own import OwnDatasets, open_own
from i2i.errors import InputError, ModelError, UsageError
from i2i.models import model_file
from i2i.models.info import read_info
from i2i.training.options import options_class

TINY: dict[str, Any] = {"discriminator": "patchgan_16", "ngf": 4, "ndf": 4, "workers": 0, "validate_every": 1}
PAIRED = TINY | {"generator": "unet_32", "load_size": 36, "crop_size": 32}


def array(seed: int, height: int = 40, width: int = 44, channels: int = 3) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def tensors(count: int, side: int = 32, first: int = 0) -> list[Tensor]:
    return [torch.rand(3, side, side, generator=torch.Generator().manual_seed(first + i)) * 2 - 1 for i in range(count)]


PAIRS = [(array(2 * i), array(2 * i + 1)) for i in range(4)]


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """Draws from every generator, as augmentations do."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        a = torch.rand(3, 32, 32) * float(np.random.random()) * random.random()
        return a, torch.full((3, 32, 32), index / 5)


class Net(nn.Module):
    size_multiple = 2

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 4, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(0.5),
            nn.ConvTranspose2d(width, 3, 4, stride=2, padding=1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(x)
        return result


class Nothing(nn.Conv2d):
    """A discriminator whose author forgot to return the logits."""

    def __init__(self) -> None:
        super().__init__(6, 1, 3)

    def forward(self, _: Tensor) -> None:  # type: ignore[override]
        return None


class Scaled(nn.Conv2d):
    """A generator whose code needs torch's usual memory format."""

    def __init__(self) -> None:
        super().__init__(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x.view(len(x), -1)
        y = super().forward(x)
        return y / (1 + y.view(len(y), -1).abs().amax(1)[:, None, None, None])


def weights(run: i2i.Run) -> dict[str, Tensor]:
    network, _ = model_file.load(run.model_file)
    return network.state_dict()


def test_pairs_of_arrays_make_a_run_with_grids_numbers_and_a_translator(tmp_path: Path) -> None:
    run = i2i.train("pix2pix", PAIRS, run=tmp_path / "run", steps=4, validation=PAIRS[:2], **PAIRED)
    assert (run.algorithm, run.status, run.steps, run.folder) == ("pix2pix", "finished", 4, tmp_path / "run")
    assert run.model_file == tmp_path / "run" / "a2b.safetensors" and run.samples
    assert read_info(run.model_file).training.columns == ("real_A", "fake_B", "real_B")
    assert set(run.metrics) == {"fake_B/l1", "fake_B/psnr", "fake_B/ssim"}
    assert list(run.history.losses["G_L1"].steps) == [1, 2, 3, 4]
    assert repr(run).startswith(f"<i2i.Run '{run.folder}': pix2pix, finished at step 4, fake_B/l1 0.")
    assert run.translator()(PAIRS[0][0]).shape == (40, 44, 3)
    assert i2i.Run(run.folder).metrics == run.metrics


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_with_random_data_resumes_exactly(tmp_path: Path, workers: int) -> None:
    given: dict[str, Any] = PAIRED | {"workers": workers}
    del given["load_size"], given["crop_size"]
    whole = i2i.train("pix2pix", Noisy(), run=tmp_path / "whole", steps=7, **given | {"workers": 0})
    i2i.train("pix2pix", Noisy(), run=tmp_path / "parts", steps=3, **given)
    torch.manual_seed(5)
    parts = i2i.train("pix2pix", Noisy(), run=tmp_path / "parts", steps=7)
    one, other = weights(whole), weights(parts)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_an_own_generator_goes_through_states_model_file_and_translator(tmp_path: Path) -> None:
    own, data = Net(), (tensors(4), tensors(3, first=9))
    before = {name: value.clone() for name, value in own.state_dict().items()}
    options: dict[str, Any] = {
        "discriminator": nn.Conv2d(3, 1, 3),
        "validation": data,
        "workers": 0,
        "validate_every": 1,
    }
    i2i.train("cyclegan", data, run=tmp_path / "run", steps=3, generator=own, **options)
    run = i2i.train("cyclegan", data, run=tmp_path / "run", steps=5, generator=own, **options)
    assert all(torch.equal(value, before[name]) for name, value in own.state_dict().items()), "yours stays as it is"
    assert (run.options.crop_size, run.options.flip, run.options.generator) == (32, False, f"{__name__}.Net")
    whole = i2i.train("cyclegan", data, run=tmp_path / "whole", steps=5, generator=own, **options)
    assert (run.folder / "b2a.safetensors").read_bytes() == (whole.folder / "b2a.safetensors").read_bytes()

    translator = run.translator("a2b", precision="fp32")
    trained, _ = model_file.load(run.model_files["a2b"], Net())
    with torch.no_grad():
        expected = trained(data[0][0][None])[0]
    torch.testing.assert_close(translator(data[0][0]), expected)
    assert translator(data[0][0][:, :31]).shape == (3, 31, 32), "its size_multiple is kept"


def test_an_own_generator_may_use_view(tmp_path: Path) -> None:
    run = i2i.train("pix2pix", PAIRS, run=tmp_path / "run", steps=1, **PAIRED | {"generator": Scaled})
    for precision in ("fp32", "bf16"):
        assert run.translator(precision=precision)(PAIRS[0][0]).shape == (40, 44, 3)


def test_a_model_file_of_an_own_generator_takes_the_module_and_nothing_else(tmp_path: Path) -> None:
    run = i2i.train("pix2pix", PAIRS, run=tmp_path / "run", steps=1, **PAIRED | {"generator": Net})
    with pytest.raises(ModelError, match=rf"own network, {__name__}.Net, and no file brings code"):
        i2i.load_translator(run.folder)
    with pytest.raises(ModelError, match="its network has"):
        i2i.load_translator(run.folder, generator=Net(width=8))
    with pytest.raises(UsageError, match="runs with torch"):
        i2i.load_translator(run.folder, generator=Net(), runtime="onnx")
    with pytest.raises(UsageError, match="needs no module"):
        i2i.load_translator("monet", generator=Net())
    with pytest.raises(UsageError, match="An own generator is given again in Python"):
        i2i.train("pix2pix", PAIRS, run=run.folder, steps=2)


def test_a_pipeline_of_albumentations_changes_the_crops_of_training_alike(tmp_path: Path) -> None:
    same = [(array(i), array(i)) for i in range(3)]
    options = options_class(Pix2Pix)(load_size=36, crop_size=32, augment=A.Compose([A.RandomBrightnessContrast(p=1)]))  # type: ignore[arg-type]
    options = checked(options)
    data = open_own(OwnDatasets(same, same), options, paired=True)
    plain = open_own(OwnDatasets(same, same), replace(options, augment=""), paired=True)
    assert torch.equal(data.train[1].a, data.train[1].b) and not torch.equal(data.train[1].a, plain.train[1].a)
    assert torch.equal(data.train[1].a, data.train[1].a), "a function of the sample"
    assert data.validation is not None and plain.validation is not None
    assert torch.equal(data.validation[1].a, plain.validation[1].a), "what is held out stays as it is"


def test_pictures_of_one_domain(tmp_path: Path) -> None:
    pictures = [Image.fromarray(array(i)) for i in range(3)]
    run = i2i.train("colorization", pictures, run=tmp_path / "run", steps=2, **PAIRED)
    assert run.translator()(array(5)).shape == (40, 44, 3)


def test_the_same_run_as_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    here = i2i.train("pix2pix", "toy", run=tmp_path / "here", steps=2, **PAIRED)
    words = [f"--{name.replace('_', '-')}={value}" for name, value in PAIRED.items()]
    line = ["i2i", "train", "pix2pix", "--data=toy", f"--run={tmp_path / 'there'}", "--max-steps=2", *words]
    monkeypatch.setattr("sys.argv", line)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    for name in ("a2b.safetensors", "samples/step-00000002.png"):
        assert (here.folder / name).read_bytes() == (tmp_path / "there" / name).read_bytes()


def test_an_algorithm_is_a_name_a_class_or_a_configuration(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("algorithm: pix2pix\ngenerator: unet_32\n")
    given = {name: value for name, value in PAIRED.items() if name != "generator"}
    chosen: tuple[Any, ...] = (Pix2Pix, file)
    for number, algorithm in enumerate(chosen):
        more = {"generator": "unet_32"} if algorithm is Pix2Pix else {}
        run = i2i.train(algorithm, PAIRS, run=tmp_path / str(number), steps=1, **given, **more)
        assert run.options.generator == "unet_32" and run.algorithm == "pix2pix"


@pytest.mark.parametrize(
    ("algorithm", "data", "options", "message"),
    [
        ("pix2pixx", PAIRS, {}, "Did you mean 'pix2pix'"),
        ("pix2pix", PAIRS, {"lambda_l1": 1}, "Did you mean 'lambda_L1'"),
        ("pix2pix", PAIRS, {"lr": 0}, r"lr = 0: .*> 0"),
        ("pix2pix", PAIRS, {"steps": 1, "max_steps": 2}, "one option"),
        ("pix2pix", iter(PAIRS), {}, "expected a data set or a list"),
        ("pix2pix", [array(0)], {}, r"expected a pair \(input, target\)"),
        ("pix2pix", [(array(0), tensors(1)[0])], {"generator": "unet_32"}, "two of a kind"),
        ("pix2pix", [(t * 100, t) for t in tensors(1)], {}, r"expected a picture in \[-1, 1\]"),
        ("pix2pix", [(t * torch.nan, t) for t in tensors(1)], {}, "values from nan"),
        ("pix2pix", [(t[:1], t) for t in tensors(1)], {}, "give channels_a=1"),
        ("pix2pix", [(t[:, :30], t[:, :30]) for t in tensors(1)], {"generator": "unet_32"}, "takes multiples of 32"),
        ("pix2pix", [(t, t) for t in tensors(1)], {"flip": True}, "float tensors are taken as they are"),
        ("pix2pix", [(t, t) for t in tensors(1)], {"crop_size": 64}, "here 32x32; crop_size = 64 would change them"),
        ("pix2pix", [(t, t) for t in tensors(1)], {"load_size": 36}, "load_size = 36 would change them"),
        ("pix2pix", [(t, t) for t in tensors(1)], {"preprocess": "resize_and_crop"}, "preprocess = resize_and_crop"),
        ("pix2pix", [(t, t) for t in tensors(1)], {"random_zoom": 0.5}, "random_zoom = 0.5 would change them"),
        ("cyclegan", PAIRS, {}, r"data=\(pictures_of_A, pictures_of_B\)"),
        ("pix2pix", PAIRS, {"generator": nn.Conv2d(3, 3, 3)}, r"gives \(1, 3, 30, 30\) for a picture"),
        ("pix2pix", PAIRS, {"generator": lambda: 3}, "expected an nn.Module"),
        ("pix2pix", PAIRS, {"generator": nn.Bilinear(3, 3, 3)}, r"does not take \(1, 3, 32, 32\): TypeError"),
        ("pix2pix", PAIRS, {"discriminator": nn.Bilinear(3, 3, 3)}, r"discriminator .* \(1, 6, 32, 32\): TypeError"),
        ("pix2pix", PAIRS, {"discriminator": nn.Conv2d(3, 1, 3)}, r"does not take \(1, 6, 32, 32\): RuntimeError"),
        ("pix2pix", PAIRS, {"discriminator": Nothing}, "gives a NoneType for an image .*; expected a tensor"),
        ("pix2pix", PAIRS, {"batch_size": "auto"}, "give a number"),
        ("pix2pix", PAIRS, {"cache": "x"}, "is for files"),
        ("gan", tensors(2), {"generator": Net}, "by its own networks"),
    ],
)
def test_mistakes_are_said_before_a_run_folder_exists(
    tmp_path: Path, algorithm: str, data: Any, options: dict[str, Any], message: str
) -> None:
    sizes = {"load_size": 36, "crop_size": 32} if data is PAIRS else {}
    with pytest.raises(UsageError, match=message):
        i2i.train(algorithm, data, run=tmp_path / "run", workers=0, **sizes | options)
    assert not (tmp_path / "run").exists()


def test_options_of_a_file_and_of_a_run_are_not_overwritten_by_tensors(tmp_path: Path) -> None:
    small, large = ([(t, t) for t in tensors(1, side)] for side in (32, 64))
    file = tmp_path / "mine.yaml"
    file.write_text("algorithm: pix2pix\ncrop_size: 64\n")
    with pytest.raises(UsageError, match="here 32x32; crop_size = 64 would change them"):
        i2i.train(file, small, run=tmp_path / "run", workers=0)
    tiny: dict[str, Any] = {"ngf": 4, "ndf": 4, "workers": 0, "discriminator": "patchgan_16"}
    run = i2i.train("pix2pix", small, run=tmp_path / "run", steps=1, crop_size=32, flip=False, **tiny)
    assert (run.options.generator, run.options.load_size, run.options.preprocess) == ("unet_32", 32, "crop")
    with pytest.raises(UsageError, match="here 64x64; load_size = 32 would change them"):
        i2i.train("pix2pix", large, run=tmp_path / "run", steps=2)
    assert i2i.train("pix2pix", small, run=tmp_path / "run", steps=2).options.crop_size == 32


def test_an_empty_data_set_is_an_error_of_the_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="empty"):
        i2i.train("pix2pix", [], run=tmp_path / "run")


def test_a_run_folder_is_needed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run folder"):
        i2i.Run(tmp_path)


def test_the_examples_of_the_guide_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guide = Path(__file__).parents[2] / "docs" / "python.md"
    train = i2i.train

    def shortly(algorithm: str, data: Any, **options: Any) -> i2i.Run:
        tiny: dict[str, Any] = {"steps": 1, "ngf": 4, "ndf": 4, "workers": 0}
        if "generator" not in options:
            tiny |= {"generator": {"pix2pix": "unet_32", "cyclegan": "resnet_1blocks"}[algorithm]}
        return train(algorithm, data, **({"crop_size": 32} if data == "toy" else {}) | options | tiny)

    monkeypatch.setattr(i2i, "train", shortly)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "guide"}
    for code in re.findall(r"```python\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL):
        exec(code, names)
    assert names["painted"].shape == (64, 64, 3) and names["losses"]


def test_own_data_leaves_the_random_numbers_of_the_caller_alone() -> None:
    from i2i.data.own import seeded

    draw: Callable[[], Any] = lambda: (float(torch.rand(())), float(np.random.random()), random.random())  # noqa: E731
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    first = draw()
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    with seeded(4):
        inside = draw()
    assert draw() == first and inside != first
    with seeded(4):
        assert draw() == inside
