"""Tell neighbours the MAC address of an interface that gets another while the daemon runs.

They would go on sending to the one that they know until it has been silent for long enough: Linux
takes half a minute and more. The kernel tells of an interface's own addresses at best, and as a
rule of none (docs/decisions/announcing.md).

Nothing is told at a start: nobody knows then what neighbours have heard before.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from llb_core.config import LoadBalancerConfig
from llb_core.datapath import host, links
from llb_core.datapath.links import Card
from llb_core.datapath.neighbour_frames import announcement
from llb_core.model import Address

TIMES = 3
"""How often each address is told, as frames get lost (RFC 4861, 10: MAX_NEIGHBOR_ADVERTISEMENT)."""
PAUSE = 0.9
"""Seconds from one time to the next at least: a second, but for looks that come early."""
WINDOW = 60.0
"""Seconds in which an interface that came is given its addresses. Later ones need no telling:
whoever sent to them meanwhile has asked anew."""


@dataclass(slots=True)
class _Told:
    """What has been told since an interface got its MAC address."""

    since: float | None = None
    """When it was first up with that."""
    times: dict[Address, list[float]] = field(default_factory=dict)

    def is_due(self, address: Address, now: float) -> bool:
        times = self.times.get(address, [])
        return len(times) < TIMES and (not times or now - times[-1] >= PAUSE)


class Announcer:
    """Looks at the interfaces again and again, and tells neighbours what is new to them."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[int, bytes]] = {}
        self._told: dict[str, _Told] = {}
        """By interface, where there may be something left to tell."""

    def look(self, settings: LoadBalancerConfig, vips: Collection[Address]) -> list[str]:
        """Tell what is to be told by now; return a sentence for each interface that has changed.

        One that is seen for the first time is as its neighbours know it.
        """
        said: list[str] = []
        for interface in settings.interfaces:
            card = links.find_card(interface)
            if card is None:
                continue
            seen = self._seen.setdefault(interface, (card.index, card.mac))
            if seen != (card.index, card.mac):
                self._seen[interface] = card.index, card.mac
                self._told[interface] = _Told()
            if card.is_up and interface in self._told:
                said += self._tell(interface, card, _ours(settings, interface, vips))
        return said

    def _tell(self, interface: str, card: Card, ours: set[Address]) -> list[str]:
        now, told = self._clock(), self._told[interface]
        if told.since is None:
            told.since = now
        elif now - told.since > WINDOW:
            del self._told[interface]
            return []
        known = _known_by(interface, card, ours)
        due = [address for address in known if told.is_due(address, now)]
        if not due:
            return []
        is_first = not told.times
        change = f"the MAC address of {interface} is {card.mac.hex(':')} now"
        try:
            for address in _send(interface, card.mac, due):
                told.times.setdefault(address, []).append(now)
        except OSError as error:
            del self._told[interface]
            why = f"neighbours can't be told ({error.strerror})"
            return [f"{change}, and {why}: they find out within a minute or so"]
        return [f"{change}: neighbours are told"] if is_first and told.times else []


def _send(interface: str, mac: bytes, addresses: Collection[Address]) -> Iterator[Address]:
    """Announce each address, and yield those that went out. Raises OSError where the process may
    open no such socket (CAP_NET_RAW)."""
    is_router = host.is_on(f"net/ipv6/conf/{interface}/forwarding")
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:  # of no protocol: it hears none
        for address in addresses:
            frame = announcement(mac, address, is_router=is_router)
            try:
                link.sendto(frame, (interface, 0))
            except OSError:  # It is down or gone again, or its queue is full: there are more looks.
                return
            yield address


def _ours(settings: LoadBalancerConfig, interface: str, vips: Collection[Address]) -> set[Address]:
    """Return the addresses of ours, wherever they are, that neighbours on an interface may want."""
    return {
        *(vips if interface in settings.public_interfaces else ()),
        *(settings.snat_addresses if interface == settings.private_interface else ()),
    }


def _known_by(interface: str, card: Card, ours: set[Address]) -> list[Address]:
    """Return the addresses for which the kernel answers neighbours on an interface: those that it
    has; of IPv4 those of ours on `lo` also, unless `arp_ignore` says otherwise.

    One on another interface is for that to tell: it may have a MAC address of its own (VRRP).
    """
    is_ignored = any(host.is_on(f"net/ipv4/conf/{each}/arp_ignore") for each in ("all", interface))
    loopback = None if is_ignored else host.index_of("lo")
    return [
        address
        for address, _, index, is_sure in host.addresses_held()
        if (index == card.index and is_sure)
        or (index == loopback and address.version == 4 and address in ours)
    ]
