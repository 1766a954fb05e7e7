"""Small pictures and files that the tests of this folder share."""

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageCms


def gradient(height=12, width=17, channels=3, dtype=np.uint8):
    full = 1.0 if dtype == np.float32 else np.iinfo(dtype).max
    values = np.random.default_rng(channels).random((height, width, channels)) * full
    return values.astype(dtype)


def pillow_bytes(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif_bytes(**tags):
    exif = Image.Exif()
    exif[271] = "a maker"
    for tag, value in tags.items():
        exif[int(tag[1:])] = value
    return exif.tobytes()


MODES = {
    "1": Image.fromarray(gradient(channels=1)[..., 0]).convert("1"),
    "L": Image.fromarray(gradient(channels=1)[..., 0]),
    "LA": Image.fromarray(gradient(channels=2), "LA"),
    "P": Image.fromarray(gradient()).quantize(7),
    "RGB": Image.fromarray(gradient()),
    "RGBA": Image.fromarray(gradient(channels=4)),
}


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, depth, colour_type, rows, chunks=b""):
    """A PNG of unfiltered rows; `chunks` stand before the pixels."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", head) + chunks + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def sixteen_bit_png(pixels, colour_type, transparent=b""):
    rows = [row.astype(">u2").tobytes() for row in pixels]
    chunks = png_chunk(b"tRNS", transparent) if transparent else b""
    return png(pixels.shape[1], pixels.shape[0], 16, colour_type, rows, chunks)


def png_header(width, height):
    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + head + zlib.crc32(b"IHDR" + head).to_bytes(4, "big") + b"\0\0\0\0IDAT"


def tiff(order, entries, strip):
    endian = "little" if order == "<" else "big"

    def number(value, size):
        return value.to_bytes(size, endian)

    directory = number(len(entries), 2)
    for tag, kind, value in entries:
        field = number(value, 2) + b"\0\0" if kind == 3 else number(value, 4)
        directory += number(tag, 2) + number(kind, 2) + number(1, 4) + field
    head = b"II*\0" if order == "<" else b"MM\0*"
    return head + number(8 + len(strip), 4) + strip + directory + b"\0\0\0\0"


def plain_tiff(pixels, order="<", photometric=1, bits=None, tags=()):
    """An uncompressed TIFF of one strip, channels interleaved."""
    height, width, channels = pixels.shape
    strip = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    entries = [(256, 4, width), (257, 4, height), (258, 3, bits or 8 * pixels.dtype.itemsize), (259, 3, 1)]
    entries += [(262, 3, photometric), (273, 4, 8), (277, 3, channels), (278, 4, height), (279, 4, len(strip))]
    return tiff(order, sorted([*entries, *tags]), strip)
