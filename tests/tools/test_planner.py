"""What a training will cost: measured in a process of its own, computed for the whole, and made to fit a limit."""

import contextlib
import dataclasses
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from i2i import cli
from i2i.algorithms import CUT, CycleGAN, Pix2Pix
from i2i.commands import plan
from i2i.errors import I2IError, InputError, UsageError
from i2i.tools.planner import suggest
from i2i.training import estimate as costs
from i2i.training import launch, profile_step
from i2i.training.estimate import Cost, OutOfMemory
from i2i.training.launch import open_data, train
from i2i.training.options import options_class

ROOT = Path(__file__).parents[2]


SMALL: dict[str, Any] = {
    "data": Path("toy"),
    "crop_size": 32,
    "load_size": 32,
    "generator": "unet_32",
    "discriminator": "patchgan_16",
}
SMALL |= {"ngf": 4, "ndf": 4, "batch_size": 2, "workers": 0, "n_epochs": 1, "n_epochs_decay": 0}


def planned(algorithm, **changes):
    return options_class(algorithm, plan.Options)(**(SMALL | changes))


def test_a_training_measured(tmp_path, monkeypatch, capsys):
    """Against the training itself: as many steps, states of that size, and nothing left behind by planning it."""
    monkeypatch.chdir(tmp_path)
    options = planned(Pix2Pix, json=True, measure_steps=2, run=tmp_path / "run", cache=tmp_path / "cache", ema=0.9)
    plan.plan(Pix2Pix, options)
    printed = json.loads(capsys.readouterr().out)
    assert list(tmp_path.iterdir()) == []
    measured, computed = printed["cost"]["measured"], printed["cost"]["computed"]
    assert printed["algorithm"] == "pix2pix" and printed["tried"] == [] and printed["suggestion"] is None
    assert measured["shape"] == [2, 3, 32, 32] and measured["steps_measured"] == 2
    assert 0 < measured["seconds_waiting"] < measured["seconds_per_step"] < 60
    assert 50e6 < measured["unavoidable_bytes"] < measured["peak_bytes"] < 8e9
    assert computed["training_hours"] == pytest.approx(200 * measured["seconds_per_step"] / 3600)
    kind = options_class(Pix2Pix)
    wanted = kind(**(SMALL | {"run": tmp_path / "run", "max_steps": 1, "ema": 0.9, "sample_every": 999}))
    train(Pix2Pix, wanted)
    (state,) = (tmp_path / "run").glob("state-*.pt")
    (model,) = (tmp_path / "run").glob("a2b.safetensors")
    assert computed["steps"] == 200
    # beside the numbers a file holds their names; of so small networks these are not little
    assert 0 < state.stat().st_size - measured["state_bytes"] < 100_000
    assert 0 < model.stat().st_size - measured["model_bytes"] < 10_000


def test_a_full_pool_counts(monkeypatch):
    """A pool holds two fakes after two steps, and `pool_size` later on."""
    from i2i.training.profile_step import measure

    sizes = []
    for pool_size in (0, 30):
        kind = options_class(CycleGAN)
        sizes.append(measure(CycleGAN, kind(**(SMALL | {"batch_size": 1, "pool_size": pool_size})), 2, 9))
    assert sizes[1]["state_bytes"] - sizes[0]["state_bytes"] == 2 * 30 * 3 * 32 * 32 * 4


MEASURED = {
    "device": "cpu",
    "threads": 2,
    "seconds_per_step": 0.5,
    "seconds_waiting": 0.01,
    "slowest_step": 0.6,
    "steps_measured": 5,
    "shape": [1, 3, 256, 256],
    "seconds_per_look": 2.0,
    "peak_bytes": 3 * 10**9,
    "unavoidable_bytes": 10**9,
    "worker_bytes": 0,
    "state_bytes": 10**8,
    "model_bytes": 10**7,
    "models": 2,
    "images_per_step": 4,
    "total_images": 4001,
    "epoch_images": 1000,
    "sample_rows": 4,
    "validation_images": 50,
}


def test_costs_follow_from_the_measurement():
    options = options_class(CycleGAN)(validate_every=2, keep_last=2, keep_every=500)
    cost = Cost(options, MEASURED)
    assert cost.steps == 1001 and cost.training_hours == pytest.approx(1001 * 0.5 / 3600)
    assert cost.validation_hours == pytest.approx(3 * 50 * 2.0 / 3600)  # after the epochs 2 and 4, and at the end
    ends_with_an_epoch = Cost(options, MEASURED | {"total_images": 4000})
    assert ends_with_an_epoch.validation_hours == pytest.approx(2 * 50 * 2.0 / 3600)
    assert cost.sample_hours == pytest.approx((1 + 2 + 3) * 4 * 2.0 / 3600)  # the first step, every 500th, validations
    assert cost.hours == cost.training_hours + cost.validation_hours + cost.sample_hours
    # the last two, the best, every 500th of 1001, one being written; two model files, and the best two
    assert cost.disk_bytes == (2 + 1 + 2 + 1) * 10**8 + 2 * 10**7
    without = Cost(dataclasses.replace(options, validate_every=0, keep_every=0), MEASURED)
    assert without.validation_hours == 0 and without.disk_bytes == 3 * 10**8 + 10**7
    assert "1,001 steps" in "\n".join(plan.text("cyclegan", cost))


class Machine:
    """Takes a gigabyte, and two for the pictures of 256 px in a batch; half of those in bf16 or with low memory."""

    def __init__(self, least=0.0):
        self.asked, self.least = [], least

    def __call__(self, algorithm, options):
        self.asked.append(options)
        share = options.batch_size / options.micro_batches * (options.crop_size / 256) ** 2
        share *= (0.5 if options.precision == "bf16" else 1) * (0.5 if getattr(options, "low_memory", False) else 1)
        if share > 4:
            raise OutOfMemory("memory ran out")
        return Cost(options, MEASURED | {"peak_bytes": int(1e9 + 2e9 * max(share, self.least))})


def changes(limit, machine=None, **options):
    machine = machine or Machine()
    told = []
    tried = suggest(CycleGAN, options_class(CycleGAN)(**options), limit, told.append, machine)
    assert told == tried and len(machine.asked) == len(tried)
    fitting = [attempt for attempt in tried if attempt.fits]
    return (fitting[-1].changes if fitting else None), tried


def test_options_that_fit_are_left_alone():
    assert changes(3 * 10**9)[0] == {} and len(changes(3 * 10**9)[1]) == 1


def test_the_mildest_change_that_will_do():
    has_low_memory = hasattr(options_class(CycleGAN)(), "low_memory")
    found, tried = changes(int(2.1e9))
    assert found == ({"low_memory": True} if has_low_memory else {"precision": "bf16"})
    assert tried[0].changes == {} and not tried[0].fits and len(tried) == 2
    assert changes(int(3.1e9), batch_size=4, low_memory=True)[0] == {"micro_batches": 4}
    assert changes(int(2.1e9), batch_size=8, low_memory=True)[0] == {"micro_batches": 8}


def refused(options):
    """What networks and training refuse; as the trial tells it, by its exit code alone."""
    if options.low_memory and (options.compile or options.generator.startswith("unet")):
        return "low_memory"
    if options.batch_size % options.micro_batches:
        return "must divide"
    return ""


class Strict(Machine):
    """Refuses what cannot be."""

    def __call__(self, algorithm, options):
        if what := refused(options):
            error = I2IError(what)
            error.exit_code = UsageError.exit_code
            raise error
        return super().__call__(algorithm, options)


def test_changes_that_do_not_apply_are_skipped():
    assert changes(int(2.1e9), Strict(), generator="unet_256")[0] == {"precision": "bf16"}
    found, tried = changes(int(2.1e9), Strict())
    assert found == tried[-1].changes and tried[-1].flags == "--low-memory"
    found, _ = changes(int(2.1e9), Strict(), batch_size=2, micro_batches=2, precision="bf16", low_memory=True)
    assert found == {}
    found, _ = changes(int(2.1e9), Strict(), batch_size=4, micro_batches=2, low_memory=True)
    assert found == {"micro_batches": 4}
    _, tried = changes(int(1.5e9), Strict(), batch_size=2, micro_batches=2, precision="bf16", compile=True)
    assert tried[1].changes == {"batch_size": 1, "micro_batches": 1}
    assert not any("low_memory" in attempt.changes for attempt in tried)
    with pytest.raises(I2IError, match="must divide"):
        changes(int(2.1e9), Strict(), batch_size=3, micro_batches=2)


def test_a_limit_for_a_u_net():
    """Measured, for no stand-in refuses as the networks do; low memory, all that is left to try, does not apply."""

    def measure(algorithm, options):
        cost = costs.estimate(algorithm, options, 2, 1.0)
        return Cost(options, cost.measured | {"unavoidable_bytes": 0})

    options = options_class(Pix2Pix)(**(SMALL | {"batch_size": 1, "precision": "bf16"}))
    (as_it_is,) = suggest(Pix2Pix, options, 1, measure=measure)
    assert as_it_is.changes == {} and not as_it_is.fits


def test_a_smaller_crop_is_predicted_and_measured():
    found, tried = changes(int(1.2e9), precision="bf16", low_memory=True, load_size=286)
    crop = found["crop_size"]
    # 0.2 GB for the pictures where 256 px take 0.5: a crop of 158, less 5 % of the limit
    assert crop % 4 == 0 and 112 <= crop <= 158 and found["load_size"] == round(286 * crop / 256)
    assert len(tried) == 2 and "another training" in tried[-1].effect


def test_what_does_not_fit_the_machine_is_one_of_the_attempts():
    found, tried = changes(int(1.6e9), batch_size=16, low_memory=False)
    assert tried[0].cost is None and not tried[0].fits and plan.line(tried[0]) == "as it is: out of memory"
    assert found is not None and "crop_size" not in found


