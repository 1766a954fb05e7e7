"""A run that is killed, and started again by the same command, ends as if nothing had happened."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest
from children import Child, Prepare, digest, lines, new_folder, run, start, status, strays
from faults import AtCall, BeforeFile, DieAfterValidation, TellArithmetic, die
from toy_folders import write_folder

from i2i.models import model_file
from i2i.training.state_store import StateStore

STEPS = "--max-steps 24 --save-every 4 --log-every 3"
SHORT = "--max-steps 6 --save-every 3 --workers 0"
WIDE = "--ngf 16 --crop-size 128 --load-size 128 --max-steps 3 --save-every 1 --log-every 1 --workers 0"
# A state remembers these beside the weights: the plateau's learning rate, EMA, the noise of dropout, and a
# batch in two parts; on pictures that are cropped and flipped at random.
# So small a learning rate that the metric cannot fall by the 1 % that the plateau waits for.
EVERYTHING = (
    "--generator resnet_1blocks --dropout --crop-size 32 --load-size 40 --batch-size 2 --micro-batches 2 --ema 0.9 "
    "--lr 1e-5 --lr-policy plateau --patience 0 --validate-every 1 --validate-images 2 "
    "--max-steps 18 --save-every 5 --log-every 1 --workers 1"
)


@cache
def straight(algorithm: str, options: str) -> tuple[Path, float]:
    """The folder of a run that nobody disturbed, and how long it took."""
    parent = new_folder()
    run(algorithm, parent / "warm-up", "--max-steps 1 --workers 0")
    since = time.monotonic()
    run(algorithm, parent / "run", options)
    return parent / "run", time.monotonic() - since


def assert_same(folder: Path, undisturbed: Path) -> None:
    assert digest(folder) == digest(undisturbed)
    assert lines(folder, "step") == lines(undisturbed, "step")
    assert lines(folder, "validation") == lines(undisturbed, "validation")
    for name in ("a2b.safetensors", "b2a.safetensors", "a2b-best.safetensors", "b2a-best.safetensors"):
        assert (folder / name).exists() == (undisturbed / name).exists()
        if (folder / name).exists():
            assert (folder / name).read_bytes() == (undisturbed / name).read_bytes()
    assert status(folder)["status"] == "finished"
    assert not strays(folder)


def killed_at(step: int, child: Child) -> None:
    """Killed when there is a state of that step or a later one, and steps after it in the log."""
    log = child.folder / "log.jsonl"
    child.until(lambda: any(int(path.stem[6:]) >= step for path in child.folder.glob("state-*.json")))
    child.until(lambda: log.read_bytes().count(b'"kind": "step"') > step)
    child.signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, child.said()


def killed_after(seconds: float, child: Child) -> None:
    child.process.join(seconds)
    child.signal(signal.SIGKILL)  # the process alone: its data workers live on for a while
    child.wait()


def kill_at_random(algorithm: str, workers: int, folder: Path, seed: int) -> None:
    undisturbed, seconds = straight(algorithm, f"{STEPS} --workers 0")
    generator = random.Random(seed)
    for _ in range(3):
        child = start(algorithm, folder, f"{STEPS} --workers {workers}")
        killed_after(generator.uniform(0.3, 1.0) * seconds, child)
    run(algorithm, folder, f"{STEPS} --workers {workers}")
    assert [line["step"] for line in lines(folder, "step")] == list(range(1, 25))
    assert_same(folder, undisturbed)


@pytest.mark.promise("R1", "R18")
@pytest.mark.parametrize(("algorithm", "workers"), [("pix2pix", 0), ("cyclegan", 2)])
def test_killed_at_random_moments(algorithm: str, workers: int, tmp_path: Path) -> None:
    kill_at_random(algorithm, workers, tmp_path / "run", seed=workers)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("algorithm", ["pix2pix", "cyclegan"])
def test_killed_at_random_moments_many_times(algorithm: str, workers: int, tmp_path: Path) -> None:
    for seed in range(50):
        kill_at_random(algorithm, workers, tmp_path / f"run{seed}", seed=1000 + seed)


def killed_by(fault: Prepare, algorithm: str, folder: Path) -> bool:
    """Start a run with a fault that kills it, if it comes so far, and again without: whether it was killed."""
    undisturbed, _ = straight(algorithm, SHORT)
    child = start(algorithm, folder, SHORT, [fault])
    code = child.wait()
    assert code in (0, -signal.SIGKILL), child.said()
    run(algorithm, folder, SHORT)
    assert_same(folder, undisturbed)
    return code != 0


@pytest.mark.promise("R1", "R2")
@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("config.yaml", 1),
        ("state-00000003.json", 1),  # says that it is being written
        ("state-00000003.pt", 1),
        ("state-00000003.json", 2),
        ("b2a.safetensors", 1),
        ("a2b.safetensors", 2),
        ("status.json", 2),
    ],
)
def test_killed_while_a_file_is_written(name: str, number: int, tmp_path: Path) -> None:
    assert killed_by(BeforeFile(name, die, number), "cyclegan", tmp_path / "run")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("algorithm", ["pix2pix", "cyclegan"])
def test_killed_before_every_call_that_writes(algorithm: str, tmp_path: Path) -> None:
    number = 1
    while killed_by(AtCall(number, die), algorithm, tmp_path / f"run{number}"):
        number += 1
    assert number > 50


@pytest.mark.promise("R1")
@pytest.mark.parametrize("threads", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_wide_convolutions_go_on_as_they_were(threads: int, tmp_path: Path) -> None:
    """A generator whose blocks are computed by Winograd's filtering."""
    undisturbed, folder = tmp_path / "straight", tmp_path / "run"
    run("cyclegan", undisturbed, WIDE, threads=threads)
    killed_at(1, start("cyclegan", folder, WIDE, threads=threads))
    run("cyclegan", folder, WIDE, threads=threads)
    assert_same(folder, undisturbed)


