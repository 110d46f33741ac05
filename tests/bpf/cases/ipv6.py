"""What IPv6 alone has: extension headers, addresses of special meaning, no datagram without sum."""

from __future__ import annotations

from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6ND_NS,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    Jumbo,
    PadN,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from llb_core.datapath.layout import Verdict
from tests.bpf.cases.case import IN, NEW, OUT, Case
from tests.bpf.cases.pieces import first_of_question
from tests.bpf.harness import talk
from tests.bpf.harness.packets import (
    at_backend,
    at_client,
    behind,
    changed,
    from_backend,
    from_client,
    ip,
    ping,
    question,
    question_at_backend,
    reply,
    reply_at_client,
    tcp,
    udp,
    with_headers,
    without_udp_checksum,
)
from tests.bpf.harness.rig import PEER_MAC
from tests.bpf.harness.world import BACKEND, CLIENT, PRIVATE, PUBLIC, PUBLIC_ADDRESS, SNAT, VIP

UNPARSED, UNREAD = Verdict.PASS_UNPARSED, Verdict.DROP_EXTENSIONS


def _padding(size: int) -> list[Packet]:
    """Options that make a header of so many bytes."""
    return [PadN(optdata=bytes(size - 4))]


HOPS = IPv6ExtHdrHopByHop(options=_padding(8))
LONG = IPv6ExtHdrHopByHop(options=_padding(64))
ENDS = IPv6ExtHdrDestOpt(options=_padding(16))
SHORT = IPv6ExtHdrDestOpt(options=_padding(8))
ARRIVED = IPv6ExtHdrRouting(type=0, segleft=0, addresses=["2001:db8::1"])
ON_ITS_WAY = IPv6ExtHdrRouting(type=0, segleft=1, addresses=["2001:db8::1"])
NO_MORE = IPv6ExtHdrFragment(offset=0, m=0, id=7)
FIRST = IPv6ExtHdrFragment(offset=0, m=1, id=7)

CHAINS = {
    "hop-by-hop options": [HOPS],
    "long hop-by-hop options": [LONG],
    "destination options": [ENDS],
    "a routing header at its end": [ARRIVED],
    "a fragment header of a whole datagram": [NO_MORE],
    "hop-by-hop and destination options": [HOPS, ENDS],
    "options before and behind a routing header": [HOPS, ENDS, ARRIVED, SHORT],
    "six extension headers": [HOPS, SHORT, ARRIVED, NO_MORE, SHORT, ENDS],
    "as many bytes of headers as are read": [LONG, *[IPv6ExtHdrDestOpt(options=_padding(64))] * 2],
}


def ipv6() -> list[Case]:
    """All of them."""
    return [
        *_extended(),
        *_unread(),
        *_left_alone(),
        *_parts(),
        *_unsummed(),
        *_martians(),
        *_strangers(),
    ]


def _extended() -> list[Case]:
    made = []
    for name, chain in CHAINS.items():
        made += [
            Case(f"syn behind {name}", talk.nothing, with_headers(from_client("S"), *chain), NEW,
                 with_headers(at_backend("S"), *chain)),
            Case(f"request behind {name}", talk.established,
                 with_headers(from_client("PA", b"odd"), *chain), IN,
                 with_headers(at_backend("PA", b"odd"), *chain)),
            Case(f"response behind {name}", talk.established,
                 with_headers(from_backend("A", b"even"), *chain), OUT,
                 with_headers(at_client("A", b"even"), *chain), PRIVATE),
            Case(f"question behind {name}", talk.nothing, with_headers(question(), *chain), NEW,
                 with_headers(question_at_backend(), *chain)),
            Case(f"answer behind {name}", talk.replied, with_headers(reply(), *chain), OUT,
                 with_headers(reply_at_client(), *chain), PRIVATE),
        ]  # fmt: skip
    return made


