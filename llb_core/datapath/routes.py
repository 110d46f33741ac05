"""The kernel's routes to backends: next hop, interface, MTU. Read only.

Many addresses are asked for in one message: ten thousand backends are to be there in a second.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pyroute2 import IPRoute

from llb_core.datapath import rtnetlink
from llb_core.errors import HostError
from llb_core.model import Address, Route

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_BATCH = 64
"""Questions in one message: their answers fit well into a socket's buffer."""

_ROUTE = struct.Struct("=8BI")  # struct rtmsg
_RTM_GETROUTE, _RTM_NEWROUTE = 26, 24
_RTN_UNICAST = 1
_USE_SIZE = rtnetlink.ATTRIBUTE.size + 32  # struct rta_cacheinfo
_USE = rtnetlink.ATTRIBUTE.pack(_USE_SIZE, 12)  # RTA_CACHEINFO
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_METRICS, _RTA_VIA, _RTAX_MTU = 1, 4, 5, 8, 18, 2


def _head(version: int, number: int) -> bytes:
    """Return all of a question before the attribute with its destination."""
    bits = 32 if version == 4 else 128
    route = _ROUTE.pack(_FAMILIES[version], bits, 0, 0, 0, 0, 0, 0, 0)
    length = rtnetlink.HEADER.size + _ROUTE.size + rtnetlink.ATTRIBUTE.size + bits // 8
    return rtnetlink.HEADER.pack(length, _RTM_GETROUTE, rtnetlink.REQUEST, number, 0) + route


_HEADS = {version: [_head(version, number) for number in range(_BATCH)] for version in _FAMILIES}
"""Made once: they tell ten thousand questions apart by their places in a message alone."""
_DESTINATION = {4: rtnetlink.ATTRIBUTE.pack(8, _RTA_DST), 6: rtnetlink.ATTRIBUTE.pack(20, _RTA_DST)}
"""The head of the attribute that the address itself follows."""


def find_routes(ip: IPRoute, addresses: Iterable[Address]) -> dict[Address, Route]:
    """Ask the kernel for the way to each address; those without one are left out.

    An address of the host itself counts as without. Raises HostError where the kernel is silent.
    """
    wanted = list(set(addresses))
    mtus = {link["index"]: int(link.get_attr("IFLA_MTU")) for link in ip.get_links()}
    ways: dict[bytes, _Way | None] = {}
    routes: dict[Address, Route] = {}
    with rtnetlink.open_socket() as asking:
        try:
            for start in range(0, len(wanted), _BATCH):
                asked = [
                    (each, _DESTINATION[each.version] + each.packed)
                    for each in wanted[start : start + _BATCH]
                ]
                for number, answer in _ask(asking, asked):
                    address, destination = asked[number]
                    said = _in_common(answer, destination)
                    try:
                        way = ways[said]
                    except KeyError:
                        way = ways[said] = _read(answer, mtus)
                    if way is not None:
                        next_hop = address if way.is_direct else way.gateway
                        routes[address] = Route(way.interface, next_hop, way.mtu)
        except OSError as error:
            raise HostError(f"the kernel's routes can't be read: {error}") from None
    return routes


@dataclass(frozen=True, slots=True)
class _Way:
    """What many addresses have in common."""

    interface: int
    mtu: int
    is_direct: bool
    gateway: Address | None
    """None where it is of the other family, too."""


def _ask(asking: socket.socket, asked: list[tuple[Address, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Send a question for each address and its destination, and yield their numbers with the
    answers."""
    asking.send(
        b"".join(
            _HEADS[address.version][number] + destination
            for number, (address, destination) in enumerate(asked)
        )
    )
    left = len(asked)
    while left:
        for kind, number, answer in rtnetlink.messages(rtnetlink.receive(asking)):
            left -= 1
            if kind == _RTM_NEWROUTE:  # Else an error: there is no way.
                yield number, answer


def _in_common(answer: bytes, destination: bytes) -> bytes:
    """Leave out what tells the answers for addresses behind one route apart: the destination, and,
    at the end, how often the way is in use."""
    said = answer.replace(destination, b"")
    return said[:-_USE_SIZE] if said[-_USE_SIZE:].startswith(_USE) else said


def _read(answer: bytes, mtus: dict[int, int]) -> _Way | None:
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
    gateway, is_other = attributes.get(_RTA_GATEWAY), _RTA_VIA in attributes
    return _Way(
        interface=interface,
        mtu=stated or mtus.get(interface, 1500),
        is_direct=not gateway and not is_other,
        gateway=ipaddress.ip_address(gateway) if gateway and not is_other else None,
    )
