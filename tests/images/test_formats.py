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
from i2i.images.formats import NAMES, READ, WRITTEN
from i2i.images.magic import readable

DOCS = Path(__file__).parents[2] / "docs" / "pictures.md"


def _zip():
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.png", b"x")
    return file.getvalue()


def _ftyp(*brands):
    return struct.pack(">I", 8 + 4 * (len(brands) + 1)) + b"ftyp" + brands[0] + bytes(4) + b"".join(brands[1:])


OTHERS = {
    "Photoshop": b"8BPS\0\1" + bytes(20),
    "JPEG 2000": pillow_bytes(MODES["RGB"], "JPEG2000")
    if features.check("jpg_2000")
    else b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(20),
    "JPEG XL": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(20),
    "JPEG XR": b"II\xbc\1" + bytes(20),
    "camera raw": _ftyp(b"crx ", b"isom"),
    "GIMP": b"gimp xcf v011\0",
    "icon": pillow_bytes(MODES["RGB"], "ICO"),
    "cursor": b"\0\0\2\0\1\0\x20\x20",
    "Apple icon": pillow_bytes(MODES["RGB"].resize((32, 32)), "ICNS"),
    "DDS": pillow_bytes(MODES["RGB"], "DDS"),
    "BLP": pillow_bytes(MODES["P"], "BLP"),
    "QOI": b"qoif" + bytes(20),
    "SGI": pillow_bytes(MODES["RGB"], "SGI"),
    "Sun raster": b"\x59\xa6\x6a\x95" + bytes(28),
    "PCX": pillow_bytes(MODES["RGB"], "PCX"),
    "OpenEXR": b"v/1\1\2\0\0\0",
    "Radiance HDR": b"#?RADIANCE\n",
    "PFM": b"Pf\n1 1\n-1.0\n" + bytes(4),
    "PAM": b"P7\nWIDTH 1\n",
    "FITS": b"SIMPLE  =                    T",
    "DICOM": bytes(128) + b"DICM",
    "PostScript": pillow_bytes(MODES["RGB"], "EPS"),
    "PDF": pillow_bytes(MODES["RGB"], "PDF"),
    "SVG": b'<?xml version="1.0"?>\n<!-- a drawing -->\n<svg xmlns="http://www.w3.org/2000/svg"></svg>',
    "Windows metafile": b"\xd7\xcd\xc6\x9a" + bytes(18),
    "XPM": b'/* XPM */\nstatic char *a[] = {"1 1 1 1"};',
    "XBM": b"#define a_width 8\n#define a_height 1\n",
    "IFUNC image": pillow_bytes(MODES["RGB"], "IM"),
    "FLI animation": b"\0\1\0\0\x12\xaf" + bytes(122),
    "Targa": pillow_bytes(MODES["RGB"], "TGA"),
    "HEIF (HEIC)": _ftyp(b"heic", b"mif1"),
    "a ZIP archive": _zip(),
    "a gzip file": b"\x1f\x8b\x08" + bytes(20),
    "a video or sound file": _ftyp(b"isom", b"mp42"),
    "an HTML page": b"<!DOCTYPE html><html><img src='http://example.com/a.png'></html>",
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "text": "a few words, żółć\n".encode(),
}


@pytest.fixture
def no_helpers(monkeypatch):
    """Neither another program nor the network."""

    def refuse(*args, **options):
        raise AssertionError("something outside was asked")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(socket, "socket", refuse)


@pytest.mark.promise("R44")
@pytest.mark.parametrize("kind", OTHERS)
def test_other_formats_are_named_whatever_their_suffix(tmp_path, no_helpers, kind):
    for suffix in (".png", ".tif", ".jpg", ""):
        path = tmp_path / f"file{suffix}"
        path.write_bytes(OTHERS[kind])
        for look in (read, probe):
            with pytest.raises(ImageError, match=f"^{re.escape(kind)} is not read here; read are JPEG, PNG"):
                look(path)


@pytest.mark.promise("R44")
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM"])
def test_the_suffix_does_not_matter(tmp_path, format):
    path = tmp_path / "file.heic"
    path.write_bytes(pillow_bytes(MODES["RGB"], format))
    assert read(path).format == format
    assert probe(path) == (17, 12)


@pytest.mark.parametrize("data", [b"\0" * 100, b"\xfe\xed\xfa\xce\0\0\0", b"\x01"])
def test_the_unknown_is_called_so(data):
    with pytest.raises(ImageError, match="not a picture of a known format; read are"):
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


def test_avif_without_its_decoder_is_said(monkeypatch):
    monkeypatch.setattr(features, "check", lambda name: name != "avif")
    with pytest.raises(ImageError, match="AVIF is not read by this build of Pillow; read are"):
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
