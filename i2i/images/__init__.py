"""Pictures in and out: the only room that knows files, uint8, uint16 and [-1, 1]."""

from i2i.images.decoding import decode, probe, read
from i2i.images.encoding import encode, not_kept_by, write
from i2i.images.formats import LOSSY, SUFFIXES, UNREAD, WRITTEN, Format, written_suffix
from i2i.images.picture import (
    Limits,
    Picture,
    Pixels,
    from_planes,
    resize_planes,
    scaled_as_seen,
    to_pixels,
    to_planes,
    to_tensor,
    with_channels,
    with_depth,
)

__all__ = [
    "LOSSY",
    "SUFFIXES",
    "UNREAD",
    "WRITTEN",
    "Format",
    "Limits",
    "Picture",
    "Pixels",
    "decode",
    "encode",
    "from_planes",
    "not_kept_by",
    "probe",
    "read",
    "resize_planes",
    "scaled_as_seen",
    "to_pixels",
    "to_planes",
    "to_tensor",
    "with_channels",
    "with_depth",
    "write",
    "written_suffix",
]
