"""Pictures larger than the limits, read and written by bands of rows, and the spool in which bands wait.

A picture that was read lies on a disk from then on, as a file of its plain pixels, upright, without a name (`Canvas`).
Any rows of it can be had, any number of times, and the process holds none of them. TIFF is read by `tiff`, as smaller
ones are, and written in tiles; PNG is written by `png`. libvips does all else, an option: `pip install 'i2i[large]'`.

A spool is read and written explicitly, and not mapped into memory: so the system can drop the parts of it that it
keeps. Nobody else sees its file, and it is gone when the process is, however that ends.
"""

import dataclasses
import io
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol, Self

import numpy as np
from numpy.typing import DTypeLike

from i2i.errors import FULL, ImageError, OutputError
from i2i.files import atomic_write
from i2i.images import containers, decoding, png, tiff
from i2i.images import metadata as meta
from i2i.images.encoding import DEFAULT_QUALITY, encode, exif_for, profile
from i2i.images.formats import HEAD_BYTES, NAMES, Format, plain, reasons, sniff
from i2i.images.picture import Limits, Picture, Pixels, split_alpha, with_depth

if TYPE_CHECKING:
    import pyvips

FOLDER_VARIABLE = "I2I_SPOOL"
IN_MEMORY = 1 << 28
"""Up to so many bytes are kept in memory."""
_CHOOSE = f"free some, or name a folder on another disk in the environment variable {FOLDER_VARIABLE}"


class SpoolError(OutputError):
    """There is no room for a spool, or its folder cannot be used."""


def spool_folder() -> Path:
    """The folder of `I2I_SPOOL`, else of `TMPDIR`, else /var/tmp, which is on a disk where /tmp may be memory."""
    if chosen := os.environ.get(FOLDER_VARIABLE):
        return Path(chosen)
    large = Path("/var/tmp")
    if "TMPDIR" not in os.environ and os.access(large, os.W_OK | os.X_OK):
        return large
    return Path(tempfile.gettempdir())


class Spool:
    """So many bytes, all zero at first: in memory up to `in_memory`, else in a file in `folder` (`spool_folder()`).

    Raises `SpoolError` if there is no room for it, with the bytes needed, and whenever the system refuses.
    """

    def __init__(self, size: int, folder: Path | None = None, in_memory: int = IN_MEMORY) -> None:
        self.size, self._folder = size, folder or spool_folder()
        self._file: Any = io.BytesIO(bytes(size)) if size <= in_memory else self._new_file()
        self._place = Lock()  # `os.preadv` needs none, and is not everywhere

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def descriptor(self) -> int:
        """That of the file."""
        descriptor: int = self._file.fileno()
        return descriptor

    def read(self, start: int, data: memoryview) -> None:
        """Fills `data` with the bytes from `start` on."""
        self._whole("readinto", start, data)

    def write(self, start: int, data: memoryview) -> None:
        """Puts `data` at `start`."""
        self._whole("write", start, data)

    def close(self) -> None:
        """Gives memory or file back."""
        with suppress(OSError):
            self._file.close()

    def _new_file(self) -> Any:
        try:
            if self.size > (free := self._free()):
                raise self._no_room(free)
            file = tempfile.TemporaryFile(  # noqa: SIM115 - it is open as long as this is
                dir=self._folder, prefix=".i2i-", suffix=".part", buffering=0
            )
        except OSError as error:
            raise SpoolError(f"{self._folder}: cannot hold the spool: {error.strerror}; {_CHOOSE}") from error
        try:
            if hasattr(os, "posix_fallocate"):  # so that the room is there to the end
                os.posix_fallocate(file.fileno(), 0, self.size)
            else:
                os.ftruncate(file.fileno(), self.size)
        except OSError as error:
            file.close()
            raise self._refused(error) from error
        return file

    def _whole(self, call: Literal["readinto", "write"], start: int, data: memoryview) -> None:
        try:
            with self._place:
                self._file.seek(start)
                while len(data):
                    if not (done := getattr(self._file, call)(data)):
                        raise SpoolError(f"{self._folder}: the spool has become shorter")
                    data = data[done:]
        except OSError as error:
            raise self._refused(error) from error

    def _free(self) -> int:
        return shutil.disk_usage(self._folder).free

    def _refused(self, error: OSError) -> SpoolError:
        if error.errno in FULL:
            return self._no_room(self._free())
        return SpoolError(f"{self._folder}: the spool cannot be used: {error.strerror}; {_CHOOSE}")

    def _no_room(self, free: int) -> SpoolError:
        return SpoolError(
            f"{self._folder}: {self.size:,} bytes are needed for the spool of this picture, {free:,} are free; "
            f"{_CHOOSE}"
        )


