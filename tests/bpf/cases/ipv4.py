"""What IPv4 alone has."""

from __future__ import annotations

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from llb_core.datapath.layout import Verdict
from tests.bpf.cases.case import NEW, OUT, Case
from tests.bpf.cases.pieces import first_of_question, later
from tests.bpf.harness import talk
from tests.bpf.harness.packets import (
    MORE_FRAGMENTS,
    at_backend,
    at_client,
    changed,
    from_client,
    ip,
    ping,
    question,
    question_at_backend,
    reply,
    reply_at_client,
    without_udp_checksum,
)
from tests.bpf.harness.rig import PEER_MAC
from tests.bpf.harness.world import CLIENT, PRIVATE, PUBLIC, VIP


def ipv4() -> list[Case]:
    """Its header, its checksums that may be missing, its ICMP."""
    return [
        Case("syn with dscp and do not fragment", talk.nothing,
             from_client("S", tos=0xB8, ip_flags=2), NEW, at_backend("S", tos=0xB8, ip_flags=2)),
        Case("datagram without checksum", talk.nothing, without_udp_checksum(question()), NEW,
             without_udp_checksum(question_at_backend())),
        Case("answer without checksum", talk.replied, without_udp_checksum(reply()), OUT,
             without_udp_checksum(reply_at_client()), PRIVATE),
        Case("ping of the vip", talk.nothing, ping(), Verdict.PASS_UNPARSED),
        Case("icmp error about no packet of ours", talk.established,
             ip(CLIENT, VIP, 1) / ICMP(type=3, code=4) / Raw(bytes(at_client("A", ttl=9))[:27]),
             Verdict.PASS_UNPARSED),
        Case("the other family", talk.nothing,
             Ether(src=PEER_MAC, dst=PUBLIC.mac) / IPv6() / TCP(dport=80), Verdict.PASS_UNPARSED),
        Case("ip version 5", talk.nothing, changed(from_client("S"), IP, version=5),
             Verdict.PASS_UNPARSED),
        Case("fragmented ping", talk.nothing,
             IP(src=CLIENT, dst=VIP, flags=MORE_FRAGMENTS) / ICMP() / Raw(bytes(100)),
             Verdict.PASS_UNPARSED),
        Case("later fragment of another protocol", first_of_question, later(CLIENT, VIP, 6),
             Verdict.DROP_FRAGMENT),
        Case("ip length beyond the frame", talk.established,
             changed(from_client("A", b"xy"), IP, len=43), Verdict.PASS_UNPARSED),
        Case("ip length below its header", talk.established,
             changed(from_client("A", b"xy"), IP, len=19), Verdict.PASS_UNPARSED),
        Case("ip length of zero", talk.established, changed(from_client("A", b"xy"), IP, len=0),
             Verdict.PASS_UNPARSED),
        Case("udp length of zero", talk.replied, changed(question(), UDP, len=0),
             Verdict.PASS_UNPARSED),
        Case("ip header length below the least", talk.established,
             changed(from_client("A", b"xy"), IP, ihl=4), Verdict.PASS_UNPARSED),
    ]  # fmt: skip
