"""Tiny networks on one thread, for several would only wait for each other; no child outlives its test."""

from collections.abc import Iterator

import pytest
import torch
from children import end_all


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def no_children_left() -> Iterator[None]:
    yield
    end_all()
