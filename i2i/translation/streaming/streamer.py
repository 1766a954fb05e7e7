"""A generator that takes what is too large for memory by bands of rows."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from i2i.errors import ImageError
from i2i.images import Picture
from i2i.images.bands import Bands
from i2i.images.picture import Pixels
from i2i.networks import GeneratorConfig
from i2i.translation.memory import too_much
from i2i.translation.streaming.picture import RowSink, stream_bands, stream_picture, stream_tensor, streamable


@dataclass(frozen=True)
class Streamer:
    """A network in the mode in which it translates, on `device`; `dropout`: its noise is on.

    `autocast` is the reduced type of its arithmetic, if any.
    """

    network: nn.Module
    config: GeneratorConfig
    dropout: bool = False
    device: torch.device | str = "cpu"
    autocast: torch.dtype | None = None

    def picture(self, picture: Picture) -> Picture:
        """`picture` translated; depth, alpha, colour profile and EXIF kept.

        Raises `ImageError` for a network that takes pictures only as a whole; `SpoolError` if there is no room for
        the spool.
        """
        self._check(*picture.pixels.shape[:2])
        return stream_picture(self.network, picture, **self._options)

    def planes(self, planes: Pixels) -> Pixels:
        """(C, H, W) float32 in [-1, 1] translated. Raises as `picture`."""
        self._check(*planes.shape[-2:])
        return stream_tensor(self.network, torch.from_numpy(planes), **self._options).numpy()

    def bands(self, bands: Bands, sink: RowSink, depth: Any) -> None:
        """The picture of `bands` translated, to `sink` by rows of that depth. Raises as `picture`."""
        self._check(bands.height, bands.width)
        stream_bands(self.network, bands, sink, depth, **self._options)

    @property
    def _options(self) -> dict[str, Any]:
        return {"device": self.device, "autocast": self.autocast}

    def _check(self, height: int, width: int) -> None:
        if reason := streamable(self.config, self.dropout):
            raise ImageError(too_much(self.config, height, width, reason, _free(torch.device(self.device))))


def _free(device: torch.device) -> int | None:
    """The bytes of a GPU that this process can have, None elsewhere."""
    if device.type != "cuda":
        return None
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept
