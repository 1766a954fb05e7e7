"""The options of a training, the best model files, and an end when a goal is reached or nothing gets better."""

import json
import signal
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from children import digest, lines, new_folder, run, start, status
from faults import BeforeFile, Distances, Refuse, SkipStep, die
from run_options import Pix2PixRun
from toy_folders import write_folder

from i2i.algorithms import Pix2Pix
from i2i.config import checked
from i2i.data.options import NAMED_CLASSES
from i2i.errors import InputError, UsageError
from i2i.images.palettes import PALETTES
from i2i.models.info import read_info
from i2i.training import schedule, validation
from i2i.training.checkpoint import BestScores, Checkpointer
from i2i.training.launch import train
from i2i.training.options import RunOptions
from i2i.training.schedule import Condition, check, floor_conditions, follows_validation, means, score, stop_conditions
from i2i.training.state_store import StateStore
from i2i.training.step import ProcessGroup
from i2i.training.validation import Validation

SMALL = {"generator": "unet_32", "ngf": 4, "discriminator": "patchgan_16", "ndf": 4, "crop_size": 32, "load_size": 32}


def test_a_batch_must_divide() -> None:
    check(RunOptions(data=Path("toy"), batch_size=6, micro_batches=3))
    with pytest.raises(UsageError, match="micro_batches = 4: must divide batch_size = 6"):
        check(RunOptions(data=Path("toy"), batch_size=6, micro_batches=4))


def test_data_are_needed(tmp_path: Path) -> None:
    check(RunOptions(data=Path("toy")))
    check(RunOptions(data=tmp_path))
    with pytest.raises(UsageError, match="data: missing"):
        check(RunOptions())
    (tmp_path / "photos").mkdir()
    with pytest.raises(InputError, match=r"photo: no such folder. Did you mean 'photos'\?"):
        check(RunOptions(data=tmp_path / "photo"))


def test_the_first_option_that_needs_validations_is_named() -> None:
    assert follows_validation(RunOptions()) == ""
    assert follows_validation(RunOptions(stop_patience=1, best_floor="ssim=0.5")) == "stop_patience"


def test_the_names_of_classes_are_those_of_the_palettes() -> None:
    assert set(PALETTES) == NAMED_CLASSES


OPTIONS = "--validate-every 1 --save-every 100 --keep-every 1 --lr 0.01 --workers 0"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_folder(folder, "paired", count=3, size=32)
    write_folder(folder / "unpaired", "unpaired", count=3, size=16)
    return folder


def measured(folder: Path, metric: str) -> dict[int, float]:
    """Step → what its validation measured."""
    return {line["step"]: means(line["metrics"])[metric] for line in lines(folder, "validation")}


def test_conditions() -> None:
    assert stop_conditions("") == stop_conditions(" ") == ()
    assert stop_conditions("ssim>=0.62") == (Condition("ssim", 0.62),)
    assert stop_conditions(" l1 <= 1e-1, psnr>=20") == (Condition("l1", 0.1), Condition("psnr", 20.0))
    assert str(Condition("l1", 0.1)) == "l1<=0.1" and str(Condition("psnr", 20.0)) == "psnr>=20"
    assert str(Condition("l1", 0.12345678)) == "l1<=0.12345678", "which another is not called"
    for metric, threshold, better, worse in (("l1", 0.1, 0.05, 0.11), ("ssim", 0.6, 0.61, 0.59)):
        condition = Condition(metric, threshold)
        assert condition.holds({metric: better}) and condition.holds({metric: threshold})
        assert not condition.holds({metric: worse}) and not condition.holds({metric: float("nan")})
        assert not condition.holds({})
        assert score(metric, {metric: score(metric, {metric: better})}) == better
    measured = {*validation.PAIR_METRICS, *validation.LABEL_METRICS, validation.SWD, schedule.CONTENT}
    assert set(schedule.METRICS) == measured, "what a validation measures"
    assert means({"cycle_A/l1": 0.1, "cycle_B/l1": 0.3, "cycle_A/ssim": 0.5}) == {"l1": 0.2, "ssim": 0.5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "sim>=0.6",
            r"stop_when = 'sim>=0.6': unknown metric 'sim'\. Did you mean 'ssim'\? Known: l1, psnr, ssim, swd, "
            r"pixel_accuracy, mean_iou, luminance_ssim\.",
        ),
        ("ssim=0.6", r"'ssim=0.6' is no condition; expected one like ssim>=0.62 or l1<=0.1"),
        ("ssim>=", r"'ssim>=' is no condition"),
        ("ssim>=0.6,", r"'' is no condition"),
        ("ssim>=high", r"'high' is no number"),
        ("ssim>=nan", r"'nan' is no number"),
        ("l1>=0.1", r"l1 is better when lower: write l1<=0.1"),
        ("l1<=0.1,ssim<=0.6", r"ssim is better when higher: write ssim>=0.6"),
    ],
)
def test_conditions_that_are_none(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        stop_conditions(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stop_when": "sim>=0.6"}, "unknown metric 'sim'"),
        (
            {"stop_when": "ssim>=0.6", "validate_every": 0},
            "stop_when = 'ssim>=0.6': follows the validation, but valida",
        ),
        (
            {"stop_patience": 3, "validate_every": 0},
            "stop_patience = 3: follows the validation, but validate_every = 0",
        ),
        (
            {"stop_when": "ssim>=0.6", "validate_every": 5},
            r"stop_when = 'ssim>=0.6': the first validation comes after \d+ images \(5 epochs\), and the run ends ",
        ),
        (
            {"stop_patience": 3, "validate_every": 5, "max_steps": None, "n_epochs": 2, "n_epochs_decay": 1},
            r"stop_patience = 3: the first validation .* lower validate_every",
        ),
        ({"best_metric": "fid"}, "best_metric = 'fid': .*'l1', 'psnr', 'ssim', 'swd', .*'mean_iou'"),
        ({"best_floor": "luminance=0.5"}, "best_floor = 'luminance=0.5': unknown metric"),
        ({"best_floor": "ssim=much"}, "'much' is no number"),
        (
            {"best_floor": "ssim=0.5", "validate_every": 0},
            "best_floor = 'ssim=0.5': follows the validation, but valida",
        ),
        ({"best_floor": "mean_iou=0.5", **SMALL}, "best_floor = 'mean_iou=0.5': mean_iou measures labels"),
        (
            {"best_floor": "luminance_ssim=0.5", "classes_a": "toy", **SMALL},
            "luminance_ssim compares pictures .* are labels",
        ),
        ({"best_metric": "luminance_ssim"}, "best_metric = 'luminance_ssim'"),
    ],
)
def test_impossible_options_are_refused_before_anything_starts(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    given = Pix2PixRun(run=tmp_path / "run", data=Path("toy"), **{"max_steps": 2, **options})
    with pytest.raises(UsageError, match=message):
        train(Pix2Pix, checked(given))
    assert not (tmp_path / "run").exists()


def test_best_and_last(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run("pix2pix", folder, f"--data {data} {OPTIONS} --best-metric psnr --max-steps 7")
    run("pix2pix", folder, f"--data {data} {OPTIONS} --lr 10 --best-metric psnr --max-steps 11")
    scores = measured(folder, "psnr")
    best = max(scores, key=lambda step: scores[step])
    assert best != max(scores), "after the jump of the learning rate it gets worse"
    kept, last = (read_info(folder / f"a2b{suffix}.safetensors").training for suffix in ("-best", ""))
    assert (kept.steps, last.steps) == (best, 11)
    assert kept.metrics["psnr"] == pytest.approx(scores[best])
    assert last.metrics["psnr"] == pytest.approx(scores[11]), "measured at the end, though no epoch ends there"
    assert StateStore(folder).best() == best

    child = start("pix2pix", folder, f"--data {data} {OPTIONS} --best-metric l1 --max-steps 11")
    assert child.wait() == 2
    assert "--best-metric cannot change within a run (so far: psnr)" in child.said()


@pytest.mark.promise("R1")
def test_a_run_is_measured_at_its_end(data: Path, tmp_path: Path) -> None:
    """The best is kept of runs that end before a validation is due; one that is made longer goes on as if not."""
    folder, options = tmp_path / "run", f"--data {data} {OPTIONS} --validate-every 5 --lr-policy plateau --patience 0"
    run("pix2pix", folder, f"{options} --max-steps 4")
    assert list(measured(folder, "l1")) == [4]
    assert read_info(folder / "a2b-best.safetensors").training.steps == 4
    run("pix2pix", folder, f"{options} --max-steps 16")
    assert list(measured(folder, "l1")) == [4, 15, 16]
    undisturbed = tmp_path / "straight"
    said = run("pix2pix", undisturbed, f"{options} --max-steps 16").said()
    assert list(measured(undisturbed, "l1")) == [15, 16]
    epochs = {line["step"]: line["epoch"] for line in lines(undisturbed, "step")}
    assert [epochs[step] for step in (1, 3, 4, 15, 16)] == [1, 1, 2, 5, 6], "an epoch has three pictures"
    assert [line["epoch"] for line in lines(undisturbed, "validation")] == [5, 6]
    assert "step 15, epoch 5 of 6: " in said and "step 16  epoch 6 of 6  100%" in said
    last, straight = (
        [line["losses"] for line in lines(path, "step")] for path in (folder, undisturbed)
    )  # of which a learning rate that fell would make others
    assert last == straight

    run("pix2pix", tmp_path / "none", f"{options} --validate-every 0 --max-steps 4 --lr-policy linear")
    assert measured(tmp_path / "none", "l1") == {}


def test_the_first_best_binds_a_run_to_its_metric(data: Path, tmp_path: Path) -> None:
    folder, options = tmp_path / "run", f"--data {data} {OPTIONS} --max-steps 6"
    run("pix2pix", folder, f"{options} --best-metric ssim --stop-when l1<=0.9")
    assert status(folder)["step"] == 3
    child = start("pix2pix", folder, f"{options} --best-metric l1")
    assert child.wait() == 2
    assert "--best-metric cannot change within a run (so far: ssim)" in child.said()


@pytest.mark.promise("R1")
@pytest.mark.parametrize(
    ("fault", "lost"),
    [
        (Refuse("state-00000003.pt", times=1), False),
        (SkipStep(3), False),  # the save is put off until step 4
        (Refuse("a2b-best.safetensors", times=1), False),  # tried again before the state
        (Refuse("a2b-best.safetensors", times=2), True),
    ],
)
def test_the_best_model_needs_no_state_of_its_own(fault: Any, lost: bool, data: Path, tmp_path: Path) -> None:
    """A best state that cannot be saved beside it costs it nothing, and a worse one does not take its place."""
    folder = tmp_path / "run"
    child = run("pix2pix", folder, f"--data {data} {OPTIONS} --max-steps 7", Distances((0.15, 0.17, 0.19)), fault)
    assert read_info(folder / "a2b-best.safetensors").training.steps == (6 if lost else 3)
    assert child.said().count("(the best l1 so far)") == (2 if lost else 1)


def test_the_best_of_unpaired_data_is_of_restored_pictures(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    child = run(
        "cyclegan", folder, f"--data {data}/unpaired {OPTIONS} --direction b2a --max-steps 9 --stop-when l1<=0.9"
    )
    for direction in ("a2b", "b2a"):
        metrics = read_info(folder / f"{direction}-best.safetensors").training.metrics
        assert metrics["reconstruction_l1"] == pytest.approx(measured(folder, "l1")[3])
    assert "(pictures restored from their translations; how good translations look, it cannot tell)" in child.said()
    assert "(the best l1 so far)" in child.said()


def test_a_goal_ends_a_run_until_it_is_changed(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = f"--data {data} {OPTIONS} --max-steps 6"
    child = run("pix2pix", folder, f"{options} --stop-when l1<=0.9,psnr>=1")
    assert "stopped after 3 steps: l1<=0.9, psnr>=1 is reached: l1 is 0." in child.said()
    assert status(folder)["status"] == "stopped" and status(folder)["step"] == 3
    assert status(folder)["reason"].startswith("l1<=0.9, psnr>=1 is reached: l1 is 0.")
    before, log = digest(folder), (folder / "log.jsonl").read_bytes()

    child = run("pix2pix", folder, f"{options} --stop-when l1<=0.9,psnr>=1")
    assert "stopped already, after 3 steps: l1<=0.9, psnr>=1 is reached" in child.said()
    assert "To go on, change --stop-when or --stop-patience" in child.said()
    assert digest(folder) == before and [line["step"] for line in lines(folder, "step")] == [1, 2, 3]
    assert (folder / "log.jsonl").read_bytes().startswith(log) and status(folder)["status"] == "stopped"

    run("pix2pix", folder, f"{options} --stop-when l1<=0.001")
    told = status(folder)
    assert {name: told[name] for name in ("status", "exit_code", "step", "processes")} == {
        "status": "finished",
        "exit_code": 0,
        "step": 6,
        "processes": 1,
    }
    undisturbed = tmp_path / "straight"
    run("pix2pix", undisturbed, options)
    assert digest(folder) == digest(undisturbed)


def test_the_measurement_of_a_runs_end_ends_no_longer_run(data: Path, tmp_path: Path) -> None:
    """It would not have been made there: the goal is met where the next validation is due."""
    folder, options = tmp_path / "run", f"--data {data} {OPTIONS}"
    run("pix2pix", folder, f"{options} --max-steps 4")
    assert list(measured(folder, "l1")) == [3, 4]
    run("pix2pix", folder, f"{options} --max-steps 8 --stop-when l1<=0.9")
    assert list(measured(folder, "l1")) == [3, 4, 6]
    assert status(folder)["status"] == "stopped" and status(folder)["step"] == 6


def test_an_end_when_nothing_gets_better(data: Path, tmp_path: Path) -> None:
    """With so small a learning rate, and no noise, each validation is like the first."""
    folder = tmp_path / "run"
    options = f"--data {data} {OPTIONS} --norm instance --no-dropout --lr 1e-30 --max-steps 30"
    child = run("pix2pix", folder, f"{options} --best-metric ssim --stop-patience 2")
    assert list(measured(folder, "ssim")) == [3, 6, 9]
    assert status(folder)["status"] == "stopped"
    best = f"{measured(folder, 'ssim')[3]:.4g}"
    assert f"ssim has not got better than {best} for 2 validations (outputs against their targets)" in child.said()
    assert read_info(folder / "a2b-best.safetensors").training.steps == 3

    run("pix2pix", folder, f"{options} --best-metric ssim --stop-patience 3")
    assert list(measured(folder, "ssim")) == [3, 6, 9, 12] and status(folder)["status"] == "stopped"


@pytest.mark.promise("R1")
@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("state-00000006.pt", 1),
        ("a2b-best.safetensors", 2),
        pytest.param("a2b-best.safetensors", 1, marks=pytest.mark.slow),
        pytest.param("a2b.safetensors", 2, marks=pytest.mark.slow),
        pytest.param("state-00000006.json", 2, marks=pytest.mark.slow),
        pytest.param("status.json", 2, marks=pytest.mark.slow),
    ],
)
def test_killed_while_the_best_is_written(name: str, number: int, data: Path, tmp_path: Path) -> None:
    folder, options = tmp_path / "run", f"--data {data} {OPTIONS} --stop-patience 2 --max-steps 8"
    child = start("pix2pix", folder, options, [BeforeFile(name, die, number)])
    assert child.wait() == -signal.SIGKILL, child.said()
    run("pix2pix", folder, options)
    assert everything(folder) == everything(straight(options))


@cache
def straight(options: str) -> Path:
    """The folder of a run that nobody disturbed."""
    run("pix2pix", folder := new_folder() / "run", options)
    return folder


def everything(folder: Path) -> dict[str, Any]:
    told = status(folder)
    return {
        "files": {path.name: path.read_bytes() for path in folder.glob("*.safetensors")},
        "manifests": {path.name: json.loads(path.read_bytes())["metric"] for path in folder.glob("state-*.json")},
        "state": digest(folder),
        "lines": [lines(folder, kind) for kind in ("step", "validation", "health")],
        "status": (told["status"], told["step"], told.get("reason")),
    }


# The floor of the best


FLOOR = "--best-metric l1 --best-floor luminance_ssim=0.5"


@dataclass(frozen=True)
class Measured:
    """The L1 distances and luminance SSIMs that the validations measure, one after the other."""

    values: tuple[tuple[float, float], ...]

    def __call__(self) -> None:
        from i2i.training.validation import HeldOut

        values = iter(self.values)

        def validate(*_: Any) -> dict[str, float]:
            distance, kept = next(values)
            return {"fake_B/l1": distance, "fake_B/psnr": 10.0, "fake_B/ssim": 0.5, "fake_B/luminance_ssim": kept}

        HeldOut.measure = validate  # type: ignore[method-assign,assignment]


def test_floors() -> None:
    assert floor_conditions("") == ()
    assert floor_conditions("luminance_ssim=0.5, l1=0.2") == (Condition("luminance_ssim", 0.5), Condition("l1", 0.2))
    assert floor_conditions("luminance_ssim>=0.5") == floor_conditions("luminance_ssim = 5e-1")
    assert Condition("l1", 0.2).holds({"l1": 0.2}) and not Condition("l1", 0.2).holds({"l1": 0.21})
    for text, message in (
        ("luminance_sim=0.5", r"best_floor = 'luminance_sim=0.5': unknown metric 'luminance_sim'\. Did you mean"),
        ("luminance_ssim=", "'luminance_ssim=' is no condition; expected one like luminance_ssim=0.5"),
        ("luminance_ssim", "'luminance_ssim' is no condition"),
        ("luminance_ssim=half", "'half' is no number"),
        ("luminance_ssim==0.5", "is no condition"),
        ("luminance_ssim=nan", "'nan' is no number"),
        ("luminance_ssim<=0.5", "luminance_ssim is better when higher: write luminance_ssim>=0.5"),
    ):
        with pytest.raises(UsageError, match=message):
            floor_conditions(text)


def a_validation(**options: Any) -> Validation:
    held_out: Any = SimpleNamespace(algorithm=Pix2Pix, palettes={}, pictures=object())
    return Validation(RunOptions(**options), held_out, Any, Any)  # type: ignore[arg-type]


class Saved(Checkpointer):
    """Saves nothing, but knows what is best."""

    def __init__(self, **options: Any) -> None:
        self.validation, self.saved_step = a_validation(**options), None
        self.best, self.group = BestScores(self.validation.options, self.validation.floor), ProcessGroup("cpu")
        self.progress: Any = SimpleNamespace(step=0)

    def _write_models(self, best: bool = False) -> None:
        """Nothing is written."""


def resumed(before: Saved, step: int, **options: Any) -> Saved:
    found, state = Saved(**options), before.validation.state() | before.best.state()
    found.best.load_state(state)
    found.validation.load_state(state)
    found.progress.step = step
    return found


def judged(one: Saved, step: int, distance: float, kept: float) -> bool:
    """Whether the weights of `step` are taken for the best."""
    one.progress.step = step
    one.validation.take({"l1": distance, "luminance_ssim": kept}, step)
    best = "the best" in one.verdict() and "not taken" not in one.verdict()
    one.validated()
    return best


def test_the_best_is_the_best_of_those_above_the_floor() -> None:
    """The nearest ones, of steps 3 and 9, do not keep enough; a run that goes on knows the best of step 6."""
    one = Saved(best_floor="luminance_ssim=0.5")
    assert [judged(one, *each) for each in ((3, 0.1, 0.4), (6, 0.2, 0.6), (9, 0.15, 0.3))] == [False, True, False]
    assert "luminance_ssim is 0.3, not >=0.5" in one.verdict() and not one.never_above_floor()
    one = resumed(one, 9, best_floor="luminance_ssim=0.5")
    assert not judged(one, 12, 0.25, 0.9), "it keeps more, but is farther than the best"
    assert judged(one, 15, 0.19, 0.5)


@pytest.mark.parametrize("extra", [False, True])
def test_a_run_that_has_a_best_model_keeps_its_floor(extra: bool) -> None:
    """Also where the best was found by the measurement of the run's end, which no patience counts."""
    one = Saved(best_floor="luminance_ssim=0.5,l1=0.25")
    one.validation.kept.validation_extra = extra
    assert judged(one, 3, 0.1, 0.6)
    for floor in ("luminance_ssim=0.4,l1=0.25", "luminance_ssim=0.5", "luminance_ssim=0.50000001,l1=0.25", ""):
        with pytest.raises(UsageError, match=r"cannot change .* \(so far: best_floor='l1<=0.25,luminance_ssim>=0.5'\)"):
            resumed(one, 3, best_floor=floor)
    with pytest.raises(UsageError, match=r"best_metric cannot change within a run \(so far: l1\)"):
        resumed(one, 3, best_floor=one.validation.options.best_floor, best_metric="psnr")
    for same in ("l1<=0.25, luminance_ssim>=5e-1", "luminance_ssim=0.5,l1=0.25,luminance_ssim=0.50"):
        assert resumed(one, 3, best_floor=same).validation.score_at(3) == 0.1
    below = Saved(best_floor="luminance_ssim=0.5")
    assert not judged(below, 3, 0.1, 0.4)
    resumed(below, 3, best_floor="luminance_ssim=0.3")


def test_patience_counts_from_the_best_above_the_floor() -> None:
    one = Saved(best_floor="luminance_ssim=0.5", stop_patience=2)
    for step, distance, kept in ((3, 0.2, 0.6), (6, 0.1, 0.4)):
        judged(one, step, distance, kept)
        assert not one.validation.stop_reason(step)
    judged(one, 9, 0.05, 0.4)
    assert one.validation.stop_reason(9).startswith("l1 has not got better than 0.2 for 2 validations")


def test_a_run_that_never_comes_to_its_floor_says_so_and_may_lower_it(data: Path, tmp_path: Path) -> None:
    """Its patience counts the validations below the floor, and once there is a best model, it keeps its floor."""
    folder, options = tmp_path / "run", f"--data {data} {OPTIONS} --stop-patience 2"
    child = run("pix2pix", folder, f"{options} {FLOOR} --max-steps 30", Measured(((0.2, 0.4), (0.1, 0.4), (0.1, 0.6))))
    assert list(measured(folder, "l1")) == [3, 6] and status(folder)["status"] == "stopped"
    assert status(folder)["reason"] == "luminance_ssim>=0.5 was not reached in 2 validations"
    never = "no validation came to luminance_ssim>=0.5 (--best-floor), so there is no best model file"
    assert never in child.said() and [line["text"] for line in lines(folder, "event")].count(never) == 1
    assert child.said().count("(not taken for the best: luminance_ssim is 0.4, not >=0.5)") == 2
    assert not list(folder.glob("*-best.safetensors")) and StateStore(folder).best() is None

    lower = f"{options} --best-metric l1 --best-floor luminance_ssim=0.3 --stop-patience 3 --max-steps 12"
    child = run("pix2pix", folder, lower, Measured(((0.1, 0.35), (0.05, 0.2))))
    best = read_info(folder / "a2b-best.safetensors").training
    assert best.steps == 9 == StateStore(folder).best() and best.metrics["luminance_ssim"] == 0.35
    assert child.said().count("(the best l1 so far)") == 1
