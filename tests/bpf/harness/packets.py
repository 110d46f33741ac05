"""Packets on the four legs of a connection, written out by hand, with scapy's checksums.

    client ── from_client ──► VIP │ SNAT ── at_backend ──► backend
    client ◄── at_client ─── VIP  │ SNAT ◄── from_backend ─ backend

Each leg takes the same words. TTL is 64 before the balancer and 63 behind it.
"""

from __future__ import annotations

from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.packet import Packet, Raw
from scapy.utils import checksum

from tests.bpf.harness.world import BACKEND, CLIENT, PORT, SNAT, VIP

SEQ, ACK = 1000, 2000
WEB, WEB_BACKEND = 80, 8080
DNS, DNS_BACKEND = 53, 5353
MORE_FRAGMENTS = 1
OPTIONS = [b"\x94\x04\x00\x00", b"\x44\x08\x05\x00\x00\x00\x00\x00"]


def tcp(
    src: str,
    dst: str,
    sport: int,
    dport: int,
    flags: str,
    payload: bytes = b"",
    *,
    seq: int = SEQ,
    ack: int = ACK,
    tcp_options: list[Any] | None = None,
    ip_flags: int = 0,
    **ip: Any,
) -> Packet:
    """Return a segment; further words go into the IP header."""
    segment = TCP(
        sport=sport, dport=dport, flags=flags, seq=seq, ack=ack, options=tcp_options or []
    )
    return IP(src=src, dst=dst, flags=ip_flags, **ip) / segment / Raw(payload)


def udp(
    src: str,
    dst: str,
    sport: int,
    dport: int,
    payload: bytes = b"",
    *,
    ip_flags: int = 0,
    **ip: Any,
) -> Packet:
    """Return a datagram; further words go into the IP header."""
    return IP(src=src, dst=dst, flags=ip_flags, **ip) / UDP(sport=sport, dport=dport) / Raw(payload)


def from_client(flags: str, payload: bytes = b"", *, ttl: int = 64, **more: Any) -> Packet:
    """A segment of the client, as it arrives."""
    return tcp(CLIENT, VIP, PORT, WEB, flags, payload, ttl=ttl, **more)


def at_backend(flags: str, payload: bytes = b"", *, ttl: int = 63, **more: Any) -> Packet:
    """The same segment on its way to the backend."""
    return tcp(SNAT, BACKEND, PORT, WEB_BACKEND, flags, payload, ttl=ttl, **more)


def from_backend(flags: str, payload: bytes = b"", *, ttl: int = 64, **more: Any) -> Packet:
    """A segment of the backend, as it arrives."""
    return tcp(BACKEND, SNAT, WEB_BACKEND, PORT, flags, payload, ttl=ttl, **more)


def at_client(flags: str, payload: bytes = b"", *, ttl: int = 63, **more: Any) -> Packet:
    """The same segment on its way to the client."""
    return tcp(VIP, CLIENT, WEB, PORT, flags, payload, ttl=ttl, **more)


def question(payload: bytes = b"question", *, ttl: int = 64, **more: Any) -> Packet:
    """A datagram of the client, as it arrives."""
    return udp(CLIENT, VIP, PORT, DNS, payload, ttl=ttl, **more)


def question_at_backend(payload: bytes = b"question", *, ttl: int = 63, **more: Any) -> Packet:
    """The same datagram on its way to the backend."""
    return udp(SNAT, BACKEND, PORT, DNS_BACKEND, payload, ttl=ttl, **more)


def reply(payload: bytes = b"reply", *, ttl: int = 64, **more: Any) -> Packet:
    """A datagram of the backend, as it arrives."""
    return udp(BACKEND, SNAT, DNS_BACKEND, PORT, payload, ttl=ttl, **more)


def reply_at_client(payload: bytes = b"reply", *, ttl: int = 63, **more: Any) -> Packet:
    """The same datagram on its way to the client."""
    return udp(VIP, CLIENT, DNS, PORT, payload, ttl=ttl, **more)


def ping() -> Packet:
    """A ping of the VIP."""
    return IP(src=CLIENT, dst=VIP) / ICMP() / Raw(b"ping")


def refused(packet: Packet, mtu: int | None = None) -> Packet:
    """What tells a packet's sender that it is too big for a link, or, without an MTU, too old."""
    quoted = bytes(packet)[:548]
    error = ICMP(type=3, code=4, nexthopmtu=mtu) if mtu else ICMP(type=11, code=0)
    outer = IP(src=packet.dst, dst=packet.src, tos=0xC0, id=0, flags="DF", ttl=64)
    return outer / error / Raw(quoted[: len(quoted) & ~3])


def changed(packet: Packet, layer: type[Packet], **fields: Any) -> Packet:
    """Return a copy in which fields of a layer differ; checksums are not made anew."""
    copy = packet.__class__(bytes(packet))
    for name, value in fields.items():
        setattr(copy[layer], name, value)
    return copy


def is_part(packet: Packet) -> bool:
    """Whether it is a fragment."""
    return bool(packet[IP].flags.MF or packet[IP].frag)


def with_number(packet: Packet, number: int) -> Packet:
    """Return a fragment of a datagram of another number: the balancer gives it one of its own."""
    copy = IP(bytes(packet))
    copy.id = number
    del copy.chksum
    return IP(bytes(copy))


def without_udp_checksum(packet: Packet) -> Packet:
    """Return a datagram whose sender computed no checksum."""
    return changed(packet, UDP, chksum=0)


def rebuilt(packet: IP) -> IP:
    """Return a packet as scapy builds it anew: every checksum made, everything else kept."""
    copy = IP(bytes(packet))
    del copy[IP].chksum
    for layer in (TCP, UDP):
        if layer in copy and not (layer is UDP and copy[UDP].chksum == 0):
            del copy[layer].chksum
    return IP(bytes(copy))


def faults(packet: bytes) -> tuple[int, int | None]:
    """Return by how much the checksums of the IP header and of what it carries are off: 0 where
    they are right, None where there is none. Rewriting must leave both as they were."""
    header = (packet[0] & 0x0F) * 4
    length = int.from_bytes(packet[2:4], "big") or len(packet)
    protocol = packet[9]
    carried = packet[header:length]
    if protocol == 17 and carried[6:8] == b"\0\0":
        return checksum(packet[:header]), None
    pseudo = packet[12:20] + bytes([0, protocol]) + len(carried).to_bytes(2, "big")
    return checksum(packet[:header]), checksum(pseudo + carried)
