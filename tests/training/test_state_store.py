"""Training states on disk: whole or not at all, damage noticed, only their own files deleted, full disks survived."""

import os
import shutil
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from children import digest, lines, run, save_in_child, start, status, strays
from disks import FilesUpTo
from faults import AtCall, Refuse, RefuseLog, die
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from i2i.errors import ModelError
from i2i.training.state_store import StateStore

STEPS = (10, 20, 30)


def content(step: int) -> dict[str, Any]:
    return {"step": step, "weights": torch.arange(1000.0) + step}


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the states of three steps."""
    folder = tmp_path_factory.mktemp("three")
    for step in STEPS:
        StateStore(folder, keep_last=3).save(step, content(step))
    return folder


def latest(folder: Path) -> int | None:
    """The step of the newest usable state, after a look at what it holds."""
    found = StateStore(folder).latest()
    if found is None:
        return None
    step, state = found
    assert torch.equal(state["weights"], content(step)["weights"])
    return step


@pytest.mark.promise("R2")
def test_every_prefix_of_a_save_leaves_the_state_before(tmp_path: Path) -> None:
    reached, number = [], 1
    while True:
        folder = tmp_path / str(number)
        folder.mkdir()
        StateStore(folder, keep_last=1).save(10, content(10))
        code = save_in_child(folder, 20, content(20), [AtCall(number, die)])
        assert code in (0, -signal.SIGKILL)
        reached.append(latest(folder))
        assert reached[-1] in (10, 20)
        StateStore(folder, keep_last=1).save(
            30, content(30)
        )  # what the kill left is cleared away, but for one temporary
        assert sorted(p.name for p in folder.glob("state-*")) == ["state-00000030.json", "state-00000030.pt"]
        if code == 0:
            break
        number += 1
    assert number > 15
    assert reached == sorted(reached) and reached[0] == 10, "the new state counts from one call on"  # type: ignore[type-var]


class Order:
    """The calls to the file system are in this order; a kill does not lose what a power cut would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        for name, said in (("fsync", self.synced), ("replace", self.renamed), ("unlink", self.removed)):
            monkeypatch.setattr(os, name, self._telling(getattr(os, name), said))

    def _telling(self, original: Callable[..., Any], said: Callable[..., str]) -> Callable[..., Any]:
        def telling(*arguments: Any, **options: Any) -> Any:
            self.calls.append(said(*arguments))
            return original(*arguments, **options)

        return telling

    def synced(self, descriptor: int) -> str:
        return "sync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file"

    def renamed(self, _: Any, target: Path) -> str:
        return f"rename to {Path(target).name}"

    def removed(self, path: Path) -> str:
        return f"remove {Path(path).name}"


