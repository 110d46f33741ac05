"""Packets on the four legs of a connection, written out by hand, with scapy's checksums.

    client ── from_client ──► VIP │ SNAT ── at_backend ──► backend
    client ◄── at_client ─── VIP  │ SNAT ◄── from_backend ─ backend

Each leg takes the same words, for the family at hand. TTL is 64 before the balancer and 63 behind
it.
"""

from __future__ import annotations

from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.packet import Packet, Raw
from scapy.utils import checksum

from tests.bpf.harness.family import address, at_hand
from tests.bpf.harness.world import BACKEND, CLIENT, PORT, SNAT, VIP

SEQ, ACK = 1000, 2000
WEB, WEB_BACKEND = 80, 8080
DNS, DNS_BACKEND = 53, 5353
MORE_FRAGMENTS = 1
_NUMBERS = {
    IPv6ExtHdrHopByHop: 0,
    IPv6ExtHdrRouting: 43,
    IPv6ExtHdrFragment: 44,
    IPv6ExtHdrDestOpt: 60,
}
OPTIONS = [b"\x94\x04\x00\x00", b"\x44\x08\x05\x00\x00\x00\x00\x00"]


def ip(
    src: str,
    dst: str,
    protocol: int,
    *,
    ttl: int = 64,
    tos: int = 0,
    options: list[bytes] | None = None,
    ip_flags: int = 0,
    frag: int = 0,
    id: int = 1,  # noqa: A002 - the name of the field
) -> Packet:
    """Return a header, and those that go with it, of the family at hand.

    Over IPv6 options become an extension header, and so does what says that this is a fragment;
    `frag` counts in units of 8 bytes, as on the wire.
    """
    source, target = str(address(src)), str(address(dst))
    if at_hand() == 4:
        return IP(src=source, dst=target, proto=protocol, ttl=ttl, tos=tos, options=options or [],
                  flags=ip_flags, frag=frag, id=id)  # fmt: skip
    header = IPv6(src=source, dst=target, hlim=ttl, tc=tos)
    chain: list[Packet] = []
    if options:
        chain.append(IPv6ExtHdrDestOpt(options=[PadN(optdata=b"".join(options))]))
    if frag or ip_flags & MORE_FRAGMENTS:
        chain.append(IPv6ExtHdrFragment(offset=frag, m=ip_flags & MORE_FRAGMENTS, id=id))
    return behind(header, protocol, *chain)


def behind(header: Packet, protocol: int, *chain: Packet) -> Packet:
    """Return an IPv6 header and extension headers, each of which says what follows it."""
    packet = header
    last: Packet = header
    for each in chain:
        last.nh = _NUMBERS[type(each)]
        packet = packet / each
        last = packet.lastlayer()
    last.nh = protocol
    return packet


def with_headers(packet: Packet, *chain: Packet) -> Packet:
    """Return a packet of IPv6 that has extension headers before what it carries."""
    header = packet.copy()
    carried = header.payload
    header.remove_payload()
    protocol = 6 if TCP in carried else 17
    return behind(header, protocol, *(each.copy() for each in chain)) / carried


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
    **header: Any,
) -> Packet:
    """Return a segment; further words go into the IP header."""
    segment = TCP(
        sport=sport, dport=dport, flags=flags, seq=seq, ack=ack, options=tcp_options or []
    )
    return ip(src, dst, 6, **header) / segment / Raw(payload)


def udp(src: str, dst: str, sport: int, dport: int, payload: bytes = b"", **header: Any) -> Packet:
    """Return a datagram; further words go into the IP header."""
    return ip(src, dst, 17, **header) / UDP(sport=sport, dport=dport) / Raw(payload)


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


def ping(src: str = CLIENT) -> Packet:
    """A ping of the VIP."""
    if at_hand() == 4:
        return ip(src, VIP, 1) / ICMP() / Raw(b"ping")
    return ip(src, VIP, 58) / ICMPv6EchoRequest(data=b"ping")


