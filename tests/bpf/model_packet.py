"""What the model understands of a frame, and how it rewrites one: plain bytes, RFC by RFC.

A checksum that has to be made anew is left blank: that the real ones are right is scapy's to say.
"""

from __future__ import annotations

import enum
import functools
import struct
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

from tests.bpf.harness.packets import faults
from tests.bpf.harness.tables import Flow
from tests.bpf.harness.tags import is_for_many

ETHERNET = 14
ICMP, TCP, UDP = 1, 6, 17
FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10
ETHERTYPES = {4: b"\x08\x00", 6: b"\x86\xdd"}
_IPV4_HEADER, _IPV6_HEADER, _TCP_HEADER, _UDP_HEADER = 20, 40, 20, 8
ICMP_OF = {4: 1, 6: 58}
ICMP_ERRORS = {4: (3, 4, 11, 12), 6: (1, 2, 3, 4)}
"""Unreachable, source quench, time exceeded, parameter problem (RFC 792); unreachable, too big,
time exceeded, parameter problem (RFC 4443)."""
NEIGHBOUR_DISCOVERY = range(133, 138)
"""RFC 4861."""
_MORE_FRAGMENTS, _FRAGMENT_OFFSET = 0x2000, 0x1FFF
FRAGMENT = 44
_HOP_BY_HOP, _ROUTING, _DESTINATION = 0, 43, 60
EXTENSIONS = (_HOP_BY_HOP, _ROUTING, FRAGMENT, _DESTINATION)
MOST_EXTENSIONS, _LAST_L4 = 6, 246


class Kind(enum.Enum):
    """How much of a datagram a packet is."""

    WHOLE = enum.auto()
    FIRST_FRAGMENT = enum.auto()
    LATER_FRAGMENT = enum.auto()
    """No ports: also a first fragment that ends before its TCP or UDP header does."""
    ICMP_ERROR = enum.auto()
    """No ports either."""
    UNREAD = enum.auto()
    """More extension headers than are read, whatever they lead to."""
    OTHER = enum.auto()
    """None of these, and none of ours: addresses only."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A packet as the balancer sees it. `length` is the IP packet's, `payload` that of the data."""

    kind: Kind
    flow: Flow
    ttl: int
    length: int
    l4: int
    """Where TCP or UDP begins in the frame."""
    payload: int = 0
    flags: int = 0
    seq: int = 0
    ack: int = 0
    has_checksum: bool = True
    is_cut: bool = False
    """A first fragment that ends before its TCP or UDP header does."""
    id: int = 0
    """What all fragments of a datagram have in common."""

    @property
    def is_tcp(self) -> bool:
        """Whether it is TCP."""
        return self.flow.protocol == TCP

    @property
    def has_ports(self) -> bool:
        """Whether it is whole, or the first of its datagram's fragments."""
        return self.kind in (Kind.WHOLE, Kind.FIRST_FRAGMENT)

    @property
    def opens(self) -> bool:
        """Whether it may begin a connection: any datagram, and a SYN that is nothing else."""
        return not self.is_tcp or self.flags & (SYN | ACK | RST | FIN) == SYN


@functools.lru_cache(maxsize=1 << 16)
def parse(frame: bytes, mac: bytes, gso_size: int = 0, family: int = 4) -> Parsed | None:
    """Understand a frame of a family that comes to an interface with this MAC address. None where
    it is not for this host, where there is no IP packet to be read, and for neighbour discovery,
    which is the link's own."""
    if not (frame[:6] == mac or is_for_many(frame)) or frame[12:14] != ETHERTYPES[family]:
        return None
    ip = frame[ETHERNET:]
    head = (_parse_ipv4 if family == 4 else _parse_ipv6)(ip, gso_size)
    if head is None or head.kind in (Kind.LATER_FRAGMENT, Kind.UNREAD, Kind.OTHER):
        return head
    is_part = head.kind is Kind.FIRST_FRAGMENT
    l4 = ip[head.l4 - ETHERNET : head.length]
    if head.flow.protocol == ICMP_OF[family]:
        return _parse_icmp(head, l4, is_part=is_part)
    parsed = _parse_l4(head, l4, is_part=is_part)
    if parsed is None and is_part:
        return replace(head, kind=Kind.LATER_FRAGMENT, is_cut=True)
    return parsed or replace(head, kind=Kind.OTHER)


