"""Video files by PyAV: frames in and out, and all other streams copied packet by packet.

This is the only file that knows PyAV, an option: `pip install 'i2i[video]'`. Its wheels hold FFmpeg with x264 and x265,
which are under the GPL.

A film is encoded by segments, each by an encoder of its own that starts with a key frame. So the bytes of a segment
depend on its frames alone, and a film that was interrupted is the same in the end.
"""

import contextlib
import heapq
import io
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from i2i.errors import ImageError
from i2i.films import Clock, Film, Frame, Reader
from i2i.images import Limits, Picture, Pixels, with_channels, with_depth

if TYPE_CHECKING:
    import av
    from av.container import InputContainer, OutputContainer

_READ = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,asf,flv,ogg"
"""The formats of FFmpeg that are read: none that leads to other files, as playlists do."""
_UNSPECIFIED = 2
_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
"""Matrices of H.273 that are read, and the number that swscale has for each."""
_RGB = 0
_HDR = {16: "PQ (SMPTE ST 2084)", 18: "HLG"}
_EXACT = 0x4 | 0x2000 | 0x40000
"""Flags of swscale: bicubic, chroma at full resolution, exact rounding."""
_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
_THREADS = 2
"""Always as many, since an encoder's bytes depend on their number."""
_QUALITY = 75
"""At 18 of H.264's scale the loss is hard to see."""
_LIMITED = 1
_ZERO = 1 << 32
"""Time 0 in a segment: FFmpeg would move all times if one were negative."""
_LINES_OF_SD, _COLUMNS_OF_HD = 576, 1280
_COVER = 0x400
_MICROSECONDS = 1_000_000
_SLACK = Fraction(1, 5)
"""The seconds by which headers are wrong about whole films."""
_HEADER, _SEGMENT = 256, b"\x18\x53\x80\x67"
"""The bytes in which the segment of a Matroska file begins, and the mark of it."""
_OF_THE_FILE = ("encoder", "major_brand", "minor_version", "compatible_brands", "duration")


def _av() -> Any:
    """PyAV, which is there: `plan` has asked."""
    return import_module("av")


@contextmanager
def _reasons(text: str = "damaged film") -> Iterator[None]:
    """Turns the errors of FFmpeg into `ImageError`; those of the system stay, as the disk may be full."""
    try:
        yield
    except _av().FFmpegError as error:
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror) from None
        raise ImageError(f"{text}: {error.strerror}") from None


def _open(path: Path) -> Any:
    # by a file of ours: a name could be an address, and a playlist could name other files
    file = path.open("rb")
    try:
        if not path.stat().st_size:
            raise ImageError("empty file")
        return _av().open(file, options={"format_whitelist": _READ, "protocol_whitelist": "none"})
    except BaseException:
        file.close()
        raise


