"""The bytes that daemon and classifier share, as numpy sees them: records, maps and their sizes.

`bpf/types.h`, `bpf/maps.h`, `bpf/limits.h` and `bpf/verdict.h` say the same in C; a test holds the
two together. Addresses and ports lie in network order, all else in the host's.

The C sources are compiled once for each address family, and each family has maps of its own, with
records that differ by the size of an address: `IPV4` and `IPV6`, or `records(family)`. In them an
address is one word (IPv4) or four (IPv6): `pack` makes what such a field is set to, `unpack` reads
it, and `words` looks at a column of them.
"""

from __future__ import annotations

import enum
import ipaddress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from llb_core.model import Address
from llb_core.planning.capacity import BACKEND_SLOTS, SERVICE_SLOTS
from llb_core.planning.states import ANSWERED as ANSWERED
from llb_core.planning.states import ASSURED as ASSURED
from llb_core.planning.states import BACKEND_CLOSED_FIRST as BACKEND_CLOSED_FIRST
from llb_core.planning.states import BACKEND_FIN as BACKEND_FIN
from llb_core.planning.states import CLIENT_FIN as CLIENT_FIN
from llb_core.planning.states import RESET as RESET
from llb_core.planning.states import STATE_MASK as STATE_MASK
from llb_core.planning.states import ConnectionState as ConnectionState

LAYOUT_VERSION = 4
"""Part of the pin directory's name: raise it whenever a record or a map below changes."""

MAX_SERVICES = SERVICE_SLOTS + 1
MAX_BACKENDS = BACKEND_SLOTS + 1
VIP_FILTER_BITS = 32_768
MAX_CIDRS = 16
MAX_SNAT_ADDRESSES = 16
MAX_SOURCES = 65_536
PORT_WORDS = 1_024
"""Words of 64 bits, one bit for each port."""
MAX_RULES = 1 << 20
MAX_DROP_COUNTERS = 65_536
MAX_COLLECT = 32
"""Keys of IPv6 that the kernel takes in one packet of a test run, a page with its head and tail."""
MAX_END = 12
MAX_FRAGMENTS = 8_192
REFUSAL_BUCKETS = 4_096
CARRYING_SECONDS = 10
"""How long connections may be missing while those of earlier maps are copied into these."""
MAX_OPENING = 262_144
"""Opening connections at once, at most: by default, and where `max_connections` leaves room."""
TIMEOUT_NAMES = ("opening", "established", "closing", "closed", "udp")
LIMIT_NAMES = ("connections", "new_per_second", "source_connections", "source_new_per_second")

U32 = np.dtype("u4")
I64 = np.dtype("i8")
U64 = np.dtype("u8")
NOTHING = np.dtype("V0")
"""A ring has neither keys nor values."""

