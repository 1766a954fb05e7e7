"""Video files: colours, times, sound and shape of the frames, as another reader of PyAV finds them."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from film_samples import decoded, join_by_segments, moving, packets, pyav, sound_only, video

from i2i.errors import ImageError
from i2i.films import Frame
from i2i.films.video import VideoReader, VideoWriter
from i2i.images import Picture, Pixels

pyav()


def copied(source: Path, target: Path, per_segment: int = 5, quality: int | None = 95) -> VideoWriter:
    """The film with its frames as they are, by segments of so many."""
    with VideoReader(source) as reader:
        writer = VideoWriter(reader.film, source, target.suffix, quality)
        frames = list(reader.frames())
    join_by_segments(frames, writer, target, ".nut", per_segment)
    return writer


def frames_of(path: Path) -> list[Frame]:
    with VideoReader(path) as reader:
        return list(reader.frames())


def same_times(before: Sequence[tuple[Fraction, Any]], after: Sequence[tuple[Fraction, Any]], suffix: str) -> bool:
    """Exactly; but Matroska counts in milliseconds, and from the earliest sample of all streams."""
    rounded = suffix in (".mkv", ".webm")
    shift, bound = (after[0][0] - before[0][0], Fraction(1, 1000)) if rounded else (0, 0)
    return all(abs(b - a - shift) <= bound for (a, _), (b, _) in zip(before, after, strict=True))


UNEVEN = [0, 1000, 2500, 2600, 9000, 9500, 9501, 12000, 20000, 20100, 31000, 33000]


@pytest.mark.parametrize(
    ("suffix", "times"),
    [*((suffix, times) for suffix in (".mp4", ".mov", ".mkv") for times in (None, UNEVEN)), (".webm", None)],
)
def test_frames_keep_their_times(tmp_path: Path, suffix: str, times: list[int] | None) -> None:
    source = video(tmp_path / ("a.webm" if suffix == ".webm" else "a.mp4"), times=times)
    copied(source, tmp_path / f"b{suffix}")
    before, after = decoded(source), decoded(tmp_path / f"b{suffix}")
    assert len(before) == len(after) == 12
    assert same_times(before, after, suffix)
    assert max(np.abs(a.astype(int) - b).mean() for (_, a), (_, b) in zip(before, after, strict=True)) < 6


@pytest.mark.parametrize(("name", "suffix"), [("a.mp4", ".mp4"), ("a.mp4", ".mkv"), ("a.webm", ".webm")])
def test_sound_is_copied_bit_for_bit(tmp_path: Path, name: str, suffix: str) -> None:
    source = video(tmp_path / name)
    copied(source, tmp_path / f"b{suffix}")
    before, after = packets(source, "audio"), packets(tmp_path / f"b{suffix}", "audio")
    assert [data for _, data in before] == [data for _, data in after] and len(before) > 10
    assert same_times(before, after, suffix)
    starts = [packets(path, "video")[0][0] - packets(path, "audio")[0][0] for path in (source, tmp_path / f"b{suffix}")]
    assert abs(starts[0] - starts[1]) <= Fraction(1, 1000)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_sound_of_a_transport_stream_loses_its_headers_alone(tmp_path: Path, suffix: str) -> None:
    """AAC has 7 bytes before each packet there (ADTS), which other formats keep once."""
    source = video(tmp_path / "a.m2ts")
    copied(source, tmp_path / f"b{suffix}")
    sound = [data for _, data in packets(source, "audio")]
    assert [data for _, data in packets(tmp_path / f"b{suffix}", "audio")] == [data[7:] for data in sound]


def test_sound_that_a_format_cannot_hold(tmp_path: Path) -> None:
    source = video(tmp_path / "a.mp4")
    with VideoReader(source) as reader, pytest.raises(ImageError, match=r"sound, aac, cannot be in a webm .*\.mkv"):
        VideoWriter(reader.film, source, ".webm", None)


WEIGHTS = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}


def levels(rgb: tuple[int, int, int], matrix: int) -> list[float]:
    """Y, Cb and Cr of 8 bits, in the limited range (ITU-R BT.601, BT.709, BT.2020)."""
    red, green, blue = (value / 255 for value in rgb)
    of_red, of_blue = WEIGHTS[matrix]
    luma = of_red * red + (1 - of_red - of_blue) * green + of_blue * blue
    return [16 + 219 * luma, 128 + 112 * (blue - luma) / (1 - of_blue), 128 + 112 * (red - luma) / (1 - of_red)]


def flat(path: Path, planes: list[int], matrix: int) -> Path:
    """A film of one colour, given as Y, Cb and Cr."""
    av = pyav()
    samples = [
        np.full(count, level, np.uint8) for count, level in zip((48 * 64, 24 * 32, 24 * 32), planes, strict=True)
    ]
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=30, options={"crf": "1"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = matrix, matrix, 1, 1
        for _ in range(2):
            frame = av.VideoFrame.from_ndarray(np.concatenate(samples).reshape(72, 64), format="yuv420p")
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


@pytest.mark.parametrize("matrix", WEIGHTS)
@pytest.mark.parametrize("colour", [(200, 40, 90), (10, 220, 30), (255, 255, 255)])
def test_colours_go_by_the_matrix_and_tags_stay(tmp_path: Path, matrix: int, colour: tuple[int, int, int]) -> None:
    source = flat(tmp_path / "a.mp4", [round(level) for level in levels(colour, matrix)], matrix)
    copied(source, tmp_path / "b.mp4")
    for path in (source, tmp_path / "b.mp4"):
        found = frames_of(path)[1].picture.pixels[20, 20]
        assert np.abs(found.astype(int) - colour).max() <= 4
    with pyav().open(str(tmp_path / "b.mp4")) as film:
        context = film.streams.video[0].codec_context
        tags = context.colorspace, context.color_primaries, context.color_trc, context.color_range
        assert tags == (matrix, matrix, 1, 1)


def test_without_tags_the_size_says_the_matrix(tmp_path: Path) -> None:
    source = flat(tmp_path / "a.mp4", [round(level) for level in levels((10, 220, 30), 6)], 2)
    assert np.abs(frames_of(source)[0].picture.pixels[20, 20].astype(int) - (10, 220, 30)).max() <= 3


def turned(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """The film with another display matrix in its track header (ISO 14496-12, 8.3.2): a, b, c, d."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    rows = (matrix[0], matrix[1], 0, matrix[2], matrix[3], 0)
    data[place : place + 24] = b"".join((value << 16).to_bytes(4, "big", signed=True) for value in rows)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("matrix", "turns"), [((0, 1, -1, 0), 3), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)])
