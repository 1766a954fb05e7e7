"""A folder of difficult pictures translated, where one is given with `--hard`: nothing is lost on the way."""

import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import ExifTags, Image

from i2i import images
from i2i.errors import ImageError
from i2i.folders.batch import translate_folder
from i2i.folders.report import Record
from i2i.images.formats import DEEP, WITH_ALPHA, WRITTEN
from i2i.inference.translator import Translator
from i2i.models.info import describe
from i2i.networks.resnet import ResnetConfig

SECONDS, MEGABYTES = 5, 1000  # of the processor: the machine may be busy


def _reason(path: Path) -> str:
    try:
        images.read(path)
    except ImageError as error:
        return str(error)
    return ""


def _check(record: Record) -> None:
    """The size, depth and transparency of the input, as far as the format holds them, and upright."""
    before, after = images.read(record.source), images.read(record.target)
    format = WRITTEN[record.target.suffix.lower()]
    if after.pixels.dtype != np.float32:  # colours of which Pillow does not open
        with Image.open(record.target) as file:
            assert file.getexif().get(ExifTags.Base.Orientation, 1) == 1
    assert after.pixels.shape[:2] == before.pixels.shape[:2]
    transparent = before.alpha is not None and before.alpha.min() < before.alpha.max()
    if transparent or format != "WEBP":  # WebP itself drops alpha that is full everywhere
        assert (after.alpha is not None) == (before.alpha is not None and format in WITH_ALPHA)
    if format == "TIFF" or before.pixels.dtype == np.uint8:
        assert after.pixels.dtype == before.pixels.dtype
    else:
        assert after.pixels.dtype == (np.uint16 if format in DEEP else np.uint8)
    if after.alpha is not None and format != "AVIF":
        assert before.alpha is not None
        assert np.array_equal(after.alpha, images.with_depth(before.alpha, after.alpha.dtype.type))


@pytest.mark.promise("R23", "R34", "R36")
def test_every_file_is_translated_or_named(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    hard = request.config.getoption("--hard")
    if hard is None:
        pytest.skip("needs a folder of difficult pictures: --hard DIR")
    network = ResnetConfig(width=2, blocks=0).build()
    moments, memory, process = [time.process_time()], [0], psutil.Process()
    memory[0] = process.memory_info().rss

    def note(*_: object) -> None:
        moments.append(time.process_time())
        memory.append(process.memory_info().rss)

    used = Translator(network, describe(network, direction="a2b"))
    report = translate_folder(hard, tmp_path / "out", used, progress=note)
    assert {record.status for record in report.records} == {"done", "failed"}
    for record in report.done:
        _check(record)
    assert {record.source: record.reason for record in report.failed} == {
        record.source: _reason(record.source) for record in report.failed
    }
    assert len(report.done) > 300
    assert max(later - earlier for earlier, later in pairwise(moments)) < SECONDS
    assert max(memory) - memory[0] < MEGABYTES << 20
