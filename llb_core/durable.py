"""Write a file so that a reader, or a host that loses its power, finds the old one or the new."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Put `text` in the place of the file, whole and on the disk; OSError leaves the old one."""
    draft = path.with_name(f"{path.name}.new")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
    # Without this the name may still lead to the old file after the power was lost.
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
