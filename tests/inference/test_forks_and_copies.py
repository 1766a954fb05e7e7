"""A translator in other processes and in copies of itself gives the same picture, with two threads as a user has them.

All of it happens in one process of its own, since these tests have a single thread each.
"""

import json
import os
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from fork_server import python

from i2i import machine
from i2i.models import model_file
from i2i.models.info import describe
from i2i.networks.resnet import ResnetConfig

RUNTIMES = [
    "torch",
    *(name for name, package in (("openvino", "openvino"), ("onnx", "onnxruntime")) if find_spec(package)),
]
FORK, COPY = ["used before", "loaded there", "dropped there"], ["pickle", "deepcopy"]
CODE = """
import copy, json, multiprocessing, os, pickle, sys
import numpy as np
import torch, i2i
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(2)
style, *runtimes = sys.argv[1:]
picture = np.random.default_rng(0).integers(0, 256, (160, 160, 3), np.uint8)
context, found = multiprocessing.get_context("fork"), {}

def forked(compute):
    def send():
        queue.put(bool(np.array_equal(compute(), expected)))
    queue = context.Queue()
    process = context.Process(target=send)
    process.start()
    process.join(60)
    if process.is_alive():
        process.kill()
        return "hangs"
    return queue.get(timeout=9) if process.exitcode == 0 else process.exitcode

def loaded():
    return i2i.load_translator(style, runtime=runtime, device="cpu")

def dropped():
    global translator
    del translator
    return loaded()(picture)

for runtime in runtimes:
    translator = loaded()
    expected = translator(picture)
    found[runtime] = {
        "used before": forked(lambda: translator(picture)),
        "loaded there": forked(lambda: loaded()(picture)),
        "dropped there": forked(dropped),
        "pickle": bool(np.array_equal(pickle.loads(pickle.dumps(translator))(picture), expected)),
        "deepcopy": bool(np.array_equal(copy.deepcopy(translator)(picture), expected)),
    }

class Pictures(Dataset):
    def __init__(self):
        self.transform = i2i.Translate(style, p=1, precision="fp32")
    def __len__(self):
        return 2
    def __getitem__(self, i):
        return self.transform(image=picture[: 160 - 32 * i])["image"]

def images(workers):
    return [image.tobytes() for image in DataLoader(Pictures(), batch_size=None, num_workers=workers,
        collate_fn=lambda x: x, multiprocessing_context="fork" if workers else None)]

expected = Pictures()[0]
found["Translate"] = {
    "used before": forked(lambda: Pictures()[0]),
    "threads after": torch.get_num_threads(),
    "workers": images(0) == images(2),
}
torch.set_num_threads(1)
found["Translate"]["one thread"] = Pictures()[0].tobytes() == expected.tobytes()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    style = tmp_path_factory.mktemp("style") / "style.safetensors"
    torch.manual_seed(0)
    network = ResnetConfig(width=8, blocks=1).build()
    model_file.save(style, network, describe(network, direction="a2b"))
    done = python("-c", CODE, style, *RUNTIMES, environment={**os.environ, "OMP_NUM_THREADS": "2"})
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_behind_a_fork_it_gives_the_same_picture(found: dict[str, dict[str, object]], runtime: str) -> None:
    assert [found[runtime][how] for how in FORK] == [True] * 3


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_its_copies_give_the_same_picture(found: dict[str, dict[str, object]], runtime: str) -> None:
    assert [found[runtime][how] for how in COPY] == [True] * 2


def test_the_transform_gives_the_same_images_in_any_process_with_any_number_of_threads(
    found: dict[str, dict[str, object]],
) -> None:
    assert found["Translate"] == {"used before": True, "threads after": 2, "workers": True, "one thread": True}


def test_openmp_is_found_wherever_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = tmp_path / "maps"
    lines = ["7f00-7f01 r-xp 00000000 08:01 42   /a folder/of b/libgomp-a34b.so.1", "7f01-7f02 rw-p 00000000 00:00 0 "]
    lines += [
        "7f03-7f04 r--p 00000000 08:01 43  /opt/libgomp/other.so",
        "7f05-7f06 r--p 00000000 08:01 4 /l/libgomp.so.1",
    ]
    maps.write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(machine, "_MAPS", maps)
    assert machine._openmp() == {"/a folder/of b/libgomp-a34b.so.1", "/l/libgomp.so.1"}
