"""The GAN: its networks, its two games, what its training measures and stops at, and that it learns."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_options import CycleGANRun, GANRun, Pix2PixRun
from torch import Tensor
from toy_folders import write_folder

from i2i.algorithms import GAN, CycleGAN, Pix2Pix
from i2i.algorithms.algorithm import Algorithm
from i2i.algorithms.gan import GANOptions
from i2i.config import checked
from i2i.data.datasets import open_datasets
from i2i.data.pair import Datasets, ImagePair
from i2i.errors import InputError, UsageError
from i2i.evaluation.evaluate import evaluate
from i2i.evaluation.metrics import luminance_ssim
from i2i.evaluation.options import EvaluationOptions
from i2i.evaluation.sliced_wasserstein import PATCH, swd
from i2i.images import read, to_pixels, to_tensor
from i2i.inference.sample import load_sampler
from i2i.models.info import read_info
from i2i.networks import create_discriminator, create_generator
from i2i.networks.dcgan import DCGANConfig, noise
from i2i.training import health
from i2i.training.launch import train
from i2i.training.monitor import CAPTION, for_testing, grid
from i2i.training.step import ProcessGroup
from i2i.training.validation import HeldOut, set_distances, set_members

SMALL: dict[str, Any] = {
    "data": Path("toy"), "generator": "dcgan_16", "discriminator": "dcgan_16", "crop_size": 16, "load_size": 16,
    "ngf": 16, "ndf": 16, "latent_size": 16, "batch_size": 16, "lr": 1e-3, "workers": 0, "device": "cpu",
}  # fmt: skip


def lines(run: Path, kind: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in found if line["kind"] == kind]


def measured(run: Path) -> dict[int, float]:
    """Step → the sliced Wasserstein distance of its validation."""
    return {line["step"]: line["metrics"]["fake_B/swd"] for line in lines(run, "validation")}


def made(run: Path, count: int) -> Tensor:
    sampler = load_sampler(run, device="cpu")
    return torch.stack([sampler(sampler.noise(seed)) for seed in range(count)])


def small_gan(**options: Any) -> GAN:
    torch.manual_seed(0)
    given = GANOptions(**{"generator": "dcgan_16", "discriminator": "dcgan_16", "ngf": 4, "ndf": 4, **options})
    return GAN(given, 100, 3)


def batch(count: int = 4) -> ImagePair:
    pictures = torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return ImagePair(torch.stack([noise(100, seed) for seed in range(count)]), pictures)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, and its data beside it."""
    folder = tmp_path_factory.mktemp("evaluated")
    write_folder(folder / "unpaired", "unpaired", count=8, size=16)
    (folder / "data").mkdir()
    for split, side in (("train", "trainA"), ("test", "testA")):
        (folder / "data" / split).symlink_to(folder / "unpaired" / side)
    given = {**SMALL, "data": folder / "data", "batch_size": 4, "ngf": 4, "ndf": 4}
    train(GAN, GANRun(run=folder / "run", max_steps=2, validate_every=1, **given))
    return folder


# Networks.


@pytest.mark.parametrize("size", [16, 32, 64, 128, 256])
def test_any_power_of_two(size: int) -> None:
    generator = create_generator(f"dcgan_{size}", in_channels=5, out_channels=2, width=2)
    discriminator = create_discriminator(f"dcgan_{size}", in_channels=2, width=2)
    picture = generator(torch.randn(2, 5, 1, 1)).detach()
    assert picture.shape == (2, 2, size, size) and float(picture.abs().max()) <= 1
    assert discriminator(picture).shape == (2, 1, 1, 1)
    assert not any(isinstance(m, torch.nn.Linear | torch.nn.MaxPool2d) for m in generator.modules())


def test_the_paper_s_widths() -> None:
    """Fig. 1: 1024, 512, 256, 128, 3 at 4 to 64 pixels; batch norm but at either end (Sec. 3)."""
    layers = DCGANConfig(width=128, size=64).build().layers
    widths = [m.out_channels for m in layers if isinstance(m, torch.nn.ConvTranspose2d)]
    assert widths == [1024, 512, 256, 128, 3]
    assert sum(isinstance(m, torch.nn.BatchNorm2d) for m in layers) == 4


