"""Refusals before anything is created: options that contradict each other, the data or the device. Also the weights
that a training begins with: a style by its name, and the third network of CUT's checkpoints, `latest_net_F.pth`."""

from pathlib import Path
from typing import Any

import pytest
import torch
from children import start
from toy_folders import write_folder

from i2i.algorithms import CycleGAN
from i2i.algorithms.cut import CUT, CUTOptions
from i2i.algorithms.cyclegan import CycleGANOptions
from i2i.device import choose_device
from i2i.errors import ModelError, UsageError
from i2i.models import styles
from i2i.models.model_file import open_model
from i2i.training.launch import check_deterministic, initialise
from i2i.training.step import ProcessGroup


@pytest.mark.parametrize("split", [True, False])
def test_a_plateau_needs_a_validation(split: bool, tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_folder(data, "unpaired", count=2, size=16)
    if not split:
        for folder in [*data.glob("val*"), *data.glob("test*")]:
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()
    options = f"--data {data} --lr-policy plateau --max-steps 2 --workers 0 --validate-every {0 if split else 1}"
    child = start("cyclegan", tmp_path / "run", options)
    assert child.wait() == 2, child.said()
    assert ("validate_every = 0" if split else "has no val or test split") in child.said()
    assert not (tmp_path / "run").exists()


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """A machine with two CUDA devices, as far as anybody asks; returns those that were made the current one."""
    current: list[torch.device] = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", current.append)
    return current


def test_each_process_has_a_device_of_its_own(two_gpus: list[torch.device]) -> None:
    for name in ("cuda", "auto"):
        assert [choose_device(name, rank, 2) for rank in range(2)] == [torch.device("cuda", 0), torch.device("cuda", 1)]
        with pytest.raises(UsageError, match="there are 2 CUDA devices"):
            choose_device(name, 2, 3)
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(UsageError, match=r"device = 'cuda:1': 2 processes need one each; give cuda"):
        choose_device("cuda:1", 0, 2)
    assert choose_device("cpu", 1, 2) == torch.device("cpu")


def test_a_process_works_on_its_device(two_gpus: list[torch.device]) -> None:
    assert ProcessGroup("cuda:1").device == torch.device("cuda", 1)
    assert two_gpus == [torch.device("cuda", 1)]


def cyclegan(**options: Any) -> CycleGAN:
    small: dict[str, Any] = {"generator": "resnet_1blocks", "discriminator": "patchgan_16", "ngf": 4, "ndf": 4}
    return CycleGAN(CycleGANOptions(**small | options))


def test_reflection_is_not_deterministic_on_cuda() -> None:
    cuda = torch.device("cuda", 0)
    with pytest.raises(UsageError, match=r"use padding='replicate', or leave it out"):
        check_deterministic(cyclegan(), cuda)
    check_deterministic(cyclegan(), torch.device("cpu"))
    for padding in ("replicate", "zero"):
        check_deterministic(cyclegan(padding=padding), cuda)
    antialiased = cyclegan(padding="replicate", generator="resnet_1blocks_antialiased")
    with pytest.raises(UsageError, match=r"anti-aliased networks halve by it; use others, or leave it out"):
        check_deterministic(antialiased, cuda)


def cut(**options: object) -> CUT:
    small = {"generator": "resnet_1blocks", "discriminator": "patchgan_16", "ngf": 4, "ndf": 4}
    return CUT(CUTOptions(**(small | options)))  # type: ignore[arg-type]


def test_the_patch_embedding_goes_on_from_its_file(tmp_path: Path) -> None:
    one, other = cut(), cut()
    torch.save(one.networks()["F"].state_dict(), tmp_path / "latest_net_F.pth")
    initialise(other, [tmp_path / "latest_net_F.pth"])
    for name, value in one.networks()["F"].state_dict().items():
        assert torch.equal(value, other.networks()["F"].state_dict()[name])


def test_another_embedding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "latest_net_F.pth"
    torch.save(cut(ngf=8).networks()["F"].state_dict(), path)
    with pytest.raises(ModelError, match=r"mlp_1\.0\.weight is \(\d+, 16\), here \(\d+, 8\); nce_layers and ngf"):
        initialise(cut(), [path])
    torch.save({"model.0.weight": torch.zeros(3)}, path)
    with pytest.raises(ModelError, match="not a patch embedding of CUT"):
        initialise(cut(), [path])
    torch.save({"mlp_0.0.weight": torch.full((256, 3), torch.nan)}, path)
    with pytest.raises(ModelError, match="finite"):
        initialise(cut(), [path])


def test_a_style_by_its_name() -> None:
    painter = {"generator": "resnet_9blocks_antialiased", "ngf": 32, "input_share": 0.25}
    started = cut(**painter)
    initialise(started, [Path("monet")], "b2a")
    weights = open_model(styles.find("monet"))[0].state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in started.networks()["G"].state_dict().items())
    with pytest.raises(UsageError, match=r"Did you mean .*'monet'"):
        initialise(started, [Path("mone")], "b2a")
