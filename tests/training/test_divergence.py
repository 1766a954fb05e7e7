"""Numbers that are not finite: skipped and counted, never kept, and an end if there is no end to them."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import test_contract as contract
import torch
from children import lines, run, start, status
from faults import BreakWeights, NotANumber

from i2i.algorithms import ALGORITHMS, CycleGAN
from i2i.algorithms.algorithm import Algorithm
from i2i.data.pair import ImagePair
from i2i.training.schedule import TrainingOptions
from i2i.training.state_store import StateStore, tensors
from i2i.training.step import EMA, LossScale, ProcessGroup, TrainingStep, seed_step

SMALL = {
    "pix2pix": {"generator": "unet_32"},
    "cyclegan": {"pool_size": 4},
    "cut": {"nce_layers": "0,4", "num_patches": 8},
}


def build(name: str) -> Algorithm:
    return contract.build(name, norm="batch", **SMALL.get(name, {}))


def batch(name: str, seed: int) -> ImagePair:
    return contract.batch(name, seed=seed)


def memory(algorithm: Algorithm, step: TrainingStep) -> dict[str, Any]:
    """All that training changes, but for the counters of bad steps."""
    networks = {name: network.state_dict() for name, network in algorithm.networks().items()}
    return copy.deepcopy({"networks": networks, "optimizers": step.state()["optimizers"]})


def same(a: Any, b: Any) -> bool:
    return all(
        torch.equal(x, y) if x.is_floating_point() else True for x, y in zip(tensors(a), tensors(b), strict=True)
    )


@pytest.mark.promise("R8")
@pytest.mark.parametrize(("name", "bad"), [*((name, float("nan")) for name in ALGORITHMS), ("cyclegan", float("inf"))])
def test_a_bad_batch_changes_nothing(name: str, bad: float) -> None:
    algorithm = build(name)
    step = TrainingStep(algorithm, TrainingOptions(), ProcessGroup("cpu"))
    averages = EMA(algorithm.translators(), 0.5)
    step(batch(name, 0), 0)
    averages.update()
    before, means = memory(algorithm, step), copy.deepcopy(averages.state())

    damaged = batch(name, 1)
    damaged.a.flatten(1)[0, 3] = bad
    losses = step(damaged, 1)
    assert float(losses["skipped"]) == len(algorithm.players())
    assert float(step.bad_in_a_row) == 1
    assert same(memory(algorithm, step), before), "weights, buffers of batch norm, moments of Adam"
    averages.update()
    assert all(bool(torch.isfinite(t).all()) for t in tensors(averages.state()) if t.is_floating_point())
    for pool in algorithm.pools().values():
        assert all(bool(torch.isfinite(image).all()) for image in pool.images)
    assert not same(means, averages.state()), "the average goes on towards the weights"

    losses = step(batch(name, 2), 2)
    assert float(losses["skipped"]) == 0 and float(step.bad_in_a_row) == 0
    assert not same(memory(algorithm, step), before)


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_after_a_bad_batch_training_is_as_if_it_had_not_been(name: str) -> None:
    """Without a pool, which has seen the fakes of the bad batch."""
    weights = []
    for with_bad in (False, True):
        algorithm = build(name)
        for pool in algorithm.pools().values():
            pool.size = 0
        step = TrainingStep(algorithm, TrainingOptions(), ProcessGroup("cpu"))
        for i in range(4):
            if with_bad and i == 2:
                step(ImagePair(batch(name, 9).a * float("nan"), batch(name, 9).b), i)
            seed_step(0, i)
            step(batch(name, i), i)
        weights.append(memory(algorithm, step))
    assert same(*weights)


def test_one_bad_player_does_not_stop_the_other() -> None:
    class HalfBad(CycleGAN):
        def losses(self, batch: ImagePair, step: int) -> Any:
            for player, losses in super().losses(batch, step):
                if player == "discriminator":
                    losses.update({name: loss * float("nan") for name, loss in losses.items() if "D_A" in name})
                yield player, losses

    torch.manual_seed(0)
    algorithm = HalfBad(contract.options_of("cyclegan", norm="batch"))
    before = copy.deepcopy(algorithm.networks())
    step = TrainingStep(algorithm, TrainingOptions(), ProcessGroup("cpu"))
    losses = step(batch("cyclegan", 0), 0)
    assert float(losses["skipped"]) == 1
    after = algorithm.networks()
    changed = {n for n in after if not all(map(torch.equal, after[n].parameters(), before[n].parameters()))}
    assert changed == {"G_AB", "G_BA"}


@pytest.mark.promise("R8")
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_either_the_loss_or_the_gradients_are_enough(where: str) -> None:
    class Odd(CycleGAN):
        def losses(self, batch: ImagePair, step: int) -> Any:
            for player, losses in super().losses(batch, step):
                name, weight = next(iter(losses)), next(self.networks()["D_A"].parameters()).flatten()[0]
                if player == "discriminator" and where == "loss":
                    losses[name] = losses[name] + float("inf")  # a constant: no gradient knows of it
                elif player == "discriminator":
                    losses[name] = losses[name] + (weight - weight.detach()).abs().sqrt()  # 0, of no finite slope
                yield player, losses

    torch.manual_seed(0)
    algorithm = Odd(contract.options_of("cyclegan", norm="batch"))
    before = copy.deepcopy(algorithm.networks()["D_A"].state_dict())
    step = TrainingStep(algorithm, TrainingOptions(), ProcessGroup("cpu"))
    losses = step(batch("cyclegan", 0), 0)
    assert float(losses["skipped"]) == 1
    assert same(algorithm.networks()["D_A"].state_dict(), before)


def test_the_loss_scale_of_fp16_falls_and_rises() -> None:
    scale = LossScale("fp16", torch.device("cpu"))
    start = float(scale.scale)
    scale.update(torch.tensor(1.0))
    assert float(scale.scale) == start / 2
    for _ in range(2000):
        scale.update(torch.tensor(0.0))
    assert float(scale.scale) == start
    again = LossScale("fp16", torch.device("cpu"))
    again.load_state(scale.state())
    assert float(again.scale) == start and float(again.good) == 0


def test_an_overflow_in_fp16_halves_the_scale_and_changes_nothing() -> None:
    algorithm = build("cyclegan")
    step = TrainingStep(algorithm, TrainingOptions(precision="fp16"), ProcessGroup("cpu"))
    step.loss_scale.scale.fill_(2.0**120)
    before = memory(algorithm, step)["networks"]
    step(batch("cyclegan", 0), 0)
    assert float(step.bad_in_a_row) == 1
    assert same(memory(algorithm, step)["networks"], before)
    assert float(step.loss_scale.scale) < 2.0**120


@pytest.mark.promise("R8")
def test_a_bad_step_is_in_the_log(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = "--norm batch --ema 0.9 --max-steps 8 --save-every 1 --keep-every 1 --workers 0"
    run("cyclegan", folder, options, NotANumber(first=4, last=4))
    steps = lines(folder, "step")
    assert [line["step"] for line in steps if line.get("skipped")] == [5]
    assert steps[4]["losses"]["gan_AB"] is None and steps[5]["losses"]["gan_AB"] is not None
    (line,) = lines(folder, "health")
    assert (line["step"], line["name"], line["pictures"]) == (5, "non-finite values", ["sample 4"])
    assert line["text"].endswith("step skipped; its pictures: sample 4")
    states = StateStore(folder)
    assert 5 not in states.steps(), "a state is saved once a step was good again"
    assert {4, 6, 8} <= set(states.steps())
    for step in states.steps():
        state = torch.load(states.path(step), weights_only=True)
        assert all(bool(torch.isfinite(t).all()) for t in tensors(state) if t.is_floating_point())


@pytest.mark.promise("R8")
def test_an_end_after_too_many_bad_steps(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = "--max-steps 40 --save-every 2 --log-every 1 --max-bad-steps 5 --workers 0"
    child = start("cyclegan", folder, options, [NotANumber(first=6, last=99)])
    assert child.wait() == 8, child.said()
    assert "training diverged at step 11: 5 steps in a row were not finite, from step 7 on (sample 6);" in child.said()
    assert child.said().count("step skipped; its pictures: sample ") == 1, "an episode is said once"
    assert f"the last good state is {folder}/state-00000006.pt" in child.said()
    assert StateStore(folder).steps()[-1] == 6
    assert status(folder)["status"] == "diverged"
    assert len(lines(folder, "step")) == 11


def test_a_learning_rate_that_explodes(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = "--lr 1e9 --norm none --max-steps 400 --save-every 1 --log-every 1 --max-bad-steps 5 --workers 0"
    child = start("cyclegan", folder, options)
    assert child.wait() == 8, child.said()
    assert f"the last good state is {folder}/state-" in child.said()
    for path in folder.glob("state-*.pt"):
        state = torch.load(path, weights_only=True)
        assert all(bool(torch.isfinite(t).all()) for t in tensors(state) if t.is_floating_point())


@pytest.mark.promise("R8")
def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    child = start("cyclegan", folder, "--max-steps 9 --save-every 2 --workers 0", [BreakWeights(after=5)])
    assert child.wait() == 8, child.said()
    assert "not finite" in child.said() and f"the last good state is {folder}/state-00000004.pt" in child.said()
    assert StateStore(folder).steps() == [2, 4]
    json.dumps(lines(folder, "step"), allow_nan=False)
