"""Two processes train as one would; they save, stop and fail together."""

import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from children import Child, digest, lines, run, start, status
from faults import BeforeFile, HangAt, KillAtStep, SignalAt, SlowSave, Timeout, die
from fork_server import CONTEXT, free_port, meeting_place
from torch.distributed import TCPStore

from i2i import machine
from i2i.algorithms import CycleGAN, Pix2Pix
from i2i.algorithms.cyclegan import CycleGANOptions
from i2i.algorithms.pix2pix import Pix2PixOptions
from i2i.data.pair import ImagePair
from i2i.machine import meet
from i2i.training.schedule import TrainingOptions
from i2i.training.step import TIMEOUT, ProcessGroup, TrainingStep

OPTIONS = "--workers 0 --log-every 1"


def together(
    folder: Path,
    options: str,
    prepare: dict[int, list[Any]] | None = None,
    algorithm: str = "cyclegan",
    environment: dict[str, str] | None = None,
) -> list[Child]:
    """Two processes of one training, started."""
    port = free_port()
    return [
        start(
            algorithm,
            folder,
            f"{OPTIONS} {options}",
            (prepare or {}).get(rank, ()),
            meeting_place(rank, 2, port) | (environment or {}),
        )
        for rank in range(2)
    ]


def batch(step: int, rows: slice) -> ImagePair:
    generator = torch.Generator().manual_seed(step)
    a, b = (torch.rand(2, 3, 16, 16, generator=generator, dtype=torch.float64) * 2 - 1 for _ in range(2))
    return ImagePair(a[rows], b[rows])


def train_share(environment: dict[str, str], file: Path) -> None:
    """Three steps on this process's rows of each batch; the weights and losses go to `file`."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    processes = ProcessGroup("cpu")
    rows = slice(processes.rank, processes.rank + 1) if processes.world_size == 2 else slice(None)
    torch.manual_seed(0)
    small: Any = {"generator": "resnet_1blocks", "discriminator": "patchgan_16", "ngf": 4, "ndf": 4, "pool_size": 0}
    algorithm = CycleGAN(CycleGANOptions(**small))
    for network in algorithm.networks().values():
        network.double()
    step = TrainingStep(algorithm, TrainingOptions(), processes)
    for i in range(3):
        step(batch(i, rows), i)
    made = {name: network.state_dict() for name, network in algorithm.networks().items()}
    # Adam makes almost the same update of twice the gradient: only its moments tell a sum from a mean.
    for name, player in step.players.items():
        moments = player.optimizer.state_dict()["state"]
        made[name] = {str(number): moment["exp_avg"] for number, moment in moments.items()}
    torch.save(made, file)
    processes.close()


def test_two_processes_give_the_update_of_one_with_twice_the_batch(tmp_path: Path) -> None:
    port = free_port()
    places = {"two": [meeting_place(0, 2, port), meeting_place(1, 2, port)], "one": [{}]}
    for name, environments in places.items():
        workers = [
            CONTEXT.Process(target=train_share, args=(environment, tmp_path / f"{name}-{rank}.pt"))
            for rank, environment in enumerate(environments)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
            assert worker.exitcode == 0
    one, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("one-0", "two-0", "two-1"))
    for network in one:
        for key, value in one[network].items():
            torch.testing.assert_close(first[network][key], value, rtol=0, atol=1e-9, msg=f"{network}.{key}")
            assert torch.equal(first[network][key], second[network][key])


def meet_after(seconds: float, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    time.sleep(seconds)
    meet("gloo", timedelta(seconds=2))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.mark.promise("R7")
def test_a_check_of_the_data_may_take_longer_than_a_step() -> None:
    """The first process looks at all pictures while the others wait for it."""
    port = free_port()
    late = [(3.0, meeting_place(0, 2, port)), (0.0, meeting_place(1, 2, port))]
    workers = [CONTEXT.Process(target=meet_after, args=each) for each in late]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0


def test_the_script_in_two_processes(tmp_path: Path) -> None:
    """The same samples, the same losses: the mean of two batches of one is that of one batch of two."""
    one, two = tmp_path / "one", tmp_path / "two"
    run("cyclegan", one, f"{OPTIONS} --pool-size 0 --batch-size 2 --max-steps 4")
    children = together(two, "--pool-size 0 --batch-size 1 --max-steps 4")
    assert [child.wait() for child in children] == [0, 0], children[0].said() + children[1].said()
    for expected, made in zip(lines(one, "step"), lines(two, "step"), strict=True):
        assert made["images"] == expected["images"]
        assert made["losses"] == pytest.approx(expected["losses"], rel=1e-4)
    assert "finished" in children[0].said() and children[1].said() == ""


def test_a_signal_to_both_and_another_number_of_processes_afterwards(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    both = [SignalAt("step", 5, signal.SIGTERM)]
    children = together(folder, "--pool-size 4 --max-steps 100000", {0: both, 1: both})
    assert [child.wait() for child in children] == [75, 75], children[0].said() + children[1].said()
    told = status(folder)
    assert (told["status"], told["exit_code"], told["step"], told["processes"]) == ("preempted", 75, 5, 2)
    assert told["host"] == socket.gethostname() and told["pid"] == children[0].pid
    assert "Traceback" not in children[0].said() + children[1].said()
    assert "run the same command again" in children[0].said()
    assert "run the same command again" not in children[1].said(), "said once"
    state = torch.load(folder / "state-00000005.pt", weights_only=True)
    assert [len(pools["pool_A"]) for pools in state["pools"]] == [4, 4]

    # 3 steps on: the first 10 images were seen
    alone = run("cyclegan", folder, f"{OPTIONS} --pool-size 8 --max-steps 13")
    assert "processes: 2 so far, now 1. A step sees 1 images now" in alone.said()
    state = newest(folder)
    assert [len(pools["pool_A"]) for pools in state["pools"]] == [8]
    assert [line["step"] for line in lines(folder, "step")] == list(range(1, state["step"] + 1))

    children = together(folder, f"--pool-size 8 --max-steps {state['step'] + 2}")
    assert [child.wait() for child in children] == [0, 0], children[0].said() + children[1].said()
    assert len(newest(folder)["pools"]) == 2
    assert lines(folder, "step")[-1]["step"] == newest(folder)["step"]


def newest(folder: Path) -> dict[str, Any]:
    return dict(torch.load(max(folder.glob("state-*.pt")), weights_only=True))


@pytest.mark.promise("R7")
def test_a_signal_to_one_stops_both_at_the_same_step(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    children = together(folder, "--max-steps 100000", {1: [SignalAt("agree", 4, signal.SIGUSR1)]})
    assert [child.wait() for child in children] == [75, 75], children[0].said() + children[1].said()
    assert newest(folder)["step"] == status(folder)["step"] <= 5


@pytest.mark.promise("R19")
@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_dies_the_other_ends_with_a_message(victim: int, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    children = together(folder, "--max-steps 100000 --save-every 2", {victim: [KillAtStep(6)]})
    since = time.monotonic()
    assert children[victim].wait() == -signal.SIGKILL
    assert children[1 - victim].wait(20) == 9, children[1 - victim].said()
    assert time.monotonic() - since < 20
    assert "lost the other processes of this training" in children[1 - victim].said()
    run("cyclegan", folder, f"{OPTIONS} --max-steps 7")
    assert status(folder)["status"] == "finished"


@pytest.mark.promise("R19")
@pytest.mark.parametrize("place", ["step", "agree"])  # in the group for gradients, and in the one for decisions
def test_who_hangs_is_waited_for_as_long_as_was_set(place: str, tmp_path: Path) -> None:
    hooks: dict[int, list[Any]] = {0: [Timeout(2)], 1: [Timeout(2), HangAt(place, 2)]}
    children = together(tmp_path / "run", "--max-steps 9", hooks)
    assert children[0].wait(60) == 9, children[0].said()
    assert "lost the other processes of this training" in children[0].said()


def test_who_hangs_is_waited_for_ten_minutes() -> None:
    assert TIMEOUT.total_seconds() == 600


def agent_store() -> tuple[TCPStore, dict[str, str]]:
    """A store as torchrun keeps one for its processes, and the variables that lead to it."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    return store, {"TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_PORT": str(store.port)}


@pytest.mark.promise("R19")
def test_restarted_by_torchrun_they_find_each_other_and_end_as_if_nothing_had_been(tmp_path: Path) -> None:
    """Its store lives through the restart, and holds the addresses of the processes that are gone."""
    folder, undisturbed = tmp_path / "run", tmp_path / "straight"
    options = "--max-steps 6 --save-every 2"
    for child in together(undisturbed, options):
        assert child.wait() == 0
    _store, agent = agent_store()
    children = together(folder, options, {1: [KillAtStep(5)]}, environment=agent)
    assert [child.wait(30) for child in children] == [9, -signal.SIGKILL]
    assert (status(folder)["status"], status(folder)["exit_code"]) == ("failed", 9)
    children = together(folder, options, environment=agent)
    assert [child.wait(30) for child in children] == [0, 0], children[0].said() + children[1].said()
    assert digest(folder) == digest(undisturbed)


