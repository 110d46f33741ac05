"""What happens, handed to whoever listens: connections opened, closed and dropped, and backends
registered, deregistered, healthy and unhealthy.

The classifier tells of connections only while somebody wants to hear of them. A listener that is
too slow loses the oldest, and is told how many: nobody is held up by it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from llb_core.errors import LLBError
from llb_core.health.state import HealthState
from llb_core.model import Backend, Endpoint

log = logging.getLogger(__name__)

Event = dict[str, Any]

CONNECTION_KINDS = ("opened", "closed", "dropped")
BACKEND_KINDS = ("registered", "deregistered", "healthy", "unhealthy")
KINDS = (*CONNECTION_KINDS, *BACKEND_KINDS)

ROOM = 20_000
"""Events that wait for one listener at most."""
PAUSE = 0.05
"""Seconds between two looks at what the classifier tells."""


class Listener:
    """One who listens: events in their order, and how many were lost since they were last read."""

    def __init__(self, kinds: Collection[str]) -> None:
        self.kinds = frozenset(kinds)
        self._waiting: deque[Event] = deque(maxlen=ROOM)
        self._lost = 0
        self._has_some = asyncio.Event()

    def hear(self, event: Event) -> None:
        """Take an event, if it is of a kind that is wanted."""
        if event["kind"] not in self.kinds:
            return
        self._lost += len(self._waiting) == ROOM
        self._waiting.append(event)
        self._has_some.set()

    def lose(self, count: int) -> None:
        """Note that events were lost before they came here."""
        self._lost += count
        self._has_some.set()

    async def read(self) -> list[Event]:
        """Wait for events; the first says how many are missing before it, where some are."""
        await self._has_some.wait()
        self._has_some.clear()
        events, lost = list(self._waiting), self._lost
        self._waiting.clear()
        self._lost = 0
        missing = [{"time": time.time(), "kind": "lost", "count": lost}] if lost else []
        return missing + events


class ConnectionTeller(Protocol):
    """What the classifier tells. Called in a thread, one call at a time."""

    def listen(self, kinds: Collection[str]) -> None:
        """Have these kinds told for a second or two from now."""

    def read(self) -> tuple[list[Event], int]:
        """Return what was told since, and how many events could not be told."""


class EventHub:
    """Hands events to listeners. On the event loop."""

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()
        self._has_come = asyncio.Event()
        """Somebody has begun to listen."""
        self._registered: Mapping[str, tuple[Backend, ...]] | None = None

    @contextmanager
    def listening(self, kinds: Collection[str]) -> Iterator[Listener]:
        """Listen to events of some kinds for a while."""
        listener = Listener(kinds)
        self._listeners.add(listener)
        self._has_come.set()
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    @property
    def is_heard(self) -> bool:
        """Whether anybody listens."""
        return bool(self._listeners)

    def tell(self, event: Event) -> None:
        """Hand an event to all who want it."""
        for listener in self._listeners:
            listener.hear(event)

    def on_health(self, service: str, backend: Endpoint, state: HealthState) -> None:
        """Tell of a backend whose health has changed."""
        self._tell_of_backend(str(state.status), service, str(backend), reason=state.reason)

    def on_registered(self, registered: Mapping[str, tuple[Backend, ...]]) -> None:
        """Tell what is registered now and was not in the turn before, and the reverse."""
        before, self._registered = self._registered, registered
        if before is None or before is registered or not self.is_heard:
            return
        for service in before.keys() | registered.keys():
            if before.get(service) is registered.get(service):
                continue  # As most are: nothing is written out anew for those.
            was = {str(each.endpoint) for each in before.get(service, ())}
            now = {str(each.endpoint) for each in registered.get(service, ())}
            for backend in sorted(now - was):
                self._tell_of_backend("registered", service, backend)
            for backend in sorted(was - now):
                self._tell_of_backend("deregistered", service, backend)

    async def run(self, teller: ConnectionTeller) -> None:
        """Hand on what the classifier tells, for as long as somebody wants it. For ever."""
        renewed, told = 0.0, ""
        while True:
            self._has_come.clear()
            wanted = {kind for each in self._listeners for kind in each.kinds}
            wanted &= set(CONNECTION_KINDS)
            if not wanted:
                await self._has_come.wait()
                continue
            try:
                if time.monotonic() - renewed > 0.5:
                    await asyncio.to_thread(teller.listen, wanted)
                    renewed = time.monotonic()
                self._hand_on(*await asyncio.to_thread(teller.read))
                told = ""
            except LLBError as error:
                if str(error) != told:
                    log.error("connections' events can't be read: %s", error)
                told = str(error)
            await asyncio.sleep(PAUSE)

    def _hand_on(self, events: list[Event], lost: int) -> None:
        for event in events:
            self.tell(event)
        for listener in self._listeners:
            if lost and listener.kinds & frozenset(CONNECTION_KINDS):
                listener.lose(lost)

    def _tell_of_backend(self, kind: str, service: str, backend: str, **more: Any) -> None:
        at = time.time()
        self.tell({"time": at, "kind": kind, "service": service, "backend": backend, **more})
