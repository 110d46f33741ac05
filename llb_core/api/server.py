"""The daemon's end of the control socket. What it answers comes from the daemon, by `Control`.

GET  /status     the daemon, its services, sources, tables and verdicts
GET  /backends   every backend: how it is, what it carries
GET  /plan       the changes that the next turn would make
GET  /metrics    the same and more, as Prometheus reads it
POST /drain      {"backend": "10.0.0.2:8080", "service": "web"}; the port and the service may be
POST /undrain    left out; answers once it is carried out

An error is `{"error": "one line"}`: status 400 where the request is wrong, 500 where it failed.
"""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web

from llb_core.api.metrics_route import metrics_route
from llb_core.errors import ConfigurationError, HostError, LLBError
from llb_core.orders import Selection

log = logging.getLogger(__name__)

_MODE = 0o660

View = dict[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Control(Protocol):
    """What the daemon can be asked."""

    async def status(self) -> View:
        """Say how everything is."""

    async def backends(self) -> View:
        """Say how each backend is."""

    async def metrics(self) -> bytes:
        """Return everything that Prometheus is told, as text."""

    async def plan(self) -> View:
        """Say what the next turn would change."""

    async def drain(self, selection: Selection) -> View:
        """Drain backends, and return which."""

    async def undrain(self, selection: Selection) -> View:
        """Drain backends no longer, and return which."""


def application(control: Control, *, may_write: bool) -> web.Application:
    """Make what serves the resources. Without `may_write` those that change something are not in
    it at all: so it is made for whatever can be reached by more than the socket's owners."""
    made = web.Application(middlewares=[_errors_as_json])
    made.add_routes(
        [
            web.get("/status", _asking(control.status)),
            web.get("/backends", _asking(control.backends)),
            web.get("/plan", _asking(control.plan)),
            metrics_route(control.metrics),
        ]
    )
    if may_write:
        made.add_routes(
            [
                web.post("/drain", _ordering(control.drain)),
                web.post("/undrain", _ordering(control.undrain)),
            ]
        )
    return made


@asynccontextmanager
async def serving(path: Path, control: Control) -> AsyncIterator[None]:
    """Answer on the socket at `path`, which only root and its group may open."""
    served = application(control, may_write=True)
    runner = web.AppRunner(served, access_log=None, shutdown_timeout=1.0)
    with _listening(path) as listener:
        try:
            await runner.setup()
            await web.SockSite(runner, listener).start()
            yield
        finally:
            await runner.cleanup()


@contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    """Bind the socket in place of one that a killed daemon left; its mode is set before it can be
    connected to."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            path.unlink(missing_ok=True)
            listener.bind(str(path))
            path.chmod(_MODE)
            listener.listen()
        except OSError as error:
            raise HostError(f"{path}: can't be listened on: {error.strerror}") from None
        listener.setblocking(False)
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


def _asking(ask: Callable[[], Awaitable[View]]) -> Handler:
    async def handle(_request: web.Request) -> web.StreamResponse:
        return web.json_response(await ask())

    return handle


def _ordering(order: Callable[[Selection], Awaitable[View]]) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        return web.json_response(await order(await _selection(request)))

    return handle


async def _selection(request: web.Request) -> Selection:
    try:
        body = await request.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise ConfigurationError("the request's body is no JSON") from None
    if not isinstance(body, dict) or not isinstance(body.get("backend"), str):
        raise ConfigurationError('the request names no "backend"')
    service = body.get("service")
    if service is not None and not isinstance(service, str):
        raise ConfigurationError('"service" is not the name of a service')
    return Selection.parse(body["backend"], service)


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        return web.json_response(
            {"error": f"{request.method} {request.path}: {error.reason}"}, status=error.status
        )
    except ConfigurationError as error:
        return web.json_response({"error": str(error)}, status=400)
    except LLBError as error:
        return web.json_response({"error": str(error)}, status=500)
    except Exception as error:
        log.exception("%s %s failed", request.method, request.path)
        return web.json_response({"error": f"it failed: {error!r}: see the log"}, status=500)
