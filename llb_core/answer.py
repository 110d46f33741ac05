"""Hold a provider's answer against the contract. Pure.

An answer that breaks it is refused whole, so that the last good one stays: never a part of one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from llb_core.errors import ProviderError
from llb_core.model import MAX_WEIGHT, Address, Backend, Endpoint, Network

MAX_BACKENDS = 10_000
"""Of one service: more would not get their 100 places each in the largest table."""

LONGEST_SECONDS = 86_400.0
"""A day: for what a provider says of its own times."""

NO_ADDRESSES: Mapping[Address, str] = {}
_ADDRESSES = (ipaddress.IPv4Address, ipaddress.IPv6Address)
_NOT_ONE_HOST = "not the address of one host on a network"


def check_answer(
    answer: object,
    families: frozenset[int],
    networks: Sequence[Network] = (),
    ours: Mapping[Address, str] = NO_ADDRESSES,
) -> tuple[Backend, ...]:
    """Return the backends of an answer, sorted by endpoint.

    `families` are the address families (4, 6) that the service is served on, `networks` those that
    backends are in; none: anywhere. `ours` are the balancer's own addresses, each with what it is.
    Raises ProviderError that names the first entry that is wrong, and what helps.
    """
    if isinstance(answer, str | bytes | Mapping) or not isinstance(answer, Iterable):
        raise ProviderError(
            f"the answer is no list of backends but {type(answer).__name__}: gather_backends() "
            "must return one"
        )
    entries: list[Any] = list(islice(answer, MAX_BACKENDS + 1))
    if len(entries) > MAX_BACKENDS:
        raise ProviderError(
            f"{_called(MAX_BACKENDS, entries[MAX_BACKENDS])}: more than {MAX_BACKENDS} backends "
            "for one service: have fewer named, or share them out among several services"
        )
    ground = _Ground.of(families, networks, ours)
    places: dict[Endpoint, int] = {}
    for place, entry in enumerate(entries):
        is_plain = _is_plain(entry)
        fault = (None if is_plain else _fault(entry)) or ground.fault(entry.endpoint)
        if fault is None and not is_plain:
            entries[place] = entry = _plain(entry)
        if fault is None and (first := places.setdefault(entry.endpoint, place)) != place:
            fault = f"{entry.endpoint} is {_called(first, entries[first])} already: name it once"
        if fault is not None:
            raise ProviderError(f"{_called(place, entry, len(entries))}: {fault}")
    return tuple(sorted(entries, key=lambda backend: backend.endpoint.order))


def check_seconds(name: str, seconds: Any) -> float:
    """Return what a provider has as its `refresh` or `time_limit`, which `name` says; raise
    ProviderError where it is not a number of seconds above 0, and a day at most."""
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if is_number and 0 < seconds <= LONGEST_SECONDS:
        return float(seconds)
    raise ProviderError(
        f"its {name} is {_shown(seconds)}, not a number of seconds above 0 and up to "
        f"{LONGEST_SECONDS:.0f}: set {name} in the provider's class or its constructor"
    )


def _called(place: int, entry: Any, count: int | None = None) -> str:
    """Return what the provider itself calls an entry, or its place where it does not say."""
    name: Any = entry.entry if isinstance(entry, Backend) else None
    if isinstance(name, str) and name:
        return f"{name:.120}"
    return f"entry {place}" + ("" if count is None else f" of {count}")


def _is_plain(entry: Any) -> bool:
    """Say whether it is of types of ours alone, and all numbers are in their ranges. Most are, and
    `_fault` takes four times as long to find nothing in ten thousand."""
    if type(entry) is not Backend or type(entry.endpoint) is not Endpoint:
        return False
    port, weight, healthy = entry.endpoint.port, entry.weight, entry.healthy
    return (
        type(entry.endpoint.address) in _ADDRESSES
        and type(port) is int
        and 1 <= port <= 65_535
        and type(weight) is int
        and 0 <= weight <= MAX_WEIGHT
        and type(entry.draining) is bool
        and (healthy is None or type(healthy) is bool)
    )


def _fault(entry: Any) -> str | None:
    """Say what is wrong with its types and numbers, wherever its address may be."""
    if not isinstance(entry, Backend):
        return f"{_shown(entry)} is no Backend: make it llb_core.Backend(Endpoint(address, port))"
    endpoint: Any = entry.endpoint
    if not isinstance(endpoint, Endpoint):
        return f"{_shown(endpoint)} is no Endpoint: make it llb_core.Endpoint(address, port)"
    address: Any = endpoint.address
    if isinstance(address, ipaddress.IPv4Interface | ipaddress.IPv6Interface):
        return (
            f"{_shown(address)} is an interface's address with its network, not an IP address: "
            "name its ip alone"
        )
    # Another kind of them would equal no address of ours, and no other entry's.
    if type(address) not in _ADDRESSES:
        return f"{_shown(address)} is not an IP address: make it one by ipaddress.ip_address()"
    if not _is_whole(endpoint.port) or not 1 <= endpoint.port <= 65_535:
        return (
            f"{address} has port {_shown(endpoint.port)}, not one from 1 to 65535: name the port "
            "that the backend listens on"
        )
    if not _is_whole(entry.weight) or not 0 <= entry.weight <= MAX_WEIGHT:
        weight = _shown(entry.weight)
        return (
            f"{endpoint} has weight {weight}, not a whole number from 0 to {MAX_WEIGHT}: write 1 "
            "for an equal share, 0 for no new connections"
        )
    draining: Any = entry.draining
    if not isinstance(draining, bool):
        return f"{endpoint} has draining {_shown(draining)}, neither True nor False"
    healthy: Any = entry.healthy
    if not isinstance(healthy, bool | None):
        return f"{endpoint} has healthy {_shown(healthy)}, neither True, False nor None"
    return None


@dataclass(frozen=True, slots=True)
class _Ground:
    """What an answer's addresses are held against, by their numbers: ten thousand are looked at,
    and to ask a network, or a dictionary, for each takes longer than all the rest."""

    families: frozenset[int]
    networks: Sequence[tuple[int, int, int, Network]]
    """Family, first and last address, and the network; the smallest first."""
    ours: Mapping[Address, str]
    our_numbers: frozenset[int]

    @classmethod
    def of(
        cls, families: frozenset[int], networks: Sequence[Network], ours: Mapping[Address, str]
    ) -> _Ground:
        spans = [
            (each.version, int(each.network_address), int(each.broadcast_address), each)
            for each in sorted(networks, key=lambda each: -each.prefixlen)
        ]
        return cls(families, spans, ours, frozenset(map(int, ours)))

    def fault(self, endpoint: Endpoint) -> str | None:
        """Say why no backend of the service can have this address."""
        address, (family, number, _) = endpoint.address, endpoint.order
        if not _is_one_host(address):
            return f"{address} is {_NOT_ONE_HOST}: {_instead_of(address)}"
        if family not in self.families:
            served = " and ".join(f"IPv{each}" for each in sorted(self.families))
            return (
                f"{endpoint} is IPv{family}, and the service is {served}: leave it out, or give "
                f"the service an address of IPv{family}"
            )
        if number in self.our_numbers and address in self.ours:
            return (
                f"{endpoint} is the balancer's own ({self.ours[address]}), so its packets would go "
                "round in a circle: name the address of the host that serves"
            )
        for version, first, last, network in self.networks:
            if first <= number <= last and version == family:
                return _fault_at_edge(address, network) if number in (first, last) else None
        if not self.networks:
            return None
        return (
            f"{endpoint} is in no network of loadbalancer.backend_cidrs, so its answers would not "
            "be taken back: add its network there"
        )


def _fault_at_edge(address: Address, network: Network) -> str | None:
    """Say what is wrong with an end of a network: the network's own address, which stands for all
    routers with IPv6 (RFC 4291, 2.6.1), or IPv4's broadcast. Networks of one or two addresses have
    neither (RFC 3021, RFC 6164)."""
    is_broadcast = network.version == 4 and address == network.broadcast_address
    is_edge = address == network.network_address or is_broadcast
    if not is_edge or network.prefixlen >= network.max_prefixlen - 1:
        return None
    return (
        f"{address} is {_NOT_ONE_HOST} but an end of {network} in loadbalancer.backend_cidrs (if a "
        f"host has it all the same, add {address}/{network.max_prefixlen} there)"
    )


def _instead_of(address: Address) -> str:
    """Return what to name instead of an address that is no host's on a network."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return f"it is IPv4's, so write {address.ipv4_mapped}"
        if address.is_link_local or address.scope_id is not None:
            return "it is known on its link alone, so name one that is routed, without %"
    return "name the backend's own, as 10.0.0.2 or 2001:db8::2"


