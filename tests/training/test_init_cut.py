"""What a training starts from: a style by its name, and the third network of CUT's checkpoints, `latest_net_F.pth`."""

from pathlib import Path

import pytest
import torch

from i2i.algorithms.cut import CUT, CUTOptions
from i2i.errors import ModelError, UsageError
from i2i.models import styles
from i2i.models.pretrained import open_model
from i2i.training.launch import initialise


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
    with pytest.raises(ModelError, match=r"mlp_1\.0\.weight is \(\d+, 16\), here \(\d+, 8\); --nce-layers and --ngf"):
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