@pytest.mark.promise("R2", "R5")
def test_a_state_survives_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bytes are on the disk before its name, its name before its manifest, and all that before another goes."""
    for step in (5, 10):
        StateStore(tmp_path, keep_last=2).save(step, content(step))
    order = Order(monkeypatch)
    StateStore(tmp_path, keep_last=2).save(20, content(20))
    written = [f"state-00000020.{suffix}" for suffix in ("json", "pt", "json")]
    expected = [step for name in written for step in ("sync file", f"rename to {name}", "sync folder")]
    assert order.calls == [*expected, "remove state-00000005.pt", "remove state-00000005.json"]


def test_a_kill_in_the_first_save_is_no_damage(tmp_path: Path) -> None:
    """A file without a manifest is a state that lost it; one that was never finished is none."""
    for number in range(1, 16):
        folder = tmp_path / str(number)
        folder.mkdir()
        code = save_in_child(folder, 10, content(10), [AtCall(number, die)])
        assert code == -signal.SIGKILL
        assert latest(folder) in (None, 10)


@pytest.mark.promise("R3", "H8")
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_damage_is_named_and_the_state_before_is_used(three: Path, data: st.DataObject) -> None:
    damage = data.draw(st.dictionaries(st.sampled_from(STEPS), st.sampled_from(["flip", "cut", "remove"]), min_size=1))
    with TemporaryDirectory() as temporary, pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr("builtins.print", lambda text, **_: said.append(text))
        folder = Path(shutil.copytree(three, Path(temporary) / "run"))
        for step, kind in damage.items():
            suffix = data.draw(st.sampled_from([".pt", ".json"]))
            harm(folder / f"state-{step:08d}{suffix}", kind, data)
        whole = [step for step in STEPS if step not in damage]
        passed_over = [step for step in damage if not whole or step > whole[-1]]
        if whole:
            assert latest(folder) == whole[-1]
        else:
            with pytest.raises(ModelError, match="no usable training state"):
                StateStore(folder).latest()
        for step in passed_over:
            assert any(f"state-{step:08d}.pt is passed over" in text for text in said), said
        assert len(said) == len(passed_over)


def harm(path: Path, kind: str, data: st.DataObject) -> None:
    content = bytearray(path.read_bytes())
    metric = content.find(b'"metric"')  # of a manifest; the state is whole without it
    end = metric if kind == "flip" and metric > 0 else len(content)
    place = data.draw(st.integers(0, end - 1))
    if kind == "remove":
        path.unlink()
    elif kind == "cut":
        path.write_bytes(content[:place])
    else:
        content[place] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(content)


def test_a_state_without_its_manifest_is_never_taken_for_no_state(tmp_path: Path) -> None:
    states = StateStore(tmp_path)
    states.save(10, content(10))
    states.manifest(10).unlink()
    with pytest.raises(ModelError, match=r"state-00000010.pt: its manifest state-00000010.json is missing"):
        states.latest()


@pytest.mark.promise("R16")
@pytest.mark.parametrize("versions", [[2, 3], [3]])
def test_a_state_of_a_newer_version(versions: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step, version in enumerate(versions):
        monkeypatch.setattr("i2i.training.state_store.FORMAT_VERSION", version)
        StateStore(tmp_path).save(step, content(step))
    monkeypatch.undo()
    with pytest.raises(ModelError, match=r"newer i2i \(format 3\); upgrade i2i"):
        StateStore(tmp_path).latest()


@pytest.mark.promise("R16")
def test_a_state_of_an_older_version_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("i2i.training.state_store.FORMAT_VERSION", 1)
    StateStore(tmp_path).save(1, content(1))
    monkeypatch.undo()
    with pytest.raises(ModelError, match=r"older i2i \(format 1, expected 2\); use another run, and init_from"):
        StateStore(tmp_path).latest()


@pytest.mark.promise("R46")
def test_a_state_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "marker",))

    StateStore(tmp_path).save(10, {"networks": Evil()})
    with pytest.raises(ModelError, match="not a training state"):
        StateStore(tmp_path).latest()
    assert not (tmp_path / "marker").exists()


class Pruning(RuleBasedStateMachine):
    """Any sequence of saves, restarts and files of others, against the rule of what is kept."""

    FOREIGN = ("state-best.pt", "state-7.pt", "state-00000007.pt.bak", "state-00000099.txt", "a2b.safetensors", "notes")

    @initialize(keep_last=st.integers(1, 3), keep_every=st.sampled_from([0, 2, 5]))
    def begin(self, keep_last: int, keep_every: int) -> None:
        self.temporary = TemporaryDirectory()
        self.folder = Path(self.temporary.name)
        self.keep_last, self.keep_every = keep_last, keep_every
        self.kept: dict[int, float | None] = {}
        self.foreign: set[str] = set()
        self.step = 0
        self.restart()

    @rule()
    def restart(self) -> None:
        self.states = StateStore(self.folder, self.keep_last, self.keep_every)
        if self.kept:
            found = self.states.latest()
            assert found is not None and found[0] == max(self.kept)

    @rule(ahead=st.integers(1, 3), metric=st.none() | st.floats(0, 1, width=16))
    def save(self, ahead: int, metric: float | None) -> None:
        self.step += ahead
        self.states.save(self.step, {"step": self.step}, metric)
        self.kept[self.step] = metric
        keep = set(sorted(self.kept)[-self.keep_last :])
        keep |= {step for step in self.kept if self.keep_every and step % self.keep_every == 0}
        measured = {step: value for step, value in self.kept.items() if value is not None}
        keep |= {min(measured, key=lambda step: (measured[step], step))} if measured else set()
        self.kept = {step: value for step, value in self.kept.items() if step in keep}

    @rule(name=st.sampled_from(FOREIGN))
    def somebody_adds_a_file(self, name: str) -> None:
        (self.folder / name).write_text(name)
        self.foreign.add(name)

    @invariant()
    def what_should_be_there_is_there(self) -> None:
        own = {f"state-{step:08d}.{suffix}" for step in self.kept for suffix in ("pt", "json")}
        assert {path.name for path in self.folder.iterdir()} == own | self.foreign
        assert all((self.folder / name).read_text() == name for name in self.foreign)

    def teardown(self) -> None:
        if hasattr(self, "temporary"):
            self.temporary.cleanup()


@pytest.mark.promise("R5")
def test_any_sequence_of_saves_keeps_and_deletes_by_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    monkeypatch.setattr("os.fsync", lambda _: None)
    run_state_machine_as_test(Pruning, settings=settings(max_examples=25, stateful_step_count=20, deadline=None))


def test_a_damaged_state_is_not_counted_among_those_kept(tmp_path: Path) -> None:
    states = StateStore(tmp_path, keep_last=2)
    states.save(10, content(10), metric=0.5)
    states.save(20, content(20), metric=0.1)
    states.path(20).write_bytes(b"damaged")
    states = StateStore(tmp_path, keep_last=1)
    assert states.latest() is not None
    states.save(15, content(15), metric=0.9)
    assert latest(tmp_path) == 15
    assert states.path(10).exists(), "the best of those that can be read"


SMALL_DISK = FilesUpTo(150_000)


@pytest.mark.promise("R4", "H6", "H23")
def test_a_full_disk(tmp_path: Path) -> None:
    folder, undisturbed = tmp_path / "run", tmp_path / "straight"
    options = "--workers 0 --save-every 3 --log-every 1 --max-steps"
    run("cyclegan", undisturbed, f"{options} 20")
    run("cyclegan", folder, f"{options} 4")
    before = {path.name: path.read_bytes() for path in folder.glob("state-*")}

    child = start("cyclegan", folder, f"{options} 20", [SMALL_DISK])
    assert child.wait() == 6, child.said()
    assert f"{folder}/state-00000012.pt: cannot be written" in child.said()
    assert "bytes are needed" in child.said() and "are free" in child.said()
    assert child.said().count("not saved: ") == 3
    assert [line["step"] for line in lines(folder, "step")] == list(range(1, 13)), "training went on"
    assert {path.name: path.read_bytes() for path in folder.glob("state-*")} == before
    assert not strays(folder)
    assert status(folder)["status"] == "failed"

    run("cyclegan", folder, f"{options} 20")
    assert digest(folder) == digest(undisturbed)
    assert [line["step"] for line in lines(folder, "step")] == list(range(1, 21))


@pytest.mark.promise("R4")
def test_two_misses_are_survived(tmp_path: Path) -> None:
    options = "--workers 0 --save-every 3 --max-steps 14"
    child = run("cyclegan", tmp_path / "run", options, Refuse(".pt", times=2))
    assert child.said().count("not saved: ") == 2
    assert status(tmp_path / "run")["status"] == "finished"
    assert not strays(tmp_path / "run")


def test_the_end_is_not_finished_while_its_state_is_not_saved(tmp_path: Path) -> None:
    child = start("cyclegan", tmp_path / "run", "--workers 0 --save-every 100 --max-steps 3", [Refuse(".pt", times=1)])
    assert child.wait() == 6
    assert "trained to the end, but the state of step 3 could not be saved" in child.said()
    assert status(tmp_path / "run")["status"] == "failed"


def test_a_log_that_cannot_be_written_waits(tmp_path: Path) -> None:
    """The disk is full for the log as well: no line is lost or torn once there is room again."""
    child = run("cyclegan", tmp_path / "run", "--workers 0 --save-every 5 --log-every 1 --max-steps 12", RefuseLog())
    assert child.said().count("not saved: ") == 1
    assert [line["step"] for line in lines(tmp_path / "run", "step")] == list(range(1, 13))
