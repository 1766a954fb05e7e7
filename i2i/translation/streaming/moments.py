"""Mean and variance of channels, gathered as the rows come, as exact as if the whole were at hand."""

import torch
from torch import Tensor

_CHUNK_VALUES = 1 << 20  # so many stay in a processor's cache between the two looks at them


class Moments:
    """Count, mean and sum of squared deviations of each channel, in float64.

    Each chunk is centred on its own mean in float32, then merged (Chan, Golub & LeVeque 1983), so that nothing
    cancels where the mean is much larger than the deviation.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean = self._squares = torch.zeros(1, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Takes in (1, C, H, W)."""
        values = rows.permute(0, 2, 3, 1).reshape(-1, rows.shape[1])
        for chunk in values.split(max(1, _CHUNK_VALUES // values.shape[1])):
            self._merge(chunk.float())

    def _merge(self, chunk: Tensor) -> None:
        mean = chunk.sum(0) / len(chunk)
        centred = chunk - mean
        # what rounding left in the mean
        rest = centred.sum(0).double() / len(chunk)
        squares = centred.square_().sum(0).double() - rest.square() * len(chunk)
        delta = mean.double() + rest - self._mean.to(mean.device)
        total = self.count + len(chunk)
        self._mean = self._mean.to(mean.device) + delta * (len(chunk) / total)
        between = delta.square() * (self.count * len(chunk) / total)
        self._squares = self._squares.to(mean.device) + squares + between
        self.count = total

    def mean(self) -> Tensor:
        """(C,) float64."""
        return self._mean

    def variance(self) -> Tensor:
        """(C,) float64, divided by the count, as a normalisation takes it."""
        return self._squares / max(1, self.count)
