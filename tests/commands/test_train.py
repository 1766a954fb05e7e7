"""The costs of a training: measured in a process of its own, computed for the whole, and made to fit a limit."""

import contextlib
import dataclasses
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from i2i import cli
from i2i.algorithms import CUT, GAN, CycleGAN, Distill, Pix2Pix, Pix2PixHD
from i2i.commands.train import PlanCommand, plan, size
from i2i.commands.train import text as shown
from i2i.errors import I2IError, InputError, UsageError, on_command_line
from i2i.training import estimate as costs
from i2i.training import launch
from i2i.training.estimate import Cost, OutOfMemory
from i2i.training.launch import open_data, train
from i2i.training.options import less_memory, options_class

SMALL: dict[str, Any] = {
    "data": Path("toy"),
    "crop_size": 32,
    "load_size": 32,
    "generator": "unet_32",
    "discriminator": "patchgan_16",
}
SMALL |= {"ngf": 4, "ndf": 4, "batch_size": 2, "workers": 0, "n_epochs": 1, "n_epochs_decay": 0}


def planned(algorithm, **changes):
    return options_class(algorithm, PlanCommand)(**(SMALL | changes))


def test_a_training_measured(tmp_path, monkeypatch, capsys):
    """Against the training itself: as many steps, states of that size, and nothing left behind by planning it."""
    monkeypatch.chdir(tmp_path)
    options = planned(Pix2Pix, json=True, measure_steps=2, run=tmp_path / "run", cache=tmp_path / "cache", ema=0.9)
    plan("pix2pix", options)
    printed = json.loads(capsys.readouterr().out)
    assert list(tmp_path.iterdir()) == []
    measured, computed = printed["cost"]["measured"], printed["cost"]["computed"]
    assert printed["algorithm"] == "pix2pix" and printed["fits"] and printed["tips"]
    assert measured["shape"] == [2, 3, 32, 32] and measured["steps_measured"] == 2
    assert 0 < measured["seconds_waiting"] < measured["seconds_per_step"] < 60
    assert 50e6 < measured["peak_bytes"] < 8e9
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
    sizes = []
    for pool_size in (0, 30):
        kind = options_class(CycleGAN)
        sizes.append(costs.profile(CycleGAN, kind(**(SMALL | {"batch_size": 1, "pool_size": pool_size})), 2, 9))
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
    assert "1,001 steps" in "\n".join(shown("cyclegan", cost))


def tips(algorithm=CycleGAN, **given):
    options = options_class(algorithm)(**given)
    with on_command_line():
        return list(less_memory(options, options.batch_size))


def test_tips_are_options_that_are_not_set_yet():
    smaller = ["a --crop-size below 256", "--ngf 32 --ndf 32"]
    assert tips() == ["--low-memory", "--precision bf16", *smaller]
    assert tips(batch_size=8) == ["--low-memory", "--micro-batches 2", "--precision bf16", "--batch-size 1", *smaller]
    assert tips(compile=True, precision="bf16", preprocess="none") == ["smaller pictures", smaller[1]]


def test_tips_are_options_that_the_training_accepts():
    assert "--low-memory" in tips(Pix2PixHD) and "--low-memory" not in tips(Pix2PixHD, low_memory=True)
    assert "--low-memory" not in tips(Pix2Pix) and "--low-memory" not in tips(GAN)
    assert "--low-memory" in tips(Distill) and "--low-memory" not in tips(Distill, generator="unet_256")
    assert "--batch-size 1 --micro-batches 1" in tips(batch_size=8, micro_batches=4)
    assert tips(Pix2PixHD)[-1] == "--ndf 32" and tips(ngf=16)[-1] == "--ndf 32" and tips(ndf=32)[-1] == "--ngf 32"
    assert not any("--ngf" in tip for tip in tips(ngf=32, ndf=32))
    assert not any("--ngf" in tip or "--ndf" in tip for tip in tips(Distill)), "no discriminator is trained"


@pytest.mark.parametrize("as_json", [False, True])
def test_a_limit(capsys, monkeypatch, as_json):
    monkeypatch.setattr(costs, "estimate", lambda algorithm, options, steps, seconds: Cost(options, MEASURED))
    plan("cyclegan", planned(CycleGAN, memory_limit="3GB", json=as_json))
    assert not as_json or json.loads(capsys.readouterr().out)["fits"]
    with pytest.raises(UsageError, match=r"memory_limit = 2\.9GB: the training takes 3\.00 GB.*\nmicro_batches=2: "):
        plan("cyclegan", planned(CycleGAN, memory_limit="2.9GB", json=as_json))
    assert not as_json or json.loads(capsys.readouterr().out)["fits"] is False


def test_a_training_that_the_machine_cannot_hold(capsys, monkeypatch):
    def too_large(*_):
        raise OutOfMemory("memory ran out")

    monkeypatch.setattr(costs, "estimate", too_large)
    with pytest.raises(OutOfMemory):
        plan("cyclegan", planned(CycleGAN))
    with pytest.raises(UsageError, match="takes more than this machine has"):
        plan("cyclegan", planned(CycleGAN, memory_limit="3GB"))
    assert "does not fit into this machine's memory" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "expected"), [("4GB", 4 * 10**9), ("900 MiB", 900 * 2**20), ("2.5g", 25 * 10**8), ("1e3", None)]
)
def test_amounts_of_memory(text, expected):
    if expected:
        assert size(text) == expected
    for wrong in ("1e3", "much", "-4GB", "0GB", "4 GBit"):
        with pytest.raises(UsageError, match="such as 4GB or 900MiB"):
            size(wrong)


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
        costs.profile(CycleGAN, options_class(CycleGAN)(**(SMALL | {"compile": True, "device": "cpu"})), 2, 9)


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
