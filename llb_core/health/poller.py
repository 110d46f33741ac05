"""Wait for many sockets at little cost: an epoll of its own, nested in the loop's.

asyncio's add_reader and its kin keep books for each socket, which costs more than a probe's own
work. And to wake up costs as much as a probe or two, so answers are not taken up one by one as they
come: what has just begun is looked at together, a few times. Only what takes longer wakes the loop.

What is asked of the kernel is asked together, too. A packet that is sent goes through the whole
network stack, and leaves a processor's caches with nothing of ours in them: Python that runs
between two packets takes several times as long as Python that runs by itself.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import select
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Protocol, TypeVar

from llb_core.health.timing import Deadlines

log = logging.getLogger(__name__)

FAILED, SAID, ENDED = select.EPOLLERR, select.EPOLLIN, select.EPOLLRDHUP
"""The socket has failed; the other side has said something; it has said all that it will."""
_CHANGES = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
"""Each change is told once: so epoll is told of a socket once, not of each thing to wait for."""

_BATCH = 256
_PAUSES = (0.002, 0.004, 0.008, 0.016)
"""Seconds from one look to the next, after the first, which is at once."""

A = TypeVar("A")
R = TypeVar("R")


class Expiring(Protocol):
    """What may take too long."""

    is_over: bool
    """Whether it can't expire any more."""

    def expire(self, late: float) -> None:
        """It took too long; this is told so many seconds late."""


class Poller:
    """Calls back, with what holds, whenever something has changed about a socket that is waited
    for: it has connected or failed, something has come, the other side has ended.

    A callback may come though nothing is new to it, and once more after its socket was forgotten,
    in the same batch of events.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._calls: list[tuple[Callable[[Any], Any], Any, Callable[[Any], None]]] = []
        self._deadlines: dict[float, Deadlines[Expiring]] = {}
        self._looks = 0
        """Looks since something began to be waited for."""
        self._next_look: asyncio.Handle | None = None
        self._is_soon = False
        """Whether that is at once."""
        self._is_looking = False
        self._is_hearing = False
        """Whether the loop is woken by what happens."""

    def add(self, descriptor: int) -> None:
        """Take a socket on, to be waited for over and over."""
        self._epoll.register(descriptor, _CHANGES)

    def remove(self, descriptor: int) -> None:
        """Let go of a socket; before it is closed, since a child that was just forked may still
        hold it, and keep it registered."""
        self.forget(descriptor)
        if not self._epoll.closed:
            self._epoll.unregister(descriptor)

    def wait(self, descriptor: int, callback: Callable[[int], None]) -> None:
        """Wait for what happens to a socket, until it is forgotten."""
        self._callbacks[descriptor] = callback
        self._look_soon()

    def ask(self, call: Callable[[A], R], argument: A, then: Callable[[R | OSError], None]) -> None:
        """Make a system call in a moment, with others; `then` is told what it came to."""
        self._calls.append((call, argument, then))
        self._look_soon()

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
        """Ask the kernel what is to be asked, and call back for all that has happened."""
        self._is_looking = True
        try:
            self._look()
        finally:
            self._is_looking = False

    def close(self) -> None:
        """Wait for nothing any more."""
        for each in self._deadlines.values():
            each.close()
        if self._epoll.closed:
            return
        self._make_calls()
        if self._next_look is not None:
            self._next_look.cancel()
        self._hear(False)
        self._epoll.close()
        self._callbacks.clear()

    def _look(self) -> None:
        known, is_all = self._callbacks, False
        self._make_calls()
        while not is_all and not self._epoll.closed:
            happened = self._epoll.poll(0, _BATCH)
            # Looked up before any is called: a number may be another check's by then.
            for callback, what in [(known[each], what) for each, what in happened if each in known]:
                _tell(callback, what)
            # What is done to a socket is a change, too: nobody is to be woken by that.
            is_all = len(happened) < _BATCH and not (self._is_hearing and self._calls)
            self._make_calls()

    def _make_calls(self) -> None:
        while self._calls:
            calls, self._calls = self._calls, []
            results: list[Any] = []
            for call, argument, _ in calls:
                try:
                    results.append(call(argument))
                except OSError as error:
                    results.append(error.with_traceback(None))  # Which would hold all of these.
                except MemoryError:  # What the others ask is asked all the same.
                    results.append(OSError(errno.ENOMEM, "no memory"))
            for (_, _, then), result in zip(calls, results, strict=True):
                _tell(then, result)

    def _look_soon(self) -> None:
        if self._is_looking or self._is_soon:
            return
        if self._next_look is not None:
            self._next_look.cancel()
        self._hear(False)
        self._looks, self._is_soon = 0, True
        self._next_look = self.loop.call_soon(self._look_again)

    def _look_again(self) -> None:
        self._next_look, self._is_soon = None, False
        self.look()
        if not self._callbacks:
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


def _tell(whom: Callable[[A], None], what: A) -> None:
    try:
        whom(what)
    except Exception:  # What the others wait for has happened, too.
        log.exception("what a health check came to can't be taken up")
