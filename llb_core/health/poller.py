"""Wait for many short-lived sockets at little cost: an epoll of its own, nested in the loop's.

asyncio's add_reader and its kin keep books for each socket, which costs more than a probe's own
work. (Measured: 3.8 % of a processor instead of 5.2 for 200 probes a second.)
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable

from llb_core.health.timing import Deadlines

READABLE, WRITABLE, FAILED = select.EPOLLIN, select.EPOLLOUT, select.EPOLLERR

_BATCH = 256


class Poller:
    """Calls back, with what holds, while what is waited for holds, or the socket has failed.

    A callback may come once more after its socket was forgotten, in the same batch of events.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._deadlines: dict[float, Deadlines] = {}
        loop.add_reader(self._epoll.fileno(), self._on_events)

    def wait(self, descriptor: int, what: int, callback: Callable[[int], None]) -> None:
        """Begin to wait on a socket that was not waited on."""
        self._epoll.register(descriptor, what)
        self._callbacks[descriptor] = callback

    def wait_instead(self, descriptor: int, what: int, callback: Callable[[int], None]) -> None:
        """Wait for something else on a socket that is waited on."""
        self._epoll.modify(descriptor, what)
        self._callbacks[descriptor] = callback

    def forget(self, descriptor: int) -> None:
        """Wait no more on a socket; before it is closed, since a child that was just forked may
        still hold it, and keep it registered."""
        if self._callbacks.pop(descriptor, None) is not None and not self._epoll.closed:
            self._epoll.unregister(descriptor)

    def deadlines(self, seconds: float) -> Deadlines:
        """Return what lets probes expire that take longer."""
        known = self._deadlines.get(seconds)
        if known is None:
            known = self._deadlines[seconds] = Deadlines(self._loop, seconds)
        return known

    def close(self) -> None:
        """Wait for nothing any more."""
        for each in self._deadlines.values():
            each.close()
        if self._epoll.closed:
            return
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        self._callbacks.clear()

    def _on_events(self) -> None:
        events = self._epoll.poll(0, _BATCH)
        # Looked up before any is called: a number may be another socket's by then.
        callbacks = [(self._callbacks[descriptor], what) for descriptor, what in events]
        for callback, what in callbacks:
            callback(what)
