"""Answers on their way to those who asked: for as long as these are there, and so many at once that
a client which does not read holds up nobody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from llb_core.errors import LLBError

AT_ONCE = 8
"""Answers on their way. Each has a process of its own, with what it found in memory."""
SECONDS = 3600.0
"""How long one may be on its way: a million connections over a slow line, or read in a pager."""
_LOOK = 1.0
"""Seconds between two looks whether whoever asked is still there."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Places:
    """Places for answers on their way. Whoever comes when all are taken has that of the answer that
    has been on its way for longest: if anybody's has been left lying in a pager, it is that one's.
    """

    def __init__(self, count: int = AT_ONCE, seconds: float = SECONDS) -> None:
        self._count, self._seconds = count, seconds
        self._taken: list[asyncio.Timeout] = []

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Have a place; LLBError once it is lost to another, or was had for too long."""
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(self._seconds) as own:
                if len(self._taken) == self._count:
                    oldest = self._taken.pop(0)
                    if not oldest.expired():  # Else it is on its way out already.
                        oldest.reschedule(began)
                self._taken.append(own)
                try:
                    yield
                finally:
                    if own in self._taken:
                        self._taken.remove(own)
        except TimeoutError:
            raise LLBError(f"it was not taken within {clock() - began:.0f} s") from None


def while_there(handler: Handler) -> Handler:
    """Have a handler end once whoever asked has gone: of itself it hears of that when it writes,
    and while it waits for the tables, or for an event, it doesn't.

    Not for orders: these are carried out whole.
    """

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            async with asyncio.timeout(None) as until_gone:
                watching = asyncio.create_task(_watch(request, until_gone))
                try:
                    return await handler(request)
                finally:
                    watching.cancel()
        except (TimeoutError, ConnectionResetError):
            if not has_gone(request):
                raise
            return web.Response()  # Nobody gets it.

    return handle


def has_gone(request: web.Request) -> bool:
    """Say whether whoever asked has gone."""
    return request.transport is None or request.transport.is_closing()


async def _watch(request: web.Request, until_gone: asyncio.Timeout) -> None:
    while not has_gone(request):  # noqa: ASYNC110 - the library tells nobody
        await asyncio.sleep(_LOOK)
    until_gone.reschedule(asyncio.get_running_loop().time())
