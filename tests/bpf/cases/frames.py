"""What an Ethernet header says of a packet: tags, and for whom it is."""

from __future__ import annotations

from scapy.layers.inet import IP
from scapy.layers.inet6 import ICMPv6ND_NS, IPv6
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet

from llb_core.datapath.layout import Verdict
from tests.bpf.cases.case import IN, NEW, OUT, Case
from tests.bpf.harness import talk
from tests.bpf.harness.family import address, at_hand
from tests.bpf.harness.packets import (
    at_backend,
    at_client,
    from_backend,
    from_client,
    ip,
    ping,
    question,
    tcp,
    udp,
)
from tests.bpf.harness.rig import PEER_MAC
from tests.bpf.harness.world import (
    BACKEND,
    CLIENT,
    PRIVATE,
    PRIVATE_ADDRESS,
    PUBLIC,
    PUBLIC_ADDRESS,
    SNAT,
    VIP,
    Interface,
)

OTHER_MAC = "02:00:00:00:00:99"
BROADCAST, MULTICAST = "ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01"


def frame(packet: Packet, *tags: Packet, to: Interface | str = PUBLIC) -> Packet:
    """Return a packet in a frame with tags, the outermost first."""
    framed: Packet = Ether(src=PEER_MAC, dst=to if isinstance(to, str) else to.mac)
    for tag in tags:
        framed = framed / tag.copy()
    return framed / packet


def tagged() -> list[Case]:
    """Tags of VLAN 0 name a priority: the stack takes them off, as many as there are."""
    priority, of_provider, vlan = Dot1Q(vlan=0, prio=5), Dot1AD(vlan=0, prio=3), Dot1Q(vlan=7)
    other_family = IPv6(dst="2001:db8::1") if at_hand() == 4 else IP(dst="192.0.2.1")
    too_many = (priority, of_provider, priority)
    return [
        Case("tag of a priority", talk.nothing, frame(from_client("S"), priority), NEW,
             at_backend("S")),
        Case("two tags of priorities", talk.established,
             frame(from_client("A", b"x"), priority, of_provider), IN, at_backend("A", b"x")),
        Case("answer with tags of a provider's priorities", talk.established,
             frame(from_backend("A", b"x"), of_provider, of_provider, to=PRIVATE), OUT,
             at_client("A", b"x"), PRIVATE),
        Case("too many tags of priorities", talk.established,
             frame(from_client("A"), *too_many), Verdict.DROP_EXTENSIONS),
        Case("too many tags for another host", talk.established,
             frame(from_client("A"), *too_many, to=OTHER_MAC), Verdict.PASS_UNPARSED),
        Case("backend's address on the public side behind two tags", talk.nothing,
             frame(ping(BACKEND), priority, priority), Verdict.DROP_SPOOFED),
        Case("other port of the vip behind a tag", talk.nothing,
             frame(tcp(CLIENT, VIP, 5000, 8443, "S"), priority), Verdict.PASS_NOT_OURS),
        Case("tag of a vlan", talk.nothing, frame(from_client("S"), vlan), Verdict.PASS_UNPARSED),
        Case("tag of a vlan behind two of priorities", talk.nothing,
             frame(from_client("S"), priority, priority, vlan), Verdict.PASS_UNPARSED),
        Case("tag of a priority behind one of a vlan", talk.nothing,
             frame(from_client("S"), vlan, priority), Verdict.PASS_UNPARSED),
        Case("arp behind a tag", talk.nothing, frame(ARP(pdst="203.0.113.10"), priority),
             Verdict.PASS_UNPARSED),
        Case("other family behind two tags", talk.nothing,
             frame(other_family, priority, priority), Verdict.PASS_UNPARSED),
    ]  # fmt: skip


def for_many() -> list[Case]:
    """Of broadcast and multicast frames the stack takes datagrams and pings, to whatever address of
    the host; it answers no TCP."""
    made = [
        Case("frame for another host", talk.nothing, frame(from_client("S"), to=OTHER_MAC),
             Verdict.PASS_UNPARSED),
        Case("backend's address in a frame for another host", talk.nothing,
             frame(ping(BACKEND), to=OTHER_MAC), Verdict.PASS_UNPARSED),
        Case("broadcast datagram of a backend", talk.nothing,
             frame(udp(BACKEND, PRIVATE_ADDRESS, 5000, 53), to=BROADCAST), Verdict.PASS_UNPARSED,
             arrives_on=PRIVATE),
    ]  # fmt: skip
    spoofed = {
        "broadcast segment": (BROADCAST, tcp(BACKEND, VIP, 5000, 80, "S")),
        "broadcast ping": (BROADCAST, ping(BACKEND)),
        "broadcast fragment": (BROADCAST, udp(BACKEND, PUBLIC_ADDRESS, 5000, 53, frag=1)),
        "multicast datagram": (MULTICAST, udp(BACKEND, SNAT, 5000, 9100)),
        "multicast datagram to many": (MULTICAST, udp(BACKEND, "224.0.0.1", 5353, 5353)),
    }
    made += [
        Case(f"backend's address on the public side in a {what}", talk.nothing,
             frame(packet, to=mac), Verdict.DROP_SPOOFED)
        for what, (mac, packet) in spoofed.items()
    ]  # fmt: skip
    passing = {
        "broadcast syn": (BROADCAST, from_client("S")),
        "broadcast segment of a connection": (BROADCAST, from_client("A", b"x")),
        "multicast datagram for a vip": (MULTICAST, question()),
    }
    made += [
        Case(what, talk.established, frame(packet, to=mac), Verdict.PASS_UNPARSED)
        for what, (mac, packet) in passing.items()
    ]
    if at_hand() == 6:
        asks = ip(BACKEND, PUBLIC_ADDRESS, 58, ttl=255) / ICMPv6ND_NS(tgt=address(PUBLIC_ADDRESS))
        made.append(
            Case("neighbour discovery by a backend's address in a multicast frame", talk.nothing,
                 frame(asks, to=MULTICAST), Verdict.PASS_UNPARSED)
        )  # fmt: skip
    return made
