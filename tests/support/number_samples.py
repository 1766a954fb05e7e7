"""A data set of numbers. It lies here, as a fork server can import helpers and no tests."""

from collections.abc import Iterable
from multiprocessing.queues import Queue

import torch
from torch.utils.data import Dataset

from i2i.data.pair import ImagePair, batches


class Numbers(Dataset[ImagePair]):
    """Sample t is the number t."""

    def __getitem__(self, t: int) -> ImagePair:
        return ImagePair(torch.full((1, 2, 2), float(t)), torch.full((1, 2, 2), float(-t)), (str(t),))


def numbers(got: Iterable[ImagePair]) -> list[list[int]]:
    """The numbers of each batch."""
    return [[int(sample[0, 0, 0]) for sample in batch.a] for batch in got]


def first_numbers(queue: "Queue[list[list[int]]]") -> None:
    queue.put(numbers(batches(Numbers(), 0, 4, 2, 1)))
