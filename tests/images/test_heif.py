"""HEIC: pixels, depth, alpha, metadata, orientation, and files that are damaged or claim too much."""

import random
import struct
import sys
from typing import Any

import numpy as np
import pytest
from heic_samples import HERE, alpha, ramp
from PIL import Image

from i2i.errors import ImageError
from i2i.images import Limits, Picture, Pixels, decode, formats, probe, read, written_suffix
from i2i.images.formats import lacking, sniff, written_format

NEEDS = pytest.mark.skipif(bool(lacking("HEIF")), reason="pi-heif is not installed")


def apart(picture: Picture, expected: Pixels) -> float:
    """The mean difference, in levels of 8 bits."""
    full = 255 if picture.pixels.dtype == np.uint8 else 65_535
    return float(np.abs(picture.pixels * (255 / full) - expected).mean())


@NEEDS
def test_colours_alpha_and_grey() -> None:
    colours, transparent, grey = (read(HERE / f"{name}.heic") for name in ("colours", "alpha", "grey"))
    assert colours.pixels.dtype == np.uint8 and colours.alpha is None and colours.format == "HEIF"
    assert apart(colours, ramp()) < 1.5 and not colours.unread and not colours.has_more_frames
    assert apart(transparent, ramp()) < 1.5
    assert transparent.alpha is not None and np.abs(transparent.alpha.astype(int) - alpha()).mean() < 1.5
    assert grey.pixels.shape == (32, 48, 1) and apart(grey, ramp()[..., :1]) < 1.5


@NEEDS
def test_ten_bits_come_in_as_16_in_the_full_range() -> None:
    picture = read(HERE / "ten_bits.heic")
    assert picture.pixels.dtype == np.uint16 and apart(picture, ramp()) < 1.5
    assert len(np.unique(picture.pixels)) > 256
    assert picture.pixels.min() == 0 and {*np.unique(picture.pixels)} <= {round(i * 65_535 / 1023) for i in range(1024)}


@NEEDS
def test_heif_orientation_is_applied_once_and_metadata_kept() -> None:
    """Stored lying on its side, with a rotation in the file and the same one in EXIF and XMP."""
    picture = read(HERE / "turned.heic")
    assert apart(picture, np.rot90(ramp(), -1)) < 1.5
    assert probe(HERE / "turned.heic") == (32, 48)
    tags = Image.Exif()
    tags.load(picture.exif or b"")
    assert picture.exif and b"somebody" in picture.exif and 274 not in tags
    assert picture.icc and picture.icc[36:40] == b"acsp"
    assert picture.xmp and b'tiff:Orientation="1"' in picture.xmp


@NEEDS
def test_a_description_of_another_picture_of_the_file_is_left_out() -> None:
    """Such as the XMP of a map of depth."""
    picture = decode((HERE / "turned.heic").read_bytes().replace(b"cdsc\0\3\0\1\0\1", b"cdsc\0\3\0\1\0\2"))
    assert picture.xmp is None and picture.exif and b"somebody" in picture.exif


@NEEDS
def test_pi_heif_reads_no_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would read all items, however large: a file of 2 MB could take 4 GB."""
    import pi_heif

    seen, opened = list[bytes](), pi_heif.open_heif
    monkeypatch.setattr(pi_heif, "open_heif", lambda data, **options: seen.append(data) or opened(data, **options))
    assert read(HERE / "turned.heic").xmp
    assert [b"cdsc" in data for data in seen] == [False]


@NEEDS
def test_the_first_of_several_is_read() -> None:
    picture = read(HERE / "two.heic")
    assert picture.has_more_frames and apart(picture, ramp()) < 1.5


def test_avif_is_not_taken_for_heif() -> None:
    assert sniff(b"\0\0\0\x20ftypmif1\0\0\0\0mif1avifmiaf") == "AVIF"
    assert sniff(b"\0\0\0\x20ftypmif1\0\0\0\0mif1heicmiaf") == "HEIF"
    assert sniff((HERE / "colours.heic").read_bytes()) == "HEIF"


def test_the_result_is_a_jpeg() -> None:
    assert [written_suffix(suffix) for suffix in (".heic", ".HEIF", ".hif")] == [".jpg"] * 3
    assert written_format("HEIF") == "JPEG"


def test_missing_heif_extra_names_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    with pytest.raises(ImageError, match=r"HEIC needs pi-heif.*pip install 'i2i\[heic\]'.*expected JPEG"):
        read(HERE / "colours.heic")
    assert "HEIC" not in formats.readable()


@NEEDS
@pytest.mark.promise("R43")
def test_sizes_are_checked_before_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    import pi_heif

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("libheif was called")

    data = (HERE / "colours.heic").read_bytes()
    place = data.index(b"ispe") + 8
    claims = data[:place] + struct.pack(">II", 60_000, 60_000) + data[place + 8 :]
    monkeypatch.setattr(pi_heif, "open_heif", never)
    for bad, limits in ((claims, Limits()), (data, Limits(pixels=1000)), (data, Limits(side=40))):
        with pytest.raises(ImageError, match=r"pixels: (?:at most|a side)"):
            decode(bad, limits)


@NEEDS
@pytest.mark.parametrize("name", ["colours", "alpha", "turned", "ten_bits"])
def test_a_part_of_a_file_is_no_picture(name: str) -> None:
    data = (HERE / f"{name}.heic").read_bytes()
    for length in range(12, len(data) - 1, 37):
        with pytest.raises(ImageError):
            decode(data[:length])


@NEEDS
@pytest.mark.promise("R45")
@pytest.mark.parametrize("name", ["colours", "alpha", "grey", "ten_bits", "turned", "two"])
def test_mutations_give_a_picture_or_a_reason(name: str) -> None:
    mutate(name, 150)


def mutate(name: str, count: int) -> None:
    data, draw = (HERE / f"{name}.heic").read_bytes(), random.Random(name)
    for _ in range(count):
        mutated = bytearray(data)
        for _ in range(draw.choice((1, 1, 2, 8))):
            mutated[draw.randrange(12, len(data))] = draw.randrange(256)
        try:
            picture = decode(bytes(mutated), Limits(pixels=1 << 20))
        except ImageError as error:
            assert str(error)
        else:
            assert picture.pixels.size <= 4 << 20


@NEEDS
def test_undecodable_heif_name_does_not_fail_the_picture() -> None:
    """pi-heif 1.4 ends the process at a content type that is no UTF-8, also of an item of version 0."""
    data = (HERE / "turned.heic").read_bytes().replace(b"rdf+xml", b"rdf\xf8xml")
    for bad in (data, data.replace(b"infe\2\0\0\1\0\3", b"infe\0\0\0\1\0\3")):
        assert apart(decode(bad), np.rot90(ramp(), -1)) < 1.5


@NEEDS
@pytest.mark.slow
@pytest.mark.promise("R45")
@pytest.mark.parametrize("name", ["colours", "alpha", "grey", "ten_bits", "turned", "two"])
def test_many_mutations(name: str) -> None:
    mutate(name, 5000)