def _unread() -> list[Case]:
    """Chains that only the stack would read, and answer, were they left to it."""
    chains = {
        "seven extension headers": [HOPS, SHORT, SHORT, SHORT, SHORT, SHORT, SHORT],
        "ten extension headers": [HOPS, *[SHORT] * 9],
        "too many bytes of headers": [LONG, *[IPv6ExtHdrDestOpt(options=_padding(72))] * 2],
        "two fragment headers": [NO_MORE, NO_MORE],
    }
    made = []
    for name, chain in chains.items():
        made += [
            Case(f"syn behind {name}", talk.nothing, with_headers(from_client("S"), *chain),
                 UNREAD),
            Case(f"request behind {name}", talk.established,
                 with_headers(from_client("A", b"x"), *chain), UNREAD),
            Case(f"response behind {name}", talk.established,
                 with_headers(from_backend("A", b"x"), *chain), UNREAD, arrives_on=PRIVATE),
            Case(f"question behind {name}", talk.replied, with_headers(question(), *chain), UNREAD),
            Case(f"answer behind {name}", talk.replied, with_headers(reply(), *chain), UNREAD,
                 arrives_on=PRIVATE),
            Case(f"answer that nobody asked behind {name}", talk.nothing,
                 with_headers(reply(), *chain), UNREAD, arrives_on=PRIVATE),
            Case(f"ping of the vip behind {name}", talk.nothing,
                 behind(ip(CLIENT, VIP, 59), 58, *chain) / ping().payload, UNREAD),
            Case(f"syn to nobody of ours behind {name}", talk.nothing,
                 with_headers(tcp(CLIENT, PUBLIC_ADDRESS, 5000, 80, "S"), *chain), UNPARSED),
            Case(f"backend's syn to somebody else behind {name}", talk.nothing,
                 with_headers(tcp(BACKEND, CLIENT, 5000, 80, "S"), *chain), UNPARSED,
                 arrives_on=PRIVATE),
        ]  # fmt: skip
    made.append(
        Case("backend's address on the public side behind seven extension headers", talk.nothing,
             with_headers(tcp(BACKEND, VIP, 5000, 80, "S"), *chains["seven extension headers"]),
             Verdict.DROP_SPOOFED)
    )  # fmt: skip
    # Linux reads what has a length of zero before hop-by-hop options to its end, whatever they say.
    for name, options in (("jumbo", [Jumbo(jumboplen=36)]), ("padding", _padding(4))):
        hops = IPv6ExtHdrHopByHop(options=options)
        made += [
            Case(f"{what}, a length of zero before {name}", setup,
                 changed(with_headers(packet, hops), IPv6, plen=0), verdict, arrives_on=side)
            for what, setup, packet, verdict, side in (
                ("request", talk.established, from_client("A", b"x"), UNREAD, PUBLIC),
                ("response", talk.established, from_backend("A", b"x"), UNREAD, PRIVATE),
                ("question", talk.replied, question(), UNREAD, PUBLIC),
                ("backend's address on the public side", talk.nothing,
                 tcp(BACKEND, PUBLIC_ADDRESS, 5000, 80, "S"), Verdict.DROP_SPOOFED, PUBLIC),
                ("syn to nobody of ours", talk.nothing,
                 tcp(CLIENT, PUBLIC_ADDRESS, 5000, 80, "S"), UNPARSED, PUBLIC),
            )
        ]  # fmt: skip
    late = with_headers(question(), HOPS, SHORT, SHORT, SHORT, SHORT, SHORT, FIRST)
    made.append(Case("first fragment behind six extension headers", talk.nothing, late, UNREAD))
    return made


def _left_alone() -> list[Case]:
    """Chains that are left to the stack, which gets no further than we do."""
    syn = from_client("S")
    segment = bytes(syn[TCP])
    chains = {
        "hop-by-hop options that are not the first": [ENDS, HOPS],
        "a routing header on its way": [ON_ITS_WAY],
    }
    made = [
        Case(f"syn behind {name}", talk.nothing, with_headers(syn, *chain), UNPARSED)
        for name, chain in chains.items()
    ]
    for name, number in (
        ("authentication header", 51),
        ("encrypted payload", 50),
        ("no next header", 59),
        ("mobility header", 135),
        ("host identity", 139),
        ("shim6", 140),
        ("experiment", 253),
        ("what is not assigned", 200),
        ("ipv4 in ipv6", 4),
        ("ipv6 in ipv6", 41),
        ("gre in ipv6", 47),
        ("sctp", 132),
    ):
        made += [
            Case(name, talk.established, ip(CLIENT, VIP, number) / Raw(segment), UNPARSED),
            Case(f"{name} behind hop-by-hop options", talk.established,
                 behind(ip(CLIENT, VIP, 59), number, HOPS) / Raw(segment), UNPARSED),
        ]  # fmt: skip
    made += [
        Case("payload length of zero", talk.established, changed(syn, IPv6, plen=0), UNPARSED),
        Case("payload length beyond the frame", talk.established, changed(syn, IPv6, plen=21),
             UNPARSED),
        Case("payload length below the header of tcp", talk.established,
             changed(syn, IPv6, plen=19), UNPARSED),
        Case("payload that ends within an extension header", talk.established,
             changed(with_headers(syn, HOPS), IPv6, plen=7), UNPARSED),
        Case("payload that ends behind an extension header", talk.established,
             changed(with_headers(syn, HOPS), IPv6, plen=8), UNPARSED),
        Case("extension header that states more than there is", talk.established,
             changed(with_headers(syn, HOPS), IPv6ExtHdrHopByHop, len=9), UNPARSED),
        Case("ip version 5", talk.nothing, changed(syn, IPv6, version=5), UNPARSED),
    ]  # fmt: skip
    return made


