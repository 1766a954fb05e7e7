"""libvips, which is optional (`pip install 'i2i[large]'`), and what it raises."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from i2i.errors import ImageError


def vips() -> Any:
    """pyvips, which reads only with what libvips holds to be safe with untrusted files."""
    try:
        import pyvips
    except (ImportError, OSError):
        raise ImageError("a picture of this size needs pyvips: pip install 'i2i[large]'") from None
    pyvips.block_untrusted_set(True)
    pyvips.cache_set_max(0)  # which would give what a file held before, or another file of that descriptor
    pyvips.operation_block_set("VipsForeignLoadRaw", False)  # our own pixels, when they are written
    return pyvips


@contextmanager
def reasons() -> Iterator[None]:
    """Turns what libvips raises into an `ImageError`."""
    try:
        yield
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from None
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "pyvips":
            raise
        raise ImageError(f"damaged: {plain(error)}") from None


def plain(error: Exception) -> str:
    """The last line of what libvips says."""
    text = str(error).strip().splitlines()
    return text[-1].strip() if text else type(error).__name__
