"""Less flicker: the frame before, moved along the motion of the input, is blended in where the input says that it shows
the same. And numbers for flicker and sharpness.

A network translates each frame for itself, so its strokes jump where the film stands still. The weights are those of
Lai et al. 2018 ("Learning Blind Video Temporal Consistency", ECCV):

    O_t = w·Ô + (1 - w)·P_t,    w = s·M·exp(-50·|I_t - Î|²)

I_t is the input, P_t its translation, O_t the result. Î and Ô are the input and the result before, warped by the
optical flow from t to t - 1. s is the share that the user chooses. M is 1 where the flow forth and back agree (Sundaram
et al. 2010, Eq. 5), else 0.

Deviations: the flow is DIS (Kroeger et al. 2016) instead of FlowNet 2, and Lai et al. use w in a loss, here it blends.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from i2i.images import Pixels
from i2i.images.picture import white

_FLOW_SIDE = 180
"""The shorter side at which motion is looked for. The flow of a larger frame is that, enlarged."""
_ALPHA = 50.0
_LEAST = 16
"""DIS takes no smaller side."""
_RELATIVE, _ABSOLUTE = 0.01, 0.5
"""Flows forth and back agree within this share of their squared lengths, and so many squared pixels."""


@dataclass(frozen=True)
class Motion:
    """Where each pixel of a frame was in the frame before: `columns` and `rows`.

    `sure` is 1 where the flow is consistent, else 0; `alike` the weight by which both inputs show the same; `error`
    their E_warp.
    """

    columns: Pixels
    rows: Pixels
    sure: Pixels
    alike: Pixels
    error: float = 0.0

    def warped(self, before: Pixels) -> Pixels:
        """(H, W, C) of the frame before at the places of this frame, float32."""
        taken = cv2.remap(before, self.columns, self.rows, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        return taken.reshape(before.shape).astype(np.float32)

    def mean(self, values: Pixels) -> float:
        """The mean of (H, W) where the motion is sure."""
        return float((values * self.sure).sum(dtype=np.float64) / max(1.0, float(self.sure.sum(dtype=np.float64))))


def motion(before: Pixels, now: Pixels) -> Motion:
    """The motion between two inputs (H, W, 3) of uint8."""
    height, width = now.shape[:2]
    scale = min(1.0, _FLOW_SIDE / min(height, width))
    size = max(_LEAST, round(width * scale)), max(_LEAST, round(height * scale))
    a, b = (cv2.cvtColor(cv2.resize(x, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY) for x in (before, now))
    back, forth = _flow(b, a), _flow(a, b)
    columns, rows = _places(*size)
    x, y = columns + back[..., 0], rows + back[..., 1]
    there = cv2.remap(forth, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    lengths = (back**2).sum(-1) + (there**2).sum(-1)
    agree = ((back + there) ** 2).sum(-1) < _RELATIVE * lengths + _ABSOLUTE
    inside = (x >= 0) & (x <= size[0] - 1) & (y >= 0) & (y <= size[1] - 1)
    columns, rows = _places(width, height)
    back = cv2.resize(back, (width, height), interpolation=cv2.INTER_LINEAR)
    columns, rows = columns + back[..., 0] * (width / size[0]), rows + back[..., 1] * (height / size[1])
    sure = cv2.resize((agree & inside).astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST)
    found = Motion(columns, rows, sure, sure)
    apart = _squared(now, found.warped(before))
    return replace(found, alike=sure * np.exp(-_ALPHA * apart), error=found.mean(apart / 3))


def _flow(a: Pixels, b: Pixels) -> Pixels:
    dis: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    found: Pixels = dis.calc(a, b, None)
    return found


@lru_cache(maxsize=2)  # grids for the flow and for the frames
def _places(width: int, height: int) -> tuple[Pixels, Pixels]:
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    return columns, rows


def _squared(now: Pixels, warped: Pixels) -> Pixels:
    """|a - b|² of each pixel, for colours in [0, 1]."""
    apart = (now - warped) * np.float32(1 / white(now))
    squares: Pixels = np.einsum("ijk,ijk->ij", apart, apart)
    return squares


def warp_error(warped: Pixels, now: Pixels, moved: Motion) -> float:
    """E_warp of Lai et al. 2018 (Sec. 4.1): the mean squared difference, in [0, 1], of a frame to the one before,
    `warped` by the motion of the input, where that is sure."""
    return moved.mean(_squared(now, warped)) / now.shape[2]


def sharpness(pixels: Pixels) -> float:
    """The mean length of the gradient of the luminance, which is in [0, 1]."""
    grey = pixels[..., 0] if pixels.shape[2] == 1 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    across, down = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    # not cv2.magnitude, whose last digit differs from call to call
    slopes = np.sqrt(across * across + down * down)
    return float(slopes.mean(dtype=np.float64) / (8 * white(pixels)))


def blended(warped: Pixels, now: Pixels, moved: Motion, share: float) -> Pixels:
    """O_t: `now`, the translation of a frame, with `share` of the result before, `warped`; in the depth of `now`."""
    weight = (share * moved.alike)[..., None].astype(np.float32)
    mixed = now + weight * (warped - now)
    return np.rint(np.clip(mixed, 0, white(now))).astype(now.dtype)


class Smoother:
    """Frame after frame to smooth ones, with the numbers before and after. `state` goes on in another process."""

    def __init__(self, share: float, state: Mapping[str, Pixels]) -> None:
        self._share = share
        self._translation, self._result = state.get("translation"), state.get("result")
        # pairs, E_warp of the input, before and after: each pair by how much of it is sure, so that cuts do not count;
        # frames, sharpness before and after
        self._sums = np.array(state.get("sums", np.zeros(7)))

    def __call__(self, made: Pixels, moved: Motion | None) -> Pixels:
        """The result for a translated frame; `moved` is the motion of the input to it, None for the first."""
        result = made
        if moved is not None and self._translation is not None and self._result is not None:
            warped = moved.warped(self._result)
            result = blended(warped, made, moved, self._share)
            before = warp_error(moved.warped(self._translation), made, moved)
            after = warp_error(warped, result, moved)
            self._sums[:4] += float(moved.sure.mean(dtype=np.float64)) * np.array([1, moved.error, before, after])
        self._sums[4:] += 1, sharpness(made), sharpness(result)
        self._translation, self._result = made, result
        return result

    def state(self) -> dict[str, Pixels]:
        assert self._translation is not None and self._result is not None
        return {"translation": self._translation, "result": self._result, "sums": self._sums}

    def numbers(self) -> dict[str, float]:
        """Means over the film: flicker (E_warp) of the input, before and after; sharpness before and after."""
        pairs, source, flicker_before, flicker_after, frames, sharp_before, sharp_after = self._sums.tolist()
        pairs, frames = pairs or 1, frames or 1
        return {
            "flicker_input": source / pairs,
            "flicker_before": flicker_before / pairs,
            "flicker_after": flicker_after / pairs,
            "sharpness_before": sharp_before / frames,
            "sharpness_after": sharp_after / frames,
        }