def later_of(number: int) -> Packet:
    """The header of a datagram's last fragment."""
    return IPv6ExtHdrFragment(offset=185, m=0, id=number)


def _first_with_options(rig: talk.Sender) -> None:
    rig.send(with_headers(question(), FIRST, SHORT))


def _parts() -> list[Case]:
    """Fragments beside those that IPv4 has, too."""
    later = later_of(7)
    return [
        Case("first fragment behind hop-by-hop options", talk.nothing,
             with_headers(question(), HOPS, FIRST), NEW,
             with_headers(question_at_backend(), HOPS, FIRST)),
        Case("first fragment with destination options", talk.nothing,
             with_headers(question(), FIRST, SHORT), NEW,
             with_headers(question_at_backend(), FIRST, SHORT)),
        # What of these says what follows is the first fragment's alone (RFC 8200, 4.5).
        Case("later fragment that says it is of another protocol", first_of_question,
             behind(ip(CLIENT, VIP, 59), 6, later_of(1)) / Raw(bytes(64)), IN,
             behind(ip(SNAT, BACKEND, 59, ttl=63), 6, later_of(1)) / Raw(bytes(64))),
        Case("later fragment of a datagram with destination options", _first_with_options,
             behind(ip(CLIENT, VIP, 59), 60, later_of(7)) / Raw(bytes(64)), IN,
             behind(ip(SNAT, BACKEND, 59, ttl=63), 60, later_of(7)) / Raw(bytes(64))),
        *_cut(FIRST),
        *_cut(HOPS, FIRST),
        Case("later fragment behind hop-by-hop options", talk.nothing,
             behind(ip(CLIENT, VIP, 59), 17, HOPS, later) / Raw(bytes(64)),
             Verdict.DROP_FRAGMENT),
        Case("later fragment of a segment", talk.established,
             behind(ip(CLIENT, VIP, 59), 6, later) / Raw(bytes(64)), Verdict.DROP_FRAGMENT),
        Case("fragmented ping", talk.nothing,
             behind(ip(CLIENT, VIP, 59), 58, FIRST) / Raw(bytes(100)), UNPARSED),
        Case("fragment of nothing that is ours", talk.nothing,
             behind(ip(CLIENT, VIP, 59), 50, later) / Raw(bytes(64)), Verdict.PASS_NOT_OURS),
    ]  # fmt: skip


def _cut(*chain: Packet) -> list[Case]:
    """A chain of headers that goes on in the next fragment: the stack would put them together, find
    TCP behind them, and reset the connection that it doesn't know."""
    drop, options, nth = Verdict.DROP_FRAGMENT, _padding(8), len(chain)
    more, last = (bytes(IPv6ExtHdrDestOpt(nh=number, options=options)) for number in (60, 6))
    made = [
        Case(f"{name}, as header {nth}", talk.established,
             behind(ip(src, dst, 59), number, *chain) / Raw(data), verdict, arrives_on=side)
        for name, src, dst, number, data, verdict, side in (
            ("first fragment that ends within its extension headers", CLIENT, VIP, 60, more[:4],
             drop, PUBLIC),
            ("first fragment that ends with an extension header", CLIENT, VIP, 60, more, drop,
             PUBLIC),
            ("first fragment that ends where extension headers begin", CLIENT, VIP, 43, b"", drop,
             PUBLIC),
            ("first fragment of an extension header longer than it", CLIENT, VIP, 60,
             bytes([6, 9]) + more[2:], drop, PUBLIC),
            ("first fragment of a backend that ends with an extension header", BACKEND, SNAT, 60,
             more, drop, PRIVATE),
            ("first fragment to nobody of ours that ends with an extension header", CLIENT,
             PUBLIC_ADDRESS, 60, more, Verdict.PASS_NOT_OURS, PUBLIC),
            ("first fragment of something else that ends early", CLIENT, VIP, 50, b"",
             Verdict.PASS_NOT_OURS, PUBLIC),
        )
    ]  # fmt: skip
    rest = IPv6ExtHdrFragment(offset=1, m=0, id=7)
    return [
        *made,
        Case(f"later fragment that begins with an extension header, as header {nth}",
             talk.established, behind(ip(CLIENT, VIP, 59), 60, *chain[:-1], rest)
             / Raw(last + bytes(from_client("A", b"x")[TCP])), drop),
    ]  # fmt: skip