@pytest.mark.promise("R19")
def test_machines_that_count_their_restarts_apart_find_each_other() -> None:
    """Four times in one store: with processes that were there before, one that never came, and one machine less."""
    store, agent = agent_store()
    store.set("call-1", "of a process that is gone")
    for counts in ("00", "00", "10", "2"):
        places = [meeting_place(rank, len(counts), store.port) | agent for rank in range(len(counts))]
        jobs = [(0.0, here | {"TORCHELASTIC_RESTART_COUNT": count}) for here, count in zip(places, counts, strict=True)]
        workers = [CONTEXT.Process(target=meet_after, args=job) for job in jobs]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
            assert worker.exitcode == 0, counts


@pytest.mark.promise("R19")
def test_who_was_answered_by_a_process_that_is_gone_meets_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "FIRST", timedelta(seconds=20))
    store, _ = agent_store()
    own = TCPStore("127.0.0.1", store.port, is_master=False)
    with ThreadPoolExecutor() as threads:
        second = threads.submit(machine._namespace, own, 1, 2)
        store.wait(["call-1"])
        store.set("calls", f"gone {store.get('call-1').decode()}")
        store.wait(["gone/here-1"])
        machine._namespace(store, 0, 2).set("met", "")
        assert second.result().check(["met"])


def statistics(environment: dict[str, str], rows: list[slice], file: Path) -> None:
    """Batch norm's after one step on these rows, each with networks of its own; they go to `file`."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    processes, made = ProcessGroup("cpu"), []
    small: Any = {"generator": "unet_32", "discriminator": "patchgan_16", "ngf": 4, "ndf": 4}
    for part in rows:
        torch.manual_seed(0)
        algorithm = Pix2Pix(Pix2PixOptions(**small))
        for network in algorithm.networks().values():
            network.double()
        generator = torch.Generator().manual_seed(0)
        a, b = (torch.rand(2, 3, 32, 32, generator=generator, dtype=torch.float64) * 2 - 1 for _ in range(2))
        torch.manual_seed(1)
        TrainingStep(algorithm, TrainingOptions(), processes)(ImagePair(a[part], b[part]), 0)
        made.append({name: value for name, value in algorithm.G.state_dict().items() if "running" in name})
    torch.save(made, file)
    processes.close()


def test_batch_norm_has_the_mean_of_the_statistics_of_all_processes(tmp_path: Path) -> None:
    port, halves = free_port(), [slice(0, 1), slice(1, 2)]
    jobs = [(meeting_place(rank, 2, port), [halves[rank]], tmp_path / f"{rank}.pt") for rank in range(2)]
    workers = [CONTEXT.Process(target=statistics, args=job) for job in [*jobs, ({}, halves, tmp_path / "alone.pt")]]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    (first,), (second,), alone = (torch.load(tmp_path / f"{name}.pt") for name in ("0", "1", "alone"))
    assert len(first) > 4
    for name, value in first.items():
        assert not torch.equal(alone[0][name], alone[1][name])
        torch.testing.assert_close(value, (alone[0][name] + alone[1][name]) / 2, rtol=0, atol=1e-12)
        assert torch.equal(value, second[name])


def test_the_last_save_is_waited_for_by_all(tmp_path: Path) -> None:
    """The last step is one that saves anyway; the second process must not go on to save once more alone."""
    children = together(tmp_path / "run", "--max-steps 4 --save-every 2", {0: [SlowSave(0.5)]})
    assert [child.wait(30) for child in children] == [0, 0], children[0].said() + children[1].said()


def test_a_folder_that_is_taken_is_refused_by_all(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = start("cyclegan", folder, f"{OPTIONS} --max-steps 100000")
    first.until((folder / "status.json").exists)
    children = together(folder, "--max-steps 9")
    assert children[0].wait() == 7, children[0].said()
    assert children[1].wait(20) == 9, children[1].said()
    first.signal(signal.SIGKILL)
    first.wait()


@pytest.mark.promise("R1")
@pytest.mark.parametrize("algorithm", ["cyclegan", "pix2pix"])  # with instance norm, and with batch norm
def test_killed_while_saving_in_two_processes(algorithm: str, tmp_path: Path) -> None:
    folder, undisturbed = tmp_path / "run", tmp_path / "straight"
    options = "--max-steps 6 --save-every 2"
    for child in together(undisturbed, options, algorithm=algorithm):
        assert child.wait() == 0
    children = together(folder, options, {0: [BeforeFile("state-00000004.pt", die)]}, algorithm)
    assert children[0].wait() == -signal.SIGKILL
    assert children[1].wait(20) == 9
    for child in together(folder, options, algorithm=algorithm):
        assert child.wait() == 0, child.said()
    assert digest(folder) == digest(undisturbed)