@pytest.mark.parametrize("name", ["dcgan_48", "dcgan_8", "dcgan_512"])
def test_other_sizes_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="16, 32, 64, 128, 256"):
        create_generator(name)
    with pytest.raises(UsageError, match="16, 32, 64, 128, 256"):
        create_discriminator(name)


# The game.


def played(mode: Any) -> tuple[dict[str, float], Tensor, Tensor]:
    """The losses of one step in which nobody learns, and D's logits of real and made pictures."""
    algorithm, pair = small_gan(gan_mode=mode, norm="instance"), batch()
    losses = {name: float(loss.detach()) for _, part in algorithm.losses(pair, 0) for name, loss in part.items()}
    with torch.no_grad():
        return losses, algorithm.D(pair.b), algorithm.D(algorithm.G(pair.a))


@pytest.mark.arithmetic
def test_both_play_for_one_value_or_the_generator_for_its_own() -> None:
    """Goodfellow et al. 2014, Eq. 1 and Sec. 3, written out with D = sigmoid(logits)."""
    losses, real, fake = played("minimax")
    value = torch.log(torch.sigmoid(real)).mean() + torch.log(1 - torch.sigmoid(fake)).mean()
    assert -2 * (losses["D_real"] + losses["D_fake"]) == pytest.approx(float(value), rel=1e-4)
    assert losses["G_gan"] == pytest.approx(float(torch.log(1 - torch.sigmoid(fake)).mean()), rel=1e-4)
    losses, _, fake = played("vanilla")
    assert losses["G_gan"] == pytest.approx(-float(torch.log(torch.sigmoid(fake)).mean()), rel=1e-4)


def test_noise_is_a_function_of_the_seed() -> None:
    sample = GAN.make_pair(GANOptions(latent_size=7), torch.zeros(3, 16, 16), 5)
    assert sample.a.shape == (7, 1, 1) and torch.equal(sample.a, noise(7, 5))
    assert not torch.equal(noise(7, 5), noise(7, 6))


