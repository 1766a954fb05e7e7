"""A full disk, without root."""

import resource
import signal
from dataclasses import dataclass


@dataclass(frozen=True)
class FilesUpTo:
    """A disk that takes no file larger than this many bytes: what a full disk does, without root."""

    limit: int

    def __call__(self) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
