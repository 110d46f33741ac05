"""What the model knows of ICMP errors: those that pass through, and those that the balancer sends.

Plain bytes, RFC by RFC. Checksums of errors that pass through are left blank, as in `model_packet`;
what the balancer sends is made whole, checksums and all.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from scapy.utils import checksum

from llb_core.datapath.layout import Verdict
from llb_core.model import Address
from tests.bpf.harness.tables import Flow
from tests.bpf.model_packet import (
    ETHERNET,
    EXTENSIONS,
    FRAGMENT,
    ICMP_OF,
    MOST_EXTENSIONS,
    TCP,
    UDP,
    Parsed,
    l4_checksum_at,
)

_ICMP_HEADER = 8


@dataclass(frozen=True, slots=True)
class _Words:
    """What a family's ICMP has for its words, and where its IP header has what is rewritten."""

    too_big: tuple[int, int]
    time_exceeded: tuple[int, int]
    unreachable_port: tuple[int, int]
    header: int
    """Bytes of an IP header without options."""
    largest: int
    """Bytes of an error of the balancer's own, at most."""
    hops: int
    addresses: slice


_WORDS = {
    4: _Words((3, 4), (11, 0), (3, 3), 20, 576, 8, slice(12, 20)),
    6: _Words((2, 0), (3, 0), (1, 4), 40, 1280, 7, slice(8, 40)),
}


@dataclass(frozen=True, slots=True)
class Quoted:
    """The packet that an error is about, and its tuple; offsets are from the frame's start."""

    flow: Flow
    ip: int
    l4: int
    has_checksum: bool
    type: int
    code: int
    seq: int
    """Of a segment."""

    @property
    def is_unreachable_port(self) -> bool:
        """Whether its destination says that nobody listens there."""
        return (self.type, self.code) == _WORDS[self.flow.src.version].unreachable_port


def quoted(frame: bytes, packet: Parsed) -> Quoted | None:
    """Read what an ICMP error quotes; None where that is no packet that the balancer can know."""
    start = packet.l4 + _ICMP_HEADER
    ip = frame[start : ETHERNET + packet.length]
    read = (_quoted_ipv4 if packet.flow.src.version == 4 else _quoted_ipv6)(ip)
    if read is None:
        return None
    src, dst, protocol, header = read
    l4 = ip[header:]
    if protocol not in (TCP, UDP) or len(l4) < 8 or src != packet.flow.dst:
        return None
    sport, dport, _, check = struct.unpack_from("!HHHH", l4)
    return Quoted(
        flow=Flow(src, dst, sport, dport, protocol),
        ip=start,
        l4=start + header,
        has_checksum=len(l4) >= 18 if protocol == TCP else check != 0,
        type=frame[packet.l4],
        code=frame[packet.l4 + 1],
        seq=struct.unpack_from("!I", l4, 4)[0],
    )


_Header = tuple[Address, Address, int, int]
"""Source, destination, what it carries, and where that begins."""


def _quoted_ipv4(ip: bytes) -> _Header | None:
    if len(ip) < 20 or ip[0] >> 4 != 4:
        return None
    header, is_later = (ip[0] & 0x0F) * 4, struct.unpack_from("!H", ip, 6)[0] & 0x1FFF
    if header < 20 or is_later:
        return None
    return IPv4Address(ip[12:16]), IPv4Address(ip[16:20]), ip[9], header


def _quoted_ipv6(ip: bytes) -> _Header | None:
    if len(ip) < 40 or ip[0] >> 4 != 6:
        return None
    protocol, place = ip[6], 40
    for _ in range(MOST_EXTENSIONS):
        if protocol not in EXTENSIONS:
            break
        if len(ip) < place + 8:
            return None
        size = 8 if protocol == FRAGMENT else (ip[place + 1] + 1) * 8
        if protocol == FRAGMENT and int.from_bytes(ip[place + 2 : place + 4], "big") & 0xFFF8:
            return None
        protocol, place = ip[place], place + size
    return IPv6Address(ip[8:24]), IPv6Address(ip[24:40]), protocol, place


