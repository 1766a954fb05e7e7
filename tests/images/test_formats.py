"""Content decides what a file is; what is not read is named."""

import re
import socket
import struct
import subprocess
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from picture_samples import MODES, gradient, pillow_bytes
from PIL import Image, features

from i2i.errors import ImageError
from i2i.images import UNREAD, Limits, decode, probe, read
from i2i.images.encoding import DEFAULT_QUALITY
from i2i.images.formats import NAMES, READ, WRITTEN, readable, reasons

DOCS = Path(__file__).parents[2] / "docs" / "pictures.md"


def _zip():
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.png", b"x")
    return file.getvalue()


def _ftyp(*brands):
    return struct.pack(">I", 8 + 4 * (len(brands) + 1)) + b"ftyp" + brands[0] + bytes(4) + b"".join(brands[1:])


OTHERS = {
    "Adobe Photoshop": b"8BPS\0\1" + bytes(20),
    "JPEG 2000 (ISO 15444)": pillow_bytes(MODES["RGB"], "JPEG2000")
    if features.check("jpg_2000")
    else b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(20),
    "JPEG XL": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(20),
    "JPEG XR": b"II\xbc\1" + bytes(20),
    "camera raw": _ftyp(b"crx ", b"isom"),
    "Windows Icon": pillow_bytes(MODES["RGB"], "ICO"),
    "DirectDraw Surface": pillow_bytes(MODES["RGB"], "DDS"),
    "SGI Image File Format": pillow_bytes(MODES["RGB"], "SGI"),
    "OpenEXR": b"v/1\1\2\0\0\0",
    "Radiance HDR": b"#?RADIANCE\n",
    "PFM": b"Pf\n1 1\n-1.0\n" + bytes(4),
    "PAM": b"P7\nWIDTH 1\n",
    "FITS": b"SIMPLE  =                    T",
    "DICOM": bytes(128) + b"DICM",
    "Encapsulated Postscript": pillow_bytes(MODES["RGB"], "EPS"),
    "PDF": pillow_bytes(MODES["RGB"], "PDF"),
    "SVG": b'<?xml version="1.0"?>\n<!-- a drawing -->\n<svg xmlns="http://www.w3.org/2000/svg"></svg>',
    "a ZIP archive": _zip(),
    "a compressed file": b"\x1f\x8b\x08" + bytes(20),
    "a video or sound file": _ftyp(b"isom", b"mp42"),
    "an HTML page": b"<!DOCTYPE html><html><img src='http://example.com/a.png'></html>",
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "text": "a few words, żółć\n".encode(),
}


def _card(text):
    return text.ljust(80).encode()


_FITS = ("SIMPLE  =                    T", "BITPIX  =                    8", "NAXIS   =                    2",
         "NAXIS1  =                    1", "NAXIS2  =                    1", "END")  # fmt: skip
_PHOTO_CD = b"PCD_" + bytes(1 << 20)
# whole pictures that Pillow reads and we do not: those that it can write itself, and the smallest of some others
PILLOW_ALONE = {
    **{name: pillow_bytes(MODES["RGB"].resize((32, 32)), name) for name in ("DDS", "DIB", "EPS", "ICO", "ICNS", "IM")},
    **{name: pillow_bytes(MODES["RGB"].resize((32, 32)), name) for name in ("PCX", "QOI", "SGI", "TGA")},
    "BLP": pillow_bytes(MODES["P"], "BLP"),
    "MSP": pillow_bytes(MODES["1"], "MSP"),
    "XBM": pillow_bytes(MODES["1"], "XBM"),
    "SPIDER": pillow_bytes(MODES["L"].convert("F"), "SPIDER"),
    "CUR": struct.pack("<HHHBBBBHHII", 0, 2, 1, 1, 1, 0, 0, 0, 0, 48, 22)
    + struct.pack("<IiiHHIIiiII", 40, 1, 2, 1, 32, 0, 4, 0, 0, 0, 0) + bytes(8),
    "FITS": b"".join(map(_card, _FITS)).ljust(2880) + bytes(2880),
    "FLI": struct.pack("<IHHHHHHI", 144, 0xAF12, 1, 1, 1, 8, 3, 100) + bytes(108) + struct.pack("<IHH", 16, 0xF1FA, 0)
    + bytes(28),
    "GBR": struct.pack(">5I", 28, 1, 1, 1, 1) + b"brush..\0\5",
    "MCIDAS": struct.pack(">15I", 0, 4, *[0] * 6, 1, 1, 1, 0, 0, 1, 0) + bytes(72) + struct.pack(">I", 256)
    + bytes(180),
    "PCD": bytes(2048) + _PHOTO_CD,
    "PSD": b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 1, 1, 8, 3) + bytes(14) + b"\1\2\3",
    "XPM": b'/* XPM */\nstatic char *a[] = {\n"1 1 1 1",\n"x c #ff0000",\n"x"\n};\n',
    "XVThumb": b"P7 332\n#END_OF_COMMENTS\n1 1 255\n\0",
}  # fmt: skip
BEGINNINGS = {
    "PNG": b"\x89PNG\r\n\x1a\n", "JPEG": b"\xff\xd8", "WEBP": b"RIFF\0\0\0\0WEBP", "TIFF": b"II*\0",
    "TIFF of big endian": b"MM\0*", "GIF": b"GIF89a", "AVIF": _ftyp(b"avif", b"mif1"),
}  # fmt: skip


