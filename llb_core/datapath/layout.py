"""The bytes that daemon and classifier share, as numpy sees them: records, maps and their sizes.

`bpf/types.h`, `bpf/maps.h`, `bpf/limits.h` and `bpf/verdict.h` say the same in C; a test holds the
two together. Addresses and ports lie in network order, all else in the host's.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

from llb_core.planning.states import ANSWERED as ANSWERED
from llb_core.planning.states import BACKEND_CLOSED_FIRST as BACKEND_CLOSED_FIRST
from llb_core.planning.states import BACKEND_FIN as BACKEND_FIN
from llb_core.planning.states import CLIENT_FIN as CLIENT_FIN
from llb_core.planning.states import RESET as RESET
from llb_core.planning.states import STATE_MASK as STATE_MASK
from llb_core.planning.states import ConnectionState as ConnectionState

LAYOUT_VERSION = 1
"""Part of the pin directory's name: raise it whenever a record or a map below changes."""

MAX_SERVICES = 4_096
MAX_BACKENDS = 32_768
MAX_CIDRS = 16
MAX_SNAT_ADDRESSES = 16
MAX_COLLECT = 128
TIMEOUT_NAMES = ("opening", "established", "closing", "closed", "udp")

FLOW_KEY = np.dtype(
    [
        ("src", ">u4"),
        ("dst", ">u4"),
        ("sport", ">u2"),
        ("dport", ">u2"),
        ("proto", "u1"),
        ("pad", "u1", 3),
    ]
)
NAT_ENTRY = np.dtype(
    [
        ("state", "u4"),
        ("seen", "u4"),
        ("new_src", ">u4"),
        ("new_dst", ">u4"),
        ("new_sport", ">u2"),
        ("new_dport", ">u2"),
        ("addr_delta", "u4"),
        ("port_delta", "u4"),
        ("backend", "u4"),
        ("service", "u4"),
        ("fin_ack", "u4"),
        ("next_hop", ">u4"),
        ("ifindex", "u4"),
        ("mtu", "u4"),
        ("checked", "u4"),
        ("opened", "u4"),
        ("packets", "u4"),
        ("bytes", "u8"),
    ]
)
SERVICE_KEY = np.dtype([("address", ">u4"), ("port", ">u2"), ("proto", "u1"), ("pad", "u1")])
SERVICE = np.dtype(
    [
        ("address", ">u4"),
        ("port", ">u2"),
        ("proto", "u1"),
        ("pad", "u1"),
        ("timeouts", "u4", len(TIMEOUT_NAMES)),
        ("milliseconds", "u4", len(TIMEOUT_NAMES)),
        ("name", "S64"),
    ]
)
BACKEND = np.dtype(
    [
        ("address", ">u4"),
        ("port", ">u2"),
        ("mode", "u2"),
        ("service", "u4"),
        ("next_hop", ">u4"),
        ("ifindex", "u4"),
        ("mtu", "u4"),
        ("weight", "u4"),
    ]
)
CIDR = np.dtype([("address", ">u4"), ("mask", ">u4")])
CONFIG = np.dtype(
    [
        ("private_ifindex", "u4"),
        ("ticks_per_second", "u4"),
        ("cidr_count", "u4"),
        ("snat_count", "u4"),
        ("port_low", "u4"),
        ("port_count", "u4"),
        ("cidrs", CIDR, MAX_CIDRS),
        ("snat", ">u4", MAX_SNAT_ADDRESSES),
    ]
)
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
        )
    ]
)
U32 = np.dtype("u4")
U64 = np.dtype("u8")


class Verdict(enum.IntEnum):
    """What became of a packet, and why; the words of `bpf/verdict.h`."""

    PASS_NOT_OURS = 0
    PASS_UNPARSED = 1
    PASS_NO_CONNECTION = 2
    PASS_HOST_SOCKET = 3
    FORWARD_NEW = 4
    FORWARD_TO_BACKEND = 5
    FORWARD_TO_CLIENT = 6
    DROP_NO_BACKEND = 7
    DROP_NO_ROUTE = 8
    DROP_NO_PORT = 9
    DROP_TABLE_FULL = 10
    DROP_UNKNOWN_ANSWER = 11
    DROP_SPOOFED = 12
    DROP_FRAGMENT = 13
    DROP_TTL = 14
    DROP_TOO_BIG = 15
    DROP_ENDING = 16
    DROP_ERROR = 17


class MapType(enum.IntEnum):
    """`enum bpf_map_type` of the kernel, as far as LLB uses it."""

    HASH = 1
    ARRAY = 2
    PERCPU_ARRAY = 6
    ARRAY_OF_MAPS = 12


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


INNER_TABLE = MapSpec("maglev", MapType.ARRAY, U32, U32, 8, INNER_MAP_FLAG)
"""The prototype of a Maglev table: place 0 holds the number of places that follow."""


def map_specs(max_connections: int) -> tuple[MapSpec, ...]:
    """Return the pinned maps of one address family, in the order in which they are made."""
    return (
        MapSpec("dnat_table", MapType.HASH, FLOW_KEY, NAT_ENTRY, max_connections),
        MapSpec("snat_table", MapType.HASH, FLOW_KEY, NAT_ENTRY, max_connections),
        MapSpec("service_keys", MapType.HASH, SERVICE_KEY, U32, 2 * MAX_SERVICES),
        MapSpec("services", MapType.ARRAY, U32, SERVICE, MAX_SERVICES),
        MapSpec("backends", MapType.ARRAY, U32, BACKEND, MAX_BACKENDS),
        MapSpec("maglev_tables", MapType.ARRAY_OF_MAPS, U32, U32, MAX_SERVICES),
        MapSpec("config_index", MapType.ARRAY, U32, U32, 1),
        MapSpec("configs", MapType.ARRAY, U32, CONFIG, 2),
        MapSpec("verdicts", MapType.PERCPU_ARRAY, U32, U64, len(Verdict)),
        MapSpec("service_counters", MapType.PERCPU_ARRAY, U32, COUNTERS, MAX_SERVICES),
        MapSpec("backend_counters", MapType.PERCPU_ARRAY, U32, COUNTERS, MAX_BACKENDS),
    )


def compile_flags(max_connections: int) -> list[str]:
    """Return the `-D` flags that give the C sources the sizes of this module."""
    limits = {
        "MAX_CONNECTIONS": max_connections,
        "MAX_SERVICES": MAX_SERVICES,
        "MAX_BACKENDS": MAX_BACKENDS,
        "MAX_CIDRS": MAX_CIDRS,
        "MAX_SNAT_ADDRESSES": MAX_SNAT_ADDRESSES,
        "MAX_COLLECT": MAX_COLLECT,
    }
    return [f"-D{name}={value}" for name, value in limits.items()]
