"""The daemon's end of the control socket: HTTP, limits, and who asks. What is served stands in
`routes`, what is answered comes from the daemon.

An error is `{"error": "one line"}`: status 400 where the request is wrong, 404
where what it names is not there, 500 where it failed, 503 where it stands and is not carried out
yet.
"""

from __future__ import annotations

import asyncio
import grp
import json
import logging
import os
import pwd
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NoReturn

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import ValidationError

from llb_core.api import requests
from llb_core.api.compressed import metrics_route
from llb_core.api.openapi import describe
from llb_core.api.routes import READS, WRITES, Control, Read, View, Write
from llb_core.api.streams import stream_routes
from llb_core.errors import ConfigurationError, HostError, LLBError, NotCarriedOut, NotThere
from llb_core.forks import keep_from_children
from llb_core.undisturbed import undisturbed
from llb_core.validation import problems

__all__ = ["Control", "View", "answering", "application", "bound", "owner_ids", "serving"]

log = logging.getLogger(__name__)

BODY_BYTES = 16 * 1024
"""The largest body of a request."""
BODY_SECONDS = 10.0
"""How long a request's body may take to arrive."""

_MODE = 0o660
_PEER = struct.Struct("3i")  # struct ucred, unix(7)


def _is_fault(record: logging.LogRecord) -> bool:
    """Say whether a line of aiohttp's is of anything but a request that can't be read: that is
    answered, and whoever reaches the daemon could fill its log with it."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError | web.RequestPayloadError)


logging.getLogger("aiohttp.server").addFilter(_is_fault)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(
    control: Control, *, may_write: bool, body_seconds: float = BODY_SECONDS
) -> web.Application:
    """Make what serves the resources. Without `may_write` those that change something are not in
    it at all: so it is made for whatever can be reached by more than the socket's owners."""
    made = web.Application(middlewares=[_errors_as_json], client_max_size=BODY_BYTES)
    made.add_routes([web.get(route.path, _reading(route, control)) for route in READS])
    made.add_routes([metrics_route(control.metrics), web.get("/openapi.json", _description)])
    if may_write:
        made.add_routes(stream_routes(control))
        made.add_routes(
            [web.post(route.path, _writing(route, control, body_seconds)) for route in WRITES]
        )
    return made


@asynccontextmanager
async def serving(
    path: Path,
    control: Control,
    *,
    owner: str | None = None,
    group: str | None = None,
    body_seconds: float = BODY_SECONDS,
) -> AsyncIterator[None]:
    """Answer on the socket at `path`, which only its owner (root) and its group may open."""
    with bound(path, owner, group) as listener:
        async with answering(listener, control, body_seconds=body_seconds):
            yield


@asynccontextmanager
async def answering(
    listener: socket.socket, control: Control, *, body_seconds: float = BODY_SECONDS
) -> AsyncIterator[None]:
    """Answer on a socket that is `bound`."""
    served = application(control, may_write=True, body_seconds=body_seconds)
    runner = web.AppRunner(served, access_log=None, shutdown_timeout=1.0, lingering_time=0.5)
    try:
        await runner.setup()
        await web.SockSite(runner, listener).start()
        yield
    finally:
        await runner.cleanup()


@contextmanager
def bound(path: Path, owner: str | None, group: str | None) -> Iterator[socket.socket]:
    """Bind the socket in place of one that a killed daemon left. Nobody can connect before
    `answering` listens; its owner and mode are set then."""
    ids = owner_ids(owner, group)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        keep_from_children(listener)
        try:
            path.unlink(missing_ok=True)
            # Made for nobody but us: what is between bind and chmod must not depend on the umask.
            before = os.umask(0o177)
            try:
                listener.bind(str(path))
            finally:
                os.umask(before)
            os.chown(path, *ids)
            path.chmod(_MODE)
        except OSError as error:
            raise HostError(f"{path}: can't be listened on: {error.strerror}") from None
        listener.setblocking(False)
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


def owner_ids(owner: str | None, group: str | None) -> tuple[int, int]:
    """Return their numbers, -1 where the process's own is to stay; HostError where there is none
    of that name."""
    try:
        uid = -1 if owner is None else pwd.getpwnam(owner).pw_uid
    except KeyError:
        raise HostError(
            f'api.socket_owner: this host has no user "{owner}": adduser --system {owner}'
        ) from None
    try:
        gid = -1 if group is None else grp.getgrnam(group).gr_gid
    except KeyError:
        raise HostError(
            f'api.socket_group: this host has no group "{group}": addgroup --system {group}'
        ) from None
    return uid, gid


def _reading(route: Read, control: Control) -> Handler:
    async def handle(_request: web.Request) -> web.StreamResponse:
        with undisturbed():
            text = await asyncio.to_thread(_as_json, await route.ask(control))
        return web.json_response(text=text)

    return handle


def _as_json(view: View) -> str:
    """Write an answer as JSON, long lists piece by piece: while the library writes one, nothing
    else in the process runs, the loop neither."""
    parts = []
    for name, value in view.items():
        if isinstance(value, list):
            parts.append(f"{json.dumps(name)}: [{', '.join(map(json.dumps, value))}]")
        else:
            parts.append(f"{json.dumps(name)}: {json.dumps(value)}")
    return f"{{{', '.join(parts)}}}"


def _writing(route: Write, control: Control, body_seconds: float) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            async with asyncio.timeout(body_seconds):
                body = await request.read()
        except TimeoutError:
            raise web.HTTPRequestTimeout from None
        except web.RequestPayloadError:
            raise ConfigurationError("the request's body can't be read") from None
        wanted = _validated(route.request, body)
        sudo_user = wanted.sudo_user if isinstance(wanted, requests.Signed) else None
        return web.json_response(await route.act(control, wanted, _sender(request, sudo_user)))

    return handle


def _validated(model: type[requests.Request], body: bytes) -> requests.Request:
    try:
        document = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise ConfigurationError("the request's body is no JSON") from None
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise ConfigurationError("; ".join(problems(error, document, model=model))) from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _sender(request: web.Request, sudo_user: str | None) -> str:
    """Return the name of the socket's peer, as the kernel knows it; with `sudo_user`, whom root
    acts for, which nobody else can claim."""
    peer = request.get_extra_info("socket")
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    _, uid, _ = _PEER.unpack(credentials)
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = f"uid {uid}"
    return f"{name} for {sudo_user}" if sudo_user and uid == 0 else name


async def _description(_request: web.Request) -> web.StreamResponse:
    return web.json_response(describe())


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        what = f"{request.method} {request.path}: {error.reason}"
        allowed = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        answer = _error(what, error.status, allowed)
        if isinstance(error, web.HTTPRequestTimeout):
            answer.force_close()  # What is left of the body may come as the next request.
        return answer
    except NotThere as error:
        return _error(str(error), 404)
    except ConfigurationError as error:
        return _error(str(error), 400)
    except NotCarriedOut as error:
        return _error(str(error), 503)
    except LLBError as error:
        return _error(str(error), 500)
    except Exception as error:
        log.exception("%s %s failed", request.method, request.path)
        return _error(f"it failed: {error!r}: see the log", 500)


def _error(text: str, status: int, headers: dict[str, Any] | None = None) -> web.Response:
    return web.json_response({"error": text}, status=status, headers=headers)
