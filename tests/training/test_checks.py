"""The options of a training, checked before data or networks."""

from pathlib import Path

import pytest

from i2i.data.options import NAMED_CLASSES
from i2i.errors import InputError, UsageError
from i2i.images.palettes import PALETTES
from i2i.training.checks import check, check_micro_batches, follows_validation
from i2i.training.options import RunOptions


def test_a_batch_must_divide() -> None:
    check_micro_batches(6, 3)
    with pytest.raises(UsageError, match="micro_batches = 4: must divide batch_size = 6"):
        check_micro_batches(6, 4)


def test_data_are_needed(tmp_path: Path) -> None:
    check(RunOptions(data=Path("toy")))
    check(RunOptions(data=tmp_path))
    with pytest.raises(UsageError, match="data: missing"):
        check(RunOptions())
    (tmp_path / "photos").mkdir()
    with pytest.raises(InputError, match=r"photo: no such folder. Did you mean 'photos'\?"):
        check(RunOptions(data=tmp_path / "photo"))


def test_the_first_option_that_needs_validations_is_named() -> None:
    assert follows_validation(RunOptions()) == ""
    assert follows_validation(RunOptions(stop_patience=1, best_floor="ssim=0.5")) == "stop_patience"


def test_the_names_of_classes_are_those_of_the_palettes() -> None:
    assert set(PALETTES) == NAMED_CLASSES