@pytest.mark.parametrize(
    ("algorithm", "threads"),
    [("cyclegan", 1), *(pytest.param("pix2pix", threads, marks=pytest.mark.slow) for threads in (1, 2))],
)
def test_everything_that_a_run_remembers(algorithm: str, threads: int, tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_folder(data, "paired" if algorithm == "pix2pix" else "unpaired", count=6, size=40)
    options = f"--data {data} {EVERYTHING}"
    undisturbed, folder = tmp_path / "straight", tmp_path / "run"
    run(algorithm, undisturbed, options, threads=threads)
    assert len(lines(undisturbed, "validation")) == 6
    assert (undisturbed / "a2b-best.safetensors").exists()
    assert len({line["lr"] for line in lines(undisturbed, "step")}) > 1, "the plateau never came"

    for step in (5, 10):
        killed_at(step, start(algorithm, folder, options, threads=threads))
    run(algorithm, folder, options, threads=threads)
    assert_same(folder, undisturbed)


def test_a_longer_run_goes_on_where_a_shorter_one_ended(tmp_path: Path) -> None:
    undisturbed, _ = straight("cyclegan", f"{STEPS} --workers 0")
    for steps in (5, 11, 24):
        run("cyclegan", tmp_path / "run", STEPS.replace("24", str(steps)) + " --workers 0")
    assert digest(tmp_path / "run") == digest(undisturbed)
    assert lines(tmp_path / "run", "step") == lines(undisturbed, "step")


@pytest.mark.promise("R18")
def test_a_validation_that_a_kill_cuts_off_is_logged_once(tmp_path: Path) -> None:
    """The run ends in the middle of validating, again and again; the line comes when it is done."""
    data, folder = tmp_path / "data", tmp_path / "run"
    write_folder(data, "paired", count=3, size=32)
    options = f"--data {data} --validate-every 1 --max-steps 7 --save-every 100 --keep-every 1 --workers 0"
    stopped = start("pix2pix", folder, options, [DieAfterValidation(stop_first=True)])
    assert stopped.wait() == 75, stopped.said()
    killed = start("pix2pix", folder, options, [DieAfterValidation()])
    assert killed.wait() == -signal.SIGKILL, killed.said()
    run("pix2pix", folder, options)
    assert [line["step"] for line in lines(folder, "validation")] == [3, 6, 7]
    assert metrics_of_states(folder)[3] == pytest.approx(validated(folder)[3]), "noted once it was known"


def validated(folder: Path) -> dict[int, float]:
    """Step → the mean L1 of its validation."""
    metrics = {line["step"]: line["metrics"] for line in lines(folder, "validation")}
    distances = {step: [v for name, v in m.items() if name.endswith("/l1")] for step, m in metrics.items()}
    return {step: sum(values) / len(values) for step, values in distances.items()}


def metrics_of_states(folder: Path) -> dict[int, float | None]:
    """Step → the metric in its manifest."""
    manifests = [json.loads(path.read_text()) for path in folder.glob("state-*.json")]
    return {manifest["step"]: manifest["metric"] for manifest in manifests}


def test_a_metric_stays_with_the_step_that_it_was_measured_at(tmp_path: Path) -> None:
    data, folder = tmp_path / "data", tmp_path / "run"
    write_folder(data, "paired", count=3, size=32)
    options = f"--data {data} --validate-every 1 --save-every 4 --keep-every 1 --lr 0.01 --workers 0 --max-steps"
    run("pix2pix", folder, f"{options} 5")
    run("pix2pix", folder, f"{options} 11")
    measured, states = validated(folder), metrics_of_states(folder)
    assert list(measured) == [3, 5, 6, 9, 11], "after each epoch, and at either end"
    assert {4, 8} <= set(states) and states[4] is states[8] is None
    for step, metric in states.items():
        assert metric == (pytest.approx(measured[step]) if step in measured else None), step
    best = min(measured, key=lambda step: measured[step])
    assert StateStore(folder).best() == best, "the best is a state of its own"
    so_far = [step for step in measured if measured[step] == min(m for s, m in measured.items() if s <= step)]
    assert set(so_far) <= set(states)

    run("pix2pix", folder, f"{options} 12")
    last = validated(folder)[12]
    metrics = model_file.load(folder / "a2b.safetensors")[1].training.metrics
    assert metrics["l1"] == pytest.approx(last) and metrics.keys() == {"l1", "psnr", "ssim"}


@pytest.mark.promise("R20")
@pytest.mark.parametrize("algorithm", ["pix2pix", "cyclegan"])
def test_deterministic_runs_are_equal(algorithm: str, tmp_path: Path) -> None:
    """On a CPU they are so without the option as well; with it, torch refuses what would not be."""
    for name, options in (("one", "--deterministic"), ("two", "--deterministic"), ("three", "--seed 1")):
        run(algorithm, tmp_path / name, f"{SHORT} {options}", TellArithmetic(tmp_path / f"{name}.txt"))
    assert (tmp_path / "one.txt").read_text() == "(True, True) False"
    assert (tmp_path / "three.txt").read_text().startswith("(False,")
    assert digest(tmp_path / "one") == digest(tmp_path / "two") == digest(straight(algorithm, SHORT)[0])
    assert digest(tmp_path / "one") != digest(tmp_path / "three")


@pytest.mark.promise("R1")
@pytest.mark.parametrize(("given", "found"), [(None, "AUTO"), ("COMPATIBLE", "COMPATIBLE")])
def test_mkl_is_asked_for_the_same_bytes_at_each_run(given: str | None, found: str) -> None:
    """Unless the user asks it for something else."""
    environment = {key: value for key, value in os.environ.items() if key != "MKL_CBWR"}
    environment |= {"MKL_CBWR": given} if given else {}
    code = "import i2i, os; print(os.environ['MKL_CBWR'])"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == found
