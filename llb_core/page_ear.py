"""Hear of connections for the status page, for as long as a page that shows them asks again.

The classifier tells of connections only while somebody listens: a page that is closed, or does not
want them, costs it nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from llb_core.event_hub import CONNECTION_KINDS, EventHub
from llb_core.recent import Event

KEPT = 60
"""Events that are kept for the page."""
LISTENS = 6.0
"""Seconds that it goes on listening after a page has asked: pages ask every two seconds."""


class PageEar:
    """The newest events of connections. On the event loop."""

    def __init__(self, hub: EventHub, clock: Callable[[], float] = time.monotonic) -> None:
        self._hub, self._clock = hub, clock
        self._heard: deque[Event] = deque(maxlen=KEPT)
        self._numbers = itertools.count(-1, -1)
        self._until = 0.0
        self._task: asyncio.Task[None] | None = None

    def newest(self) -> list[Event]:
        """Return what was heard, the newest first, and go on listening for a while."""
        self._until = self._clock() + LISTENS
        if self._task is None or self._task.done():
            self._heard.clear()
            self._task = asyncio.create_task(self._listen())
        return list(reversed(self._heard))

    async def _listen(self) -> None:
        with self._hub.listening(CONNECTION_KINDS) as listener:
            while (left := self._until - self._clock()) > 0:
                try:
                    events = await asyncio.wait_for(listener.read(), left)
                except TimeoutError:
                    continue
                # What would be pushed out at once is not put into words.
                for event in events[-KEPT:]:
                    self._heard.append(_in_words(next(self._numbers), event))


def _in_words(number: int, event: dict[str, Any]) -> Event:
    """Return it as a sentence; numbers below 0 are of connections."""
    kind, at = event["kind"], event["time"]
    if kind == "lost":
        return Event(number, at, "warning", f"{event['count']} events of connections are not shown")
    way = f"{event['source']} to {event['destination']}/{event['protocol']}"
    whose = f"{event['service']}: " if event["service"] else ""
    if kind == "dropped":
        reason = event["reason"].removeprefix("drop_").replace("_", " ")
        where = f" for {event['backend']}" if event["backend"] else ""
        return Event(
            number, at, "warning", f"{whose}a packet from {way}{where} is dropped: {reason}"
        )
    text = f"{whose}{way}, served by {event['backend']}, is {kind}"
    if kind == "closed":
        text += f" ({event['reason']}) after {event['duration']:.1f} s"
    return Event(number, at, "info", text)