def _parse_ipv4(ip: bytes, gso_size: int) -> Parsed | None:
    """Read the header (RFC 791); ports are still to come."""
    version, header = ip[0] >> 4, (ip[0] & 0x0F) * 4
    length, number, fragment, ttl, protocol = struct.unpack_from("!HHHBB", ip, 2)
    if length == 0 and gso_size:
        length = len(ip)  # merged beyond what the field can say
    if version != 4 or header < _IPV4_HEADER:
        return None
    if not header <= length <= len(ip):
        return None
    flow = Flow(IPv4Address(ip[12:16]), IPv4Address(ip[16:20]), 0, 0, protocol)
    if protocol not in (ICMP_OF[4], TCP, UDP):
        return Parsed(Kind.OTHER, flow, ttl, length, ETHERNET + header)
    kind = _kind(is_later=fragment & _FRAGMENT_OFFSET, more=fragment & _MORE_FRAGMENTS)
    return Parsed(kind, flow, ttl, length, ETHERNET + header, id=number)


def _parse_ipv6(ip: bytes, gso_size: int) -> Parsed | None:
    """Read the header and those behind it (RFC 8200, 3 and 4); ports are still to come."""
    payload, protocol, ttl = struct.unpack_from("!HBB", ip, 4)
    length = _IPV6_HEADER + payload
    if payload == 0:
        if not gso_size and protocol != _HOP_BY_HOP:
            return None
        length = len(ip)  # merged beyond what the field can say, or a jumbogram
    if ip[0] >> 4 != 6 or length > len(ip):
        return None
    src, dst = IPv6Address(ip[8:24]), IPv6Address(ip[24:40])
    kind, place, count = Kind.WHOLE, _IPV6_HEADER, 0
    seen: list[int] = []
    identification = 0
    unread = Parsed(Kind.UNREAD, Flow(src, dst, 0, 0, protocol), ttl, length, ETHERNET + place)
    other = replace(unread, kind=Kind.OTHER)
    if payload == 0 and not gso_size:
        return unread
    while protocol not in (TCP, UDP, ICMP_OF[6]):
        if count == MOST_EXTENSIONS:
            return unread
        if place + 8 > length:
            return _incomplete(unread, kind, protocol, identification)
        extension, number = ip[place : place + 8], protocol
        protocol, size = extension[0], (extension[1] + 1) * 8
        if number not in EXTENSIONS:
            return other
        if number == _HOP_BY_HOP and count:
            return other
        if number == _ROUTING and extension[3]:
            return other
        if number == FRAGMENT:
            if number in seen:
                return unread
            size = 8
            identification = int.from_bytes(extension[4:8], "big")
            offset = int.from_bytes(extension[2:4], "big")
            kind = _kind(is_later=offset & 0xFFF8, more=offset & 1)
        place, count = place + size, count + 1
        seen.append(number)
        if kind is Kind.LATER_FRAGMENT:
            break
        if place > length:
            return _incomplete(unread, kind, number, identification)
        if ETHERNET + place > _LAST_L4:
            return unread
    flow = Flow(src, dst, 0, 0, protocol)
    return Parsed(kind, flow, ttl, length, ETHERNET + place, id=identification)


def _incomplete(head: Parsed, kind: Kind, protocol: int, identification: int) -> Parsed:
    """Headers that end before the last of them does: the next fragment would go on with them."""
    if kind is not Kind.FIRST_FRAGMENT:
        return replace(head, kind=Kind.OTHER)
    flow = head.flow._replace(protocol=protocol)
    return replace(head, kind=Kind.LATER_FRAGMENT, flow=flow, is_cut=True, id=identification)


def _kind(*, is_later: int, more: int) -> Kind:
    if is_later:
        return Kind.LATER_FRAGMENT
    return Kind.FIRST_FRAGMENT if more else Kind.WHOLE


