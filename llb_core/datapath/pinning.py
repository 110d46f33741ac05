"""Pin something in the BPF file system; where that can't be done, say why, and what to do."""

from __future__ import annotations

import errno
from pathlib import Path

from llb_core.datapath import bpf_syscall
from llb_core.errors import HostError

_TAKEN = "something else has that name: take it away"
_REMEDIES = {
    errno.EROFS: "let LLB write to the BPF file system",
    errno.EEXIST: _TAKEN,
    errno.ENOTDIR: _TAKEN,
    errno.ENOSPC: "free some memory",
    errno.ENOMEM: "free some memory",
}


def pin(fd: int, path: Path) -> None:
    """Pin a map, a program or a link under a path; HostError where it can't be done."""
    try:
        bpf_syscall.obj_pin(fd, path)
    except OSError as error:
        raise HostError(f"{path}: can't be pinned: {_why(error)}") from None


def make_folder(folder: Path) -> None:
    """Make a folder to pin in, unless it is there; HostError where it can't be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise HostError(f"{folder}: can't be made: {_why(error)}") from None


def _why(error: OSError) -> str:
    return f"{error.strerror}: {_REMEDIES.get(error.errno or 0, 'run as root')}"
