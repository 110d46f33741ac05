"""The kernel's routes to backends: next hop, interface, MTU. Read only."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from llb_core.model import Address, Route

_UNICAST = 1
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_RTAX_MTU = "RTAX_MTU"


def find_routes(ip: IPRoute, addresses: Iterable[Address]) -> dict[Address, Route]:
    """Ask the kernel for the way to each address; those without one are left out.

    An address of the host itself counts as without.
    """
    mtus = {link["index"]: int(link.get_attr("IFLA_MTU")) for link in ip.get_links()}
    routes: dict[Address, Route] = {}
    for address in set(addresses):
        route = _find(ip, address, mtus)
        if route is not None:
            routes[address] = route
    return routes


def _find(ip: IPRoute, address: Address, mtus: dict[int, int]) -> Route | None:
    try:
        answers = list(ip.route("get", dst=str(address), family=_FAMILIES[address.version]))
    except NetlinkError:
        return None
    if not answers or answers[0]["type"] != _UNICAST:
        return None
    answer: Any = answers[0]
    interface = answer.get_attr("RTA_OIF")
    if interface is None:
        return None
    metrics = answer.get_attr("RTA_METRICS")
    stated = metrics.get_attr(_RTAX_MTU) if metrics is not None else None
    return Route(
        interface=int(interface),
        next_hop=_next_hop(answer, address),
        mtu=int(stated or mtus.get(int(interface), 1500)),
    )


def _next_hop(answer: Any, address: Address) -> Address | None:
    """Return the gateway, or the address itself; None for a gateway of the other family."""
    if answer.get_attr("RTA_VIA") is not None:
        return None
    gateway = answer.get_attr("RTA_GATEWAY")
    return ipaddress.ip_address(gateway) if gateway else address
