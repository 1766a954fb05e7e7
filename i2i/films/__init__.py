"""Films: pictures in time, which are read, changed and written frame by frame.

Suffixes decide which files of a folder are films, and how a film is written. Video files are PyAV's (`video`), GIF and
animated WebP Pillow's (`animation`). Nothing here imports PyAV before a film is opened.
"""

from i2i.films.film import (
    ANIMATED,
    NEEDS_PYAV,
    READ,
    VIDEO,
    WRITTEN,
    WRITTEN_VIDEO,
    Film,
    Frame,
    Reader,
    Segment,
    Writer,
    has_pyav,
    is_animated,
    is_video,
    needs_video,
    written_suffix,
)

__all__ = [
    "ANIMATED",
    "NEEDS_PYAV",
    "READ",
    "VIDEO",
    "WRITTEN",
    "WRITTEN_VIDEO",
    "Film",
    "Frame",
    "Reader",
    "Segment",
    "Writer",
    "has_pyav",
    "is_animated",
    "is_video",
    "needs_video",
    "written_suffix",
]
