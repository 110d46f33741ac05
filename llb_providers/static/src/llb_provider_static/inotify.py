"""inotify(7) by ctypes: what little of it is needed to watch folders."""

from __future__ import annotations

import ctypes
import enum
import errno
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_EVENT = struct.Struct("iIII")
_ROOM = 64 * 1024


class Mask(enum.IntFlag):
    """What is watched, or has happened."""

    CLOSE_WRITE = 0x8
    MOVED_FROM = 0x40
    MOVED_TO = 0x80
    CREATE = 0x100
    DELETE = 0x200
    DELETE_SELF = 0x400
    MOVE_SELF = 0x800
    UNMOUNT = 0x2000
    Q_OVERFLOW = 0x4000
    IGNORED = 0x8000
    ONLYDIR = 0x0100_0000
    EXCL_UNLINK = 0x0400_0000
    MASK_ADD = 0x2000_0000


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened: to `name` in the folder watched as `watch`, or, without a name, to the
    folder itself."""

    watch: int
    mask: Mask
    name: str


class Inotify:
    """An inotify instance. Its file descriptor becomes readable when something has happened."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._called(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify")

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._fd

    def add_watch(self, folder: Path, mask: Mask) -> int:
        """Watch a folder; return what its events are marked with. Raises OSError."""
        path = ctypes.c_char_p(os.fsencode(folder))
        wanted = ctypes.c_uint32(mask)
        return self._called(self._libc.inotify_add_watch(self._fd, path, wanted), str(folder))

    def remove_watch(self, watch: int) -> None:
        """Watch no longer; nothing happens where the kernel has let go of it already."""
        self._libc.inotify_rm_watch(self._fd, watch)

    def read(self) -> Iterator[Event]:
        """Yield what has happened until now."""
        while True:
            try:
                room = os.read(self._fd, _ROOM)
            except BlockingIOError:
                return
            offset = 0
            while offset < len(room):
                watch, mask, _, length = _EVENT.unpack_from(room, offset)
                offset += _EVENT.size
                name = room[offset : offset + length].rstrip(b"\0")
                offset += length
                yield Event(watch, Mask(mask), os.fsdecode(name))

    def close(self) -> None:
        """Give the file descriptor back."""
        os.close(self._fd)

    @staticmethod
    def _called(result: int, what: str) -> int:
        if result >= 0:
            return result
        number = ctypes.get_errno()
        if number in (errno.ENOSPC, errno.EMFILE, errno.ENFILE):
            remedy = (
                "inotify is used up: raise fs.inotify.max_user_watches and max_user_instances, or "
                "the limit of open files"
            )
            raise OSError(number, remedy, what)
        raise OSError(number, os.strerror(number), what)
