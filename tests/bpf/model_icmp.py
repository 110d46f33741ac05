"""What the model knows of ICMP errors: those that pass through, and those that the balancer sends.

Plain bytes, RFC by RFC. Checksums of errors that pass through are left blank, as in `model_packet`;
what the balancer sends is made whole, checksums and all.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

from scapy.utils import checksum

from llb_core.datapath.layout import Verdict
from tests.bpf.harness.tables import Flow
from tests.bpf.model_packet import ETHERNET, TCP, UDP, Parsed, l4_checksum_at

UNREACHABLE, TIME_EXCEEDED = 3, 11
PORT_UNREACHABLE, FRAGMENTATION_NEEDED = 3, 4
_LARGEST = 576
_ICMP_HEADER = 8


@dataclass(frozen=True, slots=True)
class Quoted:
    """The packet that an error is about, and its tuple; offsets are from the frame's start."""

    flow: Flow
    ip: int
    l4: int
    has_checksum: bool
    type: int
    code: int

    @property
    def is_unreachable_port(self) -> bool:
        """Whether its destination says that nobody listens there."""
        return (self.type, self.code) == (UNREACHABLE, PORT_UNREACHABLE)


def quoted(frame: bytes, packet: Parsed) -> Quoted | None:
    """Read what an ICMP error quotes; None where that is no packet that the balancer can know."""
    end = ETHERNET + packet.length
    start = packet.l4 + _ICMP_HEADER
    ip = frame[start:end]
    if len(ip) < 20 or ip[0] >> 4 != 4:
        return None
    header, protocol = (ip[0] & 0x0F) * 4, ip[9]
    is_later_fragment = struct.unpack_from("!H", ip, 6)[0] & 0x1FFF
    src, dst = IPv4Address(ip[12:16]), IPv4Address(ip[16:20])
    l4 = ip[header:]
    if header < 20 or is_later_fragment or protocol not in (TCP, UDP) or len(l4) < 8:
        return None
    if src != packet.flow.dst:
        return None
    sport, dport, _, check = struct.unpack_from("!HHHH", l4)
    return Quoted(
        flow=Flow(src, dst, sport, dport, protocol),
        ip=start,
        l4=start + header,
        has_checksum=len(l4) >= 18 if protocol == TCP else check != 0,
        type=frame[packet.l4],
        code=frame[packet.l4 + 1],
    )


def rewrite_error(frame: bytes, packet: Parsed, about: Quoted, answer: Flow) -> bytes:
    """Return the error on its way to the end that it concerns: outside it looks like an answer,
    inside it quotes what that end has sent; checksums blank."""
    out = bytearray(frame)
    out[ETHERNET + 8] -= 1
    out[ETHERNET + 12 : ETHERNET + 20] = answer.src.packed + answer.dst.packed
    out[about.ip + 12 : about.ip + 20] = answer.dst.packed + answer.src.packed
    struct.pack_into("!HH", out, about.l4, answer.dport, answer.sport)
    return blank_error(bytes(out), packet, about)


def blank_error(frame: bytes, packet: Parsed, about: Quoted) -> bytes:
    """Return an error with zeros for its four checksums, as far as it has them."""
    out = bytearray(frame)
    places = [ETHERNET + 10, packet.l4 + 2, about.ip + 10]
    if about.has_checksum:
        places.append(l4_checksum_at(about.l4, about.flow.protocol))
    for place in places:
        out[place : place + 2] = b"\0\0"
    return bytes(out)


def refusal(frame: bytes, packet: Parsed, verdict: Verdict, mtu: int) -> bytes:
    """Return the error that tells a packet's sender why it goes no further (RFC 792, RFC 1191)."""
    ip = frame[ETHERNET : ETHERNET + packet.length]
    if verdict is Verdict.DROP_TOO_BIG:
        head = struct.pack("!BBHHH", UNREACHABLE, FRAGMENTATION_NEEDED, 0, 0, mtu)
    else:
        head = struct.pack("!BBHI", TIME_EXCEEDED, 0, 0, 0)
    quote = ip[: min(len(ip), _LARGEST - 28) & ~3]
    length = 20 + len(head) + len(quote)
    outer = struct.pack("!BBHHHBBH", 0x45, 0xC0, length, 0, 0x4000, 64, 1, 0)
    outer += packet.flow.dst.packed + packet.flow.src.packed
    message = head + quote
    return frame[:ETHERNET] + _summed(outer, 10) + _summed(message, 2)


def _summed(data: bytes, place: int) -> bytes:
    """Return the bytes with their checksum in its place, which is zero."""
    return data[:place] + checksum(data).to_bytes(2, "big") + data[place + 2 :]


def error_faults(frame: bytes, packet: Parsed, about: Quoted) -> list[int]:
    """Return by how much the sums of an error are off, as far as they can be told: of its header,
    of the message, of the quoted header, of what is quoted of TCP or UDP. Rewriting must leave
    each as it was; of a quote that is cut, the last one is off in any case."""
    end = ETHERNET + packet.length
    ends, l4 = frame[about.ip + 12 : about.ip + 20], frame[about.l4 : end]
    return [
        checksum(frame[ETHERNET : packet.l4]),
        checksum(frame[packet.l4 : end]),
        checksum(frame[about.ip : about.l4]),
        checksum(ends + l4) if about.has_checksum else 0,
    ]