class VideoReader(Reader):
    """A video file, open. Raises `ImageError` for a file that is none, has no frames or is HDR."""

    def __init__(self, path: Path) -> None:
        with _reasons("no film that can be read"):
            self._file = _open(path)
        try:
            self._stream = _video(self._file)
            context = self._stream.codec_context
            if context is None:
                raise ImageError("no film that can be read: nothing here decodes its pictures")
            Limits().check_size(context.width, context.height)
            self._stream.thread_type = "AUTO"
            is_mp4 = "mp4" in self._file.format.name
            if "matroska" in self._file.format.name and path.stat().st_size < _matroska_bytes(path):
                raise ImageError("damaged film: its end is missing")
            self._is_cut = self._file.format.name == "mpegts" and _is_cut_transport(path)
            # an edit list may leave out frames of the file, so their number is none of the film's
            self._length = (self._stream.duration or 0) if is_mp4 else 0
            self._losses: list[str] = []
            decoded = self._decode()
            first = next(decoded, None)
            if first is None:
                raise ImageError("no film: there are no frames in it")
            self._first: Any = first
            self._decoded = itertools.chain([first], decoded)
            self._size = self._first.height, self._first.width
            self.film = self._described()
        except BaseException:
            self._file.close()
            raise

    def frames(self) -> Iterator[Frame]:
        """The frames, once."""
        clock = Clock(max(1, round(1 / (self.film.rate * self.film.time_base))))
        for number, frame in enumerate(self._decoded):
            if (frame.height, frame.width) != self._size:
                raise ImageError(f"frame {number} has another size than those before")
            time = clock.next(frame.pts)
            yield Frame(Picture(self._upright(frame)), time, frame.duration or clock.step)
        self.film = replace(self.film, notes=(*self.film.notes, *self._losses))

    def _described(self) -> Film:
        stream, context, first = self._stream, self._stream.codec_context, self._first
        if (transfer := int(context.color_trc)) in _HDR:
            raise ImageError(
                f"HDR ({_HDR[transfer]}) is not read: styles are trained on pictures of SDR; convert it (tone mapping)"
            )
        self._turns = round((first.rotation or 0) / 90) % 4
        sideways = self._turns % 2
        height, width = reversed(self._size) if sideways else self._size
        rate, aspect = stream.average_rate or stream.guessed_rate or Fraction(25), stream.sample_aspect_ratio or 1
        whole = Fraction(self._file.duration or 0, _MICROSECONDS)
        parts = first.format.components
        notes = ["transparency left out"] if any(part.is_alpha for part in parts) else []
        if first.interlaced_frame:
            notes.append("interlaced: its two fields are translated as one picture")
        return Film(
            height,
            width,
            time_base=stream.time_base,
            rate=rate,
            frames=round((self._length * stream.time_base or whole) * rate),
            deep=max(part.bits for part in parts) > 8,
            matrix=_matrix(first),
            primaries=int(context.color_primaries),
            transfer=transfer,
            aspect=1 / Fraction(aspect) if sideways else Fraction(aspect),
            notes=tuple(notes),
        )

    def _decode(self) -> Iterator[Any]:
        """The frames as FFmpeg has them. Raises `ImageError` where the file is damaged or ends early.

        Where only an index or a header speaks of more, a note says it.
        """
        decoded = damaged = end = step = 0
        seconds = Fraction(0)  # to the end of all streams
        with _reasons("damaged film"):
            for packet in self._file.demux():
                if packet.pts is not None and packet.time_base:
                    seconds = max(seconds, (packet.pts + (packet.duration or 0)) * packet.time_base)
                if packet.stream is not self._stream:
                    continue
                if packet.pts is not None:
                    step = packet.duration or 0
                    end = max(end, packet.pts + step)
                for frame in packet.decode():
                    decoded += 1
                    damaged += frame.is_corrupt
                    yield frame
        if self._length and end + step / 2 < (self._stream.start_time or 0) + self._length:
            raise ImageError(f"damaged film: it ends after {decoded} frames")
        if damaged:
            self._losses.append(f"damaged: {damaged} of its frames")
        if self._is_cut or seconds + _SLACK < self._promised():
            self._losses.append(f"damaged: its end is missing, after {decoded} frames")

    def _promised(self) -> Fraction:
        """The seconds that the header promises, for formats whose header does; else 0."""
        format = self._file.format.name
        if format == "avi" and self._stream.average_rate:
            return self._stream.frames / self._stream.average_rate
        promises = format in ("flv", "matroska,webm")
        return Fraction(self._file.duration or 0, _MICROSECONDS) if promises else Fraction(0)

    def _upright(self, frame: "av.VideoFrame") -> Pixels:
        format = "rgb48le" if self.film.deep else "rgb24"
        source = None if frame.format.is_rgb else _MATRICES[self.film.matrix]
        pixels = frame.reformat(format=format, src_colorspace=source, interpolation=_EXACT, threads=1).to_ndarray()
        return np.ascontiguousarray(np.rot90(pixels, self._turns))


def _matroska_bytes(path: Path) -> int:
    """The length of the file by the header of its one segment (RFC 9559); 0 if that leaves it open."""
    with path.open("rb") as file:
        head = file.read(_HEADER)
    at = head.find(_SEGMENT) + len(_SEGMENT)
    width = 9 - head[at].bit_length() if len(_SEGMENT) <= at < len(head) - 8 else 0
    size, unknown = int.from_bytes(head[at : at + width]), (1 << 7 * width) - 1
    return 0 if size & unknown == unknown else at + width + (size & unknown)


