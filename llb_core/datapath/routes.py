"""The kernel's routes to backends: next hop, interface, MTU. Read only.

Many addresses are asked for in one message: ten thousand backends are to be there in a second.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterable, Iterator
from functools import lru_cache

from pyroute2 import IPRoute

from llb_core.datapath import rtnetlink
from llb_core.errors import HostError
from llb_core.model import Address, Route

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_BATCH = 64
"""Questions in one message: their answers fit well into a socket's buffer."""

_ROUTE = struct.Struct("=8BI")  # struct rtmsg
_QUESTIONS = {4: struct.Struct("=IHHII8BIHH4s"), 6: struct.Struct("=IHHII8BIHH16s")}
"""struct nlmsghdr, struct rtmsg, and an attribute: packed by one call, of ten thousand."""
_RTM_GETROUTE, _RTM_NEWROUTE = 26, 24
_RTN_UNICAST = 1
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_METRICS, _RTA_VIA, _RTAX_MTU = 1, 4, 5, 8, 18, 2


def find_routes(ip: IPRoute, addresses: Iterable[Address]) -> dict[Address, Route]:
    """Ask the kernel for the way to each address; those without one are left out.

    An address of the host itself counts as without. Raises HostError where the kernel is silent.
    """
    wanted = list(set(addresses))
    mtus = {link["index"]: int(link.get_attr("IFLA_MTU")) for link in ip.get_links()}
    routes: dict[Address, Route] = {}
    with rtnetlink.open_socket() as asking:
        try:
            for start in range(0, len(wanted), _BATCH):
                for address, answer in _ask(asking, wanted[start : start + _BATCH]):
                    route = _read(answer, address, mtus)
                    if route is not None:
                        routes[address] = route
        except OSError as error:
            raise HostError(f"the kernel's routes can't be read: {error}") from None
    return routes


def _ask(asking: socket.socket, addresses: list[Address]) -> Iterator[tuple[Address, bytes]]:
    """Send a question for each address, and yield the answers."""
    asking.send(b"".join(_question(number, each) for number, each in enumerate(addresses)))
    left = len(addresses)
    while left:
        for kind, number, answer in rtnetlink.messages(asking.recv(65_536)):
            left -= 1
            if kind == _RTM_NEWROUTE:  # Else an error: there is no way.
                yield addresses[number], answer


def _question(number: int, address: Address) -> bytes:
    packed, asking = address.packed, _QUESTIONS[address.version]
    bits = 8 * len(packed)
    length = rtnetlink.ATTRIBUTE.size + len(packed)
    return asking.pack(
        asking.size, _RTM_GETROUTE, rtnetlink.REQUEST, number, 0,
        _FAMILIES[address.version], bits, 0, 0, 0, 0, 0, 0, 0, length, _RTA_DST, packed,
    )  # fmt: skip


def _read(answer: bytes, address: Address, mtus: dict[int, int]) -> Route | None:
    if answer[7] != _RTN_UNICAST:
        return None
    attributes = rtnetlink.attributes(answer[_ROUTE.size :])
    if _RTA_OIF not in attributes:
        return None
    interface = rtnetlink.number(attributes[_RTA_OIF])
    stated = 0
    if _RTA_METRICS in attributes:
        metrics = rtnetlink.attributes(attributes[_RTA_METRICS])
        stated = rtnetlink.number(metrics.get(_RTAX_MTU, b""))
    return Route(interface, _next_hop(attributes, address), stated or mtus.get(interface, 1500))


def _next_hop(attributes: dict[int, bytes], address: Address) -> Address | None:
    """Return the gateway, or the address itself; None for a gateway of the other family."""
    if _RTA_VIA in attributes:
        return None
    gateway = attributes.get(_RTA_GATEWAY)
    return _address(gateway) if gateway else address


_address = lru_cache(maxsize=64)(ipaddress.ip_address)
"""An address of its bytes: thousands of backends are behind a few gateways."""
