"""How long whoever connects over TCP may take to say what they want. aiohttp itself waits for ever
for a request's head, so that anybody could hold as many connections as the daemon has descriptors.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

HEAD_SECONDS = 10.0
"""How long a connection may be without a whole request, at its beginning and between two."""
CONNECTIONS = 256
"""Connections at once; beyond that those that have waited for longest are closed."""
PAUSE = 0.5
"""Seconds between two looks at the connections."""


class Patience:
    """Closes connections that say nothing, or say it too slowly."""

    def __init__(
        self,
        seconds: float = HEAD_SECONDS,
        most: int = CONNECTIONS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds, self._most, self._clock = seconds, most, clock
        self._served: dict[Any, int] = {}
        self._waits: dict[Any, float] = {}
        """Since when, for the connections that no request of is being answered."""

    @property
    def middleware(self) -> Any:
        """Notes which connections are being answered."""

        @web.middleware
        async def note(request: web.Request, handler: Handler) -> web.StreamResponse:
            connection = request.protocol
            self._served[connection] = self._served.get(connection, 0) + 1
            try:
                return await handler(request)
            finally:
                self._waits[connection] = self._clock()
                self._served[connection] -= 1
                if not self._served[connection]:
                    del self._served[connection]

        return note

    async def run(self, runner: web.AppRunner) -> None:
        """Look again and again, for ever."""
        while True:
            if runner.server is not None:
                self._look(runner.server)
            await asyncio.sleep(PAUSE)

    def _look(self, server: Any) -> None:
        """Close those that have waited for too long, and the oldest of too many."""
        now = self._clock()
        self._waits = {
            each: self._waits.get(each, now)
            for each in server.connections
            if each not in self._served
        }
        oldest_first = sorted(self._waits, key=self._waits.__getitem__)
        too_many = max(0, len(server.connections) - self._most)
        for place, each in enumerate(oldest_first):
            if place < too_many or now - self._waits[each] > self._seconds:
                each.force_close()