_Fields = list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Records:
    """The records that hold addresses, for one address family (4 or 6)."""

    family: int
    address: np.dtype[Any] = field(init=False)
    flow_key: np.dtype[Any] = field(init=False)
    nat_entry: np.dtype[Any] = field(init=False)
    ended: np.dtype[Any] = field(init=False)
    """A connection that was ended, both its halves; a request to end it, too."""
    fragment_key: np.dtype[Any] = field(init=False)
    fragment: np.dtype[Any] = field(init=False)
    service_key: np.dtype[Any] = field(init=False)
    source_key: np.dtype[Any] = field(init=False)
    rule_key: np.dtype[Any] = field(init=False)
    correction: np.dtype[Any] = field(init=False)
    service: np.dtype[Any] = field(init=False)
    backend: np.dtype[Any] = field(init=False)
    cidr: np.dtype[Any] = field(init=False)
    config: np.dtype[Any] = field(init=False)
    event: np.dtype[Any] = field(init=False)
    drop_example: np.dtype[Any] = field(init=False)

    def __post_init__(self) -> None:
        address = np.dtype(">u4") if self.family == 4 else np.dtype((">u4", 4))
        cidr = np.dtype([("address", address), ("mask", address)])
        key, half = np.dtype(_flow_key(address)), np.dtype(_padded(_nat_entry(address)))
        for name, record in (
            ("address", address),
            ("flow_key", key),
            ("nat_entry", half),
            ("ended", np.dtype([("key", key), ("dnat_half", half), ("snat_half", half)])),
            ("fragment_key", np.dtype(_fragment_key(address))),
            ("fragment", np.dtype(_fragment(address))),
            ("service_key", np.dtype(_service_key(address))),
            ("source_key", np.dtype([("service", "u4"), ("network", address)])),
            ("rule_key", np.dtype([("length", "u4"), ("service", "u4"), ("address", address)])),
            ("correction", np.dtype(_correction(address))),
            ("service", np.dtype(_service(address))),
            ("backend", np.dtype(_backend(address))),
            ("cidr", cidr),
            ("config", np.dtype(_config(address, cidr))),
            ("event", np.dtype(_event(address))),
            ("drop_example", np.dtype(_drop_example(address))),
        ):
            object.__setattr__(self, name, record)

    @property
    def address_words(self) -> int:
        """How many words of 32 bits an address has; `ADDR_WORDS` in C."""
        return self.address.itemsize // 4

    def pack(self, address: Address) -> int | tuple[int, ...]:
        """Return what a field that holds this address is to be set to.

        Raises ValueError for an address of the other family.
        """
        if address.version != self.family:
            raise ValueError(f"{address} is no IPv{self.family} address")
        number = int(address)
        if self.family == 4:
            return number
        return tuple(number >> shift & 0xFFFFFFFF for shift in (96, 64, 32, 0))

    def unpack(self, value: Any) -> Address:
        """Return the address that a field holds."""
        if self.family == 4:
            return ipaddress.IPv4Address(int(value))
        return ipaddress.IPv6Address(np.asarray(value, dtype=">u4").tobytes())

    def filter_place(self, address: Address, port: int) -> int:
        """Return the bit of the map `vip_filter` that an address and a port fall on; `addr_place()`
        in C."""
        words = self.pack(address)
        hashed = port * 0x9E3779B1 & 0xFFFFFFFF
        for word in (words,) if isinstance(words, int) else words:
            hashed = (hashed ^ word) * 0x9E3779B1 & 0xFFFFFFFF
        return hashed // (2**32 // VIP_FILTER_BITS)

    def words(self, column: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a column of addresses as one row of words each, for either family."""
        return column.reshape(len(column), self.address_words)


def _flow_key(address: np.dtype[Any]) -> _Fields:
    return [
        ("src", address),
        ("dst", address),
        ("sport", ">u2"),
        ("dport", ">u2"),
        ("proto", "u1"),
        ("pad", "u1", 3),
    ]


def _nat_entry(address: np.dtype[Any]) -> _Fields:
    return [
        ("state", "u4"),
        ("seen", "u4"),
        ("bytes", "u8"),
        ("new_src", address),
        ("new_dst", address),
        ("new_sport", ">u2"),
        ("new_dport", ">u2"),
        ("addr_delta", "u2"),
        ("port_delta", "u2"),
        ("backend", "u2"),
        ("service", "u2"),
        ("next", "u4"),
        ("ack", "u4"),
        ("packets", "u4"),
        ("checked", "u2"),
        ("mtu", "u2"),
        ("ifindex", "u4"),  # of a DNAT half its `place` in the opening ring
        ("next_hop", address),
        ("opened", "u4"),
    ]


def _fragment_key(address: np.dtype[Any]) -> _Fields:
    return [
        ("src", address),
        ("dst", address),
        ("id", "u4"),
        ("proto", "u1"),
        ("pad", "u1", 3),
    ]


def _fragment(address: np.dtype[Any]) -> _Fields:
    return [
        ("seen", "u4"),
        ("ifindex", "u4"),
        ("mtu", "u4"),
        ("service", "u4"),
        ("backend", "u4"),
        ("next_hop", address),
        ("new_src", address),
        ("new_dst", address),
        ("new_sport", ">u2"),
        ("new_dport", ">u2"),
        ("new_id", ">u2"),
        ("from_client", "u1"),
        ("pad", "u1"),
    ]


def _correction(address: np.dtype[Any]) -> _Fields:
    return [("what", "u4"), ("slot", "u4"), ("by", "i4"), ("network", address)]


def _service_key(address: np.dtype[Any]) -> _Fields:
    return [("address", address), ("port", ">u2"), ("proto", "u1"), ("pad", "u1")]


def _service(address: np.dtype[Any]) -> _Fields:
    return [
        ("address", address),
        ("port", ">u2"),
        ("proto", "u1"),
        ("scheduler", "u1"),
        ("timeouts", "u4", len(TIMEOUT_NAMES)),
        ("affinity_prefix", "u4"),
        ("slow_start", "u4"),
        ("access", "u4"),
        ("limits", "u4", len(LIMIT_NAMES)),
        ("milliseconds", "u4", len(TIMEOUT_NAMES)),
        ("name", "S64"),
    ]


def _backend(address: np.dtype[Any]) -> _Fields:
    return [
        ("address", address),
        ("port", ">u2"),
        ("mode", "u2"),
        ("service", "u4"),
        ("next_hop", address),
        ("ifindex", "u4"),
        ("mtu", "u4"),
        ("weight", "u4"),
        ("started", "u4"),
    ]


def _config(address: np.dtype[Any], cidr: np.dtype[Any]) -> _Fields:
    return [
        ("private_ifindex", "u4"),
        ("ticks_per_second", "u4"),
        ("cidr_count", "u4"),
        ("snat_count", "u4"),
        ("port_low", "u4"),
        ("port_count", "u4"),
        ("carrying", "u4"),
        ("pad", "u4"),
        ("cidrs", cidr, MAX_CIDRS),
        ("snat", address, MAX_SNAT_ADDRESSES),
        ("host_ports", "u8", PORT_WORDS),
    ]


def _event(address: np.dtype[Any]) -> _Fields:
    return [
        ("time", "u8"),
        ("bytes_in", "u8"),
        ("bytes_out", "u8"),
        ("packets_in", "u4"),
        ("packets_out", "u4"),
        ("kind", "u4"),
        ("reason", "u4"),
        ("service", "u4"),
        ("backend", "u4"),
        ("ticks", "u4"),
        ("key", np.dtype(_flow_key(address))),
        ("from", address),
        ("to", address),
        ("from_port", ">u2"),
        ("to_port", ">u2"),
    ]


def _drop_example(address: np.dtype[Any]) -> _Fields:
    return [
        ("time", "u8"),
        ("service", "u4"),
        ("backend", "u4"),
        ("ifindex", "u4"),
        ("length", "u4"),
        ("key", np.dtype(_flow_key(address))),
        ("flags", "u1"),
        ("pad", "u1", 7),
    ]


def _padded(fields: _Fields) -> _Fields:
    """Fill the last 8 bytes up, as `pad` does in C where a record begins with 64 bits."""
    missing = -np.dtype(fields).itemsize % 8
    return [*fields, ("pad", "u1", missing)] if missing else fields


IPV4 = Records(4)
IPV6 = Records(6)


def records(family: int) -> Records:
    """Return the records of an address family, 4 or 6: an address's `version`."""
    return {4: IPV4, 6: IPV6}[family]


FLOW_KEY = IPV4.flow_key
NAT_ENTRY = IPV4.nat_entry
SERVICE_KEY = IPV4.service_key
SERVICE = IPV4.service
BACKEND = IPV4.backend
CIDR = IPV4.cidr
CONFIG = IPV4.config
"""For callers that know one family only."""

COUNTERS = np.dtype(
    [
        (name, "u8")
        for name in (
            "packets_in",
            "bytes_in",
            "packets_out",
            "bytes_out",
            "connections",
            "drops",
            "no_port",
            "opening_evicted",
        )
    ]
)
DROP_KEY = np.dtype([("service", "u4"), ("backend", "u4"), ("verdict", "u4")])
"""Whose packets were dropped, by slots, of which 0 is nobody's, and why."""
LISTENING = np.dtype([("until", "u4"), ("kinds", "u4"), ("lost", "u8")])
"""Who listens to the ring of events: until when, in ticks, and to which kinds."""

EVENT_BYTES = 1 << 20
"""Of the ring of events, in each family: some ten thousand events."""
DROP_EXAMPLES = 4
"""How many of the last packets are kept for each verdict, a CPU."""


class EventKind(enum.IntFlag):
    """What the classifier tells of; `enum event_kind` of `bpf/types.h`."""

    OPENED = 1
    CLOSED = 2
    DROPPED = 4


class EndReason(enum.IntEnum):
    """Why a connection is none any more; `enum end_reason` of `bpf/types.h`."""

    FINISHED = 1
    RESET = 2
    IDLE = 3
    BACKEND = 4
    EVICTED = 5
    REUSED = 6
    ORDERED = 7


SERVICE_LOAD = np.dtype([("turn", "u8"), ("due", "u8"), ("connections", "i8")])
SOURCE_LOAD = np.dtype([("due", "u8"), ("connections", "i8")])


RULE_ALLOW, RULE_DENY = 1, 2
RULE_SERVICE_BITS = 32
"""Of a rule's key, those that hold the service come first, and always count."""


class Corrected(enum.IntEnum):
    """Whose count of connections a correction is for; `enum corrected` in bpf/collect.h."""

    SERVICE = 1
    BACKEND = 2
    SOURCE = 3


REFUSAL_BUCKET = np.dtype([("filled", "u4"), ("credit", "u4")])


class Verdict(enum.IntEnum):
    """What became of a packet, and why; the words of `bpf/verdict.h`."""

    PASS_NOT_OURS = 0
    PASS_UNPARSED = 1
    PASS_NO_CONNECTION = 2
    PASS_HOST_SOCKET = 3
    FORWARD_NEW = 4
    FORWARD_TO_BACKEND = 5
    FORWARD_TO_CLIENT = 6
    FORWARD_ERROR = 7
    REFUSE_TTL = 8
    REFUSE_TOO_BIG = 9
    DROP_NO_BACKEND = 10
    DROP_NO_ROUTE = 11
    DROP_NO_PORT = 12
    DROP_TABLE_FULL = 13
    DROP_UNKNOWN_ANSWER = 14
    DROP_SPOOFED = 15
    DROP_FRAGMENT = 16
    DROP_TTL = 17
    DROP_TOO_BIG = 18
    DROP_ENDING = 19
    DROP_ERROR = 20
    DROP_DENIED = 21
    DROP_SERVICE_FULL = 22
    DROP_SERVICE_RATE = 23
    DROP_SOURCE_FULL = 24
    DROP_SOURCE_RATE = 25
    DROP_STALE_ERROR = 26
    DROP_EXTENSIONS = 27


class MapType(enum.IntEnum):
    """`enum bpf_map_type` of the kernel, as far as LLB uses it."""

    HASH = 1
    ARRAY = 2
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LPM_TRIE = 11
    ARRAY_OF_MAPS = 12
    RINGBUF = 27


NO_PREALLOC = 1
"""BPF_F_NO_PREALLOC: memory is taken entry by entry; a trie knows no other way."""
MMAPABLE = 1 << 10
"""BPF_F_MMAPABLE: an array's values can be mapped into a process's memory."""
INNER_MAP_FLAG = 1 << 12
"""BPF_F_INNER_MAP: inner arrays of one outer map may differ in size."""


@dataclass(frozen=True, slots=True)
class MapSpec:
    """What a map must be like: the kernel's type, records, and how many entries it has."""

    name: str
    type: MapType
    key: np.dtype
    value: np.dtype
    entries: int
    flags: int = 0


PLACES_A_WORD = 4
PLACE = np.dtype("u2")
"""What a place of a service's table holds: a backend's slot."""
INNER_TABLE = MapSpec("maglev", MapType.ARRAY, U32, U64, 8, INNER_MAP_FLAG | MMAPABLE)
"""The prototype of a service's table: its first word holds the number of places that follow."""


def map_specs(max_connections: int, family: int = 4) -> tuple[MapSpec, ...]:
    """Return the pinned maps of one address family, in the order in which they are made."""
    of = records(family)
    return (
        MapSpec("dnat_table", MapType.HASH, of.flow_key, of.nat_entry, max_connections),
        MapSpec("snat_table", MapType.HASH, of.flow_key, of.nat_entry, max_connections),
        MapSpec("opening_ring", MapType.ARRAY, U32, of.flow_key, opening_places(max_connections)),
        MapSpec("opening_cursor", MapType.ARRAY, U32, U64, 2),
        MapSpec("service_keys", MapType.HASH, of.service_key, U32, 2 * MAX_SERVICES),
        MapSpec("vip_filter", MapType.ARRAY, U32, U64, VIP_FILTER_BITS // 64),
        MapSpec("services", MapType.ARRAY, U32, of.service, MAX_SERVICES),
        MapSpec("backends", MapType.ARRAY, U32, of.backend, MAX_BACKENDS),
        MapSpec("maglev_tables", MapType.ARRAY_OF_MAPS, U32, U32, MAX_SERVICES),
        MapSpec("service_loads", MapType.ARRAY, U32, SERVICE_LOAD, MAX_SERVICES),
        MapSpec("backend_loads", MapType.ARRAY, U32, I64, MAX_BACKENDS),
        MapSpec("source_loads", MapType.LRU_HASH, of.source_key, SOURCE_LOAD, MAX_SOURCES),
        MapSpec("access_rules", MapType.LPM_TRIE, of.rule_key, U32, MAX_RULES, NO_PREALLOC),
        MapSpec("fragments", MapType.LRU_HASH, of.fragment_key, of.fragment, MAX_FRAGMENTS),
        MapSpec("refusal_buckets", MapType.ARRAY, U32, REFUSAL_BUCKET, REFUSAL_BUCKETS + 1),
        MapSpec("config_index", MapType.ARRAY, U32, U32, 1),
        MapSpec("configs", MapType.ARRAY, U32, of.config, 2),
        MapSpec("verdicts", MapType.PERCPU_ARRAY, U32, U64, len(Verdict)),
        MapSpec("service_counters", MapType.PERCPU_ARRAY, U32, COUNTERS, MAX_SERVICES),
        MapSpec("backend_counters", MapType.PERCPU_ARRAY, U32, COUNTERS, MAX_BACKENDS),
        MapSpec(
            "drop_counters", MapType.PERCPU_HASH, DROP_KEY, U64, MAX_DROP_COUNTERS, NO_PREALLOC
        ),
        MapSpec("events", MapType.RINGBUF, NOTHING, NOTHING, EVENT_BYTES),
        MapSpec("listening", MapType.ARRAY, U32, LISTENING, 1),
        MapSpec(
            "drop_examples",
            MapType.PERCPU_ARRAY,
            U32,
            of.drop_example,
            len(Verdict) * DROP_EXAMPLES,
        ),
    )


def opening_places(max_connections: int) -> int:
    """Return how many connections may be opening at once: never more than half of all."""
    return max(1, min(MAX_OPENING, max_connections // 2))


def compile_flags(max_connections: int, family: int = 4) -> list[str]:
    """Return the `-D` flags that give the C sources the family and the sizes of this module."""
    limits = {
        "FAMILY": family,
        "MAX_CONNECTIONS": max_connections,
        "MAX_SERVICES": MAX_SERVICES,
        "MAX_BACKENDS": MAX_BACKENDS,
        "VIP_FILTER_BITS": VIP_FILTER_BITS,
        "MAX_CIDRS": MAX_CIDRS,
        "MAX_SNAT_ADDRESSES": MAX_SNAT_ADDRESSES,
        "MAX_SOURCES": MAX_SOURCES,
        "MAX_RULES": MAX_RULES,
        "MAX_DROP_COUNTERS": MAX_DROP_COUNTERS,
        "MAX_COLLECT": MAX_COLLECT,
        "MAX_END": MAX_END,
        "OPENING_PLACES": opening_places(max_connections),
        "DROP_EXAMPLES": DROP_EXAMPLES,
        "MAX_FRAGMENTS": MAX_FRAGMENTS,
        "REFUSAL_BUCKETS": REFUSAL_BUCKETS,
        "CARRYING_SECONDS": CARRYING_SECONDS,
    }
    return [f"-D{name}={value}" for name, value in limits.items()]