LARGE_LIMITS = Limits(pixels=1 << 34, side=1 << 20, file_bytes=1 << 40)
"""The limits of a picture that is read by bands."""

_BAND_BYTES = 1 << 25
_LOADERS: dict[str, Format] = {"pngload": "PNG", "jpegload": "JPEG", "webpload": "WEBP"}
_TYPES: dict[str, Any] = {"uchar": np.uint8, "ushort": np.uint16}
_PLAIN = ("b-w", "srgb", "rgb", "rgb16", "grey16")
_WRITTEN: tuple[Format, ...] = ("PNG", "JPEG", "TIFF", "WEBP")
# as libvips and libjpeg have it; a picture that is read by bands has no longer sides than TIFF and PNG can hold
_SIDES: dict[Format, int] = {"JPEG": 65_500, "WEBP": 16_383}
_ICC = 8  # libvips is to keep that alone: of EXIF it would make up tags


class Bands(Protocol):
    """A picture of which any rows can be had: a `Picture` in memory, or a `Large` one."""

    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    def read(self, top: int, bottom: int) -> Picture:
        """These rows of it."""


class Canvas(Spool):
    """Plain pixels (height, width, channels) in a file, to be filled and read by rows."""

    def __init__(self, height: int, width: int, channels: int, dtype: DTypeLike, folder: Path | None = None) -> None:
        self.height, self.width, self.channels, self.dtype = height, width, channels, np.dtype(dtype)
        self._row = width * channels * self.dtype.itemsize
        super().__init__(height * self._row, folder, in_memory=0)

    def rows(self, top: int, bottom: int) -> Pixels:
        """These rows (h, width, channels)."""
        pixels = np.empty((bottom - top, self.width, self.channels), self.dtype)
        self.read(top * self._row, pixels.reshape(-1).view(np.uint8).data)
        return pixels

    def fill(self, top: int, pixels: Pixels, left: int = 0) -> None:
        """Put (h, w, channels) there; rows that are not whole one by one."""
        parts = [pixels] if pixels.shape[1] == self.width else list(pixels[:, None])
        for i, part in enumerate(parts):
            start = (top + i) * self._row + left * self.channels * self.dtype.itemsize
            self.write(start, np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)


class Large:
    """A picture file read once from its top to its bottom; a context manager, for its pixels are on a disk.

    `info` is the picture without pixels. Raises `ImageError` for a file that is no whole picture within the limits, or
    is not read by bands; `OutputError` if there is no room for its pixels.
    """

    def __init__(self, path: Path, limits: Limits = LARGE_LIMITS, folder: Path | None = None) -> None:
        with _opened(path, limits) as stored:
            self.width, self.height = meta.upright_size(stored.width, stored.height, stored.turn)
            self.info, self._separated = stored.info, stored.separated
            self._canvas = Canvas(self.height, self.width, stored.channels, stored.dtype, folder)
            try:
                top = 0
                for band in stored:
                    self._place(meta.upright(band, stored.turn), top, stored.height - top - len(band), stored.turn)
                    top += len(band)
            except BaseException:
                self._canvas.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._canvas.close()

    def read(self, top: int, bottom: int) -> Picture:
        """These rows of it."""
        return self._separated(self._canvas.rows(top, bottom))

    def _place(self, band: Pixels, before: int, after: int, turn: int) -> None:
        """Puts a band, turned upright, where it belongs: so many rows were before it in the file, and come after it."""
        if meta.is_sideways(turn):
            self._canvas.fill(0, band, left=before if turn in (5, 8) else after)
        else:
            self._canvas.fill(after if turn in (3, 4) else before, band)


