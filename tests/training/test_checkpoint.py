"""The provenance that a run writes into its model files, and the weights that it starts from."""

import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from i2i.algorithms import CycleGAN, Pix2Pix
from i2i.algorithms.cyclegan import CycleGANOptions
from i2i.algorithms.pix2pix import Pix2PixOptions
from i2i.errors import ModelError
from i2i.models import junyanz, model_file
from i2i.models.info import describe, read_info
from i2i.models.model_file import save_pretrained
from i2i.training import checkpoint
from i2i.training.launch import initialise
from i2i.training.options import RunOptions

SMALL: dict[str, Any] = {"generator": "resnet_1blocks", "discriminator": "patchgan_16", "ngf": 4, "ndf": 4}
PLAIN = CycleGANOptions(**SMALL)
CUT = CycleGANOptions(**SMALL | {"generator": "resnet_1blocks_antialiased", "discriminator": "patchgan_16_antialiased"})
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")
def test_the_commit_of_a_checkout_and_of_a_linked_worktree(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.check_output(["git", *identity, *arguments], cwd=tmp_path / "main", text=True).strip()

    (tmp_path / "main" / "below").mkdir(parents=True)
    git("init", "-q")
    assert checkpoint.source_commit(tmp_path / "main") == "", "nothing is committed yet"
    git("commit", "-q", "--allow-empty", "-m", "first")
    git("worktree", "add", "-q", str(tmp_path / "linked"))
    commit = git("rev-parse", "HEAD")
    assert re.fullmatch(r"[0-9a-f]{40,64}", commit)
    assert checkpoint.source_commit(tmp_path / "main") == checkpoint.source_commit(tmp_path / "linked") == commit
    assert checkpoint.source_commit(tmp_path / "main" / "below") == "", "a package within somebody's repository"


def test_without_a_checkout_or_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checkpoint.source_commit(tmp_path) == ""
    (tmp_path / ".git").write_bytes(b"\xff")
    assert checkpoint.source_commit(tmp_path) == ""
    monkeypatch.setenv("PATH", "")
    assert checkpoint.source_commit(tmp_path) == ""


def test_a_model_file_says_where_it_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert re.fullmatch(r"(?:[0-9a-f]{40})?", checkpoint.COMMIT)
    monkeypatch.setattr(checkpoint, "COMMIT", COMMIT)
    algorithm = CycleGAN(PLAIN)
    options = RunOptions(run=tmp_path, data=Path("/home/someone/sets/monet2photo"))
    metrics = {"l1": 0.5, "odd": float("nan")}
    progress: Any = SimpleNamespace(step=7, images_seen=9)
    checkpoint.save_model_files(algorithm, algorithm.translators(), options, progress, metrics)
    for direction in ("a2b", "b2a"):
        training = read_info(tmp_path / f"{direction}.safetensors").training
        assert (training.algorithm, training.dataset, training.commit) == ("cyclegan", "monet2photo", COMMIT)
        assert (training.steps, training.images_seen, training.metrics) == (7, 9, {"l1": 0.5})


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


def test_starting_from_a_folder_and_from_a_model_file_of_any_name(tmp_path: Path) -> None:
    theirs, ours = CycleGAN(PLAIN), CycleGAN(PLAIN)
    info = {
        name: describe(net, direction=name)  # type: ignore[arg-type]
        for name, net in theirs.translators().items()
    }
    save_pretrained(tmp_path / "folder", theirs.translators()["a2b"], info["a2b"])
    model_file.save(tmp_path / "b2a.pth", theirs.translators()["b2a"], info["b2a"])
    initialise(ours, [tmp_path / "folder", tmp_path / "b2a.pth"])
    assert all(same(net, ours.translators()[name]) for name, net in theirs.translators().items())


def test_starting_from_anti_aliased_networks(tmp_path: Path) -> None:
    """The reference names a discriminator after the generator that it judges."""
    theirs, ours = CycleGAN(CUT), CycleGAN(CUT)
    names = {"G_AB": "G_A", "G_BA": "G_B", "D_A": "D_B", "D_B": "D_A"}
    for name, network in theirs.networks().items():
        junyanz.save(tmp_path / f"latest_net_{names[name]}.pth", network)
    paths = sorted(tmp_path.iterdir())
    initialise(ours, paths)
    assert all(same(network, ours.networks()[name]) for name, network in theirs.networks().items())
    with pytest.raises(ModelError, match=r"downsampling is 'antialiased', .* has 'strided'"):
        initialise(CycleGAN(PLAIN), paths)


def test_a_generator_of_another_algorithm_is_no_discriminator(tmp_path: Path) -> None:
    pix2pix = Pix2Pix(Pix2PixOptions(**SMALL))
    junyanz.save(tmp_path / "latest_net_D.pth", pix2pix.networks()["G"])
    with pytest.raises(ModelError, match="kind is 'resnet'"):
        initialise(pix2pix, [tmp_path / "latest_net_D.pth"])
