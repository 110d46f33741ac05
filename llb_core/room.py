"""Say before it happens that room for connections runs out. Pure.

A connection takes an entry of the tables, and on its backend's side a SNAT address and port that no
other connection to that backend has, for a while after its end too (60 s in TIME_WAIT by default).
So a backend takes `addresses * ports` connections at once, and a sixtieth of that anew each second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from llb_core.config import LoadBalancerConfig
from llb_core.model import Endpoint, Installed, Transport

NARROW, RELAXED = 0.8, 0.6
"""The share in use from which on it is told, and below which it may be told anew."""


@dataclass(frozen=True, slots=True)
class Shortage:
    """Room that runs out: `what` is the same from one look to the next, `text` is not.

    `of` is the room: what is short of it may be told anew once there is plenty of it.
    """

    what: str
    of: str
    text: str


def shortages(
    family: int,
    connections: int,
    by_backend: Mapping[int, int],
    refused: Mapping[int, int],
    installed: Installed,
    settings: LoadBalancerConfig,
    share: float = NARROW,
) -> list[Shortage]:
    """Return what of an address family is in use by that share, `by_backend` being the connections
    by slot, and what has run out: `refused` those that lately found no port, by slot."""
    found = []
    if connections >= share * settings.max_connections:
        found.append(
            Shortage(
                "the tables are filling",
                "the tables",
                f"{connections} of loadbalancer.max_connections = {settings.max_connections} are "
                f"in use for IPv{family}: raise it (the daemon must be stopped and llb detach "
                "called for that)",
            )
        )
    in_use, lacking = ports_in_use(by_backend, installed), ports_in_use(refused, installed)
    for endpoint, protocol in sorted(in_use | lacking):
        name = f"{endpoint}/{protocol}"
        used, room = in_use[endpoint, protocol], ports_of_each(endpoint, settings)
        if used >= share * room:
            found.append(
                Shortage(
                    f"{name} is short of ports",
                    name,
                    f"backend {endpoint}/{protocol}: {used} of {room} SNAT ports are in use: add "
                    "addresses to loadbalancer.snat_addresses",
                )
            )
        if number := lacking[endpoint, protocol]:
            found.append(
                Shortage(
                    f"{name} has no ports left",
                    name,
                    f"backend {name}: {number} new connections found no free SNAT port and were "
                    "dropped: add addresses to loadbalancer.snat_addresses",
                )
            )
    return found


def ports_of_each(backend: Endpoint, settings: LoadBalancerConfig) -> int:
    """Return how many SNAT ports a backend has, over all addresses of its family."""
    low, high = settings.snat_ports
    version = backend.address.version
    return sum(each.version == version for each in settings.snat_addresses) * (high - low + 1)


def ports_in_use(
    by_backend: Mapping[int, int], installed: Installed
) -> Counter[tuple[Endpoint, Transport]]:
    """Return the SNAT ports in use by backend, `by_backend` being the connections by slot.

    Summed up over the services that a backend stands behind: they share its ports.
    """
    used: Counter[tuple[Endpoint, Transport]] = Counter()
    for slot, number in by_backend.items():
        if not number:
            continue
        backend = installed.backends.get(slot)
        service = installed.services.get(backend.service_slot) if backend else None
        if backend and service:
            used[backend.endpoint, service.key.protocol] += number
    return used
