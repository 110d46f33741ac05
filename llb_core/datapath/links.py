"""The host's interfaces and its neighbours on them. Read only."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from pyroute2 import IPRoute

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


@dataclass(frozen=True, slots=True)
class Neighbour:
    """What the kernel knows of a neighbour: how it is, as `ip neighbour` calls that, and its MAC
    address, where it has said one."""

    state: str
    mac: str | None


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
