"""Several processes that torchrun starts share a folder."""

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from batch_tools import SCRIPT, folder

from i2i.errors import UsageError
from i2i.translation.options import FolderOptions
from i2i.translation.plan import plan
from i2i.translation.runtime import prepare
from i2i.translation.runtime.prepare import Wanted, device_of

TRANSLATE = runpy.run_path(str(SCRIPT))


def options(**given: Any) -> Any:
    return TRANSLATE["Options"](**given)


@pytest.mark.parametrize("shards", [("1/1",), ("1/2", "2/2")])
def test_their_parts_are_the_whole_once(tmp_path: Path, shards: tuple[str, ...]) -> None:
    names = tuple(f"{i}.png" for i in range(11))
    folder(tmp_path / "in", names)
    done = []
    for shard in shards:
        for rank in range(3):
            mine = TRANSLATE["share"](options(shard=shard, report=Path("r.json")), rank, 3)
            assert mine.report == Path(f"r-{mine.shard.replace('/', '-of-')}.json")
            jobs = plan([tmp_path / "in"], tmp_path / "out", FolderOptions(shard=mine.shard)).todo
            done += [job.name.name for job in jobs]
            assert len(jobs) in {11 // (3 * len(shards)), 11 // (3 * len(shards)) + 1}
    assert sorted(done) == sorted(names)
    alone = options(shard="1/1")
    assert TRANSLATE["share"](alone, 0, 1) is alone


def test_a_list_on_the_standard_input_is_for_one() -> None:
    with pytest.raises(UsageError, match="goes to one process"):
        TRANSLATE["share"](options(inputs=(Path("-"),)), 1, 2)


def test_each_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare.processor, "may_have_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert str(device_of(Wanted("auto", "torch"))) == str(device_of(Wanted("cuda", "torch"))) == "cuda:2"
    with pytest.raises(UsageError, match="4 processes need one each"):
        device_of(Wanted("cuda:1", "torch"))
