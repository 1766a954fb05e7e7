"""benchmarks/: each runs and says what its tables need; committed results and the tables made of them are unaltered."""

import argparse
import copy
import json
import re
import shlex
import statistics
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from i2i.acceleration import accelerate
from i2i.images import Picture, read, write
from i2i.networks import create_generator

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import ceiling
import load
import measuring
import models
import network
import pictures
import plain_networks
import plain_translating
import results
import stream
import stream_child
import table
import train
import train_child
from measuring import CPU, WALL

COMMITTED = sorted(table.RESULTS.glob("*.json"))
SCRIPTS = ("load", "network", "processes", "start_up", "stream", "train", "translate")
TINY_MODEL = ["--width", "4"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits and waits that take no time."""
    monkeypatch.setattr(ceiling, "SHAPES", ((8, 8, 1),))
    monkeypatch.setattr(ceiling, "SECONDS", 0.0)
    monkeypatch.setattr(ceiling, "READ_BYTES", 1 << 16)
    for module in (network, train):
        monkeypatch.setattr(module, "SETTLE", 0.0)
    monkeypatch.setattr(stream, "DISK_BYTES", 1 << 24)


def made(tmp_path: Path, name: str, *arguments: str) -> dict[str, Any]:
    """The JSON that a benchmark writes; what it returns is the same."""
    path = tmp_path / "results" / f"{name}.json"
    returned = import_module(name).main([*arguments, "--rounds", "2", "--json", str(path)])
    found: dict[str, Any] = json.loads(path.read_text())
    assert found == returned and found["benchmark"] == name
    assert found["command"].startswith(f"python benchmarks/{name}.py ") and str(tmp_path) not in found["command"]
    sound(found)
    return found


def sound(result: dict[str, Any]) -> None:
    """Well-formed, and its figures follow from its seconds, computed here once more."""
    results.check(result)
    assert result["machine"]["processor"] and result["machine"]["cores"] > 0 and result["versions"]["torch"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", result["date"])
    for one in result["tables"]:
        first = one["rows"][0]
        for row in one["rows"]:
            pairs = zip(first[one["clock"]], row[one["clock"]], strict=True)
            assert row["ratio"] == pytest.approx(statistics.median(a / b for a, b in pairs))
            assert row["median"] == pytest.approx(float(np.median(row[one["clock"]])))
            assert row["quartiles"] == pytest.approx(np.percentile(row[one["clock"]], [25, 75]))
            if "gflop" in row:
                speed = row["gflop"] / row["median"]
                assert row["percent_of_ceiling"] == pytest.approx(100 * speed / result["ceilings"][row["precision"]])
    assert table.markdown(result).count("\n| ") == sum(len(one["rows"]) + 2 for one in result["tables"])


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """Pictures without the flat skies of landscapes, whose rounding instance norm turns into something."""
    folder = tmp_path / "noise"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(2):
        write(folder / f"{number}.png", Picture(random.integers(0, 256, (256, 256, 3), np.uint8)))
    return folder


def rows(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["way"]: row for row in result["tables"][0]["rows"]}


@pytest.mark.parametrize("path", COMMITTED, ids=[path.stem for path in COMMITTED])
def test_committed_results_are_sound(path: Path) -> None:
    sound(json.loads(path.read_text()))


def test_the_readme_shows_the_committed_results() -> None:
    readme = table.README.read_text()
    assert readme.count(table.BEGIN) == readme.count(table.END) == 1
    assert readme == table.with_results(readme, table.RESULTS), "python benchmarks/table.py --write"


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    taken = {"plain": {WALL: [4.0, 6.0, 5.0], CPU: [8.0, 8.0, 8.0]}, "ours": {WALL: [2.0, 2.0, 2.0], CPU: [4.0] * 3}}
    facts = {"ours": {"precision": "bf16", "gflop": 100.0, "weights_gb": 0.5, "largest": 3}}
    options = argparse.Namespace(given=["--pictures", "/home/someone/photos"], device="cpu", json=None, load=0.5)
    tables = [results.table("An example", WALL, taken, facts)]
    return results.finish("example", options, tables, {"bf16": 200.0, "memory": 10.0})


def test_figures_follow_from_the_seconds(example: dict[str, Any]) -> None:
    sound(example)
    ours = rows(example)["ours"]
    assert (ours["median"], ours["ratio"]) == (2.0, 2.5)  # of 2, 3 and 2.5 times
    assert (ours["gflop_per_second"], ours["percent_of_ceiling"], ours["percent_of_memory"]) == (50.0, 25.0, 2.5)
    assert "| ours | 2.00 | 4.00 | 2.50 | 50 | 25 | 2.5 | 3 |" in table.markdown(example)
    assert example["command"] == "python benchmarks/example.py --pictures photos"


@pytest.mark.parametrize(
    "edit",
    [
        lambda result: rows(result)["ours"].update(ratio=2.6),
        lambda result: rows(result)["ours"].update(percent_of_ceiling=26.0),
        lambda result: rows(result)["ours"].update(quartiles=[1.0, 2.0]),
        lambda result: rows(result)["plain"].update(seconds=[4.0, 6.5, 5.0]),
        lambda result: rows(result)["ours"].update(cpu_seconds=[4.0]),
        lambda result: result["ceilings"].update(bf16=100.0),
        lambda result: result["machine"].update(processor=""),
        lambda result: result.pop("date"),
    ],
)
def test_an_altered_result_is_refused(example: dict[str, Any], edit: Callable[[Any], object]) -> None:
    altered = copy.deepcopy(example)
    edit(altered)
    with pytest.raises((ValueError, KeyError)):
        results.check(altered)


def test_an_altered_table_is_noticed(tmp_path: Path, example: dict[str, Any]) -> None:
    (tmp_path / "one.json").write_text(json.dumps(example))
    readme = table.with_results(f"Before\n{table.BEGIN}{table.END}After\n", tmp_path)
    assert readme.startswith("Before\n") and readme.endswith("After\n") and table.markdown(example) in readme
    assert table.with_results(readme, tmp_path) == readme
    assert table.with_results(readme.replace("| 2.50 |", "| 2.60 |"), tmp_path) == readme


def test_ways_are_measured_in_turn() -> None:
    order: list[str] = []

    def measure(way: str) -> dict[str, float]:
        order.append(way)
        return {WALL: len(order), CPU: 0.0}

    taken = measuring.in_turn({way: lambda way=way: measure(way) for way in "ab"}, 2)  # type: ignore[misc]
    assert order == ["a", "b", "a", "b"] and taken["b"] == {WALL: [2, 4], CPU: [0, 0]}


def test_a_slope_leaves_the_start_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "timed", lambda work: {WALL: work(), CPU: work()})
    assert measuring.slope(lambda count: 10 + 2 * count, 4, 9) == {WALL: 2, CPU: 2}


def test_child_processes_are_counted_and_their_failures_raised() -> None:
    busy = "import time\nwhile time.process_time() < 0.2: pass\nprint('done')"
    found = measuring.timed(lambda: measuring.together([["-c", busy]], {}))
    assert found[CPU] > 0.15  # the system counts the time of children by another clock, in ticks
    with pytest.raises(RuntimeError, match="no such thing"):
        measuring.together([["-c", "raise SystemExit('no such thing')"]], {})


def test_the_ceiling_counts_the_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceiling, "fastest", lambda work, device, clock: work() or 2.0)
    flop = 2 * 9 * 8 * 8 * 8 * 8
    assert ceiling.ceilings(["fp32"], "cpu", WALL) == {"fp32": pytest.approx(flop / 2e9)}
    assert ceiling.ceilings(["fp32"], "cpu", WALL, backward=True) == {"fp32": pytest.approx(3 * flop / 2e9)}


def test_pictures_are_the_same_each_time_and_compared(tmp_path: Path) -> None:
    one, two = (pictures.write_jpegs(tmp_path / name, (20, 300), 2) for name in ("one", "two"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    assert one[0].read_bytes() != one[1].read_bytes()
    pixels = np.full((4, 4, 3), 100, np.uint8)
    changed = pixels.copy()
    changed[0, 0, 1], changed[1, 1, 0] = 103, 99
    for name, content in (("a", pixels), ("b", changed)):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "x.png", Picture(content))
    assert pictures.apart(tmp_path / "b", tmp_path / "a") == {"largest": 3, "mean": 4 / 48, "over_one": 100 / 16}
    (tmp_path / "b" / "x.png").rename(tmp_path / "b" / "y.png")
    with pytest.raises(ValueError, match="same pictures"):
        pictures.apart(tmp_path / "b", tmp_path / "a")


@pytest.mark.parametrize("name", ["resnet_1blocks", "unet_32"])
def test_the_plain_networks_are_of_torch(name: str) -> None:
    prepared = accelerate(create_generator(name), "training")
    ours, theirs = (
        {type(module).__module__ for module in network.modules() if not list(module.children())}
        for network in (prepared, plain_networks.plain(prepared))
    )
    assert any(kind.startswith("i2i.acceleration") for kind in ours)
    assert all(kind.startswith("torch.nn") for kind in theirs)


def test_the_plain_way_is_plain_and_gives_the_same(
    tmp_path: Path, noise: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models.write_model(tmp_path / "model.safetensors", "resnet_9blocks", 4)
    kinds = {type(module).__module__ for module in plain_translating.plain_network(model).modules()}
    assert not any(kind.startswith("i2i.acceleration") or kind == "i2i.networks.blocks" for kind in kinds)
    (path,) = pictures.write_jpegs(tmp_path / "in", (64, 64), 1, noise)
    monkeypatch.setattr(sys, "argv", ["plain", str(model), str(path.parent), str(tmp_path / "out")])
    plain_translating.main()
    from i2i.inference.translator import load_translator

    load_translator(str(model), precision="fp32", runtime="torch")(path).save(tmp_path / "0000.png")
    ours, plain = (np.asarray(read(folder / "0000.png").pixels) for folder in (tmp_path, tmp_path / "out"))
    assert pictures.levels(ours, plain)["largest"] <= 1


class Here:
    """A child of benchmarks/train.py in this process."""

    def __init__(self, command: list[str], **_: Any) -> None:
        self.stdin = self.stdout = self
        task = train_child.Task(**json.loads(command[-1]))
        self.step = train_child.step_of(task)
        self.answer = train_child.first_step(task, self.step)

    def write(self, _: str) -> None:
        self.answer = measuring.timed(self.step) | {"resident_mb": 1.0}

    def readline(self) -> str:
        return json.dumps(self.answer)

    def flush(self) -> None: ...
    def communicate(self) -> None: ...


@pytest.mark.parametrize("ways", [["plain"], pytest.param(["plain", "fp32"], marks=pytest.mark.slow)])
def test_training(ways: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several ways are a process each; tests/training/test_fast_paths.py compares the plain step with the library's."""
    if len(ways) == 1:
        monkeypatch.setattr(train, "subprocess", SimpleNamespace(Popen=Here, PIPE=None))
    small = json.dumps({"ngf": 4, "ndf": 4, "generator": "resnet_1blocks", "discriminator": "patchgan_16"})
    found = rows(made(tmp_path, "train", "--size", "32", "--ways", *ways, "--options", small))
    assert list(found) == ways and found[ways[-1]]["loss_difference"] < 1e-5
    assert found[ways[-1]]["gflop"] == found["plain"]["gflop"] > 0 and found["plain"]["first_seconds"] > 0


def test_loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "SIZES", {"60×80": (60, 80)})
    result = made(tmp_path, "load", "--count", "2")
    ways = ["plain", "decoding", "from the cache", "from the cache by a worker"]
    assert list(rows(result)) == ways and result["tables"][0]["clock"] == CPU
    assert rows(result)["from the cache"]["same"] is True and result["drawn"] is True


