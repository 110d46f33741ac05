"""What the control socket tells bit by bit: connections, of which there may be a million, and what
happens, for as long as somebody listens. Not for whoever can reach the daemon by TCP: a listing
costs seconds of a CPU.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Collection, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    contextmanager,
    suppress,
)
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from aiohttp import HttpVersion11, web
from pydantic import ValidationError

from llb_core.api import listing, requests, schema
from llb_core.api.reading_process import Question, Send
from llb_core.api.sending import Handler, Places, has_gone, while_there
from llb_core.api.top import Top
from llb_core.api.who import who
from llb_core.errors import ConfigurationError, LLBError
from llb_core.model import Address, ServiceBackend
from llb_core.orders import Selection
from llb_core.past_connections import PastConnection, Seen
from llb_core.validation import problems

log = logging.getLogger(__name__)

READINGS_AT_ONCE = 2
"""What reads the tables, and not what sends what was found: each takes a CPU."""
_SOON = 0.01

Q = TypeVar("Q", bound=requests.Query)


class Listener(Protocol):
    """One who listens."""

    async def read(self) -> list[dict[str, Any]]:
        """Wait for events, and return them."""


class Teller(Protocol):
    """What the daemon tells bit by bit."""

    async def read_tables(self, question: Question) -> bytes:
        """Return what the tables of connections say."""

    def tables_onto(self, connection: int, question: Question) -> AbstractAsyncContextManager[Send]:
        """Have the same written onto a connection by another process: see `reading_process`."""

    def services(self) -> frozenset[str]:
        """Return the names of all services."""

    def backends_known(self) -> frozenset[ServiceBackend]:
        """Return the backends that are registered or installed."""

    def snat_addresses(self) -> tuple[Address, ...]:
        """Return the addresses of ours that backends see."""

    async def past_connections(self, seen: Seen) -> tuple[list[PastConnection], float]:
        """Return connections that there were, and since when none is missing among them."""

    def listening(self, kinds: Collection[str]) -> AbstractContextManager[Listener]:
        """Listen to events of some kinds for a while."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A resource that goes on for longer than one answer; its query is validated by a model."""

    path: str
    summary: str
    media: str
    query: type[requests.Query]
    answer: type[schema.Answer]
    """Of the whole, or of each line."""
    errors: tuple[str, ...] = ("400", "404", "500")
    """The statuses that it may have instead."""


STREAMS = (
    Stream(
        "/connections",
        "Connections, from all or those that are asked for",
        "application/json",
        requests.ConnectionsQuery,
        schema.Connections,
    ),
    Stream(
        "/who",
        "Which clients stand or stood behind an address of ours that a backend saw",
        "application/json",
        requests.WhoQuery,
        schema.Who,
    ),
    Stream(
        "/top",
        "Who opens most connections and sends most bytes, after some seconds",
        "application/json",
        requests.TopQuery,
        schema.Top,
        ("400", "500"),
    ),
    Stream(
        "/events",
        "What happens, a line of JSON each, until whoever asks goes away",
        "application/x-ndjson",
        requests.EventsQuery,
        schema.Event,
        ("400", "500"),
    ),
)


def stream_routes(teller: Teller) -> list[web.RouteDef]:
    """Return the resources of `STREAMS`."""
    readings = asyncio.Semaphore(READINGS_AT_ONCE)
    places = Places()

    async def connections(request: web.Request) -> web.StreamResponse:
        query = _validated(requests.ConnectionsQuery, request)
        if query.backend is not None:
            listing.refuse_unknown(query.service, teller.services())
            Selection.parse(query.backend, query.service).of(teller.backends_known())
        wanted = listing.Request(
            service=query.service,
            backend=query.backend,
            client=query.client,
            snat=query.snat,
            states=tuple(query.state),
            sort=query.sort,
            limit=query.limit,
            as_json=query.form == "json",
        )
        return await read(request, wanted, "application/json" if wanted.as_json else "text/plain")

    async def behind(request: web.Request) -> web.StreamResponse:
        query = _validated(requests.WhoQuery, request)
        async with readings:
            return web.json_response(await who(teller, query.address, query.backend))

    async def top(request: web.Request) -> web.StreamResponse:
        query = _validated(requests.TopQuery, request)
        return await read(
            request, Top(query.by, query.sort, query.seconds, query.limit), "application/json"
        )

    async def read(
        request: web.Request, question: Question, content_type: str
    ) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_type = content_type
        is_chunked = request.version >= HttpVersion11
        if is_chunked:
            response.enable_chunked_encoding()
        async with AsyncExitStack() as stack:
            # An error comes before any of it is sent.
            async with readings:
                if has_gone(request):
                    raise ConnectionResetError
                # Another number for it, of our own: nobody closes that, and has it used anew.
                connection = stack.enter_context(request.get_extra_info("socket").dup())
                tables = teller.tables_onto(connection.fileno(), question)
                send = await stack.enter_async_context(tables)
            try:
                with _cut_where_it_fails(connection):
                    async with places.place():
                        await response.prepare(request)
                        await _written(request)
                        await send(is_chunked)
            except LLBError as error:
                if request.transport is not None:
                    request.transport.abort()
                    log.warning("%s broke off: %s", request.path, error)
        return response

    async def events(request: web.Request) -> web.StreamResponse:
        query = _validated(requests.EventsQuery, request)
        listing.refuse_unknown(query.service, teller.services())
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        with teller.listening(query.kind) as listener, suppress(ConnectionResetError):
            await response.prepare(request)
            while True:
                told = [
                    event
                    for event in await listener.read()
                    if query.service in (None, event.get("service")) or event["kind"] == "lost"
                ]
                if told:
                    await response.write(b"".join(map(_line, told)))
        return response

    handlers: dict[str, Handler] = {
        "/connections": connections,
        "/who": behind,
        "/top": top,
        "/events": events,
    }
    return [web.get(stream.path, while_there(handlers[stream.path])) for stream in STREAMS]


@contextmanager
def _cut_where_it_fails(connection: socket.socket) -> Iterator[None]:
    """End a connection that an answer breaks off on: whoever asked sees that the end is missing,
    and every process that writes there, or waits to, that nobody reads."""
    try:
        yield
    except BaseException:
        with suppress(OSError):  # The other side has ended it already.
            connection.shutdown(socket.SHUT_RDWR)
        raise


async def _written(request: web.Request) -> None:
    """Wait until nothing is left of what the daemon itself writes onto a connection."""
    while (  # noqa: ASYNC110 - the library tells nobody
        request.transport is not None and request.transport.get_write_buffer_size()
    ):
        await asyncio.sleep(_SOON)


def _line(event: dict[str, Any]) -> bytes:
    return json.dumps(event).encode() + b"\n"


def _validated(model: type[Q], request: web.Request) -> Q:
    """Return a request's query; a name that is there several times makes a list."""
    document: dict[str, Any] = {}
    lists = {name for name, field in model.model_fields.items() if field.default_factory}
    for name, value in request.query.items():
        if name in lists:
            document.setdefault(name, []).append(value)
        else:
            document[name] = value
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise ConfigurationError("; ".join(problems(error, document, model=model))) from None
