"""Watch what a path leads to, through every folder and symbolic link on the way.

inotify watches inodes, not paths; so each folder in which a step of the path is looked up is
watched for that step's name, and the watches are laid anew when a step changes.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from llb_provider_static.inotify import Inotify, Mask

_MAX_LINKS = 40  # as the kernel
_STEP = (
    Mask.CREATE | Mask.DELETE | Mask.MOVED_FROM | Mask.MOVED_TO | Mask.DELETE_SELF | Mask.MOVE_SELF
)
_FOLDER_IS_ANOTHER = (
    Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.IGNORED | Mask.UNMOUNT | Mask.Q_OVERFLOW
)
_CAN_NOT_BE_WATCHED = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP)


@dataclass(frozen=True, slots=True)
class Step:
    """A name looked up in a folder on a path's way. `is_last` says that no more comes after it,
    but for what it leads to if it is a link."""

    folder: Path
    name: str
    is_last: bool


def steps(path: Path) -> list[Step]:
    """Return the steps on the way to what `path` leads to, as far as they are there."""
    found: list[Step] = []
    here = Path("/")
    ahead = list(Path(os.path.abspath(path)).parts[1:])  # noqa: PTH100 - must not follow links
    links = 0
    while ahead:
        name = ahead.pop(0)
        if name == "..":
            here = here.parent
            continue
        found.append(Step(here, name, is_last=not ahead))
        try:
            target = (here / name).readlink()
        except OSError:
            here = here / name
            if ahead and not here.is_dir():
                break
            continue
        links += 1
        if links > _MAX_LINKS:
            break
        parts = target.parts
        if target.is_absolute():
            here, parts = Path("/"), parts[1:]
        ahead = [*parts, *ahead]
    return found


class FileWatch:
    """Wait for a file to be closed after writing, replaced, or gone. For one thread; `wake` and
    `close` may come from another."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._wakes = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._is_closed = False
        self._closing = threading.Lock()
        self._waiting = threading.Lock()
        self._lay_watches()

    def wait(self, timeout: float) -> bool:
        """Return True once the file may be another, False after `timeout` seconds or a `wake`."""
        with self._waiting:
            if self._is_closed:
                return False
            if self._inotify.is_closed:  # the last try to lay the watches failed
                self._lay_watches()
                return True
            end = time.monotonic() + timeout
            poll = select.poll()
            poll.register(self._wakes, select.POLLIN)
            poll.register(self._inotify, select.POLLIN)
            while (left := end - time.monotonic()) > 0:
                ready = {fd for fd, _ in poll.poll(left * 1000)}
                if self._wakes in ready:
                    os.eventfd_read(self._wakes)
                    return False
                if ready and self._read_events():
                    return True
            return False

    def wake(self) -> None:
        """End a wait that is under way, or the next one."""
        with self._closing:
            if not self._is_closed:
                os.eventfd_write(self._wakes, 1)

    def close(self) -> None:
        """End a wait and give the file descriptors back."""
        self.wake()
        with self._waiting, self._closing:
            if not self._is_closed:
                self._is_closed = True
                self._inotify.close()
                os.close(self._wakes)

    def _read_events(self) -> bool:
        """Take what has happened; say whether the file may be another."""
        is_changed = is_moved = False
        for event in self._inotify.read():
            if event.mask & _FOLDER_IS_ANOTHER:
                is_moved = True
                continue
            step = self._names.get((event.watch, event.name))
            if step is None:
                continue
            if event.mask & Mask.CLOSE_WRITE:
                is_changed |= step.is_last
            elif not (event.mask & Mask.CREATE and _is_only_begun(step)):
                is_moved = True
        if is_moved:
            self._inotify.close()
            self._lay_watches()
        return is_changed or is_moved

    def _lay_watches(self) -> None:
        """Watch every step; again, if the path leads elsewhere by the time that is done."""
        for _ in range(10):
            self._inotify = Inotify()
            laid = steps(self._path)
            self._names: dict[tuple[int, str], Step] = {}
            try:
                for step in laid:
                    self._watch(step)
            except OSError:
                self._inotify.close()
                raise
            if steps(self._path) == laid:
                return
            self._inotify.close()
        raise OSError(errno.ELOOP, "changes faster than it can be watched", str(self._path))

    def _watch(self, step: Step) -> None:
        mask = _STEP | Mask.ONLYDIR | Mask.EXCL_UNLINK | Mask.MASK_ADD
        if step.is_last:
            mask |= Mask.CLOSE_WRITE
        try:
            watch = self._inotify.add_watch(step.folder, mask)
        except OSError as error:
            if error.errno not in _CAN_NOT_BE_WATCHED:
                raise
            return
        self._names[watch, step.name] = step


def _is_only_begun(step: Step) -> bool:
    """Whether a file has just been made that somebody is about to write: its closing follows."""
    if not step.is_last:
        return False
    try:
        status = (step.folder / step.name).lstat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1
