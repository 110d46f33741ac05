"""Watch what a path leads to, through every folder and symbolic link on the way.

inotify watches inodes, not paths; so each folder in which a step of the path is looked up is
watched for that step's name, and the watches are laid anew when a step changes.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import stat
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from llb_provider_static.inotify import Event, Mask
from llb_provider_static.watcher import Key, Watcher

log = logging.getLogger(__name__)

Signature = tuple[int, int, int, int, int]

POLL = 1.0
"""Seconds after which a file that can't be watched is looked at again."""

_MAX_LINKS = 40  # as the kernel
_STEP = (
    Mask.CREATE | Mask.DELETE | Mask.MOVED_FROM | Mask.MOVED_TO | Mask.DELETE_SELF | Mask.MOVE_SELF
)
_FOLDER_IS_ANOTHER = (
    Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.IGNORED | Mask.UNMOUNT | Mask.Q_OVERFLOW
)
_USED_UP = (errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.ENOMEM)
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
    """Wait for a file to be closed after writing, replaced, or gone. For one thread; `close` may
    come from another.

    Where inotify is used up, the file is looked at every `POLL` seconds instead.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._heard: deque[Event] = deque()
        self._bell = threading.Event()
        self._closed = threading.Event()
        self._waiting = threading.Lock()
        self._watcher: Watcher | None = None
        self._names: dict[Key, Step] = {}
        self._end: Step | None = None
        """The last step of all: what it leads to is no link."""
        self._seen: Signature | None = None
        self.is_polling = False
        """Whether the file is looked at every so often, since it can't be watched."""
        self._lay_watches()

    def wait(self, timeout: float) -> bool:
        """Return True once the file may be another, False after `timeout` seconds or `close`."""
        with self._waiting:
            if self._closed.is_set():
                return False
            if self._watcher is None:  # There is none to be had, or the last try failed.
                return self._poll(timeout)
            end = time.monotonic() + timeout
            while self._bell.wait(max(0.0, end - time.monotonic())):
                self._bell.clear()
                if self._closed.is_set():
                    return False
                if self._take_events():
                    return True
            return False

    def hear(self, event: Event) -> None:
        """Take an event from the watcher's thread."""
        self._heard.append(event)
        self._bell.set()

    def close(self) -> None:
        """End a wait and give back what it takes."""
        self._closed.set()
        self._bell.set()
        with self._waiting:
            self._let_go()

    def _take_events(self) -> bool:
        """Take what has happened; say whether the file may be another."""
        is_changed = is_moved = False
        while self._heard:
            event = self._heard.popleft()
            if event.mask & _FOLDER_IS_ANOTHER:
                is_moved = True
                continue
            step = self._names.get((event.watch, event.name))
            if step is None:
                continue
            if event.mask & Mask.CLOSE_WRITE:
                is_changed |= step.is_last
            elif event.mask & Mask.MOVED_TO and step == self._end and _is_file(step):
                is_changed = True  # A file in place of a file: the way to it is what it was.
            elif not (event.mask & Mask.CREATE and _is_only_begun(step)):
                is_moved = True
        if is_moved:
            self._lay_watches()
        return is_changed or is_moved

    def _lay_watches(self) -> None:
        """Watch every step; again, if the path leads elsewhere by the time that is done."""
        self._let_go()
        try:
            self._watcher = Watcher.share()
            laid = self._listen(self._watcher)
            for _ in range(10):
                before, laid = laid, self._listen(self._watcher)
                if laid == before:
                    self._end = laid[-1][1] if laid else None
                    self.is_polling = False
                    return
            raise OSError(errno.ELOOP, "changes faster than it can be watched", str(self._path))
        except OSError as error:
            self._let_go()
            if error.errno not in _USED_UP:
                raise
            _tell_used_up(error.strerror or str(error))
            if not self.is_polling:
                self.is_polling, self._seen = True, signature(self._path)

    def _listen(self, watcher: Watcher) -> list[tuple[Key, Step]]:
        """Listen to every step; return them with their watches, which are others where the path
        leads elsewhere."""
        laid = []
        for step in steps(self._path):
            mask = _STEP | Mask.ONLYDIR | Mask.EXCL_UNLINK | Mask.MASK_ADD
            if step.is_last:
                mask |= Mask.CLOSE_WRITE
            try:
                key = watcher.listen(self, step.folder, step.name, mask), step.name
            except OSError as error:
                if error.errno not in _CAN_NOT_BE_WATCHED:
                    raise
                continue
            self._names[key] = step
            laid.append((key, step))
        return laid

    def _let_go(self) -> None:
        if self._watcher is not None:
            self._watcher.forget(self, self._names)
            self._watcher.release()
        self._watcher = None
        self._names, self._end = {}, None
        self._heard.clear()

    def _poll(self, timeout: float) -> bool:
        """Wait as `wait` does, by looking at the file; begin by trying to watch it again."""
        self._lay_watches()
        if not self.is_polling:
            return True
        end = time.monotonic() + timeout
        while (left := end - time.monotonic()) > 0:
            if self._bell.wait(min(POLL, left)):  # Nobody rings it but `close`.
                return False
            seen = signature(self._path)
            if seen != self._seen:
                self._seen = seen
                return True
        return False


def signature(file: Path | int) -> Signature | None:
    """Return what changes when a file does; None where there is none."""
    try:
        status = os.stat(file)  # noqa: PTH116 - a path or a file descriptor
    except OSError:
        return None
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


@functools.cache
def _tell_used_up(text: str) -> None:
    """Say it once, whatever the number of files."""
    log.warning("provider static: %s; files are looked at every %g s till then", text, POLL)


def _is_only_begun(step: Step) -> bool:
    """Whether a file has just been made that somebody is about to write: its closing follows."""
    return step.is_last and _is_file(step, names=1)


def _is_file(step: Step, names: int = 0) -> bool:
    """Whether a step leads to a file, not by a link; with so many names, if that is said."""
    try:
        status = (step.folder / step.name).lstat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and (not names or status.st_nlink == names)
