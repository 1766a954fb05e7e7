"""Pictures read and written by bands are those read and written whole."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from fork_server import python
from picture_samples import SRGB
from PIL import Image, PngImagePlugin

from i2i import images
from i2i.errors import ImageError, OutputError
from i2i.images import Picture
from i2i.images.large import Canvas, Large, SpoolError, large_size, refusal, write_large
from i2i.images.picture import Limits
from i2i.images.png import chunk

pytest.importorskip("pyvips")
HEIGHT, WIDTH = 40, 57


def pixels(channels: int = 3, dtype: Any = np.uint8) -> Any:
    values = np.random.default_rng(0).random((HEIGHT, WIDTH, channels))
    return (values * (1 if dtype == np.float32 else np.iinfo(dtype).max)).astype(dtype)


def like(channels: int, dtype: Any = np.uint8, alpha: bool = False) -> Picture:
    """A picture of such channels, without pixels."""
    return Picture(np.empty((0, 0, channels), dtype), alpha=np.empty((0, 0), dtype) if alpha else None)


def same(path: Path, **options: Any) -> None:
    whole = images.read(path)
    with Large(path, **options) as large:
        assert large_size(path) == images.probe(path) == (large.width, large.height)
        parts = [large.read(top, min(top + 7, large.height)) for top in range(0, large.height, 7)]
    assert np.array_equal(np.concatenate([part.pixels for part in parts]), whole.pixels)
    assert parts[0].pixels.dtype == whole.pixels.dtype and (parts[0].alpha is None) == (whole.alpha is None)
    if whole.alpha is not None:
        assert np.array_equal(np.concatenate([part.alpha for part in parts]), whole.alpha)  # type: ignore[misc]
    assert said(large.info) == said(whole)


BESIDE = ("icc", "exif", "format", "has_more_frames", "colour", "resolution", "xmp", "texts", "geo", "unread")


def said(picture: Picture) -> dict[str, Any]:
    """All that a file says beside its pixels."""
    return {name: getattr(picture, name) for name in BESIDE}


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_upright_with_its_metadata(tmp_path: Path, turn: int, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("i2i.images.large._BAND_BYTES", 1000)
    tags = Image.Exif()
    tags[274], tags[271] = turn, "maker"
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels()).save(path, exif=tags)
    same(path)


@pytest.mark.parametrize("suffix", ["tif", "jpg", "png", "webp"])
def test_directories_within_are_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    images.write(path, Picture(pixels(), exif=exif_bytes(suffix != "jpg")))
    same(path)
    with Large(path) as large:
        assert large.info.exif is not None and b"2020:01:01" in large.info.exif


XMP = b"<x:xmpmeta><rdf:Description tiff:Orientation='%d' dc:title='view'/></x:xmpmeta>"


def full() -> Picture:
    """A picture of which everything is known that a file can say."""
    geo: Any = {33550: (10.0, 10.0, 0.0), 33922: (0.0, 0.0, 0.0, 5e5, 4e6, 0.0)}
    texts = {"Copyright": "© me", "Author": "Anna", "Comment": "a view", "Title": "View", "own": "word"}
    colour = chunk(b"cICP", bytes([9, 16, 0, 1])) + chunk(b"gAMA", struct.pack(">I", 50_000))
    more: Any = {"colour": colour, "resolution": (300.0, 200.0), "xmp": XMP % 1, "texts": texts, "geo": geo}
    return Picture(pixels(), exif=exif_bytes(False), **more)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_large_reads_all_metadata(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    images.write(path, full())
    same(path)
    with Large(path) as large:
        assert large.info.xmp == XMP % 1
        assert suffix == "webp" or large.info.resolution == pytest.approx((300, 200), abs=0.01)
        assert suffix != "png" or (large.info.colour, large.info.texts) == (full().colour, full().texts)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("said_by", ["XMP", "raw profile", "JPEG's XMP"])
def test_large_orientation_from_any_metadata_is_applied(tmp_path: Path, turn: int, said_by: str) -> None:
    tags, text, path = Image.Exif(), PngImagePlugin.PngInfo(), tmp_path / "a.png"
    tags[274] = turn
    block = tags.tobytes()
    if said_by == "raw profile":
        text.add_text("Raw profile type exif", f"\nexif\n{len(block):8}\n{block.hex()}\n", zip=True)
    else:
        text.add_itxt("XML:com.adobe.xmp", (XMP % turn).decode())
    Image.fromarray(pixels()).save(path, pnginfo=text)
    if said_by == "JPEG's XMP":
        path = tmp_path / "a.jpg"
        Image.fromarray(pixels()).save(path, xmp=XMP % turn)
    same(path)
    assert images.probe(path) == ((HEIGHT, WIDTH) if turn > 4 else (WIDTH, HEIGHT))


def test_unread_metadata_of_large_pictures_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "x" * 70_000)
    Image.fromarray(pixels()).save(path, pnginfo=text)
    same(path)
    with Large(path) as large:
        assert large.info.unread == ("long texts",)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_a_damaged_exif_block_says_nothing(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels()).save(path, exif=b"Exif\0\0no header of a TIFF at all")
    with Large(path) as large:
        assert large.info.exif is None and large.read(0, 1).pixels.shape[2] == 3


@pytest.mark.parametrize(
    ("suffix", "channels", "dtype", "alpha"),
    [
        ("png", 1, np.uint8, False),
        ("png", 1, np.uint16, True),
        ("png", 3, np.uint16, True),
        ("tif", 1, np.uint16, False),
        ("tif", 3, np.uint16, True),
        ("tif", 3, np.float32, False),
        ("webp", 3, np.uint8, True),
        ("jpg", 3, np.uint8, False),
    ],
)
def test_depth_and_alpha(tmp_path: Path, suffix: str, channels: int, dtype: Any, alpha: bool) -> None:
    values, path = pixels(channels, dtype), tmp_path / f"a.{suffix}"
    images.write(path, Picture(values, alpha=values[..., 0].copy() if alpha else None))
    same(path)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize(("channels", "dtype"), [(1, np.uint8), (3, np.uint8), (3, np.uint16)])
@pytest.mark.parametrize("alpha", [True, False])
def test_written_as_it_is_on_the_canvas(tmp_path: Path, suffix: str, channels: int, dtype: Any, alpha: bool) -> None:
    values = pixels(channels + alpha, dtype)
    path = tmp_path / f"a.{suffix}"
    for content in (values, values[::-1].copy()):  # nothing is remembered of the canvas before
        with Canvas(HEIGHT, WIDTH, channels + alpha, dtype, tmp_path) as canvas:
            canvas.fill(0, content[:9])
            canvas.fill(9, content[9:])
            write_large(path, canvas, like(channels, dtype, alpha), "TIFF" if suffix == "tif" else "PNG")
        found = images.read(path)
        layers = found.pixels if found.alpha is None else np.dstack([found.pixels, found.alpha])
        assert layers.dtype == dtype and np.array_equal(layers, content)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_tiled(tmp_path: Path) -> None:
    with Canvas(600, 300, 3, np.uint8, tmp_path) as canvas:
        write_large(tmp_path / "a.tif", canvas, like(3), "TIFF")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.pages[0].tile == (256, 256)


def test_large_writing_drops_depth_and_refuses_bmp(tmp_path: Path) -> None:
    with Canvas(HEIGHT, WIDTH, 4, np.uint16, tmp_path) as canvas:
        canvas.fill(0, pixels(4, np.uint16))
        write_large(tmp_path / "a.jpg", canvas, like(3, np.uint16, True), "JPEG")
        assert images.read(tmp_path / "a.jpg").pixels.dtype == np.uint8
        with pytest.raises(OutputError, match="BMP is not written by bands"):
            write_large(tmp_path / "a.bmp", canvas, like(3, np.uint16, True), "BMP")


@pytest.mark.parametrize(
    ("format", "width", "colours", "reason"),
    [
        ("BMP", 10, 3, "BMP is not written by bands"),
        ("WEBP", 16_384, 3, "16384x8 pixels: WebP holds at most 16383 a side"),
        ("JPEG", 65_501, 3, "65501x8 pixels: JPEG holds at most 65500 a side"),
        ("PNG", 10, 6, "PNG holds 1 or 3 channels, not 6"),
        ("WEBP", 16_383, 3, None),
        ("JPEG", 65_500, 3, None),
        ("TIFF", 70_000, 6, None),
        ("PNG", 70_000, 1, None),
    ],
)
def test_large_refusals_agree_with_libvips(
    tmp_path: Path, format: Any, width: int, colours: int, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = refusal(format, width, 8, like(colours))
    assert (found is None) == (reason is None) and (reason or "") in (found or "")
    if reason is None or format in ("JPEG", "WEBP"):  # and libvips agrees
        monkeypatch.setattr("i2i.images.large.refusal", lambda *_: None)
        with Canvas(8, width, colours, np.uint8, tmp_path) as canvas:
            if reason is None:
                write_large(tmp_path / "a", canvas, like(colours), format)
            else:
                with pytest.raises(OutputError, match="cannot be written"):
                    write_large(tmp_path / "a", canvas, like(colours), format)


def test_a_jpeg_is_as_one_that_is_written_whole(tmp_path: Path) -> None:
    images.write(tmp_path / "whole.jpg", Picture(pixels()))
    with Canvas(HEIGHT, WIDTH, 3, np.uint8, tmp_path) as canvas:
        canvas.fill(0, pixels())
        write_large(tmp_path / "bands.jpg", canvas, like(3), "JPEG")
    layers = []
    for name in ("whole.jpg", "bands.jpg"):
        with Image.open(tmp_path / name) as image:
            layers.append(image.layer)  # type: ignore[attr-defined]
    assert layers[0] == layers[1], "the same subsampling of colours"


@pytest.mark.parametrize("exif", [None, "some", "long", "all"])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize(("suffix", "format"), [("png", "PNG"), ("jpg", "JPEG"), ("webp", "WEBP"), ("tif", "TIFF")])
def test_metadata_written_by_bands_equals_metadata_written_whole(
    tmp_path: Path, suffix: str, format: Any, alpha: bool, exif: str | None
) -> None:
    picture = full() if exif == "all" else Picture(pixels())
    picture.alpha = pixels(1)[..., 0] if alpha else None
    if exif in ("some", "long"):
        picture.icc, picture.exif = SRGB, exif_bytes(exif == "long")
    images.write(tmp_path / f"whole.{suffix}", picture)
    layers = picture.pixels if picture.alpha is None else np.dstack([picture.pixels, picture.alpha])
    with Canvas(*layers.shape, np.uint8, tmp_path) as canvas:  # type: ignore[call-arg]
        canvas.fill(0, layers)
        write_large(tmp_path / f"bands.{suffix}", canvas, picture, format)
    whole, bands = (images.read(tmp_path / f"{name}.{suffix}") for name in ("whole", "bands"))
    assert bands.pixels.shape == whole.pixels.shape and (bands.alpha is None) == (whole.alpha is None)
    assert said(bands) == said(whole)
    assert exif != "all" or bands.xmp == picture.xmp
    tags, info = zip(*(described(tmp_path / f"{name}.{suffix}") for name in ("whole", "bands")), strict=True)
    assert tags[0] == tags[1] and info[0] == info[1]


def exif_bytes(long: bool) -> bytes:
    tags = Image.Exif()
    tags[271], tags[282], tags[270] = "a maker", 300.0, "x" * 70_000 * long
    tags.get_ifd(34665)[36867] = "2020:01:01 00:00:00"
    return tags.tobytes()


LAYOUT = {256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 322, 323, 324, 325, 338, 339, 34665}


def described(path: Path) -> tuple[dict[int, Any], dict[str, Any]]:
    """The tags of a file and its metadata, but for the way in which its pixels are stored."""
    with Image.open(path) as image:
        tags = image.getexif()
        inner = {(34665, tag): value for tag, value in tags.get_ifd(34665).items()}
        said = {tag: value for tag, value in tags.items() if tag not in LAYOUT} | inner
        return said, {  # type: ignore[return-value]
            name: image.info[name] for name in ("dpi", "resolution", "gamma", "comment") if name in image.info
        }


def test_a_tiff_of_64_bit_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("i2i.images.tiff._CLASSIC_BYTES", 1000)
    path, values = tmp_path / "a.tif", np.tile(pixels(3, np.uint16), (8, 10, 1))
    with Canvas(*values.shape, np.uint16, tmp_path) as canvas:  # type: ignore[call-arg]
        canvas.fill(0, values)
        write_large(path, canvas, Picture(values, icc=SRGB, exif=exif_bytes(True)), "TIFF")
    assert path.read_bytes()[:4] == b"II\x2b\0"
    same(path)
    found = images.read(path)
    assert np.array_equal(found.pixels, values) and found.icc == SRGB
    assert described(path)[0][(34665, 36867)] == "2020:01:01 00:00:00"  # type: ignore[index]
    assert found.exif is not None  # and not None from both ways of reading
    again = Image.Exif()
    again.load(found.exif)
    assert again.get_ifd(34665)[36867] == "2020:01:01 00:00:00"
    entries = path.read_bytes()
    assert struct.pack("<HHQ", 34665, 16, 1) in entries and struct.pack("<HHQ", 34665, 4, 1) not in entries


def test_damaged_and_unknown(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    images.write(path, Picture(pixels()))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match="damaged"):
        Large(path, folder=tmp_path)
    path.write_bytes(b"P6 1000000 1000000 255\n")
    with pytest.raises(ImageError):
        Large(path, folder=tmp_path)
    with pytest.raises(ImageError, match="No such file"):
        Large(tmp_path / "missing.png", folder=tmp_path)
    images.write(path, Picture(pixels()))
    with pytest.raises(ImageError, match="at most 10 are accepted"):
        Large(path, Limits(pixels=10), folder=tmp_path)
    Image.fromarray(pixels(4), mode="CMYK").save(tmp_path / "c.jpg")
    with pytest.raises(ImageError, match="only grey and RGB"):
        Large(tmp_path / "c.jpg", folder=tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "c.jpg"]


def test_no_disk_space_for_a_canvas_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    images.write(path, Picture(pixels()))
    with pytest.raises(SpoolError, match=r"bytes are needed.*I2I_SPOOL"):
        Large(path, folder=Path("/proc"))


FULL = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from i2i.images import Picture
from i2i.images.large import write_large
from i2i.images.large import Canvas
from i2i.errors import OutputError
folder = Path(sys.argv[1])
with Canvas(500, 500, 3, np.uint8, folder) as canvas:
    canvas.fill(0, np.random.default_rng(0).integers(0, 255, (500, 500, 3), np.uint8))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    for suffix, format in (("png", "PNG"), ("tif", "TIFF"), ("jpg", "JPEG")):
        try:
            write_large(folder / f"a.{suffix}", canvas, Picture(np.empty((0, 0, 3), np.uint8)), format)
            print("written")
        except OutputError as error:
            print(error)
"""


@pytest.mark.promise("R1")
def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    done = python("-c", FULL, tmp_path, check=True)
    assert len(done.stdout.splitlines()) == 3 and done.stdout.count("cannot be written") == 3, done.stdout
    assert list(tmp_path.iterdir()) == []