def _without_length(packet: Packet) -> Packet:
    return changed(packet, UDP, len=0)


def _unsummed() -> list[Case]:
    """Over IPv6 a datagram has a checksum (RFC 8200, 8.1): the stack drops one that has not."""
    return [
        Case("datagram without checksum", talk.nothing, without_udp_checksum(question()), UNPARSED),
        Case("datagram without checksum of a flow", talk.replied,
             without_udp_checksum(question()), UNPARSED),
        Case("answer without checksum", talk.replied, without_udp_checksum(reply()), UNPARSED,
             arrives_on=PRIVATE),
        Case("datagram without checksum behind options", talk.replied,
             without_udp_checksum(with_headers(question(), HOPS)), UNPARSED),
    ]  # fmt: skip


def _martians() -> list[Case]:
    return [
        Case(f"{name} as source", talk.nothing, tcp(address, VIP, 5000, 80, "S"),
             Verdict.DROP_NO_ROUTE)
        for name, address in (
            ("link-local address", "fe80::1"),
            ("last link-local address", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("ipv4-mapped address", "::ffff:192.0.2.10"),
            ("solicited-node address", "ff02::1:ff00:1"),
            ("last address of all", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        )
    ] + [
        Case(f"{name} as source, over udp", talk.nothing, udp(address, VIP, 5000, 53),
             Verdict.DROP_NO_ROUTE)
        for name, address in (("no address", "::"), ("loopback", "::1"), ("link-local", "fe80::9"))
    ] + [
        Case("unique local address as source", talk.nothing,
             tcp("fd00::1", VIP, 5000, 80, "S", ttl=64), NEW,
             tcp("10.0.0.11", "10.0.0.2", 5000, 8080, "S", ttl=63)),
        Case("address before the link-local ones as source", talk.nothing,
             tcp("fe7f::1", VIP, 5000, 80, "S", ttl=64), NEW,
             tcp("10.0.0.11", "10.0.0.2", 5000, 8080, "S", ttl=63)),
    ]  # fmt: skip


def _strangers() -> list[Case]:
    error = ip(CLIENT, VIP, 58) / ICMPv6DestUnreach() / Raw(bytes(at_client("A", ttl=9))[:47])
    return [
        Case("ping of the vip", talk.nothing, ping(), UNPARSED),
        Case("icmp error about no packet of ours", talk.established, error, UNPARSED),
        Case("neighbour solicitation", talk.nothing,
             ip(CLIENT, VIP, 58, ttl=255) / ICMPv6ND_NS(tgt="2001:db8::1"), UNPARSED),
        Case("neighbour solicitation with a backend's address on the public side", talk.nothing,
             ip(BACKEND, PUBLIC_ADDRESS, 58, ttl=255) / ICMPv6ND_NS(tgt="2001:db8::1"), UNPARSED),
        Case("the other family", talk.nothing,
             Ether(src=PEER_MAC, dst=PUBLIC.mac, type=0x0800) / Raw(bytes(from_client("S"))),
             UNPARSED),
        Case("flow label is kept", talk.established,
             changed(from_client("A", b"x"), IPv6, fl=0xABCDE), IN,
             changed(at_backend("A", b"x"), IPv6, fl=0xABCDE)),
        Case("udp length of all ones", talk.replied, changed(question(), UDP, len=65535),
             UNPARSED),
        # The stack takes it for the length of all that is there, and so does a backend.
        Case("udp length of zero", talk.replied, _without_length(question()), IN,
             _without_length(question_at_backend())),
        Case("udp length of zero that opens", talk.nothing, _without_length(question()), NEW,
             _without_length(question_at_backend())),
        Case("udp length of zero in an answer", talk.replied, _without_length(reply()), OUT,
             _without_length(reply_at_client()), PRIVATE),
        Case("udp length of zero in a first fragment", talk.nothing,
             _without_length(with_headers(question(), FIRST)), NEW,
             _without_length(with_headers(question_at_backend(), FIRST))),
        Case("udp length of zero to another port", talk.nothing,
             _without_length(udp(CLIENT, VIP, 5000, 9999)), Verdict.PASS_NOT_OURS),
    ]  # fmt: skip
