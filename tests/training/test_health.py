"""Each problem of a training is named within 200 steps, once, in plain words; a healthy one is left in peace.

That healthy ones are is shown on the two toy runs of `tests/algorithms/test_learning.py` as well.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_options import CycleGANRun, Pix2PixRun
from tiny_networks import tiny_teacher
from torch import Tensor
from torch.nn import functional as F

from i2i.algorithms import ALGORITHMS, CycleGAN, Pix2Pix
from i2i.algorithms.algorithm import Algorithm
from i2i.data.pair import ImagePair
from i2i.losses.adversarial import GANLoss
from i2i.networks.resnet import ResnetGenerator
from i2i.training import health, step, trainer
from i2i.training.health import HealthMonitor
from i2i.training.launch import train
from i2i.training.log import RunLog, live_line
from i2i.training.options import RunOptions
from i2i.training.schedule import TrainingOptions
from i2i.training.step import ProcessGroup

SMALL = {
    "load_size": 32, "crop_size": 32, "workers": 0, "device": "cpu", "ngf": 4, "ndf": 8, "discriminator": "patchgan_16",
    "validate_every": 0, "sample_every": 50, "lr": 2e-3, "save_every": 10**6, "log_every": 7,
}  # fmt: skip


def pix2pix(folder: Path, steps: int = 200, **options: Any) -> list[dict[str, Any]]:
    """The health lines of a small training."""
    given = {"data": Path("toy"), "generator": "unet_32", "norm": "instance", "dropout": False, **SMALL, **options}
    train(Pix2Pix, Pix2PixRun(run=folder, max_steps=steps, **given))
    return told(folder)


def cyclegan(folder: Path, steps: int = 200, **options: Any) -> list[dict[str, Any]]:
    given = {"data": Path("toy"), "generator": "resnet_1blocks", **SMALL, **options}
    train(CycleGAN, CycleGANRun(run=folder, max_steps=steps, **given))
    return told(folder)


def told(folder: Path) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [entry for entry in entries if entry["kind"] == "health"]


def names(lines: list[dict[str, Any]]) -> list[str]:
    return [line["name"] for line in lines]


def at_pace(monkeypatch: pytest.MonkeyPatch, **factors: float) -> None:
    """Each player with its own multiple of the learning rate."""

    def set_learning_rate(self: step.TrainingStep, lr: float) -> None:
        for name, player in self.players.items():
            for group in player.optimizer.param_groups:
                group["lr"] = lr * factors.get(name, 1.0)

    monkeypatch.setattr(step.TrainingStep, "set_learning_rate", set_learning_rate)


@pytest.mark.parametrize("run", [pix2pix, pytest.param(cyclegan, marks=pytest.mark.slow)])
def test_a_generator_that_stands_still(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its learning rate is 0; the discriminator soon knows it through and through."""
    at_pace(monkeypatch, generator=0.0)
    lines = run(tmp_path / "run", 160)
    assert {health.NOT_LEARNING, health.SATURATED} <= set(names(lines))
    assert all(names(lines).count(name) == 1 for name in names(lines)), "once an episode"
    said = capsys.readouterr().err
    assert "generator not learning: after 150 steps its losses have hardly fallen (" in said
    assert "If the samples do not get better either" in said
    assert "health of this training: " in said and "generator not learning since step 150" in said


def test_a_learning_rate_that_breaks_the_generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without normalisation it dies for good: with three seeds its outputs differ by 0.000 of what the inputs do, where
    at the right pace it is 0.4 to 1.0, and 0.05 is the limit. Instance norm leaves it to chance (0.0 to 1.9)."""
    at_pace(monkeypatch, generator=100.0)
    lines = cyclegan(tmp_path / "run", steps=100, sample_every=500, norm="none")
    assert names(lines) == [health.COLLAPSED] and lines[0]["step"] == 100, "looked at before the first grid"
    steps = sorted(path.name for path in (tmp_path / "run/samples").glob("*.png"))
    assert steps == ["step-00000001.png", "step-00000100.png"], "the first and the last"
    assert "shows the same for 4 different inputs" in lines[0]["text"]


@pytest.mark.parametrize(("sign", "name", "at"), [(1, health.SAME, 60), (-1, health.INVERTED, 55)])
def test_generators_that_are_the_identity_or_its_negative(
    sign: int, name: str, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either satisfies the cycle loss; both directions are named, the identity at the last of the early looks (which
    come sooner here)."""
    assert health.EARLY_LOOKS == (100, 200)
    for module in (health, trainer):
        monkeypatch.setattr(module, "EARLY_LOOKS", (55, 60))
    forward = ResnetGenerator.forward
    monkeypatch.setattr(ResnetGenerator, "forward", lambda self, x: sign * x + 0.02 * forward(self, x))
    small = {"load_size": 16, "crop_size": 16, "lambda_identity": 0.0}
    lines = cyclegan(tmp_path / "run", steps=at + 2, sample_every=500, lr=1e-6, **small)
    assert [(line["name"], line["step"]) for line in lines] == [(name, at)]
    assert "fake_A" in lines[0]["text"] and "fake_B" in lines[0]["text"]


