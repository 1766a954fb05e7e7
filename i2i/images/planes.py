"""TIFF with 16 bits a channel in separate planes, which Pillow reduces to 8 bits and OpenCV mixes up.

Each plane is handed to Pillow as a grey picture of its own: the same bytes under another directory
(TIFF 6.0, Sec. 2; PlanarConfiguration 2).
"""

import io
import struct

import numpy as np
from PIL import Image

from i2i.errors import ImageError
from i2i.images import exif
from i2i.images.picture import Pixels

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIPS, _ORIENTATION, _SAMPLES, _STRIP_ROWS, _STRIP_BYTES, _PLANAR = 273, 274, 277, 278, 279, 284
_PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 317, 322, 323, 324, 325
_SHARED = (_WIDTH, _HEIGHT, _COMPRESSION, _FILL_ORDER, _STRIP_ROWS, _PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT)
_PER_PLANE = (_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES)
_LONG = 4


def are_deep(image: Image.Image) -> bool:
    """Whether this is such a TIFF."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    return tags.get(_PLANAR) == 2 and tags.get(_SAMPLES, 1) > 1 and set(tags.get(_BITS, ())) == {16}


def decode(image: Image.Image, data: bytes) -> Pixels:
    """(H, W, channels) uint16, upright, of a TIFF whose header Pillow has read from `data`."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    planes = [_plane(tags, data, i) for i in range(tags[_SAMPLES])]
    turn = tags.get(_ORIENTATION, 1)
    return exif.upright(np.dstack(planes), turn if turn in range(1, 9) else 1)


def _plane(tags: Image.Exif, data: bytes, index: int) -> Pixels:
    entries: dict[int, tuple[int, ...]] = {tag: (tags[tag],) for tag in _SHARED if tag in tags}
    entries |= {_BITS: (16,), _PHOTOMETRIC: (1,), _SAMPLES: (1,)}
    for tag in _PER_PLANE:
        if tag in tags:
            values = tags[tag]
            each = len(values) // tags[_SAMPLES]
            entries[tag] = tuple(values[index * each : (index + 1) * each])
    order = "<" if data[:2] == b"II" else ">"
    head = struct.pack(f"{order}2sHI", data[:2], 42, len(data))
    file = io.BytesIO(head + data[8:] + _directory(entries, order, len(data)))
    plane = Image.open(file, formats=("TIFF",))  # noqa: TID251 (its size is that of the checked header)
    if plane.size != (tags[_WIDTH], tags[_HEIGHT]) or not plane.mode.startswith("I;16"):
        raise ImageError("damaged: its planes are not of 16 bits")
    return np.asarray(plane).astype(np.uint16)


def _directory(entries: dict[int, tuple[int, ...]], order: str, place: int) -> bytes:
    """A directory of LONG values, to stand at `place`; lists of values follow it."""
    fields, lists = b"", b""
    behind = place + 2 + 12 * len(entries) + 4
    for tag, values in sorted(entries.items()):
        packed = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) != 1:
            lists, packed = lists + packed, struct.pack(f"{order}I", behind + len(lists))
        fields += struct.pack(f"{order}HHI", tag, _LONG, len(values)) + packed
    return struct.pack(f"{order}H", len(entries)) + fields + bytes(4) + lists
