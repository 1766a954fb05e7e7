"""A picture as arrays, and its way to and from tensors in [-1, 1]."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import DTypeLike
from PIL import Image

from i2i.errors import ImageError, check_word
from i2i.images.formats import Format

if TYPE_CHECKING:
    from torch import Tensor

    from i2i.images.units import Units

Pixels = np.ndarray[Any, np.dtype[Any]]
Background = Literal["white", "black"]
Side = Literal["left", "right"]
Depth = type[np.uint8] | type[np.uint16] | type[np.float32]


@dataclass(frozen=True)
class Limits:
    """Limits that are checked before a picture is decoded: pixels (as Pillow's), longer side, bytes of the file."""

    pixels: int = 178_956_970
    side: int = 65_535
    file_bytes: int = 1 << 30

    def check_size(self, width: int, height: int, channels: int = 1) -> None:
        """Raises `ImageError` for an empty picture or one above the limits."""
        if width < 1 or height < 1:
            raise ImageError(f"{width}x{height} pixels: empty")
        if max(width, height) > self.side:
            raise ImageError(f"{width}x{height} pixels: a side may have at most {self.side}")
        if width * height * max(1, channels / 4) > self.pixels:
            raise ImageError(f"{width}x{height} pixels: at most {self.pixels} are accepted")

    def check_bytes(self, size: int) -> None:
        """Raises `ImageError` for an empty file or one above the limit."""
        if size == 0:
            raise ImageError("empty file")
        if size > self.file_bytes:
            raise ImageError(f"{size} bytes: at most {self.file_bytes} are accepted")


DEFAULT_LIMITS = Limits()

PIXEL_SCALE, TIE_POINTS, TRANSFORMATION, GEO_KEYS = 33550, 33922, 34264, 34735
GEO_NUMBERS, GEO_TEXTS, GDAL_METADATA, NODATA = 34736, 34737, 42112, 42113
GEO = (PIXEL_SCALE, TIE_POINTS, TRANSFORMATION, GEO_KEYS, GEO_NUMBERS, GEO_TEXTS, GDAL_METADATA, NODATA)
_BLOCK_VALUES = 1 << 20
_HIDDEN = 0.5 / 65_535  # alpha at which nothing is seen of a pixel


Geo = dict[int, tuple[float, ...] | str]
"""GeoTIFF's tags: 33550, 33922, 34264, 34735 to 34737, and GDAL's 42112 and 42113."""


@dataclass
class Picture:
    """A decoded picture, upright, with the metadata of its file.

    * `pixels` (H, W, C) without alpha, uint8, uint16 or float32 in [0, 1], in RGB order.
    * `alpha` (H, W) of the same dtype, not premultiplied, or None.
    * `extra` (H, W, n) of the same dtype: channels of data beyond three colours, such as near-infrared, or None. A
      picture of data alone has all its channels in `pixels`.
    * `numbers` (H, W) uint8: the indices of a file with a palette; in a picture of labels, the classes.
    * `icc` is the colour profile, `exif` the block without orientation, `xmp` the packet, upright as the pixels are.
    * `colour`: the chunks with which a PNG describes its colours beside a profile, as they are in the file.
    * `resolution` across and down, in pixels an inch. `geo` is the place on Earth.
    * `texts` by keywords as PNG has them: Copyright, Author, Description, Comment, …
    * `has_more_frames`: the file has further pages or frames, which are not read.
    * `unread` names what else the file holds and was left out.
    * `units`: the pixels are values by a range, float32. `missing` (H, W) bool: where there are no data.
    """

    pixels: Pixels
    alpha: Pixels | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    format: Format = "PNG"
    has_more_frames: bool = False
    colour: bytes | None = None
    resolution: tuple[float, float] | None = None
    xmp: bytes | None = None
    texts: dict[str, str] = field(default_factory=dict)
    geo: Geo = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    numbers: Pixels | None = None
    extra: Pixels | None = None
    units: "Units | None" = None
    missing: Pixels | None = None

    @property
    def holds_data(self) -> bool:
        """Whether it has channels that are neither colours nor alpha."""
        return self.extra is not None or self.pixels.shape[2] not in (1, 3)

    def with_pixels(self, pixels: Pixels) -> "Picture":
        """A network's (H, W, C) for this picture: colours, with alpha where C is 2 or 4, unless this one holds data."""
        if not self.holds_data:
            return split_alpha(pixels)
        if self.extra is None or pixels.shape[2] <= 3:
            return Picture(pixels)
        return Picture(np.ascontiguousarray(pixels[..., :3]), extra=np.ascontiguousarray(pixels[..., 3:]))

    @property
    def band_count(self) -> int:
        """How many channels it has without alpha."""
        return self.pixels.shape[2] + (0 if self.extra is None else self.extra.shape[2])

    def columns(self, some: slice) -> "Picture":
        """These columns of its planes, with their colours and format, without the metadata of the whole."""
        planes = self.mapped(lambda plane: plane[:, some])
        return Picture(**planes, icc=self.icc, colour=self.colour, format=self.format, units=self.units)

    def half(self, side: Side) -> "Picture":
        """The columns of one half, as `columns` gives them. Raises `ImageError` for an odd width."""
        check_word("side", side, Side)
        middle, odd = divmod(self.width, 2)
        if odd:
            raise ImageError(f"odd width {self.width}; A and B side by side have equal widths")
        return self.columns(slice(middle) if side == "left" else slice(middle, None))

    @property
    def height(self) -> int:
        """Rows of pixels."""
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        """Columns of pixels."""
        return self.pixels.shape[1]

    def read(self, top: int, bottom: int) -> "Picture":
        """These rows of its planes alone."""
        return Picture(**self.mapped(lambda plane: plane[top:bottom]), units=self.units)

    def mapped(self, change: Callable[[Pixels], Pixels]) -> dict[str, Any]:
        """Pixels, alpha, extra, numbers and missing, each changed alike, by name."""
        planes = {name: getattr(self, name) for name in ("pixels", "alpha", "extra", "numbers", "missing")}
        return {name: None if plane is None else change(plane) for name, plane in planes.items()}

    def described_as(self, source: "Picture") -> "Picture":
        """These pixels with the metadata and the format of `source`.

        `source` shows the same, perhaps at another size: its place on Earth, which counts in pixels, is left out then.
        """
        described = replace(source, pixels=self.pixels, alpha=self.alpha, extra=self.extra, numbers=None)
        described.has_more_frames = False
        if source.geo and self.pixels.shape[:2] != source.pixels.shape[:2]:
            described.geo, described.unread = {}, (*source.unread, "place on Earth (GeoTIFF), at another size")
        if source.missing is not None and self.pixels.shape[:2] != source.missing.shape:
            described.missing = resized_missing(source.missing, self.height, self.width)
            described.geo = {NODATA: source.geo[NODATA]} if NODATA in source.geo else {}
        return described

    def channels(self, count: int) -> Pixels:
        """The pixels (H, W, count) as a network with `count` channels takes them.

        As many as it has, without alpha, are taken as they are. Else alpha is dropped, except that 2 is luminance with
        alpha and 4 is RGB with alpha (opaque where the picture has none); `extra` is dropped beside its colours. Raises
        `ImageError` where there is no rule.
        """
        if self.extra is not None:
            if self.band_count == count:
                return np.dstack([self.pixels, self.extra])
            if count not in (1, 3) and self.alpha is None:
                raise ImageError(f"has {self.band_count} channels where {count} are expected")
        if not self.takes_alpha(count):
            return with_channels(self.pixels, count)
        alpha = self.alpha
        if alpha is None:
            alpha = np.full_like(self.pixels[..., 0], white(self.pixels))
        return np.dstack([with_channels(self.pixels, count - 1), alpha])

    def stacked(self) -> Pixels:
        """All channels (H, W, C) in the depth of the colours: those, data, alpha."""
        planes = [self.pixels, self.extra, None if self.alpha is None else self.alpha[..., None]]
        stacked = [with_depth(plane, self.pixels.dtype.type) for plane in planes if plane is not None]
        return stacked[0] if len(stacked) == 1 else np.concatenate(stacked, axis=2)

    def takes_alpha(self, count: int) -> bool:
        """Whether the last of the channels that `channels(count)` gives is alpha."""
        return count in (2, 4) and count not in (self.pixels.shape[2], self.band_count)

    def composited_on(self, background: Background) -> "Picture":
        """The picture on a background of one colour, without alpha; itself if it has none."""
        check_word("background", background, Background)
        if self.alpha is None:
            return self
        full = white(self.pixels)
        cover = self.alpha[..., None].astype(np.float32) / np.float32(full)
        pixels = self.pixels * cover
        if background == "white":
            pixels += (1 - cover) * np.float32(full)
        if self.pixels.dtype != np.float32:
            np.rint(pixels, out=pixels)
        return replace(self, pixels=pixels.astype(self.pixels.dtype), alpha=None)


def split_alpha(pixels: Pixels) -> Picture:
    """Two channels are luminance with alpha and four are RGB with alpha, as `Picture.channels` has it."""
    if pixels.shape[2] not in (2, 4):
        return Picture(pixels)
    return Picture(np.ascontiguousarray(pixels[..., :-1]), pixels[..., -1].copy())


def with_channels(pixels: Pixels, channels: int) -> Pixels:
    """(H, W, C) as (H, W, channels): kept, one replicated to three, or RGB to Rec. 601 luminance.

    Raises `ImageError` for any other change.
    """
    present = pixels.shape[2]
    if present == channels:
        return pixels
    if present == 1 and channels == 3:
        return np.repeat(pixels, 3, axis=2)
    if present == 3 and channels == 1:
        return _luminance(pixels)[..., None]
    raise ImageError(f"has {present} channels where {channels} are expected")


def with_depth(pixels: Pixels, dtype: Depth) -> Pixels:
    """`pixels` scaled to the range of `dtype`; integers are rounded, floating point is clamped to [0, 1] first."""
    if pixels.dtype == dtype:
        return pixels
    if dtype == np.float32:
        return (pixels / white(pixels)).astype(np.float32)
    full = _full(dtype)
    if pixels.dtype == np.float32:
        return np.rint(np.clip(pixels, 0, 1) * full).astype(dtype)
    return np.rint(pixels * (full / white(pixels))).astype(dtype)


def to_planes(pixels: Pixels) -> Pixels:
    """(H, W, C) uint8, uint16 or float32 in [0, 1] as (C, H, W) float32 in [-1, 1]."""
    planes = np.array(pixels.transpose(2, 0, 1), np.float32, order="C")
    planes /= white(pixels) / 2
    planes -= 1
    return planes


def from_planes(planes: Pixels, dtype: Depth = np.uint8) -> Pixels:
    """(C, H, W) float32 in [-1, 1] as (H, W, C) of `dtype`, values outside clamped; integers are rounded.

    Raises `ImageError` for values that are not finite, which would come out as black.
    """
    if not np.isfinite(planes).all():
        raise ImageError("values that are not finite (NaN or infinite); expected [-1, 1]")
    half = _full(dtype) / 2
    scaled = (planes + 1) * np.float32(half)
    if dtype != np.float32:
        np.rint(scaled, out=scaled)
    np.clip(scaled, 0, 2 * half, out=scaled)
    return np.ascontiguousarray(scaled.astype(dtype).transpose(1, 2, 0))


def resize_planes(
    planes: Pixels, height: int, width: int, *, alpha: bool = False, rows: tuple[float, float] | None = None
) -> Pixels:
    """(C, H, W) float32 in [-1, 1] as (C, height, width): bicubic, antialiased, clamped to [-1, 1].

    With `alpha` the last plane is that, and the others are scaled as they are seen. `rows` is from where to where the
    planes become the result, by default all of them: rows beyond still have their part in those at its edges.
    """
    box = None if rows is None else (0, rows[0], planes.shape[2], rows[1])

    def bicubic(pixels: Pixels) -> Pixels:
        bands = [Image.fromarray(np.ascontiguousarray(band)) for band in pixels.transpose(2, 0, 1)]
        return np.dstack([np.asarray(band.resize((width, height), Image.Resampling.BICUBIC, box)) for band in bands])

    if not alpha:
        return np.clip(np.ascontiguousarray(bicubic(planes.transpose(1, 2, 0)).transpose(2, 0, 1)), -1, 1)
    seen = scaled_as_seen((planes.transpose(1, 2, 0) + 1) / 2, bicubic)
    return np.ascontiguousarray((seen * 2 - 1).transpose(2, 0, 1))


def scaled_as_seen(pixels: Pixels, scale: Callable[[Pixels], Pixels]) -> Pixels:
    """(H, W, C) float32 in [0, 1] whose last channel is alpha, through `scale`, clamped to [0, 1].

    Colours are weighted by alpha while they are scaled, so that hidden ones have no part in those beside them.
    """
    colours, alpha = pixels[..., :-1], pixels[..., -1:]
    weighted = scale(np.concatenate([colours * alpha, alpha], axis=2))
    seen = weighted[..., -1:]
    # where nothing is seen, the hidden colours stay
    straight = np.array(scale(np.ascontiguousarray(pixels))[..., :-1])
    np.divide(weighted[..., :-1], seen, out=straight, where=seen > _HIDDEN)
    return np.clip(np.concatenate([straight, seen], axis=2), 0, 1)


def to_tensor(pixels: Pixels) -> "Tensor":
    """As `to_planes`, but a tensor."""
    import torch

    # in numpy: torch's threads cost more than they bring for one picture, ten times more on a busy machine
    return torch.from_numpy(to_planes(pixels))


def to_pixels(tensor: "Tensor", dtype: Depth = np.uint8) -> Pixels:
    """As `from_planes`, of a tensor."""
    return from_planes(tensor.detach().float().cpu().numpy(), dtype)


def resized_missing(missing: Pixels, height: int, width: int) -> Pixels:
    """(H, W) bool at another size, by the nearest pixel."""
    rows, columns = (np.arange(n) * 2 + 1 for n in (height, width))
    return missing[(rows * missing.shape[0] // (2 * height))[:, None], columns * missing.shape[1] // (2 * width)]


def row_blocks(pixels: Pixels) -> Iterator[slice]:
    """The rows of (H, W, C), some at a time, which bounds the memory of what is computed of them."""
    step = max(1, _BLOCK_VALUES // max(1, pixels.shape[1] * pixels.shape[2]))
    return (slice(top, top + step) for top in range(0, len(pixels), step))


def native(pixels: Pixels) -> Pixels:
    """`pixels` in the byte order of this machine."""
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def white(pixels: Pixels) -> float:
    """The value of full intensity in the dtype of `pixels`."""
    return _full(pixels.dtype)


def _full(dtype: DTypeLike) -> float:
    dtype = np.dtype(dtype)
    return 1.0 if dtype == np.float32 else float(np.iinfo(dtype).max)


def _luminance(pixels: Pixels) -> Pixels:
    if pixels.dtype == np.float32:
        return pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    # Pillow's fixed-point weights, so that an 8-bit result equals its convert("L")
    red, green, blue = (pixels[..., i].astype(np.uint64) for i in range(3))
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(pixels.dtype)
