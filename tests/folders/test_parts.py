"""A folder through an executor: the same files, the same report, whatever becomes of the workers."""

import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from batch_tools import Slow, Tree, folder, model, picture, translator, tree
from film_samples import animation, moving
from fork_server import CONTEXT
from losing_executor import LosingExecutor

from i2i.errors import I2IError, InputError, ModelError, OutputError, ResourceError, SomeFailed, UsageError
from i2i.files import locked
from i2i.films import segments
from i2i.folders.batch import translate_folder
from i2i.folders.jobs import Job
from i2i.folders.pipeline import Pipeline
from i2i.folders.report import Report
from i2i.folders.worker import Part, Work, check_worker, stamp, translate_part
from i2i.inference.options import FolderOptions
from i2i.machine import threads
from i2i.models.styles import install

NAMES = tuple(f"{i:02}.{['png', 'jpg'][i % 2]}" for i in range(24))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder(tmp_path / "in")
    (tmp_path / "in" / "bad.png").write_bytes(b"bad")
    return tmp_path / "in"


@pytest.fixture
def style(tmp_path: Path) -> Path:
    return model(tmp_path / "m.safetensors")


@pytest.fixture(scope="module")
def processes() -> Iterator[Executor]:
    with ProcessPoolExecutor(2, CONTEXT) as executor:
        yield executor


def _named(report: Report, out: str) -> str:
    return report.to_json().replace(f'"{out}/', '"out/')


@pytest.mark.promise("R54", "R23", "R42")
def test_the_result_and_the_report_are_those_of_one_process(
    tmp_path: Path, source: Path, style: Path, processes: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where the processes are not
    animation(source / "moves.webp", moving(3, 24, 16))
    for path in source.rglob("*.*"):
        picture(
            Path("masks", path.relative_to(source)).with_suffix(".png"), *((24, 16) if path.stem == "moves" else ())
        )
    options: Any = {"mask": "masks", "strength": 0.5}
    whole = translate_folder("in", "whole", "m.safetensors", **options)
    assert (len(whole.done), len(whole.failed)) == (7, 1)
    for out, executor in (("threads", ThreadPoolExecutor(2)), ("processes", processes)):
        seen: list[tuple[int, int]] = []
        show = lambda number, total, last, seen=seen: seen.append((number, total))  # noqa: E731
        report = translate_folder("in", out, "m.safetensors", executor=executor, progress=show, **options)
        assert tree(Path(out)) == tree(Path("whole"))
        assert _named(report, out) == _named(whole, "whole")
        assert seen == [(number, 8) for number in range(1, 9)]


def test_a_mix_of_styles(tmp_path: Path, source: Path, processes: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        model(tmp_path / f"{name}.safetensors")
    mix = {"one.safetensors": 1.0, "two.safetensors": 3.0}
    translate_folder(source, "whole", mix=mix)
    report = translate_folder(source, "out", mix=mix, executor=processes)
    assert tree(Path("out")) == tree(Path("whole")) and len(report.facts["mix"]) == 2


def test_relative_paths_are_those_of_the_start(tmp_path: Path, style: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the program goes to another folder meanwhile."""
    folder(tmp_path / "in", [f"{number}.png" for number in range(40)])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    go = lambda *_: os.chdir(tmp_path / "elsewhere")  # noqa: E731
    with ThreadPoolExecutor(1) as threads:
        report = translate_folder("in", "out", style, executor=threads, progress=go)
    assert len(report.done) == len(tree(tmp_path / "out")) == 40


def test_a_translator_stays_in_its_process(tmp_path: Path, source: Path, processes: Executor) -> None:
    with pytest.raises(UsageError, match="give the name or the path of its style"):
        translate_folder(source, tmp_path / "out", translator(), executor=processes)
    assert not (tmp_path / "out").exists()
    with ThreadPoolExecutor(2) as in_threads:
        assert len(translate_folder(source, tmp_path / "out", translator(), executor=in_threads).done) == 6


def test_one_failure_ends_it_if_strict(
    tmp_path: Path, source: Path, style: Path, processes: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    reports: list[Report] = []
    with pytest.raises(SomeFailed, match=r"^in/bad\.png: "):
        translate_folder("in", "out", style, executor=processes, strict=True, finish=reports.append)
    (report,) = reports
    assert [record.source for record in report.failed] == [Path("in/bad.png")]
    assert tree(Path("out")).keys() == {str(record.target.relative_to("out")) for record in report.done}


def test_a_stop_ends_it_after_the_pictures_at_hand(tmp_path: Path, style: Path) -> None:
    folder(tmp_path / "in", NAMES)
    seen: list[int] = []
    with ProcessPoolExecutor(2, CONTEXT, Slow(0.05)) as executor:
        report = translate_folder(
            tmp_path / "in",
            tmp_path / "out",
            style,
            executor=executor,
            stop=lambda: bool(seen),
            progress=lambda number, *_: seen.append(number),
        )
    assert 1 <= len(report.done) < 20 and len(report.done) + len(report.left) == 24
    assert tree(tmp_path / "out").keys() == {record.target.name for record in report.done}


def _whole(tmp_path: Path, style: Path, count: int = 24) -> Tree:
    names = [f"{i:03}.{('png', 'jpg', 'webp')[i % 3]}" for i in range(count)]
    folder(tmp_path / "in", names)
    animation(tmp_path / "in" / "moves.webp", moving(3, 24, 16))
    translate_folder(tmp_path / "in", tmp_path / "whole", style)
    return tree(tmp_path / "whole")


def _with_losses(tmp_path: Path, style: Path, out: str | None = "out", **options: Any) -> Report:
    with LosingExecutor(2, [Slow(0.01, 0.003)]) as executor:

        def progress(number: int, *_: Any) -> None:
            if number % 5 == 1:
                executor.kill_soon()

        place = None if out is None else tmp_path / out
        report = translate_folder(tmp_path / "in", place, style, executor=executor, progress=progress, **options)
        assert executor.losses > 2
    return report


@pytest.mark.promise("R54", "R21", "R22", "R42")
def test_lost_workers_change_nothing(tmp_path: Path, style: Path) -> None:
    whole = _whole(tmp_path, style)
    report = _with_losses(tmp_path, style)
    assert tree(tmp_path / "out") == whole
    assert [record.status for record in report.records] == ["done"] * 25


@pytest.mark.slow
@pytest.mark.promise("R54", "R21", "R22", "R42")
@pytest.mark.parametrize("number", range(3))
def test_many_lost_workers_change_nothing(tmp_path: Path, style: Path, number: int) -> None:
    whole = _whole(tmp_path, style, 150)
    report = _with_losses(tmp_path, style)
    assert tree(tmp_path / "out") == whole
    assert [record.status for record in report.records] == ["done"] * 151


@pytest.mark.promise("R54")
def test_no_picture_is_translated_twice_in_place(tmp_path: Path, style: Path) -> None:
    whole = _whole(tmp_path, style)
    report = _with_losses(tmp_path, style, None, in_place=True)
    assert tree(tmp_path / "in") == whole and len(report.done) == 25


@pytest.mark.promise("R54")
@pytest.mark.parametrize("written_down", [True, False])
def test_a_part_that_runs_again_finds_what_it_finished(tmp_path: Path, style: Path, written_down: bool) -> None:
    path = picture(tmp_path / "a.png")
    work = Work.of(style, FolderOptions(in_place=True), None)
    work = replace(work.with_resolved(check_worker(work)), folder=tmp_path)
    job = Job(str(path), str(path), "a.png")
    part = Part(1, (job,), (stamp(job, ""),))
    before, first = path.read_bytes(), translate_part(work, part)
    once = path.read_bytes()
    if not written_down:  # lost in between
        (tmp_path / "1.jsonl").write_bytes(b"")
    assert translate_part(work, part) == first and path.read_bytes() == once != before


@pytest.mark.promise("R54")
def test_a_film_whose_worker_was_lost_at_its_end_leaves_no_segments(tmp_path: Path, style: Path) -> None:
    path = tmp_path / "in" / "a.webp"
    path.parent.mkdir()
    animation(path, moving(3, 24, 16))
    work = Work.of(style, FolderOptions(in_place=True), None)
    work = replace(work.with_resolved(check_worker(work)), folder=tmp_path)
    job = Job(str(path), str(path), "a.webp", film=True)
    part = Part(1, (job,), (stamp(job, ""),))
    translate_part(work, part)
    once = path.read_bytes()
    (tmp_path / "1.jsonl").write_bytes(b"")
    with segments(path, {"frames": 3}) as kept:
        kept.add(b"segment", {})
    translate_part(work, part)
    assert [(at.name, at.read_bytes()) for at in path.parent.iterdir()] == [("a.webp", once)]


@dataclass(frozen=True)
class Poison:
    """The picture of that name ends the process."""

    name: str

    def __call__(self) -> None:
        read = Pipeline._read

        def poisoned(this: Pipeline, job: Any) -> Any:
            if job.source.name == self.name:
                os.kill(os.getpid(), signal.SIGKILL)
            return read(this, job)

        Pipeline._read = poisoned  # type: ignore[method-assign]


@pytest.mark.promise("R54")
def test_a_picture_that_ends_its_worker_fails_alone(tmp_path: Path, style: Path) -> None:
    folder(tmp_path / "in", NAMES)
    with LosingExecutor(1, [Poison("07.jpg")], tries=1) as executor:
        report = translate_folder(tmp_path / "in", tmp_path / "out", style, executor=executor)
    (failed,) = report.failed
    assert failed.source.name == "07.jpg" and "its worker ended before it was done: ResourceError" in failed.reason
    assert (
        len(report.done) == 23 and report.notices[-1] == "parts that were lost with their workers, and tried again: 1"
    )
    assert tree(tmp_path / "out").keys() == set(NAMES) - {"07.jpg"}


@pytest.mark.promise("R54", "R21", "R22", "R42")
def test_a_pool_that_loses_a_process_is_broken_and_says_so(tmp_path: Path, style: Path) -> None:
    folder(tmp_path / "in", NAMES)
    translate_folder(tmp_path / "in", tmp_path / "whole", style)
    reports: list[Report] = []
    executor = ProcessPoolExecutor(2, CONTEXT, Poison("07.jpg"))
    with pytest.raises(ResourceError, match=r"has lost its workers: .*skip_existing"):
        translate_folder(tmp_path / "in", tmp_path / "out", style, executor=executor, finish=reports.append)
    (report,) = reports
    reasons = {record.source.name: record.reason for record in report.failed}
    assert "its worker ended before it was done: BrokenProcessPool" in reasons["07.jpg"] and report.left
    assert sum(json.loads(report.to_json())["counts"].values()) == 24
    found, whole = tree(tmp_path / "out"), tree(tmp_path / "whole")
    assert found.keys() == {record.target.name for record in report.done} and found.items() <= whole.items()
    with ThreadPoolExecutor(2) as in_threads:
        translate_folder(tmp_path / "in", tmp_path / "out", style, executor=in_threads, skip_existing=True)
    assert tree(tmp_path / "out") == whole


def test_an_executor_that_cancels_its_calls_is_broken(tmp_path: Path, style: Path) -> None:
    class Cancelling(ThreadPoolExecutor):
        def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> "Future[Any]":
            if function is not translate_part:
                return super().submit(function, *arguments, **named)
            future: Future[Any] = Future()
            future.cancel()
            return future

    folder(tmp_path / "in", NAMES)
    with Cancelling(1) as executor, pytest.raises(ResourceError, match="has lost its workers: its calls were cancel"):
        translate_folder(tmp_path / "in", tmp_path / "out", style, executor=executor)


def test_workers_that_cannot_start(tmp_path: Path, source: Path, style: Path) -> None:
    executor = ProcessPoolExecutor(1, CONTEXT, os._exit, (1,))
    with pytest.raises(ResourceError, match=r"cannot be started: .*__main__"):
        translate_folder(source, tmp_path / "out", style, executor=executor)
    assert not (tmp_path / "out").exists()


def test_what_is_no_executor_is_refused(tmp_path: Path, source: Path, style: Path) -> None:
    with pytest.raises(UsageError, match=r"executor = 'ray': expected a concurrent\.futures\.Executor"):
        translate_folder(source, tmp_path / "out", style, executor="ray")
    assert not (tmp_path / "out").exists()


class Refusing(ThreadPoolExecutor):
    """From some call on it raises an error, or cancels what it was given."""

    def __init__(self, calls: int, cancels: bool) -> None:
        super().__init__(1)
        self._calls, self._cancels = calls, cancels

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> "Future[Any]":
        self._calls -= 1
        if self._calls >= 0:
            return super().submit(function, *arguments, **options)
        if not self._cancels:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[Any] = Future()
        future.cancel()
        return future


@pytest.mark.parametrize("cancels", [False, True])
def test_an_executor_that_ends_before_the_work_does(tmp_path: Path, source: Path, style: Path, cancels: bool) -> None:
    with pytest.raises(ResourceError, match=r"its workers|cannot be started|takes no work: cannot schedule"):
        translate_folder(source, tmp_path / "out", style, executor=Refusing(0, cancels))
    assert not (tmp_path / "out").exists()
    reports: list[Report] = []
    with pytest.raises(ResourceError, match=r"Refusing has lost its workers: .*skip_existing"):
        translate_folder(source, tmp_path / "out", style, executor=Refusing(3, cancels), finish=reports.append)
    (report,) = reports
    assert len(report.done) <= 1 and len(report.left) == 7 - len(report.done) and not report.failed
    assert tree(tmp_path / "out").keys() == {str(record.target.relative_to(tmp_path / "out")) for record in report.done}


def test_processes_that_would_never_answer(
    tmp_path: Path, source: Path, style: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", ModuleType("openvino"))
    executor = ProcessPoolExecutor(1, multiprocessing.get_context("fork"))
    with pytest.raises(UsageError, match=r"forked .* OpenVINO has run here; .*spawn"):
        translate_folder(source, tmp_path / "out", style, executor=executor)
    assert not (tmp_path / "out").exists()


class Everywhere(ThreadPoolExecutor):
    """An executor that knows its workers, and remembers the parts that it was given."""

    places = 1
    notices = ("node 3 was lost",)

    def __init__(self) -> None:
        super().__init__(1)
        self.asked: list[Any] = []
        self.parts: list[Part] = []

    def run_everywhere(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        self.asked.append(function)
        return [function(*arguments)]

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> "Future[Any]":
        if function is translate_part:
            assert self.asked == [check_worker]
            self.parts.append(arguments[1])
        return super().submit(function, *arguments, **options)


def test_films_and_large_pictures_are_parts_of_their_own(tmp_path: Path, style: Path) -> None:
    folder(tmp_path / "in", [f"{i:02}.png" for i in range(40)])
    animation(tmp_path / "in" / "05.webp", moving(3, 24, 16))
    (tmp_path / "in" / "20.jpg").touch()
    os.truncate(tmp_path / "in" / "20.jpg", 17 << 20)
    with Everywhere() as executor:
        report = translate_folder(tmp_path / "in", tmp_path / "out", style, executor=executor)
    sizes = {tuple(job.source.name for job in part.jobs): len(part.jobs) for part in executor.parts}
    assert ("05.webp",) in sizes and ("20.jpg",) in sizes
    assert max(sizes.values()) == 8 and sum(sizes.values()) == len(report.records) == 42
    assert "node 3 was lost" in report.notices


HOST = socket.gethostname()
WRONG: dict[str, tuple[dict[str, Any], type[I2IError], str]] = {
    "version": ({"version": "9.9"}, UsageError, "and 9.9 shares out the work; install the same version"),
    "style": ({"digests": ("00",)}, ModelError, "m.safetensors: another file than the driver's"),
    "no style": ({"style": Path("/no/such.safetensors")}, UsageError, "Every worker needs the style"),
    "output": ({"folder": Path("/no/out/parts")}, OutputError, "/no/out: cannot be written: .*at this path"),
    "input": ({"witness": Path("/no/a.png")}, InputError, "/no/a.png: cannot be read; every worker needs"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_worker_that_lacks_something_is_named(style: Path, wrong: str) -> None:
    changed, error, text = WRONG[wrong]
    work = Work.of(style, FolderOptions(), None)
    assert check_worker(work).device == "cpu"
    with pytest.raises(error, match=f"^worker on {HOST}: .*{text}"):
        check_worker(replace(work, **changed))


def test_a_worker_that_would_run_the_model_otherwise(style: Path) -> None:
    work = Work.of(style, FolderOptions(runtime="torch"), None)
    resolved = check_worker(work)
    pinned = work.with_resolved(resolved)
    assert (pinned.options.runtime, pinned.options.device) == ("torch", "cpu")
    assert pinned.options.precision == resolved.precision
    other = replace(pinned, resolved=replace(resolved, runtime="onnx", device="cuda:0"))
    with pytest.raises(UsageError, match="with runtime torch instead of onnx, device cpu instead of cuda:0"):
        check_worker(other)


def test_all_workers_compute_with_the_threads_of_the_first(style: Path) -> None:
    work = Work.of(style, FolderOptions(runtime="torch"), None)
    with LosingExecutor(1) as executor:
        resolved = executor.submit(check_worker, work).result()
        other = replace(resolved, threads=(3, 3))
        executor.submit(check_worker, work.with_resolved(other)).result()
        assert executor.submit(threads).result() == 3
        assert executor.submit(check_worker, replace(work, sizes=((9, 9),))).result().threads == (3, 3)


def test_a_style_of_the_driver_alone(
    tmp_path: Path, source: Path, style: Path, processes: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("I2I_HOME", str(tmp_path / "home"))  # the processes have another one
    install(style, "mine")
    with pytest.raises(
        UsageError, match=f"worker on {HOST}: style 'mine': no such style.*Every worker needs the style"
    ):
        translate_folder(source, tmp_path / "out", "mine", executor=processes)
    assert not (tmp_path / "out").exists()


def _drive(source: Path, out: Path, style: Path) -> None:
    with LosingExecutor(2, [Slow(0.05)]) as executor:
        translate_folder(source, out, style, executor=executor)


@pytest.mark.slow  # the driver starts a fork server of its own
@pytest.mark.promise("R54", "R22")
def test_a_killed_driver_costs_nothing(tmp_path: Path, style: Path) -> None:
    whole, out = _whole(tmp_path, style), tmp_path / "out"
    driver = CONTEXT.Process(target=_drive, args=(tmp_path / "in", out, style))
    driver.start()
    _wait(lambda: out.exists() and len(list(out.glob("*.*"))) >= 5)
    driver.kill()
    driver.join()
    assert list(out.glob(".i2i-parts-*.part"))
    with ThreadPoolExecutor(2) as in_threads:
        report = translate_folder(tmp_path / "in", out, style, executor=in_threads, skip_existing=True)
    assert report.skipped and len(report.skipped) + len(report.done) == 25
    _wait(lambda: tree(out) == whole)  # its workers may be at their last picture


def _wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_a_killed_driver_left_is_cleared(tmp_path: Path, source: Path, style: Path) -> None:
    left, used = tmp_path / "out" / ".i2i-parts-00.part", tmp_path / "out" / ".i2i-parts-01.part"
    for path in (left, used):
        folder(path, ["1.jsonl"])
        os.utime(path, (1, 1))
    with locked(used / "lock"):
        os.utime(used, (1, 1))
        translate_folder(source, tmp_path / "out", style)
        assert used.exists() and not left.exists()
