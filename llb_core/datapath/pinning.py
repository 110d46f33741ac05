"""Pin something in the BPF file system, or take a pin away; where that can't be done, say why, and
what to do."""

from __future__ import annotations

import errno
import os
import shutil
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


def pinned(folder: Path, pattern: str) -> list[Path]:
    """Return what matches a pattern below a folder, in order, though somebody takes another folder
    away meanwhile: another balancer that ends, or this one's own start in another process."""
    while True:
        try:
            return sorted(folder.glob(pattern))
        except FileNotFoundError:
            continue


def make_folder(folder: Path) -> None:
    """Make a folder to pin in, unless it is there; HostError where it can't be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise HostError(f"{folder}: can't be made: {_why(error)}") from None


def unpin(path: Path) -> None:
    """Take away a pin, or a folder and every pin in it; HostError where it can't be done."""
    try:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise HostError(f"{path}: can't be removed: {_why(error)}") from None


def refuse_read_only(folder: Path) -> None:
    """Raise HostError where nothing in a folder can be pinned or taken away; it need not exist."""
    try:
        is_read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
    except FileNotFoundError:
        return
    except OSError as error:
        raise HostError(f"{folder}: can't be changed: {_why(error)}") from None
    if is_read_only:
        refusal = OSError(errno.EROFS, os.strerror(errno.EROFS))
        raise HostError(f"{folder}: can't be changed: {_why(refusal)}")


def _why(error: OSError) -> str:
    return f"{error.strerror}: {_REMEDIES.get(error.errno or 0, 'run as root')}"
