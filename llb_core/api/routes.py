"""Every resource of the control socket, in one table: the server serves it, and `openapi` describes
it. What a resource answers is the daemon's business (`Control`).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from llb_core.api import reading_process, requests, schema, streams
from llb_core.api.page.live import Look
from llb_core.ending import Ended
from llb_core.errors import ConfigurationError
from llb_core.model import Address, Endpoint, Order, OrderKind, ServiceBackend
from llb_core.orders import Selection, parse_endpoint
from llb_core.past_connections import PastConnection, Seen

View = dict[str, Any]


class Control(Protocol):
    """What the daemon can be asked."""

    async def status(self) -> View:
        """Say how everything is."""

    async def backends(self) -> View:
        """Say how each backend is."""

    async def drops(self) -> View:
        """Say which packets were dropped, and why."""

    async def metrics(self) -> bytes:
        """Return everything that Prometheus is told, as text."""

    async def page(self, look: Look) -> bytes:
        """Return what the status page shows, as JSON."""

    async def plan(self) -> View:
        """Say what the next turn would change."""

    async def order(self, selection: Selection, order: Order) -> Iterable[ServiceBackend]:
        """Give an order for backends that are registered, and return for which."""

    async def take_back(
        self, selection: Selection, kind: OrderKind, by: str, why: str
    ) -> Iterable[ServiceBackend]:
        """Take orders of that kind back, and return for which backends."""

    async def kill_of_client(
        self, client: Endpoint, vip: Endpoint | None, by: str, why: str
    ) -> Ended:
        """End a client's connections, and reset both sides."""

    async def kill_of_backend(self, selection: Selection, by: str, why: str) -> Ended:
        """End the connections of backends, and reset both sides."""

    async def reload(self, *, dry_run: bool) -> View:
        """Take over the configuration's file, or say what that would change."""

    async def read_tables(self, question: reading_process.Question) -> bytes:
        """Return what the tables of connections say."""

    def tables_onto(
        self, connection: int, question: reading_process.Question
    ) -> AbstractAsyncContextManager[reading_process.Send]:
        """Have the same written onto a connection by another process."""

    def services(self) -> frozenset[str]:
        """Return the names of all services."""

    def backends_known(self) -> frozenset[ServiceBackend]:
        """Return the backends that are registered or installed."""

    def snat_addresses(self) -> tuple[Address, ...]:
        """Return the addresses of ours that backends see."""

    async def past_connections(self, seen: Seen) -> tuple[list[PastConnection], float]:
        """Return connections that there were, and since when none is missing among them."""

    def listening(self, kinds: Collection[str]) -> AbstractContextManager[streams.Listener]:
        """Listen to events of some kinds for a while."""


@dataclass(frozen=True, slots=True)
class Read:
    """A resource that only tells: it may be served to whoever can reach the daemon."""

    path: str
    summary: str
    answer: type[schema.Answer]
    ask: Callable[[Control], Awaitable[View]]


@dataclass(frozen=True, slots=True)
class ReadText:
    """A resource that only tells, and not in JSON: what serves it is a module of its own."""

    path: str
    summary: str
    media: str


@dataclass(frozen=True, slots=True)
class Write:
    """A resource that changes something: for those alone who may open the Unix socket."""

    path: str
    summary: str
    answer: type[schema.Answer]
    request: type[requests.Request]
    act: Callable[[Control, Any, str], Awaitable[View]]
    """With the validated request, and the name of whoever sent it."""


async def _give(
    kind: OrderKind, control: Control, request: requests.BackendRequest, by: str
) -> View:
    now = time.time()
    deadline = request.deadline if isinstance(request, requests.DrainRequest) else None
    order = Order(
        kind=kind,
        by=by,
        at=now,
        why=request.why,
        weight=request.weight if isinstance(request, requests.WeightRequest) else None,
        deadline=None if deadline is None else now + deadline,
        due=None if deadline is None else time.monotonic() + deadline,
    )
    selection = Selection.parse(request.backend, request.service)
    return _ordered(str(kind), await control.order(selection, order))