def test_a_healthy_run_goes_on_after_a_resume_as_it_would_have(tmp_path: Path) -> None:
    assert pix2pix(tmp_path / "straight", 105) == []
    for steps in (33, 105):
        assert pix2pix(tmp_path / "run", steps) == []
    states = [torch.load(tmp_path / run / "state-00000105.pt", weights_only=True) for run in ("straight", "run")]
    assert states[0]["health"] == states[1]["health"]
    assert states[0]["health"]["not_learning"]["learnt"]


def test_the_look_at_the_last_pictures_of_a_run_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a longer run would not look, so that a run which goes on is the one that never stopped."""
    monkeypatch.setitem(health.PICTURE_DETECTORS, health.INVERTED, lambda translation: "odd")
    pix2pix(tmp_path / "straight", 60, sample_every=1000)
    for steps in (55, 60):
        pix2pix(tmp_path / "run", steps, sample_every=1000)
    states = [torch.load(tmp_path / run / "state-00000060.pt", weights_only=True) for run in ("straight", "run")]
    assert states[0]["health"] == states[1]["health"]


def test_detectors_ignore_losses_that_are_no_longer_trained() -> None:
    detector = health.Saturated(chance=0.5)
    for _ in range(60):
        detector.observe({"D": 0.001})
    assert detector.issue() is not None
    detector.observe({"D_pair": 0.5})
    assert detector.issue() is None


# The detectors themselves.


def picture(seed: int) -> Tensor:
    return torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1


PICTURES = [picture(seed) for seed in range(3)]
OTHERS = [picture(seed) for seed in range(3, 6)]


def seen(outputs: list[Tensor], targets: list[Tensor] | None = None, inputs: list[Tensor] = PICTURES) -> set[str]:
    """The findings of the detectors of pictures."""
    translation = health.Translation("fake_B", inputs, outputs, targets or [])
    return {name for name, detect in health.PICTURE_DETECTORS.items() if detect(translation)}


def test_detectors_of_pictures() -> None:
    assert seen(OTHERS) == set()
    assert seen([0.5 * x + 0.2 for x in PICTURES]) == set()
    assert seen([x + 0.01 for x in PICTURES]) == {health.SAME}
    assert seen([x + 0.01 for x in PICTURES], PICTURES) == set(), "the targets are so"
    assert seen([x + 0.01 for x in PICTURES], OTHERS) == {health.SAME}
    assert seen([-0.6 * x for x in PICTURES]) == {health.INVERTED}
    assert seen([-x for x in PICTURES], [-x for x in PICTURES]) == set(), "the targets are so"
    assert seen([OTHERS[0]] * 3) == {health.COLLAPSED}
    assert seen([torch.zeros(1, 8, 8)] * 3) == {health.COLLAPSED}, "other channels than the input"
    assert health.one_output(health.Translation("fake_B", PICTURES[:1], OTHERS[:1])) is None, "there is but one input"


def test_pictures_made_of_noise_are_compared_with_those_of_their_domain() -> None:
    def found(outputs: list[Tensor]) -> set[str]:
        made = health.Translation("fake_B", [], outputs, others=PICTURES)
        return {name for name, detect in health.PICTURE_DETECTORS.items() if detect(made)}

    assert found(OTHERS) == found(PICTURES) == found([-x for x in PICTURES]) == set()
    assert found([OTHERS[0] + 0.01 * x for x in PICTURES]) == {health.COLLAPSED}
    collapsed = health.one_output(health.Translation("fake_B", [], OTHERS[:1] * 3, others=PICTURES))
    assert collapsed and "the same for 3 different noises" in collapsed and "pictures of the data set" in collapsed
    assert found([torch.full((3, 8, 8), math.nan)] * 3) == set()


@pytest.mark.parametrize(("correlation", "named"), [(-0.3, False), (-0.45, False), (-0.55, True), (-0.9, True)])
def test_light_may_become_dark_here_and_there(correlation: float, named: bool) -> None:
    inputs, outputs = [], []
    for seed in range(3):
        x, y = torch.randn(2, 32 * 32, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        x, y = x - x.mean(), y - y.mean()
        y = y - (x @ y) / (x @ x) * x
        mixed = correlation * x / x.norm() + math.sqrt(1 - correlation**2) * y / y.norm()
        inputs.append((0.2 * x).reshape(1, 32, 32))
        outputs.append((3 * mixed).reshape(1, 32, 32))
    assert seen(outputs, inputs=inputs) == ({health.INVERTED} if named else set())


def masks(*sizes: int) -> list[Tensor]:
    """Black, but for a square of that size."""
    found = [-torch.ones(1, 32, 32) for _ in sizes]
    for mask, size in zip(found, sizes, strict=True):
        mask[:, :size, :size] = 1
    return found


def test_targets_that_are_alike_and_outputs_as_well() -> None:
    """Correct masks that are black nearly everywhere differ little."""
    inputs = [F.interpolate(picture[None], size=32)[0] for picture in PICTURES]
    for targets in (masks(3, 0, 0), masks(0, 0, 0), masks(12, 4, 0)):
        assert seen(targets, targets, inputs) == set()
    assert seen(masks(0, 0, 0), masks(2, 0, 0), inputs) == set(), "nobody can tell yet"
    assert seen(masks(9, 9, 9), masks(30, 20, 4), inputs) == {health.COLLAPSED}
    assert seen(masks(12, 12, 12), inputs=inputs) == {health.COLLAPSED}


def test_pictures_that_are_not_finite_are_no_evidence() -> None:
    nan = torch.full((3, 8, 8), torch.nan)
    assert seen([nan] * 3) == seen(OTHERS, [nan] * 3) == seen([nan, nan, PICTURES[2]], OTHERS) - {health.SAME} == set()
    assert seen([nan, -PICTURES[1], -PICTURES[2]]) == {health.INVERTED}
    assert seen([OTHERS[0], OTHERS[0], nan]) == {health.COLLAPSED}
    translation = health.Translation("fake_B", PICTURES, [nan, PICTURES[1], PICTURES[2]])
    assert "by 0.0% of its range" in str(health.output_equals_input(translation))


def test_dark_pictures_have_a_range_of_their_own() -> None:
    dark = [0.02 * x - 0.98 for x in PICTURES]  # 5 levels of 255
    assert seen([0.02 * x - 0.98 for x in OTHERS], inputs=dark) == set()
    assert seen([x + 0.0002 for x in dark], inputs=dark) == {health.SAME}


@pytest.mark.parametrize(
    ("mode", "level"), [("lsgan", 0.25), ("vanilla", 0.6931), ("nonsaturating", 0.6931), ("hinge", 1), ("wgangp", None)]
)
def test_a_discriminator_that_guesses(mode: Any, level: float | None) -> None:
    assert health.chance(GANLoss(mode)) == (level if level is None else pytest.approx(level, abs=1e-4))


def test_one_saturated_discriminator_of_two() -> None:
    detector = health.Saturated(0.25)
    for number in range(100):
        detector.observe({"D_A": 0.2, "D_B": 0.001 if number % 3 else 0.3})
        assert (detector.issue() is not None) == (number >= 49)
    assert "D_B" in str(detector.issue()) and "D_A" not in str(detector.issue())
    for _ in range(26):
        detector.observe({"D_A": 0.2, "D_B": 0.2})
    assert detector.issue() is None
    assert health.Saturated(None, detector.losses).issue() is None


def test_losses_that_have_fallen_once_may_be_flat() -> None:
    detector = health.NotLearning()
    for loss in [10.0] * 60 + [6.0] * 60 + [10.0] * 400:
        detector.observe({"cycle_A": loss, "cycle_B": 3.0})
        assert detector.issue() is None
    assert health.NotLearning(learnt=True).issue() is None


def watched(levels: dict[str, list[float]]) -> list[str]:
    """The reports on losses that take these values."""
    detector, said = health.NotLearning(), []
    for values in zip(*levels.values(), strict=True):
        detector.observe(dict(zip(levels, values, strict=True)))
        if issue := detector.issue():
            said.append(issue)
    return said


def test_a_spike_at_the_start_hides_no_fall() -> None:
    """Nor does it make one of losses that stand still."""
    fall = [1.0 if step < 20 else max(0.05, 1 - (step - 20) / 60) for step in range(200)]
    for spike in (40.0, 1000.0):
        levels = [(spike if step in (2, 3, 4) else 10.0) * left for step, left in enumerate(fall)]
        assert watched({"cycle_A": levels}) == []
        still = [spike if step in (2, 3, 4) else 10.0 + step % 3 for step in range(200)]
        assert watched({"cycle_A": still}) != []


@pytest.mark.parametrize("left", [0.75, 0.85])
def test_a_fall_by_a_quarter_is_a_fall(left: float) -> None:
    """Where pictures differ little: what is more than their differences explain is no chance."""
    for seed in range(20):
        spread = 0.05 * np.random.default_rng(seed).standard_normal(400)
        levels = [30 * math.exp(s) * (left + (1 - left) * math.exp(-n / 50)) for n, s in enumerate(spread)]
        assert watched({"cycle_A": levels}) == []


def test_losses_that_have_nowhere_to_fall() -> None:
    """Those of a generator that starts as the identity, whether they stay so or rise."""
    for end in (0.05, 0.1, 3.0):
        levels = [0.1 + (end - 0.1) * step / 200 for step in range(200)]
        assert watched({"cycle_A": levels, "cycle_B": levels, "identity_A": levels}) == []


@pytest.mark.parametrize("learns", [False, True])
@pytest.mark.parametrize("spread", [0.05, 0.2, 0.35])
def test_each_picture_has_a_loss_of_its_own(learns: bool, spread: float) -> None:
    """A generator that stands still is named by step 200 whatever pictures come; one that learns is left alone."""
    named = 0
    for seed in range(50):
        random, detector, told = np.random.default_rng(seed), health.NotLearning(), False
        levels = {name: 30 * np.exp(spread * random.standard_normal(200)) for name in ("cycle_A", "cycle_B")}
        for number in range(200):
            left = 0.4 + 0.6 * math.exp(-number / 50) if learns else 1.0
            detector.observe({name: float(level[number] * left) for name, level in levels.items()})
            told |= detector.issue() is not None
        named += told
    assert named <= 1 if learns else named >= 49


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.75])
def test_a_loss_of_pairs_is_0_where_there_are_none(share: float) -> None:
    """And says nothing there: a generator that stands still is named by step 200, however few pairs come."""
    named = 0
    for seed in range(50):
        random, detector, told = np.random.default_rng(seed), health.NotLearning(), False
        levels = {name: 30 * np.exp(0.2 * random.standard_normal(200)) for name in ("cycle_A", "paired_AB")}
        levels["paired_AB"] *= random.random(200) < share
        for number in range(200):
            detector.observe({name: float(level[number]) for name, level in levels.items()})
            told |= detector.issue() is not None
        named += told
    assert named >= 49


def test_pairs_that_are_learnt_are_enough() -> None:
    detector = health.NotLearning()
    for number in range(400):
        detector.observe({"cycle_A": 5.0, "paired_AB": (30 - 0.07 * number) * (number % 2)})
    assert detector.issue() is None and detector.learnt


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_losses_have_a_kind(name: str, tmp_path: Path) -> None:
    """For every algorithm the monitor finds a loss of each discriminator, and a content loss if it has any."""
    algorithm, batch = build(name), ImagePair(*(torch.rand(1, 3, 32, 32) for _ in range(2)))
    if algorithm.single_domain:
        sample = algorithm.make_pair(algorithm.options, batch.b[0], 0)  # type: ignore[attr-defined]
        batch = ImagePair(sample.a[None], sample.b[None])
    play = step.TrainingStep(algorithm, TrainingOptions(), ProcessGroup("cpu"))
    losses = {key: float(value) for key, value in play(batch, 0).items()}
    monitor = watching(algorithm, play, tmp_path)
    expected = {"cyclegan": {"D_A", "D_B"}}.get(name, {"D_fake + D_real"})
    assert set(monitor._of_discriminators(losses)) == expected
    monitor.steps([{"step": 1, "images": 1, "losses": losses}])
    adversarial = {"G_gan", "gan_AB", "gan_BA", "G_FM"}
    assert not adversarial & monitor.kept.not_learning.begun.keys(), "they rise and fall with the discriminator"
    assert bool(monitor.kept.not_learning.begun) != (algorithm.from_noise or name == "pix2pixhd")  # which has no L1


def build(name: str) -> Algorithm:
    cls = ALGORITHMS[name]
    module = __import__(cls.__module__, fromlist=["_"])
    kind = next(value for key, value in vars(module).items() if key == f"{cls.__name__}Options")
    generator = "dcgan_32" if cls.from_noise else "resnet_4blocks"
    taught = {"teacher": tiny_teacher(), "lambda_gan": 1.0} if name == "distill" else {}
    return cls(kind(ngf=4, ndf=4, generator=generator, discriminator="patchgan_16", **taught))  # type: ignore[call-arg]


def watching(algorithm: Algorithm, play: step.TrainingStep, folder: Path) -> HealthMonitor:
    return HealthMonitor(play, [], RunOptions(), RunLog(folder, 100))  # type: ignore[arg-type]


def test_an_episode_is_reported_once_and_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    algorithm = build("cyclegan")
    watch = watching(algorithm, step.TrainingStep(algorithm, TrainingOptions(), ProcessGroup("cpu")), tmp_path)
    for number in range(1, 500):
        watch._report(number, health.SAME, "so it is" if number < 200 and number % 3 else None)
        assert list(watch.log.issues) == ([health.SAME] if number < 299 else [])
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "health, step 1: output equals input: so it is",
        "health, step 299: output equals input: no longer, since step 199",
    ]
    watch.summary(500)
    assert capsys.readouterr().err == "health of this training: output equals input from step 1 to 199\n"


def test_a_generator_may_begin_as_the_identity(tmp_path: Path) -> None:
    algorithm = build("cyclegan")
    watch = watching(algorithm, step.TrainingStep(algorithm, TrainingOptions(), ProcessGroup("cpu")), tmp_path)
    rows = [{"real_A": x, "fake_B": x, "real_B": y, "fake_A": y} for x, y in zip(PICTURES, OTHERS, strict=True)]
    for number in (1, 50, 100, 199):
        watch.look(number, rows)
        assert list(watch.log.issues) == []
    watch.look(200, rows)
    assert list(watch.log.issues) == [health.SAME]


def test_a_generator_is_watched_without_pictures_to_compare_it_with(tmp_path: Path) -> None:
    algorithm = build("cyclegan")
    watch = watching(algorithm, step.TrainingStep(algorithm, TrainingOptions(), ProcessGroup("cpu")), tmp_path)
    watch.look(200, [{"real_A": x, "fake_B": x} for x in PICTURES])
    assert list(watch.log.issues) == [health.SAME]


def test_the_live_line_names_what_is_wrong() -> None:
    line = {"step": 3, "epoch": 1, "images": 3, "losses": {"D_A": 0.25}}
    assert live_line(line, 9, 2.0) == "step 3  epoch 1  33%  2.00 images/s  3 s left  D_A 0.250"
    issues = [health.SATURATED, health.SAME]
    assert live_line(line, 9, 0.0, issues) == "step 3  epoch 1  33%  ! discriminator saturated, output equals input !"
    assert live_line(line, 9, 2.0, epochs=2) == "step 3  epoch 1 of 2  33%  2.00 images/s  3 s left  D_A 0.250"
    warned = live_line(line, 9, 2.0, issues[1:], epochs=800_000)
    assert warned == "step 3  epoch 1 of 800000  33%  2.00 images/s  3 s left  ! output equals input !"
    assert len(warned) == 80, "the place of the number is that of a loss, and never that of what is wrong"
    assert live_line(line, 9, 2.0, issues[1:], epochs=8_000_000) == warned.replace(" of 800000", "")
    many = line | {"step": 123456, "epoch": 12, "losses": {f"identity_{n}": 0.123 for n in range(9)}}
    text = live_line(many, 9, 12.34)
    assert text.endswith("identity_0 0.123") and len(text) <= 80