def _is_cut_transport(path: Path) -> bool:
    """Whether an MPEG transport stream (ISO/IEC 13818-1) ends within one of its packets."""
    with path.open("rb") as file:
        head = file.read(1 << 10)
    # one has 188 bytes and begins with "G"; a disk has a time before it, a broadcast may have check bytes behind it
    kinds = ((0, 188), (4, 192), (0, 204))
    packet = next((length for at, length in kinds if set(head[at::length]) == {ord("G")}), 1)
    return path.stat().st_size % packet > 0


def _video(container: "InputContainer") -> Any:
    """The first stream of moving pictures; not a cover of music."""
    streams = [stream for stream in container.streams.video if not int(stream.disposition) & _COVER]
    if not streams:
        raise ImageError("no film: there are no moving pictures in it")
    return streams[0]


def _matrix(frame: "av.VideoFrame") -> int:
    """The matrix of the colours; where the film does not say it, the usual one for its size."""
    matrix = int(frame.colorspace)
    if frame.format.is_rgb or matrix == _RGB:
        return 1
    if matrix == _UNSPECIFIED:
        return 1 if frame.height > _LINES_OF_SD or frame.width >= _COLUMNS_OF_HD else 6
    if matrix not in _MATRICES:
        raise ImageError(f"its colours (matrix {matrix} of ITU-T H.273) are not read; convert it first")
    return matrix


