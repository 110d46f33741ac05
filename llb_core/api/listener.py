"""The read-only listener: over TCP, what the page and Prometheus read, and never an order.

It follows the configuration, over reloads too, which are refused where it could not. That it can't
listen at a start is told and tried again; it is no reason to leave traffic without a daemon.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from aiohttp import web
from aiohttp.typedefs import Handler

from llb_core.api.page import page_routes
from llb_core.api.patience import Patience
from llb_core.api.server import Control, application
from llb_core.errors import HostError
from llb_core.forks import keep_from_children
from llb_core.model import Endpoint

log = logging.getLogger(__name__)

PAUSE = 1.0
"""Seconds until a reload is followed, and until it is tried again where it failed."""

_BACKLOG = 128

_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def read_only(control: Control) -> web.Application:
    """Make what is served over TCP."""
    made = application(control, may_write=False)
    made.add_routes(page_routes(control.page))
    made.middlewares.append(_with_headers)
    return made


class ReadOnlyListener:
    """Serves where it is wanted: at one address at a time, or nowhere. On the event loop.

    `complain` is told why it can't, and nothing once it can.
    """

    def __init__(
        self,
        control: Control,
        wanted: Callable[[], Endpoint | None],
        complain: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._control, self._wanted, self._complain = control, wanted, complain
        self._where: Endpoint | None = None
        self._socket: socket.socket | None = None
        self._runner: web.AppRunner | None = None
        self._next: tuple[Endpoint, socket.socket] | None = None
        self._told = ""

    async def run(self) -> None:
        """Serve, for ever."""
        try:
            while True:
                if (want := self._wanted()) != self._where:
                    await self._move(want)
                else:
                    self._put_next(None)  # Two reloads in a second, there and back.
                await asyncio.sleep(PAUSE)
        finally:
            self._put_next(None)
            if self._runner is not None:
                await self._runner.cleanup()

    @contextmanager
    def opened(self, where: Endpoint | None) -> Iterator[None]:
        """Listen there beside what is served, before it is wanted; HostError where that can't be.
        It is closed again where it isn't wanted at the end of this."""
        if where in (None, self._where, self._wanted()):
            yield
            return
        assert where is not None
        listening = _listen(where, beside=self._socket)
        try:
            yield
        finally:
            if self._wanted() == where:
                self._put_next((where, listening))
            else:
                listening.close()

    def _put_next(self, following: tuple[Endpoint, socket.socket] | None) -> None:
        if self._next is not None:
            self._next[1].close()
        self._next = following

    async def _move(self, want: Endpoint | None) -> None:
        """Serve there, and nowhere else; where that can't be, as before."""
        following, self._next = self._next, None
        if following is not None and following[0] != want:
            following[1].close()
            following = None
        listening = runner = None
        if want is not None:
            try:
                listening = following[1] if following else _listen(want, beside=self._socket)
            except HostError as error:
                self._tell(str(error))
                return
            runner = await _serve(listening, self._control)
        if self._runner is not None:
            await self._runner.cleanup()
        self._where, self._socket, self._runner = want, listening, runner
        self._tell("")
        if want is not None:
            log.info("the status page and metrics are at http://%s/", want)

    def _tell(self, complaint: str) -> None:
        if complaint and complaint != self._told:
            log.error("%s: there is no page and no metrics", complaint)
        self._told = complaint
        self._complain(complaint)


def _listen(where: Endpoint, *, beside: socket.socket | None) -> socket.socket:
    """Listen there, also where that meets the address of another socket of ours."""
    is_ipv6 = where.address.version == 6
    made = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET)
    keep_from_children(made)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_ipv6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.setblocking(False)
        with _sharing_ports(made, *([beside] if beside else [])):
            made.bind((str(where.address), where.port))
            made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        raise HostError(f"api.listen: {where} can't be listened on: {error.strerror}") from None
    return made


@contextmanager
def _sharing_ports(*sockets: socket.socket) -> Iterator[None]:
    """Let sockets of ours have one port on addresses that meet, as 127.0.0.1 and 0.0.0.0 do; with
    those of others none does."""
    for each in sockets:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        yield
    finally:
        for each in sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)


async def _serve(listening: socket.socket, control: Control) -> web.AppRunner:
    made, patience = read_only(control), Patience()
    made.middlewares.insert(0, patience.middleware)
    runner = web.AppRunner(made, access_log=None, shutdown_timeout=1.0)

    async def watching(_: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(patience.run(runner))
        yield
        task.cancel()

    made.cleanup_ctx.append(watching)
    await runner.setup()
    await web.SockSite(runner, listening, backlog=_BACKLOG).start()
    return runner


@web.middleware
async def _with_headers(request: web.Request, handler: Handler) -> web.StreamResponse:
    response = await handler(request)
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response
