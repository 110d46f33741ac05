"""Wait for many short-lived sockets at little cost: an epoll of its own, nested in the loop's.

asyncio's add_reader and its kin keep books for each socket, which costs more than a probe's own
work. (Measured: 3.8 % of a processor instead of 5.2 for 200 probes a second.) And so does a turn of
the loop for each event: while sockets are busy they are looked at every two milliseconds, and what
has happened to several is dealt with at once; where nothing has, the next event wakes the loop.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable

from llb_core.health.timing import Deadlines

READABLE, WRITABLE, FAILED = select.EPOLLIN, select.EPOLLOUT, select.EPOLLERR

_BATCH = 256
GATHER = 0.002
"""Seconds from one look to the next, and from a socket's first wait to the look at it."""


class Poller:
    """Calls back, with what holds, while what is waited for holds, or the socket has failed.

    A callback may come once more after its socket was forgotten, in the same batch of events.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._deadlines: dict[float, Deadlines] = {}
        self._next_look: asyncio.TimerHandle | None = None
        self._is_woken = False
        """Whether the next event wakes the loop; while there is neither this nor a next look,
        nothing is waited for."""

    def wait(self, descriptor: int, what: int, callback: Callable[[int], None]) -> None:
        """Begin to wait on a socket that was not waited on."""
        self._epoll.register(descriptor, what)
        self._callbacks[descriptor] = callback
        if not self._is_woken:
            self._look_soon()

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
        if self._next_look is not None:
            self._next_look.cancel()
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        self._callbacks.clear()

    def _look_soon(self) -> None:
        if self._next_look is None:
            self._next_look = self._loop.call_later(GATHER, self._look)

    def _look(self) -> None:
        self._next_look = None
        has_happened = self._deal_with_events()
        if not self._callbacks or self._epoll.closed:
            return
        if has_happened:
            self._look_soon()
        else:
            self._loop.add_reader(self._epoll.fileno(), self._wake)
            self._is_woken = True

    def _wake(self) -> None:
        self._loop.remove_reader(self._epoll.fileno())
        self._is_woken = False
        self._look()

    def _deal_with_events(self) -> bool:
        """Call back for what has happened; return whether anything has."""
        events = self._epoll.poll(0, _BATCH)
        # Looked up before any is called: a number may be another socket's by then.
        callbacks = [(self._callbacks[descriptor], what) for descriptor, what in events]
        for callback, what in callbacks:
            callback(what)
        return bool(events)
