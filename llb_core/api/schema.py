"""What is answered on the control socket, as models: the OpenAPI description is made of them, and a
test holds what the daemon answers against them. What may be asked is in `requests`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    """What an answer says."""

    model_config = ConfigDict(extra="forbid")


EventKindName = Literal[
    "opened", "closed", "dropped", "registered", "deregistered", "healthy", "unhealthy"
]


class _Between(Answer):
    service: str
    protocol: Literal["tcp", "udp"]
    client: str
    vip: str
    snat: str
    backend: str


class Connection(_Between):
    """A connection. Times in seconds; packets and bytes of both directions."""

    state: Literal["opening", "established", "closing", "closed", "udp"]
    age: float
    idle: float
    packets_in: int
    packets_out: int
    bytes_in: int
    bytes_out: int


class Connections(Answer):
    """Connections; `total` counts those that a limit has left out, too."""

    source: Literal["daemon"]
    total: int
    connections: list[Connection]


class PastConnection(_Between):
    """A connection that there was. `ended` is when its client was last heard of."""

    opened: float
    ended: float


class Who(Connections):
    """The connections behind an address that a backend saw, and those that there were, the newest
    first: a thousand of each at most. `ended_since`: of what ended later, nothing is forgotten."""

    ended: list[PastConnection]
    ended_total: int
    ended_since: float


class TopRow(Answer):
    """A client, a backend or a service: the connections that it has, and rates a second."""

    name: str
    connections: int
    opened: float
    packets: float
    bytes: float
    packets_in: float
    packets_out: float
    bytes_in: float
    bytes_out: float


class Top(Answer):
    """The first of them; `seconds` lay between the two looks at the tables."""

    source: Literal["daemon"]
    seconds: float
    by: Literal["client", "backend", "service"]
    top: list[TopRow]


class Event(Answer):
    """What happened, at a time in seconds since 1970. Which keys there are depends on the kind;
    `lost` says how many events could not be told."""

    time: float
    kind: EventKindName | Literal["lost"]
    service: str | None = None
    backend: str | None = None
    protocol: str = ""
    source: str = ""
    destination: str = ""
    snat: str = ""
    reason: str = ""
    duration: float = 0
    packets_in: int = 0
    packets_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    bytes: int = 0
    count: int = 0


class DroppedPacket(Answer):
    """One of the last packets that were dropped for a reason. `interface` is its index, `flags`
    are those of TCP."""

    time: float
    interface: int
    bytes: int
    flags: int
    protocol: str
    source: str
    destination: str
    service: str | None
    backend: str | None


class DroppedFor(Answer):
    """How many of them were for whom; null where they were for nobody in particular. Those
    for services and backends that are not there any more are not told of."""

    service: str | None
    backend: str | None
    packets: int


class DropReason(Answer):
    """Packets that were not sent on for one reason; `remedy` says what to do about it."""

    reason: str
    packets: int
    meaning: str
    remedy: str
    by: list[DroppedFor]
    last: list[DroppedPacket]


class Drops(Answer):
    """Every reason that was met, the most frequent first."""

    source: Literal["daemon"]
    drops: list[DropReason]


class Error(Answer):
    """What was wrong with the request (status 4xx), or what failed (5xx), one line each."""

    error: str


class OrderedBackend(Answer):
    """A backend of a service that an order was about."""

    service: str
    backend: str


class Ordered(Answer):
    """An order that is carried out, and for whom."""

    order: Literal["drain", "undrain", "disable", "enable", "weight"]
    backends: list[OrderedBackend]


class KilledConnection(_Between):
    """A connection that was ended."""


class Killed(Answer):
    """What was ended: how many, how many of them were reset, and the first hundred."""

    ended: int
    reset: int
    connections: list[KilledConnection]


class OrderView(Answer):
    """An order that stands. Times in seconds since 1970. `done`: when it was found that a drained
    backend has no connections left."""

    order: Literal["drain", "disable", "weight"]
    by: str
    at: float | None
    why: str
    weight: int | None
    deadline: float | None
    done: float | None


class Traffic(Answer):
    """What was counted: connections opened, packets and bytes from clients and to them, drops."""

    opened: int
    packets_in: int
    bytes_in: int
    packets_out: int
    bytes_out: int
    drops: int


class Rates(Answer):
    """What went on a second, lately: connections opened; packets and bytes, both ways; drops."""

    opened: float
    packets: float
    bytes: float
    drops: float


class BackendView(Traffic):
    """A backend of a service. `since`: when its health turned, in seconds since 1970.
    `provider_weights`: where providers of the service differ about its weight, what each says, the
    one that counts first; else nothing. `mode`: "active" takes new connections; "draining" keeps
    those it has and takes no more (drained, weight 0, or unhealthy with when_unhealthy = "keep");
    "ending" has them ended (disabled, or unhealthy with "end"); "retired" is named by no provider
    any more, and gone once its connections are; "waiting" waits for its first check."""

    service: str
    backend: str
    weight: int
    provider_weights: list[int]
    mode: Literal["active", "draining", "ending", "retired", "waiting"]
    health: Literal["healthy", "unhealthy", "unknown", "unchecked"]
    reason: str
    since: float | None
    orders: list[OrderView]
    connections: int | None
    rates: Rates | None


class Backends(Answer):
    """Every backend of every service."""

    source: Literal["daemon"]
    backends: list[BackendView]


class SourceView(Answer):
    """A provider of a service, and its last good answer, `age` seconds old."""

    provider: str
    is_ready: bool
    is_stale: bool
    age: float | None
    error: str


class ServiceState(Traffic):
    """What is known of a service with a daemon and without."""

    name: str
    addresses: list[str]
    backends: int
    active: int
    unhealthy: int
    reasons: dict[str, str]
    differing: int
    provider_weights: dict[str, list[int]]
    is_kept: bool
    unserved: list[str]
    connections: int | None


class ServiceView(ServiceState):
    """A service. `is_kept`: a provider has given no good answer yet, so what was installed stays.
    `reasons`: why backends are unhealthy, of some of them. `differing`: of how many backends its
    providers say different weights; `provider_weights`: what they say, of some of these.
    `unserved`: its addresses without a backend that takes connections and is not unhealthy."""

    rates: Rates | None
    sources: list[SourceView]


class Collection(Answer):
    """The last pass over the connections."""

    removed: int
    lone_halves: int
    seconds: float


class Status(Answer):
    """The daemon, its services, and what became of the packets. `listen`: where the status page and
    the metrics are to be, null for nowhere; `listen_error`: why they are not there, or nothing."""

    source: Literal["daemon"]
    name: str
    version: str
    pid: int
    config: str
    started: float
    turned: float | None
    public_interfaces: list[str]
    private_interface: str
    snat_addresses: list[str]
    listen: str | None
    listen_error: str
    max_connections: int
    families: list[int]
    """The address families that are open: 4, 6, or both; each has room for `max_connections`."""
    connections: int | None
    connections_by_state: dict[str, int] | None
    collection: Collection | None
    services: list[ServiceView]
    verdicts: dict[str, int]


class Plan(Answer):
    """The changes to the maps, in their order, a line each."""

    source: Literal["daemon"]
    changes: list[str]


class Reloaded(Answer):
    """What a reload changed, or would: settings of the balancer and `api.listen`, and the maps.
    `complaints`: providers that can't answer, why, and what stays meanwhile."""

    source: Literal["daemon"]
    is_applied: bool
    settings: list[str]
    changes: list[str]
    complaints: list[str]
