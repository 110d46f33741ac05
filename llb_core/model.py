"""The values that the parts of LLB hand to each other: frozen, and free of I/O.

What is not here: reading a configuration (`config`), deciding (`planning`), and the bytes of the
eBPF maps (`datapath.layout`).
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from llb_core.rules import NO_RULES, Rules

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_WEIGHT = 65_535
MAX_DEADLINE_DAYS = 30
"""Of an order to drain."""

Table = npt.NDArray[np.uint32]
"""A service's table: a backend's slot, or 0 for none, in each place."""


def empty_table() -> Table:
    """Return the table of a service that has none."""
    return np.zeros(0, dtype=np.uint32)


class Transport(enum.StrEnum):
    """The protocol of a service, by the word that the configuration uses."""

    TCP = "tcp"
    UDP = "udp"

    @property
    def number(self) -> int:
        """The IANA protocol number, as it stands in an IP header."""
        return 6 if self is Transport.TCP else 17


def split_port(text: str) -> tuple[str, int | None]:
    """Return what stands before the port, and the port, None where there is none.

    IPv6 with a port stands in brackets, since a colon alone could be the address's own. Raises
    ValueError where brackets don't match, or the port is none from 1 to 65535.
    """
    host, colon, port = text, "", ""
    if text.startswith("["):
        host, bracket, behind = text[1:].partition("]")
        colon, port = behind[:1], behind[1:]
        if not bracket or colon not in ("", ":"):
            raise ValueError(f'"{text:.60}" is not like "[2001:db8::2]:80"')
    elif text.count(":") == 1:
        host, colon, port = text.partition(":")
    if not colon:
        return host, None
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65_535):
        raise ValueError(f'"{text:.60}": "{port:.60}" is not a port from 1 to 65535')
    return host, int(port)


_FAMILIES = {ipaddress.IPv4Address: 4, ipaddress.IPv6Address: 6}


class _Ordered:
    """Has room for its own place in an order, for its hash, and for what it is written as."""

    __slots__ = ("_hash", "_order", "_text")
    _hash: int
    _order: tuple[int, int, int]
    _text: str


@dataclass(frozen=True, slots=True)
class Endpoint(_Ordered):
    """An address and a port (1 to 65535). Sorted by family, address, port."""

    address: Address
    port: int

    def __post_init__(self) -> None:
        # Worked out but once: a turn sorts ten thousand again and again, and hashes them. Not of
        # what somebody else made of other types, which may be no address at all.
        family = _FAMILIES.get(type(self.address))
        if family is not None and type(self.port) is int:
            order = family, int(self.address), self.port
            object.__setattr__(self, "_order", order)
            object.__setattr__(self, "_hash", hash(order))

    @property
    def order(self) -> tuple[int, int, int]:
        """What to sort many by: addresses of two families would refuse to be compared, and to sort
        by this takes half of the time that comparing two by two does, or less."""
        try:
            return self._order
        except AttributeError:
            return self.address.version, int(self.address), self.port

    def __hash__(self) -> int:
        """Hash the numbers: an address by itself hashes its text."""
        try:
            return self._hash
        except AttributeError:
            return hash(self.order)

    def __lt__(self, other: Endpoint) -> bool:
        return self.order < other.order

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Read what `str` writes: `10.0.0.2:80` or `[2001:db8::2]:80`. Raises ValueError, which
        says what is wrong."""
        host, port = split_port(text)
        if port is None:
            raise ValueError(f'"{text:.60}" has no port: write it like "10.0.0.2:80"')
        try:
            return cls(ipaddress.ip_address(host), port)
        except ValueError:
            raise ValueError(
                f'"{text:.60}": "{host:.60}" is not an IP address: write one, not a name'
            ) from None

    def __str__(self) -> str:
        try:
            return self._text
        except AttributeError:  # But once: whoever looks again and again reads ten thousand.
            host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
            text = f"{host}:{self.port}"
            object.__setattr__(self, "_text", text)
            return text


