"""ICMP errors about what the balancer has sent: to the client, or to the backend, or to nobody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scapy.layers.inet import ICMP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
)
from scapy.packet import Packet, Raw

from llb_core.datapath.layout import Verdict
from tests.bpf.cases.case import Case, mss
from tests.bpf.harness import talk
from tests.bpf.harness.family import at_hand
from tests.bpf.harness.packets import (
    MORE_FRAGMENTS,
    OPTIONS,
    at_backend,
    at_client,
    from_backend,
    from_client,
    ip,
    question,
    question_at_backend,
    reply,
    reply_at_client,
    tcp,
    without_udp_checksum,
)
from tests.bpf.harness.world import (
    BACKEND,
    CLIENT,
    GATEWAY,
    NARROW,
    PRIVATE,
    PUBLIC,
    SECOND,
    SNAT,
    VIP,
    Interface,
)

ROUTER = "10.9.0.1"
"""On the way to the backends, and in no network of theirs."""
_KINDS: dict[int, dict[str, Callable[[], Packet]]] = {
    4: {
        "network unreachable": lambda: ICMP(type=3, code=0),
        "host unreachable": lambda: ICMP(type=3, code=1),
        "port unreachable": lambda: ICMP(type=3, code=3),
        "too big": lambda: ICMP(type=3, code=4, nexthopmtu=1400),
        "prohibited": lambda: ICMP(type=3, code=13),
        "source quench": lambda: ICMP(type=4),
        "time exceeded": lambda: ICMP(type=11, code=0),
        "reassembly time exceeded": lambda: ICMP(type=11, code=1),
        "parameter problem": lambda: ICMP(type=12, ptr=8),
    },
    6: {
        "no route": lambda: ICMPv6DestUnreach(code=0),
        "prohibited": lambda: ICMPv6DestUnreach(code=1),
        "address unreachable": lambda: ICMPv6DestUnreach(code=3),
        "port unreachable": lambda: ICMPv6DestUnreach(code=4),
        "too big": lambda: ICMPv6PacketTooBig(mtu=1400),
        "time exceeded": lambda: ICMPv6TimeExceeded(code=0),
        "reassembly time exceeded": lambda: ICMPv6TimeExceeded(code=1),
        "parameter problem": lambda: ICMPv6ParamProblem(code=1, ptr=6),
    },
}
_OTHERS: dict[int, dict[str, Callable[[], Packet]]] = {
    4: {
        "redirect": lambda: ICMP(type=5, code=1, gw="198.51.100.7"),
        "echo": lambda: ICMP(type=8),
        "echo reply": lambda: ICMP(type=0),
        "timestamp": lambda: ICMP(type=13),
        "icmp of no known type": lambda: ICMP(type=200),
    },
    6: {
        "neighbour solicitation, target of ours": lambda: ICMPv6ND_NS(tgt="2001:db8::1"),
        "neighbour advertisement": lambda: ICMPv6ND_NA(tgt="2001:db8::1"),
        "router solicitation": lambda: ICMPv6ND_RS(),
        "router advertisement": lambda: ICMPv6ND_RA(),
        "error of no known type": lambda: ICMPv6DestUnreach(type=100),
    },
}


def error(
    src: str, dst: str, kind: str, quoted: Packet | bytes, *, ttl: int = 64, **header: Any
) -> Packet:
    """Return an error about a packet; further words go into the IP header."""
    known = _KINDS[at_hand()] | _OTHERS[at_hand()]
    outer = ip(src, dst, 1 if at_hand() == 4 else 58, ttl=ttl, **header)
    return outer / known[kind]() / Raw(bytes(quoted))


def errors() -> list[Case]:
    """All of them."""
    return [*_delivered(), *_stale(), *_cut(), *_with_options(), *_reported_by_others(),
            *_left_alone(), *_dropped()]  # fmt: skip


Leg = tuple[str, talk.Given, Packet, Packet, str, str, str, str, Interface]
"""A name; what came before; what we sent, and what was sent to us for it; who reports it to whom;
who hears it from whom; where it arrives."""


def _legs() -> list[Leg]:
    to_backend, to_client = (BACKEND, SNAT, VIP, CLIENT, PRIVATE), (CLIENT, VIP, SNAT, BACKEND,
                                                                    PUBLIC)  # fmt: skip
    return [
        ("a request", talk.established, at_backend("A", b"request"),
         from_client("A", b"request", ttl=63), *to_backend),
        ("a response", talk.established, at_client("A", b"response"),
         from_backend("A", b"response", ttl=63), *to_client),
        ("a question", talk.replied, question_at_backend(), question(ttl=63), *to_backend),
        ("an answer", talk.replied, reply_at_client(), reply(ttl=63), *to_client),
    ]  # fmt: skip


def _case(name: str, given: talk.Given, packet: Packet, out: Packet, where: Interface) -> Case:
    return Case(name, given, packet, Verdict.FORWARD_ERROR, out, where)


def _delivered() -> list[Case]:
    made = [
        _case(f"{kind} about {what}", given, error(reporter, ours, kind, sent),
              error(as_if, hearer, kind, origin, ttl=63), where)
        for kind in _KINDS[at_hand()]
        for what, given, sent, origin, reporter, ours, as_if, hearer, where in _legs()
    ]  # fmt: skip
    made += [
        _case(f"too big about {what} while it opens", talk.opening,
              error(BACKEND, SNAT, "too big", at_backend("S", seq=talk.ISN, ack=0)),
              error(VIP, CLIENT, "too big", from_client("S", seq=talk.ISN, ack=0, ttl=63), ttl=63),
              PRIVATE)
        for what in ("a syn",)
    ]  # fmt: skip
    return made


def _far(rig: talk.Sender) -> None:
    """Each side has sent a hundred bytes, of which the other has acknowledged fifty."""
    talk.established(rig)
    rig.send(from_client("A", bytes(100), seq=1000, ack=1000))
    rig.send(from_backend("A", bytes(100), seq=1000, ack=1050), PRIVATE)
    rig.send(from_client("A", seq=1100, ack=1050))


def _stale() -> list[Case]:
    """What they quote must be able to be under way (RFC 5927, 4.1)."""
    stale = Verdict.DROP_STALE_ERROR
    made = []
    for kind in ("too big", "port unreachable"):
        for what, seq, is_current in (
            ("long acknowledged", 1000, False),
            ("just acknowledged", 1048, False),
            ("repeated to keep alive", 1049, True),
            ("not acknowledged", 1050, True),
            ("an ack of what is next", 1100, True),
            ("never sent", 1101, False),
            ("far away", 1000 + 2**31, False),
        ):
            name = f"{kind} about a segment that is {what}"
            request = error(BACKEND, SNAT, kind, at_backend("A", seq=seq, ack=1050))
            response = error(CLIENT, VIP, kind, at_client("A", seq=seq, ack=1050))
            if not is_current:
                made += [
                    Case(f"{name}, to a backend", _far, request, stale, arrives_on=PRIVATE),
                    Case(f"{name}, to a client", _far, response, stale),
                ]
                continue
            sent = from_client("A", seq=seq, ack=1050, ttl=63)
            answered = from_backend("A", seq=seq, ack=1050, ttl=63)
            made += [
                _case(f"{name}, to a backend", _far, request,
                      error(VIP, CLIENT, kind, sent, ttl=63), PRIVATE),
                _case(f"{name}, to a client", _far, response,
                      error(SNAT, BACKEND, kind, answered, ttl=63), PUBLIC),
            ]  # fmt: skip
    made += [
        Case("too big about another syn than the one that opens", talk.opening,
             error(BACKEND, SNAT, "too big", at_backend("S", seq=talk.ISN + 7, ack=0)), stale,
             arrives_on=PRIVATE),
        Case("too big about a response while nobody has answered", talk.opening,
             error(CLIENT, VIP, "too big", at_client("A", seq=1000)), stale),
    ]  # fmt: skip
    return made


def _cut() -> list[Case]:
    """Quotes of no more than routers owe (RFC 792), and of a bit more."""
    header = 20 if at_hand() == 4 else 40
    made = []
    for what, given, sent, origin, reporter, ours, as_if, hearer, where in _legs():
        is_tcp = what in ("a request", "a response")
        for size in (8, 12, 16, 18, 20, 24) if is_tcp else (8, 9, 12):
            was, becomes = bytes(sent)[: header + size], bytes(origin)[: header + size]
            made.append(
                _case(f"{size} bytes of {what} quoted", given,
                      error(reporter, ours, "too big", was),
                      error(as_if, hearer, "too big", becomes, ttl=63), where)
            )  # fmt: skip
        if is_tcp:
            # Half a checksum can't be put right.
            was, becomes = bytes(sent)[: header + 17], bytes(origin)[: header + 16]
            made.append(
                _case(f"17 bytes of {what} quoted", given, error(reporter, ours, "too big", was),
                      error(as_if, hearer, "too big", becomes + was[-1:], ttl=63), where)
            )  # fmt: skip
        long = bytes(sent) + b"padding behind it"
        made.append(
            _case(f"more than {what} quoted", given, error(reporter, ours, "time exceeded", long),
                  error(as_if, hearer, "time exceeded", bytes(origin) + b"padding behind it",
                        ttl=63), where)
        )  # fmt: skip
    return made


def _with_options() -> list[Case]:
    made = []
    for what, given, sent, origin, reporter, ours, as_if, hearer, where in _legs():
        made.append(
            _case(f"error with options about {what}", given,
                  error(reporter, ours, "too big", sent, options=OPTIONS),
                  error(as_if, hearer, "too big", origin, options=OPTIONS, ttl=63), where)
        )  # fmt: skip
    made += [
        _case("error about a request with options", talk.established,
              error(BACKEND, SNAT, "parameter problem", at_backend("A", options=OPTIONS)),
              error(VIP, CLIENT, "parameter problem", from_client("A", options=OPTIONS, ttl=63),
                    ttl=63), PRIVATE),
        _case("error about a response with options", talk.established,
              error(CLIENT, VIP, "parameter problem", at_client("A", options=OPTIONS)),
              error(SNAT, BACKEND, "parameter problem", from_backend("A", options=OPTIONS, ttl=63),
                    ttl=63), PUBLIC),
        _case("error about a first fragment", talk.replied,
              error(BACKEND, SNAT, "too big", question_at_backend(ip_flags=MORE_FRAGMENTS)),
              error(VIP, CLIENT, "too big", question(ip_flags=MORE_FRAGMENTS, ttl=63), ttl=63),
              PRIVATE),
    ]  # fmt: skip
    if at_hand() == 4:
        made.append(
            _case("error about a question without checksum", talk.replied,
                  error(BACKEND, SNAT, "too big", without_udp_checksum(question_at_backend())),
                  error(VIP, CLIENT, "too big", without_udp_checksum(question(ttl=63)), ttl=63),
                  PRIVATE)
        )  # fmt: skip
    return made


def _reported_by_others() -> list[Case]:
    """Whoever reports it: it is the balancer that tells."""
    made = []
    for name, reporter in (("router", ROUTER), ("other backend", SECOND), ("gateway", GATEWAY)):
        made.append(
            _case(f"too big about a request, by a {name}", talk.established,
                  error(reporter, SNAT, "too big", at_backend("A", b"x")),
                  error(VIP, CLIENT, "too big", from_client("A", b"x", ttl=63), ttl=63), PRIVATE)
        )  # fmt: skip
    for name, reporter in (("gateway", GATEWAY), ("router abroad", "192.0.2.200")):
        made.append(
            _case(f"too big about a response, by a {name}", talk.established,
                  error(reporter, VIP, "too big", at_client("A", b"x")),
                  error(SNAT, BACKEND, "too big", from_backend("A", b"x", ttl=63), ttl=63), PUBLIC)
        )  # fmt: skip
    return made


def _left_alone() -> list[Case]:
    """What the stack gets."""
    request, header = at_backend("A"), 20 if at_hand() == 4 else 40
    other_version = bytes([bytes(request)[0] ^ 0x50]) + bytes(request)[1:]
    quotes: dict[str, Packet | bytes] = {
        "quotes seven bytes": bytes(request)[: header + 7],
        "quotes a header alone": bytes(request)[:header],
        "quotes less than a header": bytes(request)[: header - 1],
        "quotes nothing": b"",
        "quotes another version": other_version,
        "quotes a later fragment": ip(SNAT, BACKEND, 6, frag=3) / Raw(bytes(request)[header:]),
        "quotes another protocol": ip(SNAT, BACKEND, 47) / Raw(bytes(request)[header:]),
        "quotes somebody else's packet": tcp(CLIENT, BACKEND, 5000, 8080, "A"),
    }
    if at_hand() == 4:
        quotes["quotes a header below the least"] = b"\x44" + bytes(request)[1:]
    unparsed = Verdict.PASS_UNPARSED
    made = [
        Case(f"error that {what}", talk.established, error(BACKEND, SNAT, "too big", quote),
             unparsed, arrives_on=PRIVATE)
        for what, quote in quotes.items()
    ]  # fmt: skip
    made += [
        Case(f"{kind} with a packet of ours", talk.established, error(CLIENT, VIP, kind,
             at_client("A")), unparsed)
        for kind in _OTHERS[at_hand()]
    ]  # fmt: skip
    made += [
        Case("error in fragments", talk.established,
             error(BACKEND, SNAT, "too big", request, ip_flags=MORE_FRAGMENTS), unparsed,
             arrives_on=PRIVATE),
        Case("error about a request of no connection", talk.nothing,
             error(BACKEND, SNAT, "too big", request), Verdict.PASS_NOT_OURS, arrives_on=PRIVATE),
        Case("error about a response of no connection", talk.nothing,
             error(CLIENT, VIP, "too big", at_client("A")), Verdict.PASS_NOT_OURS),
        Case("error about the other protocol", talk.established,
             error(BACKEND, SNAT, "too big", question_at_backend()), Verdict.PASS_NOT_OURS,
             arrives_on=PRIVATE),
        Case("error about a request from another port", talk.established,
             error(BACKEND, SNAT, "too big", tcp(SNAT, BACKEND, 5001, 8080, "A")),
             Verdict.PASS_NOT_OURS, arrives_on=PRIVATE),
    ]  # fmt: skip
    return made


def _open_narrow(rig: talk.Sender) -> None:
    rig.send(tcp(CLIENT, VIP, 5000, 84, "S", seq=talk.ISN, ttl=64))
    rig.send(tcp(NARROW, SNAT, 8084, 5000, "SA", seq=talk.ISN, ack=1000, ttl=64), PRIVATE)


def _dropped() -> list[Case]:
    return [
        Case("error about a request, on the public side", talk.established,
             error(GATEWAY, SNAT, "too big", at_backend("A")), Verdict.DROP_SPOOFED),
        Case("error of a backend about a request, on the public side", talk.established,
             error(BACKEND, SNAT, "too big", at_backend("A")), Verdict.DROP_SPOOFED),
        Case("error of a backend about a response, on the public side", talk.established,
             error(BACKEND, VIP, "too big", at_client("A")), Verdict.DROP_SPOOFED),
        Case("error of a backend about nothing that is ours, on the public side", talk.nothing,
             error(BACKEND, SNAT, "too big", at_backend("A")), Verdict.DROP_SPOOFED),
        Case("error with ttl 1 about a request", talk.established,
             error(BACKEND, SNAT, "too big", at_backend("A"), ttl=1), Verdict.DROP_TTL,
             arrives_on=PRIVATE),
        Case("error with ttl 1 about a response", talk.established,
             error(CLIENT, VIP, "too big", at_client("A"), ttl=1), Verdict.DROP_TTL),
        Case("error with ttl 2 about a response", talk.established,
             error(CLIENT, VIP, "too big", at_client("A"), ttl=2), Verdict.FORWARD_ERROR,
             error(SNAT, BACKEND, "too big", from_backend("A", ttl=63), ttl=1)),
        Case("error larger than the link", _open_narrow,
             error(CLIENT, VIP, "too big", tcp(VIP, CLIENT, 84, 5000, "A", bytes(mss(561)))),
             Verdict.DROP_TOO_BIG),
        Case("error as large as the link", _open_narrow,
             error(CLIENT, VIP, "too big", _cut_to(tcp(VIP, CLIENT, 84, 5000, "A", bytes(600)))),
             Verdict.FORWARD_ERROR,
             error(SNAT, NARROW, "too big",
                   _cut_to(tcp(NARROW, SNAT, 8084, 5000, "A", bytes(600))), ttl=63)),
    ]  # fmt: skip


def _cut_to(packet: Packet) -> bytes:
    """What an error of 600 bytes has room for."""
    header = 20 if at_hand() == 4 else 40
    return bytes(packet)[: 600 - header - 8]