def test_a_limit_too_small_for_anything():
    with pytest.raises(UsageError, match=r"0\.90 GB are too little for anything.*1\.00 GB \(measured\)"):
        changes(9 * 10**8)
    found, tried = changes(int(1.01e9), Machine(least=0.1))
    assert found is None and len({attempt.changes.get("crop_size") for attempt in tried}) > 1


def test_the_advice(capsys, monkeypatch):
    monkeypatch.setattr(costs, "estimate", lambda algorithm, options, steps, seconds: Machine()(algorithm, options))
    plan.plan(CycleGAN, planned(CycleGAN, memory_limit="1.9GB", crop_size=256, load_size=256, batch_size=1))
    out = capsys.readouterr().out
    assert "as it is: 3.00 GB, does not fit; 0.5 s a step" in out and "        take --" in out
    always_too_much = Machine(least=0.5)
    monkeypatch.setattr(
        costs, "estimate", lambda algorithm, options, steps, seconds: always_too_much(algorithm, options)
    )
    with pytest.raises(UsageError, match=r"memory_limit = 1\.9GB: nothing that was tried fits, the least was 2\.00 GB"):
        plan.plan(CycleGAN, planned(CycleGAN, memory_limit="1.9GB", json=True))
    assert json.loads(capsys.readouterr().out)["suggestion"] is None


@pytest.mark.parametrize(
    ("text", "expected"), [("4GB", 4 * 10**9), ("900 MiB", 900 * 2**20), ("2.5g", 25 * 10**8), ("1e3", None)]
)
def test_amounts_of_memory(text, expected):
    if expected:
        assert plan.size(text) == expected
    for wrong in ("1e3", "much", "-4GB", "0GB", "4 GBit"):
        with pytest.raises(UsageError, match="such as 4GB or 900MiB"):
            plan.size(wrong)


@pytest.mark.parametrize(
    ("changed", "kind", "message"),
    [
        ({"data": None}, UsageError, "data: missing"),
        ({"data": Path("nowhere")}, InputError, "nowhere: no such folder"),
        ({"batch_size": 3, "micro_batches": 2}, UsageError, "must divide batch_size = 3"),
        ({"crop_size": 33}, UsageError, "crop_size = 33"),
        ({"n_epochs": 0}, UsageError, "nothing to train"),
        ({"compile": True, "low_memory": True}, UsageError, "compile = True: .* low_memory = True"),
        ({"lambda_structure": 1.0, "crop_size": 8, "generator": "resnet_1blocks"}, UsageError, "crop_size = 8"),
        ({"stop_when": "ssim>=0.9", "validate_every": 0}, UsageError, "follows the validation"),
    ],
)
def test_mistakes_are_those_of_the_training(changed, kind, message):
    with pytest.raises(kind, match=message):
        open_data(CycleGAN, options_class(CycleGAN)(**(SMALL | changed)))


def test_an_algorithm_that_compiling_does_not_help_refuses_it():
    with pytest.raises(UsageError, match="compile = True: cut runs its generator layer by layer"):
        open_data(CUT, options_class(CUT)(**(SMALL | {"compile": True})))


def test_a_missing_compiler_is_met_by_the_trial_too(monkeypatch):
    def missing(device):
        raise UsageError(f"no compiler for {device}")

    monkeypatch.setattr(launch, "check_compiler", missing)
    with pytest.raises(UsageError, match="no compiler for cpu"):
        profile_step.measure(CycleGAN, options_class(CycleGAN)(**(SMALL | {"compile": True, "device": "cpu"})), 2, 9)


@pytest.mark.parametrize(
    ("returncode", "stdout", "expected"),
    [
        (-9, "", (OutOfMemory, "was killed", 9)),
        (0, '{"out_of_memory": true}', (OutOfMemory, "memory ran out", 9)),
        (0, 'noise\n{"error": ["device = cuda: none"], "exit_code": 2}', (I2IError, "device = cuda: none", 2)),
        (1, "", (I2IError, "ended with 1:\nTraceback", 1)),
    ],
)
def test_a_trial_that_fails(monkeypatch, returncode, stdout, expected):
    done = SimpleNamespace(returncode=returncode, stdout=stdout, stderr="Traceback")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    kind, message, exit_code = expected
    with pytest.raises(kind, match=message) as caught:
        costs.estimate(CycleGAN, options_class(CycleGAN)(**SMALL))
    assert type(caught.value) is kind and caught.value.exit_code == exit_code


def test_the_algorithm_comes_first(monkeypatch, capsys):
    expected = "expected an algorithm first"
    for arguments, found in ((["cyclgan"], "Did you mean 'cyclegan'"), ([], expected), (["--json"], expected)):
        monkeypatch.setattr("sys.argv", ["plan.py", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main("plan")
        assert ended.value.code == 2 and found in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["plan.py", "--help"])
    with contextlib.suppress(SystemExit):
        cli.main("plan")
    assert "plan cyclegan --data" in capsys.readouterr().out
