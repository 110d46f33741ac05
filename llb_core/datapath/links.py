"""The host's interfaces and its neighbours on them. Read only."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from pyroute2 import IPRoute

from llb_core.datapath import rtnetlink
from llb_core.errors import HostError

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_STATES = {  # NUD_* of linux/neighbour.h
    0x01: "incomplete",
    0x02: "reachable",
    0x04: "stale",
    0x08: "delay",
    0x10: "probe",
    0x20: "failed",
    0x40: "noarp",
    0x80: "permanent",
}

_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg
_RTM_GETLINK, _RTM_NEWLINK = 18, 16
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_EXT_MASK = 1, 3, 29
_IFNAMSIZ = 16
_WITHOUT_STATISTICS = struct.pack("=I", 1 << 3)  # RTEXT_FILTER_SKIP_STATS
_ETHERNET = 1  # ARPHRD_ETHER
_UP, _RUNNING, _NOARP = 0x01, 0x40, 0x80  # IFF_*


@dataclass(frozen=True, slots=True)
class Card:
    """An interface of the Ethernet kind. Another one that gets its name has another index."""

    index: int
    mac: bytes
    is_up: bool
    """It has a carrier, and asks its neighbours for their addresses."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """What the kernel knows of a neighbour: how it is, as `ip neighbour` calls that, and its MAC
    address, where it has said one."""

    state: str
    mac: str | None


def find_card(interface: str) -> Card | None:
    """Return how an interface is now; None where there is none of that name, of the Ethernet kind
    and with a MAC address. HostError where the kernel is silent."""
    name = interface.encode().ljust(_IFNAMSIZ, b"\0")
    wanted = [(_IFLA_IFNAME, name), (_IFLA_EXT_MASK, _WITHOUT_STATISTICS)]
    attributes = b"".join(rtnetlink.attribute(*each) for each in wanted)
    question = rtnetlink.message(_RTM_GETLINK, _LINK.pack(0, 0, 0, 0, 0) + attributes)
    try:
        with rtnetlink.open_socket() as asking:
            asking.send(question)
            ((answered, _, answer),) = rtnetlink.messages(rtnetlink.receive(asking))
    except OSError as error:
        raise HostError(f"the kernel does not say how {interface} is: {error}") from None
    if answered != _RTM_NEWLINK:
        return None
    _, kind, index, flags, _ = _LINK.unpack_from(answer)
    mac = rtnetlink.attributes(answer[_LINK.size :]).get(_IFLA_ADDRESS, b"")
    if kind != _ETHERNET or not any(mac):
        return None
    return Card(index, mac, is_up=flags & (_UP | _RUNNING | _NOARP) == _UP | _RUNNING)


def interface_names(ip: IPRoute) -> dict[int, str]:
    """Return the host's interfaces by their index."""
    return {link["index"]: str(link.get_attr("IFLA_IFNAME")) for link in ip.get_links()}


def interface_mac(ip: IPRoute, index: int) -> bytes:
    """Return the MAC address of an interface; HostError where it has none."""
    links = ip.get_links(index)
    address = links[0].get_attr("IFLA_ADDRESS") if links else None
    if not address:
        raise HostError(f"interface {index} has no MAC address")
    return bytes.fromhex(str(address).replace(":", ""))


def neighbours(ip: IPRoute, family: int) -> dict[tuple[int, str], Neighbour]:
    """Return what the kernel knows of neighbours, by their interface's index and their address."""
    return {
        (each["ifindex"], str(each.get_attr("NDA_DST"))): Neighbour(
            _STATES.get(each["state"], "unknown"), each.get_attr("NDA_LLADDR")
        )
        for each in ip.get_neighbours(family=_FAMILIES[family])
    }
