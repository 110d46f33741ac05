"""Wait for many sockets at little cost: an epoll of its own, nested in the loop's.

asyncio's add_reader and its kin keep books for each socket, which costs more than a probe's own
work. And to wake up costs as much as a probe or two, so answers are not taken up one by one as they
come: what has just begun is looked at together, a few times. Only what takes longer wakes the loop.
"""

from __future__ import annotations

import asyncio
import logging
import select
from collections.abc import Callable
from operator import attrgetter
from typing import Protocol

from llb_core.health.timing import Deadlines

log = logging.getLogger(__name__)

WRITABLE = select.EPOLLOUT | select.EPOLLONESHOT
FAILED, ENDED = select.EPOLLERR, select.EPOLLRDHUP
READABLE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT
"""With `ENDED` where the other side has said all that it will."""

_BATCH = 256
_PAUSES = (0.002, 0.004, 0.008, 0.016)
"""Seconds from one look to the next, after the first, which is at once."""


class Expiring(Protocol):
    """What may take too long."""

    is_over: bool
    """Whether it can't expire any more."""

    def expire(self, late: float) -> None:
        """It took too long; this is told so many seconds late."""


class Poller:
    """Calls back once, with what holds, when what is waited for holds or the socket has failed.

    A callback may come once more after its socket was forgotten, in the same batch of events.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._epoll = select.epoll()
        self.wait_again: Callable[[int, int], None] = self._epoll.modify
        """Wait with the callback of the time before."""
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._deadlines: dict[float, Deadlines[Expiring]] = {}
        self._looks = 0
        """Looks since something began to be waited for."""
        self._next_look: asyncio.Handle | None = None
        self._is_hearing = False
        """Whether the loop is woken by what happens."""

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
        self._epoll.modify(descriptor, what)
        if self._next_look is None:
            self._hear(False)
            self._looks = 0
            self._next_look = self.loop.call_soon(self._look_again)

    def forget(self, descriptor: int) -> None:
        """Wait no more on a socket."""
        self._callbacks.pop(descriptor, None)

    def deadlines(self, seconds: float) -> Deadlines[Expiring]:
        """Return what lets probes expire that take longer."""
        known = self._deadlines.get(seconds)
        if known is None:
            known = self._deadlines[seconds] = Deadlines(
                self.loop,
                seconds,
                is_over=attrgetter("is_over"),
                expire=lambda probe, late: probe.expire(late),
                before_look=self.look,
            )
        return known

    def look(self) -> None:
        """Call back for all that has happened."""
        known, is_all = self._callbacks, False
        while not is_all and not self._epoll.closed:
            happened = self._epoll.poll(0, _BATCH)
            is_all = len(happened) < _BATCH
            # Looked up before any is called: a number may be another check's by then.
            callbacks = [(known[each], what) for each, what in happened if each in known]
            for callback, what in callbacks:
                try:
                    callback(what)
                except Exception:  # What the others wait for has happened, too.
                    log.exception("what a health check came to can't be taken up")

    def close(self) -> None:
        """Wait for nothing any more."""
        for each in self._deadlines.values():
            each.close()
        if self._epoll.closed:
            return
        if self._next_look is not None:
            self._next_look.cancel()
        self._hear(False)
        self._epoll.close()
        self._callbacks.clear()

    def _look_again(self) -> None:
        self._next_look = None
        self.look()
        if not self._callbacks or self._next_look is not None:
            return
        if self._looks < len(_PAUSES):
            self._next_look = self.loop.call_later(_PAUSES[self._looks], self._look_again)
            self._looks += 1
        else:
            self._hear(True)

    def _hear(self, wanted: bool) -> None:
        if wanted and not self._is_hearing:
            self.loop.add_reader(self._epoll.fileno(), self.look)
        elif self._is_hearing and not wanted:
            self.loop.remove_reader(self._epoll.fileno())
        self._is_hearing = wanted