def refused(packet: Packet, mtu: int | None = None) -> Packet:
    """What tells a packet's sender that it is too big for a link, or, without an MTU, too old."""
    room = {4: 548, 6: 1232}[at_hand()]
    quoted = bytes(packet)[:room]
    about = Raw(quoted[: len(quoted) & ~3])
    if at_hand() == 4:
        error = ICMP(type=3, code=4, nexthopmtu=mtu) if mtu else ICMP(type=11, code=0)
        outer = IP(src=packet.dst, dst=packet.src, tos=0xC0, id=0, flags="DF", ttl=64)
        return outer / error / about
    told = ICMPv6PacketTooBig(mtu=mtu) if mtu else ICMPv6TimeExceeded()
    return IPv6(src=packet.dst, dst=packet.src, hlim=64) / told / about


def changed(packet: Packet, layer: type[Packet], **fields: Any) -> Packet:
    """Return a copy in which fields of a layer differ; checksums are not made anew."""
    copy = packet.__class__(bytes(packet))
    for name, value in fields.items():
        setattr(copy[layer], name, value)
    return copy


def with_partial_checksum(packet: Packet) -> Packet:
    """A packet as its sender's stack hands it to a device that computes checksums."""
    partial = parsed(bytes(packet))
    layer = TCP if TCP in partial else UDP
    partial[layer].chksum = _pseudo_sum(partial, len(bytes(partial[layer])))
    return parsed(bytes(partial))


def _pseudo_sum(packet: Packet, length: int) -> int:
    """The sum of the pseudo-header, which a device goes on from (not its complement)."""
    protocol = 6 if TCP in packet else 17
    ends = bytes(packet)[12:20] if packet.version == 4 else bytes(packet)[8:40]
    folded: int = checksum(ends + bytes([0, protocol]) + length.to_bytes(2, "big"))
    return ~folded & 0xFFFF


def numbered_alike(packet: Packet, sent: Packet) -> Packet:
    """Return a packet, or for a fragment of IPv4 one that bears the number of another: the balancer
    gives its datagram a number of its own."""
    if IP not in packet or not (packet[IP].flags.MF or packet[IP].frag):
        return packet
    copy = IP(bytes(packet))
    copy.id = sent.id
    del copy.chksum
    return IP(bytes(copy))


def without_udp_checksum(packet: Packet) -> Packet:
    """Return a datagram whose sender computed no checksum."""
    return changed(packet, UDP, chksum=0)


def parsed(packet: bytes) -> Packet:
    """Return an IP packet of whichever family."""
    return IP(packet) if packet[0] >> 4 == 4 else IPv6(packet)


def rebuilt(packet: Packet) -> Packet:
    """Return a packet as scapy builds it anew: every checksum made, everything else kept."""
    copy = parsed(bytes(packet))
    if IP in copy:
        del copy[IP].chksum
    for layer in (TCP, UDP):
        if layer in copy and not (layer is UDP and copy[UDP].chksum == 0):
            del copy[layer].chksum
    return parsed(bytes(copy))


def faults(packet: bytes) -> tuple[int, int | None]:
    """Return by how much the checksums of the IP header and of what it carries are off: 0 where
    they are right, None where there is none. Rewriting must leave both as they were."""
    if packet[0] >> 4 == 6:
        return 0, _fault_over_ipv6(packet)
    header = (packet[0] & 0x0F) * 4
    length = int.from_bytes(packet[2:4], "big") or len(packet)
    protocol = packet[9]
    carried = packet[header:length]
    if protocol == 17 and carried[6:8] == b"\0\0":
        return checksum(packet[:header]), None
    pseudo = packet[12:20] + bytes([0, protocol]) + len(carried).to_bytes(2, "big")
    return checksum(packet[:header]), checksum(pseudo + carried)


def _fault_over_ipv6(packet: bytes) -> int:
    """Go through the headers (RFC 8200, 4 and 8.1)."""
    length = 40 + int.from_bytes(packet[4:6], "big")
    protocol, place = packet[6], 40
    if length == 40:
        length = len(packet)  # merged beyond what the field can say
    while protocol not in (6, 17):
        size = 8 if protocol == 44 else (packet[place + 1] + 1) * 8
        protocol, place = packet[place], place + size
    carried = packet[place:length]
    pseudo = packet[8:40] + len(carried).to_bytes(4, "big") + bytes([0, 0, 0, protocol])
    fault: int = checksum(pseudo + carried)
    return fault
