"""The ports that the host uses itself, which no balanced connection may be given as its SNAT port.

Those that its own connections leave from, those that are reserved, and those that something listens
on: on an address of ours on the private side, or on all addresses. Read from /proc, of the network
namespace of the calling thread (proc(5), and Documentation/networking/ip-sysctl.rst).
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Collection, Iterator
from pathlib import Path

from llb_core.datapath.host import EPHEMERAL_PORTS, read_sysctl
from llb_core.errors import HostError
from llb_core.model import Address

RESERVED_PORTS = "net/ipv4/ip_local_reserved_ports"
_SOCKETS = Path("/proc/thread-self/net")
_TCP_LISTEN = "0A"


def ports_in_use(addresses: Collection[Address]) -> frozenset[int]:
    """Return the ports that the host uses on these addresses.

    Raises HostError where /proc can't be read.
    """
    low, high = (int(each) for each in read_sysctl(EPHEMERAL_PORTS).split())
    ports = {*range(low, high + 1), *_ranges(read_sysctl(RESERVED_PORTS))}
    ours = set(addresses)
    for name in ("tcp", "tcp6", "udp", "udp6"):
        for address, port in _bound(name):
            if address.is_unspecified or address in ours:
                ports.add(port)
    return frozenset(ports - {0})


def _ranges(text: str) -> Iterator[int]:
    """Yield the ports of `"8080,9000-9010"`."""
    for part in text.replace(",", " ").split():
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def _bound(name: str) -> Iterator[tuple[Address, int]]:
    """Yield where sockets of a kind are bound: those of TCP that listen, and all of UDP."""
    path = _SOCKETS / name
    try:
        lines = path.read_text().splitlines()[1:]
    except FileNotFoundError:
        return  # The host has no IPv6.
    except OSError as error:
        raise HostError(f"{path}: can't be read: {error.strerror}") from None
    for line in lines:
        _, local, _, state = line.split(maxsplit=4)[:4]
        if name.startswith("udp") or state == _TCP_LISTEN:
            address, _, port = local.partition(":")
            yield _address(address), int(port, 16)


def _address(text: str) -> Address:
    """Parse an address as /proc has it: words in the host's byte order."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    if len(words) == 1:
        return ipaddress.IPv4Address(packed)
    address = ipaddress.IPv6Address(socket.inet_ntop(socket.AF_INET6, packed))
    return address.ipv4_mapped or address