class VideoWriter:
    """A video file with the sound of `source`, if that is one. Raises `ImageError` for sound that it cannot hold."""

    def __init__(self, film: Film, source: Path | None, suffix: str, quality: int | None) -> None:
        self._film, self._source, self._format = film, source, _FORMATS[suffix.lower()]
        self._codec = "libvpx-vp9" if self._format == "webm" else "libx264"
        self._quality = _QUALITY if quality is None else quality
        self._kept, left_out = ([], []) if source is None else self._streams(source)
        shallow = film.deep and self._codec == "libvpx-vp9"
        self.notes = (*left_out, *(["reduced to 8 bits"] if shallow else []))
        self._deep = film.deep and not shallow

    def check(self, frames: int) -> None:
        """Any number of frames fits."""

    def segment(self) -> "_Segment":
        return _Segment(self._film, self._codec, self._deep, self._options())

    def _options(self) -> dict[str, str]:
        loss = 100 - self._quality
        if self._codec == "libx264":
            # else its bytes may differ from run to run, by approximate reciprocals
            steady = {"x264-params": "cpu-independent=1"}
            return {"crf": str(round(8 + 0.4 * loss)), "preset": "medium", **steady}
        return {"crf": str(round(10 + 0.5 * loss)), "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "0"}

    def _streams(self, source: Path) -> tuple[list[int], list[str]]:
        """The numbers of the streams beside the film that the format takes, and a note on each other."""
        kept, left_out = [], []
        with _reasons(), _open(source) as container:
            film = _video(container)
            for stream in container.streams:
                # a track of chapters is written anew
                if stream is film or (stream.type == "data" and container.chapters()):
                    continue
                name = f"{stream.type} ({stream.codec_context.name})" if stream.codec_context else stream.type
                try:
                    with _av().open(io.BytesIO(), "w", format=self._format) as trial:
                        trial.add_stream_from_template(stream)
                        trial.start_encoding()
                    kept.append(stream.index)
                except (_av().FFmpegError, ValueError, AttributeError):
                    if stream.type == "audio":
                        raise ImageError(
                            f"its sound, {stream.codec_context.name}, cannot be in a {self._format} file as it is; "
                            "name a result that ends in .mkv"
                        ) from None
                    left_out.append(f"left out: {name}")
        return kept, left_out

    def join(self, segments: Sequence[Path], path: Path, last: int) -> None:
        """Writes the film whose segments these are, with the other streams of the source. Raises `OSError`."""
        options = {"fflags": "+bitexact", **({"movflags": "faststart"} if self._format in ("mp4", "mov") else {})}
        with _reasons(f"cannot be written as {self._format}"), contextlib.ExitStack() as opened:
            out = opened.enter_context(_av().open(str(path.absolute()), "w", format=self._format, options=options))
            first = opened.enter_context(_av().open(str(segments[0].absolute())))
            stream = out.add_stream_from_template(first.streams.video[0])
            stream.time_base = self._film.time_base
            sources = [self._packets(segments, stream, last)]
            if self._source is not None:
                container = opened.enter_context(_open(self._source))
                sources.append(_copied(container, self._streams_in(out, container)))
            for packet in heapq.merge(*sources, key=lambda packet: packet.dts * packet.time_base):
                out.mux(packet)

    def _packets(self, segments: Sequence[Path], stream: "av.VideoStream", last: int) -> Iterator[Any]:
        """The encoded frames of all segments, with the times at which they are to be decoded."""
        shown = [packet.pts for packet in self._read(segments)]
        times = sorted(shown)
        place = {time: number for number, time in enumerate(times)}
        # an encoder reorders frames: each is decoded so many before it is shown that none comes too late
        delay = max(number - place[time] for number, time in enumerate(shown))
        step = times[1] - times[0] if len(times) > 1 else 1
        decoded = [times[0] - step * early for early in range(delay, 0, -1)] + times
        ends = [*times[1:], times[-1] + last]
        for packet, time in zip(self._read(segments), decoded, strict=False):
            packet.dts, packet.duration = time, ends[place[packet.pts]] - packet.pts
            packet.stream = stream
            yield packet

    def _read(self, segments: Sequence[Path]) -> Iterator[Any]:
        base = self._film.time_base
        for path in segments:
            with _av().open(str(path.absolute()), format="nut") as container:
                for packet in container.demux(container.streams.video[0]):
                    if packet.size:
                        packet.pts, packet.time_base = round(packet.pts * packet.time_base / base) - _ZERO, base
                        yield packet

    def _streams_in(self, out: "OutputContainer", container: "InputContainer") -> dict[Any, Any]:
        """The other streams in the film that is written, by those of its source, with all texts and chapters."""
        streams: dict[Any, Any] = {}
        for stream in (container.streams[number] for number in self._kept):
            streams[stream] = new = out.add_stream_from_template(stream)
            new.metadata.update(stream.metadata)
            new.disposition = stream.disposition
        out.metadata.update({name: text for name, text in container.metadata.items() if name not in _OF_THE_FILE})
        if chapters := container.chapters():
            out.set_chapters(chapters)
        return streams


def _copied(container: "InputContainer", streams: dict[Any, Any]) -> Iterator[Any]:
    """The packets of these streams, bit for bit."""
    for packet in container.demux(*streams) if streams else ():
        if packet.size and packet.dts is not None:
            packet.stream = streams[packet.stream]
            yield packet


class _Segment:
    """Frames through an encoder of their own."""

    def __init__(self, film: Film, codec: str, deep: bool, options: dict[str, str]) -> None:
        self._film, self._deep, self._file = film, deep, io.BytesIO()
        with _reasons("not encoded"):
            self._container = _av().open(self._file, "w", format="nut", options={"fflags": "+bitexact"})
            self._stream = stream = self._container.add_stream(codec, rate=film.rate, options=options)
            stream.width, stream.height = film.width, film.height
            odd = codec == "libx264" and (film.width % 2 or film.height % 2)
            stream.pix_fmt = ("yuv444p" if odd else "yuv420p") + ("10le" if deep else "")
            context = stream.codec_context
            context.time_base = stream.time_base = film.time_base
            context.thread_count = _THREADS
            context.colorspace, context.color_range = film.matrix, _LIMITED
            context.color_primaries, context.color_trc = film.primaries, film.transfer
            context.sample_aspect_ratio = film.aspect
            context.flags |= int(_av().codec.context.Flags.global_header)

    def add(self, frame: Frame) -> None:
        pixels = with_depth(with_channels(frame.picture.pixels, 3), np.uint16 if self._deep else np.uint8)
        with _reasons("not encoded"):
            encoded = _av().VideoFrame.from_ndarray(pixels, format="rgb48le" if self._deep else "rgb24")
            encoded = encoded.reformat(
                format=self._stream.pix_fmt,
                dst_colorspace=_MATRICES[self._film.matrix],
                dst_color_range=_LIMITED,
                interpolation=_EXACT,
                threads=1,
            )
            encoded.pts, encoded.time_base = frame.time + _ZERO, self._film.time_base
            self._container.mux(self._stream.encode(encoded))

    def finish(self) -> bytes:
        with _reasons("not encoded"):
            self._container.mux(self._stream.encode())
            self._container.close()
        return self._file.getvalue()
