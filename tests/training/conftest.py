"""No child process outlives its test."""

from collections.abc import Iterator

import pytest
from children import end_all


@pytest.fixture(autouse=True)
def no_children_left() -> Iterator[None]:
    yield
    end_all()
