"""One inotify instance for all that a process watches, and one thread that reads it.

The kernel gives a user some hundred instances (fs.inotify.max_user_instances, 128 by default), and
a daemon may have a thousand files to follow.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Protocol, TypeVar

from llb_provider_static.inotify import Event, Inotify, Mask

K = TypeVar("K")
Key = tuple[int, str]
"""A watch, and a name in the folder that it watches."""


class Listener(Protocol):
    """Who wants to hear what happens."""

    def hear(self, event: Event) -> None:
        """Take an event, in the watcher's thread: soon, and without asking the file system."""


class Watcher:
    """Made by the first that asks for it (`share`), and gone with the last (`release`)."""

    _sharing: ClassVar[threading.Lock] = threading.Lock()
    _shared: ClassVar[Watcher | None] = None

    def __init__(self) -> None:
        self._inotify = Inotify()
        try:
            self._stop = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        except OSError:
            self._inotify.close()
            raise
        self._lock = threading.Lock()
        self._of_folder: dict[int, set[Listener]] = {}
        self._of_name: dict[Key, set[Listener]] = {}
        self._users = 0
        threading.Thread(target=self._run, name="static-watcher", daemon=True).start()

    @classmethod
    def share(cls) -> Watcher:
        """Return the watcher of this process, to be given back by `release`; raise OSError where
        there can be none."""
        with cls._sharing:
            if cls._shared is None:
                cls._shared = cls()
            cls._shared._users += 1
            return cls._shared

    def release(self) -> None:
        """Give it back; whoever listened has called `forget`."""
        with self._sharing:
            self._users -= 1
            if self._users == 0:
                Watcher._shared = None
                os.eventfd_write(self._stop, 1)

    def listen(self, listener: Listener, folder: Path, name: str, mask: Mask) -> int:
        """Have a listener hear what happens to a name in a folder, and to the folder; return the
        watch. Raises OSError.

        What happens meanwhile may be missed, and the watch be gone by the time that it is returned,
        where another listener gave it back: one that is the same twice is there.
        """
        watch = self._inotify.add_watch(folder, mask)  # Not locked: a file system may hang.
        with self._lock:
            self._of_folder.setdefault(watch, set()).add(listener)
            self._of_name.setdefault((watch, name), set()).add(listener)
        return watch

    def forget(self, listener: Listener, keys: Iterable[Key]) -> None:
        """Have a listener hear no more of all that it listened to."""
        keys = tuple(keys)
        with self._lock:
            for key in keys:
                _take_out(self._of_name, key, listener)
            for watch in {watch for watch, _ in keys}:
                if _take_out(self._of_folder, watch, listener):
                    self._inotify.remove_watch(watch)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._stop, select.POLLIN)
        poll.register(self._inotify, select.POLLIN)
        while self._stop not in {fd for fd, _ in poll.poll()}:
            for event in self._inotify.read():
                self._deliver(event)
        self._inotify.close()
        os.close(self._stop)

    def _deliver(self, event: Event) -> None:
        with self._lock:
            if event.mask & Mask.Q_OVERFLOW:
                listeners = set().union(*self._of_folder.values())
            elif event.name:
                listeners = set(self._of_name.get((event.watch, event.name), ()))
            else:
                listeners = set(self._of_folder.get(event.watch, ()))
            if event.mask & Mask.IGNORED:
                self._of_folder.pop(event.watch, None)
        for listener in listeners:
            listener.hear(event)


def _take_out(table: dict[K, set[Listener]], key: K, listener: Listener) -> bool:
    """Take a listener out of a table; return whether it was the last one there."""
    listeners = table.get(key)
    if listeners is None:
        return False
    listeners.discard(listener)
    if listeners:
        return False
    del table[key]
    return True
