"""The model's idea of who may open a connection: prefixes of clients, and limits."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

from llb_core.datapath.layout import Verdict
from llb_core.model import Access, Limits
from llb_core.rules import Rules

TICK_BITS = 20
Source = tuple[int, IPv4Address | IPv6Address]
"""A service's slot, and the address of a client, or of its network."""


def is_let_in(client: IPv4Address | IPv6Address, access: Access, rules: Rules) -> bool:
    """Say whether the longest prefix that a client matches allows it."""
    if access is Access.OPEN:
        return True
    length, allows = -1, access is Access.ALLOW
    for prefix, is_allowed, high, low in rules.records.tolist():
        network = _network(client.version, high << 64 | low, prefix)
        if client in network and prefix > length:
            length, allows = prefix, is_allowed
    return allows


@functools.cache
def _network(family: int, address: int, prefix: int) -> IPv4Network | IPv6Network:
    return IPv4Network((address, prefix)) if family == 4 else IPv6Network((address, prefix))


def source_of(service: int, client: IPv4Address | IPv6Address) -> Source:
    """Return whom a client counts for."""
    if isinstance(client, IPv6Address):
        client = IPv6Address(int(client) >> 64 << 64)
    return service, client


@dataclass(slots=True)
class Buckets:
    """Tokens: when the bucket of each service, and of each source, will be full again."""

    ticks_per_second: int
    services: dict[int, int] = field(default_factory=dict)
    sources: dict[Source, int] = field(default_factory=dict)

    def refusal(
        self,
        source: Source,
        limits: Limits,
        of_service: int,
        of_source: int,
        now: int,
        *,
        has_place: bool,
    ) -> Verdict | None:
        """Say why there is no room for one connection more than those that there are, or, where it
        has a place already, that it may not begin now."""
        service = source[0]
        if not has_place and limits.source_connections and of_source >= limits.source_connections:
            return Verdict.DROP_SOURCE_FULL
        if not self._take(self.sources, source, limits.source_new_per_second, now):
            return Verdict.DROP_SOURCE_RATE
        if not has_place and limits.connections and of_service >= limits.connections:
            return Verdict.DROP_SERVICE_FULL
        if not self._take(self.services, service, limits.new_per_second, now):
            return Verdict.DROP_SERVICE_RATE
        return None

    def age(self, ticks: int) -> None:
        """Let time go by."""
        every: tuple[dict[Any, int], ...] = (self.services, self.sources)
        for dues in every:
            for key in dues:
                dues[key] -= ticks << TICK_BITS

    def _take(self, dues: dict[Any, int], key: object, per_second: int, now: int) -> bool:
        if not per_second:
            return True
        second = self.ticks_per_second << TICK_BITS
        due = max(dues.get(key, 0), now << TICK_BITS) + second // per_second
        if due > (now << TICK_BITS) + second:
            return False
        dues[key] = due
        return True