def _parse_icmp(head: Parsed, l4: bytes, *, is_part: bool) -> Parsed | None:
    """See whether it is an error, which may not come in pieces; None for neighbour discovery."""
    if is_part or len(l4) < 8:
        return replace(head, kind=Kind.OTHER)
    if head.flow.src.version == 6 and l4[0] in NEIGHBOUR_DISCOVERY:
        return None
    if l4[0] not in ICMP_ERRORS[head.flow.src.version]:
        return replace(head, kind=Kind.OTHER)
    return replace(head, kind=Kind.ICMP_ERROR)


def _parse_l4(head: Parsed, l4: bytes, *, is_part: bool) -> Parsed | None:
    """Read the header of TCP or UDP; None where it is cut short or contradicts itself."""
    if len(l4) < (_TCP_HEADER if head.is_tcp else _UDP_HEADER):
        return None
    sport, dport = struct.unpack_from("!HH", l4)
    flags = seq = ack = 0
    has_checksum = True
    if head.is_tcp:
        seq, ack, header, flags = struct.unpack_from("!IIBB", l4, 4)
        header = (header >> 4) * 4
        if not _TCP_HEADER <= header <= len(l4):
            return None
    else:
        header = _UDP_HEADER
        stated, checksum = struct.unpack_from("!HH", l4, 4)
        has_checksum = checksum != 0
        if not stated and head.flow.src.version == 6:
            stated = len(l4)  # as Linux reads it, whether it is a jumbogram or not
        if stated < _UDP_HEADER or (stated > len(l4) and not is_part):
            return None
        if not has_checksum and head.flow.src.version == 6:
            return None
    return Parsed(
        kind=Kind.FIRST_FRAGMENT if is_part else Kind.WHOLE,
        flow=Flow(head.flow.src, head.flow.dst, sport, dport, head.flow.protocol),
        ttl=head.ttl,
        length=head.length,
        l4=head.l4,
        payload=len(l4) - header,
        flags=flags,
        seq=seq,
        ack=ack,
        has_checksum=has_checksum,
        id=head.id,
    )


def rewrite(frame: bytes, packet: Parsed, becomes: Flow) -> bytes:
    """Return the frame with other addresses and ports, one hop older, and blank checksums."""
    out = bytearray(frame)
    ends = becomes.src.packed + becomes.dst.packed
    hops, addresses = (8, 12) if becomes.src.version == 4 else (7, 8)
    out[ETHERNET + hops] -= 1
    out[ETHERNET + addresses : ETHERNET + addresses + len(ends)] = ends
    if packet.kind is not Kind.LATER_FRAGMENT:
        struct.pack_into("!HH", out, packet.l4, becomes.sport, becomes.dport)
    return blank(bytes(out), packet)


def blank(frame: bytes, packet: Parsed) -> bytes:
    """Return the frame with zeros for the checksums of IP and, where there is one, of TCP or UDP,
    and for the number of a fragmented datagram.

    To compare by; also where the frame isn't what was parsed, but was made of it.
    """
    out = bytearray(frame)
    if packet.flow.src.version == 4:
        out[ETHERNET + 10 : ETHERNET + 12] = b"\0\0"
        if packet.kind is not Kind.WHOLE:
            out[ETHERNET + 4 : ETHERNET + 6] = b"\0\0"  # fragments get a number of the balancer's
    if packet.has_checksum and packet.kind is not Kind.LATER_FRAGMENT:
        place = l4_checksum_at(packet.l4, packet.flow.protocol)
        out[place : place + 2] = b"\0\0"
    return bytes(out)


def packet_faults(frame: bytes, packet: Parsed) -> tuple[int, int | None]:
    """Return by how much the sums of a packet are off: rewriting must leave both as they were. Of a
    later fragment it is the header's alone."""
    if packet.kind is Kind.LATER_FRAGMENT and packet.flow.src.version == 6:
        return 0, None  # no header of TCP or UDP to be found by
    header, carried = faults(frame[ETHERNET:])
    return header, None if packet.kind is Kind.LATER_FRAGMENT else carried


def l4_checksum_at(l4: int, protocol: int) -> int:
    """Return where the checksum of TCP or UDP lies, whose header begins there."""
    return l4 + (16 if protocol == TCP else 6)
