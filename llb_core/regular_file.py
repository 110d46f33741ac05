"""Open a file that somebody names, and be held up by none: a pipe would wait for its writer."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_regular(path: Path) -> BinaryIO:
    """Open a file to read its bytes; raise OSError where it can't be, and at once where it is a
    pipe, a socket or a device. Symbolic links are followed."""
    file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 - the caller's to close
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "is not a regular file: name one that can be read to its end")
    return file


def _open_at_once(path: str, flags: int) -> int:
    """Open a file; a pipe too, without waiting until somebody writes to it."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
