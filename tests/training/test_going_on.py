"""Going on with a run: what counts as progress, what a state may hold, where it may lie."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from children import lines
from run_options import CycleGANRun, Pix2PixRun
from toy_folders import write_folder

from i2i.algorithms import CycleGAN, Pix2Pix
from i2i.algorithms.algorithm import ImagePool
from i2i.data.datasets import open_datasets
from i2i.errors import ModelError, OutputError, UsageError
from i2i.training import training_state
from i2i.training.launch import check_place, train
from i2i.training.log import LogFile
from i2i.training.options import RunOptions
from i2i.training.state_store import StateStore
from i2i.training.step import ProcessGroup, Progress
from i2i.training.trainer import Trainer
from i2i.training.validation import Validation

SMALL: dict[str, Any] = {
    "data": Path("toy"), "discriminator": "patchgan_16", "ngf": 4, "ndf": 4, "crop_size": 32, "load_size": 32,
    "workers": 0, "samples": 1, "validate_every": 0, "device": "cpu",
}  # fmt: skip


def pix2pix(run: Path, **options: Any) -> Pix2PixRun:
    return Pix2PixRun(run=run, generator="unet_32", **(SMALL | options))


def cyclegan(run: Path, **options: Any) -> CycleGANRun:
    return CycleGANRun(run=run, generator="resnet_1blocks", **(SMALL | options))


# Progress


def progress(epoch_length: int = 10, world_size: int = 1, **options: Any) -> Progress:
    return Progress(RunOptions(**options), epoch_length, world_size)


@pytest.mark.parametrize(("batch", "world"), [(4, 1), (1, 1), (3, 2)])
def test_max_steps_are_steps_whatever_came_before(batch: int, world: int) -> None:
    made = progress(batch_size=batch, world_size=world, max_steps=20, n_epochs=100)
    made.resume(step=10, images_seen=25)
    assert made.steps_left == 10 and made.total_images == 25 + 10 * batch * world
    for _ in range(10):
        assert not made.finished
        made.advance()
    assert (
        made.finished
        and made.step == 20
        and "max_steps = 20; to go on, give more max_steps, or None" in made.why_finished()
    )


def test_epochs_end_a_run_by_images() -> None:
    made = progress(batch_size=4, n_epochs=2, n_epochs_decay=1, max_steps=1000)
    assert (made.steps_left, made.total_images) == (8, 30)
    made.resume(step=30, images_seen=30)
    assert made.finished and "n_epochs" in made.why_finished()


@pytest.mark.parametrize(
    ("batch", "epoch", "every", "due"),
    [
        (1, 3, 1, [3, 6, 9]),
        (5, 3, 1, list(range(1, 11))),  # each step ends an epoch or two
        (4, 3, 2, [2, 3, 5, 6, 8, 9]),  # after 6, 12, 18, 24, 30 and 36 images
        (7, 10, 3, [5, 9]),
        (1, 3, 0, []),
    ],
)
def test_no_validation_is_skipped(batch: int, epoch: int, every: int, due: list[int]) -> None:
    made = progress(epoch, batch_size=batch, validate_every=every)
    found = []
    for _ in range(10):
        made.advance()
        found += [made.step] if made.validation_due() else []
    assert found == due


def test_a_run_ends_at_its_step_with_another_batch_size(tmp_path: Path) -> None:
    for batch, steps in ((2, 2), (1, 4), (4, 5)):
        train(Pix2Pix, pix2pix(tmp_path, batch_size=batch, max_steps=steps))
    assert [line["images"] for line in lines(tmp_path, "step")] == [2, 4, 5, 6, 10]
    train(Pix2Pix, pix2pix(tmp_path, max_steps=3))
    assert len(lines(tmp_path, "step")) == 5


# The plateau, and what else was switched off


def validation(**options: Any) -> Validation:
    held_out: Any = SimpleNamespace(algorithm=Pix2Pix, palettes={}, pictures=object())
    return Validation(RunOptions(**options), held_out, Any, Any)  # type: ignore[arg-type]


def test_a_plateau_s_factor_is_of_its_policy_and_its_learning_rate() -> None:
    fallen = validation(lr_policy="plateau", lr=1e-3)
    fallen.kept.plateau.factor = 0.04
    state = fallen.state() | {"step": 1}

    def resumed(**options: Any) -> float:
        one = validation(**options)
        one.load_state(state)
        return one.kept.plateau.factor

    assert resumed(lr_policy="plateau", lr=1e-3) == 0.04
    assert resumed(lr_policy="plateau", lr=2e-3) == 1, "a rate that is given anew is the one that holds"
    assert resumed(lr_policy="constant", lr=1e-3) == 1
    back = validation(lr_policy="constant", lr=1e-3)
    back.load_state(state)
    assert back.state()["plateau"]["factor"] == 1, "nor does it come back"


def test_whether_the_measured_weights_were_above_the_floor_is_kept() -> None:
    """A run that goes on with a lower floor does not take for its best what no state was saved as."""
    below = validation(best_floor="luminance_ssim=0.5")
    below.take({"l1": 0.1, "luminance_ssim": 0.4}, 3)
    lower = validation(best_floor="luminance_ssim=0.3")
    lower.load_state(below.state() | {"step": 3})
    assert lower.score_at(3) is None and lower.metrics_at(3) == {"l1": 0.1, "luminance_ssim": 0.4}
    lower.take({"l1": 0.2, "luminance_ssim": 0.4}, 6)
    assert lower.score_at(6) == 0.2


def test_a_validation_that_is_due_is_not_made_where_it_was_turned_off() -> None:
    due = validation()
    due.schedule()
    state = due.state() | {"step": 1}
    off = validation(validate_every=0)
    off.load_state(state)
    assert state["validation_due"] and not off.kept.validation_due


# Pools


def test_a_pool_goes_on_in_another_size_and_precision() -> None:
    pool = ImagePool(3)
    saved = [torch.zeros(3, 16, 16), torch.ones(3, 32, 32, dtype=torch.bfloat16), torch.ones(3, 32, 16)]
    pool.load_state(saved, torch.device("cpu"), one_size=True)
    pool(torch.full((1, 3, 32, 32), 0.5))
    assert [(tuple(image.shape), float(image.max())) for image in pool.images] == [((3, 32, 32), 1), ((3, 32, 32), 0.5)]
    pool.load_state([saved[1]] * 3, torch.device("cpu"), one_size=True)
    torch.manual_seed(0)
    for _ in range(20):
        out = pool(torch.zeros(2, 3, 32, 32))
        assert out.dtype == torch.float32 and out.shape == (2, 3, 32, 32)
    pool.load_state(saved, torch.device("cpu"))
    pool(torch.zeros(1, 3, 32, 32))
    assert any(image.shape != (3, 32, 32) for image in pool.images), "where pictures are of all sizes"


def test_a_run_goes_on_with_another_crop_and_precision(tmp_path: Path) -> None:
    given: dict[str, Any] = {"batch_size": 2, "pool_size": 2, "crop_size": 16, "load_size": 16}
    train(CycleGAN, cyclegan(tmp_path, **given, precision="bf16", max_steps=2))
    train(CycleGAN, cyclegan(tmp_path, **given | {"crop_size": 32, "load_size": 32}, max_steps=4))
    assert [line["step"] for line in lines(tmp_path, "step")] == [1, 2, 3, 4]


# StateStore with a right hash


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "run"
    train(CycleGAN, cyclegan(folder, crop_size=16, load_size=16, ema=0.9, pool_size=2, max_steps=2))
    return folder


def first(mapping: dict[str, Any]) -> str:
    return next(iter(mapping))


def claim() -> torch.Tensor:
    """A tensor of 10^12 numbers, of which there is one."""
    return torch.zeros(1).expand(10**6, 10**6)


def at(*path: Any, value: Any = None) -> Callable[[dict[str, Any]], None]:
    """A function that puts `value` there; a place named None is the first one."""

    def change(state: dict[str, Any]) -> None:
        place: Any = state
        for key in path[:-1]:
            place = place[first(place) if key is None else key]
        key = first(place) if path[-1] is None else path[-1]
        place[key] = value(place[key]) if callable(value) else value

    return change


def without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda state: state.pop(name)


MUTATIONS: dict[str, Callable[[dict[str, Any]], Any]] = {
    **{f"no {name}": without(name) for name in ("architecture", "networks", "training", "pools", "step", "plateau")},
    "networks a list": at("networks", value=[]),
    "architecture a list": at("architecture", value=[1]),
    "architecture of a number": at("architecture", "G_AB", value=3),
    "step a word": at("step", value="x"),
    "step below 0": at("step", value=-5),
    "step of another": at("step", value=10**9),
    "step true": at("step", value=True),
    "images a word": at("images_seen", value="a"),
    "images none": at("images_seen", value=0),
    "pools none": at("pools", value=None),
    "pools empty": at("pools", value=[]),
    "pools of another name": at("pools", value=[{"other": []}]),
    "pools of numbers": at("pools", value=[{"fakes_A": [1]}]),
    "pool of no image": at("pools", 0, None, value=[torch.zeros(3)]),
    "ema expanded": at("ema", "a2b", value={"a": claim()}),
    "updates of the averages a word": at("ema", "updates", value="x"),
    "updates of the averages weights": at("ema", "updates", value={}),
    "averages a number": at("ema", "a2b", value=3),
    "ema of another": at("ema", value={"x": {}}),
    "ema of another shape": at("ema", "a2b", None, value=torch.zeros(2)),
    "weight expanded": at("networks", "G_AB", None, value=claim()),
    "weight sparse": at("networks", "G_AB", None, value=lambda w: w.to_sparse()),
    "weight not finite": at("networks", "G_AB", None, value=lambda w: w * float("nan")),
    "moment not finite": at(
        "training", "optimizers", "generator", "state", 0, "exp_avg", value=lambda m: m + torch.inf
    ),
    "training wrong": at("training", value={"a": 1}),
    "no optimizer": at("training", "optimizers", value={}),
    "moments of another shape": at("training", "optimizers", "generator", "state", 0, "exp_avg", value=torch.zeros(1)),
    "moments of further weights": at("training", "optimizers", "generator", "state", 999, value={}),
    "groups missing": at("training", "optimizers", "generator", "param_groups", value=[]),
    "groups of others": at("training", "optimizers", "generator", "param_groups", 0, "params", value=[5]),
    "scale of another shape": at("training", "loss_scale", "scale", value=torch.zeros(7)),
    "health wrong": at("health", value={"x": 1}),
    "episode wrong": at("health", "episodes", value={"a": ["x"]}),
    "losses that do not agree": at("health", "not_learning", "begun", value={"a": [1.0]}),
    "skipped a number": at("skipped_images", value=5),
    "plateau wrong": at("plateau", "factor", value="x"),
    "plateau above 1": at("plateau", "factor", value=1e9),
    "measured wrong": at("measured", value=[1]),
    "measured of words": at("measured", value=[2, {"l1": "x"}]),
    "best a word": at("best_metric", value="x"),
    "pictures wrong": at("pictures", value={"lists": 3}),
    "epoch of none": at("pictures", "epoch", value=0),
    "rules wrong": at("pictures", "rules", value={"classes_b": 3}),
    "pictures of one dimension": at("pictures", "lists", value={"training pictures of A": torch.zeros(3)}),
    "pictures of no content": at("pictures", "lists", value={"a": torch.zeros(4, 2, dtype=torch.int64)}),
    "pictures in fractions": at("pictures", "lists", value={"a": torch.zeros(4, 3)}),
    "weight of truth values": at("networks", "G_AB", None, value=lambda w: w > 0),
    "average of whole numbers": at("ema", "a2b", None, value=lambda w: w.long()),
    "step of a moment true": at("training", "optimizers", "generator", "state", 0, "step", value=torch.tensor(True)),
    "moment of whole numbers": at(
        "training", "optimizers", "generator", "state", 0, "exp_avg", value=lambda m: m.long()
    ),
}


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """A trainer that refuses what it is given, and so can be asked again."""
    options = cyclegan(
        tmp_path_factory.mktemp("untouched"), crop_size=16, load_size=16, ema=0.9, pool_size=2, max_steps=3
    )
    torch.manual_seed(0)
    return Trainer(CycleGAN(options), open_datasets(options, False), options, ProcessGroup("cpu"))


def restored(trainer: Trainer, state: dict[str, Any]) -> list[str]:
    training_state.check(2, state, trainer.train_step, trainer.options.direction)
    return trainer.checkpointer.load_state(state, {})


@pytest.mark.promise("R3")
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_state_with_the_right_hash_and_wrong_contents(name: str, saved: Path, untouched: Trainer) -> None:
    _, state = StateStore(saved).latest() or (0, {})
    MUTATIONS[name](state)
    before = [weight.clone() for net in untouched.algorithm.networks().values() for weight in net.parameters()]
    with pytest.raises(ModelError) as refused:
        restored(untouched, state)
    assert refused.value.exit_code == 5 and len(str(refused.value)) < 1500
    after = [weight for net in untouched.algorithm.networks().values() for weight in net.parameters()]
    assert all(map(torch.equal, before, after)), "nothing has changed"


def test_the_state_as_it_is_fits(saved: Path, tmp_path: Path) -> None:
    _, state = StateStore(saved).latest() or (0, {})
    options = cyclegan(tmp_path, crop_size=16, load_size=16, ema=0.9, pool_size=2, max_steps=3)
    trainer = Trainer(CycleGAN(options), open_datasets(options, False), options, ProcessGroup("cpu"))
    assert restored(trainer, state) == []


@pytest.mark.promise("R3")
def test_what_an_optimizer_does_is_not_for_a_state_to_say(saved: Path, tmp_path: Path) -> None:
    _, state = StateStore(saved).latest() or (0, {})
    for optimizer in state["training"]["optimizers"].values():
        (group,) = optimizer["param_groups"]
        optimizer["param_groups"] = [{"params": group["params"], "amsgrad": True, "foreach": [1], "betas": "x"}]
    options = cyclegan(tmp_path, crop_size=16, load_size=16, ema=0.9, pool_size=2, max_steps=3)
    trainer = Trainer(CycleGAN(options), open_datasets(options, False), options, ProcessGroup("cpu"))
    own = {name: dict(player.optimizer.param_groups[0]) for name, player in trainer.train_step.players.items()}
    assert restored(trainer, state) == []
    for name, player in trainer.train_step.players.items():
        now = player.optimizer.param_groups[0]
        assert {key: now[key] for key in now if key != "params"} == {
            k: own[name][k] for k in own[name] if k != "params"
        }
        player.optimizer.step()


def test_other_data_are_refused_before_anything_changes(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    write_folder(photos, "unpaired", count=4, size=16)
    options = cyclegan(tmp_path / "run", data=photos, crop_size=16, load_size=16, max_steps=1)
    train(CycleGAN, options)
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.suffix in (".yaml", ".jsonl")}
    other = tmp_path / "other"
    write_folder(other, "unpaired", count=4, size=32, seed=7)
    with pytest.raises(ModelError, match="these are other pictures"):
        train(CycleGAN, replace(options, data=other, max_steps=2))
    assert {path: path.read_bytes() for path in before} == before
    train(CycleGAN, replace(options, data=photos.rename(tmp_path / "moved"), max_steps=2))
    assert len(lines(tmp_path / "run", "step")) == 2


# Where a run lies


@pytest.mark.parametrize(
    ("data", "run"),
    [
        ("photos", "photos/run"),
        ("photos", "photos"),
        ("photos", "photos/trainA/run"),
        ("photos", "photos/new/run"),
        (".", "."),
        (".", "runs/x"),
        ("photos", "link/run"),
        ("link", "photos/run"),
        ("linked", "elsewhere/run"),
        ("run/samples", "run"),
        ("run/samples/x", "run"),
    ],
)
@pytest.mark.parametrize("option", ["data", "paired_data"])
def test_a_run_within_its_data_is_refused(
    option: str, data: str, run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("photos/trainA", "linked", "elsewhere", "run/samples/x"):
        Path(folder).mkdir(parents=True)
    Path("link").symlink_to("photos")
    Path("linked/train").symlink_to(tmp_path / "elsewhere")
    given: dict[str, Any] = {option: Path(data)}
    with pytest.raises(UsageError, match=r"run = |--run"):
        check_place(RunOptions(run=Path(run), **given))


def test_a_run_beside_its_data_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "photos", "unpaired", count=1, size=16)
    for run, data in (("photos_run", "photos"), ("run", "photos"), (".", "photos"), ("run", "toy"), ("run", "a.csv")):
        check_place(RunOptions(run=Path(run), data=Path(data)))


def test_it_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    write_folder(tmp_path / "photos", "unpaired", count=1, size=16)
    with pytest.raises(UsageError, match="lies within data"):
        train(CycleGAN, cyclegan(tmp_path / "photos" / "run", data=tmp_path / "photos"))
    assert not (tmp_path / "photos" / "run").exists()


@pytest.mark.parametrize("name", [b"\xe9t\xe9", b"run \xff", "ü\n'\"".encode()])
def test_any_name_of_a_run_and_of_its_data(name: bytes, tmp_path: Path) -> None:
    odd = os.fsdecode(name)
    data = tmp_path / f"data {odd}"
    write_folder(data, "unpaired", count=1, size=16)
    options = cyclegan(tmp_path / odd, data=data, crop_size=16, load_size=16, max_steps=1)
    for steps in (1, 2):
        train(CycleGAN, replace(options, max_steps=steps))
    assert len(lines(tmp_path / odd, "step")) == 2
    assert (tmp_path / odd / "command.txt").exists() and (tmp_path / odd / "a2b.safetensors").exists()
    assert not [line for line in lines(tmp_path / odd, "event") if "data was" in line["text"]], "it is read back"


# The log


def log_of(path: Path, *given: bytes, step: int = 5) -> list[dict[str, Any]]:
    path.write_bytes(b"".join(given))
    LogFile(path, step).close()
    return [json.loads(line) for line in path.read_bytes().splitlines()]


WHOLE = b'{"kind": "step", "step": 3}\n'


@pytest.mark.promise("R18")
@pytest.mark.parametrize(
    "torn", [b'{"kind": "step", "step": 4', b'{"kind": "step", "step": 4}', b"{", b'{"step": 4}\r']
)
def test_a_torn_last_line_is_dropped(torn: bytes, tmp_path: Path) -> None:
    assert log_of(tmp_path / "log.jsonl", WHOLE, torn) == [json.loads(WHOLE)]


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"step": ' + b"1" * 5000 + b"}",
        b'{"step": "1"}',
        b'{"step": true}',
        b'{"step": null}',
        b'{"kind": "step"}',
        b"[1]",
        b"\xff\xfe",
        b"",
    ],
    ids=lambda line: line[:12].decode(errors="replace"),
)
def test_invalid_lines_of_a_log_are_dropped(line: bytes, tmp_path: Path) -> None:
    assert log_of(tmp_path / "log.jsonl", WHOLE, line + b"\n", WHOLE) == [json.loads(WHOLE)] * 2


@contextlib.contextmanager
def watched(monkeypatch: pytest.MonkeyPatch, log: Path) -> Iterator[list[tuple[str, int]]]:
    """For each state that is put in its place: its name, and how many bytes of the log were not on the disk then."""
    synced, found = [0], list[tuple[str, int]]()
    fsync, put = os.fsync, os.replace

    def syncing(descriptor: int) -> None:
        fsync(descriptor)
        if log.exists() and os.fstat(descriptor).st_ino == log.stat().st_ino:
            synced[0] = os.fstat(descriptor).st_size

    def replacing(source: Any, target: Any) -> None:
        if str(target).endswith(".pt"):
            found.append((Path(target).name, log.stat().st_size - synced[0]))
        put(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", syncing)
        patch.setattr("os.replace", replacing)
        yield found


@pytest.mark.promise("R1", "R18")
def test_the_log_is_on_the_disk_before_a_state_that_follows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with watched(monkeypatch, tmp_path / "log.jsonl") as states:
        train(Pix2Pix, pix2pix(tmp_path, max_steps=3, save_every=1, log_every=1))
    assert states == [("state-00000001.pt", 0), ("state-00000002.pt", 0), ("state-00000003.pt", 0)]


@pytest.mark.promise("R5")
@pytest.mark.parametrize("name", ["config.yaml", "log.jsonl", ".lock", "state-00000001.json"])
def test_a_pipe_in_the_run_folder_is_not_waited_for(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    if name.startswith("state-"):
        with pytest.raises(ModelError, match=r"its manifest .* is damaged"):
            StateStore(tmp_path).latest()
        return
    with pytest.raises(OutputError, match="no regular file is there already"):
        train(Pix2Pix, pix2pix(tmp_path, max_steps=1))


# Files of states


@pytest.mark.promise("R3")
def test_a_state_s_size_and_hash_are_both_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = StateStore(tmp_path)
    states.save(1, {"step": 1})
    entry = json.loads(states.manifest(1).read_text())
    states.manifest(1).write_text(json.dumps(entry | {"size": entry["size"] + 1}))
    with pytest.raises(ModelError, match=rf"{entry['size']} bytes, not {entry['size'] + 1}"):
        states.latest()
    states.manifest(1).write_text(json.dumps(entry | {"sha256": "0" * 64}))
    with pytest.raises(ModelError, match="do not match its SHA-256"):
        states.latest()
    states.manifest(1).write_text(json.dumps(entry))
    states.path(1).write_bytes(states.path(1).read_bytes()[:-1])
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("the size tells already"))
    with pytest.raises(ModelError, match="bytes, not"):
        states.latest()


@pytest.mark.promise("R5")
def test_a_state_that_i2i_did_not_write_is_never_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states, foreign = StateStore(tmp_path, keep_last=1), {}
    for step in (1, 3, 4):
        states.path(step).write_bytes(b"somebody's %d" % step)
        foreign[step] = states.path(step).read_bytes()
    states.save(2, {"step": 2})
    states.save(3, {"step": 3})  # in whose place there is one
    with monkeypatch.context() as patch:
        patch.setattr("torch.save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OutputError):
            states.save(4, {"step": 4})
    states.save(5, {"step": 5})
    kept = {path.read_bytes() for path in tmp_path.glob("state-*.pt*")}
    assert set(foreign.values()) <= kept
    assert states.steps() == [5]
