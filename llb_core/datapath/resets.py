"""Reset both ends of connections that LLB has ended: segments from raw sockets.

Each side gets a RST from the address and port that it has been talking to. Its sequence number must
be exactly what that side awaits (RFC 5961, 3.2). That is known as it last said it; where data were
on their way to it, it may await more by now, so a second RST carries the number behind them. Both
carry an acknowledgement, as the reset of an ended process does.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterable

from llb_core.datapath.connections import Connection
from llb_core.datapath.layout import ConnectionState
from llb_core.errors import HostError
from llb_core.model import Endpoint, Transport

_RST_ACK = 0x14
_TTL = 64
_M = 0xFFFFFFFF


def send_resets(connections: Iterable[Connection]) -> int:
    """Reset both ends of the TCP connections among these; return how many that were.

    For connections that are out of the tables already (`MapSync.end_connections`): their ends'
    answers belong to nobody then. Those that are closed, and flows over UDP, have nothing to reset.
    An end to which there is no way is left to find out by itself. Raises HostError where the
    process may open no raw socket (CAP_NET_RAW).
    """
    done = 0
    with contextlib.ExitStack() as stack:
        sockets: dict[int, socket.socket] = {}
        for each in connections:
            if each.protocol is not Transport.TCP or each.state is ConnectionState.CLOSED:
                continue
            version = each.client.address.version
            if version not in sockets:
                sockets[version] = stack.enter_context(_open(version))
            _reset(sockets[version], each.vip, each.client,
                   (each.client_awaits, each.backend_next), each.client_next)  # fmt: skip
            _reset(sockets[version], each.snat, each.backend,
                   (each.backend_awaits, each.client_next), each.backend_next)  # fmt: skip
            done += 1
    return done


def _open(version: int) -> socket.socket:
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    try:
        return socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
    except OSError as error:
        raise HostError(
            f"connections can't be reset: {error.strerror}: run as root, or with CAP_NET_RAW"
        ) from None


def _reset(
    raw: socket.socket, source: Endpoint, target: Endpoint, numbers: tuple[int, int], ack: int
) -> None:
    """Send one RST for each different number."""
    address = str(target.address)
    for seq in dict.fromkeys(numbers):
        with contextlib.suppress(OSError):  # no route, or a firewall's refusal
            raw.sendto(segment(source, target, seq, ack), (address, 0))


def segment(source: Endpoint, target: Endpoint, seq: int, ack: int) -> bytes:
    """Return a RST with its IP header; IPv4's identification and checksum are the kernel's."""
    ports = struct.pack("!HH", source.port, target.port)
    numbers = struct.pack("!II", seq & _M, ack & _M)
    offset_and_flags = struct.pack("!BBH", 5 << 4, _RST_ACK, 0)
    ends = source.address.packed + target.address.packed
    blank = ports + numbers + offset_and_flags + bytes(4)
    pseudo = ends + struct.pack("!II", len(blank), socket.IPPROTO_TCP)
    tcp = blank[:16] + struct.pack("!H", checksum(pseudo + blank)) + blank[18:]
    if source.address.version == 4:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, _TTL, socket.IPPROTO_TCP, 0)
    else:
        head = struct.pack("!IHBB", 6 << 28, len(tcp), socket.IPPROTO_TCP, _TTL)
    return head + ends + tcp


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