@dataclass(frozen=True, slots=True)
class Backend:
    """One address and port that traffic of a service may be sent to, as a provider states it.

    `weight` is a share relative to the other backends of the service, 0 to 65535; 0 takes no new
    connections. `draining` keeps the connections and takes no new ones. `healthy` is what the
    provider knows of the backend's health, None where it does not say. `entry` is what the provider
    calls it (a line of a file, an instance), for errors; two that differ in it alone are equal.
    """

    endpoint: Endpoint
    weight: int = 1
    draining: bool = False
    healthy: bool | None = None
    entry: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds without a packet after which a connection in that state is over."""

    opening: float = 5.0
    established: float = 7200.0
    closing: float = 10.0
    closed: float = 60.0
    """Where the backend closed first: its side is in TIME_WAIT for as long."""
    udp: float = 60.0


class WhenUnhealthy(enum.StrEnum):
    """What happens to the connections of a backend that turns unhealthy."""

    KEEP = "keep"
    END = "end"


class WhenAllUnhealthy(enum.StrEnum):
    """Who gets new connections while no backend of the service is healthy."""

    ALL = "all"
    NONE = "none"


class Scheduler(enum.StrEnum):
    """How the backend of a new connection is chosen."""

    MAGLEV = "maglev"
    """By a hash of the connection's tuple into a consistent table."""
    ROUND_ROBIN = "round_robin"
    """One after the other, each as often as its weight says, evenly spread."""
    LEAST_CONNECTIONS = "least_connections"
    """Of two drawn by weight, the one with fewer connections for its weight."""
    SOURCE = "source"
    """By a hash of the client's network: its connections go to one backend."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a service's connections may come to, at once and new in a second, in all and of one
    client (one IPv4 address, or one IPv6 network of 64 bits); 0 for no limit."""

    connections: int = 0
    new_per_second: int = 0
    source_connections: int = 0
    source_new_per_second: int = 0


class Access(enum.StrEnum):
    """Whom a service lets in that none of its prefixes names."""

    OPEN = "open"
    """Everybody: it has no prefixes."""
    ALLOW = "allow"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Policy:
    """What becomes of a new connection, for one address family.

    With `Scheduler.SOURCE`, clients whose addresses begin with the same `affinity_prefix` bits are
    one. A backend that begins to take new connections gets a tenth of its share at first, and all
    of it after `slow_start` seconds.
    """

    scheduler: Scheduler = Scheduler.MAGLEV
    affinity_prefix: int = 32
    slow_start: float = 0.0
    access: Access = Access.OPEN
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True)
class Ticks:
    """The kernel's clock: 32 bits that wrap, and how many of them make a second."""

    now: int = 0
    per_second: int = 1

    def since(self, earlier: int) -> float:
        """Return the seconds since an earlier reading."""
        return ((self.now - earlier) & 0xFFFFFFFF) / self.per_second


@dataclass(frozen=True, slots=True, order=True)
class ServiceKey:
    """What a service is found by in a packet: virtual address (VIP), port and protocol."""

    endpoint: Endpoint
    protocol: Transport

    def __str__(self) -> str:
        return f"{self.endpoint}/{self.protocol}"


@dataclass(frozen=True, slots=True)
class Service:
    """One virtual service with its policies; one key for each address family it is served on."""

    name: str
    keys: tuple[ServiceKey, ...]
    scheduler: Scheduler = Scheduler.MAGLEV
    affinity_prefixes: tuple[int, int] = (32, 128)
    """The bits of a client's address that decide with `Scheduler.SOURCE`, for IPv4 and for IPv6."""
    slow_start: float = 0.0
    when_unhealthy: WhenUnhealthy = WhenUnhealthy.KEEP
    when_all_unhealthy: WhenAllUnhealthy = WhenAllUnhealthy.ALL
    timeouts: Timeouts = field(default_factory=Timeouts)
    reset_idle: bool = False
    """Whether both sides of a TCP connection are reset that is idle beyond its time."""
    is_checked: bool = True
    """Whether health checks decide; without them a backend counts as healthy."""
    access: Access = Access.OPEN
    rules: tuple[Rules, ...] = ()
    """For IPv4 and for IPv6, where there are any."""
    limits: Limits = Limits()

    def policy(self, family: int) -> Policy:
        """Return what holds for new connections over one address family."""
        prefix = self.affinity_prefixes[family == 6]
        return Policy(self.scheduler, prefix, self.slow_start, self.access, self.limits)

    def rules_of(self, family: int) -> Rules:
        """Return the prefixes of clients over one address family."""
        return self.rules[family == 6] if self.rules else NO_RULES


class BackendMode(enum.StrEnum):
    """What the classifier does for a backend."""

    ACTIVE = "active"
    """In the service's table: takes new connections."""
    DRAINING = "draining"
    """Keeps its connections, takes no new ones (drained, weight 0, or unhealthy with `keep`)."""
    ENDING = "ending"
    """Takes no new connections, and those it has end at once (unhealthy with `end`)."""
    RETIRED = "retired"
    """Deregistered: its TCP connections go on to their end, its UDP flows are chosen anew; its
    slot is freed once no connection uses it."""


class OrderKind(enum.StrEnum):
    """What an operator can order for a backend of a service."""

    DRAIN = "drain"
    """It keeps its connections, and takes no new ones."""
    DISABLE = "disable"
    """It takes no new connections, and those it has end at once."""
    WEIGHT = "weight"
    """It has that weight, whatever its provider says."""


