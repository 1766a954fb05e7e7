"""Batches: the same whatever prepares them, from any start, by any number of processes; errors and kills."""

import dataclasses
import errno
import multiprocessing
import os
import signal
import time
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from number_samples import Numbers, first_numbers, numbers
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from i2i import images
from i2i.data import pair as loader
from i2i.data.datasets import Images
from i2i.data.options import DataOptions
from i2i.data.pair import ImagePair, RawPair, batches
from i2i.errors import I2IError, InputError, ResourceError, UsageError


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Torch looks after its workers every fifth of a second in place of every five seconds."""
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.2,))


class Failing(Numbers):
    def __init__(self, how, at):
        self.how, self.at = how, at

    def __getitem__(self, t):
        if t == self.at:
            self.how(t)
        return super().__getitem__(t)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_order_and_last_batch(workers):
    got = list(batches(Numbers(), 5, 12, 3, workers))
    assert numbers(got) == [[5, 6, 7], [8, 9, 10], [11, 12, 13]]
    assert got[0].skipped == ("5", "6", "7")
    assert numbers(batches(Numbers(), 5, 5, 3, workers)) == []


@pytest.mark.parametrize("stop", [12, 13, 16, 17])
def test_ranks_together_see_what_one_process_sees(stop):
    alone = numbers(batches(Numbers(), 0, stop, 4, 0))
    ranks = [numbers(batches(Numbers(), 0, stop, 2, 0, rank, 2)) for rank in range(2)]
    assert [first + second for first, second in zip(*ranks, strict=True)] == alone


@pytest.mark.promise("R1", "H13")
def test_pictures_do_not_depend_on_workers(tmp_path):
    paths = []
    for i in range(7):
        pixels = np.random.default_rng(i).integers(0, 256, (30, 30, 3), np.uint8)
        images.write(tmp_path / f"{i}.png", images.Picture(pixels))
        paths.append(tmp_path / f"{i}.png")
    dataset = Images((paths, paths[:4]), DataOptions(load_size=20, crop_size=16))
    runs = [list(batches(dataset, 3, 15, 2, workers)) for workers in (0, 1, 2)]
    for other in runs[1:]:
        assert all(torch.equal(x.a, y.a) and torch.equal(x.b, y.b) for x, y in zip(runs[0], other, strict=True))
    later = list(batches(dataset, 7, 15, 2, 1))
    assert torch.equal(later[0].a, runs[0][2].a)


def test_global_random_state_is_not_touched():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    list(batches(Numbers(), 0, 4, 2, 1))
    assert torch.equal(torch.rand(3), expected)


def raise_input_error(t):
    raise InputError(f"sample {t}: damaged")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_input_error_arrives_as_it_was_raised(workers):
    got = batches(Failing(raise_input_error, 4), 0, 8, 2, workers)
    assert numbers([next(got), next(got)]) == [[0, 1], [2, 3]]
    with pytest.raises(InputError) as caught:
        next(got)
    assert str(caught.value) == "sample 4: damaged"


def divide_by_zero(t):
    return t // 0


def test_a_bug_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        list(batches(Failing(divide_by_zero, 1), 0, 4, 2, 1))


class Sizes(Numbers):
    def __getitem__(self, t):
        return ImagePair(torch.zeros(1, 2 + t, 2), torch.zeros(1, 2, 2))


def test_different_sizes_in_a_batch():
    with pytest.raises(UsageError, match="different sizes"):
        list(batches(Sizes(), 0, 2, 2, 0))
    assert len(list(batches(Sizes(), 0, 2, 1, 0))) == 2


def die(t):
    os.kill(os.getpid(), signal.SIGKILL)


@dataclasses.dataclass
class DieOnce:
    marker: str

    def __call__(self, t):
        if not os.path.exists(self.marker):  # noqa: PTH110
            open(self.marker, "w").close()  # noqa: PTH123
            die(t)


@pytest.mark.promise("R10", "H22")
def test_a_killed_worker_is_replaced(tmp_path):
    handler = signal.getsignal(signal.SIGCHLD)
    got = list(batches(Failing(DieOnce(str(tmp_path / "dead")), 5), 0, 12, 2, 2))
    assert numbers(got) == [[t, t + 1] for t in range(0, 12, 2)]
    assert (tmp_path / "dead").exists()
    assert signal.getsignal(signal.SIGCHLD) == handler


class Pictures(Failing):
    """Large enough for shared memory, which a killed worker takes along."""

    def __getitem__(self, t):
        pair = super().__getitem__(t)
        return ImagePair(pair.a.repeat(1, 32, 32), pair.b.repeat(1, 32, 32))


def test_finished_batches_of_a_killed_worker_are_prepared_again(tmp_path):
    got = batches(Pictures(DieOnce(str(tmp_path / "dead")), 9), 0, 24, 1, 1)
    assert numbers(got) == [[t] for t in range(24)]
    assert (tmp_path / "dead").exists()


class Long(Numbers):
    """A batch of megabytes, whichever part of it is long."""

    def __init__(self, part):
        self.part = part

    def raw(self, t):
        if self.part in ("error", "bug"):
            raise (InputError if self.part == "error" else ZeroDivisionError)("x" * (1 << 20))
        side, name = (1024, "") if self.part == "pixels" else (1, "x" * (1 << 20))
        pixels = np.full((side, side, 3), t, np.uint8)
        return RawPair(pixels, pixels, (name,))


@pytest.mark.promise("R10")
@pytest.mark.parametrize("part", ["pixels", "names", "error", "bug"])
def test_the_message_of_a_worker_is_short(part, monkeypatch):
    """A system writes so many bytes into a pipe at once or not at all: Linux 4,096, others 512 at least (POSIX)."""
    monkeypatch.setattr(loader, "get_worker_info", lambda: SimpleNamespace(id=0))
    message = ForkingPickler.dumps((0, loader._Batches(Long(part), 1).__getitems__([3])))
    assert len(message) < 512
    value = ForkingPickler.loads(message)[1]
    if part in ("error", "bug"):
        assert "x" * (1 << 20) in (str(value) if part == "error" else value.exc_msg)
    else:
        assert int(value.a[0, 0, 0, 0]) == 3 and len(value.skipped[0]) == (1 << 20) * (part == "names")


@pytest.mark.promise("R10")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("part", ["pixels", "names"])
def test_a_worker_that_is_killed_while_it_sends_is_replaced(part, monkeypatch):
    """Also where torch has no room for shared memory: a long message would fill the pipe, and a part of it stay."""

    def start(worker):
        prepare(worker)
        torch.UntypedStorage._share_fd_cpu_ = torch.UntypedStorage._share_filename_cpu_ = refused

    def refused(*arguments):
        raise RuntimeError("unable to allocate shared memory(shm)")

    prepare = loader._start_worker
    monkeypatch.setattr(loader, "_start_worker", start)
    before = set(multiprocessing.active_children())
    got = batches(Long(part), 0, 8, 1, 1)
    next(got)
    (worker,) = set(multiprocessing.active_children()) - before
    time.sleep(0.5)  # it has prepared its next batches, and would be in the middle of a message
    worker.kill()
    assert [round(float(batch.a[0, 0, 0, 0] * 127.5 + 127.5)) for batch in got] == list(range(1, 8))


def find_nothing(t):
    open("/nowhere/at/all").close()  # noqa: PTH123


@pytest.mark.parametrize("workers", [0, 1])
def test_a_missing_file_is_not_taken_for_a_killed_worker(workers):
    with pytest.raises(FileNotFoundError, match="No such file"):
        list(batches(Failing(find_nothing, 1), 0, 4, 2, workers))


class Dying:
    """In place of what prepares batches: killed so many times at these first samples."""

    def __init__(self, deaths):
        self.deaths = deaths

    def __call__(self, dataset, firsts, batch_size, *_):
        for first in firsts:
            if self.deaths.get(first):
                self.deaths[first] -= 1
                raise loader._WorkerKilled("killed", [first])
            yield loader._collate([dataset[t] for t in range(first, first + batch_size)])


@pytest.mark.promise("R10")
def test_three_deaths_at_each_batch_are_survived_and_no_fourth(monkeypatch):
    monkeypatch.setattr(loader, "_prepare", Dying({2: 3, 4: 3, 8: 3}))
    assert numbers(batches(Numbers(), 0, 10, 2, 1)) == [[t, t + 1] for t in range(0, 10, 2)]
    monkeypatch.setattr(loader, "_prepare", Dying({4: 4}))
    got = batches(Numbers(), 0, 10, 2, 1)
    assert numbers([next(got), next(got)]) == [[0, 1], [2, 3]]
    with pytest.raises(I2IError, match=r"killed 4 times at the samples 4: killed"):
        next(got)


@pytest.mark.promise("R10")
def test_workers_that_are_killed_again_and_again(monkeypatch):
    monkeypatch.setattr(loader, "MAX_RESTARTS", 0)
    with pytest.raises(I2IError, match=r"killed 1 times at the samples 3:"):
        list(batches(Failing(die, 3), 0, 8, 2, 1))


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_inside_a_started_process(method):
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=first_numbers, args=(queue,))
    process.start()
    assert queue.get(timeout=60) == [[0, 1], [2, 3]]
    process.join()


def test_pair():
    pair = next(batches(Numbers(), 0, 4, 4, 0))
    assert len(pair) == 4
    assert pair.to("cpu", torch.float64).b.dtype == torch.float64
    assert numbers(pair.parts(2)) == [[0, 1], [2, 3]]


def pictures(tmp_path, sizes, dtypes=(np.uint8,), **options):
    paths = []
    for i, size in enumerate(sizes):
        dtype = dtypes[i % len(dtypes)]
        pixels = np.random.default_rng(i).integers(0, 256, (*size, 3)).astype(dtype)
        images.write(tmp_path / f"{i}.png", images.Picture(pixels))
        paths.append(tmp_path / f"{i}.png")
    return Images((paths, paths[::-1]), DataOptions(load_size=20, crop_size=16, **options))


@pytest.mark.parametrize(
    ("sizes", "dtypes", "preprocess"),
    [
        ([(30, 24)] * 5, [np.uint8], "resize_and_crop"),
        ([(30, 24)] * 5, [np.uint16], "resize_and_crop"),
        ([(30, 24)] * 5, [np.uint8, np.uint16], "resize_and_crop"),
        ([(30, 24), (24, 24), (30, 24), (16, 30), (24, 30)], [np.uint8], "none"),
    ],
)
def test_workers_send_the_same_samples(tmp_path, sizes, dtypes, preprocess):
    """Also where pictures differ in size or depth, so that some batches are no one array."""
    dataset = pictures(tmp_path, sizes, dtypes, preprocess=preprocess)
    for batch_size, start in ((1, 0), (1, 7), (2, 3))[: 2 if preprocess == "none" else 3]:
        plain = list(batches(dataset, start, start + 16, batch_size, 0))
        for kept, batch in zip(plain, list(batches(dataset, start, start + 16, batch_size, 2)), strict=True):
            assert torch.equal(kept.a, batch.a) and torch.equal(kept.b, batch.b)
            assert batch.a.is_contiguous() and batch.a.dtype == torch.float32


def test_a_damaged_picture_is_named_by_a_worker(tmp_path):
    dataset = pictures(tmp_path, [(30, 24)] * 5, on_bad="skip")
    dataset.lists[0][2].write_bytes(b"damaged")
    for first, second in zip(batches(dataset, 0, 10, 2, 0), batches(dataset, 0, 10, 2, 1), strict=True):
        assert first.skipped == second.skipped and torch.equal(first.a, second.a)
    dataset = Images(dataset.lists, dataclasses.replace(dataset.options, on_bad="error"))
    with pytest.raises(InputError, match=r"2\.png"):
        list(batches(dataset, 0, 5, 1, 1))


def test_a_system_without_files_to_hand_over_shares_memory(monkeypatch):
    """As Windows."""
    monkeypatch.setattr(loader, "_DupFd", None)
    assert numbers(batches(Numbers(), 0, 4, 2, 1)) == [[0, 1], [2, 3]]


@pytest.mark.promise("R10")
@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="counts descriptors as Linux does")
def test_too_many_open_files_are_said() -> None:
    resource = pytest.importorskip("resource")
    got = batches(Numbers(), 0, 400, 2, 1)
    next(got)
    _, most = limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) - 1, most))
    try:
        with pytest.raises(ResourceError, match=r"^Too many open files .*ulimit -n.*workers=0"):
            list(got)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)


@pytest.mark.promise("R10")
def test_batches_that_find_no_room_say_so(monkeypatch):
    def refused(name):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "memfd_create", refused)
    with pytest.raises(ResourceError, match=r"no room for a batch.*No space left.*workers=0"):
        list(batches(Numbers(), 0, 4, 2, 1))
    monkeypatch.delattr(os, "memfd_create")
    assert numbers(batches(Numbers(), 0, 4, 2, 1)) == [[0, 1], [2, 3]]


@pytest.mark.promise("R10")
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="a process has all cores here")
def test_more_workers_than_cores_are_no_news(monkeypatch, recwarn):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert len(list(batches(Numbers(), 0, 4, 2, 2))) == 2
    assert not [warning for warning in recwarn if "DataLoader" in str(warning.message)]


def test_workers_that_cannot_start_say_why(monkeypatch):
    def refused(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(loader, "DataLoader", refused)
    with pytest.raises(ResourceError, match=r"cannot be started: .*No space left.*workers=0") as caught:
        list(batches(Numbers(), 0, 4, 1, 2))
    assert caught.value.exit_code == 9


class Slow(Numbers):
    """Takes so many seconds of its own clock, the first time a second more."""

    def __init__(self, seconds):
        self.seconds, self.now, self.asked = seconds, 0.0, 0

    def __getitem__(self, t):
        self.now += self.seconds + (0.2 if self.asked == 0 else 0)
        self.asked += 1
        return super().__getitem__(t)


@pytest.mark.parametrize(
    ("seconds", "accelerator", "expected"),
    [(0, False, 0), (0, True, 0), (0.005, False, 0), (0.005, True, 1), (0.03, True, 3), (0.08, True, 4)],
)
def test_workers_by_measurement(monkeypatch, seconds, accelerator, expected):
    dataset = Slow(seconds)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    monkeypatch.setattr(time, "perf_counter", lambda: dataset.now)
    together = {
        "RANK": 0,
        "LOCAL_RANK": 0,
        "WORLD_SIZE": 2,
        "LOCAL_WORLD_SIZE": 2,
        "MASTER_ADDR": "x",
        "MASTER_PORT": 1,
    }
    for name, value in together.items():
        monkeypatch.setenv(name, str(value))
    assert loader.measured_workers(dataset, 0, 100, 1, accelerator) == expected
    assert dataset.now < 0.6 and dataset.asked <= 10


def test_workers_auto_gives_the_same_batches():
    assert numbers(batches(Numbers(), 5, 12, 3, "auto")) == [[5, 6, 7], [8, 9, 10], [11, 12, 13]]
    assert numbers(batches(Numbers(), 5, 5, 3, "auto")) == []
    with pytest.raises(InputError, match="sample 4: damaged"):
        list(batches(Failing(raise_input_error, 4), 0, 8, 2, "auto"))
