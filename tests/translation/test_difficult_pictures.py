"""A folder of difficult pictures translated, where one is given with `--hard`: nothing is lost on the way."""

from pathlib import Path

import numpy as np
import pytest

from i2i import images
from i2i.errors import ImageError
from i2i.images.formats import DEEP, WITH_ALPHA, WRITTEN
from i2i.networks.resnet import ResnetConfig
from i2i.translation.batch import translate_folder
from i2i.translation.model_info import describe
from i2i.translation.report import Record
from i2i.translation.translator import Translator


def _reason(path: Path) -> str:
    try:
        images.read(path)
    except ImageError as error:
        return str(error)
    return ""


def _check(record: Record) -> None:
    """The size, depth and transparency of the input, as far as the format holds them."""
    before, after = images.read(record.source), images.read(record.target)
    format = WRITTEN[record.target.suffix.lower()]
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
    report = translate_folder(hard, tmp_path / "out", Translator(network, describe(network, direction="a2b")))
    assert {record.status for record in report.records} == {"done", "failed"}
    for record in report.done:
        _check(record)
    for record in report.failed:
        assert record.reason == _reason(record.source) or "floating-point" not in record.reason
    assert len(report.done) > 300
