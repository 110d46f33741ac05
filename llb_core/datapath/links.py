"""The host's interfaces and its neighbours on them. Read only."""

from __future__ import annotations

import socket

from pyroute2 import IPRoute

from llb_core.errors import HostError

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_SURE = {0x02: "reachable", 0x04: "stale", 0x40: "permanent"}  # NUD_* of linux/neighbour.h


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


def neighbours(ip: IPRoute, family: int) -> dict[str, str]:
    """Return what the kernel knows of neighbours: their MAC address, and how sure it is."""
    found = {}
    for each in ip.get_neighbours(family=_FAMILIES[family]):
        address, mac = each.get_attr("NDA_DST"), each.get_attr("NDA_LLADDR")
        if address and mac:
            found[str(address)] = f"{mac} ({_SURE.get(each['state'], 'not sure')})"
    return found
