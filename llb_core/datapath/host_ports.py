"""The ports that the host uses itself, which no balanced connection may be given as its SNAT port.

Those that its own connections leave from, those that are reserved, and those that something listens
on: on an address of ours on the private side, or on all addresses. In the network namespace of the
calling thread; from /proc (proc(5), and Documentation/networking/ip-sysctl.rst). But of TCP's
listeners sock_diag(7) tells alone: for /proc the kernel walks all its connections, 7 ms.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Collection, Iterator
from functools import lru_cache
from pathlib import Path

from llb_core.datapath import rtnetlink
from llb_core.datapath.host import EPHEMERAL_PORTS, read_sysctl
from llb_core.errors import HostError
from llb_core.model import Address

RESERVED_PORTS = "net/ipv4/ip_local_reserved_ports"
_SOCKETS = Path("/proc/thread-self/net")
_LISTEN = 10
"""TCP_LISTEN, in /proc as well."""
_SOCK_DIAG_BY_FAMILY = 20
_DIAG_REQUEST = struct.Struct("=4BI48x")  # struct inet_diag_req_v2, of any socket
_DIAG_ANSWER = struct.Struct("!BB2xH2x16s")  # struct inet_diag_msg


def ports_in_use(addresses: Collection[Address]) -> frozenset[int]:
    """Return the ports that the host uses on these addresses.

    Raises HostError where /proc can't be read.
    """
    ours = set(addresses)
    bound = frozenset(
        port
        for address, port in (*_listening(), *_bound("udp"), *_bound("udp6"))
        if address.is_unspecified or address in ours
    )
    return _all_ports(read_sysctl(EPHEMERAL_PORTS), read_sysctl(RESERVED_PORTS), bound)


@lru_cache(maxsize=4)
def _all_ports(ephemeral: str, reserved: str, bound: frozenset[int]) -> frozenset[int]:
    """Join them. Asked over and over, and seldom for others than before: there are many."""
    low, high = (int(each) for each in ephemeral.split())
    return (bound | set(range(low, high + 1)) | set(_ranges(reserved))) - {0}


def _listening() -> list[tuple[Address, int]]:
    """Return where sockets of TCP listen."""
    try:
        return [each for family in (socket.AF_INET, socket.AF_INET6) for each in _told(family)]
    except HostError:  # The kernel is built without, or must not load the module.
        return [*_bound("tcp"), *_bound("tcp6")]


def _told(family: int) -> Iterator[tuple[Address, int]]:
    """Yield what sock_diag tells of a family's listeners of TCP."""
    question = _DIAG_REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, 1 << _LISTEN)
    for answer in rtnetlink.dump(_SOCK_DIAG_BY_FAMILY, question, protocol=rtnetlink.SOCK_DIAG):
        found, state, port, packed = _DIAG_ANSWER.unpack_from(answer)
        if state == _LISTEN:
            yield _plain(packed[: 4 if found == socket.AF_INET else 16]), port


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
        if name.startswith("udp") or int(state, 16) == _LISTEN:
            address, _, port = local.partition(":")
            yield _address(address), int(port, 16)


def _address(text: str) -> Address:
    """Parse an address as /proc has it: words in the host's byte order."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return _plain(packed)


def _plain(packed: bytes) -> Address:
    """Return an address; one of IPv4 also where it is in IPv6's disguise."""
    if len(packed) == 4:
        return ipaddress.IPv4Address(packed)
    address = ipaddress.IPv6Address(packed)
    return address.ipv4_mapped or address