def rewrite_error(frame: bytes, packet: Parsed, about: Quoted, answer: Flow) -> bytes:
    """Return the error on its way to the end that it concerns: outside it looks like an answer,
    inside it quotes what that end has sent; checksums blank."""
    out = bytearray(frame)
    words = _WORDS[answer.src.version]
    out[ETHERNET + words.hops] -= 1
    for start, ends in ((ETHERNET, answer), (about.ip, answer.reverse)):
        place = slice(start + words.addresses.start, start + words.addresses.stop)
        out[place] = ends.src.packed + ends.dst.packed
    struct.pack_into("!HH", out, about.l4, answer.dport, answer.sport)
    return blank_error(bytes(out), packet, about)


def blank_error(frame: bytes, packet: Parsed, about: Quoted) -> bytes:
    """Return an error with zeros for its checksums, as far as it has them."""
    out = bytearray(frame)
    places = [packet.l4 + 2]
    if packet.flow.src.version == 4:
        places += [ETHERNET + 10, about.ip + 10]
    if about.has_checksum:
        places.append(l4_checksum_at(about.l4, about.flow.protocol))
    for place in places:
        out[place : place + 2] = b"\0\0"
    return bytes(out)


def refusal(frame: bytes, packet: Parsed, verdict: Verdict, mtu: int) -> bytes:
    """Return the error that tells a packet's sender why it goes no further (RFC 792, RFC 1191,
    RFC 4443)."""
    family = packet.flow.src.version
    words = _WORDS[family]
    ip = frame[ETHERNET : ETHERNET + packet.length]
    is_too_big = verdict is Verdict.DROP_TOO_BIG
    kind = words.too_big if is_too_big else words.time_exceeded
    head = struct.pack("!BBHI", *kind, 0, mtu if is_too_big else 0)
    message = head + ip[: min(len(ip), words.largest - words.header - len(head)) & ~3]
    ends = packet.flow.dst.packed + packet.flow.src.packed
    if family == 4:
        length = words.header + len(message)
        outer = struct.pack("!BBHHHBBH", 0x45, 0xC0, length, 0, 0x4000, 64, 1, 0)
        return frame[:ETHERNET] + _summed(outer + ends, 10) + _summed(message, 2)
    outer = struct.pack("!IHBB", 0x60000000, len(message), ICMP_OF[6], 64)
    return frame[:ETHERNET] + outer + ends + _summed(message, 2, _pseudo(ends, message))


def _pseudo(ends: bytes, message: bytes) -> bytes:
    """Return what a checksum of ICMPv6 covers beside the message (RFC 8200, 8.1)."""
    return ends + struct.pack("!II", len(message), ICMP_OF[6])


def _summed(data: bytes, place: int, pseudo: bytes = b"") -> bytes:
    """Return the bytes with their checksum in its place, which is zero."""
    word: int = checksum(pseudo + data)
    return data[:place] + word.to_bytes(2, "big") + data[place + 2 :]


def error_faults(frame: bytes, packet: Parsed, about: Quoted) -> list[int]:
    """Return by how much the sums of an error are off, as far as they can be told: of its header,
    of the message, of the quoted header, of what is quoted of TCP or UDP. Rewriting must leave
    each as it was; of a quote that is cut, the last one is off in any case."""
    family = packet.flow.src.version
    addresses = _WORDS[family].addresses
    message, l4 = frame[packet.l4 : ETHERNET + packet.length], frame[about.l4 :]
    ends = frame[about.ip :][addresses]
    inner = checksum(ends + l4[: ETHERNET + packet.length - about.l4]) if about.has_checksum else 0
    if family == 6:
        return [checksum(_pseudo(frame[ETHERNET:][addresses], message) + message), inner]
    return [
        checksum(frame[ETHERNET : packet.l4]),
        checksum(message),
        checksum(frame[about.ip : about.l4]),
        inner,
    ]