def _is_one_host(address: Address) -> bool:
    """Say whether it can be a host's on a network: of IPv4 not of "this network", the host's own,
    multicast or broadcast (RFC 1122, 3.2.1.3); of IPv6 neither known on its link alone, nor IPv4's
    in disguise."""
    if isinstance(address, ipaddress.IPv4Address):  # By its number: ten thousand are looked at.
        number = int(address)
        first = number >> 24
        return first not in (0, 127) and not 224 <= first < 240 and number != 0xFFFF_FFFF
    is_special = address.is_multicast or address.is_unspecified or address.is_loopback
    is_local = address.is_link_local or address.scope_id is not None
    return not (is_special or is_local or address.ipv4_mapped is not None)


def _shown(value: object) -> str:
    """Write what somebody else made: shortly, and even if it can't be written."""
    try:
        return f"{value!r:.60}"
    except BaseException:  # noqa: BLE001 - somebody else's code, whatever it raises
        return f"a {type(value).__name__}"


def _plain(entry: Backend) -> Backend:
    """Return what it says in types of ours: those derived from them may compare otherwise, or write
    themselves as a word, as a number that is of an Enum does."""
    endpoint = Endpoint(entry.endpoint.address, int.__int__(entry.endpoint.port))
    return Backend(
        endpoint, int.__int__(entry.weight), entry.draining, entry.healthy, entry=entry.entry
    )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