# Options.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_size": 32, "load_size": 32}, "crop_size = 32: dcgan_16 makes pictures of 16; give crop_size=16"),
        ({"direction": "b2a"}, "direction = 'b2a': a GAN goes from noise to pictures"),
        ({"preprocess": "none", "batch_size": 1}, "preprocess = none: the generator makes pictures of one size"),
        ({"generator": "resnet_9blocks"}, "generator = 'resnet_9blocks': translates pictures; .* dcgan_64"),
        ({"dropout": True}, "dropout = True: the generator of a GAN has no dropout"),
        ({"low_memory": True}, "low_memory = True: dcgan_16 has no residual blocks"),
        ({"best_metric": "l1"}, "best_metric = 'l1': .*'swd'"),
        (
            {"best_floor": "luminance_ssim=0.5"},
            "best_floor = 'luminance_ssim=0.5': luminance_ssim compares .*; use swd",
        ),
        ({"stop_when": "l1<=0.1", "validate_every": 1}, "stop_when = 'l1<=0.1': l1 compares .*; use swd"),
        ({"latent_size": 0}, "latent_size = 0"),
    ],
)
def test_impossible_options_are_refused_before_anything_starts(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        train(GAN, checked(GANRun(run=tmp_path / "run", max_steps=40, **{**SMALL, **options})))
    assert not (tmp_path / "run").exists()


def test_two_domains_are_one_too_many(tmp_path: Path) -> None:
    write_folder(tmp_path / "data", "unpaired", count=2, size=16)
    with pytest.raises(InputError, match=r"two domains; give one of them, such as data=.*trainB"):
        train(GAN, GANRun(run=tmp_path / "run", **{**SMALL, "data": tmp_path / "data"}))


# Training.


def test_it_learns_the_toy_scenes_and_stops_there(tmp_path: Path) -> None:
    """Within 200 steps a sliced Wasserstein distance of 80 to held-out scenes, where an untrained generator has 250 and
    other scenes have 36; then it stops by itself. The mean colour is right to 0.08 of [-1, 1], and it makes many."""
    options = GANRun(run=tmp_path, stop_when="swd<=80", validate_every=4, max_steps=400, n_epochs=16, **SMALL)
    train(GAN, replace(options, n_epochs_decay=0))
    found, status = measured(tmp_path), json.loads((tmp_path / "status.json").read_text())
    assert status["status"] == "stopped" and status["step"] <= 200
    assert "swd<=80 is reached" in status["reason"] and "held-out pictures, as sets" in status["reason"]
    assert list(found)[-1] == status["step"] and found[status["step"]] <= 80
    info = read_info(tmp_path / "a2b.safetensors")
    assert info.training.metrics == {"swd_to_held_out": found[status["step"]]}
    assert (info.input_domain, info.statistics) == ("noise", "running")
    assert (tmp_path / "a2b-best.safetensors").read_bytes() == (tmp_path / "a2b.safetensors").read_bytes()

    pictures = made(tmp_path, 32)
    held_out = open_datasets(options, False, make_pair=lambda picture, _: ImagePair(picture, picture)).validation
    assert held_out is not None
    scenes = torch.stack([held_out[t].b for t in range(32)])
    assert float((pictures.mean((0, 2, 3)) - scenes.mean((0, 2, 3))).abs().max()) < 0.08
    spread, wanted = ((x - x.mean(0)).abs().mean() for x in (pictures, scenes))
    assert float(spread) > 0.7 * float(wanted)
    assert not lines(tmp_path, "health")


@pytest.mark.promise("R1")
def test_resume_is_exact_with_any_number_of_workers(tmp_path: Path) -> None:
    write_folder(tmp_path / "data", "unpaired", count=6, size=20)
    given = {**SMALL, "data": tmp_path / "data/trainA", "load_size": 20, "batch_size": 4, "ngf": 4, "ndf": 4}
    for run, steps, workers in (("straight", 6, 0), ("run", 3, 0), ("run", 6, 1)):
        train(GAN, GANRun(run=tmp_path / run, max_steps=steps, ema=0.9, **{**given, "workers": workers}))
    one, other = (tmp_path / run / "a2b.safetensors" for run in ("straight", "run"))
    assert one.read_bytes() == other.read_bytes()
    assert (tmp_path / "straight/samples/step-00000001.png").exists()


def test_one_picture_for_all_noise_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = torch.nn.Module.__call__

    def deaf(self: Any, z: Tensor) -> Any:
        return forward(self, 0 * z if z.shape[-1] == 1 and hasattr(self, "config") else z)

    monkeypatch.setattr(torch.nn.Module, "__call__", deaf)
    train(GAN, GANRun(run=tmp_path, max_steps=50, sample_every=50, validate_every=0, **SMALL))
    found = lines(tmp_path, "health")
    assert health.COLLAPSED in [line["name"] for line in found]
    text = next(line["text"] for line in found if line["name"] == health.COLLAPSED)
    assert "fake_B shows the same for 16 different noises" in text


# Sets, measured while training: of any algorithm.


class Share(ProcessGroup):
    """One process of two; the others' values are `others`."""

    def __init__(self, rank: int, others: list[Any]) -> None:
        super().__init__("cpu")
        self.rank, self.world_size, self.others, self.own = rank, 2, others, None

    def gather_everywhere(self, value: Any) -> list[Any]:
        self.own = value
        return [*self.others, value]


def test_two_processes_measure_what_one_does() -> None:
    algorithm, options = small_gan(), GANRun(**{**SMALL, "latent_size": 100})
    data = open_datasets(options, False, make_pair=lambda picture, seed: GAN.make_pair(options, picture, seed))
    alone = held_out(algorithm, data).measure(algorithm.translators(), 7, lambda: False)
    assert alone == {}, "nothing is asked for"
    found = []
    others: list[Any] = []
    for processes in (ProcessGroup("cpu"), Share(1, []), Share(0, others)):
        found.append(held_out(algorithm, data, processes).measure(algorithm.translators(), 7, lambda: False, True))
        if isinstance(processes, Share):
            others.append(processes.own)
    assert found[0] == found[2] != found[1] and set(found[0] or {}) == {"fake_B/swd"}


def held_out(algorithm: Algorithm, data: Datasets, group: ProcessGroup | None = None) -> HeldOut:
    return HeldOut(algorithm, data, group or ProcessGroup("cpu"), {}, lambda names: None)


def untrained(name: str) -> tuple[Algorithm, Any]:
    torch.manual_seed(0)
    small: dict[str, Any] = {"data": Path("toy"), "crop_size": 32, "ngf": 4, "ndf": 4, "discriminator": "patchgan_16"}
    if name == "pix2pix":
        paired = Pix2PixRun(generator="unet_64", dropout=True, norm="instance", **{**small, "crop_size": 64})
        return Pix2Pix(paired), paired
    unpaired = CycleGANRun(generator="resnet_1blocks", **small)
    return CycleGAN(unpaired), unpaired


@pytest.mark.parametrize(("policy", "falls"), [("plateau", True), ("linear", False), ("constant", False)])
def test_the_plateau_alone_follows_what_is_measured(
    policy: Any, falls: bool, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the distance stays as it is for three validations, with patience for none."""
    monkeypatch.setattr(HeldOut, "measure", lambda *_: {"fake_B/swd": 50.0})
    given = {**SMALL, "data": trained / "data", "batch_size": 8, "ngf": 2, "ndf": 2}
    train(GAN, GANRun(run=tmp_path, lr_policy=policy, patience=0, validate_every=1, max_steps=5, **given))
    rates = [line["lr"] for line in lines(tmp_path, "step")]
    assert rates == pytest.approx([1e-3, 1e-3, 2e-4, 4e-5, 8e-6] if falls else [1e-3] * 5)


@pytest.mark.parametrize("name", ["pix2pix", "cyclegan"])
def test_translations_are_measured_as_sets_and_against_their_inputs(name: str) -> None:
    """Each output against its input, the mean over all; the other metrics stay as they are, dropout or not."""
    algorithm, options = untrained(name)
    observer = held_out(algorithm, open_datasets(options, algorithm.paired))
    without, beside = (
        observer.measure(algorithm.translators(), 3, lambda: False, sets=both, content=both) for both in (False, True)
    )
    assert without is not None and beside is not None
    letters = "B" if name == "pix2pix" else "AB"
    measures = {f"fake_{letter}/{measure}" for letter in letters for measure in ("swd", "luminance_ssim")}
    assert beside.keys() - without.keys() == measures
    assert {key: beside[key] for key in without} == without
    if name == "cyclegan":
        translators = for_testing(algorithm, algorithm.translators())
        pairs = [observer.pictures[t] for t in range(3)]  # type: ignore[index]
        for direction, letter, side in (("a2b", "B", "a"), ("b2a", "A", "b")):
            sources = torch.stack([getattr(pair, side) for pair in pairs])
            with torch.inference_mode():
                found = luminance_ssim(translators[direction](sources), sources).mean()
            assert beside[f"fake_{letter}/luminance_ssim"] == pytest.approx(float(found), abs=1e-5)


def test_the_best_of_a_translation_by_sets(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "data": Path("toy"),
        "crop_size": 16,
        "load_size": 16,
        "workers": 0,
        "device": "cpu",
        "batch_size": 100,
    }
    options = CycleGANRun(
        run=tmp_path, best_metric="swd", best_floor="luminance_ssim=-1", lr_policy="plateau", validate_every=1,
        max_steps=4, validate_images=4,
        generator="resnet_0blocks", discriminator="pixelgan", ngf=2, ndf=2, **given,
    )  # fmt: skip
    train(CycleGAN, options)
    metrics = read_info(tmp_path / "a2b-best.safetensors").training.metrics
    (numbers,) = [line["metrics"] for line in lines(tmp_path, "validation")]
    assert metrics["luminance_ssim"] == pytest.approx(
        (numbers["fake_A/luminance_ssim"] + numbers["fake_B/luminance_ssim"]) / 2
    )
    assert metrics["mean_swd_to_held_out"] == pytest.approx((numbers["fake_A/swd"] + numbers["fake_B/swd"]) / 2)
    assert {"reconstruction_l1", "reconstruction_psnr", "reconstruction_ssim"} == metrics.keys() - {
        "mean_swd_to_held_out",
        "luminance_ssim",
    }


def shown(size: tuple[int, int], value: float | None = None) -> Any:
    pictures = [torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
    return set_members({"fake_B": pictures[0] if value is None else pictures[0] * value, "real_B": pictures[1]})


def test_sets_of_any_size() -> None:
    assert set_distances({0: shown((PATCH, PATCH))})["fake_B/swd"] > 0
    assert set_distances({0: shown((PATCH - 1, 64))}) == {}
    assert set_distances({0: shown((40, 48)), 1: shown((24, 20))})["fake_B/swd"] > 0
    assert np.isnan(set_distances({0: shown((16, 16)), 1: shown((16, 16), float("nan"))})["fake_B/swd"])
    assert set_distances({0: {"fake_B": (np.zeros((16, 16, 3), np.uint8),) * 2}})["fake_B/swd"] == 0


def test_a_grid_of_two_columns_is_folded() -> None:
    rows = [{"fake_B": torch.zeros(3, 8, 8), "real_B": torch.ones(3, 8, 8)}] * 16
    assert grid(rows).shape == (3, CAPTION + 4 * 10 + 2, 8 * 10 + 2)
    assert grid(rows[:7]).shape == (3, CAPTION + 7 * 10 + 2, 2 * 10 + 2)


def test_its_run_can_be_looked_at(tmp_path: Path) -> None:
    from i2i.tools.report import write_report

    train(GAN, GANRun(run=tmp_path / "run", max_steps=2, validate_every=1, **SMALL))
    written = write_report(tmp_path / "run", None)
    text = written.path.read_text()
    assert not written.notices and "swd: 1 values from step 2 to 2" in text and "data:image/webp" in text


# Evaluation of what is made.


def test_a_run_is_evaluated_by_as_many_pictures_as_there_are(trained: Path) -> None:
    found = evaluate([str(trained / "run")], EvaluationOptions(metrics=("swd", "diversity"), device="cpu"))
    assert [row.name for row in found.rows] == ["a2b (last and best)", "held-out test"]
    assert found.protocol["sets"].startswith("pictures at 16x16")
    assert found.rows[0].facts["noise"] == "seeds 0 to 7" and found.rows[0].facts["steps"] == 2
    pictures = [to_tensor(to_pixels(picture)) for picture in made(trained / "run", 8)]
    reference = [to_tensor(read(path).pixels) for path in sorted((trained / "data/train").iterdir())]
    expected = swd(pictures, reference, patches=128 * 2)  # of the two held-out pictures, the smallest set
    assert found.rows[0].measures["swd"].value == pytest.approx(expected.mean)
    assert found.rows[0].measures["swd"].pictures == 8 and len(found.validations) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ("l1",)}, "metrics: l1 .* a picture made from noise has none"),
        ({"back": "monet"}, "back = 'monet': is for models that translate"),
        ({"direction": "b2a"}, "direction: .* only a2b.safetensors"),
        ({"precision": "bf16"}, "precision = 'bf16'"),
    ],
)
def test_what_cannot_be_measured_of_noise(trained: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        evaluate([str(trained / "run")], EvaluationOptions(device="cpu", **options))


def test_a_model_against_a_folder(trained: Path) -> None:
    inputs = [str(trained / "run/a2b.safetensors"), str(trained / "unpaired/trainB")]
    (row,) = evaluate(inputs, EvaluationOptions(metrics=("swd",), max_pictures=3, device="cpu")).rows
    assert row.facts["noise"] == "seeds 0 to 2" and row.facts["reference"].endswith("trainB, 3 pictures")
