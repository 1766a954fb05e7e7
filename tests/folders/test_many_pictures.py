"""Thousands of pictures: found, checked, loaded and translated one after the other, in bounded memory."""

from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from i2i import images
from i2i.data.datasets import open_datasets
from i2i.data.options import DataOptions
from i2i.data.pair import batches
from i2i.folders.batch import translate_folder
from i2i.inference.translator import Translator
from i2i.models.info import describe
from i2i.networks.blocks import init_weights
from i2i.networks.resnet import ResnetConfig

GROWTH = 100 << 20


def _memory() -> int:
    return int(psutil.Process().memory_info().rss)


def _write(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for i in range(count):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), np.uint8)
        images.write(folder / f"{i:05}.png", images.Picture(pixels))


COUNTS = [150, pytest.param(3000, marks=pytest.mark.slow)]


@pytest.mark.parametrize("count", COUNTS)
def test_many_pictures_are_checked_and_loaded(tmp_path: Path, count: int) -> None:
    _write(tmp_path / "trainA", count - 50)
    _write(tmp_path / "trainB", 50)
    options = DataOptions(data=tmp_path, load_size=16, crop_size=16, check="full")
    dataset = open_datasets(options, paired=False).train
    assert len(dataset) == count - 50
    before, seen = 0, 0
    for batch in batches(dataset, 0, count - 50, 10, 0):
        assert batch.a.shape == (10, 3, 16, 16)
        seen += len(batch)
        before = before or _memory()
    assert seen == count - 50 and _memory() - before < GROWTH


@pytest.mark.parametrize("count", COUNTS)
def test_many_pictures_are_translated(tmp_path: Path, count: int) -> None:
    _write(tmp_path / "in", count)
    with torch.random.fork_rng():
        network = init_weights(ResnetConfig(width=2, blocks=1).build(), gain=0.3)
    translator = Translator(network, describe(network, direction="a2b"))
    memory = []
    report = translate_folder(
        tmp_path / "in", tmp_path / "out", translator, progress=lambda *_: memory.append(_memory())
    )
    assert len(report.done) == len(list((tmp_path / "out").iterdir())) == count
    assert memory[-1] - memory[10] < GROWTH
