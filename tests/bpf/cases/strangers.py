"""What is not ours, comes in parts, or contradicts itself."""

from __future__ import annotations

from scapy.layers.inet import TCP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from llb_core.datapath.layout import Verdict
from tests.bpf.cases.case import IN, NEW, OUT, Case
from tests.bpf.harness import talk
from tests.bpf.harness.packets import (
    MORE_FRAGMENTS,
    at_backend,
    changed,
    from_backend,
    from_client,
    ip,
    question,
    question_at_backend,
    reply,
    reply_at_client,
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
)


def not_ours() -> list[Case]:
    """Left to the stack."""
    return [
        Case("other port of the vip", talk.nothing, tcp(CLIENT, VIP, 5000, 8443, "S"),
             Verdict.PASS_NOT_OURS),
        Case("other protocol on a service's port", talk.nothing, udp(CLIENT, VIP, 5000, 80),
             Verdict.PASS_NOT_OURS),
        Case("segment to port 0 of a vip", talk.nothing, tcp(CLIENT, VIP, 5000, 0, "S"),
             Verdict.PASS_NOT_OURS),
        Case("datagram to port 0 of a vip", talk.nothing, udp(CLIENT, VIP, 5000, 0),
             Verdict.PASS_NOT_OURS),
        Case("datagram from port 0", talk.nothing, udp(CLIENT, VIP, 0, 53, b"odd", ttl=64), NEW,
             udp(SNAT, BACKEND, 1024, 5353, b"odd", ttl=63)),
        Case("other address", talk.nothing, tcp(CLIENT, PUBLIC_ADDRESS, 5000, 80, "S"),
             Verdict.PASS_NOT_OURS),
        Case("forwarded traffic of others", talk.established,
             tcp(CLIENT, "192.0.2.99", 5000, 80, "A"), Verdict.PASS_NOT_OURS),
        Case("backend to the internet", talk.nothing, tcp(BACKEND, CLIENT, 44000, 443, "S"),
             Verdict.PASS_NOT_OURS, arrives_on=PRIVATE),
        Case("answer to a health check", talk.nothing,
             tcp(BACKEND, PRIVATE_ADDRESS, 8080, 44000, "SA"), Verdict.PASS_NOT_OURS,
             arrives_on=PRIVATE),
        Case("answer to a health check from a snat address", talk.nothing,
             tcp(BACKEND, SNAT, 8080, 44000, "SA"), Verdict.PASS_NOT_OURS, arrives_on=PRIVATE),
        Case("arp", talk.nothing, Ether(src=PEER_MAC, dst=PUBLIC.mac) / ARP(pdst=VIP),
             Verdict.PASS_UNPARSED),
        Case("gre", talk.nothing, ip(CLIENT, VIP, 47) / Raw(bytes(40)), Verdict.PASS_UNPARSED),
    ]  # fmt: skip


def fragments() -> list[Case]:
    """Parts of datagrams."""
    return [
        Case("first fragment of a syn", talk.nothing, from_client("S", ip_flags=MORE_FRAGMENTS),
             NEW, at_backend("S", ip_flags=MORE_FRAGMENTS)),
        Case("first fragment for a service", talk.nothing, question(ip_flags=MORE_FRAGMENTS), NEW,
             question_at_backend(ip_flags=MORE_FRAGMENTS)),
        Case("first fragment of a connection", talk.established,
             from_client("A", b"x", ip_flags=MORE_FRAGMENTS), IN,
             at_backend("A", b"x", ip_flags=MORE_FRAGMENTS)),
        Case("first fragment of an answer", talk.replied, reply(ip_flags=MORE_FRAGMENTS), OUT,
             reply_at_client(ip_flags=MORE_FRAGMENTS), PRIVATE),
        Case("first fragment that states the whole length", talk.nothing,
             changed(question(ip_flags=MORE_FRAGMENTS), UDP, len=4000), NEW,
             changed(question_at_backend(ip_flags=MORE_FRAGMENTS), UDP, len=4000)),
        Case("first fragment too short for its header", talk.nothing,
             ip(CLIENT, VIP, 6, ip_flags=MORE_FRAGMENTS) / Raw(bytes(from_client("S")[TCP])[:8]),
             Verdict.DROP_FRAGMENT),
        *(
            Case(f"first fragment of a backend with {size} bytes of its segment", talk.established,
                 ip(BACKEND, SNAT, 6, ip_flags=MORE_FRAGMENTS)
                 / Raw(bytes(from_backend("A")[TCP])[:size]),
                 Verdict.DROP_FRAGMENT, arrives_on=PRIVATE)
            for size in (8, 16)
        ),
        Case("first fragment for the host too short for its header", talk.nothing,
             ip(BACKEND, PRIVATE_ADDRESS, 6, ip_flags=MORE_FRAGMENTS) / Raw(bytes(8)),
             Verdict.PASS_NOT_OURS, arrives_on=PRIVATE),
        Case("later fragment for a vip", talk.nothing,
             ip(CLIENT, VIP, 17, frag=185) / Raw(bytes(100)), Verdict.DROP_FRAGMENT),
        Case("later fragment in the middle", talk.nothing,
             ip(CLIENT, VIP, 17, frag=185, ip_flags=MORE_FRAGMENTS) / Raw(bytes(104)),
             Verdict.DROP_FRAGMENT),
        Case("later fragment of a few bytes", talk.nothing,
             ip(CLIENT, VIP, 6, frag=185) / Raw(b"end"), Verdict.DROP_FRAGMENT),
        Case("later fragment at the far end", talk.nothing,
             ip(CLIENT, VIP, 17, frag=0x1000) / Raw(bytes(from_client("S")[TCP])),
             Verdict.DROP_FRAGMENT),
        Case("fragment for no service", talk.nothing,
             udp(CLIENT, PUBLIC_ADDRESS, 5000, 53, ip_flags=MORE_FRAGMENTS), Verdict.PASS_NOT_OURS),
        Case("later fragment for another address", talk.nothing,
             ip(CLIENT, PUBLIC_ADDRESS, 17, frag=185) / Raw(bytes(100)), Verdict.PASS_NOT_OURS),
    ]  # fmt: skip


def malformed() -> list[Case]:
    """Headers of TCP and UDP that can't be."""
    return [
        Case("tcp header length below the least", talk.established,
             changed(from_client("A", b"xy"), TCP, dataofs=4), Verdict.PASS_UNPARSED),
        Case("tcp header length beyond the packet", talk.established,
             changed(from_client("A", b"xy"), TCP, dataofs=6), Verdict.PASS_UNPARSED),
        Case("udp length beyond the packet", talk.replied, changed(question(), UDP, len=17),
             Verdict.PASS_UNPARSED),
        Case("udp length below its header", talk.replied, changed(question(), UDP, len=7),
             Verdict.PASS_UNPARSED),
    ]  # fmt: skip