async def _take_back(
    word: str, kind: OrderKind, control: Control, request: requests.BackendRequest, by: str
) -> View:
    selection = Selection.parse(request.backend, request.service)
    return _ordered(word, await control.take_back(selection, kind, by, request.why))


async def _weigh(control: Control, request: requests.WeightRequest, by: str) -> View:
    if request.weight is None:
        return await _take_back("weight", OrderKind.WEIGHT, control, request, by)
    return await _give(OrderKind.WEIGHT, control, request, by)


async def _kill(control: Control, request: requests.KillRequest, by: str) -> View:
    if (request.client is None) == (request.backend is None):
        raise ConfigurationError("name a client or a backend, one of them")
    if request.backend is not None:
        if request.vip is not None:
            raise ConfigurationError("vip: goes with a client")
        selection = Selection.parse(request.backend, request.service)
        ended = await control.kill_of_backend(selection, by, request.why)
    else:
        if request.service is not None:
            raise ConfigurationError("service: goes with a backend")
        vip = None if request.vip is None else parse_endpoint(request.vip)
        client = parse_endpoint(request.client or "")
        ended = await control.kill_of_client(client, vip, by, request.why)
    return {
        "ended": ended.count,
        "reset": ended.resets,
        "connections": [
            {
                "service": service,
                "protocol": str(each.protocol),
                "client": str(each.client),
                "vip": str(each.vip),
                "snat": str(each.snat),
                "backend": str(each.backend),
            }
            for service, each in ended.first
        ],
    }


async def _reload(control: Control, request: requests.ReloadRequest, _: str) -> View:
    return await control.reload(dry_run=request.dry_run)


def _ordered(word: str, backends: Iterable[ServiceBackend]) -> View:
    return {
        "order": word,
        "backends": [
            {"service": name, "backend": str(endpoint)} for name, endpoint in sorted(backends)
        ],
    }


READS = (
    Read(
        "/status",
        "The daemon, its services, sources, tables and verdicts",
        schema.Status,
        lambda control: control.status(),
    ),
    Read(
        "/backends",
        "Every backend: how it is, what is ordered for it, what it carries",
        schema.Backends,
        lambda control: control.backends(),
    ),
    Read(
        "/drops",
        "Packets that were dropped or refused, by reason, and the last of each",
        schema.Drops,
        lambda control: control.drops(),
    ),
    Read(
        "/plan",
        "The changes that the next turn would make",
        schema.Plan,
        lambda control: control.plan(),
    ),
)

TEXTS = (ReadText("/metrics", "The same and more, as Prometheus reads it", "text/plain"),)

WRITES = (
    Write(
        "/drain",
        "Let backends keep their connections, and give them no new ones",
        schema.Ordered,
        requests.DrainRequest,
        partial(_give, OrderKind.DRAIN),
    ),
    Write(
        "/undrain",
        "Take the order to drain back, also for backends that are registered no more",
        schema.Ordered,
        requests.BackendRequest,
        partial(_take_back, "undrain", OrderKind.DRAIN),
    ),
    Write(
        "/disable",
        "Give backends no connections, and end those they have",
        schema.Ordered,
        requests.BackendRequest,
        partial(_give, OrderKind.DISABLE),
    ),
    Write(
        "/enable",
        "Take the order to disable back, also for backends that are registered no more",
        schema.Ordered,
        requests.BackendRequest,
        partial(_take_back, "enable", OrderKind.DISABLE),
    ),
    Write(
        "/weight",
        "Give backends a weight in the place of their provider's",
        schema.Ordered,
        requests.WeightRequest,
        _weigh,
    ),
    Write(
        "/kill",
        "End connections, of a client or of a backend, and reset both their sides",
        schema.Killed,
        requests.KillRequest,
        _kill,
    ),
    Write(
        "/reload",
        "Take over the configuration's file, whole or not at all",
        schema.Reloaded,
        requests.ReloadRequest,
        _reload,
    ),
)
