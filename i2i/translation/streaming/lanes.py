"""Rows of tensors in a spool."""

import torch
from torch import Tensor

from i2i.spool import Spool
from i2i.translation.streaming.schedule import Lane


class Lanes:
    """Reads and writes rows (1, C, h, W) of the lanes of a spool, `width` being that of the picture."""

    def __init__(self, spool: Spool, width: int, dtype: torch.dtype, device: torch.device) -> None:
        self._spool, self._width, self._dtype, self.device = spool, width, dtype, device

    def read(self, lane: Lane, top: int, bottom: int) -> Tensor:
        data = torch.empty((bottom - top, int(self._width * lane.zoom), lane.channels), dtype=self._dtype)
        for start, part in self._parts(lane, top, data):
            self._spool.read(start, part)
        # a copy on the way to another device or type, which is what is computed with
        return data.permute(2, 0, 1)[None].to(self.device).to(torch.float32)

    def write(self, lane: Lane, top: int, rows: Tensor) -> None:
        data = rows[0].permute(1, 2, 0).to("cpu", self._dtype).contiguous()
        # the least and the greatest: a look at each value took a third of the time of the convolutions in bf16
        if self._dtype == torch.float16 and not all(map(torch.isfinite, torch.aminmax(data))):
            raise OverflowError("a value is too large for half precision")
        for start, part in self._parts(lane, top, data):
            self._spool.write(start, part)

    def _parts(self, lane: Lane, top: int, data: Tensor) -> list[tuple[int, memoryview]]:
        """Where the rows of `data` stand in the spool: together, or each for itself."""
        content = data.view(torch.uint8).numpy().reshape(-1).data
        size = len(content) // len(data)
        first = lane.start + top * lane.stride
        if lane.stride == size:
            return [(first, content)]
        return [(first + i * lane.stride, content[i * size : (i + 1) * size]) for i in range(len(data))]
