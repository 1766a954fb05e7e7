"""What one training step of image-to-image translation sees."""

import dataclasses
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from i2i.errors import UsageError


@dataclass(frozen=True)
class ImagePair:
    """A batch of both domains: `a` (N, C_a, H, W) and `b` (N, C_b, H, W), values in [-1, 1].

    In paired data row i of `a` and row i of `b` show the same thing; in unpaired data they are independent; where
    there are both, `matched` (N,) says which rows are pairs. A domain of labels has a channel for each class, 1
    where a pixel is of it, else -1. `skipped` names the damaged pictures that were replaced in this batch.
    """

    a: Tensor
    b: Tensor
    skipped: tuple[str, ...] = ()
    matched: Tensor | None = None

    def __len__(self) -> int:
        return len(self.a)

    def to(
        self, device: torch.device | str, dtype: torch.dtype | None = None, non_blocking: bool = False
    ) -> "ImagePair":
        """The same batch on `device`, converted to `dtype` if one is given."""
        a, b = (x.to(device=device, dtype=dtype, non_blocking=non_blocking) for x in (self.a, self.b))
        matched = None if self.matched is None else self.matched.to(device=device, non_blocking=non_blocking)
        return dataclasses.replace(self, a=a, b=b, matched=matched)

    def contiguous(self, memory_format: torch.memory_format) -> "ImagePair":
        """The same batch in that memory format."""
        a, b = (x.contiguous(memory_format=memory_format) for x in (self.a, self.b))
        return dataclasses.replace(self, a=a, b=b)

    def pin_memory(self) -> "ImagePair":
        """The same batch in page-locked memory; `torch.utils.data.DataLoader` calls this."""
        matched = None if self.matched is None else self.matched.pin_memory()
        return dataclasses.replace(self, a=self.a.pin_memory(), b=self.b.pin_memory(), matched=matched)

    def swapped(self) -> "ImagePair":
        """The batch with the domains exchanged."""
        return dataclasses.replace(self, a=self.b, b=self.a)

    def split(self, parts: int) -> list["ImagePair"]:
        """`parts` micro-batches of equal size, in order; the first carries `skipped`.

        Raises `UsageError` if the batch cannot be divided equally.
        """
        if parts < 1 or len(self) % parts:
            raise UsageError(f"a batch of {len(self)} cannot be split into {parts} equal micro-batches")
        matched = [None] * parts if self.matched is None else self.matched.chunk(parts)
        pieces = zip(self.a.chunk(parts), self.b.chunk(parts), matched, strict=True)
        return [ImagePair(a, b, self.skipped if i == 0 else (), m) for i, (a, b, m) in enumerate(pieces)]


class ImagePairs(Dataset[ImagePair]):
    """A data set of single pairs, (C, H, W) each: `pairs[t]` for every t >= 0, an epoch is `len(pairs)` of them."""

    @abstractmethod
    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Datasets:
    """What a training sees; `validation` is the val split, else the test split, else None."""

    train: ImagePairs
    validation: ImagePairs | None = None

    @property
    def count(self) -> int:
        """How many pictures there are, or pairs of them, that may be damaged."""
        return sum(len(getattr(one, "records", ())) for one in (self.train, self.validation))
