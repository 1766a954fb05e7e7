"""What a run writes into its model files of where they come from, and what it starts from."""

import re
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
from i2i.models.pretrained import save_pretrained
from i2i.training import checkpoint
from i2i.training.launch import initialise
from i2i.training.options import RunOptions

SMALL: dict[str, Any] = {"generator": "resnet_1blocks", "discriminator": "patchgan_16", "ngf": 4, "ndf": 4}
PLAIN = CycleGANOptions(**SMALL)
CUT = CycleGANOptions(**SMALL | {"generator": "resnet_1blocks_antialiased", "discriminator": "patchgan_16_antialiased"})
COMMIT, OTHER = "0123456789abcdef0123456789abcdef01234567", "f" * 40


def checkout(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / ".git" / name.replace("__", "/").replace("_", "-")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_the_commit_of_a_checkout(tmp_path: Path) -> None:
    branch = {"HEAD": "ref: refs/heads/main\n"}
    packed = f"# pack-refs with: peeled\n{OTHER} refs/heads/other\n{COMMIT} refs/heads/main\n^{OTHER}\n"
    assert checkpoint.source_commit(checkout(tmp_path / "loose", **branch, refs__heads__main=COMMIT + "\n")) == COMMIT
    assert checkpoint.source_commit(checkout(tmp_path / "packed", **branch, packed_refs=packed)) == COMMIT
    assert checkpoint.source_commit(checkout(tmp_path / "detached", HEAD=COMMIT + "\n")) == COMMIT
    main = checkout(tmp_path / "main", **branch, refs__heads__main=COMMIT)
    linked = main / ".git" / "worktrees" / "linked"
    linked.mkdir(parents=True)
    (linked / "HEAD").write_text("ref: refs/heads/main\n")
    (linked / "commondir").write_text("../..\n")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / ".git").write_text(f"gitdir: {linked}\n")
    assert checkpoint.source_commit(tmp_path / "linked") == COMMIT


def test_without_a_checkout_there_is_no_commit(tmp_path: Path) -> None:
    assert checkpoint.source_commit(tmp_path) == ""
    assert checkpoint.source_commit(checkout(tmp_path / "new", HEAD="ref: refs/heads/main")) == ""
    assert checkpoint.source_commit(checkout(tmp_path / "odd", HEAD="../../etc/passwd")) == ""
    (tmp_path / "binary").mkdir()
    (tmp_path / "binary" / ".git").write_bytes(b"\xff")
    assert checkpoint.source_commit(tmp_path / "binary") == ""


def test_it_is_what_git_says(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.check_output(["git", *identity, *arguments], cwd=tmp_path, text=True).strip()

    try:
        git("init", "-q")
    except FileNotFoundError:
        pytest.skip("there is no git")
    git("commit", "-q", "--allow-empty", "-m", "first")
    assert checkpoint.source_commit(tmp_path) == git("rev-parse", "HEAD")
    git("pack-refs", "--all")
    assert checkpoint.source_commit(tmp_path) == git("rev-parse", "HEAD")


def test_a_model_file_says_where_it_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert re.fullmatch(r"(?:[0-9a-f]{40})?", checkpoint.COMMIT)
    monkeypatch.setattr(checkpoint, "COMMIT", COMMIT)
    algorithm = CycleGAN(PLAIN)
    options = RunOptions(run=tmp_path, data=Path("/home/someone/sets/monet2photo"))
    metrics = {"l1": 0.5, "odd": float("nan")}
    progress: Any = SimpleNamespace(step=7, images_seen=9)
    checkpoint.save_model_files(algorithm, algorithm.translators(), options, progress, metrics)
    for direction in ("a2b", "b2a"):
        training = model_file.read_info(tmp_path / f"{direction}.safetensors").training
        assert (training.algorithm, training.dataset, training.commit) == ("cyclegan", "monet2photo", COMMIT)
        assert (training.steps, training.images_seen, training.metrics) == (7, 9, {"l1": 0.5})


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


def test_starting_from_a_folder_and_from_a_model_file_of_any_name(tmp_path: Path) -> None:
    theirs, ours = CycleGAN(PLAIN), CycleGAN(PLAIN)
    info = {
        name: model_file.describe(net, direction=name)  # type: ignore[arg-type]
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