@pytest.fixture
def no_helpers(monkeypatch):
    """Neither another program nor the network."""

    def refuse(*args, **options):
        raise AssertionError("something outside was asked")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(socket, "socket", refuse)


@pytest.mark.promise("R44")
@pytest.mark.parametrize("kind", OTHERS)
def test_unsupported_formats_are_named_by_content(tmp_path, no_helpers, kind):
    for suffix in (".png", ".tif", ".jpg", ""):
        path = tmp_path / f"file{suffix}"
        path.write_bytes(OTHERS[kind])
        for look in (read, probe):
            with pytest.raises(ImageError, match=f"^{re.escape(kind)} is not read here; expected JPEG, PNG"):
                look(path)


@pytest.mark.promise("R44")
@pytest.mark.parametrize("format", PILLOW_ALONE)
def test_formats_that_only_pillow_reads_are_refused(format):
    data = PILLOW_ALONE[format]
    with Image.open(BytesIO(data)) as image:
        assert image.format == format
        if format != "EPS":  # which another program would draw
            image.load()
    with pytest.raises(ImageError, match="; expected JPEG, PNG"):
        decode(data)


@pytest.mark.promise("R44")
@pytest.mark.parametrize("format", BEGINNINGS)
def test_first_bytes_alone_choose_the_decoder(format):
    """Pillow knows a Photo CD by what stands further on, and would read it as one, whatever it begins with."""
    data = BEGINNINGS[format].ljust(2048, b"\0") + _PHOTO_CD
    with Image.open(BytesIO(data)) as image:
        assert image.format == "PCD" and image.size == (768, 512)
    with pytest.raises(ImageError, match=r"damaged|not read by this build"):
        decode(data)


@pytest.mark.promise("R44")
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM"])
def test_the_suffix_does_not_matter(tmp_path, format):
    path = tmp_path / "file.heic"
    path.write_bytes(pillow_bytes(MODES["RGB"], format))
    assert read(path).format == format
    assert probe(path) == (17, 12)


@pytest.mark.parametrize("data", [b"\0" * 100, b"\xfe\xed\xfa\xce\0\0\0", b"\x01"])
def test_unknown_formats_are_named_unknown(data):
    with pytest.raises(ImageError, match="not a picture of a known format; expected"):
        decode(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x89PNG\n\x1a\n\0\0\0\rIHDR", "damaged PNG: its signature is broken"),
        (b"\xff\xd8\xff\xe0", "damaged JPEG"),
        (b"\xff\xd8\xff\xc3\0\x0b\x10\0\1\0\1\1\1\x11\0", "lossless JPEG is not read here"),
        (b"GIF89a" + bytes(7), "damaged GIF"),
        (b"RIFF\x20\0\0\0WEBPVP8 ", "damaged"),
        (b"BM" + bytes(50), "damaged"),
        (b"II*\0\x08\0\0\0\1\0", "damaged"),
    ],
)
def test_damage_is_not_called_another_format(data, reason):
    with pytest.raises(ImageError, match=reason):
        decode(data)


def test_avif_without_decoder_names_the_missing_decoder(monkeypatch):
    monkeypatch.setattr(features, "check", lambda name: name != "avif")
    with pytest.raises(ImageError, match="AVIF is not read by this build of Pillow; expected"):
        decode(_ftyp(b"avif", b"mif1"))
    assert "AVIF" not in readable()


def test_the_page_lists_what_the_code_reads_and_writes():
    text = DOCS.read_text()
    for part, table in zip(text.split("## Written"), (READ, WRITTEN), strict=True):
        rows = re.findall(r"^\| ([\w/]+) \| ([^|]*) \|", part, re.MULTILINE)
        found = {name: set(re.findall(r"`(\.\w+)`", cell)) for name, cell in rows if name in NAMES.values()}
        formats = set(table.values())
        assert found == {NAMES[f]: {suffix for suffix, name in table.items() if name == f} for f in formats}
    assert all(f"`{suffix}`" in text for suffix in UNREAD)
    assert all(f"{NAMES[format]} {quality}" in text for format, quality in DEFAULT_QUALITY.items())
    limits = Limits()
    assert f"{limits.pixels:,}" in text and f"{limits.side:,}" in text and limits.file_bytes == 1 << 30


def test_every_written_format_is_read():
    assert set(WRITTEN.values()) <= set(NAMES)


def test_reading_leaves_pillow_as_it_was():
    before = Image.MAX_IMAGE_PIXELS
    decode(pillow_bytes(Image.fromarray(gradient()), "PNG"))
    assert before == Image.MAX_IMAGE_PIXELS and np.array(MODES["RGB"]).shape == (12, 17, 3)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(5, "Input/output error"), "cannot be read: Input/output error"),
        (OSError("image file is truncated (0 bytes not processed)"), "damaged: it is truncated"),
        (ValueError("one line\nits cause\n"), "damaged: its cause"),
        (MemoryError(), "not enough memory to decode it"),
    ],
)
def test_errors_of_libraries_and_of_the_system_become_reasons(error, reason):
    with pytest.raises(ImageError, match=f"^{reason}$"), reasons():
        raise error