def test_the_network_alone(tmp_path: Path) -> None:
    result = made(tmp_path, "network", *TINY_MODEL, "--size", "64", "--ways", "torch fp32", "--times", "1")
    assert list(rows(result)) == ["plain", "torch fp32"] and set(result["ceilings"]) == {"fp32", "memory"}
    assert all(row["weights_gb"] > 0 and row["gflop"] > 0 for row in rows(result).values())


def test_the_work_of_the_published_generators() -> None:
    with torch.device("meta"):
        made_of = {name: create_generator(name) for name in models.GENERATORS}
    work = {name: models.gflop(one, 256) for name, one in made_of.items()}
    assert work["resnet_9blocks"] == pytest.approx(99.1, abs=0.1)  # by hand, layer by layer: 49.5 GMAC


def test_a_repeated_picture_fills_any_square() -> None:
    pixels = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    repeated = stream_child.Repeated(pixels, 6)
    expected = np.tile(pixels, (2, 2, 1))[:6, :6]
    assert np.array_equal(repeated.read(0, 6).pixels, expected)
    assert np.array_equal(repeated.read(3, 6).pixels, expected[3:6])


def test_a_streamed_picture_is_compared(tmp_path: Path, noise: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The children's work in this process: all ways, and what is said of their results."""

    def child(commands: Any, environment: Any) -> list[str]:
        work = stream_child.prepared(stream_child.Task(**json.loads(commands[0][1])))
        return [json.dumps(measuring.timed(work) | {"peak_mb": 1.0})]

    monkeypatch.setattr(stream, "together", child)
    more = ["--base", "64", "--sizes", "64", "128", "--tile", "16", "--in-memory", "0", "--pictures", str(noise)]
    found = rows(made(tmp_path, "stream", *TINY_MODEL, *more))
    assert len(found) == 8 and next(iter(found)) == "64², whole"
    assert found["128², bands, fp32 spool"]["error"] < 1e-4 and found["128², bands, fp32 spool"]["largest"] <= 1
    assert found["64², naive tiles of 16"]["mean"] > 1
    assert found["64², bands, fp16 spool"]["spool_mb"] < found["64², bands, fp32 spool"]["spool_mb"]


def test_the_commands_of_the_readme_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    class Understood(Exception):
        pass

    parse = argparse.ArgumentParser.parse_args

    def only_parse(self: Any, *arguments: Any) -> Any:
        parse(self, *arguments)
        raise Understood

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
    found = re.findall(r"`python benchmarks/(\w+)\.py ?([^`]*)`", table.README.read_text())
    assert {name for name, _ in found} == {*SCRIPTS, "table", "proportions"}
    for name, arguments in found:
        monkeypatch.setattr(sys, "argv", ["", *shlex.split(arguments)])
        with pytest.raises(Understood):
            import_module(name).main()


@pytest.mark.slow
def test_translating_by_processes(tmp_path: Path, noise: Path) -> None:
    options = ["--size", "64", "--count", "2", "--pictures", str(noise), "--ways", "fp32", "torch fp32"]
    found = rows(made(tmp_path, "translate", *TINY_MODEL, *options))
    assert list(found) == ["plain", "fp32", "torch fp32"]
    assert found["fp32"]["largest"] <= 1 and found["fp32"]["over_one"] == 0


@pytest.mark.slow
def test_starting_up(tmp_path: Path) -> None:
    found = rows(made(tmp_path, "start_up", *TINY_MODEL, "--size", "64", "--ways", "fp32"))
    assert list(found) == ["plain", "fp32"] and found["plain"][CPU][0] > 0


@pytest.mark.slow
def test_two_processes(tmp_path: Path) -> None:
    options = ["--few", "2", "--many", "4", "--way", "fp32"]
    found = rows(made(tmp_path, "processes", *TINY_MODEL, *options))
    assert list(found) == ["one process", "one process, one thread", "2 processes"]
    assert found["2 processes"]["largest"] <= 1


@pytest.mark.slow
def test_streaming_by_processes(tmp_path: Path) -> None:
    found = rows(
        made(tmp_path, "stream", *TINY_MODEL, "--base", "64", "--sizes", "64", "--tile", "16", "--keep", "fp32")
    )
    assert all(row["peak_mb"] > 50 for row in found.values())
