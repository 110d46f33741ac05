"""The kernel's routes to backends: next hop, interface, MTU. Read only.

Asked by rtnetlink(7) itself, many addresses in one message: a library that takes each answer apart
whole needs a third of a millisecond for one, and ten thousand backends are to be there in a second.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import closing

from pyroute2 import IPRoute

from llb_core.errors import HostError
from llb_core.model import Address, Route

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_BATCH = 64
"""Questions in one message: their answers fit well into a socket's buffer."""
_LIMIT = 5.0
"""Seconds to wait for an answer; the kernel gives it before the question's call returns."""

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_ROUTE = struct.Struct("=8BI")  # struct rtmsg
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr
_RTM_GETROUTE, _RTM_NEWROUTE, _NLM_F_REQUEST = 26, 24, 1
_RTN_UNICAST = 1
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_METRICS, _RTA_VIA, _RTAX_MTU = 1, 4, 5, 8, 18, 2
_TYPE = 0x3FFF
"""Without the flags that say whether an attribute is nested or in network order."""


def find_routes(ip: IPRoute, addresses: Iterable[Address]) -> dict[Address, Route]:
    """Ask the kernel for the way to each address; those without one are left out.

    An address of the host itself counts as without. Raises HostError where the kernel is silent.
    """
    wanted = list(set(addresses))
    mtus = {link["index"]: int(link.get_attr("IFLA_MTU")) for link in ip.get_links()}
    routes: dict[Address, Route] = {}
    asking = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    with closing(asking):
        asking.settimeout(_LIMIT)
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
        answers = asking.recv(65_536)
        start = 0
        while start < len(answers):
            length, kind, _, number, _ = _HEADER.unpack_from(answers, start)
            left -= 1
            if kind == _RTM_NEWROUTE:  # Else an error: there is no way.
                yield addresses[number], answers[start + _HEADER.size : start + length]
            start += length + 3 & ~3


def _question(number: int, address: Address) -> bytes:
    packed = address.packed
    attribute = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(packed), _RTA_DST) + packed
    length = _HEADER.size + _ROUTE.size + len(attribute)
    header = _HEADER.pack(length, _RTM_GETROUTE, _NLM_F_REQUEST, number, 0)
    route = _ROUTE.pack(_FAMILIES[address.version], 8 * len(packed), 0, 0, 0, 0, 0, 0, 0)
    return header + route + attribute


def _read(answer: bytes, address: Address, mtus: dict[int, int]) -> Route | None:
    if answer[7] != _RTN_UNICAST:
        return None
    attributes = dict(_attributes(answer[_ROUTE.size :]))
    if _RTA_OIF not in attributes:
        return None
    interface = _number(attributes[_RTA_OIF])
    metrics = dict(_attributes(attributes.get(_RTA_METRICS, b"")))
    stated = _number(metrics[_RTAX_MTU]) if _RTAX_MTU in metrics else 0
    return Route(interface, _next_hop(attributes, address), stated or mtus.get(interface, 1500))


def _next_hop(attributes: dict[int, bytes], address: Address) -> Address | None:
    """Return the gateway, or the address itself; None for a gateway of the other family."""
    if _RTA_VIA in attributes:
        return None
    gateway = attributes.get(_RTA_GATEWAY)
    return ipaddress.ip_address(gateway) if gateway else address


def _attributes(text: bytes) -> Iterator[tuple[int, bytes]]:
    start = 0
    while start + _ATTRIBUTE.size <= len(text):
        length, kind = _ATTRIBUTE.unpack_from(text, start)
        yield kind & _TYPE, text[start + _ATTRIBUTE.size : start + length]
        start += length + 3 & ~3


def _number(text: bytes) -> int:
    return int.from_bytes(text, "little" if struct.pack("=H", 1)[0] else "big")
