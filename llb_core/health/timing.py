"""Timers for hundreds of checks a second, at the cost of a few timers of the event loop.

The loop keeps its timers in a heap, and compares them in Python; a check needs three of them, and
all but a few are cancelled before their time. Checks start on a grid, and expire in the order in
which they started, so neither needs a heap.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import filterfalse
from typing import Generic, TypeVar

_LATE = 1e-6
"""A timer of the loop may come that much too early, by its clock's resolution."""
_AT_ONCE = 64
"""Calls of one time that are made before others on the loop have their turn."""

Call = Callable[[float], None]


T = TypeVar("T")


class Deadlines(Generic[T]):
    """What expires if it is not over after `seconds`: the oldest first, by one timer for all.

    What began at the same time is looked at together, after `before_look` was called. `expire` is
    told so many seconds late.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        seconds: float,
        *,
        is_over: Callable[[T], bool],
        expire: Callable[[T, float], None],
        before_look: Callable[[], None] = lambda: None,
    ) -> None:
        self._loop = loop
        self._seconds = seconds
        self._is_over = is_over
        self._expire = expire
        self._before_look = before_look
        self._waiting: deque[tuple[float, list[T]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, began: float, what: T) -> None:
        """Begin to wait for something that began just now, by the loop's clock, or a moment ago."""
        due = began + self._seconds
        waiting = self._waiting
        if waiting and waiting[-1][0] == due:
            waiting[-1][1].append(what)
            return
        waiting.append((due, [what]))
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._look)

    def close(self) -> None:
        """Let nothing expire any more."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        try:
            self._before_look()
        finally:
            self._timer = None
        waiting, now = self._waiting, self._loop.time()
        while waiting:
            due, together = waiting[0]
            left = [*filterfalse(self._is_over, together)]
            if left and due > now + _LATE:
                break
            waiting.popleft()
            for each in left:
                if not self._is_over(each):
                    self._expire(each, now - due)
        if waiting:
            self._timer = self._loop.call_at(waiting[0][0], self._look)


class Grid:
    """Calls at times that are multiples of `step` seconds: all of one time by one timer.

    A call is told when it was made. Those made together are told the same time.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, step: float) -> None:
        self._loop = loop
        self._step = step
        self._calls: dict[int, dict[object, Call]] = {}
        self._ringing: dict[object, Call] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._armed: int | None = None
        """The tick that the timer is set for."""

    def call(self, key: object, when: float, call: Call, *, every: int = 1, offset: int = 0) -> int:
        """Call at the last multiple before `when`, by the loop's clock; return which that is. Of
        the multiples only each `every`th counts, from the one numbered `offset` on."""
        tick = int((when + _LATE) / self._step)
        tick -= (tick - offset) % every
        self._calls.setdefault(tick, {})[key] = call
        self._arm_for(tick)
        return tick

    def cancel(self, key: object, tick: int) -> None:
        """Don't call then, if that is still to come."""
        for calls in (self._calls.get(tick, {}), self._ringing):
            calls.pop(key, None)

    def close(self) -> None:
        """Call nothing any more."""
        self._calls.clear()
        self._ringing.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = self._armed = None

    def _arm_for(self, tick: int) -> None:
        if self._armed is not None and self._armed <= tick:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._armed = tick
        self._timer = self._loop.call_at(tick * self._step, self._ring)

    def _ring(self) -> None:
        self._timer = self._armed = None
        now = self._loop.time()
        last = int((now + _LATE) / self._step)
        for tick in sorted(tick for tick in self._calls if tick <= last):
            self._ringing |= self._calls.pop(tick)
        # One by one: a call may cancel another, and ask for one more at this very time.
        ringing = self._ringing
        for _ in range(min(_AT_ONCE, len(ringing))):
            if ringing:
                ringing.pop(next(iter(ringing)))(now)
        # Those that are empty by now, by cancelling, wake nobody.
        for tick in [tick for tick, calls in self._calls.items() if not calls]:
            del self._calls[tick]
        if ringing:
            self._arm_for(last)
        elif self._calls:
            self._arm_for(min(self._calls))