@dataclass(frozen=True, slots=True)
class Order:
    """An order that stands: what, by whom, when (seconds since 1970) and why.

    `at` is None, and `by` empty, where that was not written down. `weight` goes with WEIGHT alone,
    `deadline` with DRAIN: when the connections that are left then are ended. So does `done`: when
    it was found that none are left, None while some may be. `due` is the deadline by the clock that
    nobody sets (`time.monotonic`), None in a daemon that found the order standing.
    """

    kind: OrderKind
    by: str = ""
    at: float | None = None
    why: str = ""
    weight: int | None = None
    deadline: float | None = None
    done: float | None = None
    due: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class BackendOrders:
    """The orders that stand for one backend of a service: one about whether it takes connections
    (DRAIN or DISABLE), and one about its weight."""

    traffic: Order | None = None
    weight: Order | None = None

    def __iter__(self) -> Iterator[Order]:
        return (order for order in (self.traffic, self.weight) if order is not None)

    @property
    def is_disabled(self) -> bool:
        """Whether its connections are to end."""
        return self.traffic is not None and self.traffic.kind is OrderKind.DISABLE

    @property
    def is_drained(self) -> bool:
        """Whether it is to take no new connections, and to keep those it has."""
        return self.traffic is not None and self.traffic.kind is OrderKind.DRAIN


ServiceBackend = tuple[str, Endpoint]
"""The name of a service, and one of its backends."""


@dataclass(frozen=True, slots=True)
class Route:
    """The way to a backend: interface index, next hop (the backend itself where it is on-link),
    and the largest IP packet in bytes that the interface or the route takes.

    `next_hop` is None where it is a gateway of the other family: the kernel looks it up by itself,
    for each packet.
    """

    interface: int
    next_hop: Address | None
    mtu: int


@dataclass(frozen=True, slots=True)
class DesiredBackend:
    """A backend as the maps ought to hold it. `route` is None where the kernel knows none."""

    endpoint: Endpoint
    weight: int
    mode: BackendMode
    route: Route | None = None


@dataclass(frozen=True, slots=True)
class DesiredService:
    """A service as the maps ought to hold it; backends sorted by endpoint, each but once, and of
    the family of the key."""

    name: str
    key: ServiceKey
    timeouts: Timeouts
    backends: tuple[DesiredBackend, ...]
    policy: Policy = Policy()
    rules: Rules = NO_RULES


@dataclass(frozen=True, slots=True)
class Desired:
    """What ought to be installed, for one address family.

    `routes` are those to backends that no desired service names but that still have connections
    (retired ones), so that these follow a route that changes.
    """

    services: Mapping[ServiceKey, DesiredService]
    routes: Mapping[Address, Route] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InstalledBackend:
    """A backend as the maps hold it, in its slot (an index from 1 of the map `backends`; a slot
    belongs to one service)."""

    slot: int
    service_slot: int
    endpoint: Endpoint
    mode: BackendMode
    route: Route | None = None
    weight: int = 1
    """Kept so that a daemon that starts anew, and hears nothing from its provider, can go on
    taking unhealthy backends out of the table and putting them back."""
    started: int = 0
    """The kernel's ticks when its slow start began; 0 where it has its whole share."""


@dataclass(frozen=True, slots=True, eq=False)
class InstalledService:
    """A service as the maps hold it, in its slot (an index from 1 of the map `services`).

    `table` is empty where the service has no active backend; whoever holds one must not
    write into it. `is_reachable` says whether a packet finds it (its key is in the map).
    """

    slot: int
    name: str
    key: ServiceKey
    timeouts: Timeouts
    table: Table = field(default_factory=empty_table)
    is_reachable: bool = True
    policy: Policy = Policy()

    def __eq__(self, other: object) -> bool:
        """Compare by value; an array alone would answer place by place."""
        if not isinstance(other, InstalledService):
            return NotImplemented
        return (
            self.slot == other.slot
            and self.name == other.name
            and self.key == other.key
            and self.timeouts == other.timeouts
            and self.is_reachable == other.is_reachable
            and self.policy == other.policy
            and np.array_equal(self.table, other.table)
        )


@dataclass(frozen=True, slots=True)
class Installed:
    """What the maps hold, for one address family."""

    services: Mapping[int, InstalledService] = field(default_factory=dict)
    backends: Mapping[int, InstalledBackend] = field(default_factory=dict)
    rules: Mapping[int, Rules] = field(default_factory=dict)
    """Prefixes of clients, by the slot of their service; none is empty."""
