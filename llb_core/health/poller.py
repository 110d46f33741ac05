"""Wait for many sockets at little cost: an epoll of its own, nested in the loop's.

asyncio's add_reader and its kin keep books for each socket, which costs more than a probe's own
work. (Measured: 3.8 % of a processor instead of 5.2 for 200 probes a second.)
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable

from llb_core.health.timing import Deadlines

WRITABLE, FAILED, ENDED = select.EPOLLOUT, select.EPOLLERR, select.EPOLLRDHUP
READABLE = select.EPOLLIN | select.EPOLLRDHUP
"""With `ENDED` where the other side has said all that it will."""

_BATCH = 256


class Poller:
    """Calls back once, with what holds, when what is waited for holds or the socket has failed.

    A callback may come once more after its socket was forgotten, in the same batch of events.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._deadlines: dict[float, Deadlines] = {}
        loop.add_reader(self._epoll.fileno(), self._on_events)

    def add(self, descriptor: int) -> None:
        """Take a socket on, to be waited for over and over."""
        self._epoll.register(descriptor, select.EPOLLONESHOT)

    def remove(self, descriptor: int) -> None:
        """Let go of a socket; before it is closed, since a child that was just forked may still
        hold it, and keep it registered."""
        self.forget(descriptor)
        if not self._epoll.closed:
            self._epoll.unregister(descriptor)

    def wait(self, descriptor: int, what: int, callback: Callable[[int], None]) -> None:
        """Wait for something to happen to a socket, once."""
        self._callbacks[descriptor] = callback
        self._epoll.modify(descriptor, what | select.EPOLLONESHOT)

    def forget(self, descriptor: int) -> None:
        """Wait no more on a socket."""
        self._callbacks.pop(descriptor, None)

    def deadlines(self, seconds: float) -> Deadlines:
        """Return what lets probes expire that take longer."""
        known = self._deadlines.get(seconds)
        if known is None:
            known = self._deadlines[seconds] = Deadlines(self.loop, seconds)
        return known

    def close(self) -> None:
        """Wait for nothing any more."""
        for each in self._deadlines.values():
            each.close()
        if self._epoll.closed:
            return
        self.loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        self._callbacks.clear()

    def _on_events(self) -> None:
        events = self._epoll.poll(0, _BATCH)
        # Looked up before any is called: a number may be another check's by then.
        known = self._callbacks
        callbacks = [
            (known[descriptor], what) for descriptor, what in events if descriptor in known
        ]
        for callback, what in callbacks:
            callback(what)
