"""Hold a provider's answer against the contract. Pure.

An answer that breaks it is refused whole, so that the last good one stays: never a part of one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from llb_core.errors import ProviderError
from llb_core.model import MAX_WEIGHT, Address, Backend, Endpoint, Network

MAX_BACKENDS = 10_000
"""Of one service: more would not get their 100 places each in the largest table."""


def check_answer(
    answer: object, families: frozenset[int], networks: Sequence[Network] = ()
) -> tuple[Backend, ...]:
    """Return the backends of an answer, sorted by endpoint.

    `families` are the address families (4, 6) that the service is served on, `networks` those that
    backends are in; none: anywhere. Raises ProviderError that names the first entry that is wrong.
    """
    if isinstance(answer, str | bytes | Mapping) or not isinstance(answer, Iterable):
        raise ProviderError(f"the answer is no list of backends but {type(answer).__name__}")
    entries: list[Any] = list(islice(answer, MAX_BACKENDS + 1))
    if len(entries) > MAX_BACKENDS:
        raise ProviderError(f"more than {MAX_BACKENDS} backends for one service")
    places: dict[Endpoint, int] = {}
    for place, entry in enumerate(entries):
        fault = _fault(entry, families) or _outside(entry.endpoint, networks)
        if fault is None and entry.endpoint in places:
            fault = f"{entry.endpoint} is entry {places[entry.endpoint]} already"
        if fault is not None:
            raise ProviderError(f"entry {place} of {len(entries)}: {fault}")
        places[entry.endpoint] = place
    return tuple(sorted(entries, key=lambda backend: backend.endpoint))


def _fault(entry: Any, families: frozenset[int]) -> str | None:
    if not isinstance(entry, Backend):
        return f"{_shown(entry)} is no Backend"
    endpoint: Any = entry.endpoint
    if not isinstance(endpoint, Endpoint):
        return f"{_shown(endpoint)} is no Endpoint"
    address: Any = endpoint.address
    if not isinstance(address, ipaddress.IPv4Address | ipaddress.IPv6Address):
        return f"{_shown(address)} is not an IP address"
    if not _is_whole(endpoint.port) or not 1 <= endpoint.port <= 65_535:
        return f"{address} has port {_shown(endpoint.port)}, not one from 1 to 65535"
    if not _is_whole(entry.weight) or not 0 <= entry.weight <= MAX_WEIGHT:
        weight = _shown(entry.weight)
        return f"{endpoint} has weight {weight}, not a whole number from 0 to {MAX_WEIGHT}"
    draining: Any = entry.draining
    if not isinstance(draining, bool):
        return f"{endpoint} has draining {_shown(draining)}, neither True nor False"
    healthy: Any = entry.healthy
    if not isinstance(healthy, bool | None):
        return f"{endpoint} has healthy {_shown(healthy)}, neither True, False nor None"
    if address.is_multicast or address.is_unspecified or address.is_loopback or _is_odd(address):
        return f"{address} is not the address of one host on a network"
    if address.version not in families:
        served = " and ".join(f"IPv{family}" for family in sorted(families))
        return f"{endpoint} is IPv{address.version}, and the service is {served}"
    return None


def _outside(endpoint: Endpoint, networks: Sequence[Network]) -> str | None:
    if not networks or any(endpoint.address in network for network in networks):
        return None
    return (
        f"{endpoint} is in no network of loadbalancer.backend_cidrs, so its answers would not be "
        "taken back: add its network there"
    )


def _is_odd(address: Address) -> bool:
    """Say whether it is IPv4's broadcast, or of "this network" (RFC 1122, 3.2.1.3); or of IPv6,
    and known on its link alone, or IPv4's in disguise."""
    if isinstance(address, ipaddress.IPv6Address):
        is_mapped = address.ipv4_mapped is not None
        return address.is_link_local or address.scope_id is not None or is_mapped
    return int(address) == 0xFFFF_FFFF or int(address) >> 24 == 0


def _shown(value: object) -> str:
    """Write what somebody else made: shortly, and even if it can't be written."""
    try:
        return f"{value!r:.60}"
    except Exception:  # noqa: BLE001 - somebody else's code
        return f"a {type(value).__name__}"


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
