"""The memory and time of large pictures by bands of rows, each in a process of its own."""

import json
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from i2i.inference.streaming import stream_tensor
from i2i.networks import create_generator
from i2i.networks.blocks import for_translation

pytest.importorskip("pyvips")
CHILD = Path(__file__).parents[1] / "support" / "streaming_child.py"


def streamed(folder: Path, side: int, width: int, *more: str) -> dict[str, Any]:
    command = [sys.executable, str(CHILD), str(folder), str(side), str(width), *more]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [path.name for path in folder.iterdir()] == ["out.tif"]
    (folder / "out.tif").unlink()
    found: dict[str, Any] = json.loads(done.stdout)
    print(found)
    return found


@pytest.mark.slow
@pytest.mark.promise("R39")
def test_memory_does_not_follow_the_height(tmp_path: Path) -> None:
    small, large = (streamed(tmp_path, side, 4)["peak_bytes"] for side in (1024, 4096))
    assert large < 1_000_000_000 and large - small < 400_000_000


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.promise("R39")
def test_8192_in_one_and_a_half_gigabytes_of_anonymous_memory(tmp_path: Path) -> None:
    found = streamed(tmp_path, 8192, 64, "whole")
    assert found["peak_bytes"] < 1_500_000_000
    assert found["streamed"] < 1.3 * statistics.mean(found["whole"])


@pytest.mark.slow
@pytest.mark.timeout(14_400)
@pytest.mark.promise("R39")
def test_picture_of_16384_pixels_completes(tmp_path: Path) -> None:
    assert streamed(tmp_path, 16_384, 16)["peak_bytes"] < 2_500_000_000


@pytest.mark.slow
@pytest.mark.promise("R38")
@pytest.mark.parametrize(("keep", "most"), [(torch.float32, 1e-4), (torch.float16, 1 / 127.5)])
def test_2048_is_the_picture_as_a_whole(tmp_path: Path, keep: torch.dtype, most: float) -> None:
    """In the plain memory format: with channels last torch's group norm of so many pixels is off by more than this."""
    torch.manual_seed(0)
    network = for_translation(create_generator("resnet_9blocks", width=8))
    x = torch.rand(3, 2048, 2048) * 2 - 1
    with torch.inference_mode():
        whole = network(x[None])[0]
    assert float((stream_tensor(network, x, keep=keep, in_memory=0, folder=tmp_path) - whole).abs().max()) < most


@pytest.mark.slow
@pytest.mark.promise("R1")
def test_killed_streaming_leaves_no_spool(tmp_path: Path) -> None:
    command = [sys.executable, str(CHILD), str(tmp_path), "2048", "16"]
    with subprocess.Popen(command) as child:
        time.sleep(8)
        assert child.poll() is None
        child.send_signal(signal.SIGKILL)
    assert list(tmp_path.iterdir()) == []