def test_a_phone_that_was_held_sideways(tmp_path: Path, matrix: tuple[int, int, int, int], turns: int) -> None:
    upright = frames_of(video(tmp_path / "a.mp4", sound=None))
    source = turned(tmp_path / "a.mp4", matrix)
    copied(source, tmp_path / "b.mp4")
    for path, bound in ((source, 0), (tmp_path / "b.mp4", 8)):
        found = decoded(path) if bound else [(0, frame.picture.pixels) for frame in frames_of(path)]
        expected = [np.rot90(frame.picture.pixels, turns) for frame in upright]
        assert max(np.abs(a.astype(int) - b).mean() for (_, a), b in zip(found, expected, strict=True)) <= bound


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_refused_with_its_reason(tmp_path: Path, transfer: int, name: str) -> None:
    path = video(tmp_path / "a.mp4", sound=None, tags=(9, 9, transfer))
    with pytest.raises(ImageError, match=rf"HDR \({name}.*tone mapping"):
        VideoReader(path)


def deep_frames() -> list[Pixels]:
    ramp = np.linspace(8000, 60000, 64 * 16, dtype=np.uint16).reshape(16, 64)
    return [np.repeat(ramp.repeat(3, 0)[..., None], 3, 2) for _ in range(3)]


def test_ten_bits_stay_where_the_encoder_takes_them(tmp_path: Path) -> None:
    source = video(tmp_path / "a.mp4", deep_frames(), sound=None, pixels="yuv420p10le", tags=(1, 1, 1))
    pixels = frames_of(source)[0].picture.pixels
    assert pixels.dtype == np.uint16 and len(np.unique(pixels)) > 300
    assert copied(source, tmp_path / "b.mp4").notes == ()
    assert len(np.unique(frames_of(tmp_path / "b.mp4")[0].picture.pixels)) > 300
    assert copied(source, tmp_path / "b.webm").notes == ("reduced to 8 bits",)
    assert frames_of(tmp_path / "b.webm")[0].picture.pixels.dtype == np.uint8


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
@pytest.mark.parametrize("size", [(47, 63), (48, 63), (1, 1)])
def test_odd_sizes_stay(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    source = video(tmp_path / "a.mkv", moving(3, *size), sound=None, pixels="yuv444p")
    copied(source, tmp_path / f"b{suffix}")
    assert [frame.shape[:2] for _, frame in decoded(tmp_path / f"b{suffix}")] == [size] * 3


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    av = pyav()
    with av.open(str(tmp_path / "a.mp4"), "w") as out:
        stream = out.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        out.mux(stream.encode(av.VideoFrame.from_ndarray(moving(1)[0], format="rgb24")))
        out.mux(stream.encode())
    copied(tmp_path / "a.mp4", tmp_path / "b.mp4")
    with av.open(str(tmp_path / "b.mp4")) as film:
        assert film.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


def test_quality_goes_with_size(tmp_path: Path) -> None:
    source, sizes = video(tmp_path / "a.mp4", sound=None), []
    for quality in (10, 50, 75, None, 100):
        copied(source, tmp_path / "b.mp4", quality=quality)
        sizes.append((tmp_path / "b.mp4").stat().st_size)
    assert sizes == sorted(sizes) and sizes[2] == sizes[3]


def test_the_index_is_in_front(tmp_path: Path) -> None:
    copied(video(tmp_path / "a.mp4"), tmp_path / "b.mp4")
    data = (tmp_path / "b.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_texts_and_chapters_stay(tmp_path: Path) -> None:
    av = pyav()
    video(tmp_path / "a.mp4")
    with av.open(str(tmp_path / "a.mp4")) as old, av.open(str(tmp_path / "c.mp4"), "w") as new:
        new.metadata["title"] = "Sea"
        chapter = {"id": 0, "start": 0, "end": 200, "time_base": Fraction(1, 1000), "metadata": {"title": "Waves"}}
        new.set_chapters([chapter])
        streams = {stream: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            if packet.size:
                packet.stream = streams[packet.stream]
                new.mux(packet)
    assert copied(tmp_path / "c.mp4", tmp_path / "b.mp4").notes == ()
    with av.open(str(tmp_path / "b.mp4")) as film:
        assert film.metadata["title"] == "Sea" and film.chapters() == [chapter]


def playlist(path: Path) -> None:
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{path.parent}/a.mp4\n#EXT-X-ENDLIST\n")


def cut_short(path: Path) -> None:
    video(path, movflags="faststart")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def no_frames(path: Path) -> None:
    """A film whose stream of pictures is empty."""
    with pyav().open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=30)
        stream.height, stream.width, stream.pix_fmt = 16, 16, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 30)
        out.start_encoding()


BAD = {
    "text": (lambda path: path.write_text("no film" * 99), "no film that can be read"),
    "zeros": (lambda path: path.write_bytes(bytes(4000)), "no film that can be read"),
    "no frames": (no_frames, "there are no frames in it"),
    "empty": (Path.touch, "empty file"),
    "a playlist": (playlist, "no film that can be read"),
    "sound alone": (sound_only, "there are no moving pictures in it"),
    "its end is missing": (cut_short, "damaged film: it ends after"),
    "its index is missing": (
        lambda path: path.write_bytes(video(path).read_bytes()[:2000]),
        "no film that can be read",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_no_whole_film(tmp_path: Path, name: str) -> None:
    video(tmp_path / "a.mp4")
    make, reason = BAD[name]
    path = tmp_path / ("b.avi" if name == "no frames" else "b.mp4")
    make(path)  # type: ignore[operator]
    with pytest.raises(ImageError, match=reason):
        frames_of(path)


def test_a_matroska_that_is_cut_short(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mkv", moving(120, 16, 16))
    assert len(frames_of(path)) == 120
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ImageError, match="damaged film: its end is missing"):
        VideoReader(path)


def test_a_matroska_of_unknown_length_is_read(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mkv", moving(3))
    data = bytearray(path.read_bytes())
    start = data.index(b"\x18\x53\x80\x67") + 4
    data[start : start + 8] = b"\x01" + b"\xff" * 7
    path.write_bytes(data)
    assert len(frames_of(path)) == 3


CUT: dict[str, dict[str, Any]] = {
    ".avi": {"codec": "mpeg4", "sound": "mp3", "base": Fraction(1, 30), "times": range(90)},
    ".ts": {"codec": "libx264"},
    ".m2ts": {"codec": "libx264"},
    ".flv": {"codec": "libx264", "sound": None},
    ".mkv": {"codec": "libx264"},
}


@pytest.mark.parametrize("suffix", CUT)
def test_a_film_that_is_cut_short_says_so(tmp_path: Path, suffix: str) -> None:
    """Where the format lets FFmpeg read on: its frames are read, and a note says that some are missing."""
    path = video(tmp_path / f"a{suffix}", moving(90, 16, 16), **CUT[suffix])
    data = path.read_bytes()
    for share, expected in ((1.0, 90), (0.661, None)):
        left = data[: int(share * len(data))]
        path.write_bytes(left.ljust(len(data), b"\0") if suffix == ".mkv" else left)  # else it would be refused
        with VideoReader(path) as reader:
            count = len(list(reader.frames()))
            notes = "; ".join(reader.film.notes)
        assert (count, notes) == (90, "") if expected else f"its end is missing, after {count} frames" in notes


def test_a_time_before_a_packet_may_begin_like_one(tmp_path: Path) -> None:
    path = video(tmp_path / "a.m2ts")
    path.write_bytes(b"G" + path.read_bytes()[1:])
    with VideoReader(path) as reader:
        list(reader.frames())
        assert reader.film.notes == ()


def test_an_edit_list_may_leave_out_frames(tmp_path: Path) -> None:
    """As a phone trims a film: the file keeps all frames, and a list says which are shown."""
    times = list(range(-30, 10))
    path = video(
        tmp_path / "a.mp4", moving(40), codec="mpeg4", base=Fraction(1, 30), times=times, sound=None,
        avoid_negative_ts="disabled",
    )  # fmt: skip
    with VideoReader(path) as reader:
        assert reader.film.frames == 10
        found = [frame.time * reader.film.time_base for frame in reader.frames()]
    assert found == [Fraction(time, 30) for time in times if time >= 0]


def test_a_cover_is_no_film(tmp_path: Path) -> None:
    av = pyav()
    with av.open(str(tmp_path / "a.mp4"), "w") as out:
        cover = out.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 48, 64, "yuvj420p"
        cover.disposition = 0x400
        out.mux(cover.encode(av.VideoFrame.from_ndarray(moving(1)[0], format="rgb24")))
        out.mux(cover.encode())
    with pytest.raises(ImageError, match="no moving pictures"):
        VideoReader(tmp_path / "a.mp4")


def test_segments_do_not_depend_on_each_other(tmp_path: Path) -> None:
    source = video(tmp_path / "a.mp4")
    with VideoReader(source) as reader:
        writer = VideoWriter(reader.film, source, ".mp4", None)
        frames = list(reader.frames())
    made = []
    for _ in range(2):
        segment = writer.segment()
        for frame in frames[5:10]:
            segment.add(frame)
        made.append(segment.finish())
    assert made[0] == made[1]
    assert isinstance(frames[0].picture, Picture)