def large_size(path: Path, limits: Limits = LARGE_LIMITS) -> tuple[int, int]:
    """(width, height), upright, of a picture that `Large` would read. Raises `ImageError`."""
    with _opened(path, limits) as stored:
        return meta.upright_size(stored.width, stored.height, stored.turn)


class _ByLibvips:
    """PNG, JPEG and WebP as `tiff.Rows`: their pixels by libvips, their metadata as that of smaller ones."""

    def __init__(self, file: BinaryIO, limits: Limits) -> None:
        self._image = image = _vips().Image.new_from_file(file.name, access="sequential", fail_on="error")
        kind = str(image.get("vips-loader"))
        if kind not in _LOADERS:
            names = [NAMES[format] for format in (*_LOADERS.values(), "TIFF")]
            raise ImageError(f"of this size, only {', '.join(names)} are read")
        self.width, self.height, self.channels = image.width, image.height, image.bands
        limits.check_size(image.width, image.height, image.bands)
        if image.interpretation not in _PLAIN or image.bands > 4 or image.format not in _TYPES:
            kind = f"{image.bands} channels of {image.format}, {image.interpretation}"
            raise ImageError(f"{kind}: of this size, only grey and RGB of 8 or 16 bits are read")
        self.dtype = np.dtype(_TYPES[image.format])
        described, self.turn = decoding.describe(file, _LOADERS[kind], limits)
        self.info = dataclasses.replace(described, pixels=np.empty((0, 0, 0), self.dtype))
        self.separated = split_alpha

    def __iter__(self) -> Iterator[Pixels]:
        region = _vips().Region.new(self._image)
        rows = max(1, _BAND_BYTES // (self.width * self.channels * self.dtype.itemsize))
        for top in range(0, self.height, rows):
            count = min(rows, self.height - top)
            data = region.fetch(0, top, self.width, count)
            yield np.frombuffer(data, self.dtype).reshape(count, self.width, self.channels)


@contextmanager
def _opened(path: Path, limits: Limits) -> Iterator["tiff.Rows | _ByLibvips"]:
    """The picture of a file by blocks of rows. All that is raised while it is read becomes an `ImageError`."""
    with decoding.open_regular(path, limits) as file, reasons():
        format = sniff(file.read(HEAD_BYTES))
        if format == "NPY":
            raise ImageError("an array of this size is not read; use TIFF")
        if format != "TIFF":
            yield _ByLibvips(file, limits)
            return
        rows = tiff.Rows(file, limits)
        rows.check_bands()
        yield rows


def refusal(format: Format, width: int, height: int, like: Picture) -> str | None:
    """Why `write_large` cannot write a picture with the channels of `like`, if so; ask before hours are spent on it."""
    if format not in _WRITTEN:
        return f"{NAMES[format]} is not written by bands; use TIFF or PNG"
    if max(width, height) > (side := _SIDES.get(format, LARGE_LIMITS.side)):
        return f"{width}x{height} pixels: {NAMES[format]} holds at most {side} a side; use TIFF or PNG"
    if like.holds_data and format != "TIFF":
        return f"{NAMES[format]} holds 1 or 3 channels, not {like.band_count}; use TIFF"
    return None


def write_large(
    path: Path,
    canvas: Canvas,
    like: Picture,
    format: Format,
    *,
    quality: int | None = None,
    mode: int | None = None,
    replace: bool = True,
) -> None:
    """Write the pixels of `canvas` whole or not at all: with the channels and the metadata of `like`.

    `mode` and `replace` as in `images.write`. TIFF is tiled, with 64-bit addresses where it has to be. Raises
    `OutputError` for a format that is not written by bands, for a picture that it cannot hold, and where the system
    refuses.
    """
    if reason := refusal(format, canvas.width, canvas.height, like):
        raise OutputError(f"{path}: {reason}")
    icc, shape = profile(like), (canvas.height, canvas.width, canvas.channels)

    def save(file: BinaryIO) -> None:
        if format == "TIFF":
            tiff.write(file, shape, canvas.rows, like, icc, tiled=True)
        elif format == "PNG":
            file.writelines(png.parts(*shape[:2], _bands(canvas), like, icc))
        elif format == "WEBP":  # whose encoder has all of it in memory in any case
            file.write(encode(_whole(canvas, like), format, quality))
        else:
            try:
                _write_jpeg(_image(canvas, like.alpha is not None, icc), file, like, quality)
            except _vips().Error as error:
                raise OutputError(f"{path}: cannot be written: {plain(error)}") from error

    atomic_write(path, save, mode, replace=replace)


def _bands(canvas: Canvas) -> Iterator[Pixels]:
    """All rows, in the depth of a PNG."""
    deep = np.uint8 if canvas.dtype == np.uint8 else np.uint16
    count = max(1, _BAND_BYTES // (canvas.width * canvas.channels * canvas.dtype.itemsize))
    for top in range(0, canvas.height, count):
        yield with_depth(canvas.rows(top, min(top + count, canvas.height)), deep)


def _whole(canvas: Canvas, like: Picture) -> Picture:
    """The picture in memory, in 8 bits."""
    pixels, top = np.empty((canvas.height, canvas.width, canvas.channels), np.uint8), 0
    for band in _bands(canvas):
        pixels[top : top + len(band)] = with_depth(band, np.uint8)
        top += len(band)
    if like.alpha is None:
        return dataclasses.replace(like, pixels=pixels)
    return dataclasses.replace(like, pixels=pixels[..., :-1], alpha=pixels[..., -1])


def _image(canvas: Canvas, without_last: bool, icc: bytes | None) -> Any:
    """An image of libvips in 8 bits; `without_last`: all channels but the last."""
    pyvips = _vips()
    kind = {1: "uchar", 2: "ushort", 4: "float"}[canvas.dtype.itemsize]
    # mapped, so that the system can drop the parts that libvips has read
    data = mmap.mmap(canvas.descriptor, 0, access=mmap.ACCESS_READ)
    image = pyvips.Image.new_from_memory(data, canvas.width, canvas.height, canvas.channels, kind)
    if without_last:
        image = image.extract_band(0, n=image.bands - 1)
    if kind != "uchar":
        image = (image * (255 / (1 if kind == "float" else 65535))).rint().cast("uchar")
    image = image.copy(interpretation="b-w" if image.bands < 3 else "srgb")
    if icc:
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", icc)
    return image


def _write_jpeg(image: "pyvips.Image", file: BinaryIO, like: Picture, quality: int | None) -> None:
    """Passes a JPEG on from libvips to a file, with metadata in place of its first two bytes."""
    head, refused = containers.jpeg_head(like, exif_for(like, "JPEG")[0])[0], list[OSError]()

    def receive(data: memoryview) -> int:
        nonlocal head
        try:
            file.write(head + bytes(data[2:]) if head else data)
        except OSError as error:  # which must not cross libvips
            refused.append(error)
            return -1
        head = b""
        return len(data)

    target = _vips().TargetCustom()
    target.on_write(receive)
    try:
        # colours subsampled as in the pictures that are written whole
        image.jpegsave_target(target, subsample_mode="on", Q=quality or DEFAULT_QUALITY["JPEG"], keep=_ICC)
    except Exception:
        if refused:
            raise refused[0] from None
        raise


def _vips() -> Any:
    """pyvips, which reads only with loaders that libvips holds to be safe with untrusted files."""
    try:
        import pyvips
    except (ImportError, OSError):
        raise ImageError("a picture of this size needs pyvips: pip install 'i2i[large]'") from None
    pyvips.block_untrusted_set(True)
    pyvips.cache_set_max(0)  # which would give the content of an earlier file of that descriptor
    return pyvips
